//! Times, lengths of time and foreign words as people read them.

use crate::model::Timestamp;
use std::{borrow::Cow, fmt, time::Duration};

/// A length of time in at most eight characters, three digits of it meaningful: `0.21 ms`, `12.3 ms`, `5.01 s`.
#[must_use]
pub fn human(duration: Duration) -> Human {
    Human(duration)
}

/// See [`human`].
#[derive(Clone, Copy, Debug)]
pub struct Human(Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let (value, unit) = if seconds < 0.9995 { (seconds * 1e3, "ms") } else { (seconds, "s") };
        let digits = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        if let Some(width) = f.width() {
            let width = width.saturating_sub(unit.len() + 1);
            write!(f, "{value:width$.digits$} {unit}")
        } else {
            write!(f, "{value:.digits$} {unit}")
        }
    }
}

/// The time of day in UTC with milliseconds: `12:00:03.412`.
#[derive(Clone, Copy, Debug)]
pub struct TimeOfDay(pub Timestamp);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_nanos() / 1_000_000;
        let seconds = millis / 1_000 % 86_400;
        write!(f, "{:02}:{:02}:{:02}.{:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60, millis % 1_000)
    }
}

/// Date and time in UTC with milliseconds: `2026-11-20 12:00:03.412`.
#[derive(Clone, Copy, Debug)]
pub struct DateTime(pub Timestamp);

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = self.0.to_string();
        match day.split_once('T') {
            Some((day, _)) => write!(f, "{day} {}", TimeOfDay(self.0)),
            None => f.write_str(&day),
        }
    }
}

/// A count with its thousands apart: `1,250,000`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `text` without anything a terminal would obey or that would turn the writing direction: letters, digits and
/// printable ASCII stay, all else becomes `\u{…}`.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmless(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_unicode());
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character is shown as it is.
pub(crate) fn is_harmless(c: char) -> bool {
    matches!(c, ' '..='~' | '–' | '·') || (!c.is_ascii() && c.is_alphanumeric())
}

/// A wait, as people say it: `5.0 s`, `0.8 s`, `45 s`.
pub(crate) fn wait(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 9.95 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// `1 lookup`, `2,400 lookups`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_keep_three_digits() {
        let cases = [
            (0, "0.00 ms"),
            (210_000, "0.21 ms"),
            (9_996_000, "10.0 ms"),
            (12_340_000, "12.3 ms"),
            (123_400_000, "123 ms"),
            (999_700_000, "1.00 s"),
            (5_003_000_000, "5.00 s"),
            (75_000_000_000, "75.0 s"),
            (7_200_000_000_000, "7200 s"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(human(Duration::from_nanos(nanos)).to_string(), expected);
        }
        assert_eq!(format!("{:9}", human(Duration::from_millis(5))), "  5.00 ms");
    }

    #[test]
    fn thousands_are_apart() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_250_000, "1,250,000")] {
            assert_eq!(count(number), expected);
        }
    }

    #[test]
    fn times_are_utc() {
        let time = Timestamp::from_nanos(1_500_000_000_412_999_999);
        assert_eq!(TimeOfDay(time).to_string(), "02:40:00.412");
        assert_eq!(DateTime(time).to_string(), "2017-07-14 02:40:00.412");
    }
}
