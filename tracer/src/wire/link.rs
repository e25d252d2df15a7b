//! Link headers: what is before the IP packet.
//!
//! Rule: a header is taken off only as far as its own fields say where IP starts; a tag or type that is not
//! understood makes the frame "not IP", never a guess.

use crate::model::{Direction, LinkType, MacAddress};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// QinQ: an outer and an inner tag.
const MAX_VLAN_TAGS: usize = 2;

/// What a cooked header says of the place where the frame was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cooked {
    /// The interface's index; only version 2 has it.
    pub(super) ifindex: Option<u32>,
    /// From the packet type.
    pub(super) direction: Direction,
}

/// An IP packet with its link header off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkPayload<'a> {
    /// The IP packet and whatever padding is behind it.
    pub(super) bytes: &'a [u8],
    /// Destination address, where the header has one.
    pub(super) destination_mac: Option<MacAddress>,
    /// Source address, where the header has one.
    pub(super) source_mac: Option<MacAddress>,
    /// Where it was seen, for cooked headers.
    pub(super) cooked: Option<Cooked>,
}

/// Takes the link header off; `None` where no IP packet is behind it or the header is cut.
#[inline]
pub(super) fn strip(link: LinkType, bytes: &[u8]) -> Option<LinkPayload<'_>> {
    match link {
        LinkType::Ethernet => ethernet(bytes),
        LinkType::RawIp => Some(LinkPayload { bytes, destination_mac: None, source_mac: None, cooked: None }),
        LinkType::LinuxSll => linux_sll(bytes),
        LinkType::LinuxSll2 => linux_sll2(bytes),
        // The address family differs between systems (10, 24, 28, 30 are all IPv6): IP's own version decides.
        LinkType::Null => Some(LinkPayload {
            bytes: bytes.get(4..)?,
            destination_mac: None,
            source_mac: None,
            cooked: None,
        }),
        LinkType::Other(_) => None,
    }
}

fn ethernet(bytes: &[u8]) -> Option<LinkPayload<'_>> {
    let (header, rest) = bytes.split_first_chunk::<14>()?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, high, low] = *header;
    Some(LinkPayload {
        bytes: behind_tags(u16::from_be_bytes([high, low]), rest)?,
        destination_mac: Some(MacAddress([a, b, c, d, e, f])),
        source_mac: Some(MacAddress([g, h, i, j, k, l])),
        cooked: None,
    })
}

/// Linux cooked capture, version 1: packet type, ARPHRD, address length, address (8), protocol.
fn linux_sll(bytes: &[u8]) -> Option<LinkPayload<'_>> {
    let (header, rest) = bytes.split_first_chunk::<16>()?;
    let [type_high, type_low, .., high, low] = *header;
    let direction = packet_type(u16::from_be_bytes([type_high, type_low]));
    Some(LinkPayload {
        bytes: behind_tags(u16::from_be_bytes([high, low]), rest)?,
        destination_mac: None,
        source_mac: None,
        cooked: Some(Cooked { ifindex: None, direction }),
    })
}

/// Linux cooked capture, version 2: protocol, reserved, interface index, ARPHRD, packet type, address length,
/// address (8).
fn linux_sll2(bytes: &[u8]) -> Option<LinkPayload<'_>> {
    let (header, rest) = bytes.split_first_chunk::<20>()?;
    let [high, low, _, _, i0, i1, i2, i3, _, _, kind, ..] = *header;
    Some(LinkPayload {
        bytes: behind_tags(u16::from_be_bytes([high, low]), rest)?,
        destination_mac: None,
        source_mac: None,
        cooked: Some(Cooked {
            ifindex: Some(u32::from_be_bytes([i0, i1, i2, i3])),
            direction: packet_type(u16::from(kind)),
        }),
    })
}

/// `sll_pkttype` (linux/if_packet.h): to us, broadcast, multicast and other host are received, 4 is sent.
const fn packet_type(kind: u16) -> Direction {
    match kind {
        0..=3 => Direction::Ingress,
        4 => Direction::Egress,
        _ => Direction::Unknown,
    }
}

fn behind_tags(mut ethertype: u16, mut rest: &[u8]) -> Option<&[u8]> {
    for _ in 0..MAX_VLAN_TAGS {
        // 802.1Q, 802.1ad and the older QinQ tag.
        if !matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
            break;
        }
        let (tag, after) = rest.split_first_chunk::<4>()?;
        let [_, _, high, low] = *tag;
        ethertype = u16::from_be_bytes([high, low]);
        rest = after;
    }
    matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: [u8; 14] = [1, 2, 3, 4, 5, 6, 9, 9, 9, 9, 9, 9, 0x08, 0x00];

    #[test]
    fn ethernet_with_none_one_and_two_tags() {
        let plain = [ETHERNET.as_slice(), &[0x45]].concat();
        let payload = strip(LinkType::Ethernet, &plain).unwrap();
        assert_eq!(payload.bytes, [0x45]);
        assert_eq!(payload.destination_mac, Some(MacAddress([1, 2, 3, 4, 5, 6])));

        let tagged = [&ETHERNET[..12], &[0x81, 0, 0, 5, 0x86, 0xdd, 0x60]].concat();
        assert_eq!(strip(LinkType::Ethernet, &tagged).unwrap().bytes, [0x60]);

        let double = [&ETHERNET[..12], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x08, 0, 0x45]].concat();
        assert_eq!(strip(LinkType::Ethernet, &double).unwrap().bytes, [0x45]);
    }

    #[test]
    fn three_tags_arp_and_cut_headers_are_no_ip() {
        let tag = [0x81, 0, 0, 5];
        let triple = [&ETHERNET[..12], &tag, &tag, &tag, &[0x08, 0, 0x45]].concat();
        let arp = [&ETHERNET[..12], &[0x08, 0x06, 0, 1]].concat();
        for bytes in [&triple[..], &arp, &ETHERNET[..13], &[]] {
            assert_eq!(strip(LinkType::Ethernet, bytes), None);
        }
        assert_eq!(strip(LinkType::Other(127), &[0x45; 40]), None);
    }

    #[test]
    fn cooked_headers_say_direction_and_interface() {
        let mut v1 = vec![0, 4, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0x08, 0];
        v1.push(0x45);
        let payload = strip(LinkType::LinuxSll, &v1).unwrap();
        assert_eq!(payload.cooked, Some(Cooked { ifindex: None, direction: Direction::Egress }));
        assert_eq!(payload.bytes, [0x45]);

        let mut v2 = vec![0x86, 0xdd, 0, 0, 0, 0, 1, 2, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0];
        v2.push(0x60);
        let payload = strip(LinkType::LinuxSll2, &v2).unwrap();
        assert_eq!(payload.cooked, Some(Cooked { ifindex: Some(258), direction: Direction::Ingress }));
        assert_eq!(payload.bytes, [0x60]);
    }
}
