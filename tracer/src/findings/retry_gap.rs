//! DP102 retry-gap: lookups that waited for a resolver's retry interval because a packet or an answer was late
//! or lost.
//!
//! Fires for a client and server when a lookup, some of whose queries were answered, waited at least 0.2 s for
//! an answer that did not come in time: the query was sent again for want of an answer, or its question was
//! given up. `count` is the lookups that waited. The cause, from what the packets of the wait show:
//!
//! - `pair-race` (medium): of an A and AAAA pair sent from one UDP port exactly one had no answer, its twin was
//!   answered within 0.2 s: the pattern of two packets racing for one new conntrack entry.
//! - `slow-server` (high): the answer to the first message came after the resend, or both were answered.
//! - `silent-server` (medium): the resend went to another server, and the first one answered nothing.
//! - `loss` (low): anything else; one packet, query or answer, was lost.
//!
//! Looks alike and does not fire: a slow answer without a resend (DP204 where it is the rule), a resend after
//! SERVFAIL, REFUSED or ICMP (no wait was needed), a lookup none of whose queries was answered (DP104).

use super::{
    Confidence, Finding, Rule, Severity,
    groups::{Code, Groups},
    search::{frames, questions, server_of},
};
use crate::{
    model::{Lookup, Name, Question, RetransmissionKind, Rtype, Step, TransmissionKind, Transport},
    output::text::human,
};
use std::{net::IpAddr, time::Duration};

const CODE: Code = Code { code: "DP102", name: "retry-gap" };
/// Resolvers' shortest retry interval is 0.25 s (c-ares 1.32); below 0.2 s a wait is only a latency.
const MIN_WAIT: Duration = Duration::from_millis(200);
/// Names kept for a group.
const MAX_NAMES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
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
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct RetryGap(Groups<(IpAddr, IpAddr, Cause), Detail>);

impl Rule for RetryGap {
    fn lookup(&mut self, lookup: &Lookup) {
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
        let Some(server) = server_of(question) else { return };
        let key = (lookup.client, server, cause(step, question));
        let Some(detail) = self.0.add(key, 1, question.first_asked(), frames(question)) else { return };
        detail.total += wait;
        detail.longest = detail.longest.max(wait);
        if detail.names.len() < MAX_NAMES && !detail.names.contains(&question.name) {
            detail.names.push(question.name);
        }
        if detail.qtypes.len() < MAX_NAMES && !detail.qtypes.contains(&question.qtype) {
            detail.qtypes.push(question.qtype);
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|(client, server, cause), group| {
            let Detail { names, qtypes, total, longest } = &group.detail;
            let (word, confidence, what, advice) = told(*cause);
            let mut finding = group.tally.finding(CODE, Severity::Warning, confidence);
            let names: Vec<String> = names.iter().map(Name::to_string).collect();
            let qtypes: Vec<String> = qtypes.iter().map(Rtype::to_string).collect();
            finding.subject = vec![
                ("client", client.to_string()),
                ("server", server.to_string()),
                ("cause", word.into()),
                ("names", names.join(" ")),
            ];
            let waits = if finding.count == 1 {
                format!("waited {} in 1 lookup", human(*longest))
            } else {
                format!("waited {} in {} lookups, {} at most", human(*total), finding.count, human(*longest))
            };
            finding.summary =
                format!("{client} {waits} ({} of {}): {what}", qtypes.join(" and "), names.join(", "))
                    .replace("SERVER", &server.to_string());
            finding.advice = advice.into();
            Some(finding)
        })
    }
}

/// How long this question made its lookup wait for nothing.
fn waited(lookup: &Lookup, step: &Step, question: &Question) -> Option<Duration> {
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
    let wait = resent + if given_up >= MIN_WAIT { given_up } else { Duration::ZERO };
    (wait >= MIN_WAIT).then_some(wait)
}

