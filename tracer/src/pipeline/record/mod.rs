//! Frames into a file as they come, before anything is decoded.

mod output;
mod progress;
mod size;

pub use size::Size;

use super::{
    beside::{heed_rules, note_encrypted},
    clock,
    live::{Live, NAP, tell},
};
use crate::{
    capture::Capture,
    cli::options::{ExitStatus, LiveOptions, RecordOptions},
    model::{Conntrack, Frame, News, Timestamp, VantageId, Vantages},
    node,
    output::text::count,
    trace::{Origin, Statistics, Writer},
};
use anyhow::{Context, anyhow};
use output::{Handoff, Output};
use progress::{Progress, octets};
use std::{collections::BTreeMap, io, thread};

/// How often what waits is written, in nanoseconds, and what is counted with it: a recorder that is killed takes
/// half a second with it, and what is on its way.
const FLUSH_NANOS: u64 = 500_000_000;
/// Octets that are kept of a file's largest size for what comes behind the frames.
const TAIL: u64 = 2_048;

/// What is counted beside frames since the session began.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Frames lost, by vantage; those that no vantage is known of are at `None`.
    pub(super) lost: BTreeMap<Option<VantageId>, u64>,
    /// What conntrack counted.
    pub(super) conntrack: Option<Conntrack>,
}

impl Counts {
    /// What `capture` has counted so far.
    pub(super) fn of(capture: &Capture) -> Self {
        let mut lost = BTreeMap::new();
        for (vantage, count) in capture.lost_by_vantage() {
            *lost.entry(vantage).or_default() += count;
        }
        let known: u64 = lost.values().sum();
        *lost.entry(None).or_default() += capture.lost().saturating_sub(known);
        Self { lost, conntrack: capture.conntrack() }
    }

    fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// What was counted between `from` and `until`.
    fn since(&self, from: &Self, started: Timestamp, until: Timestamp, ended: bool) -> Statistics {
        let before = |vantage: Option<VantageId>| from.lost.get(&vantage).copied().unwrap_or(0);
        Statistics {
            started,
            until,
            lost: self.lost.iter().map(|(&v, &lost)| (v, lost.saturating_sub(before(v)))).collect(),
            conntrack: self.conntrack.map(|now| now.since(&from.conntrack.unwrap_or_default())),
            ended,
        }
    }
}

/// A recording that goes on: puts blocks together on the caller's thread, and has them written by another.
pub(super) struct Recorder {
    writer: Option<Writer<Handoff>>,
    options: RecordOptions,
    is_compressed: bool,
    origin: Origin,
    vantages: Vantages,
    /// When the file that is being written began, and what was counted by then.
    file_started: Timestamp,
    before_file: Counts,
    frames: u64,
    files: u32,
    is_full: bool,
    has_failed: bool,
    flush_due: u64,
    /// That the recording ended before the session was told.
    end_is_told: bool,
}

/// An opened place to record to; opened before anything is attached, so that what is wrong is said at once.
pub(super) struct Ready(Output, RecordOptions);

impl Ready {
    /// Opens it.
    ///
    /// # Errors
    /// When it is there already, cannot be written, or is a terminal.
    pub(super) fn open(options: &RecordOptions) -> anyhow::Result<Self> {
        Output::open(options).map(|output| Self(output, options.clone()))
    }

    /// Begins the recording. The thread that writes keeps this one's access to files.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn begin(
        self,
        origin: Origin,
        vantages: Vantages,
        started: Timestamp,
    ) -> anyhow::Result<Recorder> {
        let Self(output, options) = self;
        let writer = Writer::new(output.start()?, &origin).context("cannot begin the recording")?;
        Ok(Recorder {
            writer: Some(writer),
            is_compressed: options.is_compressed(),
            options,
            origin,
            vantages,
            file_started: started,
            before_file: Counts::default(),
            frames: 0,
            files: 1,
            is_full: false,
            has_failed: false,
            flush_due: 0,
            end_is_told: false,
        })
    }
}

impl Recorder {
    /// Takes one frame.
    pub(super) fn frame(&mut self, frame: &Frame<'_>) {
        if self.has_failed || self.is_full {
            return;
        }
        let Some(writer) = &mut self.writer else { return };
        if self.options.files == 1
            && size_of(writer, self.is_compressed) + frame.bytes.len() as u64 + TAIL > self.options.max_size
        {
            self.is_full = true;
            return;
        }
        match writer.frame(frame, &self.vantages) {
            Ok(()) => self.frames += 1,
            Err(_) => self.has_failed = true,
        }
    }

    /// Takes what was learnt of the node, when every frame up to `settled` was given.
    pub(super) fn learnt(&mut self, settled: Timestamp, news: &[News]) {
        if self.has_failed || self.is_full {
            return;
        }
        let Some(writer) = &mut self.writer else { return };
        self.has_failed |= writer.news(Some(settled), news).is_err();
    }

    /// Writes what is due at `now`: counts, and the next file, which begins with all that is `known` of the node. Cheap
    /// when nothing is.
    pub(super) fn step(
        &mut self,
        now: Timestamp,
        counts: impl FnOnce() -> Counts,
        known: impl FnOnce() -> Vec<News>,
    ) {
        let Some(writer) = &self.writer else { return };
        let monotonic = clock::monotonic_now();
        let is_over =
            self.options.files > 1 && size_of(writer, self.is_compressed) + TAIL > self.options.max_size;
        if self.has_failed || (monotonic < self.flush_due && !is_over) {
            return;
        }
        self.flush_due = monotonic.saturating_add(FLUSH_NANOS);
        let counts = counts();
        let done = self
            .tell(now, &counts, is_over)
            .and_then(|()| if is_over { self.next_file(now, counts, &known()) } else { Ok(()) });
        self.has_failed |= done.is_err();
    }

