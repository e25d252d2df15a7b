//! Kernel → wire → engine → sinks.
//!
//! One thread reads the ring, decodes, correlates and feeds the sinks; the namespaces' threads attach and follow
//! links (`capture`); with the screen on, the main thread draws. The reading thread gives up its privileges before
//! it reads the first packet.

use super::{
    clock,
    selection::Selected,
    session::Session,
    signals::{self, Stop},
};
use crate::{
    capture::{self, Capture, Interfaces, Netns, Notes, Verdict},
    cli::{
        args::ReportFormat,
        options::{CheckOptions, ExitStatus, LiveOptions, StreamOptions},
    },
    engine,
    model::{Coverage, Direction, InterfaceKind, Observer, Timestamp, Vantages},
    output::{self, Stream},
    tui::{self, Feed, Limits, SharedFeed},
};
use anyhow::{Context as _, anyhow};
use std::{
    io::{self, Write as _},
    thread,
    time::Duration,
};

/// How often the ring is read when little is in it.
const NAP: Duration = Duration::from_millis(10);
/// How often sinks are told the time.
const TICK: Duration = Duration::from_millis(100);
/// A frame can reach the ring this much later than the time it carries: then time must not have passed it.
const IN_FLIGHT: Duration = Duration::from_millis(5);

/// Rounds over the rings before the clock and the signals are looked at again.
const MOST_ROUNDS: usize = 8;

/// Live capture with its session.
struct Live {
    capture: Capture,
    session: Session,
    notes: Notes,
    stop: Stop,
    until: Option<Timestamp>,
}

/// What the sinks are told ten times a second.
struct Tick {
    now: Timestamp,
    coverage: Coverage,
    attached: usize,
    notes: Vec<String>,
    /// The last one: everything has been told.
    last: bool,
}

impl Live {
    /// Attaches, tells that it has, and gives up the privileges of this thread.
    fn start(options: &LiveOptions, vantages: &Vantages) -> anyhow::Result<Self> {
        let stop = signals::watch().context("cannot watch for signals")?;
        let notes = Notes::default();
        let namespaces = namespaces(&options.netns);
        let interfaces = Interfaces::new(&options.interfaces).context("cannot use --interface")?;
        let capture_options =
            capture::Options { interfaces, namespaces, ports: options.ports.clone(), ..capture::Options::default() };
        let anchor = clock::Anchor::now();
        let capture = Capture::start(&capture_options, anchor.wall_minus_monotonic(), vantages, &notes)?;
        if let Some(path) = &options.ready_file {
            std::fs::write(path, "").with_context(|| {
                format!("cannot create --ready-file {}: give a path that can be written", path.display())
            })?;
        }
        if let Err(problem) = capture::drop_all() {
            notes.add(&problem);
        }
        let config = engine::Config::default();
        let session = Session::new(&options.ports, config, vantages.clone());
        let until = options.duration.map(|duration| clock::wall_now() + duration);
        Ok(Self { capture, session, notes, stop, until })
    }

    /// Runs until a signal, the end of the time given, or a sink that wants no more.
    fn run<O: Observer>(
        mut self,
        out: &mut O,
        mut tick: impl FnMut(&mut O, &Tick) -> anyhow::Result<()>,
    ) -> anyhow::Result<Coverage> {
        let mut next_tick = clock::wall_now() + TICK;
        loop {
            let now = clock::wall_now();
            self.drain(now, out);
            if now >= next_tick {
                tick(out, &self.tick(now, false))?;
                next_tick = now + TICK;
            }
            if self.stop.requested() || self.until.is_some_and(|until| now >= until) {
                break;
            }
            thread::sleep(NAP);
        }
        self.capture.stop();
        self.drain(clock::wall_now(), out);
        self.session.finish(out);
        let last = self.tick(clock::wall_now(), true);
        tick(out, &last)?;
        Ok(last.coverage)
    }

    /// Empties the rings, then lets time pass: `now` was read before. When a flood keeps them from getting empty,
    /// only the frames' own times count.
    fn drain(&mut self, now: Timestamp, out: &mut impl Observer) {
        let session = &mut self.session;
        for _ in 0..MOST_ROUNDS {
            if self.capture.drain(|frame| session.frame(frame, out)) == 0 {
                session.advance(now - IN_FLIGHT, out);
                return;
            }
        }
    }

    fn tick(&self, now: Timestamp, last: bool) -> Tick {
        Tick {
            now,
            coverage: self.session.coverage(self.capture.lost()),
            attached: self.capture.attached(),
            notes: self.notes.take_fresh(),
            last,
        }
    }
}

