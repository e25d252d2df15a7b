//! Which MAC address each pod's frames come from, and frames that are sent to another one.
//!
//! Rule: the source addresses of what a veth receives (the pod sends it) teach the pod's MAC address. A frame that leaves a
//! veth or a bridge for that IP address must go there; broadcast and multicast do not count. Bounded: a table of fixed
//! size in which a newer address takes the place of an older one, so that what is forgotten is only not checked.

use crate::model::{
    Direction, InterfaceKind, MacAddress, Misdirected, Sighting, SightingBody, Vantage, VantageId, Vantages,
};
use std::net::IpAddr;

const SLOTS: usize = 4_096;
/// Namespaces of nodes that are told apart; further ones share the last number.
const MOST_GROUPS: usize = 256;

/// What a vantage is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Unknown,
    Nothing,
    Learn(u8),
    Check(u8),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: IpAddr,
    group: u8,
    mac: MacAddress,
}

/// The MAC addresses of a session.
#[derive(Debug)]
pub struct Macs {
    vantages: Vantages,
    uses: Vec<Use>,
    /// Network namespaces, each of one source.
    groups: Vec<(Option<String>, u16)>,
    table: Box<[Option<Entry>]>,
}

impl Macs {
    /// Knows none; `vantages` is the table of the sightings' vantages.
    #[must_use]
    pub fn new(vantages: Vantages) -> Self {
        Self { vantages, uses: Vec::new(), groups: Vec::new(), table: vec![None; SLOTS].into() }
    }

    /// Learns from a sighting, or checks it.
    #[inline]
    pub fn see(&mut self, sighting: &Sighting) -> Option<Misdirected> {
        match self.use_of(sighting.vantage) {
            Use::Learn(group) => {
                let (address, mac) = (sighting.flow.source.ip(), sighting.source_mac?);
                if is_unicast(mac)
                    && let Some(slot) = self.table.get_mut(slot_of(address, group))
                {
                    *slot = Some(Entry { address, group, mac });
                }
                None
            }
            Use::Check(group) => {
                let (address, mac) = (sighting.flow.destination.ip(), sighting.destination_mac?);
                let known = self.table.get(slot_of(address, group)).copied().flatten()?;
                let its = known.address == address && known.group == group;
                if !its || known.mac == mac || !is_unicast(mac) {
                    return None;
                }
                misdirected(sighting, mac, known.mac)
            }
            Use::Nothing | Use::Unknown => None,
        }
    }

    #[inline]
    fn use_of(&mut self, id: VantageId) -> Use {
        match self.uses.get(usize::from(id.0)) {
            Some(&known) if known != Use::Unknown => known,
            _ => self.look_up(id),
        }
    }

    #[cold]
    fn look_up(&mut self, id: VantageId) -> Use {
        let index = usize::from(id.0);
        if self.uses.len() <= index {
            self.uses.resize(index + 1, Use::Unknown);
        }
        let Some(vantage) = self.vantages.lookup(id) else { return Use::Unknown };
        let found = match (vantage.kind, vantage.direction) {
            (InterfaceKind::Veth, Direction::Ingress) => Use::Learn(self.group(&vantage)),
            (InterfaceKind::Veth | InterfaceKind::Bridge, Direction::Egress) => {
                Use::Check(self.group(&vantage))
            }
            _ => Use::Nothing,
        };
        if let Some(known) = self.uses.get_mut(index) {
            *known = found;
        }
        found
    }

    fn group(&mut self, vantage: &Vantage) -> u8 {
        let own = (vantage.netns.clone(), vantage.source);
        let at = self.groups.iter().position(|group| *group == own).unwrap_or(self.groups.len());
        if at == self.groups.len() && at < MOST_GROUPS {
            self.groups.push(own);
        }
        u8::try_from(at).unwrap_or(u8::MAX)
    }
}

#[cold]
fn misdirected(
    sighting: &Sighting,
    destination_mac: MacAddress,
    expected_mac: MacAddress,
) -> Option<Misdirected> {
    let SightingBody::Dns(dns) = &sighting.body else { return None };
    Some(Misdirected {
        frame: sighting.frame,
        time: sighting.time,
        vantage: sighting.vantage,
        flow: sighting.flow,
        destination_mac,
        expected_mac,
        dns: dns.clone(),
    })
}

/// Neither broadcast nor multicast (the lowest bit of the first octet), nor none at all.
fn is_unicast(mac: MacAddress) -> bool {
    mac.0[0] & 1 == 0 && mac.0 != [0; 6]
}

