//! DP101 search-fan-out: lookups that ask many names before the one that answers.
//!
//! Fires for a client and name (for a name alone when more than three clients ask it) when a lookup spent at least four
//! queries (two suffixes, A and AAAA) on names that gave no address before another name did. `count` is the queries wasted.
//! Where the clients' resolv.conf is known, its ndots is named.
//!
//! - warning: the name itself answered, so the search list was walked in vain; a trailing dot or a lower ndots
//!   saves all of it.
//! - info: a name with a suffix answered, so the search list was needed; a longer name saves it.
//!
//! Looks alike and does not fire: `service.namespace`, which the second suffix answers by design (two queries);
//! a name that does not exist at all (DP104, no address was found).

use super::{
    Confidence, Cost, Finding, Rule, Severity,
    groups::{Code, Group, Groups, Tally},
    search::{first_frames, suffix_of},
};
use crate::model::{Family, Lookup, Name, Question, Resolver, Step};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

const CODE: Code = Code { code: "DP101", name: "search-fan-out" };
/// Fewer wasted queries in a lookup are how a search list works.
const MIN_WASTED: u32 = 4;
/// So many clients of one name are told one by one.
const FEW_CLIENTS: usize = 3;
/// Suffixes named in a finding.
const MAX_SUFFIXES: usize = 6;
/// Clients whose ndots is remembered.
const MOST_CLIENTS: usize = 8_192;

#[derive(Debug, Default)]
struct Detail {
    lookups: u64,
    queries: u64,
    suffixes: Vec<Name>,
    answered_by: Name,
    /// The resolvers that asked, each once.
    families: Vec<Family>,
}

impl Detail {
    fn add_family(&mut self, family: Family) {
        if family != Family::Unknown && !self.families.contains(&family) {
            self.families.push(family);
            self.families.sort_unstable();
        }
    }

