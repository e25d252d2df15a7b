//! One DNS message, or one ICMP error about one, at one vantage.

use super::{DnsMessage, NatTuple, Timestamp, VantageId};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// UDP or TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP (RFC 7766).
    Tcp,
    /// UDP.
    #[default]
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// The addresses of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
}

impl Flow {
    /// The same flow seen from the other side.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddress({self})")
    }
}

/// An ICMP or ICMPv6 error that quotes a DNS packet (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpError {
    /// Who sent the error.
    pub from: IpAddr,
    /// Who gets it: the sender of the quoted packet.
    pub to: IpAddr,
    /// ICMP type: 3 is destination unreachable in IPv4, 1 in IPv6.
    pub kind: u8,
    /// ICMP code: 3 is port unreachable in IPv4, 4 in IPv6.
    pub code: u8,
    /// Whether this is ICMPv6.
    pub v6: bool,
    /// Addresses of the quoted packet.
    pub quoted: Flow,
    /// Transport of the quoted packet.
    pub quoted_transport: Transport,
    /// The quoted packet's DNS id, where enough of it is quoted.
    pub quoted_id: Option<u16>,
}

impl IcmpError {
    /// Destination unreachable, of any code.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        if self.v6 { self.kind == 1 } else { self.kind == 3 }
    }

    /// Port unreachable: nobody listens, or a rule rejects.
    #[must_use]
    pub const fn is_port_unreachable(&self) -> bool {
        self.is_unreachable() && if self.v6 { self.code == 4 } else { self.code == 3 }
    }
}

/// What was seen.
#[expect(clippy::large_enum_variant, reason = "the decoder reuses one sighting; nearly all are DNS messages")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SightingBody {
    /// A DNS message.
    Dns(DnsMessage),
    /// An ICMP error about one.
    Icmp(IcmpError),
}

/// One DNS message, or one ICMP error about one, at one vantage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Number of the frame that carried it (for TCP and fragments: that completed it).
    pub frame: u64,
    /// When (for TCP and fragments: when it was complete).
    pub time: Timestamp,
    /// Where.
    pub vantage: VantageId,
    /// UDP or TCP; for an ICMP error that of the quoted packet.
    pub transport: Transport,
    /// The packet's addresses at this vantage; for an ICMP error those of the error packet, ports 0.
    pub flow: Flow,
    /// Destination MAC address, where the link has one.
    pub destination_mac: Option<MacAddress>,
    /// Source MAC address, where the link has one.
    pub source_mac: Option<MacAddress>,
    /// IPv4 time to live or IPv6 hop limit.
    pub ttl: u8,
    /// IPv4 identification; 0 in IPv6.
    pub ip_id: u16,
    /// IPv4 DF; false in IPv6.
    pub dont_fragment: bool,
    /// The connection's tuples, where the kernel side read them.
    pub nat: Option<NatTuple>,
    /// What it was.
    pub body: SightingBody,
}
