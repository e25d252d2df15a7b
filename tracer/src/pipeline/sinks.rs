//! What listens to the engine, for files and live alike.

use crate::{
    cli::{
        args::ReportFormat,
        options::{ExitStatus, ReportOptions},
    },
    findings::{Findings, Source, name_pods},
    model::{Coverage, Observer, Pods, Timestamp, Vantages, Wanted, pass_on},
    output::{Baseline, ClockView, Known, LookupLog, Page, Report, Stream, Unit},
    stats::Stats,
};
use std::io::{self, BufWriter, Write};

/// Lines, and the findings that come last: only then are they whole.
pub(super) struct StreamSinks<W> {
    pub(super) stream: Stream<W>,
    findings: Option<Findings>,
    pods: Pods,
}

impl<W: Write> StreamSinks<W> {
    pub(super) fn new(stream: Stream<W>, pods: Pods) -> Self {
        let findings = stream.prints(Unit::Finding).then(|| Findings::new(stream.vantages().clone()));
        Self { stream: stream.with_pods(pods.clone()), findings, pods }
    }

    /// Says which files are read together.
    pub(super) fn set_sources(&mut self, sources: Vec<Source>) {
        if let Some(findings) = &mut self.findings {
            findings.set_sources(sources);
        }
    }

    /// Prints the findings, and all that waits.
    pub(super) fn finish(&mut self, coverage: &Coverage, span: (Timestamp, Timestamp)) -> io::Result<()> {
        if let Some(findings) = &self.findings {
            let mut findings = findings.ranked(coverage, span);
            name_pods(&mut findings, &self.pods);
            findings.iter().for_each(|finding| self.stream.finding(finding));
        }
        self.stream.flush()
    }
}

impl<W: Write> Observer for StreamSinks<W> {
    fn wants_messages(&self) -> Wanted {
        self.findings.wants_messages().max(self.stream.wants_messages())
    }
    pass_on!(|sinks| sinks.stream, sinks.findings);
}

/// What a report is made of.
pub(super) struct ReportSinks {
    stats: Stats,
    findings: Findings,
    known: Option<Known>,
    page: Option<Page>,
    log: Option<LookupLog>,
    pods: Pods,
}

/// The time before a report's window: what is compared with it.
pub(super) struct Before {
    stats: Stats,
    findings: Findings,
    known: Known,
}

impl Before {
    pub(super) fn new(vantages: Vantages) -> Self {
        Self { stats: Stats::by_message(), findings: Findings::new(vantages), known: Known::default() }
    }

    /// Says which files are read together.
    pub(super) fn set_sources(&mut self, sources: Vec<Source>) {
        self.findings.set_sources(sources);
    }
}

impl Observer for Before {
    fn wants_messages(&self) -> Wanted {
        self.stats.wants_messages()
    }
    pass_on!(|before| before.stats, before.findings, before.known);
}

/// What a source says of itself at its end.
pub(super) struct Covered {
    pub(super) sources: Vec<String>,
    pub(super) window: Option<(Timestamp, Timestamp)>,
    pub(super) coverage: Coverage,
    /// A file ends inside a record.
    pub(super) cut: bool,
    /// How the clocks of several files differ.
    pub(super) clocks: Vec<ClockView>,
}

impl ReportSinks {
    /// Gathers what the report is to show, and nothing else. `all`: of what is told nothing is filtered out.
    pub(super) fn new(options: &ReportOptions, vantages: Vantages, pods: Pods, all: bool) -> Self {
        let page = options.format == ReportFormat::Html;
        Self {
            stats: if all { Stats::default() } else { Stats::by_message() },
            findings: Findings::new(vantages.clone()),
            known: None,
            page: page.then(|| Page::new(vantages, pods.clone())),
            log: options.lookups.then(|| LookupLog::new(pods.clone())),
            pods,
        }
    }

    /// Compares with `before` in the end.
    pub(super) fn compared_with(mut self, before: &Before) -> Self {
        self.known = Some(before.known.sibling());
        self
    }

    /// Says which files are read together.
    pub(super) fn set_sources(&mut self, sources: Vec<Source>) {
        self.findings.set_sources(sources);
    }

    /// Writes the report; the status says whether it found something.
    pub(super) fn finish(
        &self,
        covered: &Covered,
        before: Option<&Before>,
        vantages: &Vantages,
        options: &ReportOptions,
        to: impl Write,
    ) -> io::Result<ExitStatus> {
        let mut findings = self.findings.ranked(&covered.coverage, covered.window.unwrap_or_default());
        name_pods(&mut findings, &self.pods);
        let mut findings_before = Vec::new();
        let baseline = before.zip(self.known.as_ref()).and_then(|(before, now)| {
            let span = (before.stats.span()?.0, covered.window?.0);
            findings_before = before.findings.ranked(&Coverage::default(), span);
            name_pods(&mut findings_before, &self.pods);
            Some((span, before, now))
        });
        let baseline = baseline.map(|(span, before, now)| Baseline {
            span,
            stats: &before.stats,
            findings: &findings_before,
            known: &before.known,
            now,
        });
        let report = Report {
            sources: &covered.sources,
            window: covered.window,
            coverage: covered.coverage,
            cut: covered.cut,
            clocks: &covered.clocks,
            stats: &self.stats,
            findings: &findings,
            vantages,
            names: &self.pods,
            baseline: baseline.as_ref(),
            lookups: self.log.as_ref(),
        };
        let mut to = BufWriter::with_capacity(1 << 16, to);
        match (options.format, &self.page) {
            (ReportFormat::Html, Some(page)) => report.write_html(page, &mut to)?,
            (ReportFormat::Json, _) => report.write_json(&mut to)?,
            (ReportFormat::Text | ReportFormat::Html, _) => report.write_text(&mut to)?,
        }
        to.flush()?;
        Ok(ExitStatus::of(report.worst(), options.fail_on))
    }
}

impl Observer for ReportSinks {
    fn wants_messages(&self) -> Wanted {
        self.stats.wants_messages()
    }
    pass_on!(|sinks| sinks.stats, sinks.findings, sinks.known, sinks.page, sinks.log);
}
