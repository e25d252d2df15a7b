//! DP402 lost-on-node: a query or an answer was seen at one place of the node, and not at the next one of its way.
//!
//! The way is learnt from other messages, not guessed. A query was lost behind a place where others for the same server
//! always went on, three at least, while none that was answered was last seen there; or where it had entered the node, or
//! a bridge, while three others for the same backend were seen where they left for it. An answer was lost where it did not
//! come back to the interface that its query came from, and three others of that server did. `count` is the messages. A
//! warning; an error where a question never got an answer. Told of the first one on; medium confidence below three.
//!
//! Looks alike and does not fire: what the kernel told that it dropped (DP301 to DP303), or was sent to a wrong MAC
//! address (DP401); a query that was rejected, or sent to a service without endpoints (DP202); one last seen where the
//! node's part of its way ends, which is leaving its uplink, or entering the server's pod (DP201, DP403); a place that
//! was not watched yet when others passed; a message that the capture's end cut off. Where the capture lost frames it is
//! inconclusive.

use super::{
    Confidence, Culprit, Finding, Severity,
    groups::{Code, Groups, Tally},
    ways::{QueryWay, Ways},
};
use crate::model::{Direction, VantageId};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

const CODE: Code = Code { code: "DP402", name: "lost-on-node" };
/// Messages that must have gone on before one that did not is lost.
const MIN_OTHERS: u64 = 3;
/// Losses from which on chance is no explanation.
const MANY: u64 = 3;
/// Further places that are named.
const MAX_NEXT: usize = 3;

/// Where messages to a server went on from one place.
#[derive(Debug, Default)]
struct Onward {
    went_on: u64,
    /// Answered all the same, or seen at another source.
    ended: u64,
    next: SmallVec<[VantageId; MAX_NEXT]>,
}

/// What is known of the usual ways of queries.
#[derive(Debug, Default)]
pub(super) struct Usual {
    /// By the address asked and the place.
    onward: HashMap<(IpAddr, VantageId), Onward, foldhash::fast::RandomState>,
    /// Where queries that were answered left a source for a backend, and how many.
    ends: HashMap<(IpAddr, u16), (VantageId, u64), foldhash::fast::RandomState>,
}

impl Usual {
    /// Learns it from what was seen.
    pub(super) fn of(ways: &Ways) -> Self {
        let mut usual = Self::default();
        for (way, queries) in &ways.queries {
            let parts = ways.by_source(&way.places);
            for (index, (source, part)) in parts.iter().enumerate() {
                for pair in part.windows(2) {
                    let [here, next] = *pair else { continue };
                    let onward = usual.onward.entry((way.server, here)).or_default();
                    onward.went_on += queries.asked();
                    if onward.next.len() < MAX_NEXT && !onward.next.contains(&next) {
                        onward.next.push(next);
                    }
                }
                let Some(last) = part.last() else { continue };
                let seen_elsewhere = index + 1 < parts.len();
                let ended = if seen_elsewhere { queries.asked() } else { queries.answered };
                usual.onward.entry((way.server, *last)).or_default().ended += ended;
                if ended > 0 && (ways.places.leaves_node(*last) || ways.places.enters_pod(*last)) {
                    usual.ends.entry((way.backend, *source)).or_insert((*last, 0)).1 += ended;
                }
            }
        }
        usual
    }

    /// Where a silent query with this way was last seen, if it was lost before its way over the node ended.
    fn lost(&self, ways: &Ways, way: &QueryWay) -> Option<Lost> {
        let parts = ways.by_source(&way.places);
        let (source, last) = parts.last().and_then(|(source, part)| Some((*source, *part.last()?)))?;
        let onward = self.onward.get(&(way.server, last));
        if onward.is_some_and(|it| it.ended > 0)
            || ways.places.leaves_node(last)
            || ways.places.enters_pod(last)
        {
            return None;
        }
        if let Some(onward) = onward.filter(|it| it.went_on >= MIN_OTHERS) {
            return Some(Lost { last, next: onward.next.clone(), others: onward.went_on });
        }
        let (end, others) =
            self.ends.get(&(way.backend, source)).filter(|(_, others)| *others >= MIN_OTHERS)?;
        let known = ways.places.at(last).is_some_and(|it| it.direction != Direction::Unknown);
        known.then(|| Lost { last, next: SmallVec::from_slice(&[*end]), others: *others })
    }

    /// Whether a silent query with this way was lost before its way over the node ended.
    pub(super) fn is_lost(&self, ways: &Ways, way: &QueryWay) -> bool {
        self.lost(ways, way).is_some()
    }
}

