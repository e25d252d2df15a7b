//! Latencies in little memory.

use std::time::Duration;

/// Parts of a power of two.
const PARTS: usize = 16;
/// The largest power of two of microseconds that is told apart: 67 s.
const MAX_POWER: usize = 26;
const BUCKETS: usize = (MAX_POWER - 2) * PARTS;

/// Counts of latencies in buckets of at most 1/16 of their value: 1.5 KiB, quantiles within 3 %.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Box<[u32; BUCKETS]>,
    total: u64,
    /// Exact: the one slow answer is what a reader compares with other tools.
    largest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), total: 0, largest: Duration::ZERO }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = &mut self.buckets[bucket_of(micros)];
        *bucket = bucket.saturating_add(1);
        self.total += 1;
        self.largest = self.largest.max(latency);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *to = to.saturating_add(*from);
        }
        self.total += other.total;
        self.largest = self.largest.max(other.largest);
    }

    pub(super) fn clear(&mut self) {
        self.buckets.fill(0);
        self.total = 0;
        self.largest = Duration::ZERO;
    }

    /// The middle of the bucket in which the latency of this rank lies, at most the largest latency; `None` when
    /// there is none.
    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to total")]
        let rank = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.buckets.iter().position(|&count| {
            below += u64::from(count);
            below >= rank
        })?;
        Some(Duration::from_micros(middle_of(bucket)).min(self.largest))
    }
}

fn bucket_of(micros: u64) -> usize {
    let power = micros.checked_ilog2().unwrap_or(0) as usize;
    if power < 4 {
        return micros as usize;
    }
    let part = (micros >> (power - 4)) as usize % PARTS;
    ((power - 3) * PARTS + part).min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> u64 {
    let (row, part) = (bucket / PARTS, (bucket % PARTS) as u64);
    match row.checked_sub(1) {
        None => part,
        Some(shift) => ((PARTS as u64 + part) << shift) + (1 << shift) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_have_the_rank_they_say() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for micros in 1..=100 {
            histogram.record(Duration::from_micros(micros * 10));
        }
        let near = |quantile, micros: f64| {
            let found = histogram.quantile(quantile).unwrap().as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.04, "{quantile}: {found} is not near {micros}");
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_micros(1000)));
    }

    proptest! {
        #[test]
        fn a_bucket_is_near_all_its_values(micros in 0u64..1 << 27) {
            let middle = middle_of(bucket_of(micros)) as f64;
            prop_assert!((middle - micros as f64).abs() <= micros as f64 / 16.0);
        }

        #[test]
        fn any_latency_has_a_bucket(nanos in any::<u64>()) {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_nanos(nanos));
            prop_assert!(histogram.quantile(0.5).is_some());
        }
    }
}
