//! DP202 no-endpoints: a service address behind which nobody is: no query for it is sent on to a backend.
//!
//! Looked at by the second, over all clients: a second in which no query for the address was translated or answered, and
//! some were rejected or got nothing. Fires
//! - where a rule of the node rejected some: ICMP port unreachable from another address than the one asked, for a query
//!   that was neither translated nor left the node. ICMP errors are rate-limited, so the silent ones of these seconds
//!   count too, and those that the kernel dropped at a rule (high confidence at a node's interfaces, else medium);
//! - in silence, from three queries on: none of them was translated or left the node, while the address had a backend
//!   before or after (medium), or others are translated behind the same interface (low).
//!
//! `count` is the queries. An error.
//!
//! Looks alike and does not fire: a silent server without translation, as a remote one is (DP201); a server that refuses
//! by itself, or a firewall on the way (DP201); a rule that rejects or drops one client's queries while others are
//! answered (DP303, DP402). Where the capture lost frames it is inconclusive.

use super::{
    Confidence, Culprit, Evidence, Finding, Severity,
    groups::{Code, Groups, Tally},
    places::Places,
    ways::{refused_on_node, reply_to},
};
use crate::{
    model::{Fate, InterfaceKind, PacketDrop, Question, QuestionOutcome, Timestamp, Transmission, VantageId},
    stats::Table,
};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

const CODE: Code = Code { code: "DP202", name: "no-endpoints" };
/// Addresses that are looked at.
const MOST_SERVICES: usize = 128;
/// Seconds with failures that are kept of one (what fails later is counted with the last one before), and seconds in which
/// it was alive: two days.
const MOST_SECONDS: usize = 256;
const MOST_ALIVE: usize = 2 * 86_400 / 64;
const MOST_CLIENTS: usize = 1_024;
const MAX_NAMED: usize = 3;
/// Frames kept of a second.
const MAX_FRAMES: u64 = 2;
const MAX_PLACES: usize = 8;
/// Silent queries from which on it is no chance.
const MIN_SILENT: u64 = 3;
/// A rejection explains what was dropped at a rule so many seconds around it.
const AROUND: u64 = 2;
const SECOND: u64 = 1_000_000_000;

