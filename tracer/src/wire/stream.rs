//! One direction of one TCP connection at one vantage: segments in, DNS messages out.

use super::{
    dns,
    emit::{Emitter, Envelope},
    tcp::Segment,
};
use crate::model::{Sighting, Timestamp};
use smallvec::SmallVec;

/// Segments kept that came before their turn.
const MAX_WAITING: usize = 32;
/// Octets kept of them.
const MAX_WAITING_LEN: usize = 128 * 1024;
/// A sequence number farther off than this belongs to another connection on the same ports; it is above any
/// usual window, and above a segment of several joined ones.
const MAX_JUMP: u32 = 4 * 1024 * 1024;
/// Octets of a message's length prefix.
const PREFIX_LEN: usize = 2;

/// A segment that came before its turn.
#[derive(Debug)]
struct Waiting {
    sequence: u32,
    bytes: Box<[u8]>,
    wire_len: usize,
    envelope: Envelope,
}

impl Waiting {
    fn held(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }
}

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Sequence number of the next octet; `None` while no start of a message is known.
    next: Option<u32>,
    /// Sequence number of the SYN, where one was seen.
    initial: Option<u32>,
    /// Sequence number of the first octet told of a stream whose SYN did not come first.
    start: Option<u32>,
    /// Segments from before `start`, or that came before any was known.
    early: Vec<Waiting>,
    /// Of the message that is not whole yet: length prefix and what came of it.
    partial: Vec<u8>,
    /// The stream was joined where a message may begin, and no whole one was seen since.
    unsure: bool,
    /// Octets of a message cut by the capture that are still to come.
    skip: usize,
    waiting: SmallVec<[Box<Waiting>; 1]>,
    /// Octets in `waiting` and `early`.
    waiting_len: usize,
    /// When the hole before `waiting` was found.
    pub(super) hole_since: Timestamp,
    /// Age, by the table's count.
    pub(super) used: u64,
}

impl Stream {
    /// Octets kept.
    pub(super) fn held(&self) -> usize {
        self.partial.len() + self.waiting_len
    }

    /// Whether segments wait for one that is missing.
    pub(super) fn has_hole(&self) -> bool {
        !self.waiting.is_empty() || !self.early.is_empty()
    }

    /// Drops what is kept; the stream goes on at the next place that can be the start of a message.
    pub(super) fn drop_held(&mut self) {
        (self.next, self.skip, self.waiting_len) = (None, 0, 0);
        self.partial = Vec::new();
        self.waiting.clear();
        self.early.clear();
    }

    /// Takes one segment.
    pub(super) fn segment(
        &mut self,
        segment: &Segment<'_>,
        envelope: Envelope,
        emitter: &mut Emitter,
        out: &mut impl FnMut(&Sighting),
    ) {
        let mut sequence = segment.sequence;
        if segment.syn {
            if self.initial != Some(sequence) {
                self.begin(sequence, emitter, out);
            }
            // What comes with a SYN is behind it (RFC 7413).
            sequence = sequence.wrapping_add(1);
        }
        if segment.wire_len > 0 {
            self.octets(sequence, segment, envelope, emitter, out);
        }
        if segment.rst || segment.fin && self.is_end(sequence, segment.wire_len) {
            self.end(emitter, out);
        }
    }

    /// Begins behind a SYN: that of a new connection, or one that comes after segments it was sent before.
    fn begin(&mut self, initial: u32, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        let first = initial.wrapping_add(1);
        let own = self.initial.is_none() && self.start.is_none_or(|start| is_just_before(first, start));
        self.initial = Some(initial);
        if !own {
            emitter.counters.given_up += u64::from(self.held() > 0);
            self.drop_held();
        } else if self.start.is_some() && !self.unsure {
            return;
        }
        self.partial = Vec::new();
        self.unsure = false;
        (self.next, self.start, self.skip) = (Some(first), None, 0);
        self.settle(emitter, out);
    }

    /// Whether nothing is missing before the end of a segment.
    fn is_end(&self, sequence: u32, wire_len: usize) -> bool {
        !self.has_hole()
            && self.next.is_none_or(|next| distance(next, sequence).unsigned_abs() as usize <= wire_len)
    }

