//! Resolved clashes as frames show them: a connection that was entered for replies alone
//! (`nf_ct_resolve_clash_harder`) is seen on the one packet that lost, at each interface this packet leaves by.

use super::drops::CONFIRM;
use crate::model::{Direction, DropMark, Fate, Frame, LinkType, NatTuple, Timestamp, Vantage, Vantages};
use std::{collections::HashMap, time::Duration};

/// How long such a connection lives: HZ in `__nf_ct_resolve_clash`.
const LIFETIME: Duration = Duration::from_secs(1);
/// Clashes kept in mind; past that all are forgotten, and one may be told twice.
const MOST: usize = 4_096;

/// Those told so far.
pub(super) struct Clashes {
    vantages: Vantages,
    told: HashMap<NatTuple, Timestamp>,
}

impl Clashes {
    pub(super) fn new(vantages: &Vantages) -> Self {
        Self { vantages: vantages.clone(), told: HashMap::new() }
    }

    /// The clash's own frame, where `frame` is the first to show it.
    pub(super) fn first_sight<'a>(&mut self, frame: &Frame<'a>, cpu: u32) -> Option<Frame<'a>> {
        let connection = frame.nat?;
        let told = self.told.get(&connection);
        if told.is_some_and(|told| frame.time.since(*told) < LIFETIME) {
            return None;
        }
        if self.told.len() == MOST {
            self.told.clear();
        }
        self.told.insert(connection, frame.time);
        let device = (*self.vantages.lookup(frame.vantage)?).clone();
        let link = if frame.link == LinkType::Ethernet { link_header(frame.bytes) } else { 0 };
        Some(Frame {
            vantage: self.vantages.intern(Vantage { direction: Direction::Unknown, ..device }),
            link: LinkType::RawIp,
            original_len: frame.original_len.saturating_sub(u32::try_from(link).unwrap_or(0)),
            bytes: frame.bytes.get(link..).unwrap_or_default(),
            drop: Some(DropMark { fate: Fate::ClashResolved, cpu, reason: "", place: CONFIRM }),
            ..*frame
        })
    }
}

/// Octets of an Ethernet header and the VLAN tags behind it.
fn link_header(frame: &[u8]) -> usize {
    let mut at = 12;
    while let Some([0x81, 0x00] | [0x88, 0xa8]) = frame.get(at..at + 2) {
        at += 4;
    }
    at + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Flow;

    #[test]
    fn a_clash_is_told_once_however_many_interfaces_its_packet_leaves_by() {
        let vantages = Vantages::new();
        let leaving = |interface: &str| {
            vantages.intern(Vantage {
                interface: interface.into(),
                direction: Direction::Egress,
                ..Vantage::default()
            })
        };
        let flow = |source: &str, destination: &str| Flow {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        let nat = NatTuple {
            original: flow("10.1.0.7:4000", "10.96.0.10:53"),
            reply: flow("10.1.0.2:53", "10.1.0.7:4000"),
        };
        let mut bytes = vec![0_u8; 12];
        bytes.extend([0x81, 0, 0, 5, 8, 0, 0x45, 9]);
        let frame = |interface: &str, milliseconds: u64| Frame {
            number: 1,
            time: Timestamp::from_nanos(milliseconds * 1_000_000),
            vantage: leaving(interface),
            link: LinkType::Ethernet,
            original_len: 100,
            bytes: &bytes,
            segment_size: 0,
            nat: Some(nat),
            drop: None,
        };
        let mut clashes = Clashes::new(&vantages);
        let clash = clashes.first_sight(&frame("cni0", 0), 1).unwrap();
        let mark = clash.drop.unwrap();
        assert_eq!((mark.fate, mark.cpu, mark.place), (Fate::ClashResolved, 1, CONFIRM));
        assert_eq!((clash.link, clash.bytes, clash.original_len), (LinkType::RawIp, &[0x45, 9][..], 82));
        assert_eq!(vantages.lookup(clash.vantage).unwrap().to_string(), "cni0");
        assert!(clashes.first_sight(&frame("veth1", 1), 1).is_none());
        assert!(clashes.first_sight(&frame("cni0", 1_002), 0).is_some());
    }
}
