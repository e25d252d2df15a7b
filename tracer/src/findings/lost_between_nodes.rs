//! DP403 lost-between-nodes: queries that left one node for a server on another and did not arrive there, or answers on
//! their way back; from the recordings of both nodes read together.
//!
//! Which node a server is on is learnt from what entered or left its pod there, and from the names that a recording of
//! dnspath brings. Of an address without a known node nothing is said; but of two recordings, where a service's backend
//! answered nothing at all that left the one node, it is told with low confidence for the other. Counted are UDP queries that were seen at one node
//! and are for a server on the other, while both recordings saw something before and after, or say that they went on so
//! long. Fires where at least three of them are missing at the other node; `count` is the missing ones. A warning; an
//! error where a question never got an answer. High confidence where none or most arrived; medium where there is nothing
//! in both recordings to compare their clocks by, which then may differ by a minute; low where the other one is empty and
//! does not say when it was recorded.
//!
//! Looks alike and does not fire: a recording that began late or ended early; one that does not see the path (queries
//! that were answered without being seen there); queries lost on either node (DP402); clocks that differ, which are
//! compared first. Where the capture lost frames it is inconclusive.

use super::{
    Confidence, Culprit, Finding, Severity, Source,
    groups::{Code, Groups, Tally},
    lost_on_node::Usual,
    ways::Ways,
};
use crate::model::Timestamp;
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::Duration,
};

const CODE: Code = Code { code: "DP403", name: "lost-between-nodes" };
/// Messages that must be missing.
const MIN_LOST: u64 = 3;
/// Clocks that nothing was in common to compare by may differ by this.
const UNKNOWN_CLOCK: Duration = Duration::from_secs(60);

/// What went from one source to another for a server.
#[derive(Debug, Default)]
struct Leg {
    arrived: u64,
    lost: Tally,
    failed: bool,
    /// Answered, and so arrived, without being seen there.
    unseen: u64,
}

/// From, to, the server there, and whether it is its answers.
type Key = (u16, u16, IpAddr, bool);

/// What was found so far; `sources` are the recordings.
pub(super) fn findings(ways: &Ways, usual: &Usual, sources: &[Source]) -> Vec<Finding> {
    if sources.len() < 2 && !ways.places.has_several_sources() {
        return Vec::new();
    }
    let mut legs: BTreeMap<Key, Leg> = BTreeMap::new();
    // What of a service was not sent to any backend yet has no node that it is for.
    let services: HashSet<IpAddr> = ways
        .queries()
        .into_iter()
        .filter(|(way, _)| way.backend != way.server)
        .map(|(way, _)| way.server)
        .collect();
    let homeless = homeless(ways, sources);
    for (way, queries) in ways.queries().into_iter().filter(|(way, _)| !services.contains(&way.backend)) {
        let Some(&home) = ways.homes.get(&way.backend).or_else(|| homeless.get(&way.backend)) else {
            continue;
        };
        let parts = ways.by_source(&way.places);
        let Some((from, _)) = parts.iter().find(|(source, _)| *source != home) else { continue };
        let leg = legs.entry((*from, home, way.backend, false)).or_default();
        if parts.iter().any(|(source, _)| *source == home) {
            leg.arrived += queries.asked();
        } else {
            leg.unseen += queries.answered;
            if !usual.is_lost(ways, way) {
                let watch = Watch::of(ways, sources, home);
                leg.failed |=
                    watch.count(&mut leg.lost, &queries.silent, &queries.silent_at) && queries.failed > 0;
            }
        }
    }
    for (way, answers) in ways.answers() {
        let (Some(&home), to) = (ways.homes.get(&way.backend), ways.places.source(way.asked_at)) else {
            continue;
        };
        let parts = ways.by_source(&way.places);
        if home == to || !parts.iter().any(|(source, _)| *source == home) {
            continue;
        }
        let leg = legs.entry((home, to, way.backend, true)).or_default();
        if parts.iter().any(|(source, _)| *source == to) {
            leg.arrived += answers.all.count;
        } else {
            let watch = Watch::of(ways, sources, to);
            leg.failed |= watch.count(&mut leg.lost, &answers.all, &answers.stray_at) && answers.in_vain > 0;
        }
    }
    let told = legs.iter().filter(|(_, leg)| leg.lost.count >= MIN_LOST && leg.unseen <= leg.arrived);
    let findings = told.filter(|(_, leg)| !ways.may_be_cut_off(&leg.lost));
    Groups::<Key, ()>::default().worst(findings.map(|(key, leg)| finding(ways, *key, leg, sources)).collect())
}

