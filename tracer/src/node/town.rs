//! Who is there: what the kernel and the node's files said of the namespaces, put together without asking anybody.
//!
//! Two threads tell it: the one that looks at the node (`watch`), and at once the one that hears the kernel's news
//! (`links`). Every step brings its time, so that a test can put them into any order.
//!
//! Rules, all for one end, that nobody gets a wrong name:
//! - Numbers of namespaces are used again, and so are indexes of interfaces. What is known of a neighbour stays with the
//!   very interfaces that led to it: where one more leads to its number, it may be another one.
//! - Listing interfaces takes several answers. One that goes and one that comes in between may show the same number.
//! - An address belongs to a neighbour since the last time that it was asked for its addresses and did not have it yet, or
//!   since the last of its interfaces came.

use super::{
    census::{Census, Claim, Held, Nearness},
    links::{Link, Peers},
    naming::{Look, Naming},
};
use crate::model::{PodName, Pods, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often everything is looked at anew.
pub(super) const RESYNC: Duration = Duration::from_secs(5);
/// The least time between two looks at what is still coming.
pub(super) const SOON: Duration = Duration::from_millis(50);
/// A namespace's addresses, and its processes, are still coming while it is younger than this.
const YOUNG: Duration = Duration::from_secs(3);
/// The time between two looks while two have the same address.
const CONTESTED: Duration = Duration::from_secs(1);

/// How those are known that watched interfaces lead to, as of the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kubernetes pods by their name.
    pub pods: usize,
    /// Others by a name: containers of no pod, named network namespaces.
    pub others: usize,
    /// Those that two sources name differently: shown by address.
    pub ambiguous: usize,
    /// Those that no source names: shown by address.
    pub unknown: usize,
}

/// The network namespace of one whom a watched interface leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its inode number.
    pub inode: u64,
    /// A file that refers to it.
    pub path: PathBuf,
    /// The first of its addresses, where it has one yet.
    pub address: Option<IpAddr>,
}

/// A neighbour with a name.
pub(super) struct Resident {
    pub(super) name: PodName,
    pub(super) inode: u64,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) born: Timestamp,
}

/// A neighbour's key: which watched namespace, and its number there.
pub(super) type Key = (usize, i32);

/// What an interface of a watched namespace leads to.
#[derive(Debug)]
pub(super) struct Neighbour {
    links: BTreeSet<Link>,
    naming: Naming,
    addresses: Held,
    pub(super) inode: u64,
    /// A file that refers to its namespace, as it was when it was found.
    path: PathBuf,
    /// When the last of its interfaces came.
    born: Timestamp,
    /// When it was asked for its addresses.
    asked: Timestamp,
    tenancy: Tenancy,
}

/// Whether somebody is in a namespace, by its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tenancy {
    /// No process was ever seen.
    Unseen,
    Lived,
    /// The last process has ended: the kernel has not taken it down yet.
    Left,
}

impl Neighbour {
    fn new(born: Timestamp) -> Self {
        Self {
            links: BTreeSet::new(),
            naming: Naming::Unknown,
            addresses: Held::new(),
            inode: 0,
            path: PathBuf::new(),
            born,
            asked: born,
            tenancy: Tenancy::Unseen,
        }
    }

    /// Whether its name may still change for the better.
    pub(super) fn is_unsettled(&self, all: bool, now: Timestamp) -> bool {
        match &self.naming {
            Naming::Named(_) => all && !self.naming.is_pod(),
            Naming::Guessed(_) => all || self.is_young(now),
            Naming::Ambiguous | Naming::Unknown => true,
        }
    }

    fn is_young(&self, now: Timestamp) -> bool {
        now.since(self.born) < YOUNG
    }
}

/// A pod that no watched interface leads to.
struct Elsewhere {
    inode: u64,
    naming: Naming,
    addresses: Held,
}

/// Everybody who is there.
pub(super) struct Town {
    neighbours: HashMap<Key, Neighbour>,
    elsewhere: Vec<Elsewhere>,
    /// The watched namespaces' own addresses, and what they are called.
    own: Vec<(PodName, Held)>,
    /// When the interfaces came that there are.
    births: HashMap<(usize, u32), Timestamp>,
    /// When pods elsewhere and own addresses were last looked at.
    resynced: Timestamp,
    census: Census,
}

impl Town {
    /// Nobody is known; watched namespaces are called `own`. What is there by then is taken to have been there at
    /// `begun`.
    #[must_use]
    pub(super) fn new(pods: Pods, own: impl Iterator<Item = PodName>, begun: Timestamp) -> Self {
        Self {
            neighbours: HashMap::new(),
            elsewhere: Vec::new(),
            own: own.map(|name| (name, Held::new())).collect(),
            births: HashMap::new(),
            resynced: begun,
            census: Census::new(pods),
        }
    }

