//! When frames were lost: between two readings of a counter that grew.

use crate::{
    model::{Observer, Timestamp},
    trace::MergedReader,
};

/// Files' counters are looked at once in so many frames.
const FRAMES: u32 = 256;

/// The counter as it was read last.
#[derive(Debug, Default)]
pub(super) struct LossWatch {
    lost: u64,
    /// Up to here nothing more was lost.
    known: Option<Timestamp>,
    frames: u32,
}

impl LossWatch {
    /// Takes a reading: `lost` so far, at `now`.
    pub(super) fn read(&mut self, lost: u64, now: Timestamp, out: &mut impl Observer) {
        if lost > self.lost {
            out.lost(self.known.unwrap_or(now), now, lost - self.lost);
            self.lost = lost;
        }
        self.known = Some(now);
    }

    /// Takes a frame of files; their counters are read now and then.
    pub(super) fn frame(&mut self, reader: &MergedReader, time: Timestamp, out: &mut impl Observer) {
        if self.known.is_none() {
            self.known = Some(time);
        }
        self.frames += 1;
        if self.frames >= FRAMES {
            self.frames = 0;
            self.files(reader, time, out);
        }
    }

    /// Reads the files' counters. Those who wrote no times say their losses at their end.
    pub(super) fn files(&mut self, reader: &MergedReader, time: Timestamp, out: &mut impl Observer) {
        let recorded = reader.recorded().map(|recorded| recorded.until);
        let known = self.known;
        self.read(reader.lost(), time, out);
        // What a file says later may still be of the time since it said something last.
        self.known = recorded.or(known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Vec<(u64, u64, u64)>);

    impl Observer for Told {
        fn lost(&mut self, from: Timestamp, until: Timestamp, frames: u64) {
            self.0.push((from.as_nanos(), until.as_nanos(), frames));
        }
    }

    #[test]
    fn growth_lies_between_two_readings() {
        let (mut watch, mut told) = (LossWatch::default(), Told::default());
        for (lost, now) in [(0, 10), (0, 20), (5, 30), (5, 40), (6, 50)] {
            watch.read(lost, Timestamp::from_nanos(now), &mut told);
        }
        assert_eq!(told.0, [(20, 30, 5), (40, 50, 1)]);
    }
}
