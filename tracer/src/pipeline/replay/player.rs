//! Capture files read up to a point in time: decoder and engine as live, the clock an argument.

use crate::{
    cli::options::FileOptions,
    engine::{Config, SearchList},
    findings::Source,
    model::{Coverage, Observer, Pods, Timestamp, Vantages},
    output::ClockView,
    pipeline::{clocks::Clock, loss::LossWatch, offline, session::Session},
    trace::{MergedReader, TraceError},
};
use std::time::Duration;

/// The engine's time stays this far behind the replay's: frames of one file may be out of order by as much.
const SLACK: Duration = Duration::from_millis(100);
/// Who writes a file that is followed writes at least that often: only then it is known what came to pass.
const LAG: Duration = Duration::from_secs(2);

/// Where reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The number of frames asked for was read; there may be more.
    Busy,
    /// There is no further frame; the session has ended.
    Ended,
    /// Every frame up to the time asked for was read.
    There,
    /// The next frame is not there yet.
    Waiting,
}

/// Files with their session, read from the start on.
pub(super) struct Player {
    vantages: Vantages,
    /// What the files say whose the addresses are, as far as they were read.
    names: Pods,
    /// The same for who selects by pod and prints; it outlives this player.
    names_selected: Pods,
    reader: MergedReader,
    clocks: Vec<Clock>,
    session: Session,
    loss: LossWatch,
    ended: bool,
    failed: Option<TraceError>,
    /// The times of the earliest and the latest frame read.
    span: Option<(Timestamp, Timestamp)>,
    window: Option<(Timestamp, Timestamp)>,
    /// The latest frame looked at, and when (`now`) that was first.
    seen: (Timestamp, u64),
}

impl Player {
    /// Opens the files. Where `growing` is set, reading never waits for more.
    ///
    /// # Errors
    /// When one of them cannot be opened or is no capture file; [`TraceError::Empty`] also for a growing file that has
    /// no header yet.
    pub(super) fn open(files: &FileOptions, vantages: &Vantages, growing: bool) -> Result<Self, TraceError> {
        // What grows keeps its times: it cannot be read twice.
        let (reader, clocks) = match growing {
            true => (MergedReader::follow(&files.files)?, Vec::new()),
            false => offline::open(files)?,
        };
        let resolv_conf = files.resolv_conf.as_deref().map(SearchList::from_resolv_conf);
        let config = Config { resolv_conf, connects: files.connects, ..Config::default() };
        Ok(Self {
            vantages: vantages.clone(),
            reader,
            clocks,
            names: Pods::new(),
            names_selected: files.selection.pods.clone(),
            session: Session::new(&files.ports, config, vantages.clone()),
            loss: LossWatch::default(),
            ended: false,
            failed: None,
            span: None,
            window: None,
            seen: (Timestamp::EPOCH, 0),
        })
    }

    /// Reads the frames up to `until`, and at most so many.
    pub(super) fn read(
        &mut self,
        until: Timestamp,
        most: usize,
        now: u64,
        out: &mut impl Observer,
    ) -> Stopped {
        if self.ended {
            return Stopped::Ended;
        }
        for _ in 0..most {
            match self.next(until, now, out) {
                Ok(None) => {}
                Ok(Some(Stopped::Ended)) => {
                    self.finish(out);
                    return Stopped::Ended;
                }
                Ok(Some(stopped)) => {
                    self.pass(until, now, out);
                    return stopped;
                }
                Err(error) => {
                    self.failed = Some(error);
                    self.finish(out);
                    return Stopped::Ended;
                }
            }
        }
        Stopped::Busy
    }

    /// Reads one frame, or says why not.
    fn next(
        &mut self,
        until: Timestamp,
        now: u64,
        out: &mut impl Observer,
    ) -> Result<Option<Stopped>, TraceError> {
        let time = self.next_time(now)?;
        let waiting = self.reader.waiting();
        let Some(time) = time else {
            self.heed(out);
            return Ok(Some(if waiting { Stopped::Waiting } else { Stopped::Ended }));
        };
        if time > until {
            return Ok(Some(Stopped::There));
        }
        // What another file still has to give may be earlier.
        if waiting && time + LAG > self.arrived(now) {
            return Ok(Some(Stopped::Waiting));
        }
        self.heed(out);
        if let Some(frame) = self.reader.next_frame(&self.vantages)? {
            let (first, last) = self.span.unwrap_or((frame.time, frame.time));
            self.span = Some((first.min(frame.time), last.max(frame.time)));
            let time = frame.time;
            self.session.frame(&frame, out);
            self.loss.frame(&self.reader, time, out);
        }
        Ok(None)
    }

    /// Takes what the files tell of the node before the next frame.
    fn heed(&mut self, out: &mut impl Observer) {
        for told in self.reader.take_told() {
            offline::heed(&told, &mut self.session, &self.names, out);
            self.names_selected.heed(&told.news);
        }
    }

