//! What the kernel did to a packet other than to pass it on, and what conntrack counted meanwhile.

use super::{DnsMessage, Flow, MacAddress, NatTuple, QuestionId, Rtype, Timestamp, Transport, VantageId};
use std::{fmt, sync::Arc};

/// What became of a packet that the kernel did not simply pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// Two connections had one tuple and the kernel joined them (`nf_ct_resolve_clash`): nothing was lost.
    ClashResolved,
    /// Dropped for any other reason.
    Dropped,
    /// Dropped because its connection could not be entered (`__nf_conntrack_confirm`, counter `insert_failed`).
    InsertFailed,
    /// Dropped because the connection table was full (`nf_conntrack_in`, counter `drop`).
    TableFull,
}

impl Fate {
    /// The word of the outputs and of a recording's comments.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClashResolved => "clash_resolved",
            Self::Dropped => "dropped",
            Self::InsertFailed => "insert_failed",
            Self::TableFull => "table_full",
        }
    }

    /// Whether the packet is gone.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        !matches!(self, Self::ClashResolved)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Marks a [`super::Frame`] as what the kernel's drop or clash probe told, and not as a sighting.
///
/// Such a frame's bytes start at the network header ([`super::LinkType::RawIp`]) and may be cut or even empty, where
/// the packet's data was not at hand; its `nat` holds both tuples of the packet's connection wherever there was one,
/// translated or not. Its vantage is the device that the packet was at, with direction
/// [`super::Direction::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropMark<'a> {
    /// What became of the packet.
    pub fate: Fate,
    /// The CPU it happened on.
    pub cpu: u32,
    /// The kernel's name of the reason without its prefix, as `NETFILTER_DROP`; empty where the kernel gives none.
    pub reason: &'a str,
    /// The kernel function that freed the packet or refused the connection; empty where unknown.
    pub place: &'a str,
}

/// A DNS packet that the kernel dropped, or a clash that it resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketDrop {
    /// Number of its frame.
    pub frame: u64,
    /// When.
    pub time: Timestamp,
    /// The device the packet was at.
    pub vantage: VantageId,
    /// What became of it.
    pub fate: Fate,
    /// The CPU it happened on.
    pub cpu: u32,
    /// See [`DropMark::reason`].
    pub reason: Arc<str>,
    /// See [`DropMark::place`].
    pub place: Arc<str>,
    /// UDP or TCP.
    pub transport: Transport,
    /// The packet's addresses as it was freed: translated already where the rules had been passed.
    pub flow: Flow,
    /// Both tuples of its connection; `original` is as the client sent it.
    pub connection: Option<NatTuple>,
    /// Destination MAC address, where the packet still had a link header.
    pub destination_mac: Option<MacAddress>,
    /// Its DNS message, as far as it could be read; `None` for a bare TCP segment or unreadable data.
    pub dns: Option<DnsMessage>,
    /// The question it belonged to.
    pub question: Option<QuestionId>,
    /// For a clash: the query of the same socket that was in flight beside it, most likely the one it lost against.
    pub rival: Option<Rival>,
}

/// The other query of a clash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its type.
    pub qtype: Rtype,
    /// Its DNS id.
    pub id: u16,
}

impl PacketDrop {
    /// Who asks and who is asked, as the client sees it: the connection's original tuple where there is one.
    #[must_use]
    pub fn asked(&self) -> Flow {
        match self.connection {
            Some(connection) => connection.original,
            None if self.is_response() => self.flow.reversed(),
            None => self.flow,
        }
    }

    /// Whether the packet was on its way back to the client. Without readable data its connection tells, else the
    /// lower port: a server's.
    #[must_use]
    pub fn is_response(&self) -> bool {
        let Flow { source, destination } = self.flow;
        match (&self.dns, self.connection) {
            (Some(dns), _) => dns.is_response(),
            (None, Some(NatTuple { original, .. })) if source == original.source => false,
            (None, Some(NatTuple { original, reply })) => {
                source == reply.source || destination == reply.destination || source == original.destination
            }
            (None, None) => source.port() < destination.port(),
        }
    }
}

/// A frame that a node sent to an address by another MAC address than the one this address sends by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misdirected {
    /// Number of the frame.
    pub frame: u64,
    /// When.
    pub time: Timestamp,
    /// Where it left.
    pub vantage: VantageId,
    /// Its addresses there.
    pub flow: Flow,
    /// Where it was sent to.
    pub destination_mac: MacAddress,
    /// Where the address's own frames come from.
    pub expected_mac: MacAddress,
    /// Its DNS message.
    pub dns: DnsMessage,
}

/// What conntrack counted in the watched namespaces since the session began (`/proc/net/stat/nf_conntrack`), all
/// CPUs together, and how full its table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections that could not be entered: each cost its packet.
    pub insert_failed: u64,
    /// Clashes that were resolved.
    pub clash_resolve: u64,
    /// Packets dropped: unresolved clashes, a full table, failed allocations.
    pub drop: u64,
    /// Connections evicted to make room.
    pub early_drop: u64,
    /// Times that NAT found a tuple taken.
    pub found: u64,
    /// Packets that belong to no connection.
    pub invalid: u64,
    /// Connections in the table now (`nf_conntrack_count`).
    pub entries: u64,
    /// Connections it can hold (`nf_conntrack_max`).
    pub max: u64,
}

impl Conntrack {
    /// What is counted, by the kernel's names; not how full the table is.
    #[must_use]
    pub const fn counters(&self) -> [(&'static str, u64); 6] {
        [
            ("insert_failed", self.insert_failed),
            ("clash_resolve", self.clash_resolve),
            ("drop", self.drop),
            ("early_drop", self.early_drop),
            ("found", self.found),
            ("invalid", self.invalid),
        ]
    }

    /// What was counted since `before`, and the table as it is now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        self.counted(before, u64::saturating_sub)
    }

    /// What both counted, and the table as this one has it.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.counted(other, u64::saturating_add)
    }

    fn counted(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            insert_failed: of(self.insert_failed, other.insert_failed),
            clash_resolve: of(self.clash_resolve, other.clash_resolve),
            drop: of(self.drop, other.drop),
            early_drop: of(self.early_drop, other.early_drop),
            found: of(self.found, other.found),
            invalid: of(self.invalid, other.invalid),
            ..*self
        }
    }
}
