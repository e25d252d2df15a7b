//! DP501 resolv-conf, the faults `ndots` and `ndots-low`: an ndots that does not fit the names really asked.
//!
//! - `ndots`, information: most of a pod's lookups, eight at least, were of names with fewer dots than its ndots that
//!   answered as they are, after suffixes in vain. `count` is the queries wasted. Only where each lookup wasted too few
//!   for DP101 (a search list of one suffix, A alone): else DP101 tells it, with the ndots.
//! - `ndots-low`, warning: musl asked names of the cluster (`service.namespace`, `service.namespace.svc`) only as they
//!   are, was told NXDOMAIN, and the pod's search list has the suffix that they need. `count` is the lookups. It explains
//!   these lookups of DP104.
//!
//! Looks alike and does not fire: names that need their suffix; glibc, Go and c-ares, which go on to the search list after
//! they asked a name as it is; nginx and BIND's tools, which have no search list; a name below no namespace of the cluster.
//! Pods whose containers do not agree in their resolv.conf are passed over: a packet does not tell its container.

use super::{
    Confidence, Cost, Culprit, Finding, Severity,
    groups::{Code, Groups, Tally},
    search::first_frames,
    search_fan_out,
};
use crate::{
    model::{Family, Libc, Lookup, LookupResult, Name, Resolver},
    stats::Table,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Fewer lookups of a pod say little about the names it asks.
const MIN_LOOKUPS: u64 = 8;
/// Names of a pod that are remembered.
const MOST_NAMES: usize = 32;
/// Names that a sentence has.
const NAMED: usize = 3;

/// The state of both rules: what clients asked.
#[derive(Debug, Default)]
pub(super) struct Ndots {
    clients: Groups<IpAddr, Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// Walked the search list in vain: `count` is the queries that this wasted.
    walked: Tally,
    walks: u64,
    /// The names, with how often each.
    names: Table<Name, u64>,
    families: BTreeSet<Family>,
    /// DP101 tells of this client.
    fans_out: bool,
    /// One of its resolvers is musl.
    musl: bool,
    /// Asked only as they are, by musl or nobody who can be told, and not found.
    unsearched: BTreeMap<Name, Tally>,
}

impl Ndots {
    /// A lookup that ended.
    pub(super) fn lookup(&mut self, lookup: &Lookup) {
        let Some(asked) = self.clients.add(lookup.client, 1, lookup.start, []) else { return };
        let frames = || lookup.steps.iter().flat_map(first_frames);
        asked.musl |= lookup.family == Family::Musl;
        if is_unsearched(lookup) && matches!(lookup.family, Family::Musl | Family::Unknown) {
            if asked.unsearched.len() < MOST_NAMES || asked.unsearched.contains_key(&lookup.name) {
                let tally = asked.unsearched.entry(lookup.name).or_default();
                tally.add(1, lookup.start, frames());
                tally.cost += Cost { waited: lookup.duration, failed: 1 };
            }
        } else if lookup.answered_by == Some(lookup.name)
            && let Some(wasted @ 1..) = lookup.wasted_search_queries
        {
            asked.fans_out |= search_fan_out::tells(lookup);
            asked.walks += 1;
            asked.walked.add(u64::from(wasted), lookup.start, frames());
            asked.families.extend((lookup.family != Family::Unknown).then_some(lookup.family));
            if let Some(times) = asked.names.entry(lookup.name, MOST_NAMES) {
                *times += 1;
            }
        }
    }

    /// What of it the clients' resolvers explain, oldest reading first; one finding for each client and fault.
    pub(super) fn findings(&self, code: Code, resolvers: &[&Resolver]) -> Vec<Finding> {
        let namespaces: BTreeSet<String> =
            resolvers.iter().flat_map(|resolver| suffixes(resolver)).filter_map(namespace_of).collect();
        let mut by_address: BTreeMap<IpAddr, &Resolver> = BTreeMap::new();
        for resolver in resolvers.iter().filter(|resolver| resolver.agrees) {
            by_address.extend(resolver.addresses.iter().map(|address| (*address, *resolver)));
        }
        let mut all = Vec::new();
        for (client, group) in self.clients.iter() {
            let Some(resolver) = by_address.get(client) else { continue };
            all.extend(too_high(code, resolver, group.tally.count, &group.detail));
            all.extend(too_low(code, *client, resolver, &group.detail, &namespaces));
        }
        Groups::<IpAddr, ()>::default().worst(all)
    }
}

/// Whether it asked for a name with dots only as it is, and that does not exist.
pub(super) fn is_unsearched(lookup: &Lookup) -> bool {
    lookup.result == LookupResult::Nxdomain
        && lookup.name.dots() >= 1
        && lookup.steps.len() == 1
        && lookup.steps.iter().all(|step| step.name == lookup.name)
}

fn too_high(code: Code, resolver: &Resolver, lookups: u64, asked: &Asked) -> Option<Finding> {
    let Asked { walked, walks, names, families, fans_out, .. } = asked;
    let ndots = resolver.ndots();
    let shorter = |name: &Name| name.dots() < ndots as usize;
    if *fans_out
        || *walks < MIN_LOOKUPS
        || walks * 2 <= lookups
        || !names.iter().all(|(name, _)| shorter(name))
    {
        return None;
    }
    let mut often: Vec<(&Name, &u64)> = names.iter().collect();
    often.sort_by_key(|(name, times)| (std::cmp::Reverse(**times), *name));
    let (most, _) = often.first()?;
    let shown: Vec<String> = often.iter().take(NAMED).map(|(name, _)| name.to_string()).collect();
    let mut finding = walked.finding(code, Severity::Info, Confidence::High);
    finding.subject = subject(resolver, "ndots");
    finding.summary = format!(
        "the resolv.conf of {} has ndots:{ndots}; {walks} of {lookups} lookups were of names with fewer dots that answer \
         as they are ({}): {} queries with a suffix were wasted",
        resolver.pod,
        shown.join(", "),
        walked.count,
    );
    finding.advice = search_fan_out::advice(most, &families.iter().copied().collect::<Vec<_>>());
    Some(finding)
}

fn too_low(
    code: Code,
    client: IpAddr,
    resolver: &Resolver,
    asked: &Asked,
    namespaces: &BTreeSet<String>,
) -> Option<Finding> {
    if !asked.musl && resolver.libc != Libc::Musl {
        return None;
    }
    let ndots = resolver.ndots();
    let all = suffixes(resolver);
    let needed = |name: &Name| {
        let needed = needed_suffix(name, &all, namespaces).filter(|_| name.dots() >= ndots as usize)?;
        Some(format!("{name}.{needed}"))
    };
    let mut tally = Tally::default();
    let mut whole = Vec::new();
    let (mut names, mut dots) = (Vec::new(), 0);
    for (name, one) in &asked.unsearched {
        let Some(full) = needed(name) else { continue };
        tally.absorb(one);
        whole.push(full);
        dots = dots.max(name.dots());
        names.push(*name);
    }
    let (first, full) = (names.first()?, whole.first()?);
    let mut finding = tally.finding(code, Severity::Warning, Confidence::High);
    finding.subject = subject(resolver, "ndots-low");
    let lookups = if tally.count == 1 { "1 lookup".into() } else { format!("{} lookups", tally.count) };
    let shown: Vec<String> = names.iter().take(NAMED).map(Name::to_string).collect();
    finding.summary = format!(
        "the resolv.conf of {} has ndots:{ndots}: musl asked {} only as it is, without the search list that has its suffix \
         ({lookups} not found)",
        resolver.pod,
        shown.join(", "),
    );
    finding.advice = format!(
        "Set ndots above {dots} in the pod's dnsConfig (5 is the cluster's own), or write the whole name, {full} for \
         {first}: with dots >= ndots musl never tries the search list."
    );
    finding.blames = names.into_iter().map(|name| Culprit::Unsearched(client, name)).collect();
    Some(finding)
}

fn subject(resolver: &Resolver, fault: &str) -> Vec<(&'static str, String)> {
    vec![("pod", resolver.pod.to_string()), ("file", "/etc/resolv.conf".into()), ("fault", fault.into())]
}

/// Its suffixes as names are written here: folded, without a dot at the end.
fn suffixes(resolver: &Resolver) -> Vec<String> {
    resolver.suffixes().iter().map(|it| it.trim_end_matches('.').to_ascii_lowercase()).collect()
}

/// `shop` of `shop.svc.cluster.local`.
fn namespace_of(suffix: String) -> Option<String> {
    suffix.split_once(".svc.").map(|(namespace, _)| namespace.to_owned()).filter(|it| !it.contains('.'))
}

/// What a name of the cluster needs behind it, where that is in the search list.
fn needed_suffix<'a>(name: &Name, all: &'a [String], namespaces: &BTreeSet<String>) -> Option<&'a String> {
    let services = all.iter().find(|suffix| suffix.starts_with("svc."))?;
    let last = std::str::from_utf8(name.labels().last()?).ok()?;
    if last == "svc" {
        return all.iter().find(|suffix| services.strip_prefix("svc.") == Some(suffix.as_str()));
    }
    (name.dots() == 1 && namespaces.contains(last)).then_some(services)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::{
        Findings,
        testing::{CLIENT, ask, at, lookup, searched},
    };
    use crate::model::{Coverage, Observer as _, PodName, Rtype};

    fn resolver(ndots: u32, libc: Libc) -> Resolver {
        Resolver {
            pod: PodName { namespace: "shop".into(), name: "web".into() },
            addresses: vec![CLIENT.parse().unwrap()],
            resolv_conf: format!(
                "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:{ndots}\n"
            ),
            libc,
            agrees: true,
            ..Resolver::default()
        }
    }

    /// Every finding of such lookups, with the code that explains it.
    fn told(resolver: &Resolver, lookups: &[Lookup]) -> Vec<(String, Option<&'static str>)> {
        let mut findings = Findings::default();
        findings.resolver(resolver, at(0));
        lookups.iter().for_each(|lookup| findings.lookup(lookup));
        let ranked = findings.ranked(&Coverage::default(), (at(0), at(9)));
        let shown = |finding: &Finding| {
            let Finding { code, severity, count, summary, advice, .. } = finding;
            format!("{code} {severity} {count}: {summary} | {advice}")
        };
        ranked.iter().map(|finding| (shown(finding), finding.explained_by.map(|by| by.code))).collect()
    }

    /// One suffix in vain, A alone, then the name itself.
    fn short_walk(asked: &str, at: u64) -> Lookup {
        let questions = vec![
            ask(&format!("{asked}.corp.example"), Rtype::A, at).nxdomain().build(),
            ask(asked, Rtype::A, at + 2).address("203.0.113.1").build(),
        ];
        lookup(asked, Family::Glibc, LookupResult::Ok, questions)
    }

    fn not_found(asked: &str, family: Family) -> Lookup {
        let question = ask(asked, Rtype::A, 1).nxdomain().build();
        lookup(asked, family, LookupResult::Nxdomain, vec![question])
    }

    #[test]
    fn an_ndots_above_the_names_asked() {
        let walks: Vec<Lookup> = (0..8).map(|n| short_walk("api.example.com", n * 100)).collect();
        let all = told(&resolver(5, Libc::Glibc), &walks);
        assert_eq!(all.len(), 1, "{all:?}");
        let expected = "DP501 info 8: the resolv.conf of shop/web has ndots:5; 8 of 8 lookups were of names with fewer dots \
                        that answer as they are (api.example.com): 8 queries with a suffix were wasted | Write \
                        api.example.com. with its trailing dot, or set ndots:2";
        assert!(all[0].0.starts_with(expected), "{all:?}");
        assert_eq!(told(&resolver(5, Libc::Glibc), &walks[..7]), [], "too few");
        assert_eq!(told(&resolver(2, Libc::Glibc), &walks), [], "ndots is not why");
        let disagree = Resolver { agrees: false, ..resolver(5, Libc::Glibc) };
        assert_eq!(told(&disagree, &walks), []);
        let mut mixed = walks.clone();
        mixed.extend((0..8).map(|n| crate::findings::testing::direct("db", 2_000 + n)));
        assert_eq!(told(&resolver(5, Libc::Glibc), &mixed), [], "half of the lookups need the suffixes");
    }

    #[test]
    fn what_dp101_tells_is_told_there_with_the_ndots() {
        let walks: Vec<Lookup> =
            (0..10).map(|n| searched("api.example.com", Family::Glibc, n * 100)).collect();
        let all = told(&resolver(5, Libc::Glibc), &walks);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(
            all[0].0.starts_with("DP101 ") && all[0].0.contains("(its resolv.conf has ndots:5)"),
            "{all:?}"
        );
        let without = told(&Resolver::default(), &walks);
        assert!(without.len() == 1 && !without[0].0.contains("resolv.conf"), "{without:?}");
    }

    #[test]
    fn an_ndots_below_the_names_of_the_cluster() {
        let lookups =
            [("web.shop.svc", Family::Musl), ("db.shop", Family::Unknown), ("typo.example", Family::Musl)]
                .map(|(asked, family)| not_found(asked, family));
        let all = told(&resolver(1, Libc::Musl), &lookups);
        assert_eq!(
            all[0],
            (
                "DP501 warning 2: the resolv.conf of shop/web has ndots:1: musl asked db.shop, web.shop.svc only as it is, \
                 without the search list that has its suffix (2 lookups not found) | Set ndots above 2 in the pod's \
                 dnsConfig (5 is the cluster's own), or write the whole name, db.shop.svc.cluster.local for db.shop: with \
                 dots >= ndots musl never tries the search list."
                    .to_owned(),
                None
            )
        );
        let explained: Vec<_> =
            all[1..].iter().map(|(text, by)| (text.contains("typo.example"), *by)).collect();
        assert_eq!(explained, [(true, None), (false, Some("DP501")), (false, Some("DP501"))], "{all:?}");
    }

    #[test]
    fn look_alikes_of_an_ndots_too_low() {
        let fires = |resolver: &Resolver, asked: &str, family| {
            told(resolver, &[not_found(asked, family)]).iter().any(|(text, _)| text.starts_with("DP501"))
        };
        assert!(fires(&resolver(1, Libc::Unknown), "web.shop.svc", Family::Musl));
        assert!(!fires(&resolver(1, Libc::Glibc), "web.shop.svc", Family::Nginx), "it has no search list");
        assert!(!fires(&resolver(1, Libc::Glibc), "web.shop.svc", Family::Unknown));
        assert!(!fires(&resolver(5, Libc::Musl), "web.shop.svc", Family::Musl), "ndots is not why");
        assert!(!fires(&resolver(1, Libc::Musl), "web.nowhere", Family::Musl), "no namespace of the cluster");
        let bare = Resolver { resolv_conf: "nameserver 10.96.0.10\n".into(), ..resolver(1, Libc::Musl) };
        assert!(!fires(&bare, "web.shop.svc", Family::Musl), "no search list has its suffix");
    }

    #[test]
    fn names_of_a_client_are_bounded() {
        let mut rule = Ndots::default();
        for number in 0..1_000 {
            rule.lookup(&not_found(&format!("a{number}.svc"), Family::Musl));
            rule.lookup(&short_walk(&format!("a{number}.example"), number));
        }
        let kept: Vec<usize> = rule
            .clients
            .iter()
            .map(|(_, group)| group.detail.unsearched.len() + group.detail.names.len())
            .collect();
        assert_eq!(kept, [2 * MOST_NAMES]);
    }
}
