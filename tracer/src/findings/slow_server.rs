//! DP204 slow-server: a server whose answers take long, again and again.
//!
//! Fires for a server when at least five of its answers took 0.5 s or more, and these are at least 5 % of all
//! its answers. Late answers count. `count` is the slow answers. A warning.
//!
//! Where every slow answer is one the server had to ask others for (AA clear) while it answers its own names
//! (AA set) at once, the cause is its upstream; else the server itself.
//!
//! Looks alike and does not fire: one slow answer, or one slow pair; the wait for a lost packet (DP102), for
//! the time counts from the message that was answered.

use super::{
    Confidence, Cost, Evidence, Finding, Rule, Severity,
    culprit::{Culprit, SLOW},
    groups::{Code, Groups},
};
use crate::{
    model::{Lookup, Name, Question},
    output::text::human,
    stats::Histogram,
};
use std::net::IpAddr;

const CODE: Code = Code { code: "DP204", name: "slow-server" };
const MIN_SLOW: u64 = 5;
/// The least share of slow answers, as one in so many.
const ONE_IN: u64 = 20;
/// Names kept for a server.
const MAX_NAMES: usize = 3;

#[derive(Debug, Default)]
struct Detail {
    slow: Histogram,
    quick: Histogram,
    slow_own: u64,
    quick_own: u64,
    names: Vec<Name>,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct SlowServer(Groups<IpAddr, Detail>);

impl Rule for SlowServer {
    fn question(&mut self, question: &Question) {
        for (sent, answer) in question.replies() {
            let took = answer.time.since(sent.time);
            let slow = took >= SLOW;
            let frames = sent.hops.first().map(Evidence::from).filter(|_| slow);
            let Some(detail) = self.0.add(sent.server.ip(), u64::from(slow), sent.time, frames) else {
                continue;
            };
            if slow {
                detail.slow.record(took);
                detail.slow_own += u64::from(answer.authoritative);
                if detail.names.len() < MAX_NAMES && !detail.names.contains(&question.name) {
                    detail.names.push(question.name);
                }
            } else {
                detail.quick.record(took);
                detail.quick_own += u64::from(answer.authoritative);
            }
        }
    }

    /// A pair's waits are one wait; its questions were told before.
    fn lookup(&mut self, lookup: &Lookup) {
        if lookup.duration < SLOW {
            return;
        }
        for step in &lookup.steps {
            let replies = step.questions.iter().flat_map(Question::replies);
            let slowest = replies
                .map(|(sent, answer)| (answer.time.since(sent.time), sent.server.ip()))
                .max_by_key(|(took, _)| *took);
            if let Some((took, server)) = slowest.filter(|(took, _)| *took >= SLOW) {
                self.0.cost(&server, Cost::waited(took));
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|server, group| {
            let Detail { slow, quick, slow_own, quick_own, names } = &group.detail;
            let all = slow.count() + quick.count();
            if slow.count() < MIN_SLOW || slow.count() * ONE_IN < all {
                return None;
            }
            let upstream = *slow_own == 0 && *quick_own > 0;
            let confidence = if upstream { Confidence::Medium } else { Confidence::Low };
            let mut finding = group.tally.finding(CODE, Severity::Warning, confidence);
            let cause = if upstream { "upstream" } else { "server" };
            finding.subject = vec![("server", server.to_string()), ("cause", cause.into())];
            let names: Vec<String> = names.iter().map(Name::to_string).collect();
            finding.summary = format!(
                "{} of {all} answers of {server} took {} or more, {} at most, first for {}{}",
                slow.count(),
                human(SLOW),
                human(slow.max().unwrap_or_default()),
                names.join(", "),
                match quick.quantile(0.5) {
                    Some(median) => format!("; the others {} in the median", human(median)),
                    None => String::new(),
                }
            );
            finding.blames = vec![Culprit::Slow(*server)];
            finding.advice = if upstream {
                "The server's own names are quick, forwarded ones are not: look at the way to its upstream and at the \
                 upstream itself."
            } else {
                "Look at the server's load and CPU limit, and at its upstream for names it does not own."
            }
            .into();
            Some(finding)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, found, lookup};
    use crate::model::{Family, LookupResult, Rcode, RetransmissionKind, Rtype};

    fn one(question: Question) -> Lookup {
        lookup("api.example.com", Family::Glibc, LookupResult::Ok, vec![question])
    }

    fn slow(at: u64, own: bool) -> Lookup {
        let mut question =
            ask("api.example.com", Rtype::A, at).answered(Rcode::NOERROR, &["203.0.113.10"], 2_000).build();
        question.answers[0].authoritative = own;
        one(question)
    }

    fn quick(at: u64) -> Lookup {
        one(ask("web.default.svc.cluster.local", Rtype::A, at).address("10.96.4.7").build())
    }

    #[test]
    fn fires_and_blames_the_upstream_where_only_forwarded_names_are_slow() {
        let lookups: Vec<Lookup> =
            (0..6).flat_map(|n| [slow(n * 3_000 + 1, false), quick(n * 3_000 + 2)]).collect();
        insta::assert_debug_snapshot!(found::<SlowServer>(&lookups));
    }

    #[test]
    fn blames_the_server_where_its_own_names_are_slow() {
        let lookups: Vec<Lookup> = (0..6).map(|n| slow(n * 3_000, true)).collect();
        assert_eq!(found::<SlowServer>(&lookups)[0].subject[1].1, "server");
    }

    #[test]
    fn does_not_fire_for_a_few_slow_answers_or_few_among_many() {
        assert_eq!(found::<SlowServer>(&[slow(1, true)]), []);
        assert_eq!(found::<SlowServer>(&[1, 2, 3, 4].map(|at| slow(at, false))), []);
        let lookups: Vec<Lookup> = (0..5).map(|n| slow(n, false)).chain((0..200).map(quick)).collect();
        assert_eq!(found::<SlowServer>(&lookups), []);
    }

    #[test]
    fn does_not_fire_for_the_wait_for_a_lost_packet() {
        let lost = |at| {
            one(ask("web", Rtype::A, at)
                .again(5_000, RetransmissionKind::Timeout)
                .address("10.96.4.7")
                .build())
        };
        assert_eq!(found::<SlowServer>(&(0..10).map(|n| lost(n * 6_000)).collect::<Vec<_>>()), []);
    }
}
