//! The kernel side: one tc classifier in four forms (ingress or egress, with or without an Ethernet header).
//!
//! It never changes a packet and always passes it on (TC_ACT_UNSPEC, so that other programs still run). A packet of
//! interest becomes one record of the ring `FRAMES`; where the ring is full, the loss is counted per CPU and vantage.
#![no_std]
#![no_main]
// The kernel side is built with RUSTC_BOOTSTRAP, for `core`; inline assembly for this target comes with it.
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "kernel boundary: helpers, maps and packet memory")]
#![expect(missing_docs, unreachable_pub, reason = "the classifier macro makes functions of its own")]

mod bounds;
mod connect;
mod conntrack;
#[macro_use]
mod offsets;
mod ports;
mod translation;

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::TC_ACT_UNSPEC,
    btf_maps::ArrayOfMaps,
    helpers::{
        bpf_get_smp_processor_id,
        generated::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    },
    macros::{btf_map, classifier, map},
    maps::{LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::TcContext,
};
use aya_log_ebpf::warn;
use connect::Watched;
use core::{ffi::c_void, mem::MaybeUninit};
use dnspath_ebpf::{
    Baseline, Bytes, CLASSES, DROP, ENTERED, FLAG_EGRESS, FLAG_NAT, FLAG_NAT_IPV4, FLAG_RAW_IP, FragmentKey,
    Fragments, INSERT_FAILED, Interest, LOST_ELSEWHERE, Link, LostKey, MAX_BASELINES, NAT_IPV4_LEN, NAT_LEN,
    Ports as _, RecordHeader, UNCLAIMED_FOR_GOOD, UNCLAIMED_SINCE, classify,
};
use ports::DnsPorts;
use translation::Connection;

/// Records for user space; the loader sets the size.
#[map]
static FRAMES: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
/// Frames lost because the ring was full.
#[map]
static LOST: PerCpuHashMap<LostKey, u64> = PerCpuHashMap::with_max_entries(4096, 0);
/// DNS datagrams in fragments whose first fragment was seen.
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, u8> = LruHashMap::with_max_entries(1024, 0);

/// The drop probe's table of baselines, which this program refreshes; empty where there is no such probe.
#[btf_map]
static BASELINES: ArrayOfMaps<InnerBaselines, 1> = ArrayOfMaps::new();
type InnerBaselines = aya_ebpf::btf_maps::PerCpuHashMap<u32, Baseline, MAX_BASELINES>;
/// Where this CPU's counters of this namespace are, and when (CLOCK_MONOTONIC) they were last looked at.
#[map]
static COUNTERS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Inode number of the namespace this instance is attached in; 0 where there is no drop probe to refresh for.
#[unsafe(no_mangle)]
static NETNS: Global<u32> = Global::new(0);
/// How often a CPU looks at the counters: often enough to see what nobody claims.
const LOOK_EVERY: u64 = 1_000_000;
const IPPROTO_UDP: u8 = 17;
/// The reader comes by time: a wake-up for each record would cost more than the record.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// What an interface with an Ethernet header receives.
#[classifier]
#[inline(always)]
fn dnspath_eth_in(packet: TcContext) -> i32 {
    trace::<false>(&packet, Link::Ethernet)
}

/// What an interface with an Ethernet header sends.
#[classifier]
#[inline(always)]
fn dnspath_eth_out(packet: TcContext) -> i32 {
    trace::<true>(&packet, Link::Ethernet)
}

/// What an interface without a link header receives.
#[classifier]
#[inline(always)]
fn dnspath_ip_in(packet: TcContext) -> i32 {
    trace::<false>(&packet, Link::RawIp)
}

/// What an interface without a link header sends.
#[classifier]
#[inline(always)]
fn dnspath_ip_out(packet: TcContext) -> i32 {
    trace::<true>(&packet, Link::RawIp)
}

#[inline(always)]
fn trace<const EGRESS: bool>(packet: &TcContext, link: Link) -> i32 {
    if link == Link::Ethernet && is_ordinary_dns(packet) {
        capture::<EGRESS>(packet, link);
        return TC_ACT_UNSPEC;
    }
    let Some(head) = Head::of(packet) else { return TC_ACT_UNSPEC };
    match classify(&Skb { packet, head: &head }, link, &Watched, &DnsFragments) {
        Interest::Dns => capture::<EGRESS>(packet, link),
        Interest::Connect => connect::capture(packet, link, EGRESS),
        Interest::None => {}
    }
    TC_ACT_UNSPEC
}

/// Whether a frame is nearly every DNS packet there is, read where it lies: UDP, whole, over IPv4 without options behind an
/// Ethernet header. `classify` would say the same; it says what all others are.
#[inline(always)]
fn is_ordinary_dns(packet: &TcContext) -> bool {
    let (start, end) = (packet.data(), packet.data_end());
    if start + HEAD > end {
        return false;
    }
    // SAFETY: the octets lie before `data_end`, as the kernel's verifier checks as well.
    let head = unsafe { &*(start as *const [u8; HEAD]) };
    let port = |at: usize| DnsPorts.contains(u16::from_be_bytes([head[at], head[at + 1]]));
    let is_ipv4 = [head[12], head[13], head[14]] == [0x08, 0x00, 0x45];
    let is_whole = [head[20] & 0x3f, head[21]] == [0, 0];
    is_ipv4 && is_whole && head[23] == IPPROTO_UDP && (port(34) || port(36))
}

