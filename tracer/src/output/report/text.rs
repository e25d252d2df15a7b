//! The report as text: the verdict, what is wrong with its worst examples and what to do, then the numbers. Made
//! to be pasted: no colour, no escape sequence, lines of at most 110 columns where names allow it.

use super::Report;
use crate::{
    findings::{Cost, Finding, Severity, Symptom},
    model::LookupResult,
    output::{
        drops::ConntrackView,
        text::{DateTime, TimeOfDay, count, escape, human},
    },
    stats::Totals,
};
use std::{fmt::Write, io, time::Duration};

const WIDTH: usize = 110;
const INDENT: &str = "    ";
/// Servers listed; the JSON report has them all.
const SERVERS: usize = 5;
/// Blind spots: no two of them are of a kind, and there is no worst one.
const BLIND_SPOT: &str = "DP902";
pub(super) const BLIND_SPOTS: usize = 12;
/// Frame numbers shown for an example.
const FRAMES: usize = 6;
/// An answer as slow as this is worth a word in the verdict.
const NOTABLE: Duration = Duration::from_secs(1);
/// Clocks told; the JSON report has them all.
const CLOCKS: usize = 3;
/// Sources named.
const SOURCES: usize = 4;

impl Report<'_> {
    /// Writes the report as text.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write_text(&self, to: &mut impl io::Write) -> io::Result<()> {
        let mut text = String::new();
        self.heading(&mut text);
        for code in codes(self.unexplained()) {
            self.say(&mut text, &code);
        }
        self.numbers(&mut text);
        to.write_all(text.as_bytes())
    }

    fn heading(&self, text: &mut String) {
        line(text, format_args!("{}", self.verdict()));
        if let Some((from, to)) = self.window {
            let took = human(to.since(from));
            line(
                text,
                format_args!(
                    "{} to {} UTC ({took}), {}",
                    DateTime(from),
                    end(from, to),
                    sources(self.sources)
                ),
            );
        } else {
            line(text, format_args!("{}", sources(self.sources)));
        }
        line(text, format_args!(""));
    }

    pub(super) fn verdict(&self) -> String {
        let totals = self.stats.totals();
        if self.coverage.dns_messages == 0 {
            return format!(
                "No DNS seen in {} frames: nothing can be said. Is it the right interface, the right --port?",
                count(self.coverage.frames)
            );
        }
        if totals.queries == 0 && totals.responses == 0 {
            return "None of the DNS messages is selected: nothing can be said.".into();
        }
        let found = |severity| -> u64 {
            self.unexplained().filter(|finding| finding.severity == severity).map(Finding::stands_for).sum()
        };
        let (errors, warnings, notes) =
            (found(Severity::Error), found(Severity::Warning), found(Severity::Info));
        let got = totals.results.get(&LookupResult::Ok).copied().unwrap_or(0);
        let mut lookups = format!("{} of {} lookups got an address", count(got), count(totals.lookups));
        if let Some(slowest) = self.stats.latency().max().filter(|&slowest| slowest >= NOTABLE) {
            let _ = write!(lookups, ", the slowest answer after {}", human(slowest));
        }
        let notes = match notes {
            0 => String::new(),
            1 => " (1 note)".into(),
            several => format!(" ({} notes)", count(several)),
        };
        match (errors, warnings) {
            (0, 0) if got == 0 && totals.lookups > 0 => format!("No fault of DNS found{notes}: {lookups}."),
            (0, 0) => format!("Nothing wrong found{notes}: {lookups}."),
            (0, warnings) => format!("{}{notes}: {lookups}.", plural(warnings, "warning")),
            (errors, 0) => format!("{}{notes}: {lookups}.", plural(errors, "error")),
            (errors, warnings) => {
                format!("{}, {}{notes}: {lookups}.", plural(errors, "error"), plural(warnings, "warning"))
            }
        }
    }

    fn numbers(&self, text: &mut String) {
        let totals = self.stats.totals();
        let results: Vec<String> =
            totals.results.iter().map(|(result, number)| format!("{} {result}", count(*number))).collect();
        row(text, "lookups", &format!("{}: {}", count(totals.lookups), or_none(results)));
        row(text, "queries", &queries(totals));
        row(text, "answers", &answers(totals));
        let latency = self.stats.latency();
        if let (Some(p50), Some(p90), Some(p99), Some(max)) =
            (latency.quantile(0.5), latency.quantile(0.9), latency.quantile(0.99), latency.max())
        {
            let waits =
                format!("p50 {}, p90 {}, p99 {}, max {}", human(p50), human(p90), human(p99), human(max));
            row(text, "waited", &waits);
        }
        let servers = self.stats.servers().ranked();
        for (address, stats) in servers.iter().take(SERVERS) {
            let mut shown = format!(
                "{}: answered {} of {}",
                self.server_name(*address),
                count(stats.answered),
                count(stats.queries)
            );
            if let (Some(p50), Some(p99)) = (stats.latency.quantile(0.5), stats.latency.quantile(0.99)) {
                // Writing to a String cannot fail.
                let _ = write!(shown, ", p50 {}, p99 {}", human(p50), human(p99));
            }
            row(text, "server", &shown);
        }
        if servers.len() > SERVERS {
            row(text, "", &format!("and {} servers more (-o json has them all)", servers.len() - SERVERS));
        }
        if totals.drops + totals.clashes_resolved > 0 {
            row(text, "kernel", &kernel(totals));
        }
        if let Some(counted) = self.coverage.conntrack {
            row(text, "counters", &format!("conntrack {}", ConntrackView::new(counted, totals).text()));
        }
        for (index, line) in self.changes().iter().enumerate() {
            row(text, if index == 0 { "before" } else { "" }, line);
        }
        row(text, "seen", &self.seen());
        for clock in self.clock_lines() {
            row(text, "clock", &clock);
        }
    }

    /// How the files' clocks differ: the first ones.
    pub(super) fn clock_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.clocks.iter().take(CLOCKS).map(ToString::to_string).collect();
        if self.clocks.len() > CLOCKS {
            lines.push(format!("and {} more (-o json has them)", self.clocks.len() - CLOCKS));
        }
        lines
    }

    /// What was seen and what was not.
    pub(super) fn seen(&self) -> String {
        let seen = self.coverage;
        let mut shown =
            format!("{} frames, {} DNS messages in them", count(seen.frames), count(seen.dns_messages));
        for (number, what) in [
            (seen.lost, "lost by the capture"),
            (seen.truncated, "cut"),
            (seen.malformed, "malformed"),
            (seen.evicted, "dropped for want of room"),
        ] {
            if number > 0 {
                let _ = write!(shown, ", {} {what}", count(number));
            }
        }
        if seen.lost == 0 {
            shown.push_str(", none known to be lost");
        }
        if self.cut {
            shown.push_str("; a file ends inside a record, its end is missing");
        }
        shown
    }
}