/// Prints a line an event until a signal or the end of `--duration`; then, on stderr, what was covered.
///
/// # Errors
/// When capture cannot start, or stdout cannot be written.
pub fn stream(options: LiveOptions, stream: StreamOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let live = Live::start(&options, &vantages)?;
    let lines = Stream::new(io::stdout().lock(), stream.format, &stream.units, vantages);
    let mut selected = Selected::new(&options.selection, lines);
    let mut lost = 0;
    let coverage = live.run(&mut selected, |selected, tick| {
        for note in &tick.notes {
            tell(note);
        }
        if tick.coverage.lost > lost {
            tell(&format!("{} frames lost so far: the ring was full", tick.coverage.lost));
            lost = tick.coverage.lost;
        }
        selected.observer.flush().map_err(anyhow::Error::from)
    })?;
    tell(&covered(&coverage));
    Ok(ExitStatus::Clean)
}

/// Captures for a while and reports.
///
/// # Errors
/// Not yet.
pub fn report(_live: LiveOptions, _report: crate::cli::options::ReportOptions) -> anyhow::Result<ExitStatus> {
    anyhow::bail!("not yet")
}

/// Says what this node lets dnspath see; [`ExitStatus::Findings`] where it cannot capture.
///
/// # Errors
/// When an option makes no sense, or stdout cannot be written.
pub fn check(options: &CheckOptions) -> anyhow::Result<ExitStatus> {
    let capture_options = capture::Options {
        interfaces: Interfaces::new(&options.interfaces).context("cannot use --interface")?,
        namespaces: namespaces(&options.netns),
        ..capture::Options::default()
    };
    let checks = capture::check(&capture_options, clock::monotonic_now);
    let text = match options.format {
        ReportFormat::Json => format!("{:#}\n", output::check::to_json(&checks)),
        ReportFormat::Text => output::check::to_text(&checks),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    let can_capture = checks.iter().all(|check| check.verdict != Verdict::Missing);
    Ok(if can_capture { ExitStatus::Clean } else { ExitStatus::Findings })
}

/// The namespaces to watch: those named, else the own one.
fn namespaces(named: &[String]) -> Vec<Netns> {
    if named.is_empty() { vec![Netns::Own] } else { named.iter().map(|name| Netns::from_argument(name)).collect() }
}

/// Shows the live screen until the user quits, a signal comes or `--duration` is over.
///
/// # Errors
/// When capture cannot start, or the terminal cannot be used.
pub fn tui(options: LiveOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let live = Live::start(&options, &vantages)?;
    let stop = live.stop.clone();
    let feed = SharedFeed::new(Feed::new(vantages.clone(), Limits::default()));
    feed.lock().status_mut().title = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let exit = thread::scope(|scope| {
        let (feed_of_reader, stop_of_reader) = (feed.clone(), stop.clone());
        let reader = thread::Builder::new().name("dnspath-reader".into()).spawn_scoped(scope, move || {
            let mut selected = Selected::new(&options.selection, feed_of_reader);
            let ended = live.run(&mut selected, |selected, tick| {
                let mut feed = selected.observer.lock();
                let status = feed.status_mut();
                status.coverage = tick.coverage;
                status.interfaces = interfaces(&vantages, tick.attached);
                status.notes.extend(tick.notes.iter().cloned());
                Ok(())
            });
            // The screen has nothing more to show once nobody reads.
            stop_of_reader.request();
            ended
        });
        let shown = tui::run(&feed, stop.flag(), clock::wall_now);
        stop.request();
        shown.context("cannot use the terminal: `dnspath stream` prints lines instead")?;
        reader.context("cannot start the reading thread")?.join().map_err(|_| anyhow!("the reading thread failed"))?
    });
    let coverage = exit?;
    tell(&covered(&coverage));
    Ok(ExitStatus::Clean)
}

/// `14 veths · cni0 · eth0`.
fn interfaces(vantages: &Vantages, attached: usize) -> String {
    let all = vantages.all();
    let mut named: Vec<&str> = all
        .iter()
        .filter(|v| v.direction == Direction::Ingress && v.kind != InterfaceKind::Veth)
        .map(|v| v.interface.as_str())
        .collect();
    named.dedup();
    let veths = attached.saturating_sub(named.len());
    let mut text = format!("{veths} veth{}", if veths == 1 { "" } else { "s" });
    for name in named.into_iter().take(4) {
        text.push_str(" · ");
        text.push_str(name);
    }
    text
}

/// One line to the person at the terminal.
fn tell(line: &str) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(io::stderr(), "dnspath: {line}");
}

fn covered(coverage: &Coverage) -> String {
    let Coverage { frames, dns_messages, lost, truncated, malformed, evicted } = coverage;
    format!(
        "coverage: frames={frames} dns_messages={dns_messages} lost={lost} truncated={truncated} \
         malformed={malformed} evicted={evicted}"
    )
}