    /// No more octets come: what is there is told. The stream is kept, for segments that are sent again.
    fn end(&mut self, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        while self.has_hole() {
            self.pass_hole(emitter, out);
        }
        if !self.partial.is_empty() {
            emitter.counters.given_up += 1;
            self.tell_partial(emitter, out);
        }
    }

    fn octets(
        &mut self,
        sequence: u32,
        segment: &Segment<'_>,
        envelope: Envelope,
        emitter: &mut Emitter,
        out: &mut impl FnMut(&Sighting),
    ) {
        let waiting =
            || Waiting { sequence, bytes: segment.payload.into(), wire_len: segment.wire_len, envelope };
        if self.is_early(sequence, segment) {
            self.keep_early(waiting());
            self.extend_back(sequence, emitter, out);
            if self.early.len() > MAX_WAITING || self.waiting_len > MAX_WAITING_LEN {
                self.pass_early(emitter, out);
                emitter.restore(envelope);
            }
            return;
        }
        if let Some(next) = self.next {
            let ahead = distance(sequence, next);
            if ahead.unsigned_abs() > MAX_JUMP {
                emitter.counters.given_up += u64::from(self.held() > 0);
                self.drop_held();
                (self.initial, self.start) = (None, None);
            } else if ahead > 0 {
                self.keep(waiting());
                if self.waiting.len() > MAX_WAITING || self.waiting_len > MAX_WAITING_LEN {
                    self.pass_hole(emitter, out);
                    emitter.restore(envelope);
                }
                return;
            }
        }
        let joined = self.next.is_none();
        self.arrive(sequence, segment.payload, segment.wire_len, emitter, out);
        if joined {
            self.settle(emitter, out);
        } else if !self.waiting.is_empty() {
            self.drain(emitter, out);
        }
    }

    /// Whether a segment is from before the place where the stream was joined, or no place is known and it is whole
    /// and does not begin with a message.
    fn is_early(&self, sequence: u32, segment: &Segment<'_>) -> bool {
        match (self.start, self.next, self.initial) {
            (Some(start), ..) => is_just_before(end(sequence, segment.wire_len), start),
            (None, None, None) => {
                segment.payload.len() == segment.wire_len
                    && !may_start_message(segment.payload, segment.wire_len)
            }
            _ => false,
        }
    }

    fn keep_early(&mut self, early: Waiting) {
        if !self.early.iter().any(|known| known.sequence == early.sequence) {
            self.waiting_len += early.held();
            self.early.push(early);
        }
    }

    /// A place to begin is known now: what came before goes where it belongs.
    fn settle(&mut self, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        let Some(next) = self.next else { return };
        for early in std::mem::take(&mut self.early) {
            self.waiting_len -= early.held();
            if self.start.is_some_and(|start| is_just_before(end(early.sequence, early.wire_len), start)) {
                self.keep_early(early);
            } else if distance(early.sequence, next).unsigned_abs() <= MAX_JUMP {
                self.keep(early);
            }
        }
        self.drain(emitter, out);
        if let Some(first) = self.early.first() {
            self.extend_back(first.sequence, emitter, out);
        }
    }

    /// Tells the whole messages that end where the stream was joined, and moves that place to their beginning.
    /// They begin with the segment at `newest`, or with the first of those that join on to each other.
    fn extend_back(&mut self, newest: u32, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        let Some(start) = self.start else { return };
        let mut chain: SmallVec<[usize; 8]> = SmallVec::new();
        let mut from = start;
        while let Some(index) = self.early.iter().position(|e| end(e.sequence, e.wire_len) == from)
            && let Some(segment) = self.early.get(index)
            && segment.bytes.len() == segment.wire_len
            && !chain.contains(&index)
        {
            chain.push(index);
            from = segment.sequence;
        }
        chain.reverse();
        let segments = || chain.iter().filter_map(|&index| self.early.get(index));
        for first in [from, newest] {
            let octets: Vec<u8> = segments()
                .skip_while(|e| e.sequence != first)
                .flat_map(|e| e.bytes.iter().copied())
                .collect();
            if let Some(messages) = whole_messages(&octets) {
                self.start = Some(first);
                let early = std::mem::take(&mut self.early);
                let (told, kept) = early
                    .into_iter()
                    .partition::<Vec<_>, _>(|e| !is_just_before(e.sequence, first) || e.sequence == first);
                self.early = kept;
                self.waiting_len -= told.iter().map(Waiting::held).sum::<usize>();
                for message in messages {
                    emitter.dns(message, message.len(), out);
                }
                return;
            }
        }
    }

