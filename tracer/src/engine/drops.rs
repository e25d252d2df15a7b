//! Drops and clashes → the messages they befell.
//!
//! A drop waits for [`super::Config::slack`] like a sighting, and once more, so that what was seen of its packet is
//! known. Then its message is looked for by the connection's original tuple (what the client sent), the transport,
//! and the id and name where they can be read. Of a message sent again with the same id it is the newest before the
//! drop. Where the data cannot be read it is the socket's newest message without an answer; of those that left
//! together, the one that got least far.
//!
//! A bare TCP segment belongs to the query that its connection carries later: it waits for that ([`SYN_PATIENCE`]),
//! then goes to the truncated question that the client wanted to ask over TCP.
//!
//! A message that was answered all the same was not lost: a copy of it was dropped (a bridge floods, say). It keeps its
//! question, and nothing is marked.

use super::{
    Engine,
    intern::Endpoint,
    questions::Standing,
    records::{Bits, MessageKey, MessageRecord},
    table::{NONE, Place},
};
use crate::model::{Fate, Observer, PacketDrop, QuestionId, Rival, Rtype, Transport};
use hashbrown::HashMap;
use std::{collections::VecDeque, sync::Arc};

const MILLISECOND: u64 = 1_000_000;
/// Two reports of one packet (that its connection could not be entered, and that it was freed) come within this time.
const ONE_PACKET: u64 = MILLISECOND;
/// The same report by two probes.
const ONE_REPORT: u64 = 20_000;
/// A SYN is sent again after 1 s and after 3 s.
const SYN_PATIENCE: u64 = 4_000 * MILLISECOND;
/// Messages of one socket that left together.
const TOGETHER: u64 = MILLISECOND;
/// A clash needs two packets of one tuple in flight: connections are entered within this time.
const RIVAL_WINDOW: u64 = 5 * MILLISECOND;
/// Drops that wait at once; with more, the oldest are joined before their time.
const MOST_WAITING: usize = 4_096;
const MOST_SYNS: usize = 1_024;
/// Messages of a socket, and of one name, type and id, that are looked at.
const LONGEST_WALK: usize = 1_024;
const SAME_ID_WALK: usize = 64;

/// Drops that wait to be joined, and those that were, by their message.
#[derive(Debug)]
pub(super) struct Drops {
    slack: u64,
    /// By time.
    waiting: VecDeque<PacketDrop>,
    /// Bare TCP segments without a message so far, by time.
    syns: VecDeque<PacketDrop>,
    /// When the next one is to be joined; `u64::MAX` where none waits.
    pub(super) next_due: u64,
    of_message: HashMap<Place, Arc<PacketDrop>, foldhash::fast::FixedState>,
}

impl Drops {
    pub(super) fn new(slack: u64, hasher: foldhash::fast::FixedState) -> Self {
        Self {
            slack,
            waiting: VecDeque::new(),
            syns: VecDeque::new(),
            next_due: u64::MAX,
            of_message: HashMap::with_hasher(hasher),
        }
    }

    /// What was dropped of a message.
    pub(super) fn of_message(&self, place: Place) -> Option<&Arc<PacketDrop>> {
        self.of_message.get(&place)
    }

    pub(super) fn forget(&mut self, place: Place) {
        self.of_message.remove(&place);
    }

    pub(super) fn awaits_tcp(&self) -> bool {
        !self.syns.is_empty()
    }

    pub(super) fn memory(&self) -> usize {
        (self.waiting.capacity() + self.syns.capacity()) * size_of::<PacketDrop>()
            + self.of_message.capacity() * size_of::<(Place, PacketDrop)>()
    }

    fn put(&mut self, drop: PacketDrop) {
        let at = self.waiting.partition_point(|other| (other.time, other.frame) <= (drop.time, drop.frame));
        self.waiting.insert(at, drop);
        self.schedule();
    }

    fn put_syn(&mut self, drop: PacketDrop) {
        let at = self.syns.partition_point(|other| (other.time, other.frame) <= (drop.time, drop.frame));
        self.syns.insert(at, drop);
    }

    fn schedule(&mut self) {
        let due = |drop: Option<&PacketDrop>, wait| {
            drop.map_or(u64::MAX, |drop| drop.time.as_nanos().saturating_add(wait))
        };
        self.next_due = due(self.waiting.front(), self.slack).min(due(self.syns.front(), SYN_PATIENCE));
    }

