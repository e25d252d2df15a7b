//! Puts sightings into the order of time: several rings and files are merged, each ordered in itself.
//!
//! A sighting waits until one is seen (or the clock is told) that is `slack` younger; then everything before it
//! has come. What comes later than that is passed on at once, with its own time.

use super::records::{Bits, Packet};
use std::collections::VecDeque;

const BUCKETS: usize = 64;
/// Sightings that may wait at once; more are passed on before their time.
const MOST: usize = 65_536;
/// Emptied buckets keep room for so many, all together: what a burst took is given back after it.
const SPARE: usize = MOST / 4;
/// What came before so many others that it belongs behind is found a place when its bucket is passed on.
const NEIGHBOURS: usize = 8;

/// Sightings by time, in buckets of a sixteenth of the slack or a little less: a power of two, for speed.
#[derive(Debug)]
pub(super) struct Reorder {
    slack: u64,
    /// Binary logarithm of a bucket's nanoseconds.
    shift: u32,
    /// Number of the first bucket that is not passed on yet.
    base: u64,
    buckets: Vec<Vec<Packet>>,
    waiting: usize,
    /// Room of emptied buckets, for the next one that begins: were it left with them, all buckets would have it in the end,
    /// while packets are in less than half of them.
    spare: VecDeque<Vec<Packet>>,
    /// How many packets that holds.
    spare_room: usize,
}

impl Reorder {
    pub(super) fn new(slack: u64) -> Self {
        Self {
            slack,
            shift: (slack / 16).max(1).ilog2(),
            base: 0,
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            waiting: 0,
            spare: VecDeque::new(),
            spare_room: 0,
        }
    }

    /// How much later than its time a sighting is passed on at most.
    pub(super) const fn lag(&self) -> u64 {
        self.slack.saturating_add(1 << self.shift)
    }

    /// The time up to which everything was passed on.
    pub(super) const fn passed(&self) -> u64 {
        self.base << self.shift
    }

    /// Where the bucket that [`Self::take`] gave last starts.
    pub(super) const fn taken_from(&self) -> u64 {
        self.base.saturating_sub(1) << self.shift
    }

    /// The earliest bucket that `now` allows to be passed on, in order. Give it back with
    /// [`Self::give_back`].
    pub(super) fn take(&mut self, now: u64) -> Option<Vec<Packet>> {
        let limit =
            if self.waiting >= MOST { u64::MAX } else { now.saturating_sub(self.slack) >> self.shift };
        while self.waiting > 0 && self.base < limit {
            let bucket = std::mem::take(self.bucket(self.base));
            self.base += 1;
            if bucket.is_empty() {
                continue;
            }
            self.waiting -= bucket.len();
            let mut bucket = bucket;
            if !bucket.is_sorted_by(|a, b| a.time < b.time || order(a) <= order(b)) {
                bucket.sort_unstable_by_key(order);
            }
            return Some(bucket);
        }
        None
    }

    /// The emptied bucket of [`Self::take`], for use again.
    pub(super) fn give_back(&mut self, mut bucket: Vec<Packet>) {
        bucket.clear();
        if self.spare_room + bucket.capacity() <= SPARE {
            self.spare_room += bucket.capacity();
            self.spare.push_back(bucket);
        }
    }

    /// Nothing waits: goes forward to where `now` allows.
    pub(super) fn skip_to(&mut self, now: u64) {
        if self.waiting == 0 {
            self.base = self.base.max(now.saturating_sub(self.slack) >> self.shift);
        }
    }

    /// Puts a sighting in; gives it back where its time was passed on already.
    pub(super) fn put(&mut self, packet: Packet) -> Option<Packet> {
        let number = packet.time >> self.shift;
        if number < self.base {
            return Some(packet);
        }
        if self.peek(number).capacity() == 0
            && let Some(room) = self.spare.pop_front()
        {
            self.spare_room -= room.capacity();
            *self.bucket(number) = room;
        }
        let bucket = self.bucket(number);
        if bucket.len() == bucket.capacity() {
            bucket.reserve_exact((bucket.len() / 4).max(32));
        }
        bucket.push(packet);
        to_its_place(bucket);
        self.waiting += 1;
        None
    }