/// What failed in one second.
#[derive(Debug, Default)]
struct Failing {
    rejected: u64,
    silent: u64,
    /// Dropped by a rule, as the kernel told.
    ruled: u64,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Service {
    /// The second that the first bit of `alive` stands for.
    base: u64,
    alive: Vec<u64>,
    failing: BTreeMap<u64, Failing>,
    translated: bool,
    answered: bool,
    rejected_by: Option<IpAddr>,
    /// Rejected at an interface of a node, and not only at a client.
    on_node: bool,
    clients: BTreeSet<IpAddr>,
    places: SmallVec<[VantageId; MAX_PLACES]>,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct NoEndpoints {
    services: Table<IpAddr, Service>,
    /// First places of queries that were translated.
    translating: Table<VantageId, ()>,
}

enum Failure {
    Rejected(IpAddr),
    Silent,
    Ruled,
}

impl NoEndpoints {
    /// Takes a question; `places` knows the vantages of its queries.
    pub(super) fn question(&mut self, question: &Question, places: &Places) {
        if question.outcome == QuestionOutcome::Incomplete {
            return;
        }
        for sent in &question.transmissions {
            let Some(service) = self.services.entry(sent.server.ip(), MOST_SERVICES) else { continue };
            let answered = reply_to(question, sent).is_some();
            if sent.backend.is_some()
                && let Some(first) = sent.hops.first()
            {
                self.translating.entry(first.vantage, usize::MAX);
            }
            if answered || sent.backend.is_some() {
                service.translated |= sent.backend.is_some();
                service.answered |= answered;
                service.live(sent.time);
            } else if let Some(failure) = failure(sent, places) {
                service.fail(question.client, sent, &failure, places);
            }
        }
    }

    /// Whether this packet was dropped in rejecting it.
    pub(super) fn rejects(&self, drop: &PacketDrop) -> bool {
        let second = drop.time.as_nanos() / SECOND;
        let by_rule = is_by_rule(drop) && !drop.is_response();
        let service = self.services.get(&drop.asked().destination.ip()).filter(|_| by_rule);
        service.is_some_and(|service| {
            let around = second.saturating_sub(AROUND)..=second + AROUND;
            service.failing.range(around).any(|(at, failing)| failing.rejected > 0 && !service.was_alive(*at))
        })
    }

    /// What was found so far.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> =
            self.services.iter().filter_map(|(server, service)| self.finding(*server, service)).collect();
        all.sort_by(super::groups::rank);
        Groups::<IpAddr, ()>::default().worst(all)
    }

    fn finding(&self, server: IpAddr, service: &Service) -> Option<Finding> {
        let (mut rejected, mut silent, mut ruled, mut tally) = (0, 0, 0, Tally::default());
        for (_, failing) in service.failing.iter().filter(|(second, _)| !service.was_alive(**second)) {
            rejected += failing.rejected;
            silent += failing.silent;
            ruled += failing.ruled;
            tally.absorb(&failing.tally);
        }
        let others_translated = service.places.iter().any(|place| self.translating.get(place).is_some());
        let confidence = match () {
            () if rejected > 0 && service.on_node => Confidence::High,
            () if rejected > 0 => Confidence::Medium,
            () if silent < MIN_SILENT => return None,
            () if service.translated => Confidence::Medium,
            () if others_translated && !service.answered => Confidence::Low,
            () => return None,
        };
        tally.count = rejected + silent + if rejected > 0 { ruled } else { 0 };
        let mut finding = tally.finding(CODE, Severity::Error, confidence);
        finding.rests_on_absence = true;
        finding.blames = vec![Culprit::NoEndpoints(server)];
        let evidence = if rejected > 0 { "rejected" } else { "silence" };
        let named: Vec<String> = service.clients.iter().take(MAX_NAMED).map(IpAddr::to_string).collect();
        finding.subject = vec![("server", server.to_string()), ("evidence", evidence.into())];
        let clients = match (service.clients.len(), &named[..]) {
            (1, [one]) => one.clone(),
            (count, _) => format!("{count} clients"),
        };
        let queries =
            if finding.count == 1 { "1 query".into() } else { format!("{} queries", finding.count) };
        finding.summary =
            format!("nobody is behind {server}: {queries} of {clients} were sent on to no backend");
        if let (Some(by), true) = (service.rejected_by, rejected > 0) {
            let were = if rejected == 1 { "was" } else { "were" };
            finding
                .summary
                .push_str(&format!("; {rejected} {were} rejected by {by} (ICMP port unreachable)"));
            if finding.count > rejected {
                let rest = finding.count - rejected;
                finding.summary.push_str(&format!(", {rest} got nothing, as such errors are rate-limited"));
            }
        } else if service.translated {
            finding.summary.push_str("; at other times they were");
        } else {
            finding.summary.push_str("; those for other services are, behind the same interface");
        }
        finding.advice = format!(
            "See why the service {server} has no ready endpoint: kubectl get endpointslices -A and the readiness of its \
             pods (for cluster DNS: kubectl -n kube-system get pods -l k8s-app=kube-dns). If it has some, see whether \
             kube-proxy on this node is up to date."
        );
        Some(finding)
    }
}

/// How a query failed that got no backend; `None` where it left the node or the kernel told of another reason.
fn failure(sent: &Transmission, places: &Places) -> Option<Failure> {
    if sent.hops.iter().any(|hop| places.leaves_node(hop.vantage) || places.enters_pod(hop.vantage)) {
        return None;
    }
    if refused_on_node(sent, places) {
        return sent.unreachable.map(|it| Failure::Rejected(it.error.from));
    }
    match &sent.dropped {
        _ if sent.unreachable.is_some() => None,
        Some(drop) if is_by_rule(drop) => Some(Failure::Ruled),
        Some(_) => None,
        None => Some(Failure::Silent),
    }
}

/// A rule that rejects frees the packet as one that drops does.
fn is_by_rule(drop: &PacketDrop) -> bool {
    drop.fate == Fate::Dropped && &*drop.reason == "NETFILTER_DROP"
}

/// Whether what `finding` says is that one of these services has no endpoint.
pub(super) fn explain(told: &[Finding], finding: &Finding) -> bool {
    let of =
        |finding: &Finding, key| finding.subject.iter().find(|(of, _)| *of == key).map(|(_, it)| it.clone());
    let about_service = matches!(finding.code, "DP201" | "DP402") && of(finding, "service").is_none();
    about_service
        && told.iter().any(|it| {
            of(it, "server") == of(finding, "server")
                && it.first <= finding.first + Duration::from_secs(1)
                && finding.last <= it.last + Duration::from_secs(1)
        })
}

impl Service {
    fn live(&mut self, time: Timestamp) {
        let second = time.as_nanos() / SECOND;
        if self.alive.is_empty() {
            // Questions are told when they end: some begin before the first one told.
            self.base = (second / 64).saturating_sub(1) * 64;
        }
        let Some(offset) = second.checked_sub(self.base).and_then(|it| usize::try_from(it).ok()) else {
            return;
        };
        if offset / 64 >= self.alive.len() {
            if offset / 64 >= MOST_ALIVE {
                return;
            }
            self.alive.resize(offset / 64 + 1, 0);
        }
        if let Some(bits) = self.alive.get_mut(offset / 64) {
            *bits |= 1 << (offset % 64);
        }
    }

