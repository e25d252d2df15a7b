//! `dnspath race`: conntrack clashes and drops as they happen, what they cost, and what the kernel counted.

use super::{
    clock,
    live::{Live, Problems, covered, tell},
    offline::CANNOT_PRINT,
    provoke::{self, Plan},
    selection::Selected,
};
use crate::{
    cli::options::{ExitStatus, LiveOptions, RaceOptions},
    findings::KernelVersion,
    model::{Lookup, Observer, PacketDrop, Vantages},
    output::{Provoked, RaceSummary, Stream, Unit},
};
use anyhow::{Context, anyhow};
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often it is told what the CPUs counted meanwhile, where they did.
const BETWEEN_COUNTS: Duration = Duration::from_secs(10);
/// What is still on its way to the reader when the last pair was answered or given up.
const AFTER_PROVOKING: Duration = Duration::from_millis(500);

/// Prints every drop and clash, and the lookups they hit, until a signal or the end of `--duration`; or, where a race
/// is to be provoked, until that is done. [`ExitStatus::Findings`] where a packet was lost.
///
/// # Errors
/// When capture cannot start, the pairs cannot be sent, or stdout cannot be written.
pub fn race(mut options: LiveOptions, race: RaceOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    // Begun before this thread gives up its privileges: sending from another namespace takes some.
    let pairs = race.provoke.map(Pairs::prepare).transpose()?;
    let live = Live::start(&mut options, &vantages)?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut summary = RaceSummary::new(KernelVersion::from_release(&release), release);
    let mut to = io::stdout().lock();
    to.write_all(summary.head(race.format).as_bytes()).context(CANNOT_PRINT)?;
    to.flush().context(CANNOT_PRINT)?;
    let stream = Stream::new(to, race.format, &[Unit::Drop, Unit::Lookup], vantages.clone())
        .with_pods(live.pods.clone());
    let mut selected = Selected::new(&options.selection, Races { stream, summary: &mut summary });
    let mut problems = Problems::default();
    if let Some(pairs) = &pairs {
        pairs.go(live.stop.clone())?;
    }
    let (mut per_cpu, mut told) = (Vec::new(), Vec::new());
    let mut next_told = clock::wall_now() + BETWEEN_COUNTS;
    let ran = live.run(&mut selected, |selected, tick| {
        problems.tell(tick);
        per_cpu.clone_from(&tick.conntrack_per_cpu);
        let now = clock::wall_now();
        if now >= next_told {
            let Races { stream, summary } = &mut selected.observer;
            if let Some(line) = summary.counted_since(&told, &per_cpu, now, race.format) {
                stream.aside(&line);
            }
            told.clone_from(&per_cpu);
            next_told = now + BETWEEN_COUNTS;
        }
        selected.observer.stream.flush().context(CANNOT_PRINT)
    })?;
    drop(selected);
    summary.counted(Some(per_cpu).filter(|cpus| !cpus.is_empty()));
    if let Some(pairs) = pairs {
        summary.provoked(pairs.end()?);
    }
    io::stdout().lock().write_all(summary.tail(race.format).as_bytes()).context(CANNOT_PRINT)?;
    tell(&covered(&ran.coverage));
    Ok(if summary.lost_any() { ExitStatus::Findings } else { ExitStatus::Clean })
}

/// Prints drops, and of the lookups those that a drop hit.
struct Races<'a, W> {
    stream: Stream<W>,
    summary: &'a mut RaceSummary,
}

impl<W: Write> Observer for Races<'_, W> {
    fn packet_drop(&mut self, drop: &PacketDrop) {
        self.summary.packet_drop(drop);
        self.stream.packet_drop(drop);
    }

    fn lookup(&mut self, lookup: &Lookup) {
        if was_hit(lookup) {
            self.summary.lookup_hit();
            self.stream.lookup(lookup);
        }
    }
}

fn was_hit(lookup: &Lookup) -> bool {
    lookup.steps.iter().flat_map(|step| &step.questions).any(|question| {
        question.transmissions.iter().any(|sent| sent.dropped.is_some())
            || question.answers.iter().any(|answer| answer.dropped.is_some())
    })
}

/// The thread that sends the pairs, once it is told to.
struct Pairs {
    start: Sender<super::signals::Stop>,
    ended_early: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Provoked>>,
}

impl Pairs {
    fn prepare(plan: Plan) -> anyhow::Result<Self> {
        let (start, started) = mpsc::channel();
        let ended_early = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended_early);
        let thread = thread::Builder::new()
            .name("dnspath-provoke".into())
            .spawn(move || Self::run(&plan, &started, &stop))
            .context("cannot start the sending thread")?;
        Ok(Self { start, ended_early, thread })
    }

    fn go(&self, stop: super::signals::Stop) -> anyhow::Result<()> {
        self.start.send(stop).map_err(|_| anyhow!("the sending thread ended before it began"))
    }

    fn run(
        plan: &Plan,
        started: &Receiver<super::signals::Stop>,
        ended_early: &AtomicBool,
    ) -> anyhow::Result<Provoked> {
        let stop = started.recv().context("capture did not start")?;
        let provoked = provoke::provoke(plan, ended_early);
        thread::sleep(AFTER_PROVOKING);
        stop.request();
        provoked
    }

    /// The capture is over: by the pairs' end, or by a signal before it.
    fn end(self) -> anyhow::Result<Provoked> {
        self.ended_early.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the sending thread failed"))?
    }
}
