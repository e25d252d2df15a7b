//! DNS messages out of TCP streams (RFC 7766 section 8: each behind a two-octet length).
//!
//! Rule: one stream is one direction of one connection at one vantage. Segments are put in order by sequence
//! number; octets seen before are passed over, so a retransmitted segment tells nothing twice. A segment that
//! never comes is waited for [`PATIENCE`]; then the stream goes on behind the hole, at the next place that can be
//! the start of a message. A stream joined in the middle starts there too; what is from before that place, or came
//! before it, is told when it is whole. All bounds are below; what is used
//! least goes first, and is counted if it held something.

use super::{emit::Emitter, stream::Stream, tcp::Segment};
use crate::model::{Flow, Sighting, Timestamp, VantageId};
use hashbrown::HashMap;
use std::{collections::VecDeque, time::Duration};

/// How long a missing segment is waited for: a sender's first retransmission comes within it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Streams at once.
const MAX_STREAMS: usize = 16_384;
/// Octets held for all streams together.
const MAX_HELD: usize = 8 * 1024 * 1024;
/// Holes waited for at once.
const MAX_HOLES: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    vantage: VantageId,
    flow: Flow,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    table: HashMap<Key, Stream, foldhash::fast::RandomState>,
    /// When each hole was opened, the oldest first.
    holes: VecDeque<(Timestamp, Key)>,
    /// Octets held by all streams.
    held: usize,
    /// Counts segments: the age of a stream that does not depend on clocks.
    tick: u64,
}

impl Streams {
    /// Takes one segment of a DNS connection and tells the messages it completes. The emitter is filled with
    /// the segment's headers.
    pub(super) fn segment(
        &mut self,
        segment: &Segment<'_>,
        emitter: &mut Emitter,
        out: &mut impl FnMut(&Sighting),
    ) {
        if segment.wire_len == 0 && !segment.syn && !segment.fin && !segment.rst {
            return;
        }
        let envelope = emitter.envelope();
        let key = Key { vantage: envelope.vantage, flow: envelope.flow };
        if self.table.len() >= MAX_STREAMS && !self.table.contains_key(&key) {
            self.forget_oldest(emitter);
        }
        self.tick += 1;
        let stream = self.table.entry(key).or_default();
        stream.used = self.tick;
        let (held, had_hole) = (stream.held(), stream.has_hole());
        stream.segment(segment, envelope, emitter, out);
        if stream.has_hole() && !had_hole {
            stream.hole_since = envelope.time;
            self.holes.push_back((envelope.time, key));
        }
        self.held = self.held + stream.held() - held;
        if self.held > MAX_HELD {
            self.empty_oldest(emitter);
        }
    }

    /// Whether a segment is waited for.
    #[inline]
    pub(super) fn any_waiting(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Goes on behind the holes that were waited for long enough.
    pub(super) fn advance(&mut self, now: Timestamp, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        while let Some(&(since, key)) = self.holes.front() {
            if now.since(since) < PATIENCE && self.holes.len() < MAX_HOLES {
                return;
            }
            self.holes.pop_front();
            let Some(stream) = self.table.get_mut(&key) else { continue };
            if !stream.has_hole() || stream.hole_since != since {
                continue;
            }
            let held = stream.held();
            stream.pass_hole(emitter, out);
            if stream.has_hole() {
                stream.hole_since = now;
                self.holes.push_back((now, key));
            }
            self.held = self.held + stream.held() - held;
        }
    }

    /// The session ends: tells what is there of every message, in the order the streams were last used.
    pub(super) fn finish(&mut self, emitter: &mut Emitter, out: &mut impl FnMut(&Sighting)) {
        let mut open: Vec<_> = self.table.iter_mut().filter(|(_, stream)| stream.has_hole()).collect();
        open.sort_unstable_by_key(|(_, stream)| stream.used);
        for (_, stream) in open {
            while stream.has_hole() {
                stream.pass_hole(emitter, out);
            }
        }
        emitter.counters.given_up += self.table.values().filter(|stream| stream.held() > 0).count() as u64;
        self.table.clear();
        self.holes.clear();
        self.held = 0;
    }

    /// Makes room: an eighth of all streams goes, those not used for longest.
    #[cold]
    fn forget_oldest(&mut self, emitter: &mut Emitter) {
        let limit = self.oldest(8, |_| true);
        let (held, counters) = (&mut self.held, &mut emitter.counters);
        self.table.retain(|_, stream| {
            if stream.used > limit {
                return true;
            }
            *held -= stream.held();
            counters.given_up += u64::from(stream.held() > 0);
            false
        });
    }

    /// Makes room: half of the streams that hold octets drop them, those not used for longest.
    #[cold]
    fn empty_oldest(&mut self, emitter: &mut Emitter) {
        let limit = self.oldest(2, |stream| stream.held() > 0);
        for stream in self.table.values_mut().filter(|stream| stream.used <= limit && stream.held() > 0) {
            self.held -= stream.held();
            stream.drop_held();
            emitter.counters.given_up += 1;
        }
    }

    /// The age up to which one in `part` of the streams that `which` picks are.
    fn oldest(&self, part: usize, which: impl Fn(&Stream) -> bool) -> u64 {
        let mut used: Vec<u64> = self.table.values().filter(|s| which(s)).map(|s| s.used).collect();
        let middle = used.len() / part;
        if middle < used.len() { *used.select_nth_unstable(middle).1 } else { 0 }
    }
}
