//! Which packets are of interest: DNS by port over UDP and TCP, their fragments, and ICMP errors that quote one. And, where
//! that is wanted, how other TCP connections begin: bare SYN, SYN+ACK and refusals, and unreachable ones.

use crate::FragmentKey;

/// How many DNS ports can be watched at once.
pub const MAX_PORTS: usize = 8;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;

const IPPROTO_HOPOPTS: u8 = 0;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_AH: u8 = 51;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_DSTOPTS: u8 = 60;

const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const ICMP_HEADER: u32 = 8;
/// Extension headers that are followed; RFC 8200 lets each stand once, destination options twice.
const MAX_EXTENSIONS: u32 = 6;

const TCP_FIN_SYN_RST: u16 = 0x07;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
/// Type of "destination unreachable", and its code for a packet that is too big (RFC 792); RFC 4443 has a type for that.
const ICMP_UNREACHABLE: u8 = 3;
const ICMP_FRAGMENTATION_NEEDED: u8 = 4;
const ICMPV6_UNREACHABLE: u8 = 1;
/// DNS over TLS and over QUIC (RFC 7858, RFC 9250).
pub const ENCRYPTED_DNS: u16 = 853;

/// Read access to a frame; `None` past its end. Multi-octet values are in network byte order on the wire and in
/// host order here.
pub trait Bytes {
    /// The octet at `at`.
    fn u8(&self, at: u32) -> Option<u8>;
    /// Two octets from `at` on.
    fn u16(&self, at: u32) -> Option<u16>;
    /// Four octets from `at` on.
    fn u32(&self, at: u32) -> Option<u32>;
    /// As [`Self::u8`], where that is likely to be for nothing: by the cheapest way there is.
    fn peek(&self, at: u32) -> Option<u8> {
        self.u8(at)
    }
    /// Octets of the frame.
    fn len(&self) -> u32;
    /// Whether the frame has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The DNS ports.
pub trait Ports {
    /// Whether `port` is one.
    fn contains(&self, port: u16) -> bool;
    /// A packet to or from port [`ENCRYPTED_DNS`] was seen.
    fn note_encrypted(&self) {}
    /// Whether the beginnings of other connections are of interest.
    fn follows_connects(&self) -> bool {
        false
    }
}

/// What a frame is of interest for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The beginning, or the refusal, of a TCP connection that is none of DNS.
    Connect,
    /// DNS.
    Dns,
    /// Nothing.
    None,
}

impl Interest {
    #[inline(always)]
    fn dns(is_it: bool) -> Self {
        if is_it { Self::Dns } else { Self::None }
    }
}

/// Datagrams in fragments: only the first fragment shows the ports.
pub trait Fragments {
    /// The first fragment of a DNS datagram was seen.
    fn remember(&self, key: &FragmentKey);
    /// Whether it was.
    fn known(&self, key: &FragmentKey) -> bool;
}

/// What a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header, with up to two VLAN tags in band.
    Ethernet,
    /// An IP header.
    RawIp,
}

/// Where the transport header is, and of what kind.
struct Transport {
    protocol: u8,
    /// Offset of the transport header.
    at: u32,
    /// Offset of the packet's end by its own length, which excludes Ethernet padding.
    end: u32,
}

/// What the frame is to be captured for.
#[inline(always)]
#[must_use]
pub fn classify(bytes: &impl Bytes, link: Link, ports: &impl Ports, fragments: &impl Fragments) -> Interest {
    decide(bytes, link, ports, fragments).unwrap_or(Interest::None)
}