    /// The time of the next frame, where it is there.
    ///
    /// # Errors
    /// When the files cannot be read on.
    pub(super) fn next_time(&mut self, now: u64) -> Result<Option<Timestamp>, TraceError> {
        let time = self.reader.next_time(&self.vantages)?;
        if let Some(time) = time
            && time > self.seen.0
        {
            self.seen = (time, now);
        }
        Ok(time)
    }

    /// The time at the place of capture, judged by the latest frame.
    fn arrived(&self, now: u64) -> Timestamp {
        self.seen.0.plus_nanos(now.saturating_sub(self.seen.1))
    }

    /// Up to when everything is known that happened, when reading stopped and `until` was asked for.
    pub(super) fn reached(&self, stopped: Stopped, until: Timestamp, now: u64) -> Timestamp {
        let newest = self.span.map_or(self.seen.0, |(_, newest)| newest);
        match stopped {
            Stopped::There => until,
            Stopped::Busy | Stopped::Ended => newest,
            Stopped::Waiting => until.min(self.arrived(now) - LAG).max(newest),
        }
    }

    /// Lets the engine's time pass as far as it is known that no frame is missing.
    fn pass(&mut self, until: Timestamp, now: u64, out: &mut impl Observer) {
        let Some((_, newest)) = self.span else { return };
        let mut until = until - SLACK;
        if self.reader.waiting() {
            until = until.min(self.arrived(now) - LAG);
        }
        if until > newest {
            self.session.advance(until, out);
        }
    }

    /// Ends the session: what is still open is told.
    pub(super) fn finish(&mut self, out: &mut impl Observer) {
        if !std::mem::replace(&mut self.ended, true) {
            self.window = offline::finish(&self.reader, &mut self.session, self.span, out);
            self.loss.files(&self.reader, self.window.unwrap_or_default().1, out);
        }
    }

    /// The times between which was captured, once the session has ended.
    pub(super) const fn window(&self) -> Option<(Timestamp, Timestamp)> {
        self.window
    }

    /// What was captured, where the files say it; else their names.
    pub(super) fn sources(&self) -> Vec<String> {
        self.reader.sources()
    }

    pub(super) const fn ended(&self) -> bool {
        self.ended
    }

    pub(super) const fn names(&self) -> &Pods {
        &self.names
    }

    /// How long nothing new has come.
    pub(super) fn idle(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.seen.1))
    }

    pub(super) const fn failure(&self) -> Option<&TraceError> {
        self.failed.as_ref()
    }

    /// Why the files could not be read to their end.
    pub(super) fn take_failure(&mut self) -> Option<TraceError> {
        self.failed.take()
    }

    /// The times of the earliest and the latest frame read.
    pub(super) const fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.span
    }

    /// How the files' clocks differ.
    pub(super) fn clocks(&self) -> Vec<ClockView> {
        offline::clock_views(&self.clocks, &self.reader)
    }

    /// The files that are read together.
    pub(super) fn files(&self) -> Vec<Source> {
        offline::sources(&self.reader, &self.clocks)
    }

    /// Whether a file ends inside a record.
    pub(super) fn cut(&self) -> bool {
        self.reader.cut()
    }

    pub(super) fn coverage(&self) -> Coverage {
        offline::coverage(&self.reader, &self.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Frame, LinkType, PodName, Vantage},
        pipeline::selection::{Selection, Times},
        trace::{Origin, Writer},
    };

    struct Nobody;
    impl Observer for Nobody {}

    #[test]
    fn names_are_known_as_far_as_was_read() {
        let vantages = Vantages::new();
        let vantage = vantages.intern(Vantage { interface: "veth1".into(), ..Vantage::default() });
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("named.pcapng");
        let mut writer = Writer::new(std::fs::File::create(&file).unwrap(), &Origin::default()).unwrap();
        let mut frame = Frame {
            number: 0,
            time: Timestamp::from_nanos(1_000),
            vantage,
            link: LinkType::Ethernet,
            original_len: 3,
            bytes: b"abc",
            segment_size: 0,
            nat: None,
            drop: None,
        };
        let (pods, address) = (Pods::new(), "10.244.1.23".parse().unwrap());
        writer.frame(&frame, &vantages).unwrap();
        pods.tell(address, PodName { namespace: "shop".into(), name: "web".into() }, Timestamp::EPOCH);
        writer.news(None, &pods.news(&mut 0)).unwrap();
        frame.time = Timestamp::from_nanos(9_000);
        writer.frame(&frame, &vantages).unwrap();
        writer.finish().unwrap();
        let files = FileOptions {
            connects: true,
            files: vec![file],
            ports: vec![53],
            selection: Selection::default(),
            times: Times::default(),
            resolv_conf: None,
        };
        let mut player = Player::open(&files, &Vantages::new(), false).unwrap();
        assert_eq!(player.next_time(0).unwrap(), Some(Timestamp::from_nanos(1_000)));
        assert_eq!(player.names().name(address), None);
        assert_eq!(player.read(Timestamp::MAX, 10, 0, &mut Nobody), Stopped::Ended);
        assert_eq!(player.names().name(address).unwrap().to_string(), "shop/web");
        assert_eq!(player.span().unwrap().1, Timestamp::from_nanos(9_000));
    }
}
