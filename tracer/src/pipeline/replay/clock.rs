//! The clock of a replay: the position in the files against the time that passes at the screen. Pure.

use crate::model::Timestamp;
use std::{fmt, str::FromStr, time::Duration};

/// The steps of the faster and slower keys, in records' seconds per second.
const STEPS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0];
/// A year a second is beyond any use.
const FASTEST: f64 = 1e7;
const SLOWEST: f64 = 1e-3;

/// How fast a replay goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many seconds of the files in one.
    Times(f64),
    /// As fast as the files can be read.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let number = text.strip_suffix(['x', '×']).unwrap_or(text);
        match number.parse::<f64>() {
            Ok(times) if (SLOWEST..=FASTEST).contains(&times) => Ok(Self::Times(times)),
            _ => Err(format!("{text:?} is no speed; write a number from 0.001 to 10000000, or max")),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(times) => write!(f, "{times}×"),
            Self::Max => f.write_str("max"),
        }
    }
}

impl Speed {
    fn faster(self) -> Self {
        match self {
            Self::Max => Self::Max,
            Self::Times(times) => STEPS.into_iter().find(|step| *step > times).map_or(Self::Max, Self::Times),
        }
    }

    fn slower(self) -> Self {
        let times = if let Self::Times(times) = self { times } else { f64::INFINITY };
        STEPS.into_iter().rfind(|step| *step < times).map_or(self, Self::Times)
    }
}

/// Where a replay is and how it moves. `now` is in nanoseconds of any clock that does not jump.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) position: Timestamp,
    pub(super) speed: Speed,
    pub(super) paused: bool,
    /// When the position was right.
    at: u64,
}

impl Clock {
    pub(super) const fn new(speed: Speed) -> Self {
        Self { position: Timestamp::EPOCH, speed, paused: false, at: 0 }
    }

    /// Lets time pass; up to where the files are to be read now.
    pub(super) fn advance(&mut self, now: u64) -> Timestamp {
        let elapsed = Duration::from_nanos(now.saturating_sub(self.at));
        self.at = now;
        match self.speed {
            _ if self.paused => self.position,
            Speed::Max => Timestamp::MAX,
            Speed::Times(times) => {
                let passed = Duration::try_from_secs_f64(elapsed.as_secs_f64() * times);
                self.position = self.position + passed.unwrap_or(Duration::MAX);
                self.position
            }
        }
    }

    /// Puts the position somewhere.
    pub(super) fn set(&mut self, position: Timestamp, now: u64) {
        (self.position, self.at) = (position, now);
    }

    pub(super) fn faster(&mut self) {
        self.speed = self.speed.faster();
    }

    pub(super) fn slower(&mut self) {
        self.speed = self.speed.slower();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_position_moves_by_the_speed_and_stands_while_paused() {
        let mut clock = Clock::new(Speed::Times(2.0));
        clock.set(Timestamp::from_nanos(100 * SECOND), 5 * SECOND);
        assert_eq!(clock.advance(8 * SECOND), Timestamp::from_nanos(106 * SECOND));
        clock.paused = true;
        assert_eq!(clock.advance(20 * SECOND), Timestamp::from_nanos(106 * SECOND));
        clock.paused = false;
        clock.speed = Speed::Times(0.5);
        assert_eq!(clock.advance(22 * SECOND), Timestamp::from_nanos(107 * SECOND));
        clock.speed = Speed::Max;
        assert_eq!(clock.advance(23 * SECOND), Timestamp::MAX);
        assert_eq!(clock.position, Timestamp::from_nanos(107 * SECOND));
    }

    #[test]
    fn speeds_are_read_shown_and_stepped_through() {
        for (text, shown, faster, slower) in [
            ("1", "1×", "2×", "0.5×"),
            ("3x", "3×", "5×", "2×"),
            ("100", "100×", "max", "30×"),
            ("max", "max", "max", "100×"),
            ("0.1", "0.1×", "0.25×", "0.1×"),
        ] {
            let speed: Speed = text.parse().unwrap();
            let read = [speed, speed.faster(), speed.slower()].map(|speed| speed.to_string());
            assert_eq!(read, [shown, faster, slower], "{text}");
        }
        for text in ["", "0", "-1", "nan", "inf", "1e9", "fast"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }
}
