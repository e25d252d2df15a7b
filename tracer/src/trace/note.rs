//! What a frame's comment keeps of the things that pcapng has no field for.
//!
//! Rule: a person can read it in Wireshark, and dnspath reads it back, each part where it is due:
//! `dnspath: gso 512; nat 10.0.0.1:4000>10.96.0.10:53 10.1.0.5:53>10.0.0.1:4000`, and for what the kernel did not
//! pass on `dnspath: insert_failed at __nf_conntrack_confirm (NETFILTER_DROP) cpu 1`.

use crate::model::{DropMark, Fate, Flow, Frame, NatTuple};
use std::{
    fmt,
    io::Write as _,
    net::{IpAddr, SocketAddr, SocketAddrV4},
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
    pub(super) fn append(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(PREFIX.as_bytes());
        let start = to.len();
        let part = |to: &mut Vec<u8>, key: &str| {
            if to.len() > start {
                to.extend_from_slice(SEPARATOR.as_bytes());
            }
            to.extend_from_slice(key.as_bytes());
        };
        if let Some(DropMark { fate, cpu, reason, place }) = self.drop {
            part(to, fate.as_str());
            for (before, name, after) in [(" at ", place, ""), (" (", reason, ")")] {
                if word(name).next().is_some() {
                    to.extend_from_slice(before.as_bytes());
                    to.extend(word(name).map(|c| c as u8));
                    to.extend_from_slice(after.as_bytes());
                }
            }
            // Writing to a vector does not fail.
            let _ = write!(to, " cpu {cpu}");
        }
        if self.segment_size > 0 {
            part(to, "gso ");
            let _ = write!(to, "{}", self.segment_size);
        }
        if let Some(NatTuple { original, reply }) = self.nat {
            part(to, "nat ");
            sockets(to, [original.source, original.destination, reply.source, reply.destination]);
        }
    }
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.append(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
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

/// The decimal number of up to five digits, without leading zeros, that stands before `after` or at the end.
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

/// `A>B C>D`. Half of all packets may have them, so that IPv4 has a way of its own.
fn sockets(to: &mut Vec<u8>, addresses: [SocketAddr; 4]) {
    let mut text = ShortText::default();
    for (address, after) in addresses.into_iter().zip(*b"> > ") {
        let SocketAddr::V4(address) = address else {
            let [a, b, c, d] = addresses;
            // Writing to a vector does not fail.
            let _ = write!(to, "{a}>{b} {c}>{d}");
            return;
        };
        text.socket(address, after);
    }
    to.extend_from_slice(text.octets.get(..text.len.saturating_sub(1)).unwrap_or_default());
}

/// Four IPv4 sockets take 21 octets each, and one behind each; and what [`ShortText::put`] writes beyond.
const SHORT_TEXT: usize = 4 * (21 + 1) + 4;

/// Text that is put together in steps of four octets, whatever of them counts: shorter copies cost more.
struct ShortText {
    octets: [u8; SHORT_TEXT],
    len: usize,
}

impl Default for ShortText {
    fn default() -> Self {
        Self { octets: [0; SHORT_TEXT], len: 0 }
    }
}

impl ShortText {
    fn socket(&mut self, address: SocketAddrV4, after: u8) {
        for (octet, behind) in address.ip().octets().into_iter().zip(*b"...:") {
            self.small(octet.into(), behind);
        }
        let (high, low) = (address.port() / 100, address.port() % 100);
        if high == 0 {
            self.small(low, after);
            return;
        }
        self.small(high, 0);
        // Both digits, after a one that is left out.
        let [_, tens, ones, _] = digits(100 + low);
        self.len = self.len.saturating_sub(1);
        self.put([tens, ones, after, 0], 3);
    }

    /// A number below 1,000, and an octet behind it.
    fn small(&mut self, number: u16, behind: u8) {
        let [a, b, c, count] = digits(number);
        match count {
            1 => self.put([a, behind, 0, 0], 2),
            2 => self.put([a, b, behind, 0], 3),
            _ => self.put([a, b, c, behind], 4),
        }
    }

    #[inline]
    fn put(&mut self, octets: [u8; 4], count: usize) {
        if let Some(place) = self.octets.get_mut(self.len..self.len + 4) {
            place.copy_from_slice(&octets);
            self.len += count;
        }
    }
}

fn digits(number: u16) -> [u8; 4] {
    DIGITS.get(usize::from(number)).copied().unwrap_or_default()
}

/// The numbers below 1,000: up to three digits, and how many.
static DIGITS: [[u8; 4]; 1_000] = {
    let mut all = [[0; 4]; 1_000];
    let mut number = 0;
    while number < all.len() {
        // Digits are ASCII.
        let ones = b'0' + (number % 10) as u8;
        let tens = b'0' + (number / 10 % 10) as u8;
        let hundreds = b'0' + (number / 100) as u8;
        all[number] = match number {
            0..10 => [ones, 0, 0, 1],
            10..100 => [tens, ones, 0, 2],
            _ => [hundreds, tens, ones, 3],
        };
        number += 1;
    }
    all
};

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
        fn the_short_way_reads_what_the_general_one_reads(a: SocketAddrV4, b: SocketAddrV4, cut: usize) {
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
        fn addresses_are_shown_as_rust_shows_them(
            a: SocketAddr, b in any::<SocketAddrV4>(), c in any::<SocketAddrV4>(), short in 0..120_u16,
        ) {
            let d = SocketAddrV4::new([10, 0, 100, 9].into(), short);
            for first in [a, b.into()] {
                let mut text = Vec::new();
                sockets(&mut text, [first, b.into(), c.into(), d.into()]);
                prop_assert_eq!(String::from_utf8(text).unwrap(), format!("{first}>{b} {c}>{d}"));
            }
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
