//! What a frame's comment keeps of the things that pcapng has no field for.
//!
//! Rule: a person can read it in Wireshark, and dnspath reads it back, each part where it is due:
//! `dnspath: gso 512; nat 10.0.0.1:4000>10.96.0.10:53 10.1.0.5:53>10.0.0.1:4000`, and for what the kernel did not
//! pass on `dnspath: insert_failed at __nf_conntrack_confirm (NETFILTER_DROP) cpu 1`.

use crate::model::{DropMark, Fate, Flow, Frame, NatTuple};
use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

/// What every comment of dnspath starts with, whatever block it is on.
pub(super) const PREFIX: &str = "dnspath: ";
/// Between the parts of a comment.
pub(super) const SEPARATOR: &str = "; ";
/// What the comments of nearly all packets start with that have one.
const ONLY_NAT: &str = "dnspath: nat ";
/// The longest name of a reason or a function that is kept; the kernel's own are below 128 (`KSYM_NAME_LEN`).
const MAX_WORD: usize = 128;

/// The parts of a comment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note<'a> {
    /// [`Frame::segment_size`].
    pub segment_size: u16,
    /// [`Frame::nat`].
    pub nat: Option<NatTuple>,
    /// [`Frame::drop`].
    pub drop: Option<DropMark<'a>>,
}

impl<'a> Note<'a> {
    /// What is to be kept of a frame; `None` where there is nothing.
    #[must_use]
    pub fn of(frame: &Frame<'a>) -> Option<Self> {
        let note = Self { segment_size: frame.segment_size, nat: frame.nat, drop: frame.drop };
        (note != Self::default()).then_some(note)
    }

    /// Reads a comment; `None` where it is not one of these. A part that is not known is passed over.
    #[must_use]
    pub fn read(comment: &'a [u8]) -> Option<Self> {
        if let Some(nat) = comment.strip_prefix(ONLY_NAT.as_bytes()).and_then(nat_of_ipv4) {
            return Some(Self { nat: Some(nat), ..Self::default() });
        }
        let parts = std::str::from_utf8(comment).ok()?.strip_prefix(PREFIX)?;
        let mut note = Self::default();
        for part in parts.split(SEPARATOR) {
            let Some((key, value)) = part.split_once(' ') else { continue };
            match key {
                "gso" => note.segment_size = value.parse().ok()?,
                "nat" => {
                    let (original, reply) = value.split_once(' ')?;
                    note.nat = Some(NatTuple { original: flow(original)?, reply: flow(reply)? });
                }
                _ => {
                    if let Some(fate) = fate(key) {
                        note.drop = Some(drop_mark(fate, value)?);
                    }
                }
            }
        }
        Some(note)
    }

    /// Appends the comment; what [`Display`](fmt::Display) shows, without its cost a packet.
    pub(super) fn append(&self, to: &mut String) {
        to.push_str(PREFIX);
        let start = to.len();
        let part = |to: &mut String, key: &str| {
            if to.len() > start {
                to.push_str(SEPARATOR);
            }
            to.push_str(key);
        };
        if let Some(DropMark { fate, cpu, reason, place }) = self.drop {
            part(to, fate.as_str());
            for (before, name, after) in [(" at ", place, ""), (" (", reason, ")")] {
                if word(name).next().is_some() {
                    to.push_str(before);
                    to.extend(word(name));
                    to.push_str(after);
                }
            }
            to.push_str(" cpu ");
            decimal(to, cpu);
        }
        if self.segment_size > 0 {
            part(to, "gso ");
            decimal(to, self.segment_size.into());
        }
        if let Some(NatTuple { original, reply }) = self.nat {
            part(to, "nat ");
            for (address, after) in [
                (original.source, ">"),
                (original.destination, " "),
                (reply.source, ">"),
                (reply.destination, ""),
            ] {
                socket(to, address);
                to.push_str(after);
            }
        }
    }
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.append(&mut text);
        f.write_str(&text)
    }
}

fn fate(word: &str) -> Option<Fate> {
    [Fate::ClashResolved, Fate::Dropped, Fate::InsertFailed, Fate::TableFull]
        .into_iter()
        .find(|fate| fate.as_str() == word)
}

