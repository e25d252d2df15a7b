//! What changed against the time before the window.

use super::Report;
use crate::{
    findings::Finding,
    model::{Lookup, Name, Observer, Question, Timestamp},
    output::text::{DateTime, TimeOfDay, count, human},
    stats::Stats,
};
use serde::Serialize;
use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write,
    hash::BuildHasher,
    net::IpAddr,
    time::Duration,
};

/// Names told apart in the time before; with more, nothing is said about new ones.
const NAMES: usize = 1 << 17;
/// Names of the window that are looked for there, and servers.
const LISTED: usize = 4_096;
/// New ones that the JSON report names, and the text.
const TOLD: usize = 20;
const SHOWN: usize = 3;

/// Names and servers that were met.
#[derive(Debug, Default)]
pub struct Known {
    /// Hashes of looked-up names: two names that share one are taken for one.
    names: HashSet<u64>,
    hasher: foldhash::fast::RandomState,
    /// The first of these names.
    listed: Vec<Name>,
    servers: BTreeSet<IpAddr>,
}

impl Known {
    /// The same for the time after, which can be compared with it.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self { hasher: self.hasher.clone(), ..Self::default() }
    }

    fn hash(&self, name: &Name) -> u64 {
        self.hasher.hash_one(name.as_wire())
    }
}

impl Observer for Known {
    fn question(&mut self, question: &Question) {
        for sent in &question.transmissions {
            if self.servers.len() < LISTED {
                self.servers.insert(sent.server.ip());
            }
        }
    }

    fn lookup(&mut self, lookup: &Lookup) {
        let hash = self.hash(&lookup.name);
        if self.names.len() < NAMES && self.names.insert(hash) && self.listed.len() < LISTED {
            self.listed.push(lookup.name);
        }
    }
}

/// The time before the window, beside what is compared with it.
#[derive(Debug)]
pub struct Baseline<'a> {
    /// From the first message before the window to the window.
    pub span: (Timestamp, Timestamp),
    /// What was counted in it.
    pub stats: &'a Stats,
    /// What was found in it.
    pub findings: &'a [Finding],
    /// What was met in it.
    pub known: &'a Known,
    /// What was met in the window.
    pub now: &'a Known,
}

/// A number before the window and in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Pair<T> {
    before: T,
    now: T,
}

impl<T> Pair<T> {
    fn of<F>(self, what: impl Fn(T) -> F) -> Pair<F> {
        Pair { before: what(self.before), now: what(self.now) }
    }
}

/// A finding that the time before did not have: its code, and its place in the list of findings.
#[derive(Debug, Serialize)]
struct NewFinding {
    code: &'static str,
    finding: usize,
}

/// What changed, as the JSON report has it.
#[derive(Debug, Serialize)]
pub(super) struct Changes {
    from: String,
    to: String,
    queries_per_s: Pair<Option<f64>>,
    failed_share: Pair<Option<f64>>,
    nxdomain_share: Pair<Option<f64>>,
    p50_s: Pair<Option<f64>>,
    p99_s: Pair<Option<f64>>,
    /// The first of them; `None`: too many names to say.
    new_names: Option<Vec<String>>,
    new_names_count: Option<usize>,
    new_servers: Vec<String>,
    new_findings: Vec<NewFinding>,
}

