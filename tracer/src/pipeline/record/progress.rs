//! What a long recording says of itself on stderr.

use crate::{model::Timestamp, output::text::count};
use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

/// How often a terminal's line is written anew.
const ON_TERMINAL: Duration = Duration::from_secs(1);
/// How often a line is added where stderr is a file or a pipe.
const IN_LOG: Duration = Duration::from_secs(10);

/// A line that is written anew on a terminal, or a line now and then elsewhere.
pub(super) struct Progress {
    on_terminal: bool,
    started: Timestamp,
    next: Timestamp,
    /// The cursor is behind an unfinished line.
    is_shown: bool,
}

impl Progress {
    pub(super) fn new(started: Timestamp) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let on_terminal = io::stderr().is_terminal() && !is_dumb;
        let every = if on_terminal { ON_TERMINAL } else { IN_LOG };
        Self { on_terminal, started, next: started + every, is_shown: false }
    }

    /// Shows how far it is, if that is due at `now`.
    pub(super) fn show(&mut self, now: Timestamp, packets: u64, size: u64, lost: impl FnOnce() -> u64) {
        if now < self.next {
            return;
        }
        self.next = now + if self.on_terminal { ON_TERMINAL } else { IN_LOG };
        let line = line(now.since(self.started), packets, size, lost());
        // Nobody is left to tell when stderr is closed.
        let _ = if self.on_terminal {
            self.is_shown = true;
            write!(io::stderr(), "\r\x1b[Kdnspath: {line}")
        } else {
            writeln!(io::stderr(), "dnspath: {line}")
        };
    }

    /// Takes the line away, for another one.
    pub(super) fn interrupt(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// `recording 02:13, 1,234,567 packets, 120.3 MB, 0 lost`.
fn line(time: Duration, packets: u64, size: u64, lost: u64) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let hours = if hours > 0 { format!("{hours}:") } else { String::new() };
    let (packets, lost) = (count(packets), count(lost));
    format!("recording {hours}{minutes:02}:{seconds:02}, {packets} packets, {}, {lost} lost", octets(size))
}

/// `120.3 MB`, in powers of ten as `ls --si` has them.
pub(super) fn octets(size: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(scale, _)| size >= *scale) {
        Some((scale, unit)) => format!("{}.{} {unit}", size / scale, size % scale / (scale / 10)),
        None => format!("{size} octets"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(
            line(Duration::from_secs(133), 1_234_567, 120_345_678, 0),
            "recording 02:13, 1,234,567 packets, 120.3 MB, 0 lost"
        );
        assert_eq!(
            line(Duration::from_secs(3_661), 0, 999, 7),
            "recording 1:01:01, 0 packets, 999 octets, 7 lost"
        );
    }
}
