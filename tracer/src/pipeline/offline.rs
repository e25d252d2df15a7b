//! Files → wire → engine → sinks.
//!
//! Time is the frames' own. Memory does not grow with the files: each sink is bounded (but for `--lookups`), and a
//! frame is gone once it is decoded.

use super::{
    clocks::{self, Clock},
    live::IN_FLIGHT,
    loss::LossWatch,
    selection::{Selected, Selection},
    session::Session,
    sinks::{Before, Covered, ReportSinks, StreamSinks},
};
use crate::{
    cli::options::{ExitStatus, FileOptions, ReportOptions, StreamOptions},
    engine::{Config, SearchList},
    findings::Source,
    model::{Coverage, News, Observer, Pods, Timestamp, Vantages},
    output::{ClockView, Stream, text::escape},
    trace::{MergedReader, Told, TraceError},
};
use anyhow::{Context, bail};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// What a full disk is told with.
pub(super) const CANNOT_PRINT: &str = "cannot print to stdout; see that it can be written";

/// Prints a line an event of capture files. Findings come last: only then are they whole.
///
/// # Errors
/// When a file cannot be read (what is before a damage is printed), or the output cannot be written.
pub fn stream(files: FileOptions, options: &StreamOptions, to: impl Write) -> anyhow::Result<ExitStatus> {
    let selection = selection(&files)?;
    let vantages = Vantages::new();
    let stream = Stream::new(to, options.format, &options.units, vantages.clone());
    let mut selected = Selected::new(&selection, StreamSinks::new(stream, selection.pods.clone()));
    let read = read(&files, &vantages, &mut selected, |selected| !selected.observer.stream.is_broken())?;
    selected.observer.set_sources(read.files.clone());
    selected.observer.finish(&read.coverage, read.span.unwrap_or_default()).context("cannot print")?;
    read.damage()?;
    Ok(ExitStatus::Clean)
}

/// Reports what is wrong in capture files.
///
/// # Errors
/// When a file cannot be read (what is before a damage is reported), or the output cannot be written.
pub fn report(files: FileOptions, options: &ReportOptions, to: impl Write) -> anyhow::Result<ExitStatus> {
    let selection = selection(&files)?;
    let vantages = Vantages::new();
    let mut sinks =
        ReportSinks::new(options, vantages.clone(), selection.pods.clone(), selection.admits_all());
    let earlier = selection.earlier();
    let before = earlier.as_ref().map(|earlier| Selected::new(earlier, Before::new(vantages.clone())));
    if let Some(before) = &before {
        sinks = sinks.compared_with(&before.observer);
    }
    let mut both = (Selected::new(&selection, sinks), before);
    let read = read(&files, &vantages, &mut both, |_| true)?;
    let (mut selected, mut before) = both;
    if let Some(before) = &mut before {
        before.observer.set_sources(read.files.clone());
    }
    let window = read.span.map(|span| selection.window.within(span));
    selected.observer.set_sources(read.files.clone());
    let covered = Covered {
        sources: read.sources.clone(),
        window,
        coverage: read.coverage,
        cut: read.cut,
        clocks: read.clocks.clone(),
    };
    let before = before.as_ref().map(|before| &before.observer);
    let status =
        selected.observer.finish(&covered, before, &vantages, options, to).context("cannot print")?;
    read.damage()?;
    Ok(status)
}

/// What reading gave beside what the sinks were told.
#[derive(Debug)]
struct Read {
    coverage: Coverage,
    /// A file ends inside a record.
    cut: bool,
    /// The times between which was captured; where the files do not say, those of the earliest and the latest frame.
    span: Option<(Timestamp, Timestamp)>,
    /// What was captured, where the files say it; else their names.
    sources: Vec<String>,
    /// The files, by place.
    files: Vec<Source>,
    clocks: Vec<ClockView>,
    failed: Option<TraceError>,
}

impl Read {
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
    let (mut reader, clocks) = open(files).map_err(told)?;
    let resolv_conf = files.resolv_conf.as_deref().map(SearchList::from_resolv_conf);
    let config = Config { resolv_conf, connects: files.connects, ..Config::default() };
    let mut session = Session::new(&files.ports, config, vantages.clone());
    let mut span: Option<(Timestamp, Timestamp)> = None;
    let mut failed = None;
    let mut loss = LossWatch::default();
    while go_on(out) {
        let next = reader.next_time(vantages);
        for told in reader.take_told() {
            heed(&told, &mut session, &files.selection.pods, out);
        }
        if let Err(error) = next {
            failed = Some(error);
            break;
        }
        let Some(frame) = reader.due_frame() else { break };
        let time = frame.time;
        let (first, last) = span.unwrap_or((time, time));
        span = Some((first.min(time), last.max(time)));
        session.frame(&frame, out);
        loss.frame(&reader, time, out);
    }
    let span = finish(&reader, &mut session, span, out);
    loss.files(&reader, span.unwrap_or_default().1, out);
    let coverage = coverage(&reader, &session);
    let cut = reader.cut();
    let (sources, files) = (reader.sources(), sources(&reader, &clocks));
    Ok(Read { coverage, cut, span, sources, files, clocks: clock_views(&clocks, &reader), failed })
}

