//! Source addresses that NAT gave to clients: needed for answers that are seen before they are translated back.
//! And the addresses that are asked as servers.

use super::intern::{Address, Endpoint};
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet, hash_map};

/// Entries of one generation, and how long it lasts (more than a resolver waits for an answer).
const MOST: usize = 16_384;
const GENERATION: u64 = 30_000_000_000;

/// Translated client addresses, in two generations: entries not used for one generation go.
#[derive(Debug)]
pub(super) struct Aliases {
    young: HashMap<Endpoint, Endpoint, FixedState>,
    old: HashMap<Endpoint, Endpoint, FixedState>,
    since: u64,
}

impl Aliases {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { young: HashMap::with_hasher(hasher.clone()), old: HashMap::with_hasher(hasher), since: 0 }
    }

    /// `outside` is `inside` behind NAT, as of `now`.
    pub(super) fn learn(&mut self, outside: Endpoint, inside: Endpoint, now: u64) {
        if outside == inside {
            return;
        }
        if self.young.len() >= MOST || now.abs_diff(self.since) > GENERATION {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.since = now;
        }
        self.young.insert(outside, inside);
    }

    /// The client's own address behind `outside`.
    pub(super) fn inside(&self, outside: Endpoint) -> Option<Endpoint> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        self.young.get(&outside).or_else(|| self.old.get(&outside)).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Endpoint> {
        let pairs = |map| -> hash_map::Iter<'_, Endpoint, Endpoint> { HashMap::iter(map) };
        pairs(&self.young).chain(pairs(&self.old)).flat_map(|(a, b)| [*a, *b])
    }

    pub(super) fn memory(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) * 18
    }
}

/// Addresses that are told apart as servers.
const MOST_SERVERS: usize = 4_096;

/// The addresses that were asked, service addresses and backends.
#[derive(Debug)]
pub(super) struct Servers {
    all: HashSet<Address, FixedState>,
    /// The one noted last: most queries go to the same.
    last: Option<Address>,
    /// A bit for each address: nearly all that are asked for are none of these.
    filter: u64,
}

impl Servers {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { all: HashSet::with_hasher(hasher), last: None, filter: 0 }
    }

    pub(super) fn note(&mut self, server: Endpoint) {
        let address = server.address();
        if self.last != Some(address) && (self.all.len() < MOST_SERVERS || self.has(address)) {
            self.all.insert(address);
            self.filter |= address.filter_bit();
            self.last = Some(address);
        }
    }

    pub(super) fn has(&self, address: Address) -> bool {
        self.filter & address.filter_bit() != 0 && self.all.contains(&address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Address> {
        self.all.iter().copied()
    }

    pub(super) fn memory(&self) -> usize {
        self.all.capacity() * 9
    }
}
