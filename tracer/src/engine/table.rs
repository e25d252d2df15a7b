//! Places for records: slabs that hand out small numbers, and chains that find records by key, newest first.
//!
//! A number that is not in use reads as the default record: a broken link ends a walk, it cannot panic.

use hashbrown::{HashTable, hash_table::Entry};

/// A record's place; [`NONE`] is no place.
pub(super) type Place = u32;
/// No place.
pub(super) const NONE: Place = Place::MAX;

/// Records by place, with free places kept for use again: the one that was freed first is used first. What comes
/// together then lies together and is read in a row, which the processor does ahead of us; by the last one first,
/// neighbours in time come to lie anywhere, and under load most of the engine's time was waiting for them.
#[derive(Debug)]
pub(super) struct Slab<T> {
    records: Vec<T>,
    free: Free,
    nothing: T,
}

/// The free places in a row: each names the one that was freed after it.
#[derive(Debug)]
struct Free {
    /// By place; of places in use it says nothing.
    next: Vec<Place>,
    first: Place,
    last: Place,
    count: usize,
}

impl Free {
    const fn new() -> Self {
        Self { next: Vec::new(), first: NONE, last: NONE, count: 0 }
    }

    #[inline]
    fn take(&mut self) -> Option<Place> {
        let place = self.first;
        self.first = *self.next.get(place as usize)?;
        self.count -= 1;
        if self.first == NONE {
            self.last = NONE;
        }
        Some(place)
    }

    #[inline]
    fn put(&mut self, place: Place) {
        if let Some(next) = self.next.get_mut(place as usize) {
            *next = NONE;
            match self.next.get_mut(self.last as usize) {
                Some(last) => *last = place,
                None => self.first = place,
            }
            self.last = place;
            self.count += 1;
        }
    }
}

impl<T: Default> Slab<T> {
    pub(super) fn new() -> Self {
        Self { records: Vec::new(), free: Free::new(), nothing: T::default() }
    }

    pub(super) fn insert(&mut self, record: T) -> Place {
        if let Some(place) = self.free.take() {
            if let Some(old) = self.records.get_mut(place as usize) {
                *old = record;
            }
            return place;
        }
        if self.records.len() == self.records.capacity() {
            self.records.reserve_exact((self.records.len() / 8).max(256));
            self.free.next.reserve_exact(self.records.capacity() - self.free.next.len());
        }
        self.records.push(record);
        self.free.next.push(NONE);
        Place::try_from(self.records.len() - 1).unwrap_or(NONE)
    }

    /// Takes the record out; its place may be handed out again. Only for places in use.
    pub(super) fn remove(&mut self, place: Place) -> T {
        match self.records.get_mut(place as usize) {
            Some(record) => {
                self.free.put(place);
                std::mem::take(record)
            }
            None => T::default(),
        }
    }

    /// The same, where nobody wants the record.
    pub(super) fn free(&mut self, place: Place) {
        if let Some(record) = self.records.get_mut(place as usize) {
            *record = T::default();
            self.free.put(place);
        }
    }

    pub(super) fn at(&self, place: Place) -> &T {
        self.records.get(place as usize).unwrap_or(&self.nothing)
    }

    pub(super) fn at_mut(&mut self, place: Place) -> &mut T {
        match self.records.get_mut(place as usize) {
            Some(record) => record,
            None => {
                self.nothing = T::default();
                &mut self.nothing
            }
        }
    }

    /// Records in use.
    pub(super) fn len(&self) -> usize {
        self.records.len() - self.free.count
    }

    /// Every place, the free ones (which hold the default) included.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.records.iter()
    }

    pub(super) fn memory(&self) -> usize {
        self.records.capacity() * size_of::<T>() + self.free.next.capacity() * size_of::<Place>()
    }
}

/// A record's neighbours among those of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) older: Place,
    pub(super) newer: Place,
}

impl Default for Links {
    fn default() -> Self {
        Self { older: NONE, newer: NONE }
    }
}

/// A record that chains hold.
pub(super) trait Chained: Default {
    /// What records of one chain have in common.
    type Key: PartialEq;
    fn key(&self) -> Self::Key;
    fn links(&mut self) -> &mut Links;
    fn hash(key: &Self::Key, hasher: &foldhash::fast::FixedState) -> u64;
}

