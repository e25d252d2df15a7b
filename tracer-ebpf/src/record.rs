//! The layout of one ring record: a [`RecordHeader`], the two conntrack tuples where [`FLAG_NAT`] or [`FLAG_NAT_IPV4`] is set,
//! then the captured bytes of the frame.

use core::mem::size_of;

/// Leads every record of the ring `FRAMES`, in the byte order of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RecordHeader {
    /// CLOCK_MONOTONIC in nanoseconds, `bpf_ktime_get_ns`.
    pub time: u64,
    /// `skb->ifindex`: in the namespace that this instance of the program was attached in.
    pub ifindex: u32,
    /// `skb->len`: octets of the frame, link header included.
    pub frame_len: u32,
    /// Octets of the frame that follow, at most [`MAX_CAPTURED`].
    pub captured: u32,
    /// `skb->gso_size`: payload octets of each segment in a frame that holds several; 0 otherwise.
    pub segment_size: u16,
    /// The CPU that saw it.
    pub cpu: u16,
    /// `FLAG_*` bits.
    pub flags: u32,
    /// Keeps the size a multiple of eight; 0.
    pub reserved: u32,
}

/// Octets of [`RecordHeader`].
pub const HEADER_LEN: usize = size_of::<RecordHeader>();
/// Octets of the tuples behind the header where [`FLAG_NAT`] is set: `nf_conn.tuplehash[0].tuple`, the
/// `hnnode` between, and `tuplehash[1].tuple`, as they are in the kernel.
pub const NAT_LEN: usize = 96;
/// Octets of the tuples where [`FLAG_NAT_IPV4`] is set: source and destination address of the first, of the second, source
/// and destination port of the first, of the second; in network byte order.
pub const NAT_IPV4_LEN: usize = 24;
/// The most octets of one frame that are kept; a 64 KiB GSO frame fits.
pub const MAX_CAPTURED: usize = 66_000;
/// Sizes, in octets of frame, that records are reserved in: the smallest that holds the frame is taken.
pub const CLASSES: [usize; 8] = [96, 160, 288, 544, 1_568, 4_128, 16_416, MAX_CAPTURED];

/// Sent by the node out of the interface; else received on it.
pub const FLAG_EGRESS: u32 = 1;
/// The frame has no link header.
pub const FLAG_RAW_IP: u32 = 2;
/// Two conntrack tuples stand between header and frame, [`NAT_LEN`] octets.
pub const FLAG_NAT: u32 = 4;
/// The connection was entered for replies alone, because another had its tuple: conntrack resolved a clash.
pub const FLAG_CLASH: u32 = 8;
/// The frame is none of DNS: a TCP connection begins or is refused.
pub const FLAG_CONNECT: u32 = 16;
/// Two conntrack tuples of IPv4 stand between header and frame, [`NAT_IPV4_LEN`] octets.
pub const FLAG_NAT_IPV4: u32 = 32;

/// Counters of the per-CPU array `COUNTS`.
pub const COUNTS: u32 = 2;
/// Beginnings of connections that were passed over, because the ring was needed for DNS.
pub const CONNECTS_PASSED_OVER: u32 = 0;
/// Packets to or from the port of encrypted DNS.
pub const ENCRYPTED_SEEN: u32 = 1;

/// Key of the per-CPU table of frames lost: `ifindex << 1 | egress`.
pub type LostKey = u32;
/// The entry for interfaces that the table had no room for; no interface has index 0.
pub const LOST_ELSEWHERE: LostKey = 0;

/// Key of the table of fragmented DNS datagrams whose first fragment was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address; IPv4 in the first four octets.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Identification.
    pub id: u32,
}

const _: () = assert!(HEADER_LEN == 32);
const _: () = assert!(size_of::<FragmentKey>() == 36);
