//! The layout of one record of the ring `DROPS`: a [`DropHeader`], both conntrack tuples as in a frame's record
//! ([`crate::NAT_LEN`] octets, all zero without [`FLAG_CONNECTION`]), then the packet from its network header on.

use core::mem::size_of;

/// Leads every record of the ring `DROPS`, in the byte order of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DropHeader {
    /// CLOCK_MONOTONIC in nanoseconds, `bpf_ktime_get_ns`.
    pub time: u64,
    /// Address in the kernel's code that the packet was freed from.
    pub place: u64,
    /// `enum skb_drop_reason`; [`NO_REASON`] before Linux 5.17.
    pub reason: u32,
    /// The CPU it happened on.
    pub cpu: u32,
    /// Inode number of the device's network namespace; 0 where unknown.
    pub netns: u32,
    /// Index of the device in that namespace; 0 where unknown.
    pub ifindex: u32,
    /// Octets of the packet that follow the tuples, at most [`MAX_DROP_CAPTURED`].
    pub captured: u32,
    /// `FATE_*`.
    pub fate: u16,
    /// `FLAG_*` bits of this record.
    pub flags: u16,
    /// The device's name, ended by a zero octet.
    pub device: [u8; 16],
}

/// Octets of [`DropHeader`].
pub const DROP_HEADER_LEN: usize = size_of::<DropHeader>();
/// The most octets of a packet that are kept, from its network header on.
pub const MAX_DROP_CAPTURED: usize = 512;
/// Sizes, in octets of packet, that records are reserved in: the smallest that holds the packet is taken.
pub const DROP_CLASSES: [usize; 2] = [128, MAX_DROP_CAPTURED];

/// Dropped, for the reason given.
pub const FATE_DROPPED: u16 = 0;
/// Dropped because its connection could not be entered.
pub const FATE_INSERT_FAILED: u16 = 1;
/// Dropped because the connection table was full.
pub const FATE_TABLE_FULL: u16 = 2;
/// Two connections had one tuple and were joined; nothing was lost.
pub const FATE_CLASH_RESOLVED: u16 = 3;

/// The packet had a connection, whose tuples are in the record.
pub const FLAG_CONNECTION: u16 = 1;

/// The kernel gives no reasons.
pub const NO_REASON: u32 = u32::MAX;

/// A value of the table `BASELINES`: for one CPU and one namespace (the key is its inode number), what conntrack had
/// counted when the drop probe last knew what for. In this order: insert_failed, drop, clash_resolve, and since when
/// (CLOCK_MONOTONIC) there has been growth that no dropped packet claimed; 0 where there is none.
pub type Baseline = [u64; 4];
/// Place of `insert_failed` in a [`Baseline`].
pub const INSERT_FAILED: usize = 0;
/// Place of `drop` in a [`Baseline`].
pub const DROP: usize = 1;
/// Place of `clash_resolve` in a [`Baseline`].
pub const CLASH_RESOLVE: usize = 2;
/// Place of the time in a [`Baseline`].
pub const UNCLAIMED_SINCE: usize = 3;
/// Namespaces with a [`Baseline`].
pub const MAX_BASELINES: usize = 4096;

const _: () = assert!(DROP_HEADER_LEN == 56);