    /// An interface came at `time`, or changed.
    pub(super) fn came(&mut self, watched: usize, index: u32, time: Timestamp) {
        self.births.entry((watched, index)).or_insert(time);
    }

    /// News of interfaces were lost: those that are there may be others than before.
    pub(super) fn lost_news(&mut self) {
        self.births.clear();
    }

    /// An interface went at `time`, and with its last one the neighbour. Whether somebody else is there who has one of
    /// its addresses too: then it is worth a look.
    pub(super) fn gone(&mut self, watched: usize, link: &Link, time: Timestamp) -> bool {
        self.births.remove(&(watched, link.index));
        let left = self.neighbours.iter_mut().find_map(|(key, neighbour)| {
            let was_last = key.0 == watched && neighbour.links.remove(link) && neighbour.links.is_empty();
            was_last.then_some(*key)
        });
        let Some(neighbour) = left.and_then(|key| self.neighbours.remove(&key)) else { return false };
        self.census.gone(neighbour.naming.name(), &neighbour.addresses, time);
        let has_one = |addresses: &Held| addresses.keys().any(|it| neighbour.addresses.contains_key(it));
        self.elsewhere.retain(|pod| !has_one(&pod.addresses));
        self.neighbours.values().any(|other| has_one(&other.addresses))
    }

    /// Compares the interfaces of a watched namespace with those known, as they were listed after `time`.
    pub(super) fn meet(&mut self, watched: usize, peers: Peers, time: Timestamp) {
        let Self { neighbours, births, .. } = self;
        neighbours.retain(|key, neighbour| {
            key.0 != watched || peers.get(&key.1).is_some_and(|links| links.is_subset(&neighbour.links))
        });
        for (number, links) in peers {
            let came = |link: &Link| *births.entry((watched, link.index)).or_insert(time);
            let born = links.iter().map(came).max().unwrap_or(time);
            neighbours.entry((watched, number)).or_insert_with(|| Neighbour::new(born)).links = links;
        }
        let there: BTreeSet<u32> = neighbours
            .iter()
            .filter(|(key, _)| key.0 == watched)
            .flat_map(|(_, neighbour)| neighbour.links.iter().map(|link| link.index))
            .collect();
        // Those of the namespace itself are of no interest.
        births.retain(|(place, index), came| {
            *place != watched || there.contains(index) || time.since(*came) < YOUNG
        });
    }

    /// A neighbour's namespace was found.
    pub(super) fn found(&mut self, key: Key, inode: u64, path: &Path, naming: Naming) {
        if let Some(neighbour) = self.neighbours.get_mut(&key) {
            neighbour.inode = inode;
            neighbour.path = path.into();
            neighbour.naming = naming;
        }
    }

    /// A neighbour was asked after `time`, and has these addresses.
    pub(super) fn addressed(&mut self, key: Key, addresses: BTreeSet<IpAddr>, time: Timestamp) {
        if let Some(neighbour) = self.neighbours.get_mut(&key) {
            hold(&mut neighbour.addresses, addresses, neighbour.asked);
            neighbour.asked = neighbour.asked.max(time);
        }
    }

    /// A watched namespace has these addresses itself.
    pub(super) fn own(&mut self, watched: usize, addresses: BTreeSet<IpAddr>) {
        if let Some((_, held)) = self.own.get_mut(watched) {
            hold(held, addresses, self.resynced);
        }
    }

    /// Takes which namespaces have processes.
    pub(super) fn inhabited(&mut self, look: &Look) {
        for neighbour in self.neighbours.values_mut().filter(|neighbour| neighbour.inode != 0) {
            neighbour.tenancy = match neighbour.tenancy {
                _ if !look.processes.of(neighbour.inode).is_empty() => Tenancy::Lived,
                Tenancy::Lived => Tenancy::Left,
                tenancy => tenancy,
            };
        }
    }

    /// These are all the pods that no watched interface leads to.
    pub(super) fn elsewhere(&mut self, pods: Vec<(u64, Naming, BTreeSet<IpAddr>)>) {
        let before = std::mem::take(&mut self.elsewhere);
        let resynced = self.resynced;
        let again = |(inode, naming, addresses)| {
            let known = before.iter().find(|pod| pod.inode == inode && pod.naming == naming);
            let mut held = known.map(|pod| pod.addresses.clone()).unwrap_or_default();
            hold(&mut held, addresses, resynced);
            Elsewhere { inode, naming, addresses: held }
        };
        self.elsewhere = pods.into_iter().map(again).collect();
    }

    /// Leaves out whom an interface leads to by now (a pod that was being made at the last look at all) and who is gone:
    /// another may have the address before the next such look.
    pub(super) fn forget_elsewhere(&mut self, look: &Look) {
        let attached = self.attached();
        let there: BTreeSet<u64> = look.processes.namespaces().collect();
        self.elsewhere.retain(|pod| !attached.contains(&pod.inode) && there.contains(&pod.inode));
    }

