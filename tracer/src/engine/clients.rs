//! Clients: their open lookups, and what is remembered of them between lookups.

use super::{
    Engine,
    intern::Address,
    search::{Knowledge, SearchList, Suffixes},
    table::{Links, NONE, Place},
    votes::Votes,
};
use crate::model::{Family, Lookup, PodName};
use std::{hash::BuildHasher, net::IpAddr};

/// Clients without open lookups that are remembered at least.
const REMEMBERED: usize = 16_384;

/// Lookups begun since that say whose lookup one was.
const MOST_NEWER: usize = 4;

/// One address that asks.
#[derive(Debug)]
pub(super) struct ClientRecord {
    pub(super) address: Address,
    /// Its newest open lookup.
    pub(super) newest: Place,
    open: u32,
    seen: u64,
    /// What its lookups showed; `None` until the first one ended.
    pub(super) learnt: Option<Box<Learnt>>,
}

/// What a client's lookups showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Learnt {
    pub(super) votes: Votes,
    pub(super) suffixes: Suffixes,
    /// Its resolv.conf, where somebody told it.
    pub(super) list: Option<SearchList>,
    /// The pod that it is, where somebody told it.
    owner: Option<PodName>,
}

impl Default for ClientRecord {
    fn default() -> Self {
        Self { address: Address::default(), newest: NONE, open: 0, seen: 0, learnt: None }
    }
}

impl Engine {
    pub(super) fn client_place(&self, address: Address) -> Place {
        let hash = self.hasher.hash_one(address);
        let known = |&place: &Place| self.clients.at(place).address == address;
        self.client_index.find(hash, known).copied().unwrap_or(NONE)
    }

    /// The record of a client, made if it is new.
    pub(super) fn client(&mut self, address: Address, now: u64) -> Place {
        let known = self.client_place(address);
        if known != NONE {
            self.clients.at_mut(known).seen = now;
            return known;
        }
        if self.clients.len() >= self.sweep_clients_at {
            self.forget_clients();
        }
        let place = self.clients.insert(ClientRecord { address, seen: now, ..ClientRecord::default() });
        let (hasher, clients) = (&self.hasher, &self.clients);
        self.client_index.insert_unique(hasher.hash_one(address), place, |&other| {
            hasher.hash_one(clients.at(other).address)
        });
        place
    }

    /// Forgets the older half of the clients without open lookups; those whose resolv.conf is known stay.
    fn forget_clients(&mut self) {
        let told = |c: &ClientRecord| c.learnt.as_ref().is_some_and(|l| l.list.is_some());
        let mut idle: Vec<u64> =
            self.clients.iter().filter(|c| c.open == 0 && c.seen > 0 && !told(c)).map(|c| c.seen).collect();
        let middle = idle.len() / 2;
        let busy = self.clients.len() - idle.len();
        let limit = if idle.is_empty() { 0 } else { *idle.select_nth_unstable(middle).1 };
        let mut gone = Vec::new();
        let clients = &self.clients;
        self.client_index.retain(|&mut place| {
            let client = clients.at(place);
            let keep = client.open > 0 || client.seen > limit || told(client);
            if !keep {
                gone.push(place);
            }
            keep
        });
        for place in gone {
            self.clients.remove(place);
        }
        // Twice what is left would let it grow at each sweep by those that are busy.
        self.sweep_clients_at = REMEMBERED + 2 * busy;
    }

    pub(super) fn link_to_client(&mut self, lookup: Place, client: Place) {
        let record = self.clients.at_mut(client);
        record.open += 1;
        let older = std::mem::replace(&mut record.newest, lookup);
        self.lookups.at_mut(lookup).of_client = Links { older, newer: NONE };
        if older != NONE {
            self.lookups.at_mut(older).of_client.newer = lookup;
        }
    }

    pub(super) fn unlink_from_client(&mut self, lookup: Place) {
        let record = self.lookups.at(lookup);
        let (Links { older, newer }, client) = (record.of_client, record.client);
        if older != NONE {
            self.lookups.at_mut(older).of_client.newer = newer;
        }
        let client = self.clients.at_mut(client);
        client.open = client.open.saturating_sub(1);
        if newer == NONE {
            client.newest = older;
        } else {
            self.lookups.at_mut(newer).of_client.older = older;
        }
    }

    /// Tells whose address a client's is from now on: what was learnt of another pod there is forgotten.
    pub fn set_owner(&mut self, client: IpAddr, owner: &PodName) {
        let address = self.addresses.address(client);
        let place = self.client(address, self.now);
        let learnt = self.learnt_mut(place);
        if learnt.owner.as_ref() == Some(owner) {
            return;
        }
        if learnt.owner.is_some() {
            *learnt = Learnt::default();
        }
        learnt.owner = Some(owner.clone());
    }

    pub(super) fn learnt_mut(&mut self, client: Place) -> &mut Learnt {
        self.clients.at_mut(client).learnt.get_or_insert_default()
    }

    /// What is known of a client's search list.
    pub(super) fn knowledge(&self, client: Place) -> Knowledge<'_> {
        let learnt = self.clients.at(client).learnt.as_deref();
        Knowledge {
            told: learnt.and_then(|l| l.list.as_ref()).or(self.config.resolv_conf.as_ref()),
            seen: learnt.map(|l| &l.suffixes),
        }
    }

    /// The family of the client of an open lookup: its earlier votes and this lookup's.
    pub(super) fn family_of(&self, lookup: Place) -> Family {
        let client = self.lookups.at(lookup).client;
        let mut votes = self.clients.at(client).learnt.as_ref().map(|l| l.votes.clone()).unwrap_or_default();
        self.vote(lookup, &mut votes);
        votes.family()
    }

    /// The family of a client by its votes so far and, while these are few, by the lookups that it has begun since: one
    /// pair errs, and a program seldom asks once.
    pub(super) fn family_seen(&self, lookup: Place, votes: &Votes) -> Family {
        let mut newer = self.lookups.at(lookup).of_client.newer;
        if newer == NONE || votes.are_many() {
            return votes.family();
        }
        let mut votes = votes.clone();
        for _ in 0..MOST_NEWER {
            if newer == NONE {
                break;
            }
            self.vote(newer, &mut votes);
            newer = self.lookups.at(newer).of_client.newer;
        }
        votes.family()
    }

    /// Remembers the suffixes that a lookup's candidates show.
    pub(super) fn learn_suffixes(&mut self, client: Place, lookup: &Lookup) {
        let suffixes = &mut self.learnt_mut(client).suffixes;
        let expanded = lookup.steps.iter().filter(|step| step.name != lookup.name);
        for (place, step) in expanded.enumerate() {
            suffixes.learn(&lookup.name, &step.name, place);
        }
    }
}
