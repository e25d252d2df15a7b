//! Which finding explains which symptom: by what is to blame, not by words.
//!
//! A question that waited in vain has suspects, from its own packets: whatever one of the rules about causes would blame.
//! A rule about causes says whom its findings blame. Where the two meet, the wait is a symptom of that finding. So a cause
//! that takes many questions to be believed (one slow answer is no slow server) can still explain the first of them.

use super::{cause::drops, untranslated_reply::UntranslatedReply, ways::addresses, wrong_mac::WrongMac};
use crate::model::{Answer, Fate, Name, PacketDrop, Question, Rcode, VantageId};
use smallvec::SmallVec;
use std::{net::IpAddr, sync::Arc, time::Duration};

/// What may be to blame for a message that was lost, late, or answered wrongly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Culprit {
    /// Conntrack, for a client and the server it asked (DP301).
    InsertFailed(IpAddr, IpAddr),
    /// Conntrack's full table (DP302).
    TableFull,
    /// The kernel, by its reason and place, and the address where nobody listened (DP303).
    Dropped(Arc<str>, Arc<str>, Option<IpAddr>),
    /// A neighbour entry for this address (DP401).
    WrongMac(IpAddr),
    /// A missing translation, for a client and the server it asked (DP206).
    Untranslated(IpAddr, IpAddr),
    /// A service without endpoints (DP202).
    NoEndpoints(IpAddr),
    /// A server that forwards to itself (DP205).
    Loop(IpAddr),
    /// The node, behind the place where a query to this address was last seen, or its answer (DP402).
    LostOnNode { answer: bool, server: IpAddr, last: VantageId },
    /// What lies between two nodes, for a server (DP403).
    BetweenNodes(IpAddr),
    /// The address asked, and the backend behind it that does not answer (DP201).
    Unanswered(IpAddr, IpAddr),
    /// A server's slowness (DP204).
    Slow(IpAddr),
    /// A server's errors (DP203).
    Errors(IpAddr, Rcode),
    /// Answers that came too late, for a client and the server it asked (DP105).
    Late(IpAddr, IpAddr),
    /// Empty answers for a client's search suffix (DP103).
    EmptyNoerror(IpAddr, Name),
    /// A cut answer, for a client and name (DP106).
    Truncated(IpAddr, Name),
    /// An ndots by which a client asks this name without its search list (DP501).
    Unsearched(IpAddr, Name),
}

/// Suspects, the surest first.
pub(crate) type Suspects = Vec<Culprit>;

/// What a single answer may take before its server is called slow.
pub(super) const SLOW: Duration = Duration::from_millis(500);

/// What the rules know that a question itself does not tell.
#[derive(Clone, Copy)]
pub(super) struct Witnesses<'a> {
    pub(super) wrong_mac: &'a WrongMac,
    pub(super) untranslated_reply: &'a UntranslatedReply,
}

impl Witnesses<'_> {
    /// Who may be to blame for the waits of this question.
    pub(super) fn suspects(&self, question: &Question) -> Suspects {
        let mut suspects = Suspects::new();
        let mut suspect = |culprit: Culprit| {
            if !suspects.contains(&culprit) {
                suspects.push(culprit);
            }
        };
        // Whatever became of the single packet.
        for sent in question.transmissions.iter().filter(|sent| sent.answered_by.is_none()) {
            let (server, backend) = addresses(sent);
            if sent.backend.is_none() {
                suspect(Culprit::NoEndpoints(server));
            }
            suspect(Culprit::Loop(server));
            suspect(Culprit::Loop(backend));
        }
        let mut dropped: SmallVec<[(&PacketDrop, Duration); 2]> = drops(question).collect();
        dropped.sort_by_key(|(_, wait)| std::cmp::Reverse(*wait));
        dropped.into_iter().map(|(drop, _)| blamed(drop)).for_each(&mut suspect);
        self.wrong_mac.blamed(question).into_iter().for_each(&mut suspect);
        self.untranslated_reply.blamed(question).into_iter().for_each(&mut suspect);
        for sent in question.transmissions.iter().filter(|sent| sent.answered_by.is_none()) {
            let (server, backend) = addresses(sent);
            if let Some(last) = sent.hops.last() {
                suspect(Culprit::LostOnNode { answer: false, server, last: last.vantage });
            }
            suspect(Culprit::BetweenNodes(backend));
            suspect(Culprit::Unanswered(server, backend));
        }
        // What was answered, but not to the client's use.
        let taken = |answer: &Answer| question.answer().is_some_and(|it| std::ptr::eq(it, answer));
        for (sent, answer) in question.replies().filter(|(_, answer)| !taken(answer)) {
            let (server, backend) = addresses(sent);
            if let Some(last) = answer.hops.last() {
                suspect(Culprit::LostOnNode { answer: true, server, last: last.vantage });
            }
            suspect(Culprit::BetweenNodes(backend));
        }
        for (sent, answer) in question.replies() {
            if answer.time.since(sent.time) >= SLOW {
                suspect(Culprit::Slow(sent.server.ip()));
            }
        }
        for (sent, answer) in question.replies() {
            if answer.late {
                suspect(Culprit::Late(question.client, sent.server.ip()));
            } else if answer.counts() {
                suspect(Culprit::Errors(sent.server.ip(), answer.rcode));
            }
        }
        suspects
    }
}

/// Whom the rules about drops blame for one.
pub(super) fn blamed(drop: &PacketDrop) -> Culprit {
    let asked = drop.asked();
    match drop.fate {
        Fate::InsertFailed | Fate::ClashResolved => {
            Culprit::InsertFailed(asked.source.ip(), asked.destination.ip())
        }
        Fate::TableFull => Culprit::TableFull,
        Fate::Dropped if &*drop.reason == "OTHERHOST" => Culprit::WrongMac(drop.flow.destination.ip()),
        Fate::Dropped => {
            let nobody_at = (&*drop.reason == "NO_SOCKET").then(|| drop.flow.destination.ip());
            Culprit::Dropped(Arc::clone(&drop.reason), Arc::clone(&drop.place), nobody_at)
        }
    }
}