fn cause(step: &Step, question: &Question) -> Cause {
    let first = question.transmissions.first();
    let late_first =
        question.transmissions.iter().zip(question.transmissions.iter().skip(1)).any(|(sent, resent)| {
            let answer = sent.answered_by.and_then(|index| question.answers.get(usize::from(index)));
            answer.is_some_and(|answer| answer.time > resent.time)
        });
    if late_first {
        return Cause::SlowServer;
    }
    let twin = step.questions.iter().find(|twin| {
        twin.qtype != question.qtype
            && twin.qtype.is_address()
            && question.qtype.is_address()
            && twin.transmissions.first().map(|t| (t.client, t.transport))
                == first.map(|t| (t.client, Transport::Udp))
    });
    let answered_at_once = |twin: &Question| {
        twin.transmissions.first().is_some_and(|sent| {
            sent.answered_by
                .and_then(|index| twin.answers.get(usize::from(index)))
                .is_some_and(|answer| answer.time.since(sent.time) < MIN_WAIT)
        })
    };
    if first.is_some_and(|first| first.answered_by.is_none()) && twin.is_some_and(answered_at_once) {
        return Cause::PairRace;
    }
    let asked_first = first.map(|first| first.server);
    let silent = question
        .transmissions
        .iter()
        .filter(|sent| Some(sent.server) == asked_first)
        .all(|sent| sent.answered_by.is_none());
    let elsewhere = question.transmissions.iter().any(|sent| Some(sent.server) != asked_first);
    if silent && elsewhere { Cause::SilentServer } else { Cause::Loss }
}

fn told(cause: Cause) -> (&'static str, Confidence, &'static str, &'static str) {
    match cause {
        Cause::PairRace => (
            "pair-race",
            Confidence::Medium,
            "one of a pair from one port got no answer while its twin did at once, the pattern of the conntrack race",
            "Check `conntrack -S` for insert_failed on this node. Ways out: NodeLocal DNSCache (no translation, no \
             race), a kernel that resolves such clashes, options single-request-reopen (glibc only), or TCP.",
        ),
        Cause::SlowServer => (
            "slow-server",
            Confidence::High,
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
    use crate::findings::testing::{ask, direct, found, lookup};
    use crate::model::{Family, LookupResult, Rcode};

    const WEB: &str = "web.default.svc.cluster.local";

    fn causes(questions: Vec<Question>) -> Vec<String> {
        let findings = found::<RetryGap>(&[lookup("web", Family::Glibc, LookupResult::Ok, questions)]);
        findings.iter().map(|finding| finding.subject[2].1.clone()).collect()
    }

    #[test]
    fn fires_with_the_race_where_one_of_a_pair_is_lost() {
        let race = |at, family| {
            let a = ask(WEB, Rtype::A, at).address("10.96.4.7").build();
            let aaaa = ask(WEB, Rtype::AAAA, at).again(5_000, RetransmissionKind::Timeout).empty().build();
            lookup("web", family, LookupResult::Ok, vec![a, aaaa])
        };
        insta::assert_debug_snapshot!(found::<RetryGap>(&[
            race(1, Family::Glibc),
            race(20_000, Family::Glibc)
        ]));
    }

    #[test]
    fn a_question_given_up_without_a_resend_is_a_wait_too() {
        let a = ask(WEB, Rtype::A, 0).address("10.96.4.7").build();
        let aaaa = ask(WEB, Rtype::AAAA, 0).build();
        let mut silent = lookup("web", Family::CAresFrom120, LookupResult::Ok, vec![a, aaaa]);
        silent.duration = Duration::from_secs(2);
        let findings = found::<RetryGap>(&[silent]);
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].summary.starts_with("10.244.1.5 waited 2.00 s in 1 lookup"),
            "{}",
            findings[0].summary
        );
    }

    #[test]
    fn causes_are_told_apart() {
        let timeout = RetransmissionKind::Timeout;
        let late =
            ask(WEB, Rtype::A, 0).answered(Rcode::NOERROR, &["10.96.4.7"], 3_000).again(2_500, timeout);
        assert_eq!(causes(vec![late.address("10.96.4.7").build()]), ["slow-server"]);
        let failover = ask(WEB, Rtype::A, 0).again(5_000, timeout).to("10.96.0.11").address("10.96.4.7");
        assert_eq!(causes(vec![failover.build()]), ["silent-server"]);
        let both = [Rtype::A, Rtype::AAAA]
            .map(|t| ask(WEB, t, 0).again(5_000, timeout).address("10.96.4.7").build());
        assert_eq!(causes(both.to_vec()), ["loss"]);
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
        assert_eq!(found::<RetryGap>(&[direct("web", 0), direct("web", 5_000)]), [], "two lookups 5 s apart");
    }
}
