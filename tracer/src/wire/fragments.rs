//! Reassembly of fragmented datagrams (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Rule: a datagram is given once: when it is whole, or as far as it is there when it is given up, [`HOLD`] after
//! its first fragment or for want of room. Octets that came first stay: an overlapping fragment cannot rewrite
//! them. All bounds are below; the oldest goes first.

use super::{
    emit::Envelope,
    ip::{Fragment, Packet},
};
use crate::model::{Timestamp, VantageId};
use std::{collections::VecDeque, net::IpAddr, time::Duration};

/// How long the rest of a datagram is waited for. Fragments leave their sender back to back; the kernel side
/// may show the first one alone.
const HOLD: Duration = Duration::from_millis(100);
/// Datagrams at once.
const MAX_DATAGRAMS: usize = 128;
/// Octets of an IP datagram.
const MAX_LEN: usize = 65_535;
/// Gaps tracked in one datagram, plus one.
const MAX_RANGES: usize = 64;

/// What fragments of one datagram share, at one vantage: the same datagram is seen at several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    vantage: VantageId,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

/// A datagram, as far as it is there.
#[derive(Debug)]
pub(super) struct Datagram {
    key: Key,
    opened: Timestamp,
    /// Of the last fragment.
    pub(super) envelope: Envelope,
    bytes: Vec<u8>,
    /// What is there: sorted, disjoint.
    ranges: Vec<(usize, usize)>,
    /// Known with the last fragment.
    len: Option<usize>,
    /// Told, or not DNS: what still comes is dropped.
    done: bool,
}

impl Datagram {
    /// TCP or UDP.
    pub(super) const fn protocol(&self) -> u8 {
        self.key.protocol
    }

    /// What is there from the datagram's start without a gap.
    pub(super) fn bytes(&self) -> &[u8] {
        let end = self.ranges.first().filter(|range| range.0 == 0).map_or(0, |range| range.1);
        self.bytes.get(..end).unwrap_or(&self.bytes)
    }

    /// Octets on the wire, as far as known.
    pub(super) fn wire_len(&self) -> usize {
        self.len.unwrap_or(0).max(self.bytes.len())
    }

    /// Whether it holds something that was not told.
    fn is_open(&self) -> bool {
        !self.done && !self.bytes().is_empty()
    }

    fn is_whole(&self) -> bool {
        matches!((self.len, self.ranges.as_slice()), (Some(len), [(0, end)]) if *end >= len)
    }

    /// Puts in the octets that are not there yet.
    fn insert(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        if bytes.is_empty() || end > MAX_LEN || self.ranges.len() >= MAX_RANGES {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let mut from = start;
        for &(have_start, have_end) in &self.ranges {
            if have_end > from && from < end {
                copy(&mut self.bytes, bytes, start, from, have_start.min(end));
                from = from.max(have_end);
            }
        }
        copy(&mut self.bytes, bytes, start, from, end);
        self.ranges.push((start, end));
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, previous| {
            let joined = next.0 <= previous.1;
            if joined {
                previous.1 = previous.1.max(next.1);
            }
            joined
        });
    }
}

/// Copies `from..to` of the datagram out of a fragment that starts at `start`.
fn copy(datagram: &mut [u8], fragment: &[u8], start: usize, from: usize, to: usize) {
    if from < to
        && let (Some(into), Some(octets)) =
            (datagram.get_mut(from..to), fragment.get(from - start..to - start))
    {
        into.copy_from_slice(octets);
    }
}

/// The datagrams that are not whole yet, the oldest first, and those that are gone, for their buffers.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    datagrams: VecDeque<Datagram>,
    free: Vec<Datagram>,
}

impl Fragments {
    /// Takes one fragment of a DNS datagram, or one that may be; gives the datagram once it is whole, or once
    /// it is sure that no more of it can be had. Give it back with [`Self::recycle`].
    pub(super) fn add(
        &mut self,
        envelope: Envelope,
        packet: &Packet<'_>,
        fragment: Fragment,
    ) -> Option<Datagram> {
        let index = self.find_or_open(envelope, packet, fragment);
        let datagram = self.datagrams.get_mut(index)?;
        if datagram.done && fragment.offset > 0 {
            return None;
        }
        // A copy of a datagram that was told already: told as often as it is seen.
        datagram.done = false;
        datagram.envelope = envelope;
        datagram.insert(fragment.offset, packet.payload);
        if !fragment.more {
            datagram.len = Some((fragment.offset + packet.wire_len).min(MAX_LEN));
        }
        if datagram.is_whole() {
            return self.datagrams.remove(index);
        }
        if fragment.offset == 0 && packet.payload.len() < packet.wire_len {
            // The capture cut the first fragment: what the others hold cannot be joined to it.
            datagram.done = true;
            let mut cut = self.free.pop().unwrap_or_else(|| empty(datagram.key, envelope));
            cut.key = datagram.key;
            cut.envelope = envelope;
            std::mem::swap(&mut cut.bytes, &mut datagram.bytes);
            std::mem::swap(&mut cut.ranges, &mut datagram.ranges);
            cut.len = Some(packet.wire_len);
            return Some(cut);
        }
        None
    }

    /// Drops what is there of a datagram whose first fragment is not DNS, and whatever still comes.
    pub(super) fn ignore(&mut self, envelope: Envelope, packet: &Packet<'_>, fragment: Fragment) {
        let index = self.find_or_open(envelope, packet, fragment);
        if let Some(datagram) = self.datagrams.get_mut(index) {
            datagram.done = true;
            datagram.bytes.clear();
            datagram.ranges.clear();
        }
    }

    /// Whether there are any.
    #[inline]
    pub(super) fn any(&self) -> bool {
        !self.datagrams.is_empty()
    }

    /// The next datagram to give up at `now`: its time is over, or there is no room for another.
    pub(super) fn give_up(&mut self, now: Timestamp) -> Option<Datagram> {
        loop {
            let oldest = self.datagrams.front()?;
            if now.since(oldest.opened) < HOLD && self.datagrams.len() < MAX_DATAGRAMS {
                return None;
            }
            let oldest = self.datagrams.pop_front()?;
            if oldest.is_open() {
                return Some(oldest);
            }
            self.recycle(oldest);
        }
    }

    /// Takes back the buffers of a datagram that was given.
    pub(super) fn recycle(&mut self, mut datagram: Datagram) {
        datagram.bytes.clear();
        datagram.ranges.clear();
        if self.free.len() < MAX_DATAGRAMS / 8 {
            self.free.push(datagram);
        }
    }

    fn find_or_open(&mut self, envelope: Envelope, packet: &Packet<'_>, fragment: Fragment) -> usize {
        let key = Key {
            vantage: envelope.vantage,
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            id: fragment.id,
        };
        if let Some(known) = self.datagrams.iter().rposition(|datagram| datagram.key == key) {
            return known;
        }
        let mut datagram = self.free.pop().unwrap_or_else(|| empty(key, envelope));
        datagram.key = key;
        datagram.opened = envelope.time;
        datagram.len = None;
        datagram.done = false;
        self.datagrams.push_back(datagram);
        self.datagrams.len() - 1
    }
}

fn empty(key: Key, envelope: Envelope) -> Datagram {
    Datagram {
        key,
        opened: envelope.time,
        envelope,
        bytes: Vec::new(),
        ranges: Vec::new(),
        len: None,
        done: false,
    }
}
