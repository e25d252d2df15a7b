//! Reads a ring record back; the layout is [`dnspath_ebpf::RecordHeader`]'s.

use crate::model::{Flow, NatTuple};
use dnspath_ebpf::{
    DROP_HEADER_LEN, FLAG_CLASH, FLAG_CONNECT, FLAG_CONNECTION, FLAG_EGRESS, FLAG_ETHERNET, FLAG_NAT,
    FLAG_NAT_IPV4, FLAG_RAW_IP, HEADER_LEN, NAT_IPV4_LEN, NAT_LEN,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets from one `nf_conntrack_tuple_hash.tuple` to the next; the loader checks it against the kernel's BTF.
pub(super) const TUPLE_STRIDE: usize = 56;
const ETHERNET_HEADER: usize = 14;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// One ring record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub(super) time: u64,
    pub(super) ifindex: u32,
    pub(super) egress: bool,
    pub(super) raw_ip: bool,
    pub(super) frame_len: u32,
    pub(super) segment_size: u16,
    pub(super) nat: Option<NatTuple>,
    /// Conntrack resolved a clash of this packet's connection.
    pub(super) clash: bool,
    /// No DNS: a TCP connection begins or is refused.
    pub(super) connect: bool,
    /// The CPU that saw it.
    pub(super) cpu: u32,
    pub(super) frame: &'a [u8],
}

impl<'a> Record<'a> {
    /// `None` for a record shorter than it claims: then the two sides are of different builds.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_LEN)?;
        let word = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let flags = word(24)?;
        let half = |at: usize| Some(u16::from_ne_bytes(header.get(at..at + 2)?.try_into().ok()?));
        let (frame_at, nat) = if flags & FLAG_NAT_IPV4 != 0 {
            let end = HEADER_LEN + NAT_IPV4_LEN;
            (end, ipv4_nat_tuple(bytes.get(HEADER_LEN..end)?))
        } else if flags & FLAG_NAT != 0 {
            let end = HEADER_LEN + NAT_LEN;
            (end, nat_tuple(bytes.get(HEADER_LEN..end)?))
        } else {
            (HEADER_LEN, None)
        };
        let captured = word(16)? as usize;
        Some(Self {
            time: u64::from_ne_bytes(header.get(..8)?.try_into().ok()?),
            ifindex: word(8)?,
            egress: flags & FLAG_EGRESS != 0,
            raw_ip: flags & FLAG_RAW_IP != 0,
            frame_len: word(12)?,
            segment_size: half(20)?,
            nat,
            clash: flags & FLAG_CLASH != 0,
            connect: flags & FLAG_CONNECT != 0,
            cpu: half(22)?.into(),
            frame: bytes.get(frame_at..frame_at.checked_add(captured)?)?,
        })
    }
}

/// One record of the ring of drops; the layout is [`dnspath_ebpf::DropHeader`]'s.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DropRecord<'a> {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub(super) time: u64,
    /// Where in the kernel's code.
    pub(super) place: u64,
    pub(super) reason: u32,
    pub(super) cpu: u32,
    /// Inode number of the device's namespace; 0 where unknown.
    pub(super) netns: u32,
    pub(super) ifindex: u32,
    /// `FATE_*`.
    pub(super) fate: u16,
    pub(super) device: &'a [u8],
    pub(super) connection: Option<NatTuple>,
    /// The Ethernet header it came with; empty where it has none any more.
    pub(super) link: &'a [u8],
    /// From the network header on.
    pub(super) packet: &'a [u8],
    link_and_packet: &'a [u8],
}

