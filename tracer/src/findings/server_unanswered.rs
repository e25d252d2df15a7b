//! DP201 server-unanswered: a server, or one backend of a service, that leaves queries unanswered while others answer.
//!
//! A backend is who a query was sent to in the end, as conntrack or a translated copy shows it; else it is the address
//! asked. Fires where it answered none of at least three questions while anything else was answered; or where it left at
//! least five queries and a tenth of all unanswered, and that share is three times its siblings' behind the same service,
//! or it has none. A warning; an error where a question never got an answer. `count` is the queries without one. It says
//! where they were last seen: leaving the uplink (lost beyond this node), entering the server's pod (lost in it), or that
//! ICMP refused them. High confidence where they were seen to reach the end of this node's part of the way.
//!
//! Looks alike and does not fire: a slow server (its answers came, late or not: DP204, DP105); a client that closed early;
//! queries lost on this node (DP402) or dropped by its kernel (DP301 to DP303); a service without endpoints (DP202);
//! queries that the capture's end cut off. Where the capture lost frames it is inconclusive.

use super::{
    Confidence, Culprit, Finding, Severity,
    groups::{Code, Groups, Tally},
    lost_on_node::Usual,
    ways::{Queries, Ways},
};
use crate::{
    model::{IcmpError, VantageId},
    output::text::human,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

const CODE: Code = Code { code: "DP201", name: "server-unanswered" };
/// Questions that a dead server left unanswered.
const MIN_QUESTIONS: u64 = 3;
/// Queries that a lossy one left unanswered, and their share, as one in so many.
const MIN_UNANSWERED: u64 = 5;
const ONE_IN: u64 = 10;
/// How many times more than its siblings it leaves unanswered.
const TIMES: u64 = 3;
/// Places that are named.
const MAX_PLACES: usize = 2;
/// The first address in order.
const LOWEST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One backend of a service, all ways together.
#[derive(Debug, Default)]
struct Backend {
    answered: u64,
    unanswered: Tally,
    refused: u64,
    refusal: Option<IcmpError>,
    questions: u64,
    failed: u64,
    last_seen: BTreeMap<VantageId, u64>,
}

impl Backend {
    const fn asked(&self) -> u64 {
        self.answered + self.unanswered.count
    }

    fn add_unanswered(&mut self, queries: &Queries, last: Option<&VantageId>) {
        self.unanswered.absorb(&queries.silent);
        self.unanswered.absorb(&queries.refused);
        self.refused += queries.refused.count;
        self.refusal = queries.refusal.or(self.refusal);
        self.questions += queries.questions;
        self.failed += queries.failed;
        if let (Some(last), true) = (last, queries.silent.count > 0) {
            *self.last_seen.entry(*last).or_default() += queries.silent.count;
        }
    }
}

type Backends = BTreeMap<(IpAddr, IpAddr), Backend>;

/// What was found so far.
pub(super) fn findings(ways: &Ways, usual: &Usual) -> Vec<Finding> {
    let mut all = Backends::new();
    for (way, queries) in ways.queries() {
        let lost = queries.silent.count > 0 && usual.is_lost(ways, way);
        let backend = all.entry((way.server, way.backend)).or_default();
        backend.answered += queries.answered;
        if !lost {
            backend.add_unanswered(queries, way.places.last());
        }
    }
    let answered = all.values().any(|backend| backend.answered > 0);
    let tell = |(key, backend): (&(IpAddr, IpAddr), &Backend)| {
        let siblings = Siblings::of(&all, *key);
        // What of a service was not sent to any backend yet is no backend's fault.
        let untranslated = key.0 == key.1 && siblings.asked > 0;
        if untranslated || !answered || ways.may_be_cut_off(&backend.unanswered) {
            return None;
        }
        backend.is_dead().then_some(()).or_else(|| backend.is_lossy(&siblings).then_some(()))?;
        Some(finding(ways, *key, backend, &siblings))
    };
    Groups::<IpAddr, ()>::default().worst(all.iter().filter_map(tell).collect())
}

/// The other backends of a service.
#[derive(Debug, Default)]
struct Siblings {
    asked: u64,
    answered: u64,
    addresses: Vec<IpAddr>,
}

impl Siblings {
    fn of(all: &Backends, (server, backend): (IpAddr, IpAddr)) -> Self {
        let mut siblings = Self::default();
        for ((service, address), other) in all.range((server, LOWEST)..) {
            if *service != server {
                break;
            }
            if *address != backend && *address != server && other.asked() > 0 {
                siblings.asked += other.asked();
                siblings.answered += other.answered;
                siblings.addresses.push(*address);
            }
        }
        siblings
    }
}

impl Backend {
    const fn is_dead(&self) -> bool {
        self.answered == 0 && self.questions >= MIN_QUESTIONS
    }

    const fn is_lossy(&self, siblings: &Siblings) -> bool {
        let unanswered = self.unanswered.count;
        let of_siblings = siblings.asked - siblings.answered;
        self.answered > 0
            && unanswered >= MIN_UNANSWERED
            && unanswered * ONE_IN >= self.asked()
            && (siblings.asked == 0 || unanswered * siblings.asked >= TIMES * of_siblings * self.asked())
    }
}

fn finding(ways: &Ways, (server, backend): (IpAddr, IpAddr), of: &Backend, siblings: &Siblings) -> Finding {
    let severity = if of.failed > 0 { Severity::Error } else { Severity::Warning };
    let last_seen = last_seen(of);
    let ends_here = last_seen
        .first()
        .is_some_and(|(place, _)| ways.places.leaves_node(**place) || ways.places.enters_pod(**place));
    let confidence = match () {
        () if ends_here || of.refused > 0 => Confidence::High,
        () if of.is_dead() || siblings.asked > 0 => Confidence::Medium,
        () => Confidence::Low,
    };
    let mut finding = of.unanswered.finding(CODE, severity, confidence);
    finding.suspects = vec![Culprit::BetweenNodes(backend), Culprit::Loop(backend)];
    finding.rests_on_absence = true;
    finding.blames = vec![Culprit::Unanswered(server, backend)];
    finding.subject = vec![("server", backend.to_string())];
    if backend != server {
        finding.subject.push(("service", server.to_string()));
    }
    let whose = if backend == server { String::new() } else { format!(", behind {server},") };
    finding.summary = format!("{backend}{whose} answered {} of {} queries", of.answered, of.asked());
    if siblings.asked > 0 {
        let one = siblings.addresses.first().filter(|_| siblings.addresses.len() == 1);
        let who = one.map_or_else(|| "its siblings".into(), |one| format!("its sibling {one}"));
        finding.summary.push_str(&format!(", {who} {} of {}", siblings.answered, siblings.asked));
    }
    let median = |of: IpAddr| ways.latency.get(&(server, of)).and_then(|latency| latency.quantile(0.5));
    if let Some(took) = median(backend) {
        finding.summary.push_str(&format!("; those answered took {} in the median", human(took)));
        if let Some(quickest) = siblings.addresses.iter().filter_map(|one| median(*one)).min() {
            finding.summary.push_str(&format!(", at a sibling {}", human(quickest)));
        }
    }
    match of.refusal {
        _ if of.refused == 0 => {}
        Some(error) => {
            let what = if error.is_port_unreachable() { "port" } else { "host" };
            let refused =
                format!("; {} were refused by {} (ICMP {what} unreachable)", of.refused, error.from);
            finding.summary.push_str(&refused);
        }
        None => finding.summary.push_str(&format!("; {} found nobody who listens", of.refused)),
    }
    for (place, count) in &last_seen {
        let passing = ways.places.passing(**place);
        finding.summary.push_str(&format!("; {count} last seen {passing} towards {backend}"));
    }
    if let Some((place, _)) = last_seen.first() {
        finding.subject.push(("last_seen", ways.places.name(**place)));
    }
    finding.advice = advice(ways, of, last_seen.first().map(|(place, _)| **place), backend);
    finding
}

/// Where most of the silent queries were last seen.
fn last_seen(of: &Backend) -> Vec<(&VantageId, &u64)> {
    let mut places: Vec<_> = of.last_seen.iter().collect();
    places.sort_by_key(|(place, count)| (std::cmp::Reverse(**count), **place));
    places.truncate(MAX_PLACES);
    places
}

fn advice(ways: &Ways, of: &Backend, last: Option<VantageId>, backend: IpAddr) -> String {
    match last {
        _ if of.refused * 2 > of.unanswered.count
            && of.refusal.is_none_or(|error| error.is_port_unreachable()) =>
        {
            format!(
                "Nothing listens at port 53 of {backend}, or a rule there rejects: look at the server's process and its \
                 bind address, and take it out of the endpoints or out of resolv.conf until it is ready."
            )
        }
        _ if of.refused * 2 > of.unanswered.count => {
            format!(
                "{backend} cannot be reached from here: is its pod or host gone, its route or neighbour entry stale?"
            )
        }
        Some(place) if ways.places.leaves_node(place) => format!(
            "They left this node and no answer came back: look between the nodes at security groups, firewalls, routes and \
             MTU, and at {backend}'s own node. A recording from there, given to dnspath report together with this one, \
             says whether they arrived (DP403)."
        ),
        Some(place) if ways.places.enters_pod(place) => format!(
            "They were handed to {backend}, and it sent nothing: look at that server's process, its load and log, and at \
             rules inside its pod."
        ),
        _ => format!(
            "See whether {backend} is up and whether port 53 is let through to it; take a dead nameserver out of \
             resolv.conf. A capture on the node would show how far the queries come."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{
        places_testing::{Town, told},
        testing::{ask, at, lost},
    };
    use crate::model::{Coverage, Fate, Question, QuestionOutcome, Rcode, RetransmissionKind, Rtype};

    const NEAR: &str = "10.244.1.2";
    const FAR: &str = "10.244.2.2";
    const TO_NEAR: &str = "veth-web< veth-dns1>";
    const TO_FAR: &str = "veth-web< cni0< eth0>";

    fn near(town: &Town, millis: u64) -> Question {
        let asked = ask("web", Rtype::A, millis).address("10.96.4.7");
        town.seen(asked, NEAR, TO_NEAR, "veth-dns1< veth-web>")
    }

    fn far(town: &Town, millis: u64) -> Question {
        let asked = ask("web", Rtype::A, millis).address("10.96.4.7");
        town.seen(asked, FAR, TO_FAR, "eth0< veth-web>")
    }

    fn silent(town: &Town, millis: u64) -> Question {
        town.seen(ask("web", Rtype::A, millis), FAR, TO_FAR, "")
    }

    fn many(count: u64, one: impl Fn(u64) -> Question) -> Vec<Question> {
        (0..count).map(|n| one(n * 100)).collect()
    }

    #[test]
    fn fires_for_a_dead_backend_beside_its_sibling_and_says_where_queries_were_last_seen() {
        let town = Town::default();
        let all = [many(4, |at| silent(&town, at)), many(6, |at| near(&town, at + 50))].concat();
        insta::assert_debug_snapshot!(town.found(&all));
    }

    #[test]
    fn fires_for_a_dead_nameserver_beside_a_live_one_wherever_that_is_seen() {
        let town = Town::default();
        let failover = |n: u64| {
            let asked = ask("web", Rtype::A, n).to("10.0.0.99").again(5_000, RetransmissionKind::Timeout);
            asked.to("10.0.0.53").address("10.96.4.7").build()
        };
        let all = many(3, failover);
        let of_servers = |all: &[Question]| -> Vec<Finding> {
            town.found(all).into_iter().filter(|finding| finding.code != "DP206").collect()
        };
        let found = of_servers(&all);
        assert_eq!(told(&found), ["DP201 10.0.0.99"]);
        assert_eq!((found[0].severity, found[0].confidence), (Severity::Warning, Confidence::Medium));
        assert_eq!(of_servers(&all[..2]), [], "two questions may be chance");
    }

    #[test]
    fn fires_for_an_endpoint_without_a_listener() {
        let town = Town::default();
        let refused = |n| town.seen(ask("web", Rtype::A, n).unreachable(), NEAR, TO_NEAR, "");
        let all = [many(4, refused), many(4, |at| far(&town, at + 50))].concat();
        let found = town.found(&all);
        assert_eq!(told(&found), ["DP201 10.244.1.2"]);
        assert!(
            found[0].summary.contains("4 were refused by 10.96.0.10 (ICMP port unreachable)"),
            "{found:?}"
        );
        assert!(found[0].advice.starts_with("Nothing listens at port 53 of 10.244.1.2"), "{found:?}");
        let no_socket = |n| {
            let dropped = lost(ask("web", Rtype::A, n), Fate::Dropped, "NO_SOCKET", "__udp4_lib_rcv");
            town.seen_again(dropped, NEAR, TO_NEAR, "")
        };
        let all = [many(4, no_socket), many(4, |at| far(&town, at + 50))].concat();
        assert!(town.found(&all)[0].summary.ends_with("; 4 found nobody who listens"));
    }

    #[test]
    fn fires_for_a_backend_that_leaves_more_unanswered_than_its_siblings() {
        let town = Town::default();
        let lossy = [many(6, |at| silent(&town, at)), many(14, |at| far(&town, at + 30))].concat();
        let all = [lossy.clone(), many(20, |at| near(&town, at + 50))].concat();
        let found = town.found(&all);
        assert_eq!(told(&found), ["DP201 10.244.2.2"]);
        assert!(
            found[0].summary.contains("answered 14 of 20 queries, its sibling 10.244.1.2 20 of 20"),
            "{found:?}"
        );
        // All backends alike: the fault is not this one's.
        let near_silent = |at| town.seen(ask("web", Rtype::A, at), NEAR, TO_NEAR, "");
        let all = [lossy, many(6, near_silent), many(14, |at| near(&town, at + 50))].concat();
        assert_eq!(town.found(&all), []);
    }

    #[test]
    fn does_not_fire_for_a_slow_backend_or_a_client_that_closed_early() {
        let town = Town::default();
        let slow = |n: u64| {
            let asked = ask("web", Rtype::A, n * 20).answered(Rcode::NOERROR, &["10.96.4.7"], 700);
            town.seen(asked, FAR, TO_FAR, "eth0< veth-web>")
        };
        let closed = |n: u64| {
            let asked = ask("web", Rtype::A, n).answered(Rcode::NOERROR, &["10.96.4.7"], 600).late();
            town.seen(asked, FAR, TO_FAR, "eth0< veth-web>")
        };
        for one in [&slow as &dyn Fn(u64) -> Question, &closed] {
            let all = [many(8, one), many(8, |at| near(&town, at + 50))].concat();
            let found = town.found(&all);
            assert!(found.iter().all(|it| it.code != "DP201"), "{found:?}");
        }
    }

    #[test]
    fn does_not_fire_for_what_the_capture_cut_off_or_where_nothing_is_answered() {
        let town = Town::default();
        let cut = |n| {
            let mut question = silent(&town, n);
            question.outcome = QuestionOutcome::Incomplete;
            question
        };
        let all = [many(4, cut), many(6, |at| near(&town, at + 50))].concat();
        assert_eq!(town.found(&all), []);
        assert_eq!(town.found(&many(9, |at| silent(&town, at))), [], "perhaps answers are not captured");
    }

    #[test]
    fn is_inconclusive_where_frames_were_lost() {
        let town = Town::default();
        let all = [many(4, |at| silent(&town, at)), many(6, |at| near(&town, at + 50))].concat();
        let found = town.with(&all, &[], &Coverage { lost: 1, ..Coverage::default() });
        let told = found.iter().find(|it| it.code == "DP201").unwrap();
        assert_eq!((told.confidence, told.first), (Confidence::Inconclusive, at(0)));
    }
}
