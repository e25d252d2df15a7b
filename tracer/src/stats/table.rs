//! Entries by key, of which the one used last is found again without hashing.
//!
//! What the engine tells comes in runs: the questions of one lookup have the same client, server and way.

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
use std::hash::{BuildHasher, Hash};

/// A table that only grows, in the order of its entries' first use.
#[derive(Clone, Debug)]
pub(crate) struct Table<K, V> {
    hasher: RandomState,
    places: HashTable<usize>,
    all: Vec<(K, V)>,
    last: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { hasher: RandomState::default(), places: HashTable::new(), all: Vec::new(), last: 0 }
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// The entry of `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.all.get(self.place(key)?).map(|(_, value)| value)
    }

    /// The entry of `key`, to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.last = self.place(key)?;
        self.all.get_mut(self.last).map(|(_, value)| value)
    }

    /// The entry of `key`, made where there is none; `None` where there are `most` others.
    #[inline]
    pub(crate) fn entry(&mut self, key: K, most: usize) -> Option<&mut V>
    where
        V: Default,
    {
        if self.all.get(self.last).is_none_or(|(known, _)| *known != key) {
            self.last = self.place_of(key, most)?;
        }
        self.all.get_mut(self.last).map(|(_, value)| value)
    }

    /// The same, for who can tell an entry by its key without having made one: it is made where the entry used last is
    /// another.
    #[inline]
    pub(crate) fn entry_like(
        &mut self,
        is_it: impl FnOnce(&K) -> bool,
        key: impl FnOnce() -> K,
        most: usize,
    ) -> Option<&mut V>
    where
        V: Default,
    {
        if self.all.get(self.last).is_none_or(|(known, _)| !is_it(known)) {
            self.last = self.place_of(key(), most)?;
        }
        self.all.get_mut(self.last).map(|(_, value)| value)
    }

    /// The entries in the order of their first use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.all.iter().map(|(key, value)| (key, value))
    }

    /// The same, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.all.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    #[inline]
    fn place(&self, key: &K) -> Option<usize> {
        let is_it = |place: &usize| self.all.get(*place).is_some_and(|(known, _)| known == key);
        if is_it(&self.last) {
            return Some(self.last);
        }
        self.places.find(self.hasher.hash_one(key), is_it).copied()
    }

    fn place_of(&mut self, key: K, most: usize) -> Option<usize>
    where
        V: Default,
    {
        let Self { hasher, places, all, .. } = self;
        let entry = places.entry(
            hasher.hash_one(&key),
            |&place| all.get(place).is_some_and(|(known, _)| *known == key),
            |&place| all.get(place).map_or(0, |(known, _)| hasher.hash_one(known)),
        );
        match entry {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(_) if all.len() >= most => None,
            Entry::Vacant(new) => {
                new.insert(all.len());
                all.push((key, V::default()));
                Some(all.len() - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_runs_and_across_them_up_to_the_bound() {
        let mut table: Table<u32, u32> = Table::default();
        for key in [7, 7, 9, 7, 9, 9, 11] {
            if let Some(count) = table.entry(key, 2) {
                *count += 1;
            }
        }
        assert_eq!(table.iter().map(|(key, count)| (*key, *count)).collect::<Vec<_>>(), [(7, 3), (9, 3)]);
        assert_eq!((table.get(&9), table.get(&11), table.len()), (Some(&3), None, 2));
        assert_eq!(table.get_mut(&11), None);
        *table.get_mut(&7).unwrap() = 1;
        assert_eq!(table.get(&7), Some(&1));
    }
}
