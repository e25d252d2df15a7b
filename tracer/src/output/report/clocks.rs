//! What a report says of the clocks of several files.

use crate::output::text::{count, human};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{fmt, time::Duration};

/// A file whose clock differs from the first one's, or could not be compared with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockView {
    /// Which file, as it can be shown.
    pub file: String,
    /// The first one, by whose clock all times are.
    pub of: String,
    /// Nanoseconds that it is ahead, and the most that this is wrong by; `None`: unknown.
    pub ahead: Option<(i64, Duration)>,
    /// Exchanges that are in both files.
    pub exchanges: u64,
}

impl fmt::Display for ClockView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, of, ahead, exchanges } = self;
        let Some((nanos, uncertain)) = *ahead else {
            return write!(
                f,
                "how far that of {file} differs from that of {of} is unknown, as no message is in both: taken as equal"
            );
        };
        let by = human(Duration::from_nanos(nanos.unsigned_abs()));
        let word = if nanos < 0 { "behind" } else { "ahead of" };
        let messages =
            if *exchanges == 1 { "1 exchange".into() } else { format!("{} exchanges", count(*exchanges)) };
        write!(
            f,
            "that of {file} is {by} {word} that of {of} (within {}, by {messages} seen in both); times are by the latter",
            human(uncertain)
        )
    }
}

impl Serialize for ClockView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("file", &self.file)?;
        map.serialize_entry("of", &self.of)?;
        let seconds = self.ahead.map(|(nanos, _)| {
            let size = Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64();
            if nanos < 0 { -size } else { size }
        });
        map.serialize_entry("ahead_s", &seconds)?;
        map.serialize_entry("uncertain_s", &self.ahead.map(|(_, uncertain)| uncertain.as_secs_f64()))?;
        map.serialize_entry("exchanges", &self.exchanges)?;
        map.end()
    }
}
