//! Who has which address.

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

/// `namespace/name`, or the name alone.
impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// The names of addresses as known now: a handle on one shared table, cheap to clone. Filled by `node` live, and by
/// a recording's name-resolution blocks when files are read.
///
/// The table is bounded: past 65,536 addresses new ones are not entered, and counted.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    table: Arc<RwLock<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<IpAddr, Arc<PodName>>,
    /// Every entry in the order it was told, for who writes them down.
    told: Vec<(IpAddr, Arc<PodName>)>,
    refused: u64,
}

const MOST_ADDRESSES: usize = 65_536;

impl Pods {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whose address this is.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Option<Arc<PodName>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).names.get(&address).map(Arc::clone)
    }

    /// Tells whose address this is from now on.
    pub fn tell(&self, address: IpAddr, name: PodName) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        let full = table.names.len() >= MOST_ADDRESSES;
        match table.names.get(&address) {
            Some(known) if **known == name => return,
            None if full => {
                table.refused += 1;
                return;
            }
            _ => {}
        }
        let name = Arc::new(name);
        table.names.insert(address, Arc::clone(&name));
        if table.told.len() < 2 * MOST_ADDRESSES {
            table.told.push((address, name));
        }
    }

    /// What was told from the `from`th time on, in order: a recorder asks with how many it has written.
    #[must_use]
    pub fn told_since(&self, from: usize) -> Vec<(IpAddr, Arc<PodName>)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.told.get(from..).unwrap_or_default().to_vec()
    }

    /// Addresses that found no room.
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
}
