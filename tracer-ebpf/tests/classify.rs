//! The classifier's rule on packets made by hand: the same code that the kernel runs.
#![expect(clippy::unwrap_used, reason = "packets made by hand fit their length fields")]

use dnspath_ebpf::{Bytes, FragmentKey, Fragments, Interest, Link, Ports, classify};
use std::{cell::RefCell, collections::HashSet};

struct Packet<'a>(&'a [u8]);

impl Bytes for Packet<'_> {
    fn u8(&self, at: u32) -> Option<u8> {
        self.0.get(at as usize).copied()
    }
    fn u16(&self, at: u32) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8(at)?, self.u8(at + 1)?]))
    }
    fn u32(&self, at: u32) -> Option<u32> {
        Some(u32::from(self.u16(at)?) << 16 | u32::from(self.u16(at + 2)?))
    }
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap()
    }
}

struct Only53;

impl Ports for Only53 {
    fn contains(&self, port: u16) -> bool {
        port == 53
    }
}

#[derive(Default)]
struct Table(RefCell<HashSet<FragmentKey>>);

impl Fragments for Table {
    fn remember(&self, key: &FragmentKey) {
        self.0.borrow_mut().insert(*key);
    }
    fn known(&self, key: &FragmentKey) -> bool {
        self.0.borrow().contains(key)
    }
}

fn interesting(packet: &[u8]) -> bool {
    classify(&Packet(packet), Link::Ethernet, &Only53, &Table::default()) == Interest::Dns
}

