//! DP102 retry-gap: lookups that waited for a resolver's retry interval because a packet or an answer was late
//! or lost.
//!
//! Fires for a client and server when a lookup, some of whose queries were answered, waited at least 0.2 s for
//! an answer that did not come in time: the query was sent again for want of an answer, or its question was
//! given up, or it never came. `count` is the lookups that waited. The cause, from what the packets of the wait show:
//!
//! - the name of the drop's finding, `conntrack-insert-failed` (DP301), `conntrack-table-full` (DP302) or
//!   `packet-dropped` (DP303), (high): the kernel told that it dropped the query, its answer or its connection's SYN.
//! - `pair-race` (medium): of an A and AAAA pair sent together from one UDP port exactly one had no answer, its twin
//!   was answered within 0.2 s, and so was the resend: the pattern of two packets racing for one new conntrack
//!   entry.
//! - `one-type` (medium): as before, but the resends had no answer either: something eats queries of this type.
//! - `slow-server` (medium): the answer to the first message came after the resend: both were answered, or the one
//!   answer came long after the resend too.
//! - `silent-server` (medium): the resend went to another server, and the first one answered nothing.
//! - `loss` (low): anything else; one packet, query or answer, was lost.
//!
//! Looks alike and does not fire: a slow answer without a resend (DP204 where it is the rule), a resend after
//! SERVFAIL, REFUSED or ICMP (no wait was needed), a lookup none of whose queries was answered, or that
//! failed because only one of its names was not (DP104 says so).

use super::{
    Confidence, Cost, Culprit, Finding, Severity, Witnesses,
    cause::{Silence, drops, silence},
    causes::Causes,
    groups::{Absorb, Code, Symptoms},
    lookup_failed::is_failure,
    reasons::what_happened,
    search::{frames, questions, server_of},
};
use crate::{
    model::{
        Answer, Fate, Lookup, LookupResult, Name, PacketDrop, Question, QuestionOutcome, RetransmissionKind,
        Rtype, Step, Transmission, TransmissionKind, Transport,
    },
    output::text::human,
};
use std::{net::IpAddr, time::Duration};

const CODE: Code = Code { code: "DP102", name: "retry-gap" };
/// Resolvers' shortest retry interval is 0.25 s (c-ares 1.32); below 0.2 s a wait is only a latency.
const MIN_WAIT: Duration = Duration::from_millis(200);
/// Names kept for a group.
const MAX_NAMES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Cause {
    Dropped(Fate),
    OneType,
    PairRace,
    SlowServer,
    SilentServer,
    Loss,
}

#[derive(Debug, Default)]
struct Detail {
    names: Vec<Name>,
    qtypes: Vec<Rtype>,
    total: Duration,
    longest: Duration,
    /// What happened to the last packet that was dropped.
    dropped: String,
}

impl Detail {
    fn add_name(&mut self, name: Name) {
        if self.names.len() < MAX_NAMES && !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    fn add_type(&mut self, qtype: Rtype) {
        if self.qtypes.len() < MAX_NAMES && !self.qtypes.contains(&qtype) {
            self.qtypes.push(qtype);
        }
    }
}

impl Absorb for Detail {
    fn absorb(&mut self, other: &Self) {
        other.names.iter().for_each(|name| self.add_name(*name));
        other.qtypes.iter().for_each(|qtype| self.add_type(*qtype));
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
        if !other.dropped.is_empty() {
            self.dropped.clone_from(&other.dropped);
        }
    }
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct RetryGap(Symptoms<(IpAddr, IpAddr, Cause), Detail>);

impl RetryGap {
    /// A lookup that ended.
    pub(super) fn lookup(&mut self, lookup: &Lookup, witnesses: Witnesses<'_>) {
        if questions(lookup).all(|question| question.answer().is_none()) {
            return;
        }
        let worst = lookup
            .steps
            .iter()
            .flat_map(|step| step.questions.iter().map(move |question| (step, question)))
            .filter_map(|(step, question)| waited(lookup, step, question).map(|wait| (wait, step, question)))
            .max_by_key(|(wait, ..)| *wait);
        let Some((wait, step, question)) = worst else { return };
        let ended_it = lookup.steps.last().is_some_and(|last| std::ptr::eq(last, step));
        if lookup.result == LookupResult::Timeout && ended_it && silence(step, lookup) == Silence::OneName {
            return;
        }
        let Some(server) = server_of(question) else { return };
        let (cause, mut suspects) = (cause(step, question), witnesses.suspects(question));
        if matches!(cause, Cause::PairRace | Cause::OneType) {
            // Its twin went the same way, and that server answered it.
            suspects.retain(|suspect| !matches!(suspect, Culprit::Unanswered(..)));
        }
        let key = ((lookup.client, server, cause), suspects);
        // What a failed lookup cost, DP104 tells.
        let cost = Cost::waited(if is_failure(lookup) { Duration::ZERO } else { wait });
        let Some(detail) = self.0.charge(key, 1, cost, question.first_asked(), frames(question)) else {
            return;
        };
        detail.total += wait;
        detail.longest = detail.longest.max(wait);
        if let Some(drop) = worst_drop(question) {
            detail.dropped = what_happened(drop);
        }
        detail.add_name(question.name);
        detail.add_type(question.qtype);
    }