/// Where something was last seen, where it should have been next, and how many others were.
struct Lost {
    last: VantageId,
    next: SmallVec<[VantageId; MAX_NEXT]>,
    others: u64,
}

#[derive(Debug, Default)]
struct Detail {
    clients: SmallVec<[IpAddr; MAX_NEXT]>,
    next: SmallVec<[VantageId; MAX_NEXT]>,
    others: u64,
    failed: bool,
}

/// What was lost: whether an answer, of which server, where last seen.
type Key = (bool, IpAddr, VantageId);
type Losses = BTreeMap<Key, (Tally, Detail)>;

/// What was found so far.
pub(super) fn findings(ways: &Ways, usual: &Usual) -> Vec<Finding> {
    let mut lost = Losses::new();
    for (way, queries) in ways.queries.iter().filter(|(_, queries)| queries.silent.count > 0) {
        if let Some(Lost { last, next, others }) = usual.lost(ways, way) {
            let key = (false, way.server, last);
            let detail = add(&mut lost, key, &queries.silent, &queries.clients, queries.failed > 0);
            (detail.next, detail.others) = (next, others);
        }
    }
    let returned = returned(ways);
    for (way, answers) in &ways.answers {
        let back = |place: &VantageId| ways.places.is_same_interface(*place, way.asked_at);
        let (Some(last), None) = (way.places.last(), way.places.iter().find(|place| back(place))) else {
            continue;
        };
        let Some(&(others, at)) = returned.get(&(way.server, way.asked_at)) else { continue };
        if ways.places.source(*last) == ways.places.source(way.asked_at) && others >= MIN_OTHERS {
            let key = (true, way.server, *last);
            let detail = add(&mut lost, key, &answers.all, &answers.clients, answers.in_vain > 0);
            detail.next = SmallVec::from_slice(&[at]);
            detail.others = others;
        }
    }
    let told = lost.iter().filter(|(_, (tally, _))| !ways.may_be_cut_off(tally));
    let all = told.map(|(key, (tally, detail))| finding(ways, *key, tally, detail)).collect();
    Groups::<Key, ()>::default().worst(all)
}

fn add<'a>(
    lost: &'a mut Losses,
    key: Key,
    tally: &Tally,
    clients: &[IpAddr],
    failed: bool,
) -> &'a mut Detail {
    let (all, detail) = lost.entry(key).or_default();
    all.absorb(tally);
    for client in clients {
        if detail.clients.len() < MAX_NEXT && !detail.clients.contains(client) {
            detail.clients.push(*client);
        }
    }
    detail.failed |= failed;
    detail
}

/// How many answers of a server came back to where their queries came from, and to which place.
fn returned(ways: &Ways) -> BTreeMap<(IpAddr, VantageId), (u64, VantageId)> {
    let mut returned = BTreeMap::new();
    for (way, answers) in &ways.answers {
        let back = |place: &&VantageId| ways.places.is_same_interface(**place, way.asked_at);
        if let Some(place) = way.places.iter().find(back) {
            returned.entry((way.server, way.asked_at)).or_insert((0, *place)).0 += answers.all.count;
        }
    }
    returned
}

fn finding(ways: &Ways, (answer, server, last): Key, tally: &Tally, detail: &Detail) -> Finding {
    let severity = if detail.failed { Severity::Error } else { Severity::Warning };
    let confidence = if tally.count >= MANY { Confidence::High } else { Confidence::Medium };
    let mut finding = tally.finding(CODE, severity, confidence);
    finding.blames = vec![Culprit::LostOnNode { answer, server, last }];
    let next: Vec<String> = detail.next.iter().map(|place| ways.places.name(*place)).collect();
    let clients: Vec<String> = detail.clients.iter().map(IpAddr::to_string).collect();
    let (what, from) = if answer { ("answer", "from") } else { ("query", "to") };
    finding.subject =
        vec![("message", what.into()), ("server", server.to_string()), ("last_seen", ways.places.name(last))];
    let (messages, were) = match (tally.count, answer) {
        (1, true) => ("1 answer".into(), "was"),
        (1, false) => ("1 query".into(), "was"),
        (count, true) => (format!("{count} answers"), "were"),
        (count, false) => (format!("{count} queries"), "were"),
    };
    finding.summary = format!(
        "{messages} {from} {server} ({}) {were} last seen {} and never at {}, where {} others were seen",
        clients.join(", "),
        ways.places.passing(last),
        next.join(" or "),
        detail.others
    );
    finding.advice = format!(
        "It was lost on this node, between {} and {}: look at iptables and nft rules, network policies, rp_filter and the \
         programs of other tools on these interfaces. A live session says what the kernel dropped and why (DP303).",
        ways.places.name(last),
        next.join(" or ")
    );
    finding
}
