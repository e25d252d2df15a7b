//! Kernel → wire → engine → sinks.
//!
//! One thread reads the ring, decodes, correlates and feeds the sinks; the namespaces' threads attach and follow
//! links (`capture`); with the screen on, the main thread draws. The reading thread gives up its privileges before
//! it reads the first packet.

use super::{
    beside::{
        NOT_SEEN, blind_spots, count_rules, heed_rules, namespaces, node_name, note_encrypted, tell_blind,
        watch_loopbacks, watch_node,
    },
    clock,
    flight::Flight,
    known::Known,
    loss::LossWatch,
    offline::CANNOT_PRINT,
    record::{Counts, Ready, Recorder},
    selection::Selected,
    session::Session,
    signals::{self, Stop},
    sinks::{Covered, ReportSinks, StreamSinks},
};
use crate::{
    capture::{self, Capture, Interfaces, Netns, Notes},
    cli::options::{ExitStatus, LiveOptions, ReportOptions, StreamOptions},
    engine::{Config, SearchList},
    model::{Conntrack, Coverage, Direction, InterfaceKind, Observer, Pods, Timestamp, Vantages},
    node,
    output::{Format, Stream, Unit, text::escape},
    trace::Origin,
    tui::{self, Feed, Limits, Request, SharedFeed},
};
use anyhow::{Context as _, anyhow};
use std::{
    io::{self, Write as _},
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

/// How often the ring is read when little is in it.
pub(super) const NAP: Duration = Duration::from_millis(10);
/// How often sinks are told the time.
const TICK: Duration = Duration::from_millis(100);
/// A frame can reach the ring this much later than the time it carries: then time must not have passed it.
pub(super) const IN_FLIGHT: Duration = Duration::from_millis(5);

/// Rounds over the rings before the clock and the signals are looked at again.
const MOST_ROUNDS: usize = 8;

/// Live capture with its session.
pub(super) struct Live {
    pub(super) capture: Capture,
    /// Names pods for as long as it is there; `None` where it could not be started, of which a note tells.
    pub(super) node: Option<node::Watch>,
    /// Counts packet rules; `None` where it could not be started, of which a note tells.
    pub(super) counting: Option<node::Counting>,
    pub(super) pods: Pods,
    pub(super) known: Known,
    /// Up to when every frame was read.
    settled: Timestamp,
    session: Session,
    pub(super) recorder: Option<Recorder>,
    flight: Option<Flight>,
    pub(super) notes: Notes,
    pub(super) stop: Stop,
    pub(super) started: Timestamp,
    pub(super) until: Option<Timestamp>,
}

/// What the sinks are told ten times a second.
pub(super) struct Tick {
    coverage: Coverage,
    attached: usize,
    notes: Vec<String>,
    /// How long it is being recorded.
    recording: Option<Duration>,
    /// What conntrack counted since the start, CPU by CPU; empty where it cannot be read.
    pub(super) conntrack_per_cpu: Vec<Conntrack>,
}

/// What a session says of itself at its end.
pub(super) struct Ran {
    pub(super) coverage: Coverage,
    span: (Timestamp, Timestamp),
    /// What to say of the recording, where one was made.
    recorded: Option<anyhow::Result<String>>,
}

impl Ran {
    fn covered(&self, options: &LiveOptions) -> Covered {
        Covered {
            sources: sources(&namespaces(&options.netns)),
            window: Some(options.selection.window.within(self.span)),
            coverage: self.coverage,
            cut: false,
            clocks: Vec::new(),
        }
    }

    /// Says what was recorded; fails with what kept it from being.
    fn recorded(self) -> anyhow::Result<()> {
        if let Some(recorded) = self.recorded {
            tell(&recorded?);
        }
        Ok(())
    }
}

impl Live {
    /// Attaches, tells that it has, and gives up the privileges of this thread. Relative times become absolute.
    pub(super) fn start(options: &mut LiveOptions, vantages: &Vantages) -> anyhow::Result<Self> {
        Self::start_with(options, vantages, None)
    }

    /// [`Self::start`] with a flight recorder that is saved from this screen.
    fn start_with(
        options: &mut LiveOptions,
        vantages: &Vantages,
        screen: Option<&SharedFeed>,
    ) -> anyhow::Result<Self> {
        let ready = options.record.as_ref().map(Ready::open).transpose()?;
        options.selection.window = options.times.resolve(clock::wall_now())?;
        let stop = signals::watch().context("cannot watch for signals")?;
        let notes = Notes::default();
        let mut namespaces = namespaces(&options.netns);
        if options.also_own && !namespaces.iter().any(|netns| netns.identity() == Netns::Own.identity()) {
            namespaces.push(Netns::Own);
        }
        let interfaces = Interfaces::new(&options.interfaces)
            .context("cannot use --interface; give names, or patterns with * ? [...]")?;
        let capture_options = capture::Options {
            interfaces,
            namespaces,
            ports: options.ports.clone(),
            connects: options.connects,
            hook: options.hook,
            ..capture::Options::default()
        };
        let anchor = clock::Anchor::now();
        let mut capture = Capture::start(&capture_options, anchor.wall_minus_monotonic(), vantages, &notes)?;
        let pods = options.selection.pods.clone();
        let (mut known, found, resolvers) = Known::new(pods.clone());
        let node = watch_node(&capture_options.namespaces, &found, resolvers, &notes);
        let counting = count_rules(&capture_options.namespaces, &notes);
        if options.pod_loopback {
            watch_loopbacks(&mut capture, node.as_ref())?;
        }
        let started = clock::wall_now();
        capture.begin(started);
        for spot in blind_spots(&capture, &capture_options.namespaces, vantages) {
            tell_blind(spot, &mut known, &notes);
        }
        let origin = origin(&capture, &anchor, options);
        let flight = screen.filter(|_| options.flight_recorder > 0).map(|feed| {
            Flight::start(
                options.flight_recorder,
                &node_name(),
                origin.clone(),
                vantages.clone(),
                feed.clone(),
            )
        });
        let flight = flight.transpose()?;
        let begin = |ready: Ready| ready.begin(origin, vantages.clone(), started);
        let recorder = ready.map(begin).transpose()?;
        if let Some(path) = &options.ready_file {
            std::fs::write(path, "").with_context(|| {
                format!("cannot create --ready-file {}: give a path that can be written", path.display())
            })?;
        }
        capture::go_ahead();
        if let Err(problem) = capture::drop_all() {
            notes.add(&problem);
        }
        let resolv_conf = options.resolv_conf.as_deref().map(SearchList::from_resolv_conf);
        let config = Config { resolv_conf, connects: options.connects, ..Config::default() };
        let session = Session::new(&options.ports, config, vantages.clone());
        let until = options.duration.map(|duration| started + duration);
        let settled = Timestamp::EPOCH;
        Ok(Self {
            capture,
            node,
            counting,
            pods,
            known,
            settled,
            session,
            recorder,
            flight,
            notes,
            stop,
            started,
            until,
        })
    }

    /// Runs until a signal, the end of the time given, or a sink that wants no more.
    pub(super) fn run<O: Observer>(
        mut self,
        out: &mut O,
        mut tick: impl FnMut(&mut O, &Tick) -> anyhow::Result<()>,
    ) -> anyhow::Result<Ran> {
        let mut next_tick = clock::wall_now() + TICK;
        let mut loss = LossWatch::default();
        loop {
            let now = clock::wall_now();
            self.drain(now, out);
            note_encrypted(&self.capture, &mut self.known, &self.notes);
            self.heed_node(out);
            if let Some(recorder) = &mut self.recorder {
                recorder.step(now, || Counts::of(&self.capture), || self.known.all());
                if let Some(news) = recorder.news() {
                    self.notes.add(news);
                }
            }
            if now >= next_tick {
                if let Some(flight) = &mut self.flight {
                    flight.save_if_asked(now, self.capture.lost(), || self.known.all());
                }
                loss.read(self.capture.lost(), now, out);
                tick(out, &self.tick(now))?;
                next_tick = now + TICK;
            }
            if self.stop.requested() || self.until.is_some_and(|until| now >= until) {
                break;
            }
            thread::sleep(NAP);
        }
        self.capture.stop();
        self.node = None;
        let last = self.counting.take().map(node::Counting::finish);
        last.into_iter().flatten().for_each(|counted| self.known.tell_counted(counted));
        self.heed_node(out);
        let ended = clock::wall_now();
        self.drain(ended, out);
        self.session.finish(out);
        loss.read(self.capture.lost(), ended, out);
        let last = self.tick(ended);
        tick(out, &last)?;
        let counts = Counts::of(&self.capture);
        let recorded = self.recorder.take().map(|recorder| recorder.finish(ended, &counts));
        Ok(Ran { coverage: last.coverage, span: (self.started, ended), recorded })
    }

    /// Passes on what was learnt of the node, to the session and to the recording.
    fn heed_node(&mut self, out: &mut impl Observer) {
        heed_rules(self.counting.as_ref(), &mut self.known);
        let fresh = self.known.fresh(self.settled);
        if let Some(recorder) = &mut self.recorder {
            recorder.learnt(self.settled, &fresh);
        }
        fresh.iter().for_each(|news| self.session.heed(news, out));
    }

    /// Empties the rings, then lets time pass: `now` was read before. When a flood keeps them from getting empty,
    /// only the frames' own times count.
    fn drain(&mut self, now: Timestamp, out: &mut impl Observer) {
        let Self { capture, session, recorder, flight, settled, .. } = self;
        let mut flight = flight.as_mut().map(|flight| &mut flight.recorder);
        for _ in 0..MOST_ROUNDS {
            let count = capture.drain(|frame| {
                if let Some(flight) = &mut flight {
                    flight.push(frame);
                }
                if let Some(recorder) = recorder {
                    recorder.frame(frame);
                }
                session.frame(frame, out);
            });
            if count == 0 {
                session.advance(now - IN_FLIGHT, out);
                *settled = now;
                return;
            }
        }
    }

    fn tick(&self, now: Timestamp) -> Tick {
        let recorder = self.recorder.as_ref().filter(|recorder| recorder.is_running());
        Tick {
            coverage: Coverage {
                conntrack: self.capture.conntrack(),
                ..self.session.coverage(self.capture.lost())
            },
            attached: self.capture.attached(),
            notes: self.notes.take_fresh(),
            recording: recorder.map(|_| now.since(self.started)),
            conntrack_per_cpu: self.capture.conntrack_per_cpu(),
        }
    }
}

/// Prints a line an event until a signal or the end of `--duration`; then, on stderr, what was covered.
///
/// # Errors
/// When capture cannot start, or stdout cannot be written.
pub fn stream(mut options: LiveOptions, stream: StreamOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let live = Live::start(&mut options, &vantages)?;
    let lines = Stream::new(io::stdout().lock(), stream.format, &stream.units, vantages);
    let mut selected = Selected::new(&options.selection, StreamSinks::new(lines, live.pods.clone()));
    let mut problems = Problems::default();
    let ran = live.run(&mut selected, |selected, tick| {
        problems.tell(tick);
        selected.observer.stream.flush().context(CANNOT_PRINT)
    })?;
    selected.observer.finish(&ran.coverage, ran.span).context(CANNOT_PRINT)?;
    tell(&covered(&ran.coverage));
    ran.recorded().map(|()| ExitStatus::Clean)
}

/// Captures until a signal or the end of `--duration`, then reports.
///
/// # Errors
/// When capture cannot start, or stdout cannot be written.
pub fn report(mut options: LiveOptions, report: ReportOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let live = Live::start(&mut options, &vantages)?;
    let all = options.selection.admits_all();
    let sinks = ReportSinks::new(&report, vantages.clone(), live.pods.clone(), all);
    let mut selected = Selected::new(&options.selection, sinks);
    let mut problems = Problems::default();
    let ran = live.run(&mut selected, |_, tick| {
        problems.tell(tick);
        Ok(())
    })?;
    let to = io::stdout().lock();
    let status = selected
        .observer
        .finish(&ran.covered(&options), None, &vantages, &report, to)
        .context(CANNOT_PRINT)?;
    ran.recorded().map(|()| status)
}

/// Prints a line a lookup, and at the end the report: what a session without a screen is.
///
/// # Errors
/// When capture cannot start, or stdout cannot be written.
pub fn lines(mut options: LiveOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let live = Live::start(&mut options, &vantages)?;
    let lines = Stream::new(io::stdout().lock(), Format::Text, &[Unit::Lookup], vantages.clone());
    let all = options.selection.admits_all();
    let sinks = (
        StreamSinks::new(lines, live.pods.clone()),
        ReportSinks::new(&ReportOptions::BEHIND_LINES, vantages.clone(), live.pods.clone(), all),
    );
    let mut selected = Selected::new(&options.selection, sinks);
    let mut problems = Problems::default();
    let ran = live.run(&mut selected, |selected, tick| {
        problems.tell(tick);
        selected.observer.0.stream.flush().context(CANNOT_PRINT)
    })?;
    let (StreamSinks { mut stream, .. }, report) = selected.observer;
    stream.flush().context(CANNOT_PRINT)?;
    drop(stream);
    let mut stdout = io::stdout().lock();
    writeln!(stdout).context(CANNOT_PRINT)?;
    let covered = ran.covered(&options);
    report.finish(&covered, None, &vantages, &ReportOptions::BEHIND_LINES, stdout).context(CANNOT_PRINT)?;
    // Lines were asked for, not a verdict.
    ran.recorded().map(|()| ExitStatus::Clean)
}

/// Tells what goes wrong while it goes on, each thing once.
#[derive(Default)]
pub(super) struct Problems {
    lost: u64,
}

impl Problems {
    pub(super) fn tell(&mut self, tick: &Tick) {
        for note in &tick.notes {
            tell(&escape(note));
        }
        if tick.coverage.lost > self.lost {
            self.lost = tick.coverage.lost;
            tell(&format!("{} frames lost so far: the ring was full", self.lost));
        }
    }
}

/// What is watched, as reports and recordings name it.
fn sources(namespaces: &[Netns]) -> Vec<String> {
    let node = || format!("node {}", rustix::system::uname().nodename().to_string_lossy());
    let source = |netns: &Netns| netns.name().map_or_else(node, |name| format!("netns {name}"));
    namespaces.iter().map(source).collect()
}

/// What a recording says of its making.
fn origin(capture: &Capture, anchor: &clock::Anchor, options: &LiveOptions) -> Origin {
    let uname = rustix::system::uname();
    let [node, machine, system, release, version] =
        [uname.nodename(), uname.machine(), uname.sysname(), uname.release(), uname.version()]
            .map(|word| word.to_string_lossy());
    let facts = capture.facts();
    let ports: Vec<String> = options.ports.iter().map(ToString::to_string).collect();
    let translation = facts.no_nat.map_or_else(|| "read".into(), |reason| format!("not read: {reason}"));
    Origin {
        version: env!("CARGO_PKG_VERSION").into(),
        node: format!("{node} ({machine})"),
        kernel: format!("{system} {release} {version}"),
        sources: sources(&namespaces(&options.netns)),
        facts: vec![
            anchor.describe(),
            format!("hook {}", facts.hook),
            format!("translation {translation}"),
            format!("ports {}", ports.join(" ")),
        ],
    }
}

/// Shows the live screen until the user quits, a signal comes or `--duration` is over.
///
/// # Errors
/// When capture cannot start, or the terminal cannot be used.
pub fn tui(mut options: LiveOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let pods = options.selection.pods.clone();
    let feed = SharedFeed::new(Feed::new(vantages.clone(), Limits::default()).with_pods(pods));
    let live = Live::start_with(&mut options, &vantages, Some(&feed))?;
    let stop = live.stop.clone();
    let save = live.flight.as_ref().map(Flight::ask);
    feed.lock().status_mut().title = node_name();
    let exit = thread::scope(|scope| {
        let (feed_of_reader, stop_of_reader) = (feed.clone(), stop.clone());
        let reader = thread::Builder::new().name("dnspath-reader".into()).spawn_scoped(scope, move || {
            let mut selected = Selected::new(&options.selection, feed_of_reader);
            let ended = live.run(&mut selected, |selected, tick| {
                let mut feed = selected.observer.lock();
                let status = feed.status_mut();
                status.coverage = tick.coverage;
                status.interfaces = interfaces(&vantages, tick.attached);
                // Blind spots stand among the findings; up here they would take the lookups' room for good.
                let shown = tick.notes.iter().filter(|note| !note.starts_with(NOT_SEEN));
                status.warn(shown.cloned());
                status.recording = tick.recording.map(|elapsed| tui::Recording { elapsed });
                Ok(())
            });
            // The screen has nothing more to show once nobody reads.
            stop_of_reader.request();
            ended
        });
        // This thread draws; the one that reads has begun with its priority.
        capture::fall_back();
        let shown = tui::run(&feed, stop.flag(), clock::wall_now, |request| {
            if request == Request::Save {
                match &save {
                    Some(asked) => asked.store(true, Ordering::Relaxed),
                    None => feed.lock().status_mut().say("nothing is kept to save: --flight-recorder is 0"),
                }
            }
        });
        stop.request();
        shown.context("cannot use the terminal: `dnspath stream` prints lines instead")?;
        reader
            .context("cannot start the reading thread")?
            .join()
            .map_err(|_| anyhow!("the reading thread failed"))?
    });
    let ran = exit?;
    tell(&covered(&ran.coverage));
    ran.recorded().map(|()| ExitStatus::Clean)
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
pub(super) fn tell(line: &str) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(io::stderr(), "dnspath: {line}");
}

pub(super) fn covered(coverage: &Coverage) -> String {
    let Coverage { frames, dns_messages, lost, truncated, malformed, evicted, conntrack: _ } = coverage;
    format!(
        "coverage: frames={frames} dns_messages={dns_messages} lost={lost} truncated={truncated} \
         malformed={malformed} evicted={evicted}"
    )
}
