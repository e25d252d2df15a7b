//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.
//!
//! Rule: the header's length field bounds the payload, because Ethernet pads short frames; a length of 0 is a
//! frame whose segments are still joined (`gso_size`, more than 65,535 octets) and the frame's own length
//! counts. Checksums are not looked at: on a node most are still to be filled in by hardware.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol and next-header numbers (IANA).
pub(super) mod protocol {
    pub(in crate::wire) const ICMP: u8 = 1;
    pub(in crate::wire) const TCP: u8 = 6;
    pub(in crate::wire) const UDP: u8 = 17;
    pub(in crate::wire) const ICMPV6: u8 = 58;
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// Extension headers followed before the packet is called malformed; real ones have one or two.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Where a fragment belongs in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub(super) id: u32,
    /// Octets before it.
    pub(super) offset: usize,
    /// More fragments follow.
    pub(super) more: bool,
}

/// One IP packet with its headers off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Time to live or hop limit.
    pub(super) ttl: u8,
    /// IPv4 identification; 0 in IPv6.
    pub(super) id: u16,
    pub(super) dont_fragment: bool,
    /// What the payload is, behind all extension headers.
    pub(super) protocol: u8,
    /// What was captured of the payload.
    pub(super) payload: &'a [u8],
    /// Octets of payload on the wire; at least `payload.len()`.
    pub(super) wire_len: usize,
    /// Set unless the packet is a whole datagram.
    pub(super) fragment: Option<Fragment>,
}

/// Why no packet could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// A header contradicts itself.
    Malformed,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// The capture ends inside the headers.
    Truncated,
}

/// Reads the headers of an IP packet that had `wire_len` octets on the wire, padding included.
#[inline]
pub(super) fn parse(bytes: &[u8], wire_len: usize) -> Result<Packet<'_>, Unread> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => ipv4(bytes, wire_len),
        Some(6) => ipv6(bytes, wire_len),
        Some(_) => Err(Unread::NotIp),
        None => Err(Unread::Truncated),
    }
}

#[inline]
fn ipv4(bytes: &[u8], wire_len: usize) -> Result<Packet<'_>, Unread> {
    let header = bytes.first_chunk::<20>().ok_or(Unread::Truncated)?;
    let [first, _, l0, l1, i0, i1, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_len = usize::from(first & 0xf) * 4;
    let total = match usize::from(u16::from_be_bytes([l0, l1])) {
        0 => wire_len,
        total => total,
    };
    if header_len < header.len() || total < header_len {
        return Err(Unread::Malformed);
    }
    let (payload, wire_len) = bounded(bytes, header_len, total)?;
    let id = u16::from_be_bytes([i0, i1]);
    let flags = u16::from_be_bytes([f0, f1]);
    let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
    Ok(Packet {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        ttl,
        id,
        dont_fragment: flags & 0x4000 != 0,
        protocol,
        payload,
        wire_len,
        fragment: (offset > 0 || more).then_some(Fragment { id: id.into(), offset, more }),
    })
}

fn ipv6(bytes: &[u8], wire_len: usize) -> Result<Packet<'_>, Unread> {
    let (header, _) = bytes.split_first_chunk::<40>().ok_or(Unread::Truncated)?;
    let [_, _, _, _, l0, l1, next, hop_limit, addresses @ ..] = *header;
    let (source, destination) = addresses.split_at(16);
    let total = match usize::from(u16::from_be_bytes([l0, l1])) {
        0 => wire_len.max(header.len()),
        length => header.len() + length,
    };
    let (payload, wire_len) = bounded(bytes, header.len(), total)?;
    let mut packet = Packet {
        source: address(source),
        destination: address(destination),
        ttl: hop_limit,
        id: 0,
        dont_fragment: false,
        protocol: next,
        payload,
        wire_len,
        fragment: None,
    };
    skip_extension_headers(&mut packet)?;
    Ok(packet)
}

/// Moves over the extension headers (RFC 8200 section 4) up to the upper layer, or to a fragment that is not
/// the first: what is in that is no header.
fn skip_extension_headers(packet: &mut Packet<'_>) -> Result<(), Unread> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        let unit = match packet.protocol {
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6 => 8,
            // RFC 4302 section 2.2 counts in units of four octets, minus two.
            protocol::AUTHENTICATION => 4,
            protocol::FRAGMENT => {
                let (header, rest) = packet.payload.split_first_chunk::<8>().ok_or(Unread::Truncated)?;
                let [next, _, o0, o1, i0, i1, i2, i3] = *header;
                let word = u16::from_be_bytes([o0, o1]);
                let fragment = Fragment {
                    id: u32::from_be_bytes([i0, i1, i2, i3]),
                    offset: usize::from(word & 0xfff8),
                    more: word & 1 != 0,
                };
                packet.protocol = next;
                packet.wire_len = packet.wire_len.checked_sub(8).ok_or(Unread::Malformed)?;
                packet.payload = rest;
                // An atomic fragment (RFC 6946) is a whole datagram.
                if fragment.offset > 0 || fragment.more {
                    packet.fragment = Some(fragment);
                    return Ok(());
                }
                continue;
            }
            _ => return Ok(()),
        };
        let (&[next, length], _) = packet.payload.split_first_chunk::<2>().ok_or(Unread::Truncated)?;
        let skip = if unit == 8 { (usize::from(length) + 1) * 8 } else { (usize::from(length) + 2) * 4 };
        packet.wire_len = packet.wire_len.checked_sub(skip).ok_or(Unread::Malformed)?;
        packet.payload = packet.payload.get(skip..).ok_or(Unread::Truncated)?;
        packet.protocol = next;
    }
    Err(Unread::Malformed)
}