    /// When the earliest waiting sighting can be passed on.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        if self.waiting == 0 {
            return None;
        }
        let bucket = (self.base..self.base + BUCKETS as u64).find(|&n| !self.peek(n).is_empty())?;
        Some(((bucket + 1) << self.shift).saturating_add(self.slack))
    }

    /// Starts again at another time; only when nothing waits.
    pub(super) fn restart(&mut self, time: u64) {
        self.base = time.saturating_sub(self.slack) >> self.shift;
    }

    pub(super) fn memory(&self) -> usize {
        let room: usize = self.buckets.iter().map(Vec::capacity).sum();
        (room + self.spare_room) * size_of::<Packet>()
    }

    /// Packets that wait.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Packet> {
        self.buckets.iter().flatten()
    }

    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the length, which is constant")]
    fn bucket(&mut self, number: u64) -> &mut Vec<Packet> {
        &mut self.buckets[number as usize % BUCKETS]
    }

    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the length, which is constant")]
    fn peek(&self, number: u64) -> &Vec<Packet> {
        &self.buckets[number as usize % BUCKETS]
    }
}

/// Moves the last one before neighbours that come after it: two processors fill a ring, and are a little apart.
fn to_its_place(bucket: &mut [Packet]) {
    for last in (bucket.len().saturating_sub(NEIGHBOURS)..bucket.len()).rev() {
        let Some([before, after]) = last.checked_sub(1).and_then(|before| bucket.get_mut(before..=last))
        else {
            return;
        };
        if before.time < after.time || order(before) <= order(after) {
            return;
        }
        std::mem::swap(before, after);
    }
}

/// By time; at one time queries, then responses, then ICMP errors, then in the order of frames.
const fn order(packet: &Packet) -> (u64, u8, u64) {
    let rank = if packet.bits.has(Bits::ICMP) {
        2
    } else if packet.bits.has(Bits::RESPONSE) {
        1
    } else {
        0
    };
    (packet.time, rank, packet.frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    /// Sightings at this many a millisecond, for so long; gives the most octets that were held.
    fn play(reorder: &mut Reorder, from: u64, milliseconds: u64, rate: u64) -> usize {
        let mut most = 0;
        for time in (0..milliseconds * rate).map(|n| from + n * MILLISECOND / rate) {
            while let Some(bucket) = reorder.take(time) {
                reorder.give_back(bucket);
            }
            reorder.skip_to(time);
            assert!(reorder.put(Packet { time, ..Packet::default() }).is_none());
            most = most.max(reorder.memory());
        }
        most
    }

    #[test]
    fn memory_is_for_what_waits_and_little_more() {
        let slack = 50;
        let mut reorder = Reorder::new(slack * MILLISECOND);
        reorder.restart(1_000 * MILLISECOND);
        let waiting = |rate| ((slack + 3) * rate) as usize * size_of::<Packet>();
        let most = play(&mut reorder, 1_000 * MILLISECOND, 1_000, 330);
        println!("{most} octets held, {} waiting", waiting(330));
        assert!(most < waiting(330) * 3 / 2, "{most} octets for {}", waiting(330));
        // What came at once, and would have stayed in its bucket, is given back.
        let burst = Packet { time: 2_000 * MILLISECOND, ..Packet::default() };
        assert!((0..40_000).all(|_| reorder.put(burst).is_none()));
        assert!(reorder.memory() > 2 * most);
        play(&mut reorder, 2_000 * MILLISECOND, 100, 330);
        assert!(reorder.memory() <= most + most / 8, "{} octets are left", reorder.memory());
    }
}