fn slot_of(address: IpAddr, group: u8) -> usize {
    let folded = match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits >> 64) as u64 ^ bits as u64
        }
    };
    let mixed = (folded ^ u64::from(group) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 52) as usize
}

const _: () = assert!(SLOTS == 1 << (64 - 52));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DnsMessage, Flow, Timestamp, Transport};

    const POD: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const NODE: MacAddress = MacAddress([2, 0, 0, 0, 0, 99]);
    const OLD: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

    struct Node {
        macs: Macs,
        vantages: Vantages,
    }

    impl Node {
        fn new() -> Self {
            let vantages = Vantages::new();
            Self { macs: Macs::new(vantages.clone()), vantages }
        }

        fn see(
            &mut self,
            (interface, kind, direction): (&str, InterfaceKind, Direction),
            (source, destination): (&str, &str),
            (source_mac, destination_mac): (MacAddress, MacAddress),
        ) -> Option<MacAddress> {
            let vantage = self.vantages.intern(Vantage {
                interface: interface.into(),
                kind,
                direction,
                ..Vantage::default()
            });
            let sighting = Sighting {
                frame: 1,
                time: Timestamp::EPOCH,
                vantage,
                transport: Transport::Udp,
                flow: Flow { source: source.parse().unwrap(), destination: destination.parse().unwrap() },
                destination_mac: Some(destination_mac),
                source_mac: Some(source_mac),
                ttl: 64,
                ip_id: 0,
                dont_fragment: false,
                nat: None,
                body: SightingBody::Dns(DnsMessage::default()),
            };
            self.macs.see(&sighting).map(|found| found.expected_mac)
        }
    }

    const IN: (&str, InterfaceKind, Direction) = ("veth1", InterfaceKind::Veth, Direction::Ingress);
    const OUT: (&str, InterfaceKind, Direction) = ("veth1", InterfaceKind::Veth, Direction::Egress);
    const ELSEWHERE: (&str, InterfaceKind, Direction) = ("veth2", InterfaceKind::Veth, Direction::Egress);
    const QUERY: (&str, &str) = ("10.0.0.5:4000", "10.96.0.10:53");
    const ANSWER: (&str, &str) = ("10.96.0.10:53", "10.0.0.5:4000");

    #[test]
    fn a_frame_to_another_mac_than_the_pod_sends_by_is_told() {
        let mut node = Node::new();
        assert_eq!(node.see(OUT, ANSWER, (NODE, OLD)), None, "nothing is known of the pod");
        assert_eq!(node.see(IN, QUERY, (POD, NODE)), None);
        assert_eq!(node.see(OUT, ANSWER, (NODE, OLD)), Some(POD));
        assert_eq!(node.see(ELSEWHERE, ANSWER, (NODE, OLD)), Some(POD), "it leaves by another pod's veth");
        let bridge = ("cni0", InterfaceKind::Bridge, Direction::Egress);
        assert_eq!(node.see(bridge, ANSWER, (NODE, OLD)), Some(POD));
    }

    #[test]
    fn right_flooded_broadcast_and_moved_ones_are_not() {
        let mut node = Node::new();
        node.see(IN, QUERY, (POD, NODE));
        assert_eq!(node.see(OUT, ANSWER, (NODE, POD)), None);
        assert_eq!(node.see(ELSEWHERE, ANSWER, (NODE, POD)), None, "flooded to every port");
        assert_eq!(node.see(OUT, ANSWER, (NODE, MacAddress([0xff; 6]))), None);
        assert_eq!(node.see(OUT, ("10.96.0.10:53", "10.0.0.6:4000"), (NODE, OLD)), None, "another pod");
        // The address is another pod's now, which says so itself.
        node.see(IN, QUERY, (OLD, NODE));
        assert_eq!(node.see(OUT, ANSWER, (NODE, OLD)), None);
        let uplink = ("eth0", InterfaceKind::Uplink, Direction::Egress);
        assert_eq!(node.see(uplink, ANSWER, (NODE, POD)), None, "the next hop's MAC is another thing");
    }

    #[test]
    fn any_number_of_addresses_and_namespaces_fits() {
        let mut node = Node::new();
        for number in 0..20_000_u32 {
            let source = format!("10.1.{}.{}:4000", number / 256 % 256, number % 256);
            node.see(IN, (&source, "10.96.0.10:53"), (POD, NODE));
        }
        assert_eq!(node.macs.table.len(), SLOTS);
        for netns in 0..600 {
            let vantage = Vantage { netns: Some(netns.to_string()), ..Vantage::default() };
            node.macs.group(&vantage);
        }
        assert_eq!(node.macs.groups.len(), MOST_GROUPS);
    }
}
