//! Files → wire → engine → sinks.
//!
//! Time is the frames' own. Memory does not grow with the files: each sink is bounded (but for `--lookups`), and a
//! frame is gone once it is decoded.

use super::{
    selection::{Selected, Selection},
    session::Session,
};
use crate::{
    cli::{
        args::ReportFormat,
        options::{ExitStatus, FileOptions, ReportOptions, StreamOptions},
    },
    engine::{Config, SearchList},
    findings::Findings,
    model::{Coverage, Lookup, Message, Observer, Question, Timestamp, Vantages},
    output::{LookupLog, Report, Stream, Unit},
    stats::Stats,
    trace::{MergedReader, TraceError},
};
use anyhow::{Context, bail};
use std::{
    io::{BufWriter, Write},
    path::Path,
};

/// Prints a line an event of capture files. Findings come last: only then are they whole.
///
/// # Errors
/// When a file cannot be read (what is before a damage is printed), or the output cannot be written.
pub fn stream(files: FileOptions, options: &StreamOptions, to: impl Write) -> anyhow::Result<ExitStatus> {
    let selection = selection(&files)?;
    let vantages = Vantages::new();
    let stream = Stream::new(to, options.format, &options.units, vantages.clone());
    let findings = stream.prints(Unit::Finding).then(Findings::default);
    let mut selected = Selected::new(&selection, StreamSinks { stream, findings });
    let read = read(&files, &vantages, &mut selected, |selected| !selected.observer.stream.is_broken())?;
    let StreamSinks { mut stream, findings } = selected.observer;
    for finding in findings.iter().flat_map(|findings| findings.ranked(&read.coverage, read.span_or_epoch()))
    {
        stream.finding(&finding);
    }
    stream.flush().context("cannot print")?;
    read.damage()?;
    Ok(ExitStatus::Clean)
}

/// Reports what is wrong in capture files.
///
/// # Errors
/// When a file cannot be read (what is before a damage is reported), or the output cannot be written.
pub fn report(files: FileOptions, options: &ReportOptions, to: impl Write) -> anyhow::Result<ExitStatus> {
    let selection = selection(&files)?;
    let sinks = ReportSinks { log: options.lookups.then(LookupLog::default), ..ReportSinks::default() };
    let mut selected = Selected::new(&selection, sinks);
    let read = read(&files, &Vantages::new(), &mut selected, |_| true)?;
    let ReportSinks { stats, findings, log } = selected.observer;
    let window = read.span.map(|(first, last)| {
        (selection.window.since.unwrap_or(first), selection.window.until.unwrap_or(last))
    });
    let findings = findings.ranked(&read.coverage, window.unwrap_or_default());
    let report = Report {
        sources: &files.files.iter().map(|file| source(file)).collect::<Vec<_>>(),
        window,
        coverage: read.coverage,
        cut: read.cut,
        stats: &stats,
        findings: &findings,
        lookups: log.as_ref(),
    };
    let mut to = BufWriter::with_capacity(1 << 16, to);
    match options.format {
        ReportFormat::Json => report.write_json(&mut to),
        ReportFormat::Text => report.write_text(&mut to),
    }
    .and_then(|()| to.flush())
    .context("cannot print")?;
    read.damage()?;
    Ok(ExitStatus::of(report.worst(), options.fail_on))
}

/// What reading gave beside what the sinks were told.
#[derive(Debug)]
struct Read {
    coverage: Coverage,
    /// A file ends inside a record.
    cut: bool,
    /// The times of the earliest and the latest frame.
    span: Option<(Timestamp, Timestamp)>,
    failed: Option<TraceError>,
}

impl Read {
    fn span_or_epoch(&self) -> (Timestamp, Timestamp) {
        self.span.unwrap_or_default()
    }

    fn damage(self) -> anyhow::Result<()> {
        self.failed.map_or(Ok(()), |error| Err(told(error)))
    }
}

/// Reads the files to their end, or as long as `go_on` says.
fn read<O: Observer>(
    files: &FileOptions,
    vantages: &Vantages,
    out: &mut O,
    go_on: impl Fn(&O) -> bool,
) -> anyhow::Result<Read> {
    let mut reader = MergedReader::open(&files.files).map_err(told)?;
    let resolv_conf = files.resolv_conf.as_deref().map(SearchList::from_resolv_conf);
    let mut session =
        Session::new(&files.ports, Config { resolv_conf, ..Config::default() }, vantages.clone());
    let mut span: Option<(Timestamp, Timestamp)> = None;
    let mut failed = None;
    while go_on(out) {
        match reader.next_frame(vantages) {
            Ok(Some(frame)) => {
                let (first, last) = span.unwrap_or((frame.time, frame.time));
                span = Some((first.min(frame.time), last.max(frame.time)));
                session.frame(&frame, out);
            }
            Ok(None) => break,
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    session.finish(out);
    Ok(Read { coverage: session.coverage(reader.lost()), cut: reader.cut(), span, failed })
}

/// The filters with their window in absolute time. A relative one counts from the files' end, which takes a pass
/// over them.
fn selection(files: &FileOptions) -> anyhow::Result<Selection> {
    let mut selection = files.selection.clone();
    let end = if files.times.is_relative() { end(files)? } else { Timestamp::EPOCH };
    selection.window = files.times.resolve(end)?;
    Ok(selection)
}

fn end(files: &FileOptions) -> anyhow::Result<Timestamp> {
    if files.files.iter().any(|file| file.as_os_str() == "-") {
        bail!(
            "cannot select a time relative to the end of standard input: it is read once; give RFC 3339 times"
        );
    }
    let vantages = Vantages::new();
    let mut reader = MergedReader::open(&files.files).map_err(told)?;
    let mut end = Timestamp::EPOCH;
    // A damaged file ends at its damage, which the second pass tells.
    while let Ok(Some(frame)) = reader.next_frame(&vantages) {
        end = end.max(frame.time);
    }
    Ok(end)
}

fn told(error: TraceError) -> anyhow::Error {
    match error {
        TraceError::Open { .. } | TraceError::Read { .. } => error.into(),
        TraceError::Empty { .. } | TraceError::UnknownFormat { .. } | TraceError::Damaged { .. } => {
            anyhow::anyhow!("cannot read the capture: {error}")
        }
    }
}

fn source(file: &Path) -> String {
    if file.as_os_str() == "-" { "standard input".into() } else { file.display().to_string() }
}

struct StreamSinks<W> {
    stream: Stream<W>,
    findings: Option<Findings>,
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
}

#[derive(Default)]
struct ReportSinks {
    stats: Stats,
    findings: Findings,
    log: Option<LookupLog>,
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
}

#[cfg(test)]
mod tests;
