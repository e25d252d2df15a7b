//! Points in time as people write them.

use crate::model::Timestamp;
use std::{str::FromStr, time::Duration};

const NANOS_PER_DAY: u64 = 86_400_000_000_000;

/// A length of time: `90s`, `10m`, `1h30m`, `250ms`, `2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ago(pub Duration);

impl FromStr for Ago {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no length of time; write it like 90s, 10m, 1h30m or 2d");
        let mut nanos: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let behind = &rest[digits..];
            let unit = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
            let scale: u64 = match &behind[..unit] {
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "d" => NANOS_PER_DAY,
                _ => return Err(wrong()),
            };
            nanos = number.checked_mul(scale).and_then(|n| nanos.checked_add(n)).ok_or_else(wrong)?;
            rest = &behind[unit..];
        }
        if nanos == 0 { Err(wrong()) } else { Ok(Self(Duration::from_nanos(nanos))) }
    }
}

/// A point in time, absolute or counted from a reference that is known later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long before the reference.
    Ago(Duration),
    /// This very time.
    At(Timestamp),
    /// This time (since midnight UTC) on the reference's day.
    TimeOfDay(Duration),
}

impl When {
    /// The point in time, with `reference` for now: the clock when live, the last frame's time with files.
    #[must_use]
    pub fn resolve(self, reference: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ago) => reference - ago,
            Self::At(time) => time,
            Self::TimeOfDay(time) => reference.minus_nanos(reference.as_nanos() % NANOS_PER_DAY) + time,
        }
    }

    /// Whether [`Self::resolve`] needs a reference.
    #[must_use]
    pub fn is_relative(self) -> bool {
        !matches!(self, Self::At(_))
    }
}

impl From<Ago> for When {
    fn from(ago: Ago) -> Self {
        Self::Ago(ago.0)
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = text.parse::<Ago>() {
            return Ok(ago.into());
        }
        if let Ok(time) = text.parse::<jiff::civil::Time>()
            && text.contains(':')
            && !text.contains('-')
            && let Ok(nanos) = u64::try_from(time.duration_since(jiff::civil::Time::midnight()).as_nanos())
        {
            return Ok(Self::TimeOfDay(Duration::from_nanos(nanos)));
        }
        let absolute = text.parse::<jiff::Timestamp>().or_else(|_| {
            text.parse::<jiff::civil::DateTime>()?
                .to_zoned(jiff::tz::TimeZone::UTC)
                .map(|zoned| zoned.timestamp())
        });
        absolute
            .ok()
            .and_then(|time| u64::try_from(time.as_nanosecond()).ok())
            .map(|nanos| Self::At(Timestamp::from_nanos(nanos)))
            .ok_or_else(|| {
                format!(
                    "{text:?} is no time; write RFC 3339 (2026-11-20T12:00:00Z), HH:MM, or a time ago (10m)"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        let cases = [
            ("90s", 90_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("2d", 172_800_000),
            ("1m500ms", 60_500),
        ];
        for (text, millis) in cases {
            assert_eq!(text.parse(), Ok(Ago(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "10", "m", "0s", "-5s", "5 m", "1.5h", "10y", "99999999999999d", "5sm"] {
            assert!(text.parse::<Ago>().is_err(), "{text}");
        }
    }

    #[test]
    fn points_in_time_against_a_reference() {
        let reference = "2026-11-20T12:30:00Z";
        let now: Timestamp = match reference.parse() {
            Ok(When::At(time)) => time,
            other => panic!("{other:?}"),
        };
        let cases = [
            ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00.000000000Z"),
            ("2026-11-20T12:00:00.5+02:00", "2026-11-20T10:00:00.500000000Z"),
            ("2026-11-20 12:00", "2026-11-20T12:00:00.000000000Z"),
            ("2026-11-20", "2026-11-20T00:00:00.000000000Z"),
            ("10m", "2026-11-20T12:20:00.000000000Z"),
            ("90s", "2026-11-20T12:28:30.000000000Z"),
            ("09:15", "2026-11-20T09:15:00.000000000Z"),
            ("23:59:58", "2026-11-20T23:59:58.000000000Z"),
        ];
        for (text, expected) in cases {
            let when: When = text.parse().unwrap();
            assert_eq!(when.resolve(now).to_string(), expected, "{text}");
        }
        for text in ["yesterday", "25:00", "12", "1969-01-01T00:00:00Z", "2026-13-01", ""] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }
}
