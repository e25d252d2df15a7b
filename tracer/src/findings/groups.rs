//! What one rule saw, grouped, in bounded memory.

use super::{Confidence, Evidence, Finding, OTHERS, Severity};
use crate::model::Timestamp;
use std::{collections::HashMap, hash::Hash};

/// Groups one rule tells apart; what falls into further ones is only counted.
const MAX_GROUPS: usize = 1_024;
/// Findings of one rule that are told one by one; further ones are told as one.
const TOP: usize = 20;
/// Frame numbers kept for a group.
const MAX_EVIDENCE: usize = 16;

/// A finding's stable code and name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    pub(super) code: &'static str,
    pub(super) name: &'static str,
}

/// How often and when something happened, and some of the frames that show it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) evidence: Vec<Evidence>,
}

impl Tally {
    /// Counts `count` more, at `time`, shown by `frames`.
    pub(super) fn add(&mut self, count: u64, time: Timestamp, frames: impl IntoIterator<Item = Evidence>) {
        self.first = if self.count == 0 { time } else { self.first.min(time) };
        self.last = self.last.max(time);
        self.count += count;
        let room = MAX_EVIDENCE.saturating_sub(self.evidence.len());
        self.evidence.extend(frames.into_iter().take(room));
    }

    /// Counts what `other` counted too.
    pub(super) fn absorb(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (first, last) = (other.first, other.last);
        self.add(other.count, first, []);
        self.last = self.last.max(last);
        self.evidence.extend(&other.evidence);
        self.evidence.sort_unstable();
        self.evidence.truncate(MAX_EVIDENCE);
    }

    /// A finding with these counts; what it says is still to be filled in.
    pub(super) fn finding(&self, code: Code, severity: Severity, confidence: Confidence) -> Finding {
        let mut evidence = self.evidence.clone();
        evidence.sort_unstable();
        evidence.dedup();
        Finding {
            code: code.code,
            name: code.name,
            severity,
            confidence,
            subject: Vec::new(),
            count: self.count,
            first: self.first,
            last: self.last,
            summary: String::new(),
            advice: String::new(),
            evidence,
        }
    }
}

/// One group: its counts, and what the rule keeps beside them.
#[derive(Clone, Debug, Default)]
pub(super) struct Group<V> {
    pub(super) tally: Tally,
    pub(super) detail: V,
}

/// The groups of one rule.
#[derive(Debug)]
pub(super) struct Groups<K, V> {
    all: HashMap<K, Group<V>, foldhash::fast::RandomState>,
    overflow: Tally,
}

impl<K, V> Default for Groups<K, V> {
    fn default() -> Self {
        Self { all: HashMap::default(), overflow: Tally::default() }
    }
}

impl<K: Eq + Hash, V: Default> Groups<K, V> {
    /// Counts `count` more for `key`. Returns what the rule keeps for it, or `None` where the table is full.
    pub(super) fn add(
        &mut self,
        key: K,
        count: u64,
        time: Timestamp,
        frames: impl IntoIterator<Item = Evidence>,
    ) -> Option<&mut V> {
        if self.all.len() >= MAX_GROUPS && !self.all.contains_key(&key) {
            self.overflow.add(count, time, []);
            return None;
        }
        let group = self.all.entry(key).or_default();
        group.tally.add(count, time, frames);
        Some(&mut group.detail)
    }

    /// Every group, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Group<V>)> {
        self.all.iter()
    }

    /// One finding for each of the worst groups and one for all the others.
    pub(super) fn findings(&self, tell: impl Fn(&K, &Group<V>) -> Option<Finding>) -> Vec<Finding> {
        self.worst(self.all.iter().filter_map(|(key, group)| tell(key, group)).collect())
    }

    /// The worst of these findings, which tell all groups, and one for all the others.
    pub(super) fn worst(&self, mut findings: Vec<Finding>) -> Vec<Finding> {
        findings.sort_by(rank);
        if findings.len() > TOP {
            let rest = findings.split_off(TOP);
            findings.extend(together(&rest, self.overflow.count));
        }
        findings
    }
}

/// The order of findings: the worst first, then the most frequent, then by what they are about. One that stands for
/// several comes behind those told one by one.
pub(super) fn rank(a: &Finding, b: &Finding) -> std::cmp::Ordering {
    b.severity
        .cmp(&a.severity)
        .then((a.stands_for() > 1).cmp(&(b.stands_for() > 1)))
        .then(b.count.cmp(&a.count))
        .then(a.code.cmp(b.code))
        .then_with(|| a.subject.cmp(&b.subject))
}

fn together(rest: &[Finding], overflow: u64) -> Option<Finding> {
    let worst = rest.first()?;
    let count = rest.iter().map(|finding| finding.count).sum::<u64>() + overflow;
    let beyond = if overflow == 0 { "" } else { " or more" };
    Some(Finding {
        subject: vec![(OTHERS, rest.len().to_string())],
        count,
        first: rest.iter().map(|finding| finding.first).min().unwrap_or(worst.first),
        last: rest.iter().map(|finding| finding.last).max().unwrap_or(worst.last),
        summary: format!("{}{beyond} others like these, {count} times together", rest.len()),
        ..worst.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VantageId;

    const CODE: Code = Code { code: "DP999", name: "test" };

    fn frames<const N: usize>(numbers: [u64; N]) -> [Evidence; N] {
        numbers.map(|frame| Evidence { frame, vantage: VantageId(0) })
    }

    fn told(groups: &Groups<u32, ()>) -> Vec<Finding> {
        groups.findings(|key, group| {
            let mut finding = group.tally.finding(CODE, Severity::Info, Confidence::High);
            finding.subject.push(("key", key.to_string()));
            Some(finding)
        })
    }

    #[test]
    fn the_most_frequent_are_told_first_and_the_rest_as_one() {
        let mut groups = Groups::default();
        for key in 0..25_u32 {
            groups.add(key, u64::from(key) + 1, Timestamp::from_nanos(u64::from(key)), []);
        }
        let findings = told(&groups);
        assert_eq!(findings.len(), 21);
        assert_eq!((findings[0].count, findings[19].count), (25, 6));
        assert_eq!(findings[20].count, 5 + 4 + 3 + 2 + 1);
        assert_eq!(findings[20].subject, [("others", "5".to_owned())]);
        assert_eq!(findings[20].summary, "5 others like these, 15 times together");
    }

    #[test]
    fn beyond_the_bound_things_are_counted_and_no_memory_is_used() {
        let mut groups = Groups::default();
        for key in 0..5_000_u32 {
            groups.add(key, 1, Timestamp::from_nanos(1), frames([1, 2, 3]));
        }
        for _ in 0..100 {
            groups.add(7, 1, Timestamp::from_nanos(2), frames([4, 5, 6]));
        }
        assert_eq!(groups.all.len(), MAX_GROUPS);
        assert!(groups.all.values().all(|group| group.tally.evidence.len() <= MAX_EVIDENCE));
        let findings = told(&groups);
        assert_eq!(findings[0].count, 101);
        assert_eq!(findings.iter().map(|finding| finding.count).sum::<u64>(), 5_100);
    }
}