/// `at PLACE (REASON) cpu N`, the first two where known.
fn drop_mark(fate: Fate, text: &str) -> Option<DropMark<'_>> {
    let (place, text) = text.strip_prefix("at ").map_or(Some(("", text)), |rest| rest.split_once(' '))?;
    let (reason, text) = text.strip_prefix('(').map_or(Some(("", text)), |rest| rest.split_once(") "))?;
    let cpu = text.strip_prefix("cpu ")?.parse().ok()?;
    let is_word = |name: &str| name.len() <= MAX_WORD && word(name).eq(name.chars());
    (is_word(place) && is_word(reason)).then_some(DropMark { fate, cpu, reason, place })
}

/// A name of the kernel's as it can stand in a comment.
fn word(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|&c| c.is_ascii_graphic() && !"();".contains(c)).take(MAX_WORD)
}

fn flow(text: &str) -> Option<Flow> {
    let (source, destination) = text.split_once('>')?;
    Some(Flow { source: source.parse().ok()?, destination: destination.parse().ok()? })
}

/// The two pairs of IPv4 sockets that [`Note::append`] writes, and nothing else: a fifth of what the general way costs,
/// and half of all packets may have them.
fn nat_of_ipv4(text: &[u8]) -> Option<NatTuple> {
    let mut rest = text;
    let mut socket = |after: Option<u8>| -> Option<SocketAddr> {
        let mut octets = [0; 4];
        for (octet, end) in octets.iter_mut().zip(*b"...:") {
            *octet = u8::try_from(number(&mut rest, Some(end))?).ok()?;
        }
        let port = u16::try_from(number(&mut rest, after)?).ok()?;
        Some(SocketAddr::new(IpAddr::from(octets), port))
    };
    let original = Flow { source: socket(Some(b'>'))?, destination: socket(Some(b' '))? };
    let reply = Flow { source: socket(Some(b'>'))?, destination: socket(None)? };
    Some(NatTuple { original, reply })
}

/// The decimal number of up to five digits, as [`decimal`] writes it, that stands before `after` or at the end.
fn number(text: &mut &[u8], after: Option<u8>) -> Option<u32> {
    let mut value = 0;
    for (count, &octet) in text.iter().enumerate() {
        if octet.is_ascii_digit() && count < 5 && !(count > 0 && value == 0) {
            value = value * 10 + u32::from(octet - b'0');
        } else if Some(octet) == after && count > 0 {
            *text = text.get(count + 1..)?;
            return Some(value);
        } else {
            return None;
        }
    }
    (after.is_none() && !text.is_empty()).then_some(value)
}

/// As `Display` of [`SocketAddr`], which takes five times as long: half of all packets may have four of them.
fn socket(to: &mut String, address: SocketAddr) {
    let IpAddr::V4(ip) = address.ip() else {
        // Writing to a string does not fail.
        let _ = write!(to, "{address}");
        return;
    };
    let [a, b, c, d] = ip.octets();
    for (octet, after) in [(a, '.'), (b, '.'), (c, '.'), (d, ':')] {
        decimal(to, octet.into());
        to.push(after);
    }
    decimal(to, address.port().into());
}

