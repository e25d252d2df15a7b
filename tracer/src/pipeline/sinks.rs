//! What listens to the engine, for files and live alike.

use crate::{
    cli::{
        args::ReportFormat,
        options::{ExitStatus, ReportOptions},
    },
    findings::{Findings, name_pods},
    model::{
        BlindSpot, Connect, Coverage, Eviction, Lookup, Message, Misdirected, Observer, PacketDrop, Pods,
        Question, Resolver, Timestamp, Vantages,
    },
    output::{LookupLog, Report, Stream, Unit},
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
    fn message(&mut self, message: &Message) {
        self.stream.message(message);
        if let Some(findings) = &mut self.findings {
            findings.message(message);
        }
    }
    fn question(&mut self, question: &Question) {
        self.stream.question(question);
        if let Some(findings) = &mut self.findings {
            findings.question(question);
        }
    }
    fn lookup(&mut self, lookup: &Lookup) {
        self.stream.lookup(lookup);
        if let Some(findings) = &mut self.findings {
            findings.lookup(lookup);
        }
    }
    fn packet_drop(&mut self, drop: &PacketDrop) {
        self.stream.packet_drop(drop);
        if let Some(findings) = &mut self.findings {
            findings.packet_drop(drop);
        }
    }
    fn misdirected(&mut self, frame: &Misdirected) {
        if let Some(findings) = &mut self.findings {
            findings.misdirected(frame);
        }
    }
    fn connect(&mut self, connect: &Connect) {
        if let Some(findings) = &mut self.findings {
            findings.connect(connect);
        }
    }
    fn blind_spot(&mut self, spot: &BlindSpot, time: Timestamp) {
        if let Some(findings) = &mut self.findings {
            findings.blind_spot(spot, time);
        }
    }
    fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        if let Some(findings) = &mut self.findings {
            findings.resolver(resolver, time);
        }
    }
}

/// What a report is made of.
pub(super) struct ReportSinks {
    stats: Stats,
    findings: Findings,
    log: Option<LookupLog>,
    pods: Pods,
}

/// What a source says of itself at its end.
pub(super) struct Covered {
    pub(super) sources: Vec<String>,
    pub(super) window: Option<(Timestamp, Timestamp)>,
    pub(super) coverage: Coverage,
    /// A file ends inside a record.
    pub(super) cut: bool,
}

impl ReportSinks {
    /// With `every_lookup` each one is kept for the JSON report.
    pub(super) fn new(every_lookup: bool, vantages: Vantages, pods: Pods) -> Self {
        Self {
            stats: Stats::default(),
            findings: Findings::new(vantages),
            log: every_lookup.then(|| LookupLog::new(pods.clone())),
            pods,
        }
    }

    /// Writes the report; the status says whether it found something.
    pub(super) fn finish(
        &self,
        covered: &Covered,
        vantages: &Vantages,
        options: &ReportOptions,
        to: impl Write,
    ) -> io::Result<ExitStatus> {
        let mut findings = self.findings.ranked(&covered.coverage, covered.window.unwrap_or_default());
        name_pods(&mut findings, &self.pods);
        let report = Report {
            sources: &covered.sources,
            window: covered.window,
            coverage: covered.coverage,
            cut: covered.cut,
            stats: &self.stats,
            findings: &findings,
            vantages,
            lookups: self.log.as_ref(),
        };
        let mut to = BufWriter::with_capacity(1 << 16, to);
        match options.format {
            ReportFormat::Json => report.write_json(&mut to)?,
            ReportFormat::Text => report.write_text(&mut to)?,
        }
        to.flush()?;
        Ok(ExitStatus::of(report.worst(), options.fail_on))
    }
}

impl Observer for ReportSinks {
    fn message(&mut self, message: &Message) {
        self.stats.message(message);
        self.findings.message(message);
    }
    fn question(&mut self, question: &Question) {
        self.stats.question(question);
        self.findings.question(question);
    }
    fn lookup(&mut self, lookup: &Lookup) {
        self.stats.lookup(lookup);
        self.findings.lookup(lookup);
        if let Some(log) = &mut self.log {
            log.lookup(lookup);
        }
    }
    fn packet_drop(&mut self, drop: &PacketDrop) {
        self.stats.packet_drop(drop);
        self.findings.packet_drop(drop);
    }
    fn misdirected(&mut self, frame: &Misdirected) {
        self.findings.misdirected(frame);
    }
    fn connect(&mut self, connect: &Connect) {
        self.findings.connect(connect);
    }
    fn blind_spot(&mut self, spot: &BlindSpot, time: Timestamp) {
        self.findings.blind_spot(spot, time);
    }
    fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        self.findings.resolver(resolver, time);
    }
    fn evicted(&mut self, eviction: Eviction) {
        self.stats.evicted(eviction);
    }
}
