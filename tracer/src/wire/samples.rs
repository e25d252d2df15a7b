//! Packets for tests, built octet by octet.

use super::ip::protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// 10.0.0.`last`.
pub(super) fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

/// fd00::`last`.
pub(super) fn v6(last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap().to_be_bytes()
}

/// A name in wire form.
pub(super) fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// A header with these flags and counts.
pub(super) fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let words = [id, flags, counts[0], counts[1], counts[2], counts[3]];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A query for A records.
pub(super) fn query(id: u16, qname: &str) -> Vec<u8> {
    let mut message = header(id, 0x0100, [1, 0, 0, 0]);
    message.extend(name(qname));
    message.extend([0, 1, 0, 1]);
    message
}

/// A resource record.
pub(super) fn record(owner: &[u8], rtype: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(rtype.to_be_bytes());
    record.extend(class.to_be_bytes());
    record.extend(ttl.to_be_bytes());
    record.extend(length(data));
    record.extend(data);
    record
}

/// `message` behind its length prefix (RFC 7766).
pub(super) fn prefixed(message: &[u8]) -> Vec<u8> {
    [&length(message), message].concat()
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2.
pub(super) fn ipv4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(payload);
    packet
}

/// An IPv6 packet from fd00::1 to fd00::2.
pub(super) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length(payload));
    packet.extend([next, 63]);
    for last in [1, 2] {
        let IpAddr::V6(address) = v6(last) else { unreachable!() };
        packet.extend(address.octets());
    }
    packet.extend(payload);
    packet
}

/// A UDP header and payload.
pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(source.to_be_bytes());
    datagram.extend(destination.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A UDP datagram in IPv4 or IPv6.
pub(super) fn udp_packet(in_v6: bool, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let datagram = udp(source, destination, payload);
    if in_v6 { ipv6(protocol::UDP, &datagram) } else { ipv4(protocol::UDP, 0, &datagram) }
}

/// A TCP segment in IPv4.
pub(super) fn tcp_packet(source: u16, destination: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    ipv4(protocol::TCP, 0, &segment)
}

/// An IPv4 packet behind an Ethernet header.
pub(super) fn ethernet(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], ethertype.as_slice(), packet].concat()
}
