//! What a session counts beside its frames, as interface statistics blocks have it.
//!
//! Rule: times and drops are in the options of pcapng. What has no option there is in the comment:
//! `dnspath: recording; conntrack insert_failed 1 clash_resolve 3 …`; the last one says `recorded` in place of
//! `recording`.

use super::{
    note::{PREFIX, SEPARATOR},
    text,
};
use crate::model::{Conntrack, Timestamp, VantageId};
use std::fmt::Write as _;

/// What is counted since the session began, for [`super::Writer::statistics`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// When the session began.
    pub started: Timestamp,
    /// Until when it is counted.
    pub until: Timestamp,
    /// Frames lost by vantage; those of no vantage are counted at the first one.
    pub lost: Vec<(Option<VantageId>, u64)>,
    /// What conntrack counted, where it could be read.
    pub conntrack: Option<Conntrack>,
    /// The session is over: nothing comes after `until`.
    pub ended: bool,
}

/// What a recording says of its session, as read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// When the session began.
    pub started: Timestamp,
    /// The time of the last statistics.
    pub until: Timestamp,
    /// The recording came to its end; else it was cut, and there may be frames after `until`.
    pub ended: bool,
    /// What conntrack counted meanwhile.
    pub conntrack: Option<Conntrack>,
}

/// A number of [`Conntrack`], to read and to write.
type Counter = (&'static str, fn(&mut Conntrack) -> &mut u64);

/// The words of the comment.
const COUNTERS: [Counter; 8] = [
    ("insert_failed", |counts| &mut counts.insert_failed),
    ("clash_resolve", |counts| &mut counts.clash_resolve),
    ("drop", |counts| &mut counts.drop),
    ("early_drop", |counts| &mut counts.early_drop),
    ("found", |counts| &mut counts.found),
    ("invalid", |counts| &mut counts.invalid),
    ("entries", |counts| &mut counts.entries),
    ("max", |counts| &mut counts.max),
];
const CONNTRACK: &str = "conntrack";

impl Statistics {
    /// The comment.
    pub(super) fn comment(&self) -> String {
        let mut comment = format!("{PREFIX}{}", if self.ended { "recorded" } else { "recording" });
        if let Some(mut counts) = self.conntrack {
            comment.push_str(SEPARATOR);
            comment.push_str(CONNTRACK);
            for (name, counter) in COUNTERS {
                // Writing to a string does not fail.
                let _ = write!(comment, " {name} {}", counter(&mut counts));
            }
        }
        comment
    }
}

impl Recorded {
    /// Reads a comment and the times beside it; `None` where it is not one of these.
    pub(super) fn read(comment: &[u8], started: Timestamp, until: Timestamp) -> Option<Self> {
        let text = std::str::from_utf8(comment).ok()?.strip_prefix(PREFIX)?;
        let mut parts = text.split(SEPARATOR);
        let ended = match parts.next()? {
            "recorded" => true,
            "recording" => false,
            _ => return None,
        };
        let mut conntrack = None;
        for part in parts {
            let mut words = part.split(' ');
            if words.next() == Some(CONNTRACK) {
                let counts: &mut Conntrack = conntrack.get_or_insert_default();
                while let (Some(name), Some(value)) = (words.next(), words.next()) {
                    if let Some((_, counter)) = COUNTERS.iter().find(|(known, _)| *known == name) {
                        *counter(counts) = text::count(value)?;
                    }
                }
            }
        }
        Some(Self { started, until, ended, conntrack })
    }

    /// The same by another clock.
    #[must_use]
    pub const fn shifted(self, nanos: i64) -> Self {
        Self { started: self.started.shifted(nanos), until: self.until.shifted(nanos), ..self }
    }

    /// Two recordings as one: those that follow each other, or of several nodes. What is in the tables is that of
    /// the later one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (earlier, later) = if self.until <= other.until { (self, other) } else { (other, self) };
        let conntrack = match (earlier.conntrack, later.conntrack) {
            (Some(one), Some(two)) => Some(two.plus(&one)),
            (one, two) => one.or(two),
        };
        Self {
            started: earlier.started.min(later.started),
            until: later.until,
            ended: later.ended,
            conntrack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Conntrack {
        let mut counts = Conntrack::default();
        for ((_, counter), value) in COUNTERS.into_iter().zip(1..) {
            *counter(&mut counts) = value;
        }
        counts
    }

    #[test]
    fn a_comment_is_read_back() {
        let (started, until) = (Timestamp::from_nanos(5), Timestamp::from_nanos(9));
        for conntrack in [None, Some(counts())] {
            for ended in [false, true] {
                let statistics = Statistics { started, until, conntrack, ended, lost: Vec::new() };
                let read = Recorded::read(statistics.comment().as_bytes(), started, until);
                assert_eq!(read, Some(Recorded { started, until, ended, conntrack }));
            }
        }
        let statistics = Statistics { conntrack: Some(counts()), ..Statistics::default() };
        assert_eq!(
            statistics.comment(),
            "dnspath: recording; conntrack insert_failed 1 clash_resolve 2 drop 3 early_drop 4 found 5 invalid 6 \
             entries 7 max 8"
        );
    }

    #[test]
    fn comments_of_others_say_nothing() {
        let read = |comment: &[u8]| Recorded::read(comment, Timestamp::EPOCH, Timestamp::EPOCH);
        for comment in ["", "recorded", "dnspath: gso 1", "dnspath: recorded; conntrack drop x"] {
            assert_eq!(read(comment.as_bytes()), None, "{comment}");
        }
        assert_eq!(read(b"dnspath: \xff"), None);
        let odd = read(b"dnspath: recording; weather fine; conntrack later 7 drop 2 found").unwrap();
        assert_eq!(odd.conntrack, Some(Conntrack { drop: 2, ..Conntrack::default() }));
        // A sum of such counts is none that overflows.
        let wild = read(b"dnspath: recording; conntrack entries 18446744073709551615").unwrap();
        assert_eq!(wild.conntrack.map(|counted| counted.entries), Some(text::MOST_COUNTED));
    }

    #[test]
    fn what_was_counted_between_two_readings() {
        let before = Conntrack { entries: 9, drop: 1, ..Conntrack::default() };
        let between = counts().since(&before);
        assert_eq!(between, Conntrack { drop: 2, ..counts() });
    }

    #[test]
    fn two_recordings_as_one() {
        let at = |started, until, ended, conntrack| Recorded {
            started: Timestamp::from_nanos(started),
            until: Timestamp::from_nanos(until),
            ended,
            conntrack,
        };
        let later = Conntrack { entries: 70, ..counts() };
        let both = at(1, 10, true, Some(counts())).and(at(5, 20, false, Some(later)));
        assert_eq!(both, at(5, 20, false, Some(later)).and(at(1, 10, true, Some(counts()))));
        assert_eq!((both.started.as_nanos(), both.until.as_nanos(), both.ended), (1, 20, false));
        assert_eq!(
            both.conntrack.map(|c| (c.insert_failed, c.invalid, c.entries, c.max)),
            Some((2, 12, 70, 8))
        );
    }
}