impl<'a> DropRecord<'a> {
    /// `None` for a record shorter than it claims: then the two sides are of different builds.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..DROP_HEADER_LEN)?;
        let long = |at: usize| Some(u64::from_ne_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(header.get(at..at + 2)?.try_into().ok()?));
        let packet_at = DROP_HEADER_LEN + NAT_LEN;
        let captured = word(32)? as usize;
        let tuples = bytes.get(DROP_HEADER_LEN..packet_at)?;
        let name = header.get(40..)?;
        let flags = half(38)?;
        let captured = bytes.get(packet_at..packet_at.checked_add(captured)?)?;
        let link = if flags & FLAG_ETHERNET == 0 { 0 } else { ETHERNET_HEADER };
        let (link, packet) = captured.split_at_checked(link)?;
        Some(Self {
            time: long(0)?,
            place: long(8)?,
            reason: word(16)?,
            cpu: word(20)?,
            netns: word(24)?,
            ifindex: word(28)?,
            fate: half(36)?,
            device: name.split(|octet| *octet == 0).next().unwrap_or_default(),
            connection: if flags & FLAG_CONNECTION == 0 { None } else { nat_tuple(tuples) },
            link,
            packet,
            link_and_packet: captured,
        })
    }

    /// Whether the packet's own header says TCP; extension headers of IPv6 are not looked behind.
    pub(super) fn is_tcp(&self) -> bool {
        const TCP: u8 = 6;
        let protocol_at = if self.packet.first().is_some_and(|first| first >> 4 == 6) { 6 } else { 9 };
        self.packet.get(protocol_at) == Some(&TCP)
    }

    /// The packet, with its link header or without.
    pub(super) fn captured(&self, with_link: bool) -> &'a [u8] {
        if with_link { self.link_and_packet } else { self.packet }
    }

    /// Octets the packet has, by its own header; what was captured where that does not say.
    pub(super) fn original_len(&self, with_link: bool) -> u32 {
        let half = |at: usize| {
            let octets = self.packet.get(at..at + 2)?;
            Some(usize::from(u16::from_be_bytes(octets.try_into().ok()?)))
        };
        let says = match self.packet.first().map(|first| first >> 4) {
            Some(4) => half(2),
            Some(6) => half(4).map(|payload| payload + 40),
            _ => None,
        };
        let link = if with_link { self.link.len() } else { 0 };
        u32::try_from(says.unwrap_or(0).max(self.packet.len()) + link).unwrap_or(u32::MAX)
    }
}

/// As [`dnspath_ebpf::FLAG_NAT_IPV4`] has them.
fn ipv4_nat_tuple(tuples: &[u8]) -> Option<NatTuple> {
    let end = |address_at: usize, port_at: usize| {
        let address = <[u8; 4]>::try_from(tuples.get(address_at..address_at + 4)?).ok()?;
        let port = u16::from_be_bytes(tuples.get(port_at..port_at + 2)?.try_into().ok()?);
        Some(SocketAddr::from((address, port)))
    };
    Some(NatTuple {
        original: Flow { source: end(0, 16)?, destination: end(4, 18)? },
        reply: Flow { source: end(8, 20)?, destination: end(12, 22)? },
    })
}

fn nat_tuple(tuples: &[u8]) -> Option<NatTuple> {
    Some(NatTuple { original: tuple(tuples)?, reply: tuple(tuples.get(TUPLE_STRIDE..)?)? })
}

