//! DP502 iptables-rules: so many packet rules that they cost time, or somebody who adds the same ones again and again.
//!
//! Of each network namespace that is watched, by the first and the last count of its rules. `count` is the rules. Fires as
//! a warning when
//! - a hundred or more say what an earlier one of the same table says;
//! - there are 50,000 or more;
//! - at least ten more duplicates are there than at the first count: they are being added now.
//!
//! Looks alike and does not fire: some rules twice, as several programs leave them; rules that come with new services.

use super::{
    Confidence, Finding, Severity,
    groups::{Code, Tally},
};
use crate::model::{RuleCount, Timestamp};
use std::collections::BTreeMap;

const CODE: Code = Code { code: "DP502", name: "iptables-rules" };
/// So many duplicates more are no coincidence.
const GROWING: u64 = 10;
/// Namespaces that are remembered.
const MOST: usize = 64;

/// The rule's state: the first and the last count of each namespace.
#[derive(Debug, Default)]
pub(super) struct IptablesRules(BTreeMap<String, Counts>);

#[derive(Debug)]
struct Counts {
    first: (RuleCount, Timestamp),
    last: (RuleCount, Timestamp),
}

impl IptablesRules {
    /// Takes a count.
    pub(super) fn rules(&mut self, count: &RuleCount, time: Timestamp) {
        let counted = || (count.clone(), time);
        if let Some(counts) = self.0.get_mut(&count.netns) {
            counts.last = counted();
        } else if self.0.len() < MOST {
            self.0.insert(count.netns.clone(), Counts { first: counted(), last: counted() });
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        self.0.values().filter_map(finding).collect()
    }
}

fn finding(Counts { first: (first, from), last: (last, until) }: &Counts) -> Option<Finding> {
    let added = last.rules.saturating_sub(first.rules);
    let is_growing = last.duplicates >= first.duplicates.saturating_add(GROWING);
    let advice = last.advice().or_else(|| {
        is_growing
            .then_some("Somebody adds rules that are there already: find who, before there are thousands.")
    })?;
    let mut tally = Tally::default();
    tally.add(last.rules, *from, []);
    tally.last = *until;
    let mut finding = tally.finding(CODE, Severity::Warning, Confidence::High);
    finding.subject = vec![
        ("netns", last.netns.clone()),
        ("duplicates", last.duplicates.to_string()),
        ("added", added.to_string()),
    ];
    let since = until.since(*from).as_secs_f64();
    let growth = if added > 0 { format!(" ({added} more than {since:.0} s before)") } else { String::new() };
    finding.summary = format!("{}{growth}: {}", last.netns, last.shown());
    finding.advice = advice.into();
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::at;

    fn counted(rules: u64, duplicates: u64) -> RuleCount {
        let worst =
            (duplicates > 0).then(|| ("-t nat -A POSTROUTING -j MASQUERADE".to_owned(), duplicates + 1));
        RuleCount { netns: "node-7".into(), rules, duplicates, worst }
    }

    fn told(counts: &[RuleCount]) -> Vec<String> {
        let mut rule = IptablesRules::default();
        for (index, count) in counts.iter().enumerate() {
            rule.rules(count, at(index as u64 * 60_000));
        }
        rule.findings().iter().map(|it| format!("{} {}: {}", it.severity, it.count, it.summary)).collect()
    }

    #[test]
    fn fires_for_duplicates_for_many_and_for_growth() {
        assert_eq!(
            told(&[counted(300, 120)]),
            [
                "warning 300: node-7: 300 rules, 120 of them duplicates; 121 times: -t nat -A POSTROUTING -j MASQUERADE"
            ]
        );
        assert_eq!(told(&[counted(50_000, 0)]), ["warning 50000: node-7: 50000 rules, 0 of them duplicates"]);
        assert_eq!(
            told(&[counted(300, 0), counted(305, 5), counted(312, 12)]),
            ["warning 312: node-7 (12 more than 120 s before): 312 rules, 12 of them duplicates"]
        );
    }

    #[test]
    fn does_not_fire_for_a_few_duplicates_or_new_services() {
        assert!(told(&[counted(300, 99), counted(40_000, 99)]).is_empty());
        assert!(told(&[]).is_empty());
    }

    #[test]
    fn namespaces_are_told_apart_and_bounded() {
        let mut rule = IptablesRules::default();
        for number in 0..1_000 {
            rule.rules(&RuleCount { netns: number.to_string(), ..counted(1_000, 500) }, at(0));
        }
        assert_eq!(rule.findings().len(), MOST);
    }
}