fn kernel(totals: &Totals) -> String {
    let Totals { drops, insert_failed, clashes_resolved, .. } = *totals;
    let mut shown = format!("{} DNS packets dropped", count(drops));
    for (number, what) in
        [(insert_failed, "by failed conntrack inserts"), (clashes_resolved, "clashes resolved")]
    {
        if number > 0 {
            let _ = write!(shown, ", {} {what}", count(number));
        }
    }
    shown
}

fn queries(totals: &Totals) -> String {
    let mut shown = count(totals.queries);
    let share = percent(totals.wasted_search_queries, totals.queries);
    for (number, what) in [
        (totals.tcp_queries, "over TCP".to_owned()),
        (totals.wasted_search_queries, format!("wasted by searching{share}")),
        (totals.retransmissions, "retransmissions".to_owned()),
        (totals.unanswered, "unanswered".to_owned()),
    ] {
        if number > 0 {
            let _ = write!(shown, ", {} {what}", count(number));
        }
    }
    shown
}

fn answers(totals: &Totals) -> String {
    let mut shown = count(totals.responses);
    let share = percent(totals.nxdomain_responses, totals.responses);
    let empty = totals.empty_noerror.values().sum::<u64>() + totals.empty_noerror_other;
    for (number, what) in [
        (totals.nxdomain_responses, format!("NXDOMAIN{share}")),
        (totals.servfail_responses, "SERVFAIL".to_owned()),
        (totals.refused_responses, "REFUSED".to_owned()),
        (empty, "empty NOERROR".to_owned()),
        (totals.suspicious_empty_noerror, "of them where NXDOMAIN was due".to_owned()),
        (totals.tc_responses, "truncated".to_owned()),
        (totals.late_responses, "late".to_owned()),
    ] {
        if number > 0 {
            let _ = write!(shown, ", {} {what}", count(number));
        }
    }
    shown
}

/// The findings of one code, the worst first.
struct OfCode<'a> {
    findings: Vec<&'a Finding>,
}

/// Findings by code, in the order of each code's worst.
fn codes<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<OfCode<'a>> {
    let mut codes: Vec<OfCode<'a>> = Vec::new();
    for finding in findings {
        match codes.iter_mut().find(|of| of.findings.first().is_some_and(|first| first.code == finding.code))
        {
            Some(of) => of.findings.push(finding),
            None => codes.push(OfCode { findings: vec![finding] }),
        }
    }
    codes
}