/// `struct nf_conntrack_tuple`: source address (16 octets), source port, l3num, destination address, port.
fn tuple(tuple: &[u8]) -> Option<Flow> {
    let port = |at: usize| Some(u16::from_be_bytes(tuple.get(at..at + 2)?.try_into().ok()?));
    let family = u16::from_ne_bytes(tuple.get(18..20)?.try_into().ok()?);
    let address = |at: usize| -> Option<IpAddr> {
        match family {
            AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(tuple.get(at..at + 4)?).ok()?).into()),
            AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(tuple.get(at..at + 16)?).ok()?).into()),
            _ => None,
        }
    };
    Some(Flow {
        source: SocketAddr::new(address(0)?, port(16)?),
        destination: SocketAddr::new(address(20)?, port(36)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(flags: u32, captured: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = 7_u64.to_ne_bytes().to_vec();
        for word in [3_u32, 90, captured] {
            bytes.extend(word.to_ne_bytes());
        }
        for half in [1_400_u16, 1] {
            bytes.extend(half.to_ne_bytes());
        }
        bytes.extend(flags.to_ne_bytes());
        bytes.resize(HEADER_LEN, 0);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn header_and_frame() {
        let bytes = record(FLAG_EGRESS, 4, &[1, 2, 3, 4, 99]);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.time, record.ifindex, record.egress, record.raw_ip), (7, 3, true, false));
        assert_eq!((record.cpu, record.clash), (1, false));
        assert_eq!((record.frame_len, record.segment_size, record.nat), (90, 1_400, None));
        assert_eq!(record.frame, [1, 2, 3, 4]);
    }

    #[test]
    fn both_tuples_of_a_translated_connection() {
        let mut tuples = vec![0_u8; NAT_LEN];
        for (at, source, destination) in
            [(0, [10, 1, 0, 7], [10, 96, 0, 10]), (TUPLE_STRIDE, [10, 1, 0, 2], [10, 1, 0, 7])]
        {
            tuples[at..at + 4].copy_from_slice(&source);
            tuples[at + 16..at + 18].copy_from_slice(&4_000_u16.to_be_bytes());
            tuples[at + 18..at + 20].copy_from_slice(&AF_INET.to_ne_bytes());
            tuples[at + 20..at + 24].copy_from_slice(&destination);
            tuples[at + 36..at + 38].copy_from_slice(&53_u16.to_be_bytes());
        }
        tuples.push(42);
        let bytes = record(FLAG_NAT, 1, &tuples);
        let record = Record::parse(&bytes).unwrap();
        let nat = record.nat.unwrap();
        assert_eq!(nat.original.source.to_string(), "10.1.0.7:4000");
        assert_eq!(nat.original.destination.to_string(), "10.96.0.10:53");
        assert_eq!(nat.reply.source.to_string(), "10.1.0.2:4000");
        assert_eq!(record.frame, [42]);
    }

    #[test]
    fn tuples_of_ipv4_take_a_quarter_of_the_room() {
        let mut tuples = [10, 1, 0, 7, 10, 96, 0, 10, 10, 1, 0, 2, 10, 1, 0, 7].to_vec();
        for port in [4_000_u16, 53, 5_353, 4_000] {
            tuples.extend(port.to_be_bytes());
        }
        let expected = NatTuple {
            original: Flow {
                source: "10.1.0.7:4000".parse().unwrap(),
                destination: "10.96.0.10:53".parse().unwrap(),
            },
            reply: Flow {
                source: "10.1.0.2:5353".parse().unwrap(),
                destination: "10.1.0.7:4000".parse().unwrap(),
            },
        };
        tuples.push(42);
        let bytes = record(FLAG_NAT_IPV4 | FLAG_CLASH, 1, &tuples);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.nat, record.clash, record.frame), (Some(expected), true, &[42][..]));
    }

    fn drop_record(flags: u16, packet: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for long in [7_u64, 0xffff_ffff_8100_0010] {
            bytes.extend(long.to_ne_bytes());
        }
        for word in [12_u32, 1, 4_026_531_840, 3, packet.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        for half in [dnspath_ebpf::FATE_INSERT_FAILED, flags] {
            bytes.extend(half.to_ne_bytes());
        }
        bytes.extend(*b"veth-web\0\0junk\0\0");
        bytes.resize(DROP_HEADER_LEN + NAT_LEN, 0);
        bytes.extend(packet);
        bytes
    }

    #[test]
    fn a_dropped_packet() {
        let mut packet = vec![0x45, 0, 0, 60];
        packet.resize(24, 9);
        let bytes = drop_record(0, &packet);
        let record = DropRecord::parse(&bytes).unwrap();
        assert_eq!((record.time, record.place, record.reason), (7, 0xffff_ffff_8100_0010, 12));
        assert_eq!((record.cpu, record.netns, record.ifindex), (1, 4_026_531_840, 3));
        assert_eq!(record.fate, dnspath_ebpf::FATE_INSERT_FAILED);
        assert_eq!((record.device, record.connection), (&b"veth-web"[..], None));
        assert_eq!((record.packet, record.original_len(false), record.is_tcp()), (&packet[..], 60, false));
        let mut frame = vec![0xaa; ETHERNET_HEADER];
        frame.extend(&packet);
        let bytes = drop_record(FLAG_ETHERNET, &frame);
        let record = DropRecord::parse(&bytes).unwrap();
        assert_eq!((record.link, record.packet), (&frame[..14], &packet[..]));
        assert_eq!((record.captured(true), record.original_len(true)), (&frame[..], 74));
        // Tuples of no known family are none.
        let bytes = drop_record(FLAG_CONNECTION, &[]);
        let record = DropRecord::parse(&bytes).unwrap();
        assert_eq!((record.connection, record.original_len(false)), (None, 0));
    }

    #[test]
    fn a_drop_shorter_than_it_claims_is_refused_at_every_length() {
        let whole = drop_record(FLAG_CONNECTION, &[0x60; 44]);
        assert_eq!(DropRecord::parse(&whole).unwrap().original_len(false), 0x6060 + 40);
        for length in 0..whole.len() {
            assert_eq!(DropRecord::parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(DropRecord::parse(&drop_record(FLAG_ETHERNET, &[0; 13])), None);
    }

    #[test]
    fn a_record_shorter_than_it_claims_is_refused_at_every_length() {
        for (flag, tuples) in [(FLAG_NAT, NAT_LEN), (FLAG_NAT_IPV4, NAT_IPV4_LEN)] {
            let whole = record(flag, 2, &vec![0; tuples + 2]);
            assert!(Record::parse(&whole).is_some());
            for length in 0..whole.len() {
                assert_eq!(Record::parse(&whole[..length]), None, "{length}");
            }
        }
    }
}