    /// The next one to be joined; whether it was tried before.
    fn take(&mut self) -> Option<(PacketDrop, bool)> {
        let first = |drops: &VecDeque<PacketDrop>, wait: u64| {
            drops.front().map(|drop| drop.time.as_nanos().saturating_add(wait))
        };
        let tried = match (first(&self.waiting, self.slack), first(&self.syns, SYN_PATIENCE)) {
            (Some(new), Some(old)) => old < new,
            (new, _) => new.is_none(),
        };
        let taken = if tried { self.syns.pop_front() } else { self.waiting.pop_front() };
        let mut drop = taken?;
        while !tried
            && let Some(other) = self.waiting.iter().position(|other| is_same_packet(&drop, other))
            && let Some(other) = self.waiting.remove(other)
        {
            drop = merged(drop, other);
        }
        self.schedule();
        Some((drop, tried))
    }
}

/// Whether two reports are of one packet: of one socket, CPU and message at one time, one of them only that the packet
/// was freed in a hook, the other why; or the same report twice.
fn is_same_packet(one: &PacketDrop, other: &PacketDrop) -> bool {
    let apart = one.time.as_nanos().abs_diff(other.time.as_nanos());
    let id = |drop: &PacketDrop| drop.dns.as_ref().map(|dns| dns.id);
    let same_socket = one.flow == other.flow || one.asked() == other.asked();
    if apart > ONE_PACKET || one.cpu != other.cpu || one.transport != other.transport || !same_socket {
        return false;
    }
    let vague = |drop: &PacketDrop| {
        drop.fate == Fate::Dropped && matches!(&*drop.reason, "" | "NETFILTER_DROP" | "NOT_SPECIFIED")
    };
    let explains = |drop: &PacketDrop| matches!(drop.fate, Fate::InsertFailed | Fate::TableFull);
    let ids_agree = id(one).is_none() || id(other).is_none() || id(one) == id(other);
    let explained = (vague(one) && explains(other)) || (explains(one) && vague(other));
    let twice = one.fate == other.fate && id(one).is_some() && id(one) == id(other) && apart <= ONE_REPORT;
    (explained && ids_agree) || twice
}

/// One report of two: what is told more exactly, and the rest from the other.
fn merged(one: PacketDrop, other: PacketDrop) -> PacketDrop {
    let time = one.time.min(other.time);
    let (mut kept, other) = if one.fate == Fate::Dropped { (other, one) } else { (one, other) };
    kept.time = time;
    if kept.reason.is_empty() {
        kept.reason = other.reason;
    }
    if kept.place.is_empty() {
        kept.place = other.place;
    }
    kept.connection = kept.connection.or(other.connection);
    kept.destination_mac = kept.destination_mac.or(other.destination_mac);
    kept.dns = kept.dns.or(other.dns);
    kept
}

/// What a drop is looked for by.
struct Wanted {
    client: Endpoint,
    server: Endpoint,
    tcp: bool,
    time: u64,
    response: bool,
    id: Option<u16>,
}

impl Wanted {
    fn fits(&self, record: &MessageRecord) -> bool {
        !record.bits.has(Bits::RESPONSE)
            && record.question != NONE
            && record.bits.has(Bits::TCP) == self.tcp
            && record.client == self.client
            && (record.server == self.server || record.backend == self.server)
            && self.id.is_none_or(|id| id == record.dns.id)
    }
}

/// A message that may be the dropped one.
#[derive(Clone, Copy)]
struct Candidate {
    /// The query, or the response that was dropped.
    place: Place,
    query: Place,
    time: u64,
    hops: usize,
    /// It arrived (a query with an answer), or another drop was its.
    settled: bool,
}

impl Engine {
    /// Takes what the kernel's probe told of one packet.
    pub fn observe_drop(&mut self, drop: &PacketDrop, out: &mut impl Observer) {
        let time = drop.time.as_nanos();
        if !self.started {
            self.started = true;
            self.restart(time);
        }
        self.note_clock(time, out);
        self.pass_on(time, out);
        self.drops.put(drop.clone());
        while self.drops.waiting.len() > MOST_WAITING || self.drops.syns.len() > MOST_SYNS {
            self.join_next_drop(out);
        }
    }

    /// Joins every drop that waits, as far as can be said now.
    pub(super) fn join_all_drops(&mut self, out: &mut impl Observer) {
        while self.drops.next_due != u64::MAX {
            self.join_next_drop(out);
        }
    }

