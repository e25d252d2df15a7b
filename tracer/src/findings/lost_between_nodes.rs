//! DP403 lost-between-nodes: queries that left one node for a server on another and did not arrive there, or answers on
//! their way back; from the recordings of both nodes read together.
//!
//! Which node a server is on is learnt from what entered or left its pod there, and from the names that a recording of
//! dnspath brings; of an address without a known node nothing is said. Counted are UDP queries that were seen at one node
//! and are for a server on the other, while both recordings saw something before and after, or say that they went on so
//! long. Fires where at least three of them are missing at the other node; `count` is the missing ones. A warning; an
//! error where a question failed. High confidence where none or most arrived.
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
use smallvec::SmallVec;
use std::{collections::BTreeMap, net::IpAddr};

const CODE: Code = Code { code: "DP403", name: "lost-between-nodes" };
/// Messages that must be missing.
const MIN_LOST: u64 = 3;

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
    if !ways.places.has_several_sources() {
        return Vec::new();
    }
    let mut legs: BTreeMap<Key, Leg> = BTreeMap::new();
    for (way, queries) in &ways.queries {
        let Some(&home) = ways.homes.get(&way.backend) else { continue };
        let parts = ways.by_source(&way.places);
        let Some((from, _)) = parts.iter().find(|(source, _)| *source != home) else { continue };
        let leg = legs.entry((*from, home, way.backend, false)).or_default();
        if parts.iter().any(|(source, _)| *source == home) {
            leg.arrived += queries.asked();
        } else {
            leg.unseen += queries.answered;
            let watched = is_watching(way.watching, home, &queries.silent, sources);
            if watched && !usual.is_lost(ways, way.server, &way.places) {
                leg.lost.absorb(&queries.silent);
                leg.failed |= queries.failed > 0;
            }
        }
    }
    for (way, answers) in &ways.answers {
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
        } else if is_watching(way.watching, to, &answers.all, sources) {
            leg.lost.absorb(&answers.all);
            leg.failed |= answers.in_vain > 0;
        }
    }
    let told = legs.iter().filter(|(_, leg)| leg.lost.count >= MIN_LOST && leg.unseen <= leg.arrived);
    let findings = told.filter(|(_, leg)| !ways.may_be_cut_off(&leg.lost));
    Groups::<Key, ()>::default().worst(findings.map(|(key, leg)| finding(ways, *key, leg, sources)).collect())
}

/// Whether a source was recording when these were sent.
fn is_watching(mask: u16, source: u16, sent: &Tally, sources: &[Source]) -> bool {
    let said = sources.get(usize::from(source)).and_then(|source| source.window);
    mask >> source & 1 == 1 || said.is_some_and(|(from, until)| from <= sent.first && sent.last <= until)
}

fn finding(ways: &Ways, (from, to, server, answers): Key, leg: &Leg, sources: &[Source]) -> Finding {
    let sent = leg.arrived + leg.lost.count;
    let severity = if leg.failed { Severity::Error } else { Severity::Warning };
    let confidence =
        if leg.arrived == 0 || leg.arrived * 2 > sent { Confidence::High } else { Confidence::Medium };
    let mut finding = leg.lost.finding(CODE, severity, confidence);
    let name = |source: u16| {
        let named = sources.get(usize::from(source)).map(|source| source.name.clone());
        named.unwrap_or_else(|| format!("recording {}", source + 1))
    };
    finding.blames = vec![Culprit::BetweenNodes(server)];
    let what = if answers { "answers" } else { "queries" };
    finding.subject = vec![
        ("server", server.to_string()),
        ("messages", what.into()),
        ("from", name(from)),
        ("to", name(to)),
        ("sent", sent.to_string()),
        ("arrived", leg.arrived.to_string()),
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
        .queries
        .iter()
        .filter(|(way, queries)| !answers && way.backend == server && queries.silent.count > 0);
    let rows = rows.map(|(way, _)| &way.places);
    let of_answers = ways.answers.keys().filter(|way| answers && way.backend == server);
    for row in rows.chain(of_answers.map(|way| &way.places)) {
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
