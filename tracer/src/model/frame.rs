//! Raw bytes from one hook or one record of a capture file.

use super::{DropMark, Flow, Timestamp, VantageId};

/// How a frame's first bytes are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet II, VLAN tags allowed (LINKTYPE 1).
    #[default]
    Ethernet,
    /// IPv4 or IPv6 without a link header (LINKTYPE 12, 101, 228, 229).
    RawIp,
    /// Linux cooked capture v1 (LINKTYPE 113).
    LinuxSll,
    /// Linux cooked capture v2 (LINKTYPE 276): carries the interface index.
    LinuxSll2,
    /// BSD loopback, four octets of address family in either byte order (LINKTYPE 0, 108).
    Null,
    /// Anything else; its frames are counted as not understood.
    Other(u16),
}

/// What conntrack says of a translated packet's connection: `nf_conn.tuplehash`, both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatTuple {
    /// IP_CT_DIR_ORIGINAL: as the client sent it, client → the address it asked.
    pub original: Flow,
    /// IP_CT_DIR_REPLY: as the answering side sends it, chosen backend → the client as the backend sees it.
    pub reply: Flow,
}

/// One frame: what the kernel side or a capture file gives to the decoder.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its number within the session or file, from 1: the one Wireshark shows.
    pub number: u64,
    /// When the hook saw it.
    pub time: Timestamp,
    /// Where it was seen.
    pub vantage: VantageId,
    /// How `bytes` starts.
    pub link: LinkType,
    /// Octets the frame had on the wire; `bytes` may be shorter.
    pub original_len: u32,
    /// What was captured.
    pub bytes: &'a [u8],
    /// Payload octets of each segment where several UDP datagrams or TCP segments are in one frame
    /// (`gso_size`); 0 for an ordinary frame.
    pub segment_size: u16,
    /// The connection's two tuples where the kernel side read them: set only for translated connections.
    pub nat: Option<NatTuple>,
    /// Set where this is no sighting but what the kernel's drop or clash probe told of a packet.
    pub drop: Option<DropMark<'a>>,
}