    pub(super) fn join_next_drop(&mut self, out: &mut impl Observer) {
        let Some((drop, tried)) = self.drops.take() else { return };
        let bare_tcp = drop.transport == Transport::Tcp && drop.dns.is_none();
        match self.befallen(&drop) {
            Some(found) => self.tell_drop(drop, found.query, (!found.settled).then_some(found.place), out),
            None if bare_tcp && !tried => {
                self.drops.put_syn(drop);
                self.drops.schedule();
            }
            None if bare_tcp => {
                let query = self.truncated_query(&drop);
                self.tell_drop(drop, query, None, out);
            }
            None => self.tell_drop(drop, NONE, None, out),
        }
    }

    /// A query over TCP came: the drops of its connection's first segments belong to it.
    pub(super) fn join_syns(&mut self, query: Place, out: &mut impl Observer) {
        let record = self.messages.at(query);
        let (client, server) = (self.addresses.socket(record.client), self.addresses.socket(record.server));
        let of_it = |drop: &PacketDrop| {
            let asked = drop.asked();
            asked.source == client && asked.destination == server
        };
        while let Some(at) = self.drops.syns.iter().position(of_it)
            && let Some(drop) = self.drops.syns.remove(at)
        {
            self.tell_drop(drop, query, Some(query), out);
        }
        self.drops.schedule();
    }

    /// Tells a drop with the question of `query`, and marks the message that was lost by it.
    fn tell_drop(
        &mut self,
        mut drop: PacketDrop,
        query: Place,
        lost: Option<Place>,
        out: &mut impl Observer,
    ) {
        if query != NONE {
            let question = self.messages.at(query).question;
            drop.question = Some(QuestionId(self.questions.at(question).number));
            if matches!(drop.fate, Fate::InsertFailed | Fate::ClashResolved) {
                drop.rival = self.rival(query);
            }
        }
        self.counters.drops += u64::from(drop.fate.is_loss());
        let Some(place) = lost.filter(|_| drop.fate.is_loss()) else {
            out.packet_drop(&drop);
            return;
        };
        // A SYN is not the query: that came later, and arrived.
        let arrived = drop.transport == Transport::Tcp
            && drop.dns.is_none()
            && self.messages.at(place).time > drop.time.as_nanos().saturating_add(self.drops.slack);
        let drop = Arc::new(drop);
        out.packet_drop(&drop);
        let bits = &mut self.messages.at_mut(place).bits;
        bits.set(Bits::HAS_DROP, true);
        bits.set(Bits::DROPPED, !arrived);
        let response = bits.has(Bits::RESPONSE);
        self.drops.of_message.insert(place, drop);
        if response {
            let lookup = self.questions.at(self.messages.at(place).question).lookup;
            self.note_answer(lookup, place);
        }
    }

    /// The message that a drop befell.
    fn befallen(&mut self, drop: &PacketDrop) -> Option<Candidate> {
        let asked = drop.asked();
        let near = self.addresses.endpoint(asked.source);
        let wanted = Wanted {
            client: self.aliases.inside(near).unwrap_or(near),
            server: self.addresses.endpoint(asked.destination),
            tcp: drop.transport == Transport::Tcp,
            time: drop.time.as_nanos(),
            response: drop.is_response(),
            id: drop.dns.as_ref().map(|dns| dns.id),
        };
        let named = drop.dns.as_ref().filter(|dns| dns.has_question);
        let mut found: Vec<Candidate> = Vec::new();
        if let Some(dns) = named {
            let name = self.names.hold(dns.name.as_wire());
            let key = MessageKey { name, qtype: dns.qtype.0, id: dns.id };
            let mut place = self.by_id.newest(&self.messages, &key);
            for _ in 0..SAME_ID_WALK {
                if place == NONE {
                    break;
                }
                let record = self.messages.at(place);
                if wanted.fits(record) {
                    found.extend(self.candidates(&wanted, place));
                } else if wanted.response && record.question == NONE && record.bits.has(Bits::RESPONSE) {
                    found.extend(self.unmatched(&wanted, place));
                }
                place = record.same_id_links.older;
            }
            self.names.release(name);
        } else {
            self.walk_socket(&wanted, &mut found);
        }
        let best = best(&found, wanted.time, self.drops.slack)?;
        (best.query != NONE).then_some(best)
    }

