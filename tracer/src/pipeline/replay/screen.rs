//! The replay behind the screen: obeys what keys ask, reads on, tells where it is.

use super::{
    CHUNK, NAP,
    clock::{Clock, Speed},
    found::{Found, Watch},
    open,
    player::{Player, Stopped},
};
use crate::{
    cli::options::{ExitStatus, ReplayOptions},
    model::{Direction, Timestamp, Vantages},
    pipeline::{
        clock::{monotonic_now, wall_now},
        offline::{selection, told},
        selection::{Selected, Selection},
        signals::{self, Stop},
        when::{Ago, When},
    },
    tui::{self, Feed, Limits, Motion, Playback, Request, SharedFeed},
};
use anyhow::{Context as _, anyhow};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Names of files and interfaces in the header.
const NAMED: usize = 3;
/// So long nothing came from a source that goes on before its end is taken for reached, on the way to somewhere.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows files on the screen until the user quits or a signal comes.
///
/// # Errors
/// When a file cannot be read (what is before a damage is shown), or the terminal cannot be used.
pub fn tui(options: ReplayOptions) -> anyhow::Result<ExitStatus> {
    let selection = selection(&options.files)?;
    let vantages = Vantages::new();
    let stop = signals::watch().context("cannot watch for signals")?;
    let player = open(&options, &vantages, &stop)?;
    let feed = SharedFeed::new(feed_of(&player, &vantages));
    feed.lock().status_mut().title = title(&options);
    let (ask, asked) = channel();
    let failed = thread::scope(|scope| {
        let mut replay = Replay::new(&options, &selection, player, vantages, feed.clone(), stop.clone());
        let replay = thread::Builder::new().name("dnspath-replay".into()).spawn_scoped(scope, move || {
            replay.run(&asked);
            // The screen has nothing more to show once nobody reads.
            replay.stop.request();
            replay.player.take_failure()
        });
        let shown = tui::run(&feed, stop.flag(), wall_now, |request| {
            // Who does not listen any more has ended, and the screen with it.
            let _ = ask.send(request);
        });
        stop.request();
        shown.context("cannot use the terminal: `dnspath replay FILE | cat` prints lines instead")?;
        replay.context("cannot start the replay")?.join().map_err(|_| anyhow!("the replay failed"))
    })?;
    failed.map_or(Ok(ExitStatus::Clean), |error| Err(told(error)))
}

/// Where the replay is on its way to, without regard to its speed.
enum Goal {
    /// To the next finding behind this time.
    Finding(Timestamp),
    Time(Timestamp),
}

struct Replay<'a> {
    options: &'a ReplayOptions,
    selection: &'a Selection,
    vantages: Vantages,
    player: Player,
    clock: Clock,
    started: bool,
    /// The time of the first frame.
    first: Timestamp,
    goal: Option<Goal>,
    watch: Watch,
    found: Found,
    feed: SharedFeed,
    /// What is fed in place of the screen's feed while the way back is gone from the start.
    aside: Option<Feed>,
    waiting: bool,
    /// Up to when everything is known that happened.
    reached: Timestamp,
    stop: Stop,
}

impl<'a> Replay<'a> {
    fn new(
        options: &'a ReplayOptions,
        selection: &'a Selection,
        player: Player,
        vantages: Vantages,
        feed: SharedFeed,
        stop: Stop,
    ) -> Self {
        Self {
            options,
            selection,
            watch: Watch::from(Timestamp::EPOCH, &vantages),
            vantages,
            player,
            clock: Clock::new(options.speed),
            started: false,
            first: Timestamp::EPOCH,
            goal: None,
            found: Found::default(),
            feed,
            aside: None,
            waiting: false,
            reached: Timestamp::EPOCH,
            stop,
        }
    }

