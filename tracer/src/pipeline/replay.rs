//! Files on the screen, as if they were live: paced, paused, searched.
//!
//! One thread reads, decodes and feeds the screen, as live; the main thread draws and passes on what keys ask. The
//! way back is the way from the start.

mod clock;
mod found;
mod player;
mod screen;

pub use clock::Speed;

use super::{
    clock::monotonic_now,
    offline::{self, selection, told},
    selection::Selected,
    signals::{self, Stop},
    sinks::{Covered, ReportSinks, StreamSinks},
};
use crate::{
    cli::options::{ExitStatus, FileOptions, ReplayOptions, ReportOptions, StreamOptions},
    model::{Observer, Timestamp, Vantages},
    output::{Format, Stream, Unit},
    trace::TraceError,
};
use anyhow::Context as _;
use clock::Clock;
use player::{Player, Stopped};
use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

pub use screen::tui;

/// Between two looks at the files and the clock.
const NAP: Duration = Duration::from_millis(20);
/// Between two looks at a file that is to be followed and has nothing in it.
const LONG_NAP: Duration = Duration::from_millis(100);
/// Frames read before keys and signals are looked at again: some milliseconds.
const CHUNK: usize = 4_096;

/// Prints a line an event of files that still grow, until a signal. Findings come last.
///
/// # Errors
/// When a file cannot be read on, or the output cannot be written.
pub fn follow(files: FileOptions, options: &StreamOptions, to: impl Write) -> anyhow::Result<ExitStatus> {
    let selection = selection(&files)?;
    let vantages = Vantages::new();
    let stream = Stream::new(to, options.format, &options.units, vantages.clone());
    let mut selected = Selected::new(&selection, StreamSinks::new(stream, selection.pods.clone()));
    let replay = ReplayOptions { files, speed: Speed::Max, follow: true };
    let mut player = paced(&replay, &vantages, selection.window.since, &mut selected, |selected| {
        selected.observer.stream.flush().context(offline::CANNOT_PRINT)
    })?;
    let span = player.window().unwrap_or_default();
    selected.observer.set_sources(player.files());
    selected.observer.finish(&player.coverage(), span).context(offline::CANNOT_PRINT)?;
    player.take_failure().map_or(Ok(ExitStatus::Clean), |error| Err(told(error)))
}

/// Prints a line a lookup, and at the end the report: what a replay without a screen is.
///
/// # Errors
/// As [`follow`].
pub fn lines(options: ReplayOptions, mut to: impl Write) -> anyhow::Result<ExitStatus> {
    let selection = selection(&options.files)?;
    let vantages = Vantages::new();
    let lines = Stream::new(&mut to, Format::Text, &[Unit::Lookup], vantages.clone());
    let sinks = (
        StreamSinks::new(lines, selection.pods.clone()),
        ReportSinks::new(
            &ReportOptions::BEHIND_LINES,
            vantages.clone(),
            selection.pods.clone(),
            selection.admits_all(),
        ),
    );
    let mut selected = Selected::new(&selection, sinks);
    let mut player = paced(&options, &vantages, selection.window.since, &mut selected, |selected| {
        selected.observer.0.stream.flush().context(offline::CANNOT_PRINT)
    })?;
    let covered = Covered {
        sources: player.sources(),
        window: player.window().map(|span| selection.window.within(span)),
        coverage: player.coverage(),
        cut: player.cut(),
        clocks: player.clocks(),
    };
    let (StreamSinks { mut stream, .. }, mut report) = selected.observer;
    report.set_sources(player.files());
    stream.flush().context(offline::CANNOT_PRINT)?;
    drop(stream);
    writeln!(to).context(offline::CANNOT_PRINT)?;
    report
        .finish(&covered, None, &vantages, &ReportOptions::BEHIND_LINES, to)
        .context(offline::CANNOT_PRINT)?;
    // Lines were asked for, not a verdict.
    player.take_failure().map_or(Ok(ExitStatus::Clean), |error| Err(told(error)))
}

/// Reads files at their pace, until they end or a signal comes; `flush` is called every few milliseconds.
fn paced<O: Observer>(
    options: &ReplayOptions,
    vantages: &Vantages,
    since: Option<Timestamp>,
    out: &mut O,
    mut flush: impl FnMut(&mut O) -> anyhow::Result<()>,
) -> anyhow::Result<Player> {
    let stop = signals::watch().context("cannot watch for signals")?;
    let mut player = open(options, vantages, &stop)?;
    let mut clock = Clock::new(options.speed);
    let mut started = false;
    while !stop.requested() {
        let now = monotonic_now();
        if !started && let Some(first) = player.next_time(now).map_err(told)? {
            clock.set(since.unwrap_or(first).max(first), now);
            started = true;
        }
        let stopped = player.read(clock.advance(now), CHUNK, now, out);
        flush(out)?;
        match stopped {
            Stopped::Busy => {}
            Stopped::Ended => break,
            Stopped::There | Stopped::Waiting => thread::sleep(NAP),
        }
    }
    player.finish(out);
    Ok(player)
}

/// Opens the files; waits for the header of one that is followed, until a signal.
fn open(options: &ReplayOptions, vantages: &Vantages, stop: &Stop) -> anyhow::Result<Player> {
    let mut told_of_waiting = false;
    loop {
        match Player::open(&options.files, vantages, options.is_growing()) {
            Err(TraceError::Empty { file }) if options.follow && !stop.requested() => {
                if !std::mem::replace(&mut told_of_waiting, true) {
                    // A closed stderr is no reason to stop.
                    let _ = writeln!(io::stderr(), "dnspath: waiting for the header of {file:?}");
                }
                thread::sleep(LONG_NAP);
            }
            opened => return opened.map_err(told),
        }
    }
}
