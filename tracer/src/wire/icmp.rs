//! ICMP (RFC 792) and ICMPv6 (RFC 4443) errors that quote a DNS packet.
//!
//! Rule: the quote is read as far as it goes: with the first four octets behind its IP header the ports are
//! there and the error is told; ten octets of UDP give the DNS id.

use super::ip::{self, Packet, protocol};
use crate::model::{Flow, IcmpError, Transport};
use std::net::SocketAddr;

/// Type, code, checksum and four octets that depend on the type.
const HEADER_LEN: usize = 8;

/// Reads an ICMP error of either version; `None` where `packet` is none, or quotes neither UDP nor TCP.
pub(super) fn parse(packet: &Packet<'_>) -> Option<IcmpError> {
    let (&[kind, code, ..], quote) = packet.payload.split_first_chunk::<HEADER_LEN>()?;
    let v6 = packet.protocol == protocol::ICMPV6;
    let is_error = if v6 {
        matches!(kind, 1..=4)
    } else {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        matches!(kind, 3 | 4 | 5 | 11 | 12)
    };
    if !is_error {
        return None;
    }
    let quoted = ip::parse(quote, packet.wire_len.saturating_sub(HEADER_LEN)).ok()?;
    if quoted.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return None;
    }
    let quoted_transport = match quoted.protocol {
        protocol::UDP => Transport::Udp,
        protocol::TCP => Transport::Tcp,
        _ => return None,
    };
    let &[s0, s1, d0, d1] = quoted.payload.first_chunk::<4>()?;
    let quoted_id = match (quoted_transport, quoted.payload.get(8..10)) {
        (Transport::Udp, Some(&[high, low])) => Some(u16::from_be_bytes([high, low])),
        _ => None,
    };
    Some(IcmpError {
        from: packet.source,
        to: packet.destination,
        kind,
        code,
        v6,
        quoted: Flow {
            source: SocketAddr::new(quoted.source, u16::from_be_bytes([s0, s1])),
            destination: SocketAddr::new(quoted.destination, u16::from_be_bytes([d0, d1])),
        },
        quoted_transport,
        quoted_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples;

    fn error<'a>(protocol: u8, payload: &'a [u8], v6: bool) -> Packet<'a> {
        let address = |last| if v6 { samples::v6(last) } else { samples::v4(last) };
        Packet {
            source: address(9),
            destination: address(1),
            ttl: 64,
            id: 0,
            dont_fragment: false,
            protocol,
            payload,
            wire_len: payload.len(),
            fragment: None,
        }
    }

    fn quoting(kind: u8, code: u8, quote: &[u8]) -> Vec<u8> {
        [&[kind, code, 0, 0, 0, 0, 0, 0], quote].concat()
    }

    #[test]
    fn port_unreachable_says_who_and_which_query() {
        for (v6, protocol, kind, code) in [(false, protocol::ICMP, 3, 3), (true, protocol::ICMPV6, 1, 4)] {
            let query = samples::query(0xbeef, "example.com");
            let quote = samples::udp_packet(v6, 4000, 53, &query);
            let bytes = quoting(kind, code, &quote);
            let read = parse(&error(protocol, &bytes, v6)).unwrap();
            assert!(read.is_port_unreachable());
            assert_eq!(read.quoted_id, Some(0xbeef));
            assert_eq!(read.quoted_transport, Transport::Udp);
            assert_eq!((read.quoted.source.port(), read.quoted.destination.port()), (4000, 53));
            assert_eq!(
                (read.from, read.to),
                if v6 { (samples::v6(9), samples::v6(1)) } else { (samples::v4(9), samples::v4(1)) }
            );
        }
    }

    #[test]
    fn the_shortest_quote_still_gives_ports() {
        let quote = samples::udp_packet(false, 4000, 53, &samples::query(1, "a"));
        let bytes = quoting(11, 0, &quote[..28]);
        let read = parse(&error(protocol::ICMP, &bytes, false)).unwrap();
        assert_eq!((read.quoted.destination.port(), read.quoted_id), (53, None));
        let bytes = quoting(11, 0, &quote[..23]);
        assert_eq!(parse(&error(protocol::ICMP, &bytes, false)), None);
    }

    #[test]
    fn tcp_quotes_have_no_id() {
        let quote = samples::tcp_packet(4000, 53, 7, 0x02, &[]);
        let bytes = quoting(3, 1, &quote);
        let read = parse(&error(protocol::ICMP, &bytes, false)).unwrap();
        assert_eq!((read.quoted_transport, read.quoted_id), (Transport::Tcp, None));
        assert!(read.is_unreachable() && !read.is_port_unreachable());
    }

    #[test]
    fn echoes_and_later_fragments_are_no_error() {
        let quote = samples::udp_packet(false, 4000, 53, &samples::query(1, "a"));
        let echo = quoting(8, 0, &quote);
        assert_eq!(parse(&error(protocol::ICMP, &echo, false)), None);
        let mut later = quote;
        later[7] = 5;
        let bytes = quoting(3, 3, &later);
        assert_eq!(parse(&error(protocol::ICMP, &bytes, false)), None);
    }
}
