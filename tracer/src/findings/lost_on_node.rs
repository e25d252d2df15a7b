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
        for (way, queries) in ways.queries() {
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
    for (way, queries) in ways.queries().into_iter().filter(|(_, queries)| queries.silent.count > 0) {
        if let Some(Lost { last, next, others }) = usual.lost(ways, way) {
            let key = (false, way.server, last);
            let detail = add(&mut lost, key, &queries.silent, &queries.clients, queries.failed > 0);
            (detail.next, detail.others) = (next, others);
        }
    }
    let returned = returned(ways);
    for (way, answers) in ways.answers() {
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
    for (way, answers) in ways.answers() {
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
    finding.rests_on_absence = true;
    finding.blames = vec![Culprit::LostOnNode { answer, server, last }];
    let next: Vec<String> = detail.next.iter().map(|place| ways.places.name(*place)).collect();
    let clients: Vec<String> = detail.clients.iter().map(IpAddr::to_string).collect();
    let what = if answer { "answer" } else { "query" };
    finding.subject =
        vec![("message", what.into()), ("server", server.to_string()), ("last_seen", ways.places.name(last))];
    let clients = clients.join(", ");
    let way = if answer { format!("of {server} to {clients}") } else { format!("of {clients} to {server}") };
    let (messages, were) = match (tally.count, answer) {
        (1, _) => (format!("1 {what}"), "was"),
        (count, true) => (format!("{count} answers"), "were"),
        (count, false) => (format!("{count} queries"), "were"),
    };
    finding.summary = format!(
        "{messages} {way} {were} last seen {} and never at {}, where {} others were seen",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{
        places_testing::{Town, told},
        testing::{ask, at, lost},
    };
    use crate::model::{Coverage, Fate, Misdirected, Observer as _, Question, RetransmissionKind, Rtype};

    const WAY: &str = "veth-web< cni0> veth-dns1>";
    const BACK: &str = "veth-dns1< veth-web>";

    fn fine(town: &Town, millis: u64) -> Question {
        town.seen(ask("web", Rtype::A, millis).address("10.96.4.7"), "10.244.1.2", WAY, BACK)
    }

    /// Others that are answered, and one that nobody answers, seen so far.
    fn with_one(town: &Town, places: &str) -> Vec<Question> {
        let gone = town.seen(ask("gone", Rtype::A, 500), "", places, "");
        (0..4).map(|n| fine(town, n * 100)).chain([gone, fine(town, 1_000)]).collect()
    }

    #[test]
    fn fires_where_a_query_did_not_go_on_as_others_did() {
        let town = Town::default();
        insta::assert_debug_snapshot!(town.found(&with_one(&town, "veth-web<")));
    }

    #[test]
    fn fires_where_an_answer_did_not_come_back_as_others_did() {
        let town = Town::default();
        let again = ask("web", Rtype::A, 500).address("10.96.4.7").again(2_500, RetransmissionKind::Timeout);
        let mut gone = again.build();
        let mut second = gone.transmissions.remove(1);
        gone = town.seen_again(gone, "10.244.1.2", WAY, "veth-dns1<");
        (second.hops, second.backend) = (gone.transmissions[0].hops.clone(), gone.transmissions[0].backend);
        gone.transmissions.push(second);
        let all: Vec<_> = (0..4).map(|n| fine(&town, n * 100)).chain([gone, fine(&town, 9_000)]).collect();
        let found = town.found(&all);
        let told: Vec<&str> = found.iter().map(|it| it.code).collect();
        assert_eq!(told, ["DP402"], "{found:?}");
        assert_eq!(found[0].subject[0], ("message", "answer".into()));
        assert!(
            found[0].summary.contains("last seen leaving the pod at veth-dns1 and never at veth-web egress")
        );
    }

    #[test]
    fn another_clients_queries_show_where_the_way_to_a_backend_ends() {
        let town = Town::default();
        let gone =
            (0..3).map(|n| town.seen(ask("gone", Rtype::A, 500 + n).to("10.244.1.2"), "", "veth-db<", ""));
        let all: Vec<_> = gone.chain((0..4).map(|n| fine(&town, n * 1_000))).collect();
        let found = town.found(&all);
        assert_eq!(told(&found), ["DP402 query"]);
        assert!(
            found[0].summary.contains("leaving the pod at veth-db and never at veth-dns1 egress"),
            "{found:?}"
        );
    }

    #[test]
    fn does_not_fire_where_the_way_over_the_node_ended_or_is_not_known() {
        let town = Town::default();
        assert_eq!(town.found(&with_one(&town, WAY)), [], "it reached the server's pod");
        assert_eq!(
            town.found(&with_one(&town, "veth-new<")),
            [],
            "a place that no other message was seen at"
        );
        assert_eq!(town.found(&with_one(&town, "veth-web<")[3..]), [], "too few others");
        let cut = with_one(&town, "veth-web<").into_iter().take(5).collect::<Vec<_>>();
        assert_eq!(town.found(&cut), [], "the capture ended then");
    }

    #[test]
    fn does_not_fire_where_the_server_was_not_watched_from_the_start() {
        let town = Town::default();
        let unwatched = ask("web", Rtype::A, 1).address("10.96.4.7");
        let unwatched = town.seen(unwatched, "", "veth-web<", "veth-web>");
        let mut all = with_one(&town, "veth-web<");
        all.insert(0, unwatched);
        assert_eq!(town.found(&all), []);
    }

    #[test]
    fn does_not_fire_for_what_is_known_to_be_dropped_or_misdirected() {
        let town = Town::default();
        let mut all = with_one(&town, "veth-web<");
        let dropped = lost(ask("gone", Rtype::A, 500), Fate::Dropped, "NETFILTER_DROP", "nft_do_chain");
        all[4] = town.seen_again(dropped, "", "veth-web<", "");
        assert_eq!(town.found(&all), []);
        let all = with_one(&town, "veth-web<");
        let mut findings = crate::findings::Findings::new(town.0.clone());
        let hop = all[4].transmissions[0].hops[0];
        findings.misdirected(&Misdirected {
            frame: hop.frame,
            time: hop.time,
            vantage: hop.vantage,
            flow: crate::model::Flow { source: hop.source, destination: hop.destination },
            destination_mac: Default::default(),
            expected_mac: Default::default(),
            dns: Default::default(),
        });
        all.iter().for_each(|question| findings.question(question));
        let found = findings.ranked(&Coverage::default(), (at(0), at(9_000)));
        assert!(found.iter().all(|finding| finding.code != "DP402"), "{found:?}");
    }

    #[test]
    fn is_inconclusive_where_frames_were_lost() {
        let town = Town::default();
        let coverage = Coverage { lost: 1, ..Coverage::default() };
        let found = town.with(&with_one(&town, "veth-web<"), &[], &coverage);
        let lost = found.iter().find(|finding| finding.code == "DP402").unwrap();
        assert_eq!(lost.confidence, Confidence::Inconclusive);
    }
}