/// Takes the frame, with the addresses before or after their translation.
#[inline(always)]
fn capture<const EGRESS: bool>(packet: &TcContext, link: Link) {
    // SAFETY: the helper only reads a clock.
    let time = unsafe { bpf_ktime_get_ns() };
    let mut room = translation::Room::uninit();
    let connection = if EGRESS { Connection::translated(packet, &mut room) } else { None };
    match connection {
        None => by_size::<EGRESS, 0>(packet, link, time, 0, [0; 0]),
        Some(connection) => match connection.ipv4() {
            Some(tuples) => {
                let flags = FLAG_NAT_IPV4 | connection.clash;
                by_size::<EGRESS, { NAT_IPV4_LEN / 8 }>(packet, link, time, flags, tuples);
            }
            None => capture_translated_ipv6(packet, link, time, &connection),
        },
    }
    // Once on a packet's way is often enough.
    if EGRESS && NETNS.load() != 0 {
        look_at_counters(packet, time);
    }
}

/// Not in line, so that the path of the others is short.
#[inline(never)]
fn capture_translated_ipv6(packet: &TcContext, link: Link, time: u64, connection: &Connection<'_>) {
    let flags = FLAG_NAT | connection.clash;
    by_size::<true, { NAT_LEN / 8 }>(packet, link, time, flags, connection.whole());
}

/// Reserves the smallest class of record that holds the frame.
#[inline(always)]
fn by_size<const EGRESS: bool, const NAT_WORDS: usize>(
    packet: &TcContext,
    link: Link,
    time: u64,
    flags: u32,
    tuples: [u64; NAT_WORDS],
) {
    let frame = packet.len();
    macro_rules! smallest_of {
        ($($class:literal)*) => {
            $(if frame <= CLASSES[$class] as u32 {
                return write::<EGRESS, NAT_WORDS, { CLASSES[$class] }>(packet, link, time, frame, flags, tuples);
            })*
        };
    }
    smallest_of!(0 1 2 3 4 5 6);
    write::<EGRESS, NAT_WORDS, { CLASSES[7] }>(packet, link, time, frame, flags, tuples);
}

/// A record as it lies in the ring.
#[repr(C)]
struct Record<const NAT_WORDS: usize, const FRAME: usize> {
    header: RecordHeader,
    tuples: [u64; NAT_WORDS],
    frame: [u8; FRAME],
}

#[inline(always)]
fn write<const EGRESS: bool, const NAT_WORDS: usize, const FRAME: usize>(
    packet: &TcContext,
    link: Link,
    time: u64,
    frame_len: u32,
    mut flags: u32,
    tuples: [u64; NAT_WORDS],
) {
    // SAFETY: `skb` is the context the kernel called the program with.
    let skb = unsafe { &*packet.skb.skb };
    let Some(mut entry) = FRAMES.reserve::<Record<NAT_WORDS, FRAME>>(0) else {
        return count_lost(packet, skb.ifindex, EGRESS);
    };
    let record = entry.as_mut_ptr();
    let captured = bounds::within::<HEAD, FRAME>(frame_len.into()) as u32;
    if EGRESS {
        flags |= FLAG_EGRESS;
    }
    if link == Link::RawIp {
        flags |= FLAG_RAW_IP;
    }
    // SAFETY: `record` is reserved memory of that type; the helpers write at most the sizes of the fields, and the
    // kernel's verifier checks both.
    let copied = unsafe {
        (&raw mut (*record).header).write(RecordHeader {
            time,
            ifindex: skb.ifindex,
            frame_len,
            captured,
            segment_size: skb.gso_size as u16,
            cpu: bpf_get_smp_processor_id() as u16,
            flags,
            reserved: 0,
        });
        (&raw mut (*record).tuples).write(tuples);
        bpf_skb_load_bytes(packet.as_ptr(), 0, (&raw mut (*record).frame).cast::<c_void>(), captured)
    };
    if copied != 0 {
        entry.discard(BPF_RB_NO_WAKEUP);
        return count_lost(packet, skb.ifindex, EGRESS);
    }
    entry.submit(BPF_RB_NO_WAKEUP);
}