    /// What is missing before or between the early segments will not come: those that are whole are told.
    fn pass_early(&mut self, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        let mut early = std::mem::take(&mut self.early);
        self.waiting_len -= early.iter().map(Waiting::held).sum::<usize>();
        let Some(first) = early.first().map(|e| e.sequence) else { return };
        early.sort_by_key(|e| distance(e.sequence, first));
        self.start = self.start.or(Some(first));
        emitter.counters.given_up += 1;
        for segment in &early {
            emitter.restore(segment.envelope);
            for message in whole_messages(&segment.bytes).unwrap_or_default() {
                emitter.dns(message, message.len(), out);
            }
        }
    }

    fn keep(&mut self, waiting: Waiting) {
        let Waiting { sequence, bytes, .. } = &waiting;
        if self.waiting.iter().any(|known| known.sequence == *sequence && known.bytes.len() >= bytes.len()) {
            return;
        }
        self.waiting_len += waiting.held();
        self.waiting.push(Box::new(waiting));
    }

    /// Tells what now follows without a gap out of the segments that wait. It is complete only now, so it is
    /// told under the headers of the segment that filled the hole.
    fn drain(&mut self, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        while let Some((index, ahead)) = self.nearest() {
            if ahead > 0 {
                return;
            }
            let waiting = self.waiting.swap_remove(index);
            self.waiting_len -= waiting.held();
            self.arrive(waiting.sequence, &waiting.bytes, waiting.wire_len, emitter, out);
        }
    }

    /// The missing segment will not come: what is there of its message is told, and the stream goes on behind.
    pub(super) fn pass_hole(&mut self, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        let Some((index, ahead)) = self.nearest() else {
            self.pass_early(emitter, out);
            return;
        };
        let waiting = self.waiting.swap_remove(index);
        self.waiting_len -= waiting.held();
        emitter.counters.given_up += 1;
        emitter.restore(waiting.envelope);
        self.lose(usize::try_from(ahead).unwrap_or(0), emitter, out);
        self.arrive(waiting.sequence, &waiting.bytes, waiting.wire_len, emitter, out);
        self.drain(emitter, out);
    }

    /// The waiting segment that comes first, and how far ahead of the stream it is.
    fn nearest(&self) -> Option<(usize, i32)> {
        let ahead = |waiting: &Waiting| self.next.map_or(0, |next| distance(waiting.sequence, next));
        self.waiting.iter().map(|waiting| ahead(waiting)).enumerate().min_by_key(|&(_, ahead)| ahead)
    }

