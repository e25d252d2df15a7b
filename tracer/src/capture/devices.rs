//! Vantages of the devices that packets were dropped at: any of the node, watched or not.

use super::{namespace::Namespace, netns, record::DropRecord};
use crate::model::{Direction, Vantage, VantageId, Vantages};
use std::collections::HashMap;

/// Those seen so far, by namespace and index. Both numbers are used again, so each has the name with it.
pub(super) struct Devices {
    vantages: Vantages,
    known: HashMap<(u32, u32), Device>,
}

struct Device {
    name: Box<[u8]>,
    id: VantageId,
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
        if let Some(device) = self.known.get(&key)
            && *device.name == *record.device
        {
            return device.id;
        }
        let id = self.vantages.intern(self.describe(record, namespaces));
        if self.known.len() == Self::MOST {
            self.known.clear();
        }
        self.known.insert(key, Device { name: record.device.into(), id });
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

#[cfg(test)]
mod tests {
    use super::*;
    use dnspath_ebpf::{DROP_HEADER_LEN, NAT_LEN};

    /// A drop at the device of index 3.
    fn record(device: &str) -> Vec<u8> {
        let mut bytes = vec![0; DROP_HEADER_LEN + NAT_LEN];
        bytes[28..32].copy_from_slice(&3_u32.to_ne_bytes());
        bytes[40..40 + device.len()].copy_from_slice(device.as_bytes());
        bytes
    }

    #[test]
    fn an_index_that_is_used_again_is_another_device() {
        let vantages = Vantages::new();
        let mut devices = Devices::new(&vantages);
        let mut name = |device: &str| {
            let record = record(device);
            let id = devices.vantage(&DropRecord::parse(&record).unwrap(), &[]);
            vantages.lookup(id).unwrap().interface.clone()
        };
        assert_eq!(["veth1", "veth1", "veth2", "veth1"].map(&mut name), ["veth1", "veth1", "veth2", "veth1"]);
        assert_eq!(vantages.len(), 2);
    }
}