/// Takes note, every so often, that conntrack's counters grew by what no dropped packet claimed: those who fail to
/// enter a connection without a packet. Otherwise the next packet that falls to a rule would be taken for theirs.
#[inline(always)]
fn look_at_counters(packet: &TcContext, now: u64) {
    let Some(mine) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: the value is this CPU's own.
    let [address, looked] = unsafe { &mut *mine };
    if now - *looked < LOOK_EVERY {
        return;
    }
    *looked = now;
    if *address == 0 {
        let device: u64 = conntrack::kernel(packet.as_ptr() as u64, conntrack::SKB_DEV.load());
        let net: u64 = if device == 0 { 0 } else { conntrack::kernel(device, conntrack::DEV_NET.load()) };
        let Some(found) = conntrack::counters_of(net) else { return };
        *address = found;
    }
    let Some(counters) = conntrack::counters_at(*address) else { return };
    let Some(baseline) = BASELINES.get_value_ptr_mut(0, &NETNS.load()) else { return };
    // SAFETY: the value is this CPU's own, and the drop probe does not run between these lines.
    let baseline = unsafe { &mut *baseline };
    let (failed, dropped) = (u64::from(counters.insert_failed), u64::from(counters.drop));
    if baseline[INSERT_FAILED] == failed && baseline[DROP] == dropped {
        baseline[UNCLAIMED_SINCE] = 0;
    } else if baseline[UNCLAIMED_SINCE] == 0 {
        baseline[UNCLAIMED_SINCE] = now;
    } else if now - baseline[UNCLAIMED_SINCE] > UNCLAIMED_FOR_GOOD || baseline[ENTERED] == 0 {
        *baseline = [failed, dropped, 0, 1];
    }
}

/// Counts a frame that found no room, and logs the first one of each CPU and vantage.
#[inline(never)]
fn count_lost(packet: &TcContext, ifindex: u32, egress: bool) {
    let key: LostKey = ifindex << 1 | egress as u32;
    if bump(&key) {
        return;
    }
    // A full table has no room for another interface: the loader made an entry for all of these.
    if LOST.insert(&key, &1, 0).is_err() {
        bump(&LOST_ELSEWHERE);
    }
    warn!(packet, "the ring is full: first frame lost on interface {}", ifindex);
}

/// Adds one to this CPU's count, where the key has an entry.
#[inline(always)]
fn bump(key: &LostKey) -> bool {
    let Some(count) = LOST.get_ptr_mut(key) else { return false };
    // SAFETY: the value is this CPU's own, and the program is not preempted by itself on one CPU.
    unsafe { *count += 1 };
    true
}

/// A socket buffer's octets. The first [`HEAD`], enough for the ports of an ordinary packet, are loaded in one call;
/// what lies behind them is loaded when asked for. (Reading between `data` and `data_end` directly would save little,
/// and miss the octets that lie in fragments.)
struct Skb<'a> {
    packet: &'a TcContext,
    head: &'a Head,
}

/// Aligned, so that what moves it moves words.
#[repr(C, align(8))]
struct Head([u8; HEAD]);

/// Ethernet, IPv4 and the first octets of UDP or TCP; no DNS packet is shorter.
const HEAD: usize = 40;

impl Head {
    /// `None` for a packet that is too short to be DNS.
    #[inline(always)]
    fn of(packet: &TcContext) -> Option<Self> {
        let mut head = MaybeUninit::<Self>::uninit();
        // SAFETY: the helper writes as many octets as there are, all of them where it does not fail.
        unsafe {
            let to = head.as_mut_ptr().cast::<c_void>();
            let failed = bpf_skb_load_bytes(packet.as_ptr(), 0, to, HEAD as u32) != 0;
            if failed { None } else { Some(head.assume_init()) }
        }
    }
}

macro_rules! read {
    ($self:ident, $at:ident, $type:ty, $octets:expr) => {{
        let at = $at as usize;
        if at <= HEAD - size_of::<$type>() {
            let octets: [u8; size_of::<$type>()] = $octets(&$self.head.0, at);
            Some(<$type>::from_be_bytes(octets))
        } else {
            $self.packet.load::<$type>(at).ok().map(<$type>::from_be)
        }
    }};
}

impl Bytes for Skb<'_> {
    #[inline(always)]
    fn u8(&self, at: u32) -> Option<u8> {
        read!(self, at, u8, |head: &[u8; HEAD], at: usize| [head[at]])
    }
    #[inline(always)]
    fn u16(&self, at: u32) -> Option<u16> {
        read!(self, at, u16, |head: &[u8; HEAD], at: usize| [head[at], head[at + 1]])
    }
    #[inline(always)]
    fn u32(&self, at: u32) -> Option<u32> {
        read!(self, at, u32, |head: &[u8; HEAD], at: usize| [
            head[at],
            head[at + 1],
            head[at + 2],
            head[at + 3]
        ])
    }
    #[inline(always)]
    fn peek(&self, at: u32) -> Option<u8> {
        connect::peek(self.packet, at).or_else(|| self.u8(at))
    }
    #[inline(always)]
    fn len(&self) -> u32 {
        self.packet.len()
    }
}

/// The table [`FRAGMENTS`].
struct DnsFragments;

impl Fragments for DnsFragments {
    #[inline(always)]
    fn remember(&self, key: &FragmentKey) {
        // A full table makes room by itself.
        let _ = FRAGMENTS.insert(key, &1, 0);
    }
    #[inline(always)]
    fn known(&self, key: &FragmentKey) -> bool {
        FRAGMENTS.get_ptr(key).is_some()
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Probe-read helpers are for GPL-compatible programs only; the crate is under MIT or Apache-2.0 as well.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