fn decimal(to: &mut String, mut number: u32) {
    let mut digits = [0; 10];
    let mut first = digits.len();
    for digit in digits.iter_mut().rev() {
        // A remainder of ten is a digit.
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        first -= 1;
        if number == 0 {
            break;
        }
    }
    // Digits are ASCII.
    to.push_str(digits.get(first..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flows(a: &str, b: &str) -> Flow {
        Flow { source: a.parse().unwrap(), destination: b.parse().unwrap() }
    }

    #[test]
    fn reads_back_what_it_shows() {
        let nat = NatTuple {
            original: flows("10.0.0.1:4000", "10.96.0.10:53"),
            reply: flows("[fd00::5]:53", "[fd00::1]:4000"),
        };
        let mark = DropMark {
            fate: Fate::InsertFailed,
            cpu: 1,
            reason: "NETFILTER_DROP",
            place: "__nf_conntrack_confirm",
        };
        for (note, text) in [
            (Note { segment_size: 512, ..Note::default() }, "dnspath: gso 512"),
            (
                Note { segment_size: 512, nat: Some(nat), drop: None },
                "dnspath: gso 512; nat 10.0.0.1:4000>10.96.0.10:53 [fd00::5]:53>[fd00::1]:4000",
            ),
            (
                Note { nat: Some(nat), drop: Some(mark), ..Note::default() },
                "dnspath: insert_failed at __nf_conntrack_confirm (NETFILTER_DROP) cpu 1; \
                 nat 10.0.0.1:4000>10.96.0.10:53 [fd00::5]:53>[fd00::1]:4000",
            ),
            (
                Note { drop: Some(DropMark { reason: "", ..mark }), ..Note::default() },
                "dnspath: insert_failed at __nf_conntrack_confirm cpu 1",
            ),
            (
                Note {
                    drop: Some(DropMark { fate: Fate::TableFull, place: "", cpu: u32::MAX, ..mark }),
                    ..Note::default()
                },
                "dnspath: table_full (NETFILTER_DROP) cpu 4294967295",
            ),
            (
                Note {
                    drop: Some(DropMark { fate: Fate::ClashResolved, cpu: 0, reason: "", place: "" }),
                    ..Note::default()
                },
                "dnspath: clash_resolved cpu 0",
            ),
        ] {
            assert_eq!(note.to_string(), text);
            assert_eq!(Note::read(text.as_bytes()), Some(note));
        }
    }

    #[test]
    fn names_that_would_break_the_line_lose_what_breaks_it() {
        let mark = DropMark { fate: Fate::Dropped, cpu: 3, reason: "A) cpu 9; x\x1b[m", place: "f (g)\n" };
        let text = Note { drop: Some(mark), ..Note::default() }.to_string();
        assert_eq!(text, "dnspath: dropped at fg (Acpu9x[m) cpu 3");
        let long = "x".repeat(4_000);
        let mark = DropMark { place: &long, ..mark };
        assert!(Note { drop: Some(mark), ..Note::default() }.to_string().len() < 200);
    }

    #[test]
    fn comments_of_others_are_no_notes() {
        for comment in [
            "",
            "nat x",
            "dnspath: nat 1.2.3.4>5.6.7.8",
            "dnspath: gso 70000",
            "hello dnspath: gso 1",
            "dnspath: dropped at",
            "dnspath: dropped at f",
            "dnspath: dropped (x cpu 1",
            "dnspath: dropped at \u{1b}[31m cpu 1",
            "dnspath: dropped cpu -1",
        ] {
            assert_eq!(Note::read(comment.as_bytes()), None, "{comment}");
        }
        assert_eq!(Note::read(b"dnspath: \xff"), None);
        assert_eq!(Note::read(b"dnspath: later words"), Some(Note::default()));
    }

    proptest! {
        #[test]
        fn the_short_way_reads_what_the_general_one_reads(a: std::net::SocketAddrV4, b: std::net::SocketAddrV4, cut: usize) {
            let flow = Flow { source: a.into(), destination: b.into() };
            let text = Note { nat: Some(NatTuple { original: flow, reply: flow.reversed() }), ..Note::default() }.to_string();
            let nat = text.strip_prefix(ONLY_NAT).expect("a translation");
            prop_assert_eq!(nat_of_ipv4(nat.as_bytes()), Some(NatTuple { original: flow, reply: flow.reversed() }));
            let nat = &nat[..cut % nat.len()];
            let general = nat.split_once(' ').and_then(|(o, r)| Some(NatTuple { original: super::flow(o)?, reply: super::flow(r)? }));
            prop_assert_eq!(nat_of_ipv4(nat.as_bytes()), general);
            for other in [format!("{nat} "), format!("0{nat}"), nat.replace('.', ".0"), format!("{nat}; x")] {
                prop_assert_eq!(nat_of_ipv4(other.as_bytes()), None);
            }
        }

        #[test]
        fn numbers_and_addresses_are_shown_as_rust_shows_them(number: u32, address: SocketAddr) {
            let mut text = String::new();
            decimal(&mut text, number);
            socket(&mut text, address);
            prop_assert_eq!(text, format!("{number}{address}"));
        }

        #[test]
        fn any_names_give_a_line_that_is_read_back_and_stays(reason: String, place: String, cpu: u32) {
            let mark = DropMark { fate: Fate::Dropped, cpu, reason: &reason, place: &place };
            let text = Note { drop: Some(mark), ..Note::default() }.to_string();
            let read = Note::read(text.as_bytes()).expect("a note");
            prop_assert_eq!(read.drop.map(|mark| mark.cpu), Some(cpu));
            prop_assert_eq!(read.to_string(), text);
        }
    }
}
