//! A latency histogram of fixed size.

use std::time::Duration;

/// Buckets in one power of two: a quantile is at most 1/32 (3 %) above the value it stands for.
const STEPS: u64 = 32;
/// Shorter times than 2^10 ns share the lowest buckets.
const LOWEST_POWER: u32 = 10;
/// 2^42 ns, 73 minutes: longer times share the last bucket.
const HIGHEST_POWER: u32 = 42;
const BUCKETS: usize = (STEPS as usize) * (HIGHEST_POWER - LOWEST_POWER + 1) as usize;

/// Counts of durations in buckets that grow with the duration: 8 KiB whatever is recorded. The maximum is exact.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Empty until something is recorded.
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if self.buckets.is_empty() {
            self.buckets.resize(BUCKETS, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(bucket_of(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Counts what `other` counted too.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to += from;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Forgets everything; its memory is kept for what comes.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        (self.count, self.max) = (0, 0);
    }

    /// How many were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest one; `None` before the first.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.max))
    }

    /// The duration that `quantile` (0 to 1) of all were at most, to the upper end of its bucket; `None` before
    /// the first.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are far below 2^53, and the product is between 0 and the count"
        )]
        let rank = ((quantile.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return Some(Duration::from_nanos(upper_end(index).min(self.max)));
            }
        }
        self.max()
    }
}

fn bucket_of(nanos: u64) -> usize {
    let power = nanos.max(1).ilog2().min(HIGHEST_POWER);
    let bucket = if power < LOWEST_POWER {
        (nanos * STEPS) >> LOWEST_POWER
    } else {
        let step = ((nanos >> (power - STEPS.ilog2())) - STEPS).min(STEPS - 1);
        STEPS * u64::from(power - LOWEST_POWER + 1) + step
    };
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The largest value of a bucket.
fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64 + 1;
    let (group, step) = (bucket / STEPS, bucket % STEPS);
    let end = match u32::try_from(group) {
        Ok(0) | Err(_) => (bucket << LOWEST_POWER) / STEPS,
        Ok(group) => (STEPS + step) << (group - 1 + LOWEST_POWER - STEPS.ilog2()),
    };
    end - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(nanos: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for &n in nanos {
            histogram.record(Duration::from_nanos(n));
        }
        histogram
    }

    #[test]
    fn nothing_recorded_has_no_quantiles() {
        assert_eq!((Histogram::default().quantile(0.5), Histogram::default().max()), (None, None));
    }

    #[test]
    fn quantiles_of_a_hundred() {
        let histogram = of(&(1..=100).map(|n| n * 1_000_000).collect::<Vec<_>>());
        for (quantile, millis) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (1.0, 100.0)] {
            let shown = histogram.quantile(quantile).unwrap().as_secs_f64() * 1e3;
            assert!((millis..=millis * 1.032).contains(&shown), "{quantile}: {shown}");
        }
        assert_eq!(histogram.max(), Some(Duration::from_millis(100)));
    }

    #[test]
    fn merged_ones_count_as_if_all_was_recorded_in_one() {
        let mut merged = Histogram::default();
        for part in [&[][..], &[5_000, 900_000_000], &[70, 70_000], &[]] {
            merged.merge(&of(part));
        }
        let whole = of(&[5_000, 900_000_000, 70, 70_000]);
        let read = |histogram: &Histogram| {
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|quantile| histogram.quantile(quantile)).to_vec()
        };
        assert_eq!((merged.count(), merged.max(), read(&merged)), (4, whole.max(), read(&whole)));
        merged.clear();
        assert_eq!((merged.count(), merged.max(), merged.quantile(0.5)), (0, None, None));
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_one_bucket_above_its_value(nanos in 0_u64..1 << 42) {
            let bucket = bucket_of(nanos);
            let end = upper_end(bucket);
            prop_assert!(end >= nanos, "{nanos} is above its bucket's end {end}");
            prop_assert!(end - nanos <= nanos / 32 + 32, "{nanos} is far below its bucket's end {end}");
            prop_assert!(bucket == 0 || upper_end(bucket - 1) < nanos);
        }

        #[test]
        fn any_duration_is_counted(nanos in proptest::collection::vec(any::<u64>(), 1..50)) {
            let histogram = of(&nanos);
            prop_assert_eq!(histogram.count(), nanos.len() as u64);
            prop_assert!(histogram.quantile(0.5).unwrap() <= histogram.max().unwrap());
        }
    }
}
