//! DP204 slow-server: a server whose answers take long, again and again.
//!
//! Fires for a server when at least five of its answers took 0.5 s or more, and these are at least 5 % of all
//! its answers. Late answers count. `count` is the slow answers. A warning.
//!
//! The cause is its upstream where at least half of the slow answers are of questions that the server asked others itself
//! meanwhile, by name and type, and waited for nearly as long (high confidence, and it is said for whom); or, where that
//! leg is not seen, where every slow answer is one that it had to ask others for (AA clear) while it answers its own names
//! (AA set) at once. Else it is the server itself; of several backends it is said which one.
//!
//! Looks alike and does not fire: one slow answer, or one slow pair; the wait for a lost packet (DP102), for
//! the time counts from the message that was answered. A server that asks others quickly and is slow all the same is its
//! own cause.

use super::{
    Confidence, Cost, Evidence, Finding, Rule, Severity,
    culprit::{Culprit, SLOW},
    groups::{Code, Groups},
    ways::addresses,
};
use crate::{
    model::{Lookup, Name, Question, Rtype, Timestamp},
    output::text::human,
    stats::Histogram,
};
use smallvec::SmallVec;
use std::{collections::HashMap, net::IpAddr};

const CODE: Code = Code { code: "DP204", name: "slow-server" };
const MIN_SLOW: u64 = 5;
/// The least share of slow answers, as one in so many.
const ONE_IN: u64 = 20;
/// Names and upstreams kept for a server.
const MAX_NAMES: usize = 3;
/// Backends kept of a service.
const MAX_BACKENDS: usize = 8;
/// A server's own wait covers a client's where it is at least so much of it, in percent.
const COVERS: u128 = 80;
/// Slow questions that are remembered, until those that they are to be compared with are told: of each half.
const MOST_REMEMBERED: usize = 2_048;

/// Slow answers and all, of one backend.
#[derive(Clone, Copy, Debug)]
struct OfBackend {
    address: IpAddr,
    slow: u64,
    all: u64,
}

/// Who asks, for what.
type Asked = (IpAddr, Name, Rtype);

/// A wait for an answer.
#[derive(Clone, Copy, Debug)]
struct Wait {
    from: Timestamp,
    until: Timestamp,
    /// Whose answer was waited for.
    server: IpAddr,
}

impl Wait {
    fn covers(&self, other: &Self) -> bool {
        let both = self.until.min(other.until).since(self.from.max(other.from));
        both.as_nanos() * 100 >= other.until.since(other.from).as_nanos() * COVERS
    }
}

/// Waits by who asked for what, in two generations, so that they are bounded and the latest stay.
#[derive(Debug, Default)]
struct Remembered {
    young: HashMap<Asked, Wait, foldhash::fast::RandomState>,
    old: HashMap<Asked, Wait, foldhash::fast::RandomState>,
}

impl Remembered {
    fn add(&mut self, asked: Asked, wait: Wait) {
        if self.young.len() >= MOST_REMEMBERED {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(asked, wait);
    }

    fn find(&self, asked: &Asked, fits: impl Fn(&Wait) -> bool) -> Option<Wait> {
        [&self.young, &self.old]
            .into_iter()
            .filter_map(|half| half.get(asked))
            .find(|wait| fits(wait))
            .copied()
    }

    fn take(&mut self, asked: &Asked, fits: impl Fn(&Wait) -> bool) -> Option<Wait> {
        let found = self.find(asked, fits)?;
        self.young.remove(asked);
        self.old.remove(asked);
        Some(found)
    }
}

#[derive(Debug, Default)]
struct Detail {
    slow: Histogram,
    quick: Histogram,
    slow_own: u64,
    quick_own: u64,
    names: Vec<Name>,
    /// Slow answers for which it waited itself.
    forwarded: u64,
    upstreams: SmallVec<[IpAddr; MAX_NAMES]>,
    backends: SmallVec<[OfBackend; 2]>,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct SlowServer {
    groups: Groups<IpAddr, Detail>,
    /// By who asked: what took long. A server that forwards is one of those.
    asked: Remembered,
    /// By the server, or its backend: what it was slow with, and of which group that is.
    slow: Remembered,
}

impl Detail {
    fn count(&mut self, backend: IpAddr, slow: bool) {
        if let Some(of) = self.backends.iter_mut().find(|of| of.address == backend) {
            of.all += 1;
            of.slow += u64::from(slow);
        } else if self.backends.len() < MAX_BACKENDS {
            self.backends.push(OfBackend { address: backend, slow: u64::from(slow), all: 1 });
        }
    }

    fn forward(&mut self, upstream: IpAddr) {
        self.forwarded += 1;
        if self.upstreams.len() < MAX_NAMES && !self.upstreams.contains(&upstream) {
            self.upstreams.push(upstream);
        }
    }