fn ethernet(tags: &[[u8; 4]], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(tags.iter().flatten());
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4(protocol: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    ipv4_with_options(protocol, flags_and_offset, &[], payload)
}

fn ipv4_with_options(protocol: u8, flags_and_offset: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
    packet.extend(u16::try_from(header + payload.len()).unwrap().to_be_bytes());
    packet.extend(77_u16.to_be_bytes());
    packet.extend(flags_and_offset.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend([0xfd; 32]);
    packet.extend(payload);
    packet
}

fn ports(source: u16, destination: u16, rest: &[u8]) -> Vec<u8> {
    let mut header = source.to_be_bytes().to_vec();
    header.extend(destination.to_be_bytes());
    header.extend(rest);
    header
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    ports(source, destination, &[0; 24])
}

fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = vec![0; 8];
    rest.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    rest.extend(payload);
    ports(40_000, 53, &rest)
}

const UDP: u8 = 17;
const TCP: u8 = 6;
const ACK: u8 = 0x10;
const SYN: u8 = 0x02;
const VLAN: [u8; 4] = [0x81, 0, 0, 5];
const QINQ: [u8; 4] = [0x88, 0xa8, 0, 5];

#[test]
fn dns_is_known_by_either_port() {
    let frame = |source, destination| ethernet(&[], 0x0800, &ipv4(UDP, 0, &udp(source, destination)));
    assert!(interesting(&frame(4_000, 53)));
    assert!(interesting(&frame(53, 4_000)));
    assert!(!interesting(&frame(4_000, 54)));
}

#[test]
fn tags_options_and_extension_headers_are_passed() {
    let query = udp(4_000, 53);
    assert!(interesting(&ethernet(&[VLAN], 0x0800, &ipv4(UDP, 0, &query))));
    assert!(interesting(&ethernet(&[QINQ, VLAN], 0x0800, &ipv4(UDP, 0, &query))));
    assert!(interesting(&ethernet(&[], 0x0800, &ipv4_with_options(UDP, 0, &[1; 40], &query))));
    assert!(interesting(&ethernet(&[], 0x86dd, &ipv6(UDP, &query))));
    // Hop-by-hop, then destination options of 16 octets, then UDP.
    let mut extended = vec![60, 0, 0, 0, 0, 0, 0, 0, UDP, 1];
    extended.extend([0; 14]);
    extended.extend(&query);
    assert!(interesting(&ethernet(&[], 0x86dd, &ipv6(0, &extended))));
}

#[test]
fn a_bare_acknowledgement_is_left_out_even_when_padded() {
    let frame = |segment: &[u8]| ethernet(&[], 0x0800, &ipv4(TCP, 0, segment));
    assert!(interesting(&frame(&tcp(SYN, &[]))));
    assert!(interesting(&frame(&tcp(ACK, &[0, 1, 7]))));
    let mut padded = frame(&tcp(ACK, &[]));
    padded.resize(60, 0);
    assert!(!interesting(&padded));
}

#[test]
fn later_fragments_follow_their_first_one() {
    let table = Table::default();
    let seen = |packet: &[u8]| classify(&Packet(packet), Link::Ethernet, &Only53, &table) == Interest::Dns;
    let later = ethernet(&[], 0x0800, &ipv4(UDP, 100, &[7; 16]));
    assert!(!seen(&later));
    assert!(seen(&ethernet(&[], 0x0800, &ipv4(UDP, 0x2000, &udp(53, 4_000)))));
    assert!(seen(&later));

    let fragment = |offset_and_more: u16, id: u8, payload: &[u8]| {
        let mut header = vec![UDP, 0];
        header.extend(offset_and_more.to_be_bytes());
        header.extend([0, 0, 0, id]);
        header.extend(payload);
        ethernet(&[], 0x86dd, &ipv6(44, &header))
    };
    assert!(!seen(&fragment(800, 9, &[7; 16])));
    assert!(seen(&fragment(1, 9, &udp(53, 4_000))));
    assert!(seen(&fragment(800, 9, &[7; 16])));
    assert!(!seen(&fragment(800, 10, &[7; 16])));
}

#[test]
fn icmp_errors_are_taken_when_they_quote_dns() {
    let error = |kind: u8, quoted: &[u8]| {
        let mut icmp = vec![kind, 3, 0, 0, 0, 0, 0, 0];
        icmp.extend(quoted);
        ethernet(&[], 0x0800, &ipv4(1, 0, &icmp))
    };
    assert!(interesting(&error(3, &ipv4(UDP, 0, &udp(4_000, 53)))));
    assert!(!interesting(&error(3, &ipv4(UDP, 0, &udp(4_000, 80)))));
    assert!(!interesting(&error(8, &ipv4(UDP, 0, &udp(4_000, 53)))));
    let mut unreachable = vec![1, 4, 0, 0, 0, 0, 0, 0];
    unreachable.extend(ipv6(UDP, &udp(4_000, 53)));
    assert!(interesting(&ethernet(&[], 0x86dd, &ipv6(58, &unreachable))));
}

/// DNS, and how other connections begin.
struct Everything;

impl Ports for Everything {
    fn contains(&self, port: u16) -> bool {
        Only53.contains(port)
    }
    fn follows_connects(&self) -> bool {
        true
    }
}

/// A segment to port 443 with a sequence number, flags and payload.
fn segment(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = sequence.to_be_bytes().to_vec();
    rest.extend([0, 0, 0, 1, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    rest.extend(payload);
    ports(40_000, 443, &rest)
}

#[test]
fn beginnings_of_connections_are_taken_where_wanted_and_nothing_else_of_them() {
    const RST: u8 = 0x04;
    let cases = [
        ("SYN", segment(7, SYN, &[]), true),
        ("SYN+ACK", segment(7, SYN | ACK, &[]), true),
        ("RST that answers a SYN", segment(0, RST | ACK, &[]), true),
        ("RST in a connection", segment(9, RST | ACK, &[]), false),
        ("acknowledgement", segment(9, ACK, &[]), false),
        ("data", segment(9, ACK, &[1]), false),
        ("SYN with data", segment(7, SYN, &[1]), false),
        ("end", segment(9, ACK | 0x01, &[]), false),
    ];
    for (what, segment, taken) in cases {
        let expected = if taken { Interest::Connect } else { Interest::None };
        for frame in
            [ethernet(&[], 0x0800, &ipv4(TCP, 0, &segment)), ethernet(&[VLAN], 0x86dd, &ipv6(TCP, &segment))]
        {
            let table = Table::default();
            let packet = Packet(&frame);
            assert_eq!(classify(&packet, Link::Ethernet, &Everything, &table), expected, "{what}");
            assert_eq!(classify(&packet, Link::Ethernet, &Only53, &table), Interest::None, "{what}");
        }
    }
    let query = ethernet(&[], 0x0800, &ipv4(TCP, 0, &tcp(SYN, &[])));
    assert_eq!(classify(&Packet(&query), Link::Ethernet, &Everything, &Table::default()), Interest::Dns);
}

#[test]
fn unreachable_connections_are_taken_where_wanted() {
    let error = |code: u8, quoted: &[u8]| {
        let mut icmp = vec![3, code, 0, 0, 0, 0, 0, 0];
        icmp.extend(quoted);
        let frame = ethernet(&[], 0x0800, &ipv4(1, 0, &icmp));
        classify(&Packet(&frame), Link::Ethernet, &Everything, &Table::default())
    };
    // A quote has eight octets of TCP at least.
    let syn = ipv4(TCP, 0, &segment(7, SYN, &[])[..8]);
    assert_eq!(error(1, &syn), Interest::Connect);
    assert_eq!(error(4, &syn), Interest::None, "fragmentation needed");
    assert_eq!(error(3, &ipv4(UDP, 0, &udp(4_000, 80))), Interest::None, "UDP");
    assert_eq!(error(3, &ipv4(UDP, 0, &udp(4_000, 53))), Interest::Dns);
}

#[test]
fn a_frame_without_a_link_header_starts_with_ip() {
    let raw =
        |packet: &[u8]| classify(&Packet(packet), Link::RawIp, &Only53, &Table::default()) == Interest::Dns;
    assert!(raw(&ipv4(UDP, 0, &udp(4_000, 53))));
    assert!(raw(&ipv6(UDP, &udp(4_000, 53))));
    assert!(!raw(&[0x50; 60]));
}

#[test]
fn a_packet_cut_anywhere_is_only_ever_left_out() {
    let whole = ethernet(
        &[QINQ, VLAN],
        0x86dd,
        &ipv6(0, &{
            let mut extended = vec![UDP, 0, 0, 0, 0, 0, 0, 0];
            extended.extend(udp(4_000, 53));
            extended
        }),
    );
    for length in 0..whole.len() {
        // Ports end at 22 + 40 + 8 + 4.
        assert_eq!(interesting(&whole[..length]), length >= 74, "{length}");
    }
}