/// Finds the newest record of a key; the older ones hang behind it.
#[derive(Debug)]
pub(super) struct Chains {
    hasher: foldhash::fast::FixedState,
    newest: HashTable<Place>,
}

impl Chains {
    pub(super) const fn new(hasher: foldhash::fast::FixedState) -> Self {
        Self { hasher, newest: HashTable::new() }
    }

    /// The newest record with this key, or [`NONE`].
    pub(super) fn newest<T: Chained>(&self, slab: &Slab<T>, key: &T::Key) -> Place {
        let hash = T::hash(key, &self.hasher);
        self.newest.find(hash, |&place| slab.at(place).key() == *key).copied().unwrap_or(NONE)
    }

    /// Puts the record at `place` on top of its chain.
    pub(super) fn push<T: Chained>(&mut self, slab: &mut Slab<T>, place: Place) {
        let key = slab.at(place).key();
        let hash = T::hash(&key, &self.hasher);
        let hasher = &self.hasher;
        let entry = self.newest.entry(
            hash,
            |&other| slab.at(other).key() == key,
            |&other| T::hash(&slab.at(other).key(), hasher),
        );
        match entry {
            Entry::Occupied(mut top) => {
                let older = std::mem::replace(top.get_mut(), place);
                slab.at_mut(older).links().newer = place;
                *slab.at_mut(place).links() = Links { older, newer: NONE };
            }
            Entry::Vacant(vacant) => {
                vacant.insert(place);
                *slab.at_mut(place).links() = Links::default();
            }
        }
    }

    /// Takes the record at `place` out of its chain.
    pub(super) fn remove<T: Chained>(&mut self, slab: &mut Slab<T>, place: Place) {
        let Links { older, newer } = std::mem::take(slab.at_mut(place).links());
        if older != NONE {
            slab.at_mut(older).links().newer = newer;
        }
        if newer != NONE {
            slab.at_mut(newer).links().older = older;
            return;
        }
        let hash = T::hash(&slab.at(place).key(), &self.hasher);
        if let Ok(mut entry) = self.newest.find_entry(hash, |&other| other == place) {
            if older == NONE {
                entry.remove();
            } else {
                *entry.get_mut() = older;
            }
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.newest.capacity() * 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldhash::fast::FixedState;
    use std::hash::BuildHasher;

    #[derive(Debug, Default)]
    struct Record {
        key: u64,
        links: Links,
    }

    impl Chained for Record {
        type Key = u64;
        fn key(&self) -> u64 {
            self.key
        }
        fn links(&mut self) -> &mut Links {
            &mut self.links
        }
        fn hash(key: &u64, hasher: &FixedState) -> u64 {
            hasher.hash_one(key)
        }
    }

    fn walk(chains: &Chains, slab: &Slab<Record>, key: u64) -> Vec<Place> {
        let mut found = vec![];
        let mut place = chains.newest(slab, &key);
        while place != NONE {
            found.push(place);
            place = slab.at(place).links.older;
        }
        found
    }

    #[test]
    fn a_chain_is_walked_newest_first_and_heals_where_one_leaves() {
        let (mut slab, mut chains) = (Slab::<Record>::new(), Chains::new(FixedState::with_seed(3)));
        let places: Vec<_> = (0..3)
            .map(|_| {
                let place = slab.insert(Record { key: 9, ..Record::default() });
                chains.push(&mut slab, place);
                place
            })
            .collect();
        assert_eq!(walk(&chains, &slab, 9), [places[2], places[1], places[0]]);
        chains.remove(&mut slab, places[1]);
        assert_eq!(walk(&chains, &slab, 9), [places[2], places[0]]);
        chains.remove(&mut slab, places[2]);
        assert_eq!(walk(&chains, &slab, 9), [places[0]]);
        chains.remove(&mut slab, places[0]);
        assert_eq!(walk(&chains, &slab, 9), [0_u32; 0]);
    }

    #[test]
    fn a_place_not_in_use_reads_as_nothing() {
        let mut slab = Slab::<Record>::new();
        slab.at_mut(NONE).key = 5;
        assert_eq!(slab.at_mut(7).key, 0);
    }
}