impl Report<'_> {
    fn say(&self, text: &mut String, of: &OfCode<'_>) {
        let Some(worst) = of.findings.first() else { return };
        let each = worst.code == BLIND_SPOT;
        let examples = match worst.severity {
            _ if each => BLIND_SPOTS,
            Severity::Error => 3,
            Severity::Warning => 2,
            Severity::Info => 1,
        };
        line(text, format_args!("{} {} {}", worst.severity.as_str().to_uppercase(), worst.code, worst.name));
        let mut advised: Option<&str> = None;
        for finding in of.findings.iter().take(examples) {
            wrapped(text, INDENT, INDENT, &format!("{}{}.", finding.summary, doubt(finding)));
            if finding.severity > Severity::Info && !finding.evidence.is_empty() {
                line(text, format_args!("{INDENT}{}", self.when(finding, FRAMES)));
            }
            if !finding.cost.is_zero() || !finding.symptoms.is_empty() {
                wrapped(text, INDENT, &format!("{INDENT}   "), &consequences(finding));
            }
            let advises = each || finding.severity > Severity::Info || advised.is_none();
            if advises && advised != Some(&finding.advice) && !finding.advice.is_empty() {
                wrapped(text, &format!("{INDENT}-> "), &format!("{INDENT}   "), &finding.advice);
                advised = Some(&finding.advice);
            }
        }
        let rest = || of.findings.iter().skip(examples);
        let more: u64 = rest().map(|finding| finding.stands_for()).sum();
        if more > 0 {
            let times = count(rest().map(|finding| finding.count).sum());
            let more = count(more);
            line(
                text,
                format_args!(
                    "{INDENT}and {more} more of this kind with a count of {times} (-o json has them)"
                ),
            );
        }
        line(text, format_args!(""));
    }

    /// When it happened, and the frames that show it; with several files, which one each is in.
    pub(super) fn when(&self, finding: &Finding, most: usize) -> String {
        let (first, last) = (TimeOfDay(finding.first).to_string(), TimeOfDay(finding.last).to_string());
        let mut shown = if first == last { format!("at {first}") } else { format!("from {first} to {last}") };
        if finding.evidence.is_empty() {
            return shown;
        }
        shown.push_str("; frames");
        let mut evidence: Vec<(u16, u64)> =
            finding.evidence.iter().map(|e| (e.source(self.vantages), e.frame)).collect();
        evidence.sort_unstable();
        let more = evidence.len() > most;
        evidence.truncate(most);
        for of_source in evidence.chunk_by(|(one, _), (other, _)| one == other) {
            if !shown.ends_with("frames") {
                shown.push(',');
            }
            for (_, frame) in of_source {
                let _ = write!(shown, " {frame}");
            }
            if let (Some((source, _)), true) = (of_source.first(), self.sources.len() > 1) {
                let name = self.sources.get(usize::from(*source)).map_or("?", String::as_str);
                let _ = write!(shown, " of {}", escape(name));
            }
        }
        if more {
            shown.push_str(" ...");
        }
        shown
    }
}

/// What it cost, and what of other codes that was: `cost: 10.0 s waited; explains DP102 retry-gap (2)`.
pub(super) fn consequences(finding: &Finding) -> String {
    let Cost { waited, failed } = finding.cost;
    let mut costs = Vec::new();
    if !waited.is_zero() {
        costs.push(format!("{} waited", human(waited)));
    }
    if failed > 0 {
        costs.push(format!("{} failed", plural(failed, "lookup")));
    }
    let explained: Vec<String> = finding
        .symptoms
        .iter()
        .map(|Symptom { code, name, count: number, .. }| format!("{code} {name} ({})", count(*number)))
        .collect();
    let costs = (!costs.is_empty()).then(|| format!("cost: {}", costs.join(", ")));
    let explained = (!explained.is_empty()).then(|| format!("explains {}", explained.join(", ")));
    costs.into_iter().chain(explained).collect::<Vec<_>>().join("; ")
}

fn doubt(finding: &Finding) -> &'static str {
    if finding.confidence == crate::findings::Confidence::Inconclusive {
        " (inconclusive: the capture lost frames)"
    } else {
        ""
    }
}

/// The end of a window: only its time where the day is the same.
fn end(from: crate::model::Timestamp, to: crate::model::Timestamp) -> String {
    const DAY: u64 = 86_400_000_000_000;
    if from.as_nanos() / DAY == to.as_nanos() / DAY {
        TimeOfDay(to).to_string()
    } else {
        DateTime(to).to_string()
    }
}

/// Paths may hold anything.
pub(super) fn sources(sources: &[String]) -> String {
    let mut shown = sources.iter().take(SOURCES).map(|source| escape(source)).collect::<Vec<_>>().join(", ");
    if sources.len() > SOURCES {
        let _ = write!(shown, " and {} more", sources.len() - SOURCES);
    }
    shown
}

fn plural(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{} {what}s", count(number)) }
}

fn percent(part: u64, whole: u64) -> String {
    match (part * 100).checked_div(whole) {
        Some(percent) if part > 0 => format!(" ({percent} %)"),
        _ => String::new(),
    }
}

fn or_none(list: Vec<String>) -> String {
    if list.is_empty() { "none".into() } else { list.join(", ") }
}

fn row(text: &mut String, label: &str, content: &str) {
    wrapped(text, &format!("{label:<9}"), "         ", content);
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{content}");
}

/// Words of `content`, escaped, on lines of at most [`WIDTH`] columns; a word that is longer has its own line.
fn wrapped(text: &mut String, first: &str, further: &str, content: &str) {
    let mut column = first.chars().count();
    let mut start = true;
    text.push_str(first);
    for word in escape(content).split(' ') {
        let length = word.chars().count();
        if !start && column + 1 + length > WIDTH {
            text.push('\n');
            text.push_str(further);
            column = further.chars().count();
        } else if !start {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
        start = false;
    }
    text.push('\n');
}
