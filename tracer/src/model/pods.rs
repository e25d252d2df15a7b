//! Who has which address.

use super::Timestamp;
use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

/// A pod, as Kubernetes names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// `k8s.namespace.name`; empty for what is no pod: a service address, a plain network namespace, the node.
    pub namespace: String,
    /// `k8s.pod.name`, or what else it is called.
    pub name: String,
}

impl PodName {
    /// Whether both parts can be shown anywhere: graphic ASCII, at most 253 characters (RFC 1123).
    fn is_plain(&self) -> bool {
        let plain = |part: &str| part.len() <= 253 && part.bytes().all(|b| b.is_ascii_graphic());
        !self.name.is_empty() && plain(&self.namespace) && plain(&self.name)
    }
}

/// `namespace/name`, or the name alone.
impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// The names of addresses: a handle on one shared table, cheap to clone. Filled by `node` live, and by a recording's
/// name-resolution blocks when files are read.
///
/// An address that is used again keeps its last few owners, so that what happened before the change carries the
/// earlier name. The table is bounded: past 65,536 addresses those whose owner is gone make room; where there are none,
/// new ones are not entered, and counted.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    table: Arc<RwLock<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    owners: HashMap<IpAddr, Vec<Owner>>,
    /// Every entry in the order it was told, for who writes them down.
    told: Vec<(IpAddr, Arc<PodName>)>,
    refused: u64,
}

/// Who had an address, after the one before it in its list.
#[derive(Debug)]
struct Owner {
    name: Arc<PodName>,
    /// When it was gone; `None`: it is there.
    until: Option<Timestamp>,
}

const MOST_ADDRESSES: usize = 65_536;
/// Owners of one address that are remembered.
const MOST_OWNERS: usize = 4;

impl Pods {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whose address this is, or was last.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Option<Arc<PodName>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.owners.get(&address)?.last().map(|owner| Arc::clone(&owner.name))
    }

    /// Whose address this was at `time`; `None` where its owner was gone and the next one not known.
    #[must_use]
    pub fn name_at(&self, address: IpAddr, time: Timestamp) -> Option<Arc<PodName>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let owners = table.owners.get(&address)?;
        let owner = owners.iter().find(|owner| owner.until.is_none_or(|until| time <= until))?;
        Some(Arc::clone(&owner.name))
    }

    /// Tells whose address this is from now on: since the last owner was gone, where [`Self::end`] told of that. What
    /// is no name (empty, white space, control characters) is refused, and counted.
    pub fn tell(&self, address: IpAddr, name: PodName) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        if !name.is_plain() {
            table.refused += 1;
            return;
        }
        if table.owners.len() >= MOST_ADDRESSES && !table.owners.contains_key(&address) {
            table.owners.retain(|_, owners| owners.last().is_some_and(|owner| owner.until.is_none()));
            if table.owners.len() >= MOST_ADDRESSES {
                table.refused += 1;
                return;
            }
        }
        let owners = table.owners.entry(address).or_default();
        let name = Arc::new(name);
        let owner = Owner { name: Arc::clone(&name), until: None };
        match owners.last_mut() {
            Some(last) if last.until.is_none() && last.name == name => return,
            Some(last) if last.until.is_none() => *last = owner,
            _ => owners.push(owner),
        }
        if owners.len() > MOST_OWNERS {
            owners.remove(0);
        }
        if table.told.len() < 2 * MOST_ADDRESSES {
            table.told.push((address, name));
        }
    }

    /// Tells that the owner of this address was gone at `time`.
    pub fn end(&self, address: IpAddr, time: Timestamp) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = table.owners.get_mut(&address).and_then(|owners| owners.last_mut()) {
            last.until.get_or_insert(time);
        }
    }

    /// What was told from the `from`th time on, in order: a recorder asks with how many it has written.
    #[must_use]
    pub fn told_since(&self, from: usize) -> Vec<(IpAddr, Arc<PodName>)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.told.get(from..).unwrap_or_default().to_vec()
    }

    /// Addresses that found no room, and names that are none.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.table.read().unwrap_or_else(PoisonError::into_inner).refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_used_again_by_another_pod() {
        let pods = Pods::new();
        let address = IpAddr::from([10, 0, 0, 1]);
        let pod = |name: &str| PodName { namespace: "shop".into(), name: name.into() };
        for name in ["web-1", "web-1", "web-2"] {
            pods.tell(address, pod(name));
        }
        assert_eq!(pods.name(address).unwrap().to_string(), "shop/web-2");
        assert_eq!(pods.told_since(0).len(), 2);
        assert_eq!(*pods.told_since(1)[0].1, pod("web-2"));
    }

    #[test]
    fn the_dead_keep_their_time_and_the_next_owner_has_what_follows() {
        let pods = Pods::new();
        let address = IpAddr::from([10, 0, 0, 1]);
        let pod = |name: &str| PodName { namespace: "shop".into(), name: name.into() };
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let name_at = |seconds| pods.name_at(address, at(seconds)).map(|name| name.name.clone());
        pods.tell(address, pod("a"));
        pods.end(address, at(10));
        pods.end(address, at(12));
        assert_eq!((name_at(10).as_deref(), name_at(11)), (Some("a"), None));
        assert_eq!(pods.name(address).as_deref(), Some(&pod("a")));
        pods.tell(address, pod("b"));
        assert_eq!((name_at(10).as_deref(), name_at(11).as_deref()), (Some("a"), Some("b")));
        for number in 0..100_u64 {
            pods.end(address, at(20 + number));
            pods.tell(address, pod(&number.to_string()));
        }
        assert_eq!(pods.table.read().unwrap().owners[&address].len(), MOST_OWNERS);
        assert_eq!(name_at(500).as_deref(), Some("99"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let pods = Pods::new();
        let address = IpAddr::from([10, 0, 0, 1]);
        for (namespace, name) in
            [("", ""), ("shop", "a\x1b[2J"), ("a b", "c"), ("", "\u{202e}"), ("", &"x".repeat(254))]
        {
            pods.tell(address, PodName { namespace: namespace.into(), name: name.into() });
        }
        assert_eq!((pods.name(address), pods.refused()), (None, 5));
    }

    #[test]
    fn the_dead_make_room_and_the_living_do_not() {
        let pods = Pods::new();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let pod = || PodName { namespace: String::new(), name: "x".into() };
        let most = MOST_ADDRESSES as u32;
        for number in 0..=most {
            pods.tell(address(number), pod());
        }
        assert_eq!((pods.refused(), pods.name(address(most))), (1, None));
        for number in 0..100 {
            pods.end(address(number), Timestamp::EPOCH);
        }
        pods.tell(address(most), pod());
        assert!(pods.name(address(most)).is_some());
        assert_eq!((pods.refused(), pods.name(address(0))), (1, None));
    }
}
