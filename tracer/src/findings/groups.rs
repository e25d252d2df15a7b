//! What one rule saw, grouped, in bounded memory.

use super::{Confidence, Cost, Evidence, Finding, OTHERS, Severity, Suspects, causes::Causes};
use crate::{model::Timestamp, stats::Table};
use std::{collections::BTreeMap, hash::Hash};

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
    pub(super) cost: Cost,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) evidence: Vec<Evidence>,
}

impl Tally {
    /// Counts `count` more, at `time`, shown by `frames`.
    pub(super) fn add(&mut self, count: u64, time: Timestamp, frames: impl IntoIterator<Item = Evidence>) {
        if count == 0 {
            return;
        }
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
        self.cost += other.cost;
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
            cost: self.cost,
            first: self.first,
            last: self.last,
            summary: String::new(),
            advice: String::new(),
            evidence,
            symptoms: Vec::new(),
            explained_by: None,
            rests_on_absence: false,
            blames: Vec::new(),
            suspects: Vec::new(),
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
    all: Table<K, Group<V>>,
    overflow: Tally,
}

impl<K, V> Default for Groups<K, V> {
    fn default() -> Self {
        Self { all: Table::default(), overflow: Tally::default() }
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
        self.charge(key, count, Cost::default(), time, frames)
    }

    /// The same with what these cost.
    pub(super) fn charge(
        &mut self,
        key: K,
        count: u64,
        cost: Cost,
        time: Timestamp,
        frames: impl IntoIterator<Item = Evidence>,
    ) -> Option<&mut V> {
        let Some(group) = self.all.entry(key, MAX_GROUPS) else {
            self.overflow.add(count, time, []);
            self.overflow.cost += cost;
            return None;
        };
        group.tally.add(count, time, frames);
        group.tally.cost += cost;
        Some(&mut group.detail)
    }

    /// Changes what the rule keeps for its groups.
    pub(super) fn each(&mut self, mut change: impl FnMut(&K, &mut V)) {
        self.all.iter_mut().for_each(|(key, group)| change(key, &mut group.detail));
    }

    /// Adds to the cost of what is counted for `key` already.
    pub(super) fn cost(&mut self, key: &K, cost: Cost) {
        if let Some(group) = self.all.get_mut(key) {
            group.tally.cost += cost;
        }
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
            findings.extend(together(&rest, &self.overflow));
        }
        findings
    }
}

/// What a rule about symptoms keeps beside a group, which can be counted together with another's.
pub(super) trait Absorb {
    /// Takes in what `other` keeps; it happened later.
    fn absorb(&mut self, other: &Self);
}

/// The groups of a rule about symptoms: kept apart by their suspects, told apart by who of them was found guilty.
#[derive(Debug)]
pub(super) struct Symptoms<K, V>(Groups<(K, Suspects), V>);

impl<K, V> Default for Symptoms<K, V> {
    fn default() -> Self {
        Self(Groups::default())
    }
}

impl<K: Clone + Ord + Hash, V: Default + Absorb> Symptoms<K, V> {
    /// See [`Groups::charge`].
    pub(super) fn charge(
        &mut self,
        (key, suspects): (K, Suspects),
        count: u64,
        cost: Cost,
        time: Timestamp,
        frames: impl IntoIterator<Item = Evidence>,
    ) -> Option<&mut V> {
        self.0.charge((key, suspects), count, cost, time, frames)
    }

    /// One finding for each of the worst groups that nothing in `causes` explains, one for all the others like them, and
    /// all those that are explained, each with the one suspect that does.
    pub(super) fn findings(
        &self,
        causes: &Causes,
        tell: impl Fn(&K, &Group<V>) -> Option<Finding>,
    ) -> Vec<Finding> {
        let mut groups: Vec<_> = self.0.iter().collect();
        groups.sort_by(|(a, of_a), (b, of_b)| of_a.tally.first.cmp(&of_b.tally.first).then_with(|| a.cmp(b)));
        let mut merged: BTreeMap<_, Group<V>> = BTreeMap::new();
        for ((key, suspects), group) in groups {
            let span = (group.tally.first, group.tally.last);
            let to = merged.entry((key, causes.guilty(suspects, span))).or_default();
            to.tally.absorb(&group.tally);
            to.detail.absorb(&group.detail);
        }
        let (mut own, mut explained) = (Vec::new(), Vec::new());
        for ((key, guilty), group) in &merged {
            match guilty {
                None => own.extend(tell(key, group)),
                Some(guilty) => explained.extend(
                    tell(key, group)
                        .map(|finding| Finding { suspects: vec![Clone::clone(*guilty)], ..finding }),
                ),
            }
        }
        let mut findings = self.0.worst(own);
        findings.extend(explained);
        findings
    }
}

/// The order of findings: by severity, then by what they cost the users ([`Cost::weight`]), then by how often, then by
/// what they are about. One that stands for several comes behind those of its severity that are told one by one.
pub(super) fn rank(a: &Finding, b: &Finding) -> std::cmp::Ordering {
    b.severity
        .cmp(&a.severity)
        .then((a.stands_for() > 1).cmp(&(b.stands_for() > 1)))
        .then(b.cost.weight().cmp(&a.cost.weight()))
        .then(b.count.cmp(&a.count))
        .then(a.code.cmp(b.code))
        .then_with(|| a.subject.cmp(&b.subject))
}

fn together(rest: &[Finding], overflow: &Tally) -> Option<Finding> {
    let worst = rest.first()?;
    let count = rest.iter().map(|finding| finding.count).sum::<u64>() + overflow.count;
    let mut cost = overflow.cost;
    rest.iter().for_each(|finding| cost += finding.cost);
    let beyond = if overflow.count == 0 { "" } else { " or more" };
    Some(Finding {
        subject: vec![(OTHERS, rest.len().to_string())],
        count,
        cost,
        first: rest.iter().map(|finding| finding.first).min().unwrap_or(worst.first),
        last: rest.iter().map(|finding| finding.last).max().unwrap_or(worst.last),
        blames: rest.iter().flat_map(|finding| finding.blames.iter().cloned()).collect(),
        // Of these, one is not to be blamed for what the others are.
        suspects: if rest.iter().all(|finding| finding.suspects == worst.suspects) {
            worst.suspects.clone()
        } else {
            Suspects::new()
        },
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
        assert!(groups.all.iter().all(|(_, group)| group.tally.evidence.len() <= MAX_EVIDENCE));
        let findings = told(&groups);
        assert_eq!(findings[0].count, 101);
        assert_eq!(findings.iter().map(|finding| finding.count).sum::<u64>(), 5_100);
    }
}