    /// Takes octets that are not ahead of the stream, of which those seen before are passed over.
    fn arrive(
        &mut self,
        sequence: u32,
        bytes: &[u8],
        wire_len: usize,
        emitter: &mut Emitter,
        out: &mut impl FnMut(&Sighting),
    ) {
        let next = match self.next {
            Some(next) => next,
            None if may_start_message(bytes, wire_len) => {
                self.unsure = true;
                if self.initial.is_none() {
                    self.start = self.start.or(Some(sequence));
                }
                sequence
            }
            None => return,
        };
        let seen = distance(next, sequence).unsigned_abs() as usize;
        if seen >= wire_len {
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        {
            self.next = Some(sequence.wrapping_add(wire_len as u32));
        }
        let bytes = bytes.get(seen..).unwrap_or_default();
        self.in_order(bytes, emitter, out);
        let missing = wire_len - seen - bytes.len();
        if missing > 0 && self.next.is_some() {
            let after = self.next;
            self.next = None;
            self.pass_missing(missing, after, emitter, out);
        }
    }

    /// Takes the octets that follow those taken before.
    fn in_order(&mut self, mut bytes: &[u8], emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = bytes.get(skipped..).unwrap_or_default();
        while !bytes.is_empty() {
            if self.partial.is_empty()
                && let Some((&prefix, rest)) = bytes.split_first_chunk::<PREFIX_LEN>()
                && let Some((message, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(prefix)))
            {
                bytes = rest;
                self.whole(message, emitter, out);
            } else {
                bytes = self.add_to_partial(bytes, emitter, out);
            }
            if self.next.is_none() {
                return;
            }
        }
    }

    /// Moves octets to the message that is not whole yet, and gives the rest.
    fn add_to_partial<'a>(
        &mut self,
        bytes: &'a [u8],
        emitter: &mut Emitter,
        out: &mut impl FnMut(&Sighting),
    ) -> &'a [u8] {
        let wanted = self.partial_len().unwrap_or(PREFIX_LEN) - self.partial.len();
        let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
        self.partial.extend_from_slice(now);
        if self.partial_len() == Some(self.partial.len()) {
            let partial = std::mem::take(&mut self.partial);
            self.whole(partial.get(PREFIX_LEN..).unwrap_or_default(), emitter, out);
        }
        rest
    }

    /// Octets of the message that is not whole yet, its prefix included, once that is known.
    fn partial_len(&self) -> Option<usize> {
        let &prefix = self.partial.first_chunk::<PREFIX_LEN>()?;
        Some(PREFIX_LEN + usize::from(u16::from_be_bytes(prefix)))
    }

    fn whole(&mut self, message: &[u8], emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        if self.unsure && !dns::is_plausible(message, false) {
            self.next = None;
            return;
        }
        self.unsure = false;
        emitter.dns(message, message.len(), out);
        if message.len() < dns::HEADER_LEN {
            // No length of a message: what follows is not at the start of one either.
            self.next = None;
        }
    }

    /// Octets before a waiting segment were lost.
    fn lose(&mut self, missing: usize, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        let after = self.next.map(|next| next.wrapping_add(missing as u32));
        self.next = None;
        self.pass_missing(missing, after, emitter, out);
    }

    /// Passes over octets that are not there: inside a message they leave it cut, and its end is still known.
    fn pass_missing(
        &mut self,
        missing: usize,
        after: Option<u32>,
        emitter: &mut Emitter,
        out: &mut impl FnMut(&Sighting),
    ) {
        let message_left = if self.partial.is_empty() {
            self.skip
        } else {
            self.partial_len().map_or(0, |len| len - self.partial.len())
        };
        self.skip = 0;
        self.tell_partial(emitter, out);
        if after.is_some() && missing <= message_left {
            self.skip = message_left - missing;
            self.next = after;
        }
    }

    /// Tells a message of which the rest will not come.
    fn tell_partial(&mut self, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        let size = self.partial_len();
        let partial = std::mem::take(&mut self.partial);
        if let (Some(size), Some(message)) = (size, partial.get(PREFIX_LEN..))
            && (!self.unsure || dns::is_plausible(message, true))
        {
            emitter.dns(message, size - PREFIX_LEN, out);
        }
    }
}

/// How far `sequence` is ahead of `next`, modulo 2^32 (RFC 9293 section 3.4).
#[expect(clippy::cast_possible_wrap, reason = "that is how sequence numbers are compared")]
const fn distance(sequence: u32, next: u32) -> i32 {
    sequence.wrapping_sub(next) as i32
}

/// The sequence number behind a segment.
#[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
const fn end(sequence: u32, wire_len: usize) -> u32 {
    sequence.wrapping_add(wire_len as u32)
}

/// Whether `sequence` is at `start`, or before it in the same connection.
const fn is_just_before(sequence: u32, start: u32) -> bool {
    start.wrapping_sub(sequence) <= MAX_JUMP
}

/// The messages that octets consist of; `None` where they are not just whole messages.
fn whole_messages(mut octets: &[u8]) -> Option<SmallVec<[&[u8]; 4]>> {
    let mut messages = SmallVec::new();
    while !octets.is_empty() {
        let (&prefix, rest) = octets.split_first_chunk::<PREFIX_LEN>()?;
        let (message, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(prefix)))?;
        if !dns::is_plausible(message, false) {
            return None;
        }
        messages.push(message);
        octets = rest;
    }
    (!messages.is_empty()).then_some(messages)
}

/// Whether a segment of a stream joined in the middle can begin with a message: a length that holds a header,
/// and a header and question of a kind that is in use; or the length alone.
fn may_start_message(bytes: &[u8], wire_len: usize) -> bool {
    let Some((&prefix, message)) = bytes.split_first_chunk::<PREFIX_LEN>() else { return false };
    if usize::from(u16::from_be_bytes(prefix)) < dns::HEADER_LEN {
        return false;
    }
    if message.is_empty() {
        wire_len == PREFIX_LEN
    } else {
        dns::is_plausible(message, bytes.len() < wire_len)
    }
}
