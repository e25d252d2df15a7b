//! What became of the addresses that were answered: how TCP connections to them begin.

use super::{Flow, IcmpError, Name, Timestamp, VantageId};
use smallvec::SmallVec;
use std::{fmt, net::SocketAddr};

/// What a packet says of the beginning of a TCP connection (RFC 9293 section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStep {
    /// SYN+ACK: the server accepts.
    Accepted,
    /// SYN: the client wants one.
    Asked,
    /// RST: the server refuses.
    Refused,
    /// An ICMP error that quotes the SYN.
    Unreachable(IcmpError),
}

/// One packet of the beginning of a TCP connection that is none of DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectPacket {
    /// Number of its frame.
    pub frame: u64,
    /// When.
    pub time: Timestamp,
    /// Where.
    pub vantage: VantageId,
    /// Client to server, as addressed here, whichever of them sent the packet.
    pub flow: Flow,
    /// The client's initial sequence number: it tells one attempt from the next, and no translation changes it.
    pub initial_sequence: u32,
    /// What it says.
    pub step: ConnectStep,
}

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectOutcome {
    /// The server accepted.
    Accepted,
    /// RST instead.
    Refused,
    /// Asked again, and no answer.
    Silent,
    /// An ICMP error instead.
    Unreachable,
}

impl ConnectOutcome {
    /// The word of the outputs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
        }
    }
}

impl fmt::Display for ConnectOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A client's attempt to connect to an address that it had been answered shortly before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Who connects.
    pub client: SocketAddr,
    /// Where to.
    pub server: SocketAddr,
    /// The name that the address was the answer for.
    pub name: Name,
    /// When that answer was seen.
    pub answered: Timestamp,
    /// The first SYN.
    pub time: Timestamp,
    /// What ended it; for [`ConnectOutcome::Silent`] the last SYN.
    pub ended: Timestamp,
    /// SYN packets sent.
    pub asked: u32,
    /// How it ended.
    pub outcome: ConnectOutcome,
    /// The error, for [`ConnectOutcome::Unreachable`].
    pub error: Option<IcmpError>,
    /// The first SYN's frame and that of what ended it, and where they were seen.
    pub frames: SmallVec<[(u64, VantageId); 2]>,
}