/// The other one of two recordings, for backends of services that nothing in either shows the node of: those that answered
/// nothing, though queries left the one node for them.
fn homeless(ways: &Ways, sources: &[Source]) -> BTreeMap<IpAddr, u16> {
    let mut silent: BTreeMap<IpAddr, Option<u16>> = BTreeMap::new();
    for (way, queries) in ways.queries().into_iter().filter(|(way, _)| way.backend != way.server) {
        let from = way
            .places
            .last()
            .filter(|place| ways.places.leaves_node(**place))
            .map(|it| ways.places.source(*it));
        let other = from.filter(|from| queries.answered == 0 && *from < 2).map(|from| 1 - from);
        silent
            .entry(way.backend)
            .and_modify(|known| *known = known.filter(|it| Some(*it) == other))
            .or_insert(other);
    }
    let of_two =
        silent.into_iter().filter(|(address, _)| sources.len() == 2 && !ways.homes.contains_key(address));
    of_two.filter_map(|(address, other)| Some((address, other?))).collect()
}

/// When a source was recording. Where clocks could not be compared, they may differ by some amount.
struct Watch(Option<(Timestamp, Timestamp)>);

impl Watch {
    fn of(ways: &Ways, sources: &[Source], source: u16) -> Self {
        let of = sources.get(usize::from(source));
        let margin = if of.is_some_and(|of| of.clock_unknown) { UNKNOWN_CLOCK } else { Duration::ZERO };
        if of.is_some_and(Source::is_timeless) {
            return Self(Some((Timestamp::EPOCH, Timestamp::MAX)));
        }
        let window = of.and_then(|of| of.window).or_else(|| ways.seen(source));
        Self(window.map(|(from, until)| (from - margin, until + margin)))
    }

    /// Counts the messages of `all` that were sent meanwhile, of which the first ones were sent at `times`; whether there
    /// are any.
    fn count(&self, to: &mut Tally, all: &Tally, times: &[Timestamp]) -> bool {
        let within =
            |time: &&Timestamp| self.0.is_some_and(|(from, until)| from <= **time && **time <= until);
        let (mut first, mut last, mut count) = (Timestamp::MAX, Timestamp::EPOCH, 0);
        for time in times.iter().filter(within) {
            (first, last, count) = (first.min(*time), last.max(*time), count + 1);
        }
        if count == times.len() as u64 {
            to.absorb(all);
        } else if count > 0 {
            // Where not all times are kept, the others are taken to be as these.
            let count = all.count * count / times.len().max(1) as u64;
            let mut these = Tally::default();
            these.add(count, first, all.evidence.iter().copied());
            these.last = last;
            to.absorb(&these);
        }
        count > 0
    }
}

fn finding(ways: &Ways, (from, to, server, answers): Key, leg: &Leg, sources: &[Source]) -> Finding {
    let sent = leg.arrived + leg.lost.count;
    let severity = if leg.failed { Severity::Error } else { Severity::Warning };
    let clock_unknown =
        [from, to].iter().any(|of| sources.get(usize::from(*of)).is_some_and(|of| of.clock_unknown));
    let home_known = ways.homes.contains_key(&server);
    let sure = (leg.arrived == 0 || leg.arrived * 2 > sent) && !clock_unknown;
    let timeless = sources.get(usize::from(to)).is_some_and(Source::is_timeless);
    let confidence = match () {
        () if !home_known || timeless => Confidence::Low,
        () if sure => Confidence::High,
        () => Confidence::Medium,
    };
    let mut finding = leg.lost.finding(CODE, severity, confidence);
    let name = |source: u16| {
        let named = sources.get(usize::from(source)).map(|source| source.name.clone());
        named.unwrap_or_else(|| format!("recording {}", source + 1))
    };
    finding.rests_on_absence = true;
    finding.blames = vec![Culprit::BetweenNodes(server)];
    let what = if answers { "answers" } else { "queries" };
    finding.subject = vec![
        ("server", server.to_string()),
        ("messages", what.into()),
        ("from", name(from)),
        ("to", name(to)),
    ];
    let last: SmallVec<[String; 2]> = last_places(ways, (from, to, server, answers));
    let direction = if answers { "from" } else { "to" };
    finding.summary = format!(
        "of {sent} {what} {direction} {server} that {} sent, {} arrived at {}",
        name(from),
        leg.arrived,
        name(to)
    );
    if !last.is_empty() {
        finding.summary.push_str(&format!("; the others were last seen {}", last.join(" and ")));
    }
    if timeless {
        finding.summary.push_str("; that has no frame, and does not say when it was recorded");
    } else if clock_unknown {
        finding.summary.push_str("; no message is in both recordings, so their clocks could not be compared");
    }
    if !home_known {
        finding.summary.push_str("; neither of them shows that this server is there");
    }
    finding.advice = "They were lost between the two nodes: look at security groups, network ACLs, firewalls, routes and \
                      MTU between them, at the tunnel of the network plug-in, and at rules of the receiving node that act \
                      before its first interface is seen."
        .into();
    finding
}