/// The payload between `start` and `end`, as far as it was captured, and its length on the wire.
fn bounded(bytes: &[u8], start: usize, end: usize) -> Result<(&[u8], usize), Unread> {
    let payload = bytes.get(start..bytes.len().min(end)).ok_or(Unread::Truncated)?;
    Ok((payload, end - start))
}

fn address(bytes: &[u8]) -> IpAddr {
    let octets: [u8; 16] = bytes.try_into().unwrap_or_default();
    Ipv6Addr::from(octets).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(total: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0x12, 0x34]);
        bytes.extend(flags.to_be_bytes());
        bytes.extend([64, protocol::UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(body);
        bytes
    }

    fn v6(next: u8, length: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([next, 63]);
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend(Ipv6Addr::UNSPECIFIED.octets());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn total_length_keeps_ethernet_padding_out() {
        let bytes = v4(23, 0x4000, &[1, 2, 3, 0, 0, 0]);
        let packet = parse(&bytes, bytes.len()).unwrap();
        assert_eq!((packet.payload, packet.wire_len), ([1, 2, 3].as_slice(), 3));
        assert!(packet.dont_fragment && packet.fragment.is_none());
        assert_eq!((packet.ttl, packet.id), (64, 0x1234));
        assert_eq!(packet.source.to_string(), "10.0.0.1");
    }

    #[test]
    fn a_total_length_of_zero_takes_the_frame_s_length() {
        let bytes = v4(0, 0, &[1, 2, 3]);
        let packet = parse(&bytes, 70_020).unwrap();
        assert_eq!((packet.payload, packet.wire_len), ([1, 2, 3].as_slice(), 70_000));
    }

    #[test]
    fn options_are_skipped_and_lengths_that_lie_are_malformed() {
        let mut bytes = v4(28, 0, &[7, 7, 7, 7, 1, 2, 3, 4]);
        bytes[0] = 0x46;
        assert_eq!(parse(&bytes, bytes.len()).unwrap().payload, [1, 2, 3, 4]);
        bytes[0] = 0x44;
        assert_eq!(parse(&bytes, bytes.len()), Err(Unread::Malformed));
        assert_eq!(parse(&v4(19, 0, &[1]), 21), Err(Unread::Malformed));
        assert_eq!(parse(&v4(30, 0, &[])[..19], 30), Err(Unread::Truncated));
        assert_eq!(parse(&[0x35; 40], 40), Err(Unread::NotIp));
        assert_eq!(parse(&[], 0), Err(Unread::Truncated));
    }

    #[test]
    fn ipv4_fragments_say_where_they_belong() {
        let bytes = v4(24, 0x2000 | 3, &[1, 2, 3, 4]);
        let fragment = parse(&bytes, bytes.len()).unwrap().fragment;
        assert_eq!(fragment, Some(Fragment { id: 0x1234, offset: 24, more: true }));
    }

    #[test]
    fn ipv6_extension_headers_are_followed() {
        let body = [
            &[protocol::DESTINATION, 0, 1, 4, 0, 0, 0, 0][..],
            &[protocol::AUTHENTICATION, 1, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[protocol::UDP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[9, 9],
        ]
        .concat();
        let bytes = v6(protocol::HOP_BY_HOP, u16::try_from(body.len()).unwrap(), &body);
        let packet = parse(&bytes, bytes.len()).unwrap();
        assert_eq!((packet.protocol, packet.payload, packet.wire_len), (protocol::UDP, [9, 9].as_slice(), 2));
        assert_eq!(packet.ttl, 63);
    }

    #[test]
    fn ipv6_fragments_stop_at_the_fragment_header() {
        let body = [protocol::UDP, 0, 0x05, 0xa9, 0, 0, 0, 7, 1, 2];
        let packet = v6(protocol::FRAGMENT, 10, &body);
        let packet = parse(&packet, 50).unwrap();
        assert_eq!(packet.fragment, Some(Fragment { id: 7, offset: 0x5a8, more: true }));
        assert_eq!((packet.protocol, packet.payload), (protocol::UDP, [1, 2].as_slice()));

        let atomic = v6(protocol::FRAGMENT, 10, &[protocol::UDP, 0, 0, 0, 0, 0, 0, 7, 1, 2]);
        assert_eq!(parse(&atomic, 50).unwrap().fragment, None);
    }

    #[test]
    fn endless_extension_headers_are_malformed() {
        let bytes = v6(protocol::HOP_BY_HOP, 800, &[0; 800]);
        assert_eq!(parse(&bytes, bytes.len()), Err(Unread::Malformed));
    }
}