    /// The one backend that all slow answers are of, where others are not slow.
    fn culprit(&self) -> Option<OfBackend> {
        let mut slow = self.backends.iter().filter(|of| of.slow > 0);
        let only = *slow.next()?;
        (self.backends.len() > 1 && slow.next().is_none()).then_some(only)
    }
}

impl SlowServer {
    /// Remembers a question that took long, for the slow answer of who asked it; or finds that answer.
    fn remember(&mut self, question: &Question) {
        let Some(first) = question.transmissions.first() else { return };
        let last = question.transmissions.last().map_or(first.time, |last| last.time);
        // Without an answer it was waited for as long as its client's client was.
        let until = question.answer().map_or(Timestamp::MAX, |answer| answer.time);
        if until.since(first.time) < SLOW / 2 && last.since(first.time) < SLOW / 2 {
            return;
        }
        let asked = (question.client, question.name, question.qtype);
        let wait = Wait { from: first.time, until, server: first.server.ip() };
        match self.slow.take(&asked, |slow| wait.covers(slow)) {
            Some(slow) => {
                if let Some(detail) = self.groups.add(slow.server, 0, slow.from, []) {
                    detail.forward(wait.server);
                }
            }
            None => self.asked.add(asked, wait),
        }
    }
}

impl Rule for SlowServer {
    fn question(&mut self, question: &Question) {
        self.remember(question);
        for (sent, answer) in question.replies() {
            let took = answer.time.since(sent.time);
            let slow = took >= SLOW;
            let frames = sent.hops.first().map(Evidence::from).filter(|_| slow);
            let (server, backend) = addresses(sent);
            let Some(detail) = self.groups.add(server, u64::from(slow), sent.time, frames) else {
                continue;
            };
            detail.count(backend, slow);
            if slow {
                let wait = Wait { from: sent.time, until: answer.time, server };
                let own = (backend, question.name, question.qtype);
                match self.asked.find(&own, |own| own.covers(&wait)) {
                    Some(own) => detail.forward(own.server),
                    None => self.slow.add(own, wait),
                }
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
                self.groups.cost(&server, Cost::waited(took));
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.groups.findings(|server, group| {
            let Detail { slow, quick, slow_own, quick_own, names, forwarded, upstreams, .. } = &group.detail;
            let all = slow.count() + quick.count();
            if slow.count() < MIN_SLOW || slow.count() * ONE_IN < all {
                return None;
            }
            let seen = forwarded * 2 >= slow.count();
            let upstream = seen || (*slow_own == 0 && *quick_own > 0);
            let confidence = match () {
                () if seen => Confidence::High,
                () if upstream => Confidence::Medium,
                () => Confidence::Low,
            };
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
            if let Some(OfBackend { address, slow, all }) = group.detail.culprit() {
                finding.summary.push_str(&format!("; all of its backend {address} ({slow} of its {all})"));
            }
            let upstreams: Vec<String> = upstreams.iter().map(IpAddr::to_string).collect();
            if seen {
                let whom = upstreams.join(", ");
                finding.summary.push_str(&format!("; for {forwarded} of them it waited for {whom} itself"));
                finding.subject.push(("upstream", upstreams.join(" ")));
            }
            finding.advice = if seen {
                "The server only passes the wait on: look at the way to its upstream and at the upstream itself, or have it \
                 ask another one (the forward line of CoreDNS's Corefile)."
            } else if upstream {
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

    /// What the server itself asks of an upstream, for so long.
    fn own(at: u64, took: u64) -> Lookup {
        let question = ask("api.example.com", Rtype::A, at).from("10.96.0.10").to("192.0.2.53");
        one(question.answered(Rcode::NOERROR, &["203.0.113.10"], took).build())
    }

    #[test]
    fn the_upstream_is_the_cause_where_the_server_waited_for_it_itself() {
        for order in [[0, 1], [1, 0]] {
            let pair = |n: u64| [slow(n * 3_000, true), own(n * 3_000 + 1, 1_990)];
            let lookups: Vec<Lookup> =
                (0..6).flat_map(|n| order.map(|place: usize| pair(n)[place].clone())).collect();
            let all = found::<SlowServer>(&lookups);
            let of_server = all.iter().find(|it| it.subject[0].1 == "10.96.0.10").unwrap();
            assert_eq!(of_server.confidence, Confidence::High);
            assert_eq!(
                of_server.subject[1..],
                [("cause", "upstream".to_owned()), ("upstream", "192.0.2.53".to_owned())]
            );
            assert!(
                of_server.summary.ends_with("for 6 of them it waited for 192.0.2.53 itself"),
                "{of_server:?}"
            );
        }
    }

    #[test]
    fn the_server_is_the_cause_where_it_asks_quickly_and_is_slow_all_the_same() {
        let lookups: Vec<Lookup> =
            (0..6).flat_map(|n| [own(n * 3_000 + 1, 800), slow(n * 3_000, true)]).collect();
        let all = found::<SlowServer>(&lookups);
        let of_server = all.iter().find(|it| it.subject[0].1 == "10.96.0.10").unwrap();
        assert_eq!(of_server.subject[1], ("cause", "server".to_owned()));
    }

    #[test]
    fn of_several_backends_the_slow_one_is_named() {
        let to = |lookup: Lookup, backend: &str| {
            let mut lookup = lookup;
            lookup.steps[0].questions[0].transmissions[0].backend =
                Some(format!("{backend}:53").parse().unwrap());
            lookup
        };
        let lookups: Vec<Lookup> = (0..6)
            .flat_map(|n| [to(slow(n * 3_000, true), "10.244.0.3"), to(quick(n * 3_000 + 9), "10.244.0.4")])
            .collect();
        let summary = found::<SlowServer>(&lookups)[0].summary.clone();
        assert!(summary.ends_with("all of its backend 10.244.0.3 (6 of its 6)"), "{summary}");
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