    /// Tells who has which address now; `all`: everybody was looked at.
    pub(super) fn tell(&mut self, all: bool, now: Timestamp) {
        if all {
            self.resynced = now;
        }
        let attached = self.neighbours.values().map(|neighbour| Claim {
            name: neighbour.naming.name(),
            addresses: &neighbour.addresses,
            nearness: if neighbour.tenancy == Tenancy::Left { Nearness::Left } else { Nearness::Attached },
        });
        let node = self.own.iter().map(|(name, held)| Claim {
            name: Some(name),
            addresses: held,
            nearness: Nearness::Node,
        });
        let elsewhere = self.elsewhere.iter().map(|pod| Claim {
            name: pod.naming.name(),
            addresses: &pod.addresses,
            nearness: Nearness::Elsewhere,
        });
        self.census.take(attached.chain(node).chain(elsewhere), now);
    }

    /// Whether two have the same address.
    pub(super) fn is_contested(&self) -> bool {
        self.census.is_contested()
    }

    /// How long nothing new is to be expected, if no news come: who is young or has no name yet is looked at soon.
    pub(super) fn pause(&self, now: Timestamp) -> Duration {
        let is_coming = |neighbour: &&Neighbour| {
            neighbour.naming.name().is_none() || neighbour.addresses.is_empty() || neighbour.is_young(now)
        };
        let youngest =
            self.neighbours.values().filter(is_coming).map(|neighbour| now.since(neighbour.born)).min();
        let pause = youngest.map_or(RESYNC, soon);
        if self.is_contested() { pause.min(CONTESTED) } else { pause }
    }

    /// Those whom watched interfaces lead to.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = (Key, &Neighbour)> {
        self.neighbours.iter().map(|(key, neighbour)| (*key, neighbour))
    }

    /// Those of them who have a name.
    pub(super) fn residents(&self) -> Vec<Resident> {
        let resident = |neighbour: &Neighbour| {
            Some(Resident {
                name: neighbour.naming.name()?.clone(),
                inode: neighbour.inode,
                addresses: neighbour.addresses.keys().copied().collect(),
                born: neighbour.born,
            })
        };
        self.neighbours.values().filter_map(resident).collect()
    }

    /// Those whose addresses may have changed since they were asked.
    pub(super) fn to_be_asked(&self, all: bool, now: Timestamp) -> Vec<Key> {
        let may_have =
            |neighbour: &Neighbour| all || neighbour.is_young(now) || neighbour.addresses.is_empty();
        self.neighbours().filter(|(_, neighbour)| may_have(neighbour)).map(|(key, _)| key).collect()
    }

    /// The namespaces that watched interfaces lead to.
    pub(super) fn attached(&self) -> BTreeSet<u64> {
        self.neighbours.values().map(|neighbour| neighbour.inode).collect()
    }

    /// Every pod with the inode of its namespace.
    pub(super) fn pods(&self) -> BTreeMap<PodName, u64> {
        let attached = self.neighbours.values().map(|neighbour| (&neighbour.naming, neighbour.inode));
        let elsewhere = self.elsewhere.iter().map(|pod| (&pod.naming, pod.inode));
        let named = |(naming, inode): (&Naming, u64)| Some((naming.name()?.clone(), inode));
        attached.chain(elsewhere).filter(|(naming, _)| naming.is_pod()).filter_map(named).collect()
    }

    /// The namespaces of neighbours that were found.
    pub(super) fn inside(&self) -> Vec<Inside> {
        let inside = |neighbour: &Neighbour| Inside {
            inode: neighbour.inode,
            path: neighbour.path.clone(),
            address: neighbour.addresses.keys().next().copied(),
        };
        self.neighbours.values().filter(|neighbour| neighbour.inode != 0).map(inside).collect()
    }

    /// How they are known.
    pub(super) fn count(&self) -> Counts {
        let mut counts = Counts::default();
        for neighbour in self.neighbours.values() {
            match &neighbour.naming {
                naming if naming.is_pod() => counts.pods += 1,
                Naming::Named(_) | Naming::Guessed(_) => counts.others += 1,
                Naming::Ambiguous => counts.ambiguous += 1,
                Naming::Unknown => counts.unknown += 1,
            }
        }
        counts
    }
}

/// The time until the next look at something of this age.
pub(super) fn soon(age: Duration) -> Duration {
    (age / 4).clamp(SOON, RESYNC)
}

/// Replaces the addresses that are held; new ones are held since `since`.
fn hold(held: &mut Held, addresses: BTreeSet<IpAddr>, since: Timestamp) {
    let before = std::mem::take(held);
    let since_of = |address| (address, before.get(&address).copied().unwrap_or(since));
    *held = addresses.into_iter().map(since_of).collect();
}

#[cfg(test)]
mod tests;