    /// What nothing in `causes` explains, and what something does.
    pub(super) fn told(&self, causes: &Causes) -> Vec<Finding> {
        self.0.findings(causes, |(client, server, cause), group| {
            let Detail { names, qtypes, total, longest, dropped } = &group.detail;
            let (word, confidence, what, advice) = told(*cause);
            let named = |text: &str| text.replace("SERVER", &server.to_string()).replace("DROP", dropped);
            let mut finding = group.tally.finding(CODE, Severity::Warning, confidence);
            // A drop that the kernel told of is no absence.
            finding.rests_on_absence = confidence < Confidence::High;
            let names: Vec<String> = names.iter().map(Name::to_string).collect();
            let qtypes: Vec<String> = qtypes.iter().map(Rtype::to_string).collect();
            finding.subject = vec![
                ("client", client.to_string()),
                ("server", server.to_string()),
                ("cause", word.into()),
                ("names", names.join(" ")),
            ];
            let waits = if longest.is_zero() {
                format!("got no answer to a query in {}", lookups(finding.count))
            } else if finding.count == 1 {
                format!("waited {} in 1 lookup", human(*longest))
            } else {
                format!("waited {} in {}, {} at most", human(*total), lookups(finding.count), human(*longest))
            };
            finding.summary = format!(
                "{client} {waits} ({} of {}): {}",
                qtypes.join(" and "),
                names.join(", "),
                named(what)
            );
            finding.advice = named(advice);
            Some(finding)
        })
    }
}

fn lookups(count: u64) -> String {
    if count == 1 { "1 lookup".into() } else { format!("{count} lookups") }
}

/// How long this question made its lookup wait for nothing; zero where an answer never came and nothing that
/// follows shows how long it was waited for (c-ares from 1.20 on waits 2 s and sends nothing more).
fn waited(lookup: &Lookup, step: &Step, question: &Question) -> Option<Duration> {
    // Nearly always: asked once, and answered.
    if let [sent] = &question.transmissions[..]
        && sent.kind == TransmissionKind::First
        && sent.dropped.is_none()
        && question.outcome != QuestionOutcome::Unanswered
        && question.answer().is_some()
    {
        return None;
    }
    let resent: Duration = question
        .transmissions
        .iter()
        .filter_map(|sent| match sent.kind {
            TransmissionKind::Retransmission(resent)
                if resent.kind == RetransmissionKind::Timeout && resent.gap >= MIN_WAIT =>
            {
                Some(resent.gap)
            }
            _ => None,
        })
        .sum();
    // A SYN that was dropped: the client's TCP sent it again.
    let connecting: Duration = question
        .transmissions
        .iter()
        .filter_map(|sent| Some((sent.time, sent.dropped.as_deref()?)))
        .map(|(time, drop)| time.since(drop.time))
        .filter(|wait| *wait >= MIN_WAIT)
        .sum();
    let given_up = if question.answer().is_none()
        && question.transmissions.iter().all(|sent| sent.unreachable.is_none())
    {
        let next = lookup.steps.iter().skip_while(|other| !std::ptr::eq(*other, step)).nth(1);
        let until = next
            .and_then(|next| next.questions.iter().map(Question::first_asked).min())
            .unwrap_or_else(|| lookup.end());
        question.transmissions.last().map_or(Duration::ZERO, |last| until.since(last.time))
    } else {
        Duration::ZERO
    };
    let wait = resent + connecting + if given_up >= MIN_WAIT { given_up } else { Duration::ZERO };
    let never_came = question.outcome == QuestionOutcome::Unanswered;
    (wait >= MIN_WAIT || never_came).then_some(wait)
}

/// The drop that cost the question most.
fn worst_drop(question: &Question) -> Option<&PacketDrop> {
    drops(question).max_by_key(|(_, wait)| *wait).map(|(drop, _)| drop)
}

fn cause(step: &Step, question: &Question) -> Cause {
    if let Some(drop) = worst_drop(question) {
        return Cause::Dropped(drop.fate);
    }
    let Some(first) = question.transmissions.first() else { return Cause::Loss };
    let resent_after = |sent: &Transmission| question.transmissions.iter().find(|next| next.time > sent.time);
    if question.replies().any(|(sent, answer)| resent_after(sent).is_some_and(|next| answer.time > next.time))
    {
        return Cause::SlowServer;
    }
    let first_lost = !question.replies().any(|(sent, _)| std::ptr::eq(sent, first));
    let twin = step.questions.iter().find_map(|other| twin_answer(other, question));
    if let (true, Some(answer)) = (first_lost, twin) {
        if question.transmissions.len() > 1 && question.answer().is_none() {
            return Cause::OneType;
        }
        // A query that leaves after its twin's answer finds the entry made: nothing to race for.
        if first.time < answer.time {
            return Cause::PairRace;
        }
    }
    let silent = question
        .transmissions
        .iter()
        .filter(|sent| sent.server == first.server)
        .all(|sent| sent.answered_by.is_none());
    let elsewhere = question.transmissions.iter().any(|sent| sent.server != first.server);
    if silent && elsewhere { Cause::SilentServer } else { Cause::Loss }
}

/// The answer to `twin`, where it is the other one of a pair (the other address type, from the same UDP port) and was
/// answered at once.
fn twin_answer<'a>(twin: &'a Question, question: &Question) -> Option<&'a Answer> {
    let (one, other) = (twin.transmissions.first()?, question.transmissions.first()?);
    let (_, answer) = twin.replies().find(|(sent, _)| std::ptr::eq(*sent, one))?;
    let pair = twin.qtype != question.qtype
        && twin.qtype.is_address()
        && question.qtype.is_address()
        && (one.client, one.transport) == (other.client, Transport::Udp);
    Some(answer).filter(|answer| pair && answer.time.since(one.time) < MIN_WAIT)
}

