//! What the header says: where, how much, how fast, and what was lost.

use crate::{
    model::{Coverage, Timestamp},
    stats::Histogram,
};
use std::time::Duration;

/// Warnings kept: a session may go on for months.
const MOST_NOTES: usize = 64;

/// Facts about the session that only the pipeline knows; it fills them in as they change.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The node's or the file's name; escaped when shown.
    pub title: String,
    /// What is attached, shortest useful form: `14 veths · cni0 · eth0`; escaped when shown.
    pub interfaces: String,
    /// What was seen, lost, truncated, evicted so far.
    pub coverage: Coverage,
    /// A recording to a file, while there is one.
    pub recording: Option<Recording>,
    /// Warnings for the whole session, one sentence each: missing capabilities, blind spots; escaped when shown.
    pub notes: Vec<String>,
    /// The source has ended (a file was read to its end): nothing new will come.
    pub ended: bool,
    /// Where a replay is; `None` live.
    pub playback: Option<Playback>,
    /// The last thing to be said to the user; escaped when shown.
    pub said: Said,
}

/// Where a replay is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Playback {
    /// The replay's clock.
    pub position: Timestamp,
    /// The time of the first frame.
    pub start: Timestamp,
    /// How fast, in words: `10×`, `max`.
    pub speed: String,
    /// Whether it goes on.
    pub motion: Motion,
}

/// Whether a replay goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Motion {
    /// It waits for a followed file to grow.
    Following,
    /// It was stopped by a key.
    Paused,
    /// It goes on.
    #[default]
    Playing,
    /// It is on its way to a time or a finding.
    Seeking,
}

/// Something said on the screen's last line until the next key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Grows with each thing said.
    serial: u64,
    text: String,
}

impl Status {
    /// Adds warnings; of very many the oldest go.
    pub fn warn(&mut self, notes: impl IntoIterator<Item = String>) {
        self.notes.extend(notes);
        self.notes.drain(..self.notes.len().saturating_sub(MOST_NOTES));
    }

    /// Says something on the screen's last line.
    pub fn say(&mut self, text: impl Into<String>) {
        self.said = Said { serial: self.said.serial + 1, text: text.into() };
    }
}

impl Said {
    /// What was said, if it is newer than what was heard last.
    pub(super) fn news(&self, heard: &mut u64) -> Option<&str> {
        let is_new = self.serial > *heard;
        *heard = self.serial;
        is_new.then_some(&self.text)
    }
}

/// A recording in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// How long it has been running.
    pub elapsed: Duration,
}

/// Seconds that the rates are taken over.
const WINDOW: usize = 10;

/// Query rate and latency of the last seconds, counted by the times of the messages.
#[derive(Debug)]
pub(super) struct RateMeter {
    slots: [Slot; WINDOW],
    first: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    second: u64,
    queries: u64,
    latency: Histogram,
}

/// What the meter reads at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) queries_per_second: f64,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
}

impl RateMeter {
    pub(super) fn new() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()), first: None }
    }

    pub(super) fn query(&mut self, time: Timestamp) {
        if let Some(slot) = self.slot(time) {
            slot.queries += 1;
        }
    }

    pub(super) fn response(&mut self, time: Timestamp, latency: Duration) {
        if let Some(slot) = self.slot(time) {
            slot.latency.record(latency);
        }
    }

    /// The slot of a moment; `None` for one that is older than the window.
    fn slot(&mut self, time: Timestamp) -> Option<&mut Slot> {
        let second = second_of(time);
        self.first = Some(self.first.map_or(second, |first| first.min(second)));
        let slot = &mut self.slots[second as usize % WINDOW];
        if second > slot.second {
            slot.second = second;
            slot.queries = 0;
            slot.latency.clear();
        }
        (second == slot.second).then_some(slot)
    }

    /// The rates of the whole seconds before `now`, at most ten.
    pub(super) fn rates(&self, now: Timestamp) -> Rates {
        let this = second_of(now);
        let Some(first) = self.first else { return Rates::default() };
        let from = this.saturating_sub(WINDOW as u64 - 1).max(first);
        let mut latency = Histogram::default();
        let mut queries = 0;
        for slot in self.slots.iter().filter(|s| (from..=this).contains(&s.second)) {
            latency.merge(&slot.latency);
            queries += slot.queries;
        }
        let elapsed = now.since(Timestamp::from_nanos(from.saturating_mul(NANOS))).as_secs_f64().max(1.0);
        Rates {
            queries_per_second: queries as f64 / elapsed,
            p50: latency.quantile(0.5),
            p99: latency.quantile(0.99),
        }
    }
}

const NANOS: u64 = 1_000_000_000;

const fn second_of(time: Timestamp) -> u64 {
    time.as_nanos() / NANOS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::EPOCH + Duration::from_secs_f64(1e9 + seconds)
    }

    #[test]
    fn a_steady_rate_reads_as_it_is_and_falls_when_queries_stop() {
        let mut meter = RateMeter::new();
        assert_eq!(meter.rates(at(0.0)), Rates::default());
        for tenth in 0..300 {
            meter.query(at(f64::from(tenth) / 10.0));
            meter.response(at(f64::from(tenth) / 10.0), Duration::from_millis(3));
        }
        let rates = meter.rates(at(29.999));
        assert!((rates.queries_per_second - 10.0).abs() < 0.1, "{rates:?}");
        assert!(rates.p50.unwrap().abs_diff(Duration::from_millis(3)) < Duration::from_micros(100));
        let later = meter.rates(at(35.0));
        assert!(later.queries_per_second < 6.0, "{later:?}");
        assert_eq!(meter.rates(at(60.0)).p50, None);
    }

    #[test]
    fn times_from_before_the_window_do_not_count() {
        let mut meter = RateMeter::new();
        meter.query(at(50.0));
        meter.query(at(30.0));
        assert!((meter.rates(at(50.5)).queries_per_second * 9.5 - 1.0).abs() < 0.5);
    }
}
