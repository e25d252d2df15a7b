//! Reads a ring record back; the layout is [`dnspath_ebpf::RecordHeader`]'s.

use crate::model::{Flow, NatTuple};
use dnspath_ebpf::{FLAG_EGRESS, FLAG_NAT, FLAG_RAW_IP, HEADER_LEN, NAT_LEN};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets from one `nf_conntrack_tuple_hash.tuple` to the next; the loader checks it against the kernel's BTF.
pub(super) const TUPLE_STRIDE: usize = 56;
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
    pub(super) frame: &'a [u8],
}

impl<'a> Record<'a> {
    /// `None` for a record shorter than it claims: then the two sides are of different builds.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_LEN)?;
        let word = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let flags = word(24)?;
        let frame_at = if flags & FLAG_NAT == 0 { HEADER_LEN } else { HEADER_LEN + NAT_LEN };
        let captured = word(16)? as usize;
        Some(Self {
            time: u64::from_ne_bytes(header.get(..8)?.try_into().ok()?),
            ifindex: word(8)?,
            egress: flags & FLAG_EGRESS != 0,
            raw_ip: flags & FLAG_RAW_IP != 0,
            frame_len: word(12)?,
            segment_size: u16::from_ne_bytes(header.get(20..22)?.try_into().ok()?),
            nat: bytes.get(HEADER_LEN..frame_at).filter(|tuples| !tuples.is_empty()).and_then(nat_tuple),
            frame: bytes.get(frame_at..frame_at.checked_add(captured)?)?,
        })
    }
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
        for word in [3_u32, 90, captured, 1_400, flags, 1, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.resize(HEADER_LEN, 0);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn header_and_frame() {
        let bytes = record(FLAG_EGRESS, 4, &[1, 2, 3, 4, 99]);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.time, record.ifindex, record.egress, record.raw_ip), (7, 3, true, false));
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
    fn a_record_shorter_than_it_claims_is_refused_at_every_length() {
        let whole = record(FLAG_NAT, 2, &[0; NAT_LEN + 2]);
        assert!(Record::parse(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(Record::parse(&whole[..length]), None, "{length}");
        }
    }
}