    fn run(&mut self, asked: &Receiver<Request>) {
        let mut nap = Duration::ZERO;
        while !self.stop.requested() {
            match asked.recv_timeout(nap) {
                Ok(request) => self.obey(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let idle = self.step(monotonic_now());
            nap = if idle { NAP } else { Duration::ZERO };
            self.tell();
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Faster => self.clock.faster(),
            Request::Slower => self.clock.slower(),
            Request::Pause => self.clock.paused = !self.clock.paused,
            Request::Skip(seconds) => {
                let by = Duration::from_secs(u64::from(seconds.unsigned_abs()));
                let from = self.destination();
                self.go_to(if seconds < 0 { from - by } else { from + by });
            }
            Request::GoTo(typed) => match self.time_of(&typed) {
                Some(time) => {
                    self.go_to(time);
                }
                None => self
                    .say(format!("{typed:?} is no time; write 12:03:10, 2026-11-20T12:03:10Z, +30s or -5m")),
            },
            Request::NextFinding => self.next_finding(),
            Request::PreviousFinding => match self.found.previous(self.clock.position) {
                Some(item) => {
                    let (known, text) = (item.known, item.text.clone());
                    if known == self.clock.position || self.go_to(known) {
                        self.clock.paused = true;
                        self.say(text);
                    }
                }
                None => self.say("no finding was met before this time".to_owned()),
            },
            Request::Save => self.say("a replay has its packets in its files".to_owned()),
        }
    }

    /// Where the replay is, or will be next.
    fn destination(&self) -> Timestamp {
        if let Some(Goal::Time(time)) = self.goal { time } else { self.clock.position }
    }

    /// `12:03:10` on the day of the position, a whole date and time, `+30s`, `-5m`.
    fn time_of(&self, typed: &str) -> Option<Timestamp> {
        let typed = typed.trim();
        let length = |text: &str| text.trim_start().parse::<Ago>().ok().map(|Ago(length)| length);
        if let Some(on) = typed.strip_prefix('+') {
            return Some(self.clock.position + length(on)?);
        }
        if let Some(back) = typed.strip_prefix('-') {
            return Some(self.clock.position - length(back)?);
        }
        match typed.parse().ok()? {
            When::Ago(_) => None,
            when => Some(when.resolve(self.clock.position)),
        }
    }

    fn next_finding(&mut self) {
        match self.found.next(self.clock.position) {
            Some(item) => {
                let (known, text) = (item.known, item.text.clone());
                self.go_to(known);
                self.say(text);
            }
            None if self.player.ended() => self.say("no further finding up to the end".to_owned()),
            None => self.goal = Some(Goal::Finding(self.clock.position)),
        }
        self.clock.paused = true;
    }

    /// Starts on the way to a time; `false` where it cannot be gone to.
    fn go_to(&mut self, time: Timestamp) -> bool {
        if !self.started {
            return false;
        }
        let time = time.max(self.first);
        let back = time < self.clock.position || self.aside.is_some();
        if back && self.options.reads_stdin() {
            self.say("cannot go back: standard input is read once; save it to a file to go back".to_owned());
            return false;
        }
        if back {
            let player = match Player::open(&self.options.files, &self.vantages, self.options.is_growing()) {
                Ok(player) => player,
                Err(error) => {
                    self.say(format!("cannot go back: {error}"));
                    return false;
                }
            };
            self.player = player;
            self.watch = Watch::from(self.first, &self.vantages);
            self.aside = Some(self.new_feed());
        } else if self.player.ended() {
            self.say("this is the end".to_owned());
            return false;
        }
        self.goal = Some(Goal::Time(time));
        // At full speed one would be at the end again before one has seen anything.
        self.clock.paused |= self.clock.speed == Speed::Max;
        true
    }

    fn new_feed(&self) -> Feed {
        feed_of(&self.player, &self.vantages).in_place_of(&self.feed.lock())
    }

    /// Reads a little; whether there is nothing to do for now.
    fn step(&mut self, now: u64) -> bool {
        if !self.started && !self.start(now) {
            return true;
        }
        match self.goal {
            Some(Goal::Time(time)) => self.approach(time, now),
            Some(Goal::Finding(from)) => self.seek_finding(from, now),
            None => self.play(now),
        }
    }

    /// The clock starts with the first frame, or with the window that was asked for.
    fn start(&mut self, now: u64) -> bool {
        let first = match self.player.next_time(now) {
            Ok(Some(first)) => first,
            Ok(None) if self.options.is_growing() => return false,
            Ok(None) | Err(_) => Timestamp::EPOCH,
        };
        self.clock.set(first, now);
        (self.started, self.first) = (true, first);
        self.watch = Watch::from(first, &self.vantages);
        if let Some(since) = self.selection.window.since.filter(|since| *since > first) {
            self.goal = Some(Goal::Time(since));
        }
        true
    }

    fn play(&mut self, now: u64) -> bool {
        let until = self.clock.advance(now);
        if self.clock.paused || self.player.ended() {
            self.stay_at_end(now);
            return true;
        }
        let stopped = self.read(until, now);
        if self.clock.speed == Speed::Max {
            self.clock.set(self.reached.max(self.clock.position), now);
        }
        match stopped {
            Stopped::Busy => false,
            Stopped::There | Stopped::Waiting => true,
            Stopped::Ended => {
                self.stay_at_end(now);
                false
            }
        }
    }

    /// The position does not run on behind the last frame.
    fn stay_at_end(&mut self, now: u64) {
        if self.player.ended()
            && let Some((_, newest)) = self.player.span()
        {
            self.clock.set(newest, now);
        }
    }

    fn approach(&mut self, time: Timestamp, now: u64) -> bool {
        match self.read(time, now) {
            Stopped::Busy => return false,
            Stopped::Waiting if self.player.idle(now) < PATIENCE => return true,
            Stopped::There => self.arrive(time, now),
            Stopped::Waiting | Stopped::Ended => {
                let newest = self.player.span().map_or(time, |span| span.1);
                if newest < time {
                    self.say(format!("{} is behind the end", brief(time)));
                }
                self.arrive(newest.min(time), now);
            }
        }
        true
    }

    fn seek_finding(&mut self, from: Timestamp, now: u64) -> bool {
        let stopped = self.read(Timestamp::MAX, now);
        if let Some(item) = self.found.next(from) {
            let (known, text) = (item.known, item.text.clone());
            self.say(text);
            self.arrive(known, now);
            return true;
        }
        let newest = self.player.span().map_or(from, |span| span.1);
        self.clock.set(newest.max(from), now);
        match stopped {
            Stopped::Busy | Stopped::There => return false,
            Stopped::Waiting if self.player.idle(now) < PATIENCE => {}
            Stopped::Waiting | Stopped::Ended => {
                self.say("no further finding up to the end".to_owned());
                self.goal = None;
            }
        }
        true
    }

    fn arrive(&mut self, position: Timestamp, now: u64) {
        self.goal = None;
        self.clock.set(position, now);
        if let Some(fed) = self.aside.take() {
            let mut feed = self.feed.lock();
            let feed_of_here = fed.in_place_of(&feed);
            *feed = feed_of_here;
        }
    }

    /// Reads up to `until`, at most a chunk, and stops where the rules are to be asked.
    fn read(&mut self, until: Timestamp, now: u64) -> Stopped {
        let Self { player, watch, selection, .. } = self;
        let bound = until.min(watch.due());
        let mut shared;
        let feed: &mut Feed = match &mut self.aside {
            Some(aside) => aside,
            None => {
                shared = self.feed.lock();
                &mut shared
            }
        };
        let stopped = player.read(bound, CHUNK, now, &mut Selected::new(selection, (feed, &mut *watch)));
        self.waiting = stopped == Stopped::Waiting;
        let (first, newest) = player.span().unwrap_or((bound, bound));
        let position = player.reached(stopped, bound, now);
        self.reached = position;
        if stopped == Stopped::Busy || stopped != Stopped::Ended && position < watch.due() {
            return stopped;
        }
        // Several files: what is lost between two nodes.
        if self.options.files.files.len() > 1 {
            watch.set_sources(player.files());
        }
        watch.ask(position, &player.coverage(), (first, newest), &mut self.found);
        if stopped == Stopped::There && bound < until { Stopped::Busy } else { stopped }
    }

    fn say(&self, text: String) {
        self.feed.lock().status_mut().say(text);
    }

    /// What the header shows.
    fn tell(&mut self) {
        let motion = match self.goal {
            Some(_) => Motion::Seeking,
            None if self.clock.paused => Motion::Paused,
            None if self.waiting && self.options.is_growing() => Motion::Following,
            None => Motion::Playing,
        };
        let playback = Playback {
            position: self.clock.position,
            start: self.first,
            speed: self.clock.speed.to_string(),
            motion,
        };
        let interfaces = interfaces(&self.vantages);
        let mut feed = self.feed.lock();
        let status = feed.status_mut();
        status.playback = Some(playback);
        status.interfaces = interfaces;
        // On the way back the counts are of another place than the lines on the screen.
        if self.aside.is_none() {
            status.coverage = self.player.coverage();
            status.ended = self.player.ended();
            status.notes = self.notes();
            if self.options.files.files.len() > 1 {
                feed.set_sources(self.player.files());
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let failed = self.player.failure().map(ToString::to_string);
        let cut = self.player.cut().then(|| {
            "A file ends inside a record: it was cut, or is still being written (--follow).".to_owned()
        });
        failed.into_iter().chain(cut).collect()
    }
}

/// An empty feed that names clients as the files do.
fn feed_of(player: &Player, vantages: &Vantages) -> Feed {
    Feed::new(vantages.clone(), Limits::default()).with_pods(player.names().clone())
}

fn brief(time: Timestamp) -> String {
    let time = time.to_string();
    time.get(..19).unwrap_or(&time).replace('T', " ")
}

/// `web.pcapng`, or `web.pcapng, dns.pcapng +2`.
fn title(options: &ReplayOptions) -> String {
    let names = options.files.files.iter().map(|file| match file.file_name() {
        Some(name) if name != "-" => name.to_string_lossy().into_owned(),
        Some(_) => "standard input".into(),
        None => file.display().to_string(),
    });
    short_list(names.collect(), ", ")
}

fn interfaces(vantages: &Vantages) -> String {
    let mut names: Vec<String> = Vec::new();
    for vantage in vantages.all() {
        if vantage.direction != Direction::Egress && !names.contains(&vantage.interface) {
            names.push(vantage.interface.clone());
        }
    }
    short_list(names, " · ")
}

fn short_list(names: Vec<String>, between: &str) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut text = names.into_iter().take(NAMED).collect::<Vec<_>>().join(between);
    if more > 0 {
        text.push_str(&format!(" +{more}"));
    }
    text
}
