//! How values become words on a screen: escaped, short, always with their unit.

pub(super) use crate::output::text::{count, counted, escape, is_harmless, wait};

use crate::model::Timestamp;
use ratatui::{buffer::Buffer, style::Style, text::Span};
use std::time::Duration;

/// Three significant digits and a unit: `84 µs`, `1.9 ms`, `214 ms`, `5.01 s`, `183 s`.
pub(super) fn span(duration: Duration) -> String {
    let micros = duration.as_micros();
    let (seconds, millis) = (duration.as_secs_f64(), duration.as_secs_f64() * 1e3);
    match micros {
        0..100 => format!("{micros} µs"),
        100..9_950 => format!("{millis:.1} ms"),
        9_950..999_500 => format!("{millis:.0} ms"),
        999_500..99_995_000 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// A place on a ladder's time axis: `0.214 ms`, `5.005 s`.
pub(super) fn offset(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.3} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.3} s", duration.as_secs_f64())
    }
}

/// Three digits and a letter: `12.3k`, `1.74M`.
pub(super) fn rough_count(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["", "k", "M", "G", "T", "P"] {
        if value < 999.5 {
            let decimals = if unit.is_empty() || value >= 99.95 { 0 } else { 1 + usize::from(value < 9.995) };
            return format!("{value:.decimals$}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.0}E")
}

/// The UTC time of day to the millisecond: `12:00:03.412`.
pub(super) fn clock(time: Timestamp) -> String {
    let of_day = time.as_nanos() / 1_000_000 % 86_400_000;
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", of_day / 1_000 % 60, of_day % 1_000)
}

/// The UTC date: `2026-11-20`.
pub(super) fn date(time: Timestamp) -> String {
    let whole = time.to_string();
    whole.split('T').next().unwrap_or_default().to_owned()
}

/// Columns that `text` takes on the screen.
pub(super) fn width(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}

/// Writes `text` into at most `room` columns; what does not fit ends in `…`.
pub(super) fn put(buffer: &mut Buffer, x: u16, y: u16, text: &str, room: u16, style: Style) {
    let area = buffer.area;
    if y >= area.bottom() || x >= area.right() || y < area.top() || x < area.left() || room == 0 {
        return;
    }
    let room = room.min(area.right() - x);
    if width(text) <= room {
        buffer.set_stringn(x, y, text, usize::from(room), style);
    } else {
        let (end, _) = buffer.set_stringn(x, y, text, usize::from(room - 1), style);
        buffer.set_stringn(end, y, "…", 1, style);
    }
}

/// Like [`put`], against the right edge of `room`.
pub(super) fn put_right(buffer: &mut Buffer, x: u16, y: u16, text: &str, room: u16, style: Style) {
    let free = room.saturating_sub(width(text));
    put(buffer, x.saturating_add(free), y, text, room - free, style);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_three_digits_and_say_their_unit() {
        for (nanos, text) in [
            (0, "0 µs"),
            (84_000, "84 µs"),
            (1_944_000, "1.9 ms"),
            (9_960_000, "10 ms"),
            (214_400_000, "214 ms"),
            (999_900_000, "1.00 s"),
            (5_013_000_000, "5.01 s"),
            (183_400_000_000, "183 s"),
        ] {
            assert_eq!(span(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!(counted(1, "lookup"), "1 lookup");
        for (number, text) in [(999, "999"), (12_345, "12.3k"), (999_600, "1.00M"), (u64::MAX, "18E")] {
            assert_eq!(rough_count(number), text);
        }
    }

    #[test]
    fn the_clock_is_utc() {
        assert_eq!(clock(Timestamp::from_nanos(1_500_000_003_412_000_000)), "02:40:03.412");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(escape("eth0 büro-1"), "eth0 büro-1");
        assert_eq!(escape("a\x1b[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
    }

    #[test]
    fn text_that_does_not_fit_says_so() {
        let mut buffer = Buffer::empty(ratatui::layout::Rect::new(0, 0, 6, 1));
        put(&mut buffer, 1, 0, "payments", 4, Style::default());
        assert_eq!(buffer, Buffer::with_lines([" pay… "]));
        put(&mut buffer, 5, 0, "payments", 40, Style::default());
        put(&mut buffer, 9, 3, "outside", 4, Style::default());
        assert_eq!(buffer, Buffer::with_lines([" pay……"]));
    }
}
