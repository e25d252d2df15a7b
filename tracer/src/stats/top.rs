//! Who or what occurs most, in bounded memory.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// Keys counted one by one; beyond, the lesser half is forgotten.
const MOST: usize = 4_096;

/// What is counted of a client or a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Lookups.
    pub lookups: u64,
    /// Lookups that ended without an address.
    pub without: u64,
    /// Query messages.
    pub queries: u64,
    /// Answers, where who counts them looks at these.
    pub answers: u64,
    /// Of them, those NXDOMAIN.
    pub nxdomain: u64,
    /// How long these lookups took, together.
    pub took: Duration,
}

/// Counts by key. Exact for up to 4,096 keys; of more, those that came back after they were forgotten are counted too low.
#[derive(Clone, Debug)]
pub struct Top<K> {
    counts: HashMap<K, Share, foldhash::fast::RandomState>,
    forgotten: bool,
}

impl<K> Default for Top<K> {
    fn default() -> Self {
        Self { counts: HashMap::default(), forgotten: false }
    }
}

impl<K: Clone + Eq + Hash + Ord> Top<K> {
    /// Counts one lookup.
    pub fn add(&mut self, key: &K, one: Share) {
        if !self.counts.contains_key(key) && self.counts.len() >= MOST {
            self.forgotten = true;
            self.counts =
                self.ranked(MOST / 2).into_iter().map(|(key, share)| (key.clone(), share)).collect();
        }
        let share = self.counts.entry(key.clone()).or_default();
        share.lookups += one.lookups;
        share.without += one.without;
        share.queries += one.queries;
        share.answers += one.answers;
        share.nxdomain += one.nxdomain;
        share.took = share.took.saturating_add(one.took);
    }

    /// The first `most` of them by query messages.
    #[must_use]
    pub fn ranked(&self, most: usize) -> Vec<(&K, Share)> {
        let mut all: Vec<(&K, Share)> = self.counts.iter().map(|(key, share)| (key, *share)).collect();
        all.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.queries.cmp(&of_a.queries).then_with(|| a.cmp(b)));
        all.truncate(most);
        all
    }

    /// How many there are; `None` where some were forgotten.
    #[must_use]
    pub fn len(&self) -> Option<usize> {
        (!self.forgotten).then_some(self.counts.len())
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_ones_outlive_a_flood_of_others() {
        let mut top = Top::default();
        for round in 0..50_u64 {
            for name in 0..10_000_u64 {
                top.add(&(1_000_000 + round * 10_000 + name), Share { queries: 1, ..Share::default() });
                if name % 100 == 0 {
                    top.add(&7, Share { queries: 2, lookups: 1, ..Share::default() });
                }
            }
        }
        assert!(top.counts.len() <= MOST);
        assert_eq!(top.ranked(1)[0], (&7, Share { queries: 10_000, lookups: 5_000, ..Share::default() }));
        assert_eq!(top.len(), None);
    }
}