fn told(cause: Cause) -> (&'static str, Confidence, &'static str, &'static str) {
    match cause {
        Cause::Dropped(Fate::InsertFailed | Fate::ClashResolved) => (
            "conntrack-insert-failed",
            Confidence::High,
            "the kernel dropped it: DROP",
            "See DP301 for the packet and for ways out.",
        ),
        Cause::Dropped(Fate::TableFull) => (
            "conntrack-table-full",
            Confidence::High,
            "the kernel dropped it: DROP",
            "See DP302 for the table and what to do.",
        ),
        Cause::Dropped(Fate::Dropped) => (
            "packet-dropped",
            Confidence::High,
            "the kernel dropped it: DROP",
            "See DP303 (DP401 for OTHERHOST) for the reason and what to do.",
        ),
        Cause::OneType => (
            "one-type",
            Confidence::Medium,
            "its twin from the same port was answered at once, but queries of this type got no answer however often sent",
            "Something on the way to SERVER or in it eats this type: a firewall or a broken upstream. Capture at the \
             server's side to see which; the option no-aaaa (glibc 2.36+) avoids AAAA queries.",
        ),
        Cause::PairRace => (
            "pair-race",
            Confidence::Medium,
            "one of a pair from one port got no answer while its twin did at once, the pattern of the conntrack race",
            "Check `conntrack -S` for insert_failed on this node. Ways out: NodeLocal DNSCache (no translation, no \
             race), a kernel that resolves such clashes, options single-request-reopen (glibc only), or TCP.",
        ),
        Cause::SlowServer => (
            "slow-server",
            Confidence::Medium,
            "SERVER did answer the first query, but after the client had asked again",
            "Nothing was lost: look at the server's load and at its upstream for names outside the cluster.",
        ),
        Cause::SilentServer => (
            "silent-server",
            Confidence::Medium,
            "SERVER did not answer, another server then did",
            "Check that server: every lookup that starts with it waits. Take it out of resolv.conf if it is gone.",
        ),
        Cause::Loss => (
            "loss",
            Confidence::Low,
            "a query to SERVER or its answer was lost",
            "Capture at the server's side too: a query that arrives and is answered there was lost on its way back.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{answer_lost, ask, at, direct, drop_of, lookup, lost, witnessed};
    use crate::model::{Family, Rcode};

    fn found(lookups: &[Lookup]) -> Vec<Finding> {
        let mut rule = RetryGap::default();
        witnessed(|witnesses| lookups.iter().for_each(|lookup| rule.lookup(lookup, witnesses)));
        rule.told(&Causes::default())
    }

    const WEB: &str = "web.default.svc.cluster.local";

    fn causes(questions: Vec<Question>) -> Vec<String> {
        let findings = found(&[lookup("web", Family::Glibc, LookupResult::Ok, questions)]);
        findings.iter().map(|finding| finding.subject[2].1.clone()).collect()
    }

    #[test]
    fn fires_with_the_race_where_one_of_a_pair_is_lost() {
        let race = |at, family| {
            let a = ask(WEB, Rtype::A, at).address("10.96.4.7").build();
            let aaaa = ask(WEB, Rtype::AAAA, at).again(5_000, RetransmissionKind::Timeout).empty().build();
            lookup("web", family, LookupResult::Ok, vec![a, aaaa])
        };
        insta::assert_debug_snapshot!(found(&[race(1, Family::Glibc), race(20_000, Family::Glibc)]));
    }

    #[test]
    fn a_question_given_up_without_a_resend_is_a_wait_too() {
        let a = ask(WEB, Rtype::A, 0).address("10.96.4.7").build();
        let aaaa = ask(WEB, Rtype::AAAA, 0).build();
        let mut silent = lookup("web", Family::CAresFrom120, LookupResult::Ok, vec![a, aaaa]);
        silent.duration = Duration::from_secs(2);
        let findings = found(&[silent]);
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].summary.starts_with("10.244.1.5 waited 2.00 s in 1 lookup"),
            "{}",
            findings[0].summary
        );
    }

    #[test]
    fn an_answer_that_never_came_is_told_even_if_no_packet_shows_the_wait() {
        let a = ask(WEB, Rtype::A, 0).address("10.96.4.7").build();
        let aaaa = ask(WEB, Rtype::AAAA, 0).build();
        let mut open = aaaa.clone();
        let silent = lookup("web", Family::CAresFrom120, LookupResult::Ok, vec![a.clone(), aaaa]);
        let findings = found(&[silent]);
        assert!(
            findings[0].summary.contains("got no answer to a query in 1 lookup"),
            "{}",
            findings[0].summary
        );
        open.outcome = QuestionOutcome::Incomplete;
        let open = lookup("web", Family::CAresFrom120, LookupResult::Ok, vec![a, open]);
        assert_eq!(found(&[open]), [], "the capture ended before an answer was due");
    }

    /// Answered after 3 s, with a resend at 2.5 s that was answered too.
    fn late_and_again() -> Question {
        ask(WEB, Rtype::A, 0)
            .answered(Rcode::NOERROR, &["10.96.4.7"], 3_000)
            .again(2_500, RetransmissionKind::Timeout)
            .answered(Rcode::NOERROR, &["10.96.4.7"], 3_000)
            .build()
    }

    /// A pair whose AAAA is lost at first; `answer` says what came of its resend. As the engine counts, the answer is
    /// noted at the oldest message.
    fn half_lost(answer: bool, from_millis: u64) -> Vec<Question> {
        let a = ask(WEB, Rtype::A, 0).address("10.96.4.7").build();
        let mut aaaa = ask(WEB, Rtype::AAAA, from_millis).again(5_000, RetransmissionKind::Timeout);
        if answer {
            aaaa = aaaa.empty();
        }
        let mut aaaa = aaaa.build();
        let noted = aaaa.transmissions[1].answered_by.take();
        aaaa.transmissions[0].answered_by = noted;
        vec![a, aaaa]
    }

    #[test]
    fn a_race_needs_a_pair_on_its_way_together_and_an_answered_resend() {
        assert_eq!(causes(half_lost(true, 0)), ["pair-race"]);
        assert_eq!(causes(half_lost(false, 0)), ["one-type"]);
        assert_eq!(causes(half_lost(true, 3)), ["loss"], "sent after its twin's answer (single-request)");
    }

    #[test]
    fn a_drop_is_the_cause_whatever_else_it_looks_like() {
        let a = ask(WEB, Rtype::A, 0).address("10.96.4.7").build();
        let aaaa = ask(WEB, Rtype::AAAA, 0).again(5_000, RetransmissionKind::Timeout).empty();
        let aaaa = lost(aaaa, Fate::InsertFailed, "NETFILTER_DROP", "__nf_conntrack_confirm");
        let raced = lookup("web", Family::Glibc, LookupResult::Ok, vec![a, aaaa]);
        insta::assert_debug_snapshot!(found(&[raced]));
        let mut big =
            ask("big", Rtype::TXT, 0).truncated().over_tcp(1_001).answered(Rcode::NOERROR, &[], 1).build();
        let mut syn = drop_of(Fate::InsertFailed, at(1));
        (syn.dns, syn.transport) = (None, Transport::Tcp);
        big.transmissions[1].dropped = Some(syn.into());
        let big = lookup("big", Family::Glibc, LookupResult::Ok, vec![big]);
        let summary = found(&[big])[0].summary.clone();
        assert!(summary.starts_with("10.244.1.5 waited 1.00 s in 1 lookup (TXT of big)"), "{summary}");
        for (fate, cause) in [(Fate::TableFull, "conntrack-table-full"), (Fate::Dropped, "packet-dropped")] {
            let again = ask(WEB, Rtype::A, 0).again(2_500, RetransmissionKind::Timeout).address("10.96.4.7");
            assert_eq!(causes(vec![lost(again, fate, "", "")]), [cause]);
        }
        let late = ask(WEB, Rtype::A, 0).answered(Rcode::NOERROR, &["10.96.4.7"], 6_000);
        let mut late = answer_lost(late, "NO_SOCKET", "");
        late.answers[0].late = true;
        let a = ask(WEB, Rtype::AAAA, 0).empty().build();
        assert_ne!(causes(vec![a, late]), ["packet-dropped"], "nobody waited for it any more");
    }

    #[test]
    fn causes_are_told_apart() {
        let timeout = RetransmissionKind::Timeout;
        let late =
            ask(WEB, Rtype::A, 0).answered(Rcode::NOERROR, &["10.96.4.7"], 3_000).again(2_500, timeout);
        assert_eq!(causes(vec![late.address("10.96.4.7").build()]), ["slow-server"]);
        let mut late = late_and_again();
        late.transmissions[0].answered_by = Some(0);
        assert_eq!(causes(vec![late]), ["slow-server"], "both messages were answered");
        let failover = ask(WEB, Rtype::A, 0).again(5_000, timeout).to("10.96.0.11").address("10.96.4.7");
        assert_eq!(causes(vec![failover.build()]), ["silent-server"]);
        let both = [Rtype::A, Rtype::AAAA]
            .map(|t| ask(WEB, t, 0).again(5_000, timeout).address("10.96.4.7").build());
        assert_eq!(causes(both.to_vec()), ["loss"]);
    }

    #[test]
    fn does_not_fire_where_one_silent_name_ended_the_lookup() {
        let silent = [
            ask("api.example.com.svc", Rtype::A, 0).nxdomain().build(),
            ask("api.example.com.corp", Rtype::A, 2).again(2_500, RetransmissionKind::Timeout).build(),
        ];
        let result = |result| lookup("api.example.com", Family::Musl, result, silent.to_vec());
        assert_eq!(found(&[result(LookupResult::Timeout)]), []);
        assert_eq!(found(&[result(LookupResult::Ok)]).len(), 1);
    }

    #[test]
    fn does_not_fire_without_a_wait_for_nothing() {
        let slow = ask(WEB, Rtype::A, 0).answered(Rcode::NOERROR, &["10.96.4.7"], 3_000).build();
        assert_eq!(causes(vec![slow]), [""; 0], "a slow answer");
        let servfail = ask(WEB, Rtype::A, 0)
            .answered(Rcode::SERVFAIL, &[], 1)
            .again(2_500, RetransmissionKind::Servfail)
            .address("10.96.4.7");
        assert_eq!(causes(vec![servfail.build()]), [""; 0], "a resend after SERVFAIL");
        let dead = ask(WEB, Rtype::A, 0).again(5_000, RetransmissionKind::Timeout).build();
        assert_eq!(causes(vec![dead]), [""; 0], "no answer to anything");
        assert_eq!(found(&[direct("web", 0), direct("web", 5_000)]), [], "two lookups 5 s apart");
    }
}
