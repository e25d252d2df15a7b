//! What a frame's comment keeps of the things that pcapng has no field for.
//!
//! Rule: a person can read it in Wireshark, and dnspath reads it back:
//! `dnspath: gso 512; nat 10.0.0.1:4000>10.96.0.10:53 10.1.0.5:53>10.0.0.1:4000`, each part where it is due.

use crate::model::{Flow, Frame, NatTuple};
use std::fmt;

const PREFIX: &str = "dnspath: ";

/// The parts of a comment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// [`Frame::segment_size`].
    pub segment_size: u16,
    /// [`Frame::nat`].
    pub nat: Option<NatTuple>,
}

impl Note {
    /// What is to be kept of a frame; `None` where there is nothing.
    #[must_use]
    pub fn of(frame: &Frame<'_>) -> Option<Self> {
        let note = Self { segment_size: frame.segment_size, nat: frame.nat };
        (note != Self::default()).then_some(note)
    }

    /// Reads a comment; `None` where it is not one of these. A part that is not known is passed over.
    #[must_use]
    pub fn read(comment: &[u8]) -> Option<Self> {
        let parts = std::str::from_utf8(comment).ok()?.strip_prefix(PREFIX)?;
        let mut note = Self::default();
        for part in parts.split("; ") {
            match part.split_once(' ') {
                Some(("gso", size)) => note.segment_size = size.parse().ok()?,
                Some(("nat", flows)) => {
                    let (original, reply) = flows.split_once(' ')?;
                    note.nat = Some(NatTuple { original: flow(original)?, reply: flow(reply)? });
                }
                _ => {}
            }
        }
        Some(note)
    }
}

fn flow(text: &str) -> Option<Flow> {
    let (source, destination) = text.split_once('>')?;
    Some(Flow { source: source.parse().ok()?, destination: destination.parse().ok()? })
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        if self.segment_size > 0 {
            write!(f, "gso {}", self.segment_size)?;
        }
        let Some(NatTuple { original, reply }) = self.nat else { return Ok(()) };
        if self.segment_size > 0 {
            f.write_str("; ")?;
        }
        write!(f, "nat {}>{} ", original.source, original.destination)?;
        write!(f, "{}>{}", reply.source, reply.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_shows() {
        let flow = |a: &str, b: &str| Flow { source: a.parse().unwrap(), destination: b.parse().unwrap() };
        let nat = NatTuple {
            original: flow("10.0.0.1:4000", "10.96.0.10:53"),
            reply: flow("[fd00::5]:53", "[fd00::1]:4000"),
        };
        for note in [
            Note { segment_size: 512, nat: Some(nat) },
            Note { segment_size: 0, nat: Some(nat) },
            Note { segment_size: 512, nat: None },
        ] {
            assert_eq!(Note::read(note.to_string().as_bytes()), Some(note));
        }
    }

    #[test]
    fn comments_of_others_are_no_notes() {
        for comment in
            ["", "nat x", "dnspath: nat 1.2.3.4>5.6.7.8", "dnspath: gso 70000", "hello dnspath: gso 1"]
        {
            assert_eq!(Note::read(comment.as_bytes()), None, "{comment}");
        }
        assert_eq!(Note::read(b"dnspath: \xff"), None);
        assert_eq!(Note::read(b"dnspath: later words"), Some(Note::default()));
    }
}