/// Opens the files, several of them by the first one's clock. What can be read once only keeps its times.
pub(super) fn open(files: &FileOptions) -> Result<(MergedReader, Vec<Clock>), TraceError> {
    let mut reader = MergedReader::open(&files.files)?;
    let again = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|data| data.is_file());
    if files.files.len() < 2 || !files.files.iter().all(again) {
        return Ok((reader, Vec::new()));
    }
    let clocks = clocks::compare(&mut MergedReader::open(&files.files)?, files.files.len(), &files.ports);
    for (source, clock) in clocks.iter().enumerate() {
        reader.shift(source, clock.shift());
    }
    Ok((reader, clocks))
}

/// The files that are read together.
pub(super) fn sources(reader: &MergedReader, clocks: &[Clock]) -> Vec<Source> {
    let unknown = |index: usize| clocks.get(index).is_none_or(|clock| clock.ahead.is_none());
    let source = |(index, (name, window)): (usize, (&str, _))| Source {
        name: base_name(name),
        window,
        clock_unknown: unknown(index),
    };
    reader.files().enumerate().map(source).collect()
}

/// The file's name without its folder, as it can be shown: paths may hold anything.
fn base_name(path: &str) -> String {
    let name = Path::new(path).file_name().map_or(path.into(), |name| name.to_string_lossy());
    escape(&name).into_owned()
}

/// The clocks that are worth a word: those that differ, and those that could not be compared though they should.
pub(super) fn clock_views(clocks: &[Clock], reader: &MergedReader) -> Vec<ClockView> {
    let names: Vec<String> = reader.files().map(|(name, _)| base_name(name)).collect();
    let Some(first) = names.first() else { return Vec::new() };
    let worth = clocks.iter().zip(&names).skip(1).filter(|(clock, _)| clock.is_worth_a_word());
    worth
        .map(|(clock, name)| ClockView {
            file: name.clone(),
            of: first.clone(),
            ahead: clock.ahead,
            exchanges: clock.exchanges,
        })
        .collect()
}

/// What a file tells of the node, at its place between the frames: what ended before was told with what was known before.
pub(super) fn heed(told: &Told, session: &mut Session, pods: &Pods, out: &mut impl Observer) {
    if let Some(at) = told.at {
        session.advance(at - IN_FLIGHT, out);
    }
    if let News::Named(address, ..) = told.news {
        out.resides(address, told.source);
    }
    pods.heed(&told.news);
    session.heed(&told.news, out);
}

/// Ends a session of files that were read, as far as they go. `span` has the times of the earliest and the latest frame;
/// gives those between which was captured, where the files say it.
pub(super) fn finish(
    reader: &MergedReader,
    session: &mut Session,
    span: Option<(Timestamp, Timestamp)>,
    out: &mut impl Observer,
) -> Option<(Timestamp, Timestamp)> {
    let span = match reader.recorded() {
        Some(recorded) if recorded.ended => {
            // What the live session was told at its end.
            session.advance(recorded.until - IN_FLIGHT, out);
            Some((recorded.started, recorded.until))
        }
        Some(recorded) => {
            Some((recorded.started, span.map_or(recorded.until, |(_, last)| last.max(recorded.until))))
        }
        None => span,
    };
    session.finish(out);
    span
}

/// What was seen of files, and what they say was lost.
pub(super) fn coverage(reader: &MergedReader, session: &Session) -> Coverage {
    let conntrack = reader.recorded().and_then(|recorded| recorded.conntrack);
    Coverage { conntrack, ..session.coverage(reader.lost()) }
}

/// The filters with their window in absolute time. A relative one counts from the files' end, which takes a pass
/// over them.
pub(super) fn selection(files: &FileOptions) -> anyhow::Result<Selection> {
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
    let (mut reader, _) = open(files).map_err(told)?;
    let mut end = Timestamp::EPOCH;
    // A damaged file ends at its damage, which the second pass tells.
    while let Ok(Some(frame)) = reader.next_frame(&vantages) {
        end = end.max(frame.time);
    }
    Ok(end)
}

pub(super) fn told(error: TraceError) -> anyhow::Error {
    match error {
        TraceError::Open { .. } | TraceError::Read { .. } => error.into(),
        TraceError::Empty { .. } | TraceError::UnknownFormat { .. } | TraceError::Damaged { .. } => {
            anyhow::anyhow!("cannot read the capture: {error}")
        }
    }
}

#[cfg(test)]
mod tests;