impl Report<'_> {
    pub(super) fn changed(&self, baseline: &Baseline<'_>) -> Changes {
        let stats = Pair { before: baseline.stats, now: self.stats };
        let window = self.window.unwrap_or_default();
        let length =
            Pair { before: baseline.span, now: window }.of(|(from, to)| to.since(from).as_secs_f64());
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let per_second =
            |stats: &Stats, seconds: f64| (seconds > 0.0).then(|| stats.totals().queries as f64 / seconds);
        let wait = |quantile| {
            stats.of(move |stats| stats.latency().quantile(quantile).map(|wait| wait.as_secs_f64()))
        };
        let Baseline { known, now, .. } = baseline;
        let all_known = known.names.len() < NAMES && now.names.len() <= LISTED;
        let new = || now.listed.iter().filter(|name| !known.names.contains(&known.hash(name)));
        Changes {
            from: baseline.span.0.to_string(),
            to: baseline.span.1.to_string(),
            queries_per_s: Pair {
                before: per_second(stats.before, length.before),
                now: per_second(stats.now, length.now),
            },
            failed_share: stats.of(|stats| {
                let failed = stats.totals().results.iter().filter(|(result, _)| result.is_failure());
                share(failed.map(|(_, number)| number).sum(), stats.totals().lookups)
            }),
            nxdomain_share: stats
                .of(|stats| share(stats.totals().nxdomain_responses, stats.totals().responses)),
            p50_s: wait(0.5),
            p99_s: wait(0.99),
            new_names: all_known.then(|| new().take(TOLD).map(Name::to_string).collect()),
            new_names_count: all_known.then(|| new().count()),
            new_servers: now.servers.difference(&known.servers).map(IpAddr::to_string).collect(),
            new_findings: self
                .unexplained()
                .enumerate()
                .filter(|(_, finding)| !baseline.findings.iter().any(|before| is_same(before, finding)))
                .map(|(place, finding)| NewFinding { code: finding.code, finding: place })
                .collect(),
        }
    }

    /// What changed, in lines of text; none where there is no time before.
    pub(super) fn changes(&self) -> Vec<String> {
        let Some(baseline) = self.baseline else { return Vec::new() };
        let changes = self.changed(baseline);
        let (from, to) = baseline.span;
        let mut lines = vec![format!(
            "against {} to {} UTC ({}): {}",
            DateTime(from),
            TimeOfDay(to),
            human(to.since(from)),
            [
                told("queries", changes.queries_per_s, |rate| format!("{rate:.1}/s")),
                told("failed lookups", changes.failed_share, percent),
                told("NXDOMAIN", changes.nxdomain_share, percent),
                told("p50", changes.p50_s, seconds),
                told("p99", changes.p99_s, seconds),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ")
        )];
        let mut new = Vec::new();
        if let Some(names) = changes.new_names.filter(|names| !names.is_empty()) {
            new.push(listed("name", &names, changes.new_names_count.unwrap_or_default()));
        }
        if !changes.new_servers.is_empty() {
            new.push(listed("server", &changes.new_servers, changes.new_servers.len()));
        }
        let codes: BTreeSet<&str> = changes.new_findings.iter().map(|new| new.code).collect();
        if !codes.is_empty() {
            new.push(format!("findings {}", codes.into_iter().collect::<Vec<_>>().join(" ")));
        }
        if !new.is_empty() {
            lines.push(format!("new: {}", new.join("; ")));
        }
        lines
    }
}

/// Whether two findings are about the same: the code, and whom or what it names first.
fn is_same(one: &Finding, other: &Finding) -> bool {
    one.code == other.code && one.subject.first() == other.subject.first()
}

fn told(what: &str, pair: Pair<Option<f64>>, show: impl Fn(f64) -> String) -> Option<String> {
    let shown = pair.of(|value| value.map_or_else(|| "none".to_owned(), &show));
    match (pair.before, pair.now) {
        (None, None) => None,
        _ => Some(format!("{what} {} -> {}", shown.before, shown.now)),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn seconds(wait: f64) -> String {
    human(Duration::from_secs_f64(wait)).to_string()
}

fn listed(what: &str, all: &[String], number: usize) -> String {
    let plural = if number == 1 { "" } else { "s" };
    let first: Vec<&str> = all.iter().take(SHOWN).map(String::as_str).collect();
    let mut shown = format!("{} {what}{plural} ({}", count(number as u64), first.join(", "));
    if number > SHOWN {
        // Writing to a String does not fail.
        let _ = write!(shown, ", ...");
    }
    shown.push(')');
    shown
}
