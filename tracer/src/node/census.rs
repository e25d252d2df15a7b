//! Who has which address now, told to [`Pods`] as it changes.
//!
//! An address that two claim is told to nobody: a wrong name is worse than none. What is attached to a watched namespace
//! goes before what is merely there, since only its packets are seen; and who has no process left goes behind everybody.
//!
//! What a look shows has begun some time before it. So where an address goes from one to another, the first had it until
//! the time the second can have had it at the earliest, the second has it from the time the first is known to have it no
//! more, and what was sent between these is nobody's.

use crate::model::{PodName, Pods, Timestamp};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

/// Addresses that somebody has, each since when at the earliest.
pub(super) type Held = BTreeMap<IpAddr, Timestamp>;

/// Who has an address now can have had it no longer than this when somebody else still had it.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How near a claimant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Nearness {
    /// What a watched interface still leads to, though its last process has ended.
    Left,
    /// A pod of this node that no watched interface leads to: by macvlan, SR-IOV, or in another watched network.
    Elsewhere,
    /// A watched namespace itself.
    Node,
    /// What a watched interface leads to.
    Attached,
}

/// A namespace that has addresses.
#[derive(Clone, Debug)]
pub(super) struct Claim<'a> {
    /// Whose it is; `None` where nobody knows.
    pub(super) name: Option<&'a PodName>,
    /// Its addresses.
    pub(super) addresses: &'a Held,
    /// How near it is.
    pub(super) nearness: Nearness,
}

/// Who may have an address, of all who claim it.
#[derive(Clone, Copy)]
struct Claimant<'a> {
    nearness: Nearness,
    name: Option<&'a PodName>,
    /// Since when the last of them has it.
    since: Timestamp,
    /// There are several, by different names.
    contested: bool,
}

impl<'a> Claimant<'a> {
    fn and(self, other: Self) -> Self {
        let is_same = self.name.is_some() && self.name == other.name;
        let nearer = if self.nearness < other.nearness { other } else { self };
        let is_tie = self.nearness == other.nearness;
        Self {
            nearness: nearer.nearness,
            name: if is_tie && !is_same { None } else { nearer.name },
            since: if is_same { self.since.min(other.since) } else { self.since.max(other.since) },
            contested: self.contested || other.contested || !is_same,
        }
    }
}

/// What was told so far.
#[derive(Debug)]
pub(super) struct Census {
    pods: Pods,
    told: HashMap<IpAddr, PodName>,
    /// Addresses that several claimed at the last look.
    contested: HashSet<IpAddr>,
    /// Until when somebody had an address who has it no more, or may have had it.
    left: HashMap<IpAddr, Timestamp>,
}

impl Census {
    /// Tells `pods`.
    #[must_use]
    pub(super) fn new(pods: Pods) -> Self {
        Self { pods, told: HashMap::new(), contested: HashSet::new(), left: HashMap::new() }
    }

