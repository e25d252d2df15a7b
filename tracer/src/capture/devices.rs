//! Vantages of the devices that packets were dropped at: any of the node, watched or not.

use super::{namespace::Namespace, netns, record::DropRecord};
use crate::model::{Direction, Vantage, VantageId, Vantages};
use std::collections::HashMap;

/// Those seen so far, by namespace and index.
pub(super) struct Devices {
    vantages: Vantages,
    known: HashMap<(u32, u32), VantageId>,
}

impl Devices {
    /// Devices kept by their numbers; a node has fewer.
    const MOST: usize = 65_536;

    pub(super) fn new(vantages: &Vantages) -> Self {
        Self { vantages: vantages.clone(), known: HashMap::new() }
    }

    /// The vantage that a dropped packet was at.
    pub(super) fn vantage(&mut self, record: &DropRecord<'_>, namespaces: &[Namespace]) -> VantageId {
        let key = (record.netns, record.ifindex);
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let id = self.vantages.intern(self.describe(record, namespaces));
        if self.known.len() == Self::MOST {
            self.known.clear();
        }
        self.known.insert(key, id);
        id
    }

    /// An interface of a watched namespace is called as its frames are; another one by its namespace as well.
    fn describe(&self, record: &DropRecord<'_>, namespaces: &[Namespace]) -> Vantage {
        let name = String::from_utf8_lossy(record.device).into_owned();
        let interface = if name.is_empty() { "(no device)".into() } else { name };
        let unnamed = Vantage {
            interface,
            ifindex: record.ifindex,
            direction: Direction::Unknown,
            ..Vantage::default()
        };
        let watched = namespaces.iter().find(|namespace| namespace.inode == Some(record.netns));
        let Some(namespace) = watched else {
            return Vantage { netns: (record.netns != 0).then(|| netns::name_of(record.netns)), ..unnamed };
        };
        let attached = namespace.shared.vantage(record.ifindex << 1).and_then(|id| self.vantages.lookup(id));
        let kind = attached.map_or(unnamed.kind, |attached| attached.kind);
        Vantage { kind, netns: namespace.shown_as.clone(), ..unnamed }
    }
}