    fn add_suffix(&mut self, suffix: Name) {
        if self.suffixes.len() < MAX_SUFFIXES && !suffix.is_root() && !self.suffixes.contains(&suffix) {
            self.suffixes.push(suffix);
        }
    }
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct SearchFanOut {
    groups: Groups<(IpAddr, Name), Detail>,
    /// By what their resolv.conf says; not of pods whose containers disagree.
    ndots: HashMap<IpAddr, u32>,
}

impl SearchFanOut {
    /// Takes what was read of a container.
    pub(super) fn resolver(&mut self, resolver: &Resolver) {
        for address in &resolver.addresses {
            if !resolver.agrees {
                self.ndots.remove(address);
            } else if self.ndots.len() < MOST_CLIENTS || self.ndots.contains_key(address) {
                self.ndots.insert(*address, resolver.ndots());
            }
        }
    }
}

/// Whether this rule tells of such a lookup.
pub(super) fn tells(lookup: &Lookup) -> bool {
    lookup.answered_by.is_some() && lookup.wasted_search_queries.is_some_and(|wasted| wasted >= MIN_WASTED)
}

impl Rule for SearchFanOut {
    fn lookup(&mut self, lookup: &Lookup) {
        let Some(wasted) = lookup.wasted_search_queries.filter(|_| tells(lookup)) else { return };
        let Some(answered_by) = lookup.answered_by else { return };
        let in_vain = || lookup.steps.iter().filter(|step| step.name != answered_by);
        let frames = in_vain().flat_map(first_frames);
        let key = (lookup.client, lookup.name);
        // The time that servers took for them; waits for what was lost have another cause.
        let took = |step: &Step| step.questions.iter().filter_map(Question::server_latency).max();
        let cost = Cost::waited(in_vain().filter_map(took).sum());
        let Some(detail) = self.groups.charge(key, u64::from(wasted), cost, lookup.start, frames) else {
            return;
        };
        detail.lookups += 1;
        detail.queries += u64::from(lookup.queries);
        detail.answered_by = answered_by;
        detail.add_family(lookup.family);
        for suffix in in_vain().filter_map(|step| suffix_of(&step.name, &lookup.name)) {
            detail.add_suffix(suffix);
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut by_name: BTreeMap<&Name, Vec<(IpAddr, &Group<Detail>)>> = BTreeMap::new();
        for ((client, name), group) in self.groups.iter() {
            by_name.entry(name).or_default().push((*client, group));
        }
        let mut findings = Vec::new();
        for (name, mut clients) in by_name {
            clients.sort_unstable_by_key(|(client, group)| (Reverse(group.tally.count), *client));
            if clients.len() > FEW_CLIENTS {
                findings.push(self.tell(name, &clients));
            } else {
                findings.extend(clients.iter().map(|one| self.tell(name, std::slice::from_ref(one))));
            }
        }
        self.groups.worst(findings)
    }
}

impl SearchFanOut {
    /// One finding for these clients, those that waste most first.
    fn tell(&self, name: &Name, clients: &[(IpAddr, &Group<Detail>)]) -> Finding {
        let (mut tally, mut all) = (Tally::default(), Detail::default());
        for (_, Group { tally: one, detail }) in clients {
            tally.absorb(one);
            all.lookups += detail.lookups;
            all.queries += detail.queries;
            all.answered_by = detail.answered_by;
            detail.suffixes.iter().for_each(|suffix| all.add_suffix(*suffix));
            detail.families.iter().for_each(|family| all.add_family(*family));
        }
        let Detail { lookups, queries, suffixes, answered_by, families } = &all;
        let by_itself = answered_by == name;
        let severity = if by_itself { Severity::Warning } else { Severity::Info };
        let mut finding = tally.finding(CODE, severity, Confidence::High);
        let shown: Vec<String> =
            clients.iter().take(FEW_CLIENTS).map(|(client, _)| client.to_string()).collect();
        let (key, who) = match shown.as_slice() {
            [one] => ("client", one.clone()),
            first => ("clients", format!("{} clients ({}, ...)", clients.len(), first.join(", "))),
        };
        let suffixes: Vec<String> = suffixes.iter().map(Name::to_string).collect();
        let family = families.iter().map(Family::to_string).collect::<Vec<_>>().join(" ");
        finding.subject = vec![
            (key, clients.iter().map(|(client, _)| client.to_string()).collect::<Vec<_>>().join(" ")),
            ("name", name.to_string()),
            ("suffixes", suffixes.join(" ")),
            ("family", if family.is_empty() { Family::Unknown.to_string() } else { family }),
        ];
        // Where the name has as many dots, the program asked otherwise.
        let ndots = clients.iter().filter_map(|(client, _)| self.ndots.get(client));
        let ndots: BTreeSet<u32> =
            ndots.copied().filter(|ndots| by_itself && name.dots() < *ndots as usize).collect();
        let ndots = ndots.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let mut because = String::new();
        if !ndots.is_empty() {
            let whose = if clients.len() == 1 { "its resolv.conf has" } else { "their resolv.conf have" };
            because = format!(" ({whose} ndots:{ndots})");
            finding.subject.push(("ndots", ndots));
        }
        let times = if *lookups == 1 { "1 lookup".into() } else { format!("{lookups} lookups") };
        finding.summary = format!(
            "{who} wasted {} of {queries} queries in {times} of {name}: asked with {} before {}{because}",
            finding.count,
            list(&suffixes),
            if by_itself { "the name itself".into() } else { answered_by.to_string() },
        );
        finding.advice = if by_itself {
            advice(name, families)
        } else {
            format!(
                "Ask for {answered_by}. (the whole name, with its dot): one candidate instead of a search."
            )
        };
        finding
    }
}

fn list(suffixes: &[String]) -> String {
    match suffixes {
        [] => "other names".into(),
        several => several.join(", "),
    }
}

/// What saves the search for a name that answers as it is.
///
/// glibc, Go and c-ares ask a name with at least ndots dots as it is first and then still with the suffixes, so
/// a lower ndots breaks nothing. musl asks such a name as it is only: with ndots N every in-cluster name of N
/// dots and more that needs a suffix stops working, `service.namespace.svc` at ndots 2.
pub(super) fn advice(name: &Name, families: &[Family]) -> String {
    let dot = format!("Write {name}. with its trailing dot");
    let dots = name.dots();
    if dots == 0 {
        return format!("{dot}: it is then asked as it is.");
    }
    let breaks = if dots == 1 { "svc.ns" } else { "svc.ns.svc" };
    let goes_on = |family: &Family| {
        matches!(
            family,
            Family::Glibc | Family::Go | Family::CAres | Family::CAresBefore120 | Family::CAresFrom120
        )
    };
    match families {
        [Family::Musl] if dots >= 3 => format!(
            "{dot}, or set ndots:3 in the pod's dnsConfig. Not lower: with dots >= ndots musl never tries the \
             search list, and names like svc.ns.svc would stop working."
        ),
        [Family::Musl] => format!(
            "{dot}. ndots:{dots} would help, but breaks musl: with dots >= ndots it never tries the search list, \
             and names like {breaks} would stop working."
        ),
        [_, ..] if families.iter().all(goes_on) => {
            let who = families.iter().map(Family::to_string).collect::<Vec<_>>().join(" and ");
            let asks = if families.len() == 1 { "asks" } else { "ask" };
            format!(
                "{dot}, or set ndots:{} in the pod's dnsConfig: {who} then {asks} it as it is first, and names that \
                 need a suffix still get it. Not in pods with musl (Alpine): there names like {breaks} would \
                 stop working.",
                dots.min(2)
            )
        }
        _ => format!(
            "{dot}, or set ndots:{} in the pod's dnsConfig; but not where musl (Alpine) runs: it never tries the \
             search list when dots >= ndots, and names like {breaks} would stop working.",
            dots.min(2)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, found, lookup, searched};
    use crate::model::{LookupResult, Rtype};

    #[test]
    fn fires_where_an_external_name_walks_the_search_list() {
        let lookups = [1, 100, 200].map(|at| searched("api.example.com", Family::Glibc, at));
        insta::assert_debug_snapshot!(found::<SearchFanOut>(&lookups));
    }

    #[test]
    fn the_advice_is_right_for_the_resolver() {
        let mut advised = String::new();
        for family in [Family::Glibc, Family::Musl, Family::Go, Family::Unknown] {
            let families = if family == Family::Unknown { vec![] } else { vec![family] };
            for name in ["example.com", "api.example.com", "api.eu.example.com", "intranet"] {
                let text = advice(&name.parse().unwrap(), &families);
                advised.push_str(&format!("{family:<8} {name:<20} {text}\n"));
            }
        }
        insta::assert_snapshot!(advised);
    }

    fn of_client(number: u8, family: Family) -> Lookup {
        let mut one = searched("api.example.com", family, u64::from(number) * 100);
        one.client = IpAddr::from([10, 244, 1, number]);
        one
    }

    #[test]
    fn many_clients_of_one_name_are_one_finding() {
        let few: Vec<_> = (1..=3).map(|n| of_client(n, Family::Glibc)).collect();
        assert_eq!(found::<SearchFanOut>(&few).len(), 3);
        let mut many: Vec<_> = (1..=5).map(|n| of_client(n, Family::Glibc)).collect();
        many.extend([of_client(5, Family::Glibc), of_client(6, Family::Go)]);
        let findings = found::<SearchFanOut>(&many);
        assert_eq!((findings.len(), findings[0].count), (1, 7 * 6));
        insta::assert_debug_snapshot!(findings);
        assert_eq!(found::<SearchFanOut>(&many), findings, "the same each time");
    }

    #[test]
    fn where_musl_is_among_the_clients_the_advice_is_for_musl_too() {
        let advice = advice(&"api.example.com".parse().unwrap(), &[Family::Glibc, Family::Musl]);
        assert!(advice.contains("set ndots:2") && advice.contains("not where musl"), "{advice}");
    }

    #[test]
    fn a_needed_suffix_is_only_information() {
        let mut questions = Vec::new();
        for suffix in ["default.svc.cluster.local", "svc.cluster.local"] {
            for qtype in [Rtype::A, Rtype::AAAA] {
                questions.push(ask(&format!("web.shop.svc.{suffix}"), qtype, 1).nxdomain().build());
            }
        }
        questions.push(ask("web.shop.svc.cluster.local", Rtype::A, 3).address("10.96.4.7").build());
        questions.push(ask("web.shop.svc.cluster.local", Rtype::AAAA, 3).empty().build());
        let findings =
            found::<SearchFanOut>(&[lookup("web.shop.svc", Family::Glibc, LookupResult::Ok, questions)]);
        assert_eq!((findings.len(), findings[0].severity, findings[0].count), (1, Severity::Info, 4));
        assert!(
            findings[0].advice.starts_with("Ask for web.shop.svc.cluster.local."),
            "{}",
            findings[0].advice
        );
    }

    #[test]
    fn does_not_fire_for_a_service_in_another_namespace() {
        let questions = vec![
            ask("web.shop.default.svc.cluster.local", Rtype::A, 1).nxdomain().build(),
            ask("web.shop.default.svc.cluster.local", Rtype::AAAA, 1).nxdomain().build(),
            ask("web.shop.svc.cluster.local", Rtype::A, 2).address("10.96.4.7").build(),
            ask("web.shop.svc.cluster.local", Rtype::AAAA, 2).empty().build(),
        ];
        let one = lookup("web.shop", Family::Glibc, LookupResult::Ok, questions);
        assert_eq!(found::<SearchFanOut>(&vec![one; 50]), []);
    }

    #[test]
    fn does_not_fire_for_a_name_that_does_not_exist() {
        let mut missing = searched("typo.example.com", Family::Glibc, 1);
        (missing.result, missing.answered_by, missing.wasted_search_queries) =
            (LookupResult::Nxdomain, None, None);
        assert_eq!(found::<SearchFanOut>(&[missing]), []);
    }
}
