//! DP101 search-fan-out: lookups that ask many names before the one that answers.
//!
//! Fires for a client and name when a lookup spent at least four queries (two suffixes, A and AAAA) on names
//! that gave no address before another name did. `count` is the queries wasted.
//!
//! - warning: the name itself answered, so the search list was walked in vain; a trailing dot or a lower ndots
//!   saves all of it.
//! - info: a name with a suffix answered, so the search list was needed; a longer name saves it.
//!
//! Looks alike and does not fire: `service.namespace`, which the second suffix answers by design (two queries);
//! a name that does not exist at all (DP104, no address was found).

use super::{
    Confidence, Finding, Rule, Severity,
    groups::{Code, Groups},
    search::{first_frames, suffix_of},
};
use crate::model::{Family, Lookup, Name};
use std::net::IpAddr;

const CODE: Code = Code { code: "DP101", name: "search-fan-out" };
/// Fewer wasted queries in a lookup are how a search list works.
const MIN_WASTED: u32 = 4;
/// Suffixes named in a finding.
const MAX_SUFFIXES: usize = 6;

#[derive(Debug, Default)]
struct Detail {
    lookups: u64,
    queries: u64,
    suffixes: Vec<Name>,
    answered_by: Name,
    family: Family,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct SearchFanOut(Groups<(IpAddr, Name), Detail>);

impl Rule for SearchFanOut {
    fn lookup(&mut self, lookup: &Lookup) {
        let Some(wasted) = lookup.wasted_search_queries.filter(|&wasted| wasted >= MIN_WASTED) else {
            return;
        };
        let Some(answered_by) = lookup.answered_by else { return };
        let in_vain = || lookup.steps.iter().filter(|step| step.name != answered_by);
        let frames = in_vain().flat_map(first_frames);
        let key = (lookup.client, lookup.name);
        let Some(detail) = self.0.add(key, u64::from(wasted), lookup.start, frames) else { return };
        detail.lookups += 1;
        detail.queries += u64::from(lookup.queries);
        detail.answered_by = answered_by;
        if detail.family == Family::Unknown {
            detail.family = lookup.family;
        }
        for suffix in in_vain().filter_map(|step| suffix_of(&step.name, &lookup.name)) {
            if detail.suffixes.len() < MAX_SUFFIXES && !suffix.is_root() && !detail.suffixes.contains(&suffix)
            {
                detail.suffixes.push(suffix);
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|(client, name), group| {
            let Detail { lookups, queries, suffixes, answered_by, family } = &group.detail;
            let by_itself = answered_by == name;
            let severity = if by_itself { Severity::Warning } else { Severity::Info };
            let mut finding = group.tally.finding(CODE, severity, Confidence::High);
            let suffixes: Vec<String> = suffixes.iter().map(Name::to_string).collect();
            finding.subject = vec![
                ("client", client.to_string()),
                ("name", name.to_string()),
                ("suffixes", suffixes.join(" ")),
                ("family", family.to_string()),
            ];
            let times = if *lookups == 1 { "1 lookup".into() } else { format!("{lookups} lookups") };
            finding.summary = format!(
                "{client} wasted {} of {queries} queries in {times} of {name}: asked with {} before {}",
                finding.count,
                list(&suffixes),
                if by_itself { "the name itself".into() } else { answered_by.to_string() },
            );
            finding.advice =
                if by_itself { advice(name, *family) } else { format!("Ask for {answered_by}. (the whole name, with its dot): one candidate instead of a search.") };
            Some(finding)
        })
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
fn advice(name: &Name, family: Family) -> String {
    let dot = format!("Write {name}. with its trailing dot");
    let dots = name.dots();
    if dots == 0 {
        return format!("{dot}: it is then asked as it is.");
    }
    match family {
        Family::Musl if dots >= 3 => format!(
            "{dot}, or set ndots:3 in the pod's dnsConfig. Not lower: with dots >= ndots musl never tries the \
             search list, and names like svc.ns.svc would stop working."
        ),
        Family::Musl => format!(
            "{dot}. Do not lower ndots to {dots} for it: with dots >= ndots musl never tries the search list, and \
             names like {} would stop working.",
            if dots == 1 { "svc.ns" } else { "svc.ns.svc" }
        ),
        Family::Glibc | Family::Go | Family::CAres | Family::CAresBefore120 | Family::CAresFrom120 => {
            format!(
                "{dot}, or set ndots:{} in the pod's dnsConfig: {family} then asks it as it is first, and names that \
             need a suffix still get it.",
                dots.min(2)
            )
        }
        _ => format!(
            "{dot}, or set ndots:{} in the pod's dnsConfig; but not where musl (Alpine) runs: it never tries the \
             search list when dots >= ndots, and names like {} would stop working.",
            dots.min(2),
            if dots == 1 { "svc.ns" } else { "svc.ns.svc" }
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
            for name in ["example.com", "api.example.com", "api.eu.example.com", "intranet"] {
                let text = advice(&name.parse().unwrap(), family);
                advised.push_str(&format!("{family:<8} {name:<20} {text}\n"));
            }
        }
        insta::assert_snapshot!(advised);
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
