//! The one file that reads clocks: everything else is given its time.

use crate::model::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Pairs of reads to choose the anchor from: one of a few is not interrupted.
const TRIES: usize = 16;

/// The wall clock (`CLOCK_REALTIME`).
#[must_use]
pub fn wall_now() -> Timestamp {
    Timestamp::from_nanos(nanos(clock_gettime(ClockId::Realtime)))
}

/// The clock of `bpf_ktime_get_ns` (`CLOCK_MONOTONIC`), in nanoseconds.
#[must_use]
pub fn monotonic_now() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// What the wall clock showed at one reading of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    monotonic: u64,
    wall: Timestamp,
    /// The anchor is right within this many nanoseconds.
    pub uncertainty: u64,
}

impl Anchor {
    /// Reads both clocks: of several tries the one whose two monotonic reads lie closest around the wall read.
    #[must_use]
    pub fn now() -> Self {
        let read = || {
            let before = monotonic_now();
            let wall = wall_now();
            let width = monotonic_now().saturating_sub(before);
            Self { monotonic: before + width / 2, wall, uncertainty: width.div_ceil(2) }
        };
        let mut best = read();
        for _ in 1..TRIES {
            let next = read();
            if next.uncertainty < best.uncertainty {
                best = next;
            }
        }
        best
    }

    /// As a recording says it, for who wants to compare it with other clocks of the node.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("clock {} at monotonic {} ns within {} ns", self.wall, self.monotonic, self.uncertainty)
    }

    /// What is added, wrapping, to a monotonic time to give the wall time: for the path of each frame.
    #[must_use]
    pub const fn wall_minus_monotonic(&self) -> u64 {
        self.wall.as_nanos().wrapping_sub(self.monotonic)
    }

    /// The wall time of a monotonic time, before or after the anchor.
    #[must_use]
    pub const fn to_wall(&self, monotonic_ns: u64) -> Timestamp {
        if monotonic_ns >= self.monotonic {
            self.wall.plus_nanos(monotonic_ns - self.monotonic)
        } else {
            self.wall.minus_nanos(self.monotonic - monotonic_ns)
        }
    }
}

/// Times before 1970 are 0.
fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monotonic_time_becomes_a_wall_time_on_both_sides_of_the_anchor() {
        let anchor = Anchor { monotonic: 100, wall: Timestamp::from_nanos(5_000), uncertainty: 0 };
        assert_eq!(anchor.to_wall(130), Timestamp::from_nanos(5_030));
        assert_eq!(anchor.to_wall(40), Timestamp::from_nanos(4_940));
    }

    #[test]
    fn the_anchor_agrees_with_the_wall_clock() {
        let anchor = Anchor::now();
        let (monotonic, wall) = (monotonic_now(), wall_now());
        let shown = anchor.to_wall(monotonic);
        let apart = wall.since(shown).max(shown.since(wall));
        assert!(apart.as_millis() < 500, "{apart:?} apart");
    }
}
