//! What happened when: counts and waits over time, in a bounded number of buckets however long it takes.

use super::Histogram;
use crate::model::Timestamp;
use std::{collections::BTreeMap, time::Duration};

/// Buckets from the first to the last; where there would be more, each becomes twice as long.
const MOST: u64 = 120;
/// The shortest bucket, in nanoseconds.
const SHORTEST: u64 = 100_000_000;

/// What happened in one bucket.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// Lookups that started.
    pub lookups: u64,
    /// Of them, those that failed.
    pub failed: u64,
    /// What was waited for the answers of questions asked then.
    pub waits: Histogram,
}

impl Bucket {
    fn merge(&mut self, other: &Self) {
        self.lookups += other.lookups;
        self.failed += other.failed;
        self.waits.merge(&other.waits);
    }
}

/// Buckets by time, at most 120.
#[derive(Clone, Debug)]
pub struct Series {
    /// By their time in widths since the epoch.
    buckets: BTreeMap<u64, Bucket>,
    width: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { buckets: BTreeMap::new(), width: SHORTEST }
    }
}

impl Series {
    /// The bucket of `time`.
    pub fn at(&mut self, time: Timestamp) -> &mut Bucket {
        let ends = |buckets: &BTreeMap<u64, Bucket>| {
            buckets
                .first_key_value()
                .zip(buckets.last_key_value())
                .map(|((first, _), (last, _))| (*first, *last))
        };
        let (first, last) = ends(&self.buckets).unwrap_or((time.as_nanos() / self.width, 0));
        let (mut first, mut last) =
            (first.min(time.as_nanos() / self.width), last.max(time.as_nanos() / self.width));
        while last - first >= MOST {
            (first, last) = (first / 2, last / 2);
            self.width = self.width.saturating_mul(2);
            let mut wider: BTreeMap<u64, Bucket> = BTreeMap::new();
            for (index, bucket) in std::mem::take(&mut self.buckets) {
                wider.entry(index / 2).or_default().merge(&bucket);
            }
            self.buckets = wider;
        }
        self.buckets.entry(time.as_nanos() / self.width).or_default()
    }

    /// How long a bucket is.
    #[must_use]
    pub const fn width(&self) -> Duration {
        Duration::from_nanos(self.width)
    }

    /// The buckets in which something happened, each with its start.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, &Bucket)> {
        self.buckets
            .iter()
            .map(|(index, bucket)| (Timestamp::from_nanos(index.saturating_mul(self.width)), bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_with_the_time_and_lose_nothing() {
        let mut series = Series::default();
        let start = 1_700_000_000_000_000_000;
        for second in (0..86_400).rev() {
            let bucket = series.at(Timestamp::from_nanos(start + second * 1_000_000_000));
            bucket.lookups += 1;
            bucket.waits.record(Duration::from_millis(5));
        }
        assert!(series.buckets.len() as u64 <= MOST && series.buckets.len() > 50, "{}", series.buckets.len());
        assert_eq!(series.iter().map(|(_, bucket)| bucket.lookups).sum::<u64>(), 86_400);
        assert_eq!(series.iter().map(|(_, bucket)| bucket.waits.count()).sum::<u64>(), 86_400);
    }

    #[test]
    fn times_that_are_far_apart_are_no_trouble() {
        let mut series = Series::default();
        for time in [Timestamp::MAX, Timestamp::EPOCH, Timestamp::from_nanos(1)] {
            series.at(time).lookups += 1;
        }
        assert_eq!(series.iter().map(|(_, bucket)| bucket.lookups).collect::<Vec<_>>(), [2, 1]);
    }
}
