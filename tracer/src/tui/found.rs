//! The lines of the findings view, and when the rules are asked for them.

use super::text;
use crate::{
    findings::{Confidence, Cost, Evidence, Finding, Findings, Severity, name_pods},
    model::{Coverage, Pods, Timestamp},
    output::text::human,
};
use std::{
    collections::HashSet,
    hash::{BuildHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// The rules are asked at most this often.
const EVERY: Duration = Duration::from_millis(500);

/// One line of the findings view.
#[derive(Debug)]
pub(super) struct FindingRow {
    /// Of its code and of what it is about: its own, and stays while it is told.
    pub(super) key: u64,
    /// Its place, from 1.
    pub(super) rank: u64,
    pub(super) code: &'static str,
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    pub(super) confidence: Confidence,
    pub(super) count: u64,
    pub(super) cost: Cost,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Escaped.
    pub(super) summary: Box<str>,
    /// Escaped.
    pub(super) advice: Box<str>,
    /// What of other codes it explains, in words; empty where nothing.
    pub(super) explains: Box<str>,
    pub(super) evidence: Box<[Evidence]>,
    /// Addresses that it is about; port 0.
    pub(super) about: Box<[SocketAddr]>,
    /// The client that it is about.
    pub(super) client: Option<IpAddr>,
}

/// The findings as they were when the rules were asked last.
#[derive(Debug, Default)]
pub(super) struct Found {
    rows: Vec<Arc<FindingRow>>,
    asked: Option<(Timestamp, u64)>,
}

impl Found {
    /// Asks the rules where that is due: some time has passed and something was told since. Whether it was.
    pub(super) fn refresh(
        &mut self,
        rules: &Findings,
        told: u64,
        now: Timestamp,
        seen: (&Coverage, (Timestamp, Timestamp)),
        pods: &Pods,
    ) -> bool {
        let due = self
            .asked
            .is_none_or(|(asked, before)| told != before && (now < asked || now.since(asked) >= EVERY));
        if !due {
            return false;
        }
        self.asked = Some((now, told));
        let mut findings = rules.ranked(seen.0, seen.1);
        name_pods(&mut findings, pods);
        let unexplained = findings.into_iter().filter(|finding| finding.explained_by.is_none());
        // Of those that are about the same, each is a line of its own all the same.
        let mut keys = HashSet::new();
        let row = |(finding, rank)| {
            let mut row = row(finding, rank);
            while !keys.insert(row.key) {
                row.key = row.key.wrapping_add(1);
            }
            Arc::new(row)
        };
        self.rows = unexplained.zip(1..).map(row).collect();
        true
    }

    pub(super) fn rows(&self) -> &[Arc<FindingRow>] {
        &self.rows
    }
}

fn row(finding: Finding, rank: u64) -> FindingRow {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    finding.code.hash(&mut hasher);
    finding.identity().for_each(|subject| subject.hash(&mut hasher));
    let addresses = finding.subject.iter().flat_map(|(key, value)| {
        value.split(' ').filter_map(move |word| Some((*key, word.parse::<IpAddr>().ok()?)))
    });
    let addresses: Vec<(&str, IpAddr)> = addresses.collect();
    let explains: Vec<String> = finding
        .symptoms
        .iter()
        .map(|symptom| format!("{} {} ({})", symptom.code, symptom.name, text::count(symptom.count)))
        .collect();
    FindingRow {
        key: hasher.finish(),
        rank,
        code: finding.code,
        name: finding.name,
        severity: finding.severity,
        confidence: finding.confidence,
        count: finding.count,
        cost: finding.cost,
        first: finding.first,
        last: finding.last,
        summary: text::escape(&finding.summary).into(),
        advice: text::escape(&finding.advice).into(),
        explains: explains.join(", ").into(),
        evidence: finding.evidence.into(),
        about: addresses.iter().map(|(_, address)| SocketAddr::new(*address, 0)).collect(),
        client: addresses.iter().find(|(key, _)| key.starts_with("client")).map(|(_, address)| *address),
    }
}

impl FindingRow {
    /// What it cost, in words; empty where that is not known.
    pub(super) fn costs(&self) -> String {
        let mut parts = Vec::new();
        if !self.cost.waited.is_zero() {
            parts.push(format!("{} waited", human(self.cost.waited)));
        }
        if self.cost.failed > 0 {
            parts.push(format!("{} failed", text::counted(self.cost.failed, "lookup")));
        }
        parts.join(", ")
    }
}
