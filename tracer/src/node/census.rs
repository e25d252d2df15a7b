//! Who has which address now, told to [`Pods`] as it changes.
//!
//! An address that two claim is told to nobody: a wrong name is worse than none. What is attached to a watched namespace
//! goes before what is merely there, since only its packets are seen.

use crate::model::{PodName, Pods, Timestamp};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

/// How near a claimant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Nearness {
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
    pub(super) addresses: &'a BTreeSet<IpAddr>,
    /// How near it is.
    pub(super) nearness: Nearness,
}

/// What was told so far.
#[derive(Debug)]
pub(super) struct Census {
    pods: Pods,
    told: HashMap<IpAddr, PodName>,
}

impl Census {
    /// Tells `pods`.
    #[must_use]
    pub(super) fn new(pods: Pods) -> Self {
        Self { pods, told: HashMap::new() }
    }

    /// Takes everybody who is there at `now`: tells who is new, and that the others are gone.
    pub(super) fn take<'a>(&mut self, claims: impl IntoIterator<Item = Claim<'a>>, now: Timestamp) {
        let mut owners: HashMap<IpAddr, (Nearness, Option<&'a PodName>)> = HashMap::new();
        for claim in claims {
            for &address in claim.addresses {
                let new = (claim.nearness, claim.name);
                let owner = owners.entry(address).or_insert(new);
                if owner.0 < new.0 {
                    *owner = new;
                } else if owner.0 == new.0 && owner.1 != new.1 {
                    owner.1 = None;
                }
            }
        }
        let Self { pods, told } = self;
        told.retain(|address, name| {
            let stays = owners.get(address).is_some_and(|(_, owner)| *owner == Some(&*name));
            if !stays {
                pods.end(*address, now);
            }
            stays
        });
        for (address, (_, owner)) in owners {
            if let (Some(name), false) = (owner, told.contains_key(&address)) {
                pods.tell(address, name.clone());
                told.insert(address, name.clone());
            }
        }
    }

    /// Says at once that these addresses' owner is gone.
    pub(super) fn gone(&mut self, addresses: &BTreeSet<IpAddr>, now: Timestamp) {
        for address in addresses {
            if self.told.remove(address).is_some() {
                self.pods.end(*address, now);
            }
        }
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

    fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    impl Town {
        fn new() -> Self {
            let pods = Pods::new();
            Self { census: Census::new(pods.clone()), pods }
        }

        fn take(&mut self, seconds: u64, claims: &[(&str, &[&str], Nearness)]) {
            let all: Vec<(Option<PodName>, BTreeSet<IpAddr>, Nearness)> = claims
                .iter()
                .map(|(name, list, nearness)| {
                    let name = (!name.is_empty())
                        .then(|| PodName { namespace: "shop".into(), name: (*name).to_owned() });
                    (name, addresses(list), *nearness)
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

    use Nearness::{Attached, Elsewhere, Node};

    #[test]
    fn pods_come_and_go_and_addresses_are_used_again() {
        let mut town = Town::new();
        town.take(1, &[("a", &["10.0.0.1", "fd00::1"], Attached), ("b", &["10.0.0.2"], Attached)]);
        town.census.gone(&addresses(&["10.0.0.1", "fd00::1"]), at(5));
        town.take(6, &[("", &["10.0.0.1"], Attached), ("b", &["10.0.0.2"], Attached)]);
        town.take(7, &[("c", &["10.0.0.1"], Attached)]);
        let seen = |seconds| ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|a| town.name(a, seconds)).join(" ");
        assert_eq!(seen(4), "a a b");
        assert_eq!(seen(6), "c  b");
        assert_eq!(seen(8), "c  ");
    }

    #[test]
    fn an_address_of_two_is_nobodys() {
        let mut town = Town::new();
        town.take(1, &[("a", &["10.0.0.1"], Attached), ("b", &["10.0.0.1"], Attached)]);
        assert_eq!(town.name("10.0.0.1", 1), "");
        town.take(2, &[("a", &["10.0.0.1"], Attached)]);
        assert_eq!(town.name("10.0.0.1", 2), "a");
        // A namespace without a name claims its address too.
        town.take(3, &[("a", &["10.0.0.1"], Attached), ("", &["10.0.0.1"], Attached)]);
        assert_eq!((town.name("10.0.0.1", 3), town.name("10.0.0.1", 4)), ("a".into(), String::new()));
    }

    #[test]
    fn who_is_attached_goes_first() {
        let mut town = Town::new();
        let claims: [(&str, &[&str], Nearness); 3] = [
            ("far", &["10.0.0.1", "10.0.0.2", "10.0.0.3"], Elsewhere),
            ("node", &["10.0.0.1", "10.0.0.2"], Node),
            ("near", &["10.0.0.1"], Attached),
        ];
        town.take(1, &claims);
        let names = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|a| town.name(a, 1));
        assert_eq!(names, ["near", "node", "far"]);
    }
}