#[inline(always)]
fn decide(
    bytes: &impl Bytes,
    link: Link,
    ports: &impl Ports,
    fragments: &impl Fragments,
) -> Option<Interest> {
    let (network, v6) = network_header(bytes, link)?;
    let (transport, fragment_id, is_later_fragment) =
        if v6 { ipv6(bytes, network)? } else { ipv4(bytes, network)? };
    if let Some(id) = fragment_id {
        let key = fragment_key(bytes, network, v6, id)?;
        if is_later_fragment {
            return Some(Interest::dns(fragments.known(&key)));
        }
        let interesting = transport.protocol == IPPROTO_UDP && either_port(bytes, transport.at, ports)?;
        if interesting {
            fragments.remember(&key);
        }
        return Some(Interest::dns(interesting));
    }
    match transport.protocol {
        IPPROTO_UDP => either_port(bytes, transport.at, ports).map(Interest::dns),
        IPPROTO_TCP if either_port(bytes, transport.at, ports)? => {
            tcp_says_something(bytes, &transport).map(Interest::dns)
        }
        IPPROTO_TCP if ports.follows_connects() => begins(bytes, &transport),
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
        IPPROTO_ICMP if !v6 => match bytes.u8(transport.at)? {
            kind @ (3..=5 | 11 | 12) => {
                let unreachable = kind == ICMP_UNREACHABLE
                    && ports.follows_connects()
                    && bytes.u8(transport.at + 1)? != ICMP_FRAGMENTATION_NEEDED;
                quoted_ipv4(bytes, transport.at + ICMP_HEADER, unreachable, ports)
            }
            _ => None,
        },
        // Unreachable, too big, time exceeded, parameter problem (RFC 4443).
        IPPROTO_ICMPV6 if v6 => match bytes.u8(transport.at)? {
            kind @ 1..=4 => {
                let unreachable = kind == ICMPV6_UNREACHABLE && ports.follows_connects();
                quoted_ipv6(bytes, transport.at + ICMP_HEADER, unreachable, ports)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Offset of the IP header, and whether it is IPv6.
#[inline(always)]
fn network_header(bytes: &impl Bytes, link: Link) -> Option<(u32, bool)> {
    if link == Link::RawIp {
        return match bytes.u8(0)? >> 4 {
            4 => Some((0, false)),
            6 => Some((0, true)),
            _ => None,
        };
    }
    let mut at = 12;
    let mut ether_type = bytes.u16(at)?;
    if ether_type == ETH_P_8021Q || ether_type == ETH_P_8021AD {
        at += 4;
        ether_type = bytes.u16(at)?;
        if ether_type == ETH_P_8021Q {
            at += 4;
            ether_type = bytes.u16(at)?;
        }
    }
    match ether_type {
        ETH_P_IP => Some((at + 2, false)),
        ETH_P_IPV6 => Some((at + 2, true)),
        _ => None,
    }
}

/// The transport, the identification where this is a fragment, and whether it is a later one.
#[inline(always)]
fn ipv4(bytes: &impl Bytes, network: u32) -> Option<(Transport, Option<u32>, bool)> {
    let header = u32::from(bytes.u8(network)? & 0xf) * 4;
    if header < IPV4_HEADER {
        return None;
    }
    let total = u32::from(bytes.u16(network + 2)?);
    let flags_and_offset = bytes.u16(network + 6)?;
    let transport = Transport {
        protocol: bytes.u8(network + 9)?,
        at: network + header,
        end: if total == 0 { bytes.len() } else { network + total },
    };
    let (more, offset) = (flags_and_offset & 0x2000 != 0, flags_and_offset & 0x1fff);
    let id = if more || offset != 0 { Some(u32::from(bytes.u16(network + 4)?)) } else { None };
    Some((transport, id, offset != 0))
}

/// As [`ipv4`], past the extension headers (RFC 8200 section 4).
#[inline(always)]
fn ipv6(bytes: &impl Bytes, network: u32) -> Option<(Transport, Option<u32>, bool)> {
    let payload = u32::from(bytes.u16(network + 4)?);
    let end = if payload == 0 { bytes.len() } else { network + IPV6_HEADER + payload };
    let mut protocol = bytes.u8(network + 6)?;
    let mut at = network + IPV6_HEADER;
    let mut fragment = None;
    for _ in 0..MAX_EXTENSIONS {
        let length = match protocol {
            IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_DSTOPTS => u32::from(bytes.u8(at + 1)?) * 8 + 8,
            IPPROTO_AH => u32::from(bytes.u8(at + 1)?) * 4 + 8,
            IPPROTO_FRAGMENT => {
                let offset_and_more = bytes.u16(at + 2)?;
                if offset_and_more & 0xfff9 != 0 {
                    fragment = Some((bytes.u32(at + 4)?, offset_and_more >> 3 != 0));
                    if offset_and_more >> 3 != 0 {
                        break;
                    }
                }
                8
            }
            _ => break,
        };
        protocol = bytes.u8(at)?;
        at += length;
    }
    let transport = Transport { protocol, at, end };
    Some((transport, fragment.map(|(id, _)| id), fragment.is_some_and(|(_, later)| later)))
}

#[inline(always)]
fn fragment_key(bytes: &impl Bytes, network: u32, v6: bool, id: u32) -> Option<FragmentKey> {
    let mut key = FragmentKey { id, ..FragmentKey::default() };
    if v6 {
        key.source = four_words(bytes, network + 8)?;
        key.destination = four_words(bytes, network + 24)?;
    } else {
        key.source[0] = bytes.u32(network + 12)?;
        key.destination[0] = bytes.u32(network + 16)?;
    }
    Some(key)
}

#[inline(always)]
fn four_words(bytes: &impl Bytes, at: u32) -> Option<[u32; 4]> {
    Some([bytes.u32(at)?, bytes.u32(at + 4)?, bytes.u32(at + 8)?, bytes.u32(at + 12)?])
}

#[inline(always)]
fn either_port(bytes: &impl Bytes, transport: u32, ports: &impl Ports) -> Option<bool> {
    let (source, destination) = (bytes.u16(transport)?, bytes.u16(transport + 2)?);
    if ports.contains(source) || ports.contains(destination) {
        return Some(true);
    }
    if source == ENCRYPTED_DNS || destination == ENCRYPTED_DNS {
        ports.note_encrypted();
    }
    Some(false)
}

/// A segment without payload that opens a connection, accepts it, or refuses it: with sequence number 0, since it answers
/// a segment that acknowledges nothing (RFC 9293 section 3.5.2).
#[inline(always)]
fn begins(bytes: &impl Bytes, transport: &Transport) -> Option<Interest> {
    let flags = bytes.peek(transport.at + 13)?;
    if flags & (TCP_SYN | TCP_RST) == 0 {
        return None;
    }
    let header = u32::from(bytes.u8(transport.at + 12)? >> 4) * 4;
    let is_bare = transport.at + header >= transport.end;
    let begins = is_bare && (flags & TCP_RST == 0 || bytes.u32(transport.at + 4)? == 0);
    if begins { Some(Interest::Connect) } else { None }
}

/// A segment with payload, or one that opens or ends a connection: bare acknowledgements are left out.
#[inline(always)]
fn tcp_says_something(bytes: &impl Bytes, transport: &Transport) -> Option<bool> {
    let length_and_flags = bytes.u16(transport.at + 12)?;
    let header = u32::from(length_and_flags >> 12) * 4;
    Some(length_and_flags & TCP_FIN_SYN_RST != 0 || transport.at + header < transport.end)
}

/// What the packet is that an ICMP error quotes; with `unreachable` one of any TCP connection is of interest.
#[inline(always)]
fn quoted_ipv4(bytes: &impl Bytes, network: u32, unreachable: bool, ports: &impl Ports) -> Option<Interest> {
    let (transport, _, is_later_fragment) = ipv4(bytes, network)?;
    if is_later_fragment {
        return None;
    }
    quoted(bytes, transport.protocol, transport.at, unreachable, ports)
}

#[inline(always)]
fn quoted(
    bytes: &impl Bytes,
    protocol: u8,
    at: u32,
    unreachable: bool,
    ports: &impl Ports,
) -> Option<Interest> {
    if !matches!(protocol, IPPROTO_UDP | IPPROTO_TCP) {
        return None;
    }
    if either_port(bytes, at, ports)? {
        return Some(Interest::Dns);
    }
    if unreachable && protocol == IPPROTO_TCP { Some(Interest::Connect) } else { None }
}

/// As [`quoted_ipv4`]; a quote with extension headers is left out but for a fragment header, the one that DNS meets.
#[inline(always)]
fn quoted_ipv6(bytes: &impl Bytes, network: u32, unreachable: bool, ports: &impl Ports) -> Option<Interest> {
    let mut protocol = bytes.u8(network + 6)?;
    let mut at = network + IPV6_HEADER;
    if protocol == IPPROTO_FRAGMENT {
        if bytes.u16(at + 2)? >> 3 != 0 {
            return None;
        }
        protocol = bytes.u8(at)?;
        at += 8;
    }
    quoted(bytes, protocol, at, unreachable, ports)
}