    fn was_alive(&self, second: u64) -> bool {
        let offset = second.checked_sub(self.base).and_then(|it| usize::try_from(it).ok());
        offset.is_some_and(|it| self.alive.get(it / 64).is_some_and(|bits| bits >> (it % 64) & 1 == 1))
    }

    fn fail(&mut self, client: IpAddr, sent: &Transmission, failure: &Failure, places: &Places) {
        let mut second = sent.time.as_nanos() / SECOND;
        if self.failing.len() >= MOST_SECONDS && !self.failing.contains_key(&second) {
            let Some((before, _)) = self.failing.range(..second).next_back() else { return };
            second = *before;
        }
        let failing = self.failing.entry(second).or_default();
        let frame = sent.hops.first().filter(|_| failing.tally.count < MAX_FRAMES).map(Evidence::from);
        failing.tally.add(1, sent.time, frame);
        match *failure {
            Failure::Rejected(by) => {
                failing.rejected += 1;
                self.rejected_by = Some(by);
                let kind = |id| places.at(id).map(|it| it.kind);
                self.on_node |= sent
                    .hops
                    .first()
                    .is_some_and(|hop| kind(hop.vantage).is_some_and(|kind| kind != InterfaceKind::Unknown));
            }
            Failure::Silent => failing.silent += 1,
            Failure::Ruled => failing.ruled += 1,
        }
        if self.clients.len() < MOST_CLIENTS {
            self.clients.insert(client);
        }
        if let Some(first) = sent.hops.first()
            && self.places.len() < MAX_PLACES
            && !self.places.contains(&first.vantage)
        {
            self.places.push(first.vantage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{
        places_testing::{Town, told},
        testing::{Ask, ask, at, lost},
    };
    use crate::model::{Coverage, Rtype};

    const NODE: &str = "10.244.1.1";

    /// Rejected by the node, as an interface of it shows.
    fn rejected(town: &Town, asked: Ask, seen: &str) -> Question {
        let mut question = town.seen(asked.unreachable(), "", seen, "");
        if let Some(unreachable) = &mut question.transmissions[0].unreachable {
            unreachable.error.from = NODE.parse().unwrap();
        }
        question
    }

    fn silent(town: &Town, millis: u64) -> Question {
        town.seen(ask("web", Rtype::A, millis), "", "veth-web<", "")
    }

    fn fine(town: &Town, millis: u64) -> Question {
        let asked = ask("web", Rtype::A, millis).address("10.96.4.7");
        town.seen(asked, "10.244.1.2", "veth-web< veth-dns1>", "veth-dns1< veth-web>")
    }

    #[test]
    fn fires_for_what_a_rule_rejects_with_those_that_got_no_icmp_error() {
        let town = Town::default();
        let dropped = |n| {
            let lost = lost(ask("web", Rtype::A, n), Fate::Dropped, "NETFILTER_DROP", "nft_do_chain");
            town.seen_again(lost, "", "veth-web<", "")
        };
        let mut all = vec![rejected(&town, ask("web", Rtype::A, 0), "veth-web<")];
        all.extend([100, 1_200].map(|n| silent(&town, n)));
        all.push(dropped(1_300));
        insta::assert_debug_snapshot!(town.found(&all));
    }

    #[test]
    fn at_a_client_alone_it_is_less_sure() {
        let town = Town::default();
        let found = town.found(&[rejected(&town, ask("web", Rtype::A, 0), "if0")]);
        assert_eq!(
            (told(&found), found[0].confidence),
            (vec!["DP202 10.96.0.10".into()], Confidence::Medium)
        );
    }

    #[test]
    fn fires_in_silence_where_there_was_a_backend_before() {
        let town = Town::default();
        let all = [vec![fine(&town, 0)], [2_000, 3_000, 4_100].map(|n| silent(&town, n)).to_vec()].concat();
        let found = town.found(&[all, vec![fine(&town, 9_000)]].concat());
        assert_eq!(
            (told(&found), found[0].confidence),
            (vec!["DP202 10.96.0.10".into()], Confidence::Medium)
        );
        assert!(found[0].summary.ends_with("; at other times they were"), "{found:?}");
    }

    #[test]
    fn fires_in_silence_where_others_are_translated_behind_the_same_interface() {
        let town = Town::default();
        let other = |n| town.seen(ask("web", Rtype::A, n).to("10.96.0.99"), "", "veth-web<", "");
        let all = [vec![fine(&town, 0)], [2_000, 3_000, 4_100].map(other).to_vec(), vec![fine(&town, 9_000)]]
            .concat();
        let found = town.found(&all);
        assert_eq!((told(&found), found[0].confidence), (vec!["DP202 10.96.0.99".into()], Confidence::Low));
        let elsewhere = |n| town.seen(ask("web", Rtype::A, n).to("10.96.0.99"), "", "veth-db<", "");
        let all = [vec![fine(&town, 0)], [2_000, 3_000, 4_100].map(elsewhere).to_vec()].concat();
        assert_eq!(told(&town.found(&all)), ["DP201 10.96.0.99"], "nothing is known of that interface");
    }

    #[test]
    fn does_not_fire_for_a_server_that_refuses_itself_or_a_firewall_on_the_way() {
        let town = Town::default();
        let own = |n| town.seen(ask("web", Rtype::A, n).to("192.0.2.53").unreachable(), "", "veth-web<", "");
        let far = |n| rejected(&town, ask("web", Rtype::A, n).to("192.0.2.53"), "veth-web< cni0< eth0>");
        for refuse in [&own as &dyn Fn(u64) -> Question, &far] {
            let all = [vec![fine(&town, 0)], (1..4).map(|n| refuse(n * 1_000)).collect()].concat();
            assert_eq!(told(&town.found(&all)), ["DP201 192.0.2.53"]);
        }
    }

    #[test]
    fn does_not_fire_where_others_are_answered_at_the_same_time() {
        let town = Town::default();
        let all: Vec<Question> = (0..6)
            .flat_map(|n| {
                [fine(&town, n * 1_000), rejected(&town, ask("web", Rtype::A, n * 1_000 + 500), "veth-web<")]
            })
            .collect();
        assert!(town.found(&all).iter().all(|it| it.code != "DP202"), "a rule for one client");
        let all: Vec<Question> =
            (0..6).flat_map(|n| [fine(&town, n * 1_000), silent(&town, n * 1_000 + 500)]).collect();
        assert_eq!(told(&town.found(&all)), ["DP402 query"]);
    }

    #[test]
    fn does_not_fire_for_a_remote_server_that_is_silent() {
        let town = Town::default();
        let remote = |n| town.seen(ask("web", Rtype::A, n).to("192.0.2.53"), "", "veth-web< cni0< eth0>", "");
        let all = [vec![fine(&town, 0)], (1..5).map(|n| remote(n * 1_000)).collect()].concat();
        assert_eq!(told(&town.found(&all)), ["DP201 192.0.2.53"]);
    }

    #[test]
    fn is_inconclusive_where_frames_were_lost() {
        let town = Town::default();
        let coverage = Coverage { lost: 1, ..Coverage::default() };
        let found = town.with(&[rejected(&town, ask("web", Rtype::A, 0), "veth-web<")], &[], &coverage);
        assert!(found.iter().any(|it| it.code == "DP202" && it.confidence == Confidence::Inconclusive));
    }

    #[test]
    fn a_rejection_explains_what_the_kernel_dropped_and_a_dropping_rule_is_none() {
        let town = Town::default();
        let mut rule = NoEndpoints::default();
        let mut places = Places::new(town.0.clone());
        let rejected = rejected(&town, ask("web", Rtype::A, 0), "veth-web<");
        places.learn(rejected.transmissions[0].hops[0].vantage);
        rule.question(&rejected, &places);
        let mut drop = crate::findings::testing::drop_of(Fate::Dropped, at(900));
        assert!(!rule.rejects(&drop), "of an unknown reason");
        drop.reason = "NETFILTER_DROP".into();
        assert!(rule.rejects(&drop));
        drop.time = at(60_000);
        assert!(!rule.rejects(&drop), "long after");
        assert_eq!(NoEndpoints::default().findings(), []);
    }

    #[test]
    fn memory_is_bounded() {
        let mut service = Service::default();
        for second in [5_u64, 1 << 40, 7, 3_000_000] {
            service.live(Timestamp::from_nanos(second.saturating_mul(SECOND)));
        }
        assert!(service.was_alive(5) && service.was_alive(7) && !service.was_alive(6));
        assert!(service.alive.len() <= MOST_ALIVE);
        let town = Town::default();
        let mut rule = NoEndpoints::default();
        let places = Places::new(town.0.clone());
        for second in 0..2_000 {
            rule.question(&rejected(&town, ask("web", Rtype::A, second * 1_000), "veth-web<"), &places);
        }
        assert!(rule.services.iter().all(|(_, service)| service.failing.len() == MOST_SECONDS));
        assert_eq!(rule.findings()[0].count, 2_000, "all are counted");
    }
}