    /// Takes everybody who is there at `now`: tells who is new, and that the others are gone.
    pub(super) fn take<'a>(&mut self, claims: impl IntoIterator<Item = Claim<'a>>, now: Timestamp) {
        let mut owners: HashMap<IpAddr, Claimant<'a>> = HashMap::new();
        for Claim { name, addresses, nearness } in claims {
            for (&address, &since) in addresses {
                let new = Claimant { nearness, name, since, contested: false };
                owners.entry(address).and_modify(|owner| *owner = owner.and(new)).or_insert(new);
            }
        }
        let Self { pods, told, contested, left } = self;
        told.retain(|address, name| {
            let owner = owners.get(address);
            let stays = owner.is_some_and(|owner| owner.name == Some(&*name));
            if !stays {
                pods.end(*address, owner.map_or(now, |owner| owner.since.min(now)));
                left.insert(*address, now);
            }
            stays
        });
        let were_contested = std::mem::take(contested);
        for (address, owner) in owners {
            if owner.contested {
                contested.insert(address);
            }
            if owner.contested || were_contested.contains(&address) {
                left.insert(address, now);
            }
            if let (Some(name), false) = (owner.name, told.contains_key(&address)) {
                let since = left.get(&address).map_or(owner.since, |left| owner.since.max(*left));
                // The one before was there longer than that, as far as its interface goes.
                pods.end(address, owner.since);
                pods.tell(address, name.clone(), since);
                told.insert(address, name.clone());
            }
        }
        left.retain(|_, left| now.since(*left) < REMEMBERED);
    }

    /// Says at once that one with this name and these addresses was gone at `time`.
    pub(super) fn gone(&mut self, name: Option<&PodName>, addresses: &Held, time: Timestamp) {
        for address in addresses.keys() {
            self.left.insert(*address, time);
            if name.is_some() && self.told.get(address) == name {
                self.told.remove(address);
                self.pods.end(*address, time);
            }
        }
    }

    /// Whether several claim an address.
    pub(super) fn is_contested(&self) -> bool {
        !self.contested.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Town {
        pods: Pods,
        census: Census,
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn held(list: &[&str], since: u64) -> Held {
        list.iter().map(|address| (address.parse().unwrap(), at(since))).collect()
    }

    fn pod(name: &str) -> Option<PodName> {
        (!name.is_empty()).then(|| PodName { namespace: "shop".into(), name: name.to_owned() })
    }

    impl Town {
        fn new() -> Self {
            let pods = Pods::new();
            Self { census: Census::new(pods.clone()), pods }
        }

        /// The names of claimants have the time behind them since when they have their addresses.
        fn take(&mut self, seconds: u64, claims: &[(&str, &[&str], Nearness)]) {
            let all: Vec<(Option<PodName>, Held, Nearness)> = claims
                .iter()
                .map(|(name, list, nearness)| {
                    let (name, since) = name.split_once('@').unwrap_or((name, "0"));
                    (pod(name), held(list, since.parse().unwrap()), *nearness)
                })
                .collect();
            let claims = all.iter().map(|(name, addresses, nearness)| Claim {
                name: name.as_ref(),
                addresses,
                nearness: *nearness,
            });
            self.census.take(claims, at(seconds));
        }

        fn name(&self, address: &str, seconds: u64) -> String {
            let name = self.pods.name_at(address.parse().unwrap(), at(seconds));
            name.map_or_else(String::new, |name| name.name.clone())
        }
    }

    use Nearness::{Attached, Elsewhere, Left, Node};

    /// Who had an address in each of these seconds; `-`: nobody.
    fn owners(town: &Town, address: &str, seconds: std::ops::Range<u64>) -> String {
        let name = |second| town.name(address, second);
        seconds.map(name).map(|name| if name.is_empty() { "-".into() } else { name }).collect()
    }

    #[test]
    fn pods_come_and_go_and_addresses_are_used_again() {
        let mut town = Town::new();
        town.take(1, &[("a", &["10.0.0.1", "fd00::1"], Attached), ("b", &["10.0.0.2"], Attached)]);
        town.census.gone(pod("a").as_ref(), &held(&["10.0.0.1", "fd00::1"], 0), at(5));
        town.take(6, &[("@6", &["10.0.0.1"], Attached), ("b", &["10.0.0.2"], Attached)]);
        town.take(7, &[("c@6", &["10.0.0.1"], Attached)]);
        let seen = |seconds| ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|a| town.name(a, seconds)).join(" ");
        assert_eq!(seen(4), "a a b");
        assert_eq!(seen(6), "c  b");
        assert_eq!(seen(8), "c  ");
    }

    #[test]
    fn an_address_of_two_is_nobodys() {
        let mut town = Town::new();
        town.take(1, &[("a", &["10.0.0.1"], Attached), ("b", &["10.0.0.1"], Attached)]);
        assert!(town.census.is_contested());
        assert_eq!(town.name("10.0.0.1", 1), "");
        town.take(2, &[("a", &["10.0.0.1"], Attached)]);
        assert!(!town.census.is_contested());
        assert_eq!((town.name("10.0.0.1", 1), town.name("10.0.0.1", 2)), (String::new(), "a".into()));
        // A namespace without a name claims its address too.
        town.take(5, &[("a", &["10.0.0.1"], Attached), ("@3", &["10.0.0.1"], Attached)]);
        assert_eq!((town.name("10.0.0.1", 3), town.name("10.0.0.1", 4)), ("a".into(), String::new()));
    }

    #[test]
    fn who_is_attached_goes_first() {
        let mut town = Town::new();
        let claims: [(&str, &[&str], Nearness); 4] = [
            ("left", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], Left),
            ("far", &["10.0.0.1", "10.0.0.2", "10.0.0.3"], Elsewhere),
            ("node", &["10.0.0.1", "10.0.0.2"], Node),
            ("near", &["10.0.0.1"], Attached),
        ];
        town.take(1, &claims);
        let names = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|a| town.name(a, 1));
        assert_eq!(names, ["near", "node", "far", "left"]);
    }

    #[test]
    fn what_was_sent_before_an_owner_came_is_nobodys() {
        let mut town = Town::new();
        town.take(5, &[("a@3", &["10.0.0.1"], Attached)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..7), "---aaaa");
    }

    /// The kernel takes a namespace down late: another has its address meanwhile.
    #[test]
    fn from_the_time_the_next_one_may_have_it_the_one_before_has_it_no_more() {
        let mut town = Town::new();
        town.take(1, &[("a@1", &["10.0.0.1"], Attached)]);
        // b was made at 3 and is seen at 5 together with a, whose interface goes at 6.
        town.take(5, &[("a@1", &["10.0.0.1"], Attached), ("b@3", &["10.0.0.1"], Attached)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..7), "-aaa---");
        town.census.gone(pod("a").as_ref(), &held(&["10.0.0.1"], 1), at(6));
        town.take(7, &[("b@3", &["10.0.0.1"], Attached)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..9), "-aaa---bb");
    }

    #[test]
    fn who_has_no_process_left_gives_way_at_once() {
        let mut town = Town::new();
        town.take(1, &[("a@1", &["10.0.0.1"], Attached)]);
        town.take(5, &[("a@1", &["10.0.0.1"], Left), ("b@3", &["10.0.0.1"], Attached)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..7), "-aaa-bb");
        // That its interface goes is no end of the next one.
        town.census.gone(pod("a").as_ref(), &held(&["10.0.0.1"], 1), at(6));
        town.take(7, &[("b@3", &["10.0.0.1"], Attached)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..9), "-aaa-bbbb");
    }

    #[test]
    fn who_was_gone_before_the_next_one_was_seen_has_it_until_that_one_came() {
        let mut town = Town::new();
        town.take(1, &[("a@1", &["10.0.0.1"], Attached)]);
        town.census.gone(pod("a").as_ref(), &held(&["10.0.0.1"], 1), at(5));
        town.take(6, &[("b@3", &["10.0.0.1"], Attached)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..8), "-aaa-bbb");
        // Nor has the next one what somebody without a name may have sent.
        let mut town = Town::new();
        town.take(1, &[("@1", &["10.0.0.1"], Attached)]);
        town.census.gone(None, &held(&["10.0.0.1"], 1), at(5));
        town.take(6, &[("b@3", &["10.0.0.1"], Attached)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..8), "-----bbb");
    }

    #[test]
    fn from_one_look_to_the_next_nobody_has_it_who_may_not_have_had_it() {
        let mut town = Town::new();
        town.take(1, &[("a@1", &["10.0.0.1"], Elsewhere)]);
        // Seen last at 1; the next one came after 2 and is seen at 6.
        town.take(6, &[("b@2", &["10.0.0.1"], Elsewhere)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..8), "-aa---bb");
    }

    /// A pod that is made anew by the same name at the same address, as those of a StatefulSet are.
    #[test]
    fn one_by_the_same_name_follows() {
        let mut town = Town::new();
        town.take(1, &[("a@1", &["10.0.0.1"], Attached)]);
        town.take(5, &[("a@1", &["10.0.0.1"], Attached), ("a@4", &["10.0.0.1"], Attached)]);
        town.census.gone(pod("a").as_ref(), &held(&["10.0.0.1"], 1), at(6));
        town.take(7, &[("a@4", &["10.0.0.1"], Attached)]);
        assert_eq!(owners(&town, "10.0.0.1", 0..9), "-aaaa-aaa");
    }
}
