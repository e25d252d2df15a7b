//! Where a frame was seen.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// Which way a frame passed an interface, seen from the interface's own network stack: a host-side veth's
/// ingress is what the pod sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Sent by the node out of the interface.
    Egress,
    /// Received by the node on the interface.
    Ingress,
    /// A capture file that does not say.
    #[default]
    Unknown,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Unknown => "unknown",
        })
    }
}

/// What an interface is for on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterfaceKind {
    /// A bridge of pods: cni0, docker0.
    Bridge,
    /// The loopback.
    Loopback,
    /// vxlan, wireguard, ipip and the like between nodes.
    Tunnel,
    /// A way out of the node.
    Uplink,
    /// A capture file that does not say.
    #[default]
    Unknown,
    /// The host's end of a pod's veth pair.
    Veth,
}

impl fmt::Display for InterfaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Loopback => "loopback",
            Self::Tunnel => "tunnel",
            Self::Uplink => "uplink",
            Self::Unknown => "unknown",
            Self::Veth => "veth",
        })
    }
}

/// One interface and direction, in one network namespace or one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vantage {
    /// The interface's name; for files that name none, `if0`, `if1` and so on.
    pub interface: String,
    /// The interface's index in its namespace; 0 where unknown.
    pub ifindex: u32,
    /// Ingress or egress.
    pub direction: Direction,
    /// What the interface is for.
    pub kind: InterfaceKind,
    /// The namespace's name; `None` where only one is watched.
    pub netns: Option<String>,
    /// Which source (node or file) it belongs to, where several are merged; 0 for one source.
    pub source: u16,
}

impl fmt::Display for Vantage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(netns) = &self.netns {
            write!(f, "{netns}/")?;
        }
        f.write_str(&self.interface)?;
        match self.direction {
            Direction::Unknown => Ok(()),
            direction => write!(f, " {direction}"),
        }
    }
}

/// A vantage's place in a [`Vantages`] table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VantageId(pub u16);

/// Every vantage of a session, by id: a handle on one shared table, cheap to clone. Ids are never reused: an
/// interface that goes away keeps its entry.
///
/// The table is bounded: past 65,535 vantages all further ones share the last entry, named `(more)`.
#[derive(Clone, Debug, Default)]
pub struct Vantages {
    all: Arc<RwLock<Vec<Arc<Vantage>>>>,
}

impl Vantages {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of `vantage`, entered if it is new.
    pub fn intern(&self, vantage: Vantage) -> VantageId {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().rposition(|v| **v == vantage) {
            return id_of(known);
        }
        if all.len() < usize::from(u16::MAX) {
            all.push(Arc::new(vantage));
        } else if all.len() == usize::from(u16::MAX) {
            all.push(Arc::new(Vantage { interface: "(more)".into(), ..Vantage::default() }));
        }
        id_of(all.len() - 1)
    }

    /// The vantage behind an id; `None` for an id of another table.
    #[must_use]
    pub fn lookup(&self, id: VantageId) -> Option<Arc<Vantage>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(usize::from(id.0)).map(Arc::clone)
    }

    /// All of them, in the order they were entered.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Vantage>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn id_of(index: usize) -> VantageId {
    VantageId(u16::try_from(index).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_for_one_vantage() {
        let table = Vantages::new();
        let veth = |ifindex| Vantage { interface: format!("veth{ifindex}"), ifindex, ..Vantage::default() };
        let first = table.intern(veth(1));
        assert_eq!(table.intern(veth(1)), first);
        assert_ne!(table.intern(veth(2)), first);
        assert_eq!(table.lookup(first).unwrap().to_string(), "veth1");
        assert_eq!(table.lookup(VantageId(9)), None);
    }
}