    /// The candidates that the messages of one socket make.
    fn walk_socket(&self, wanted: &Wanted, found: &mut Vec<Candidate>) {
        let mut lookup = self.newest_lookup(wanted.client.address());
        let mut looked_at = 0;
        while lookup != NONE {
            let mut question = self.lookups.at(lookup).first_question;
            while question != NONE {
                let record = self.questions.at(question);
                let mut place = record.last;
                while place != NONE {
                    if wanted.fits(self.messages.at(place)) {
                        found.extend(self.candidates(wanted, place));
                    }
                    looked_at += 1;
                    if looked_at > LONGEST_WALK {
                        return;
                    }
                    place = self.messages.at(place).previous;
                }
                question = record.next;
            }
            lookup = self.lookups.at(lookup).of_client.older;
        }
    }

    /// The query at `place` as a candidate, or its response where one was dropped: seen, or never seen.
    fn candidates(&self, wanted: &Wanted, place: Place) -> Option<Candidate> {
        let query = self.messages.at(place);
        let has_drop = query.bits.has(Bits::HAS_DROP);
        if !wanted.response || query.peer == NONE {
            let settled = query.peer != NONE || has_drop;
            return Some(Candidate {
                place,
                query: place,
                time: query.time,
                hops: query.hops.iter(&self.further_hops).count(),
                settled,
            });
        }
        let answer = self.messages.at(query.peer);
        let settled = answer.bits.has(Bits::HAS_DROP);
        let hops = answer.hops.iter(&self.further_hops).count();
        Some(Candidate { place: query.peer, query: place, time: answer.time, hops, settled })
    }

    /// A response without a query to the same socket: it has no question.
    fn unmatched(&self, wanted: &Wanted, place: Place) -> Option<Candidate> {
        let answer = self.messages.at(place);
        let its = answer.client == wanted.client && answer.bits.has(Bits::TCP) == wanted.tcp;
        its.then_some(Candidate { place, query: NONE, time: answer.time, hops: 0, settled: false })
    }

    /// The truncated query that the client of a bare TCP segment wanted to ask again.
    fn truncated_query(&mut self, drop: &PacketDrop) -> Place {
        let asked = drop.asked();
        let client = self.addresses.endpoint(asked.source);
        let server = self.addresses.endpoint(asked.destination);
        let mut lookup = self.newest_lookup(client.address());
        for _ in 0..SAME_ID_WALK {
            if lookup == NONE {
                break;
            }
            let mut question = self.lookups.at(lookup).first_question;
            while question != NONE {
                let record = self.questions.at(question);
                let last = self.messages.at(record.last);
                if last.server == server
                    && last.time <= drop.time.as_nanos()
                    && self.standing(question, u64::MAX) == Standing::Truncated
                {
                    return record.last;
                }
                question = record.next;
            }
            lookup = self.lookups.at(lookup).of_client.older;
        }
        NONE
    }

    /// The other query of the lookup that the same socket sent at about the same time, the nearest one.
    fn rival(&self, query: Place) -> Option<Rival> {
        let own = self.messages.at(query);
        let mut best: Option<(u64, Rival)> = None;
        let mut question = self.lookups.at(self.questions.at(own.question).lookup).first_question;
        while question != NONE {
            let record = self.questions.at(question);
            let mut place = record.first;
            while place != NONE {
                let other = self.messages.at(place);
                let apart = other.time.abs_diff(own.time);
                if place != query
                    && (other.client, other.bits.has(Bits::TCP)) == (own.client, own.bits.has(Bits::TCP))
                    && apart <= RIVAL_WINDOW
                    && best.is_none_or(|(least, _)| apart < least)
                {
                    best = Some((apart, Rival { qtype: Rtype(other.dns.qtype), id: other.dns.id }));
                }
                place = other.next;
            }
            question = record.next;
        }
        best.map(|(_, rival)| rival)
    }
}

/// The newest before the drop that is not settled, of those that left with it the one that got least far; else the
/// earliest that came within the slack; else a settled one.
fn best(found: &[Candidate], time: u64, slack: u64) -> Option<Candidate> {
    let before = |settled: bool| {
        let these = || found.iter().filter(move |c| c.settled == settled && c.time <= time);
        let newest = these().map(|c| c.time).max()?;
        let together = these().filter(|c| newest - c.time <= TOGETHER);
        together.min_by_key(|c| (c.hops, u64::MAX - c.time)).copied()
    };
    let after = |settled: bool| {
        let soon = found.iter().filter(|c| c.settled == settled && c.time > time && c.time - time <= slack);
        soon.min_by_key(|c| c.time).copied()
    };
    before(false).or_else(|| after(false)).or_else(|| before(true)).or_else(|| after(true))
}
