//! Kernel → wire → engine → sinks.
//!
//! One thread reads the ring, decodes, correlates and feeds the sinks; the namespaces' threads attach and follow
//! links (`capture`); with the screen on, the main thread draws. The reading thread gives up its privileges before
//! it reads the first packet.

use super::{
    clock,
    flight::{Flight, Saved},
    offline::CANNOT_PRINT,
    selection::Selected,
    session::Session,
    signals::{self, Stop},
    sinks::{Covered, ReportSinks, StreamSinks},
};
use crate::{
    capture::{self, Capture, Interfaces, Netns, Notes, Verdict},
    cli::{
        args::ReportFormat,
        options::{CheckOptions, ExitStatus, LiveOptions, ReportOptions, StreamOptions},
    },
    engine::{Config, SearchList},
    findings::Severity,
    model::{Conntrack, Coverage, Direction, InterfaceKind, Observer, Pods, Timestamp, Vantages},
    node,
    output::{self, Format, Stream, Unit},
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
const NAP: Duration = Duration::from_millis(10);
/// How often sinks are told the time.
const TICK: Duration = Duration::from_millis(100);
/// A frame can reach the ring this much later than the time it carries: then time must not have passed it.
const IN_FLIGHT: Duration = Duration::from_millis(5);

/// Rounds over the rings before the clock and the signals are looked at again.
const MOST_ROUNDS: usize = 8;

/// Live capture with its session.
pub(super) struct Live {
    capture: Capture,
    /// Names pods for as long as it is there; `None` where it could not be started, of which a note tells.
    node: Option<node::Watch>,
    pods: Pods,
    session: Session,
    notes: Notes,
    pub(super) stop: Stop,
    started: Timestamp,
    until: Option<Timestamp>,
    /// With the screen it is saved from.
    flight: Option<(Flight, SharedFeed)>,
    vantages: Vantages,
    sources: Vec<String>,
}

/// What the sinks are told ten times a second.
pub(super) struct Tick {
    coverage: Coverage,
    attached: usize,
    notes: Vec<String>,
    /// What conntrack counted since the start, CPU by CPU; empty where it cannot be read.
    pub(super) conntrack_per_cpu: Vec<Conntrack>,
}

/// What a session says of itself at its end.
pub(super) struct Ran {
    pub(super) coverage: Coverage,
    span: (Timestamp, Timestamp),
}

impl Ran {
    fn covered(&self, options: &LiveOptions) -> Covered {
        Covered {
            sources: sources(&options.netns),
            window: Some(options.selection.window.within(self.span)),
            coverage: self.coverage,
            cut: false,
        }
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
            hook: options.hook,
            ..capture::Options::default()
        };
        let anchor = clock::Anchor::now();
        let capture = Capture::start(&capture_options, anchor.wall_minus_monotonic(), vantages, &notes)?;
        let pods = options.selection.pods.clone();
        let node = watch_node(&capture_options.namespaces, &pods, &notes);
        if let Some(path) = &options.ready_file {
            std::fs::write(path, "").with_context(|| {
                format!("cannot create --ready-file {}: give a path that can be written", path.display())
            })?;
        }
        let flight = match screen {
            Some(feed) if options.flight_recorder > 0 => {
                Some((Flight::start(options.flight_recorder, &node_name())?, feed.clone()))
            }
            _ => None,
        };
        if let Err(problem) = capture::drop_all() {
            notes.add(&problem);
        }
        let resolv_conf = options.resolv_conf.as_deref().map(SearchList::from_resolv_conf);
        let config = Config { resolv_conf, ..Config::default() };
        let session = Session::new(&options.ports, config, vantages.clone());
        let started = clock::wall_now();
        let until = options.duration.map(|duration| started + duration);
        Ok(Self {
            capture,
            node,
            pods,
            session,
            notes,
            stop,
            started,
            until,
            flight,
            vantages: vantages.clone(),
            sources: sources(&options.netns),
        })
    }

    /// Runs until a signal, the end of the time given, or a sink that wants no more.
    pub(super) fn run<O: Observer>(
        mut self,
        out: &mut O,
        mut tick: impl FnMut(&mut O, &Tick) -> anyhow::Result<()>,
    ) -> anyhow::Result<Ran> {
        let mut next_tick = clock::wall_now() + TICK;
        loop {
            let now = clock::wall_now();
            self.drain(now, out);
            if now >= next_tick {
                self.save_if_asked(now);
                tick(out, &self.tick())?;
                next_tick = now + TICK;
            }
            if self.stop.requested() || self.until.is_some_and(|until| now >= until) {
                break;
            }
            thread::sleep(NAP);
        }
        self.capture.stop();
        self.node = None;
        let ended = clock::wall_now();
        self.drain(ended, out);
        self.session.finish(out);
        let last = self.tick();
        tick(out, &last)?;
        Ok(Ran { coverage: last.coverage, span: (self.started, ended) })
    }

    /// Empties the rings, then lets time pass: `now` was read before. When a flood keeps them from getting empty,
    /// only the frames' own times count.
    fn drain(&mut self, now: Timestamp, out: &mut impl Observer) {
        let session = &mut self.session;
        let mut flight = self.flight.as_mut().map(|(flight, _)| &mut flight.recorder);
        for _ in 0..MOST_ROUNDS {
            let drained = self.capture.drain(|frame| {
                if let Some(flight) = &mut flight {
                    flight.push(frame);
                }
                session.frame(frame, out);
            });
            if drained == 0 {
                session.advance(now - IN_FLIGHT, out);
                return;
            }
        }
    }

    fn save_if_asked(&mut self, now: Timestamp) {
        let lost = self.capture.lost();
        if let Some((flight, feed)) = &mut self.flight {
            let uname = rustix::system::uname();
            let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
            let origin = Origin {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                node: format!("{} ({})", text(uname.nodename()), text(uname.machine())),
                kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
                sources: self.sources.clone(),
                facts: vec!["flight recorder".to_owned()],
            };
            let vantages = self.vantages.clone();
            flight.save_if_asked(&Saved { origin, vantages, now, lost }, feed);
        }
    }

    fn tick(&self) -> Tick {
        Tick {
            coverage: Coverage {
                conntrack: self.capture.conntrack(),
                ..self.session.coverage(self.capture.lost())
            },
            attached: self.capture.attached(),
            notes: self.notes.take_fresh(),
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
    Ok(ExitStatus::Clean)
}

/// Captures until a signal or the end of `--duration`, then reports.
///
/// # Errors
/// When capture cannot start, or stdout cannot be written.
pub fn report(mut options: LiveOptions, report: ReportOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let live = Live::start(&mut options, &vantages)?;
    let mut selected = Selected::new(&options.selection, ReportSinks::new(report.lookups, live.pods.clone()));
    let mut problems = Problems::default();
    let ran = live.run(&mut selected, |_, tick| {
        problems.tell(tick);
        Ok(())
    })?;
    let to = io::stdout().lock();
    selected.observer.finish(&ran.covered(&options), &vantages, &report, to).context(CANNOT_PRINT)
}

/// Prints a line a lookup, and at the end the report: what a session without a screen is.
///
/// # Errors
/// When capture cannot start, or stdout cannot be written.
pub fn lines(mut options: LiveOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let live = Live::start(&mut options, &vantages)?;
    let lines = Stream::new(io::stdout().lock(), Format::Text, &[Unit::Lookup], vantages.clone());
    let sinks = (StreamSinks::new(lines, live.pods.clone()), ReportSinks::new(false, live.pods.clone()));
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
    let options_of_report =
        ReportOptions { format: ReportFormat::Text, lookups: false, fail_on: Severity::Error };
    report.finish(&ran.covered(&options), &vantages, &options_of_report, stdout).context(CANNOT_PRINT)?;
    // Lines were asked for, not a verdict.
    Ok(ExitStatus::Clean)
}

/// Tells what goes wrong while it goes on, each thing once.
#[derive(Default)]
pub(super) struct Problems {
    lost: u64,
}

impl Problems {
    pub(super) fn tell(&mut self, tick: &Tick) {
        for note in &tick.notes {
            tell(note);
        }
        if tick.coverage.lost > self.lost {
            self.lost = tick.coverage.lost;
            tell(&format!("{} frames lost so far: the ring was full", self.lost));
        }
    }
}

/// Says what this node lets dnspath see; [`ExitStatus::Findings`] where it cannot capture.
///
/// # Errors
/// When an option makes no sense, or stdout cannot be written.
pub fn check(options: &CheckOptions) -> anyhow::Result<ExitStatus> {
    let capture_options = capture::Options {
        interfaces: Interfaces::new(&options.interfaces)
            .context("cannot use --interface; give names, or patterns with * ? [...]")?,
        namespaces: namespaces(&options.netns),
        hook: options.hook,
        ..capture::Options::default()
    };
    let checks = capture::check(&capture_options, clock::monotonic_now);
    let text = match options.format {
        ReportFormat::Json => format!("{:#}\n", output::check::to_json(&checks)),
        ReportFormat::Text => output::check::to_text(&checks),
    };
    io::stdout().lock().write_all(text.as_bytes()).context(CANNOT_PRINT)?;
    let can_capture = checks.iter().all(|check| check.verdict != Verdict::Missing);
    Ok(if can_capture { ExitStatus::Clean } else { ExitStatus::Findings })
}

/// Follows who is who beside capture. Without it pods are shown by address.
fn watch_node(namespaces: &[Netns], pods: &Pods, notes: &Notes) -> Option<node::Watch> {
    let watched = |netns: &Netns| match netns {
        Netns::Own => node::Watched { name: node_name(), path: None },
        Netns::Other { shown, path } => node::Watched { name: shown.clone(), path: Some(path.clone()) },
    };
    let for_notes = notes.clone();
    let settings = node::Settings {
        watched: namespaces.iter().map(watched).collect(),
        roots: node::Roots::find(),
        pods: pods.clone(),
        note: Box::new(move |note| for_notes.add(note)),
        now: clock::wall_now,
    };
    node::Watch::start(settings)
        .map_err(|error| notes.add(&format!("cannot follow the pods: {error}: they are shown by address")))
        .ok()
}

/// What a report and a file say they are about.
fn sources(netns: &[String]) -> Vec<String> {
    let source =
        |netns: &Netns| netns.name().map_or_else(|| "this node".into(), |name| format!("netns {name}"));
    namespaces(netns).iter().map(source).collect()
}

/// The namespaces to watch: those named, each once, else the own one.
fn namespaces(named: &[String]) -> Vec<Netns> {
    if named.is_empty() {
        return vec![Netns::Own];
    }
    let mut known = Vec::new();
    let mut all: Vec<Netns> = named.iter().map(|name| Netns::from_argument(name)).collect();
    // One that is watched twice would tell each frame twice.
    all.retain(|netns| {
        let identity = netns.identity();
        let is_new = identity.is_none() || !known.contains(&identity);
        known.push(identity);
        is_new
    });
    all
}

/// Shows the live screen until the user quits, a signal comes or `--duration` is over.
///
/// # Errors
/// When capture cannot start, or the terminal cannot be used.
pub fn tui(mut options: LiveOptions) -> anyhow::Result<ExitStatus> {
    let vantages = Vantages::new();
    let pods = options.selection.pods.clone();
    let pod_of = move |client, time| pods.name_at(client, time).map(|pod| pod.to_string());
    let feed = SharedFeed::new(Feed::new(vantages.clone(), Limits::default()).with_pods(Box::new(pod_of)));
    let live = Live::start_with(&mut options, &vantages, Some(&feed))?;
    let stop = live.stop.clone();
    let save = live.flight.as_ref().map(|(flight, _)| flight.ask());
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
                status.notes.extend(tick.notes.iter().cloned());
                Ok(())
            });
            // The screen has nothing more to show once nobody reads.
            stop_of_reader.request();
            ended
        });
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
    tell(&covered(&exit?.coverage));
    Ok(ExitStatus::Clean)
}

fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
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