/// Where the missing ones were last seen.
fn last_places(ways: &Ways, (from, to, server, answers): Key) -> SmallVec<[String; 2]> {
    let mut places: SmallVec<[String; 2]> = SmallVec::new();
    let rows = ways
        .queries()
        .into_iter()
        .filter(|(way, queries)| !answers && way.backend == server && queries.silent.count > 0);
    let rows = rows.map(|(way, _)| &way.places);
    let of_answers = ways.answers().into_iter().filter(|(way, _)| answers && way.backend == server);
    for row in rows.chain(of_answers.map(|(way, _)| &way.places)) {
        let parts = ways.by_source(row);
        if parts.iter().any(|(source, _)| *source == to) {
            continue;
        }
        let part = parts.iter().find(|(source, _)| *source == from);
        if let Some(last) = part.and_then(|(_, part)| part.last()) {
            let passing = ways.places.passing(*last);
            if places.len() < 2 && !places.contains(&passing) {
                places.push(passing);
            }
        }
    }
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{
        places_testing::{Town, told},
        testing::{ask, at},
    };
    use crate::model::{Question, RetransmissionKind, Rtype};

    const FAR: &str = "10.244.2.2";
    const LEFT: &str = "veth-web< cni0< eth0>";
    const ARRIVED: &str = "veth-web< cni0< eth0> 1:eth0< 1:veth-dns3>";

    fn silent(town: &Town, millis: u64) -> Question {
        town.seen(ask("web", Rtype::A, millis), FAR, LEFT, "")
    }

    /// A pod of the other node asks the same server there.
    fn local(town: &Town, millis: u64) -> Question {
        let asked = ask("web", Rtype::A, millis).from("10.244.2.9").address("10.96.4.7");
        town.seen(asked, FAR, "1:veth-far< 1:veth-dns3>", "1:veth-dns3< 1:veth-far>")
    }

    fn whole(town: &Town, millis: u64) -> Question {
        let asked = ask("web", Rtype::A, millis).address("10.96.4.7");
        town.seen(asked, FAR, ARRIVED, "1:veth-dns3< 1:eth0> eth0< veth-web>")
    }

    fn sources(window: Option<(u64, u64)>, clock_unknown: bool) -> Vec<Source> {
        let far = window.map(|(from, until)| (at(from), at(until)));
        let near = Source { name: "near".into(), window: Some((at(0), at(90_000))), clock_unknown: false };
        vec![near, Source { name: "far".into(), window: far, clock_unknown }]
    }

    fn codes(found: &[Finding]) -> Vec<&'static str> {
        found.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn fires_where_nothing_arrived_and_says_where_it_was_last_seen() {
        let town = Town::default();
        let all = [
            vec![local(&town, 0)],
            (1..6).map(|n| silent(&town, n * 100)).collect(),
            vec![local(&town, 900)],
        ];
        let found = town.found_of(&all.concat(), &sources(Some((0, 1_000)), false));
        assert_eq!(codes(&found), ["DP403", "DP201"]);
        insta::assert_debug_snapshot!(found[0]);
    }

    #[test]
    fn fires_where_some_did_not_arrive() {
        let town = Town::default();
        let all: Vec<Question> = (0..6).map(|n| whole(&town, n * 100)).collect();
        let all = [all, (1..5).map(|n| silent(&town, n * 100 + 50)).collect()].concat();
        let found = town.found_of(&all, &sources(Some((0, 1_000)), false));
        let lost = found.iter().find(|finding| finding.code == "DP403").unwrap();
        assert!(
            lost.summary.starts_with("of 10 queries to 10.244.2.2 that near sent, 6 arrived at far;"),
            "{lost:?}"
        );
    }

    #[test]
    fn fires_for_answers_that_did_not_come_back() {
        let town = Town::default();
        let gone = |n: u64| {
            let asked =
                ask("web", Rtype::A, n).address("10.96.4.7").again(2_500, RetransmissionKind::Timeout);
            let mut question = asked.build();
            let second = question.transmissions.remove(1);
            question = town.seen_again(question, FAR, ARRIVED, "1:veth-dns3< 1:eth0>");
            question.transmissions.push(second);
            question.transmissions[1].hops = question.transmissions[0].hops.clone();
            question
        };
        let all: Vec<Question> = (0..4).map(|n| gone(n * 100)).chain([whole(&town, 9_000)]).collect();
        let found = town.found_of(&all, &sources(Some((0, 10_000)), false));
        let lost = found.iter().find(|finding| finding.code == "DP403").unwrap();
        assert_eq!(lost.subject[1], ("messages", "answers".into()));
        assert!(
            lost.summary.contains("of 5 answers from 10.244.2.2 that far sent, 1 arrived at near"),
            "{lost:?}"
        );
        assert!(!codes(&found).contains(&"DP402"), "{found:?}");
    }

    #[test]
    fn does_not_fire_for_what_was_sent_before_or_after_the_other_recording() {
        let town = Town::default();
        let all = [vec![local(&town, 0)], (1..6).map(|n| silent(&town, n * 1_000)).collect()].concat();
        let late = town.found_of(&all, &sources(Some((5_500, 9_000)), false));
        assert_eq!(codes(&late), ["DP201"]);
        let early = town.found_of(&all, &sources(Some((0, 2_500)), false));
        assert_eq!(codes(&early), ["DP201"], "two alone");
        let partly = town.found_of(&all, &sources(Some((0, 4_500)), false));
        assert_eq!((codes(&partly), partly[0].count), (vec!["DP403", "DP201"], 4));
    }

    #[test]
    fn does_not_fire_where_the_other_recording_does_not_see_the_path() {
        let town = Town::default();
        let unseen = |n: u64| {
            let asked = ask("web", Rtype::A, n).address("10.96.4.7");
            town.seen(asked, FAR, LEFT, "eth0< veth-web>")
        };
        let all: Vec<Question> = (0..4).map(|n| silent(&town, n * 100)).collect();
        let all = [vec![local(&town, 0)], all, (0..4).map(|n| unseen(n * 100)).collect()].concat();
        let found = town.found_of(&all, &sources(Some((0, 9_000)), false));
        assert!(!codes(&found).contains(&"DP403"), "{found:?}");
    }

    #[test]
    fn of_a_server_that_is_on_neither_node_as_far_as_is_known_it_says_so() {
        let town = Town::default();
        let other = ask("other", Rtype::A, 1).address("10.96.4.7");
        let other = town.seen(other, "10.244.1.2", "veth-web< veth-dns1>", "veth-dns1< veth-web>");
        let all: Vec<Question> = (1..6).map(|n| silent(&town, n * 100)).chain([other]).collect();
        let found = town.found_of(&all, &sources(Some((200_000, 200_000)), true));
        assert_eq!(codes(&found), ["DP201"], "the other recording is of another time");
        let found = town.found_of(&all, &sources(Some((40_000, 40_000)), true));
        assert_eq!(codes(&found), ["DP403", "DP201"]);
        assert_eq!(found[0].confidence, Confidence::Low);
        assert!(found[0].summary.ends_with("; neither of them shows that this server is there"), "{found:?}");
        let found = town.found_of(&all, &sources(None, true));
        assert_eq!((codes(&found), found[0].confidence), (vec!["DP403", "DP201"], Confidence::Low));
        assert!(found[0].summary.contains("; that has no frame, and does not say when"), "{found:?}");
        // The upstream of both nodes is no pod of either.
        let upstream = |n: u64| town.seen(ask("x", Rtype::A, n).to("192.0.2.53"), "", LEFT, "");
        let all: Vec<Question> = (1..6).map(|n| upstream(n * 100)).chain([local(&town, 1)]).collect();
        let found = town.found_of(&all, &sources(Some((0, 9_000)), false));
        assert_eq!(told(&found), ["DP201 192.0.2.53"]);
    }
}