    /// Whether the size given is reached: further frames are not taken.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether writing failed; [`Self::finish`] says why.
    pub(super) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether frames are still taken.
    pub(super) const fn is_running(&self) -> bool {
        !self.has_failed && !self.is_full
    }

    /// That the recording has ended and the session goes on: told once.
    pub(super) fn news(&mut self) -> Option<&'static str> {
        let news = match (self.has_failed, self.is_full) {
            (true, _) => "the recording ended: it cannot be written",
            (false, true) => "the recording ended: it has the size given by --max-size",
            (false, false) => return None,
        };
        (!std::mem::replace(&mut self.end_is_told, true)).then_some(news)
    }

    /// Frames recorded, in all files.
    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// Octets on the disk and on their way there, of all files.
    pub(super) fn octets(&self) -> u64 {
        let Some(writer) = &self.writer else { return 0 };
        let on_their_way = size_of(writer, self.is_compressed).saturating_sub(writer.target().octets());
        writer.target().all_octets() + on_their_way
    }

    /// Ends the recording with the session's last counts; gives what to say of it.
    ///
    /// # Errors
    /// What could not be written.
    pub(super) fn finish(mut self, ended: Timestamp, counts: &Counts) -> anyhow::Result<String> {
        if !self.has_failed {
            // Why it failed is known where it is written.
            self.has_failed |= self.tell(ended, counts, true).is_err();
        }
        let Some(writer) = self.writer.take() else { return Err(anyhow!("the recording was ended twice")) };
        let size = writer.into_target().finish()?;
        if self.has_failed {
            return Err(anyhow!("cannot write the recording"));
        }
        let to = match (self.options.path.as_os_str() == "-", self.files) {
            (true, _) => "stdout".into(),
            (false, 1) => output::file_name(&self.options, 1).display().to_string(),
            (false, files) => {
                format!("{files} files, the last {}", output::file_name(&self.options, files).display())
            }
        };
        let full = if self.is_full { "; the size was reached, see --max-size and --files" } else { "" };
        Ok(format!("recorded {} packets, {}, to {to}{full}", count(self.frames), octets(size)))
    }

    /// Counts, and everything that waits.
    fn tell(&mut self, now: Timestamp, counts: &Counts, ended: bool) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let statistics = counts.since(&self.before_file, self.file_started, now, ended);
        writer.statistics(&statistics, &self.vantages)?;
        writer.flush()
    }

    fn next_file(&mut self, now: Timestamp, counts: Counts, known: &[News]) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let mut handoff = writer.finish()?;
        handoff.rotate()?;
        let mut writer = Writer::new(handoff, &self.origin)?;
        // Each file can be read without the others.
        writer.news(None, known)?;
        self.writer = Some(writer);
        (self.file_started, self.before_file) = (now, counts);
        self.files += 1;
        Ok(())
    }
}

/// How large the file is that is being written: what was handed over, but where it is compressed what came of it.
fn size_of(writer: &Writer<Handoff>, is_compressed: bool) -> u64 {
    if is_compressed { writer.target().octets() } else { writer.octets() }
}

/// Records until a signal, the end of the time or the size given.
///
/// # Errors
/// When capture cannot start, or the file cannot be written; what is in it stays readable.
pub fn record(mut options: LiveOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let Live { mut capture, node, counting, mut known, recorder, notes, stop, until, started, .. } =
        Live::start(&mut options, &vantages)?;
    let mut recorder = recorder.context("cannot record: no file is given; name one with -w")?;
    let mut progress = Progress::new(started);
    let mut settled = Timestamp::EPOCH;
    loop {
        let now = clock::wall_now();
        if capture.drain(|frame| recorder.frame(frame)) == 0 {
            settled = now;
        }
        note_encrypted(&capture, &mut known, &notes);
        heed_rules(counting.as_ref(), &mut known);
        recorder.learnt(settled, &known.fresh(settled));
        recorder.step(now, || Counts::of(&capture), || known.all());
        for note in notes.take_fresh() {
            progress.interrupt();
            tell(&note);
        }
        progress.show(now, recorder.frames(), recorder.octets(), || capture.lost());
        let is_over = until.is_some_and(|until| now >= until);
        if is_over || stop.requested() || recorder.is_full() || recorder.has_failed() {
            break;
        }
        thread::sleep(NAP);
    }
    capture.stop();
    drop(node);
    let last = counting.map(node::Counting::finish);
    last.into_iter().flatten().for_each(|counted| known.tell_counted(counted));
    recorder.learnt(settled, &known.fresh(settled));
    let ended = clock::wall_now();
    while capture.drain(|frame| recorder.frame(frame)) > 0 {}
    let (frames, counts) = (recorder.frames(), Counts::of(&capture));
    progress.interrupt();
    let recorded = recorder.finish(ended, &counts);
    tell(&recorded?);
    tell(&format!("coverage: frames={frames} lost={}", counts.lost()));
    Ok(ExitStatus::Clean)
}
