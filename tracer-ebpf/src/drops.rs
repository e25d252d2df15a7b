//! The kernel side's second object: every DNS packet that the kernel drops, and every conntrack clash.
//!
//! One program at the tracepoint `kfree_skb`, which fires where the last reference to a packet is given up without
//! its having been delivered, and a pair of probes at `__nf_conntrack_confirm` where the kernel has kprobes. They
//! see the whole node, so there is one instance of them for all namespaces. Nothing is ever changed.
//!
//! `ARCHITECTURE.md` says by what rule a dropped packet is told to be one that conntrack refused.
#![no_std]
#![no_main]
// The kernel side is built with RUSTC_BOOTSTRAP, for `core`; inline assembly for this target comes with it.
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "kernel boundary: helpers, maps and packet memory")]
#![expect(missing_docs, unreachable_pub, reason = "the program macros make functions of their own")]

mod bounds;
mod conntrack;
#[macro_use]
mod offsets;
mod ports;

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_smp_processor_id,
        generated::{bpf_ktime_get_ns, bpf_probe_read_kernel as read_kernel_into},
    },
    macros::{kprobe, kretprobe, map, raw_tracepoint},
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};
use conntrack::{Counters, counters, kernel};
use core::ffi::c_void;
use dnspath_ebpf::{
    Baseline, DROP, DROP_CLASSES, DropHeader, ENTERED, FATE_CLASH_RESOLVED, FATE_DROPPED, FATE_INSERT_FAILED,
    FATE_TABLE_FULL, FLAG_CONNECTION, FLAG_ETHERNET, INSERT_FAILED, MAX_BASELINES, MAX_DROP_CAPTURED,
    NAT_LEN, NO_REASON, Ports as _,
};
use offsets::UNKNOWN;
use ports::DnsPorts;

/// Records for user space: 4 MiB hold 14,000 drops, so that ten thousand at once, as a rule makes them, are all told. Only
/// what was used of it is resident.
#[map]
static DROPS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
/// Records lost because the ring was full.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// By inode number of the namespace; the classifiers refresh it.
#[map]
static BASELINES: PerCpuHashMap<u32, Baseline> = PerCpuHashMap::with_max_entries(MAX_BASELINES as u32, 0);
/// One element: 1 once the probes of `__nf_conntrack_confirm` are attached; the counters are not asked then.
#[map]
static CONFIRM_PROBED: Array<u32> = Array::with_max_entries(1, 0);
/// Packets that are in `__nf_conntrack_confirm` now, by the stack pointer of its caller: a pid or a CPU would not
/// do, because an interrupted call nests another.
#[map]
static IN_CONFIRM: HashMap<u64, InConfirm> = HashMap::with_max_entries(1024, 0);
/// Packets that it refused and that are about to be freed, by the address of their `sk_buff`.
#[map]
static REFUSED: HashMap<u64, u8> = HashMap::with_max_entries(1024, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct InConfirm {
    skb: u64,
    connection: u64,
}

/// How many arguments the tracepoint has: the reason came with Linux 5.17.
#[unsafe(no_mangle)]
static KFREE_SKB_ARGS: Global<u32> = Global::new(2);
/// The code of `nft_do_chain`, from and to: a packet freed there fell to a rule. 0 where unknown.
#[unsafe(no_mangle)]
static RULE_CODE: Global<[u64; 2]> = Global::new([0; 2]);
/// The code of `nf_hook_slow`, where netfilter frees what a hook refused. 0 where unknown.
#[unsafe(no_mangle)]
static HOOK_CODE: Global<[u64; 2]> = Global::new([0; 2]);

offsets! {
    /// `sk_buff._nfct`.
    SKB_NFCT
    /// `sk_buff._skb_refdst`.
    SKB_DST
    /// `sk_buff.sk`.
    SKB_SK
    /// `sk_buff.skb_iif`.
    SKB_IIF
    /// The first of the members that are read in one go; the next four count from there.
    SKB_HEADERS
    /// `sk_buff.protocol`, from [`SKB_HEADERS`].
    SKB_PROTOCOL
    /// `sk_buff.network_header`, from [`SKB_HEADERS`].
    SKB_NETWORK_HEADER
    /// `sk_buff.mac_header`, from [`SKB_HEADERS`].
    SKB_MAC_HEADER
    /// `sk_buff.tail`, from [`SKB_HEADERS`].
    SKB_TAIL
    /// `sk_buff.head`, from [`SKB_HEADERS`].
    SKB_HEAD
    /// `net.ns.inum`.
    NET_INUM
    /// `dst_entry.dev`.
    DST_DEV
    /// `sock.__sk_common.skc_net`.
    SK_NET
    /// `net_device.ifindex`.
    DEV_IFINDEX
    /// `net_device.name`.
    DEV_NAME
    /// `nf_conn.status`.
    CT_STATUS
    /// `nf_conn.ct_net`.
    CT_NET
    /// `nf_conn.tuplehash[0].tuple`.
    CT_TUPLE
    /// `nf_conn.tuplehash[0].hnnode.pprev`.
    CT_PPREV
    /// `SKB_DROP_REASON_NETFILTER_DROP`; [`UNKNOWN`] where there is no such reason.
    REASON_NETFILTER
    /// `SKB_CONSUMED`: no drop.
    REASON_CONSUMED
    /// `SKB_NOT_DROPPED_YET`: no drop.
    REASON_NOT_DROPPED
}

/// `sk_buff` members read in one go.
const HEADERS_LEN: usize = 64;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const ETHERNET_HEADER: u64 = 14;
const IPV4_HEADER: u64 = 20;
const IPV6_HEADER: u64 = 40;
const TCP_SYN: u8 = 2;

/// Low bits of `sk_buff._nfct` hold `enum ip_conntrack_info`.
const NFCT_INFO: u64 = 7;
/// Its values from here on are of packets in the reply direction.
const IP_CT_IS_REPLY: u64 = 3;
/// Bits of `nf_conn.status` (nf_conntrack_common.h).
const IPS_CONFIRMED: u64 = 1 << 3;
const IPS_NAT_CLASH: u64 = 1 << 12;
/// Offsets within `nf_conntrack_tuple`, which is user-visible ABI: `src.u.all` and `dst.u.all`.
const TUPLE_SOURCE_PORT: u32 = 16;
const TUPLE_DESTINATION_PORT: u32 = 36;
/// Verdicts (linux/netfilter.h).
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_VERDICT_MASK: u32 = 0xff;

const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_NOEXIST: u64 = 1;

/// A packet is freed without having been delivered.
#[raw_tracepoint(tracepoint = "kfree_skb")]
fn dnspath_drop(context: RawTracePointContext) -> i32 {
    let reason = if KFREE_SKB_ARGS.load() > 2 { context.arg::<u32>(2) } else { NO_REASON };
    let known = |global: u32| global != UNKNOWN && global == reason;
    if known(REASON_CONSUMED.load()) || known(REASON_NOT_DROPPED.load()) {
        return 0;
    }
    let place = context.arg::<u64>(1);
    if let Some(packet) = Packet::of(context.arg::<u64>(0)) {
        let fate = fate(&packet, place, reason);
        if packet.is_dns() {
            tell(&packet, fate, place, reason);
        }
    }
    0
}

/// A new connection's first packet is about to leave: `int __nf_conntrack_confirm(struct sk_buff *skb)`.
#[kprobe]
fn dnspath_confirm(context: ProbeContext) -> u32 {
    let Some(skb) = context.arg::<u64>(0) else { return 0 };
    let connection = kernel::<u64>(skb, SKB_NFCT.load()) & !NFCT_INFO;
    if connection != 0 && has_dns_port(connection) {
        // Where the table is full, the clash is not told: the counters show that it was there.
        let _ = IN_CONFIRM.insert(&stack_pointer(context.regs), &InConfirm { skb, connection }, 0);
    }
    0
}

/// `__nf_conntrack_confirm` returns its verdict.
#[kretprobe]
fn dnspath_confirmed(context: RetProbeContext) -> u32 {
    let caller = stack_pointer(context.regs).wrapping_sub(RETURN_ADDRESS);
    let Some(InConfirm { skb, connection }) = in_confirm(&caller) else { return 0 };
    match context.ret::<u32>() & NF_VERDICT_MASK {
        NF_DROP => {
            let _ = REFUSED.insert(&skb, &1, 0);
        }
        NF_ACCEPT => {
            let now = kernel::<u64>(skb, SKB_NFCT.load()) & !NFCT_INFO;
            let status: u64 = kernel(now, CT_STATUS.load());
            // The packet was given the other's connection, or its own was entered for replies alone.
            if now != 0
                && (now != connection || status & IPS_NAT_CLASH != 0)
                && let Some(packet) = Packet::of(skb)
            {
                tell(&packet, FATE_CLASH_RESOLVED, 0, NO_REASON);
            }
        }
        _ => {}
    }
    0
}

#[inline(always)]
fn in_confirm(caller: &u64) -> Option<InConfirm> {
    // SAFETY: the entry is copied before it is removed, and no other call has its key.
    let found = unsafe { IN_CONFIRM.get(caller).copied() };
    if found.is_some() {
        let _ = IN_CONFIRM.remove(caller);
    }
    found
}

#[cfg(bpf_target_arch = "x86_64")]
mod architecture {
    /// The return from a function takes its address off the stack.
    pub const RETURN_ADDRESS: u64 = 8;

    #[inline(always)]
    pub fn stack_pointer(registers: *mut aya_ebpf::bindings::pt_regs) -> u64 {
        // SAFETY: the kernel calls a kprobe program with the registers as its context.
        unsafe { (*registers).rsp }
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod architecture {
    /// The return address is in a register.
    pub const RETURN_ADDRESS: u64 = 0;

    #[inline(always)]
    pub fn stack_pointer(registers: *mut aya_ebpf::bindings::pt_regs) -> u64 {
        // SAFETY: the kernel calls a kprobe program with the registers as its context.
        unsafe { (*registers).sp }
    }
}

use architecture::{RETURN_ADDRESS, stack_pointer};

/// An IP packet with its network header set.
struct Packet {
    skb: u64,
    /// Address of its network header.
    network: u64,
    /// Octets from there to the end of what is in one piece.
    linear: u64,
    /// Octets of the link header before it, where that is Ethernet's and still there; else 0.
    link: u64,
    v6: bool,
    /// `sk_buff._nfct`.
    nfct: u64,
}

impl Packet {
    /// `None` for what is no IP packet.
    #[inline(always)]
    fn of(skb: u64) -> Option<Self> {
        // Read in one call, and whole words at a time.
        let headers: [u64; HEADERS_LEN / 8] = kernel(skb, SKB_HEADERS.load());
        let at = (&raw const headers).cast::<u8>();
        // SAFETY: the loader has checked that these members lie within the octets read.
        let (protocol, network_header, mac_header, tail, head) = unsafe {
            (
                at.add(SKB_PROTOCOL.load() as usize).cast::<u16>().read_volatile(),
                at.add(SKB_NETWORK_HEADER.load() as usize).cast::<u16>().read_volatile(),
                at.add(SKB_MAC_HEADER.load() as usize).cast::<u16>().read_volatile(),
                at.add(SKB_TAIL.load() as usize).cast::<u32>().read_volatile(),
                at.add(SKB_HEAD.load() as usize).cast::<u64>().read_volatile(),
            )
        };
        let v6 = match u16::from_be(protocol) {
            ETH_P_IP => false,
            ETH_P_IPV6 => true,
            _ => return None,
        };
        let (offset, tail) = (u64::from(network_header), u64::from(tail));
        let shortest = if v6 { IPV6_HEADER } else { IPV4_HEADER };
        // An offset of 0 has never been set: there is headroom in front of every packet.
        if offset == 0 || offset + shortest > tail {
            return None;
        }
        Some(Self {
            skb,
            network: head + offset,
            linear: tail - offset,
            link: if u64::from(mac_header) + ETHERNET_HEADER == offset { ETHERNET_HEADER } else { 0 },
            v6,
            nfct: kernel(skb, SKB_NFCT.load()),
        })
    }

    #[inline(always)]
    fn connection(&self) -> u64 {
        self.nfct & !NFCT_INFO
    }

    /// DNS by the port that the client asked, or by one of the packet's own; of TCP only what opens a connection or
    /// carries data, since a bare acknowledgement, reset or end that is freed means nothing.
    #[inline(always)]
    fn is_dns(&self) -> bool {
        let connection = self.connection();
        let by_connection = connection != 0 && has_dns_port(connection);
        let Some(transport) = self.transport() else { return by_connection && !self.is_fragment_or_icmp() };
        let ports: u32 = kernel(self.network, transport.at as u32);
        let dns = by_connection
            || DnsPorts.contains(u16::from_be(ports as u16))
            || DnsPorts.contains(u16::from_be((ports >> 16) as u16));
        dns && (transport.protocol == IPPROTO_UDP || self.tcp_matters(&transport))
    }

    /// Where the transport header is; `None` where it is not at hand, or neither UDP nor TCP.
    #[inline(always)]
    fn transport(&self) -> Option<Transport> {
        let first: [u8; 8] = kernel(self.network, 0);
        let (protocol, at, length) = if self.v6 {
            let payload = u16::from_be_bytes([first[4], first[5]]);
            (first[6], IPV6_HEADER, u64::from(payload) + IPV6_HEADER)
        } else {
            if first[0] >> 4 != 4 || u16::from_be_bytes([first[6], first[7]]) & 0x1fff != 0 {
                return None;
            }
            let header = u64::from(first[0] & 0xf) * 4;
            (kernel::<u8>(self.network, 9), header, u64::from(u16::from_be_bytes([first[2], first[3]])))
        };
        if self.v6 && first[0] >> 4 != 6 || !self.v6 && at < IPV4_HEADER {
            return None;
        }
        let header = if protocol == IPPROTO_TCP { 20 } else { 8 };
        let known = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
        (known && at + header <= self.linear).then_some(Transport { protocol, at, length })
    }

    /// What has no transport header to look at can still be told by its connection: not so a later fragment, and an
    /// ICMP error, which has the connection it is about.
    #[inline(always)]
    fn is_fragment_or_icmp(&self) -> bool {
        if self.v6 {
            let protocol: u8 = kernel(self.network, 6);
            return protocol != IPPROTO_UDP && protocol != IPPROTO_TCP;
        }
        let protocol: u8 = kernel(self.network, 9);
        let fragment = u16::from_be(kernel::<u16>(self.network, 6)) & 0x1fff;
        fragment != 0 || protocol != IPPROTO_UDP && protocol != IPPROTO_TCP
    }

    #[inline(always)]
    fn tcp_matters(&self, transport: &Transport) -> bool {
        let [offset, flags]: [u8; 2] = kernel(self.network, transport.at as u32 + 12);
        let header = u64::from(offset >> 4) * 4;
        flags & TCP_SYN != 0 || transport.length == 0 || transport.length > transport.at + header
    }

    /// The device it is at, or is to leave by; 0 where it has none (any more).
    #[inline(always)]
    fn device(&self) -> u64 {
        let device: u64 = kernel(self.skb, conntrack::SKB_DEV.load());
        if device != 0 {
            return device;
        }
        // What the node itself sends has its route before it has its device.
        let route = kernel::<u64>(self.skb, SKB_DST.load()) & !1;
        if route == 0 { 0 } else { kernel(route, DST_DEV.load()) }
    }

    /// Its `struct net`, by its device or its socket.
    #[inline(always)]
    fn net(&self, device: u64) -> u64 {
        if device != 0 {
            return kernel(device, conntrack::DEV_NET.load());
        }
        let socket: u64 = kernel(self.skb, SKB_SK.load());
        if socket == 0 { 0 } else { kernel(socket, SK_NET.load()) }
    }
}

struct Transport {
    protocol: u8,
    /// Offset from the network header.
    at: u64,
    /// Octets of the packet by its own header; 0 where that does not say.
    length: u64,
}

/// Whether either port of a connection, as the client opened it, is a DNS port.
#[inline(always)]
fn has_dns_port(connection: u64) -> bool {
    let tuple = connection + u64::from(CT_TUPLE.load());
    DnsPorts.contains(u16::from_be(kernel(tuple, TUPLE_DESTINATION_PORT)))
        || DnsPorts.contains(u16::from_be(kernel(tuple, TUPLE_SOURCE_PORT)))
}

/// Why conntrack, if it did, had the packet dropped.
///
/// Called for every dropped packet, DNS or not: each claims its unit of what the counters grew by.
#[inline(always)]
fn fate(packet: &Packet, place: u64, reason: u32) -> u16 {
    let connection = packet.connection();
    if is_within(place, RULE_CODE.load()) {
        return FATE_DROPPED;
    }
    let net: u64 = if connection != 0 {
        if packet.nfct & NFCT_INFO >= IP_CT_IS_REPLY || is_entered(connection) {
            return FATE_DROPPED;
        }
        kernel(connection, CT_NET.load())
    } else {
        let hook = HOOK_CODE.load();
        let by_netfilter = REASON_NETFILTER.load() == UNKNOWN || REASON_NETFILTER.load() == reason;
        if packet.nfct != 0 || !by_netfilter || hook[0] != 0 && !is_within(place, hook) {
            return FATE_DROPPED;
        }
        packet.net(packet.device())
    };
    let by_counters = match counters(net) {
        Some(now) => claim(net, &now, connection != 0),
        None => FATE_DROPPED,
    };
    if connection == 0 || CONFIRM_PROBED.get(0).is_none_or(|probed| *probed == 0) {
        return by_counters;
    }
    if REFUSED.remove(&packet.skb).is_ok() { FATE_INSERT_FAILED } else { FATE_DROPPED }
}

#[inline(always)]
fn is_within(place: u64, [from, to]: [u64; 2]) -> bool {
    place >= from && place < to
}

/// Whether a connection is in the table. Some kernels set the bit before they look for a clash.
#[inline(always)]
fn is_entered(connection: u64) -> bool {
    kernel::<u64>(connection, CT_STATUS.load()) & IPS_CONFIRMED != 0
        && kernel::<u64>(connection, CT_PPREV.load()) != 0
}

/// Compares this CPU's counters with what is accounted for, and accounts for one packet.
#[inline(always)]
fn claim(net: u64, now: &Counters, has_connection: bool) -> u16 {
    if now.insert_failed == 0 && now.drop == 0 {
        return FATE_DROPPED;
    }
    let netns: u32 = kernel(net, NET_INUM.load());
    let Some(baseline) = BASELINES.get_ptr_mut(&netns).or_else(|| {
        let _ = BASELINES.insert(&netns, &[0; 4], BPF_NOEXIST);
        BASELINES.get_ptr_mut(&netns)
    }) else {
        return FATE_DROPPED;
    };
    // SAFETY: the value is this CPU's own, and nothing else on it runs between these lines that writes it.
    let accounted = unsafe { &mut *baseline };
    if accounted[ENTERED] == 0 {
        *accounted = [before(now.insert_failed), before(now.drop), 0, 1];
    }
    let failed = growth(now.insert_failed, &mut accounted[INSERT_FAILED]);
    let dropped = growth(now.drop, &mut accounted[DROP]);
    if has_connection {
        if failed == 0 {
            return FATE_DROPPED;
        }
        accounted[INSERT_FAILED] += 1;
        if dropped != 0 {
            accounted[DROP] += 1;
        }
        FATE_INSERT_FAILED
    } else if dropped > failed {
        accounted[DROP] += 1;
        FATE_TABLE_FULL
    } else {
        FATE_DROPPED
    }
}

/// What a counter showed before this packet, where nothing was entered: the namespace was born since, and it began at
/// 0; or it was missed when the baselines were taken. Only where it stands at 1 is it sure enough that this packet is
/// what it counted.
#[inline(always)]
fn before(counter: u32) -> u64 {
    if counter == 1 { 0 } else { counter.into() }
}

/// How far a counter is ahead of what is accounted for. One that is behind belongs to a new namespace with an old
/// one's number: it began at 0.
#[inline(always)]
fn growth(now: u32, accounted: &mut u64) -> u64 {
    if u64::from(now) < *accounted {
        *accounted = 0;
    }
    u64::from(now) - *accounted
}

/// A record as it lies in the ring.
#[repr(C)]
struct Record<const PACKET: usize> {
    header: DropHeader,
    tuples: [u64; NAT_LEN / 8],
    packet: [u8; PACKET],
}

#[inline(always)]
fn tell(packet: &Packet, fate: u16, place: u64, reason: u32) {
    const SMALL: usize = DROP_CLASSES[0];
    if packet.link + packet.linear <= SMALL as u64 {
        write::<SMALL>(packet, fate, place, reason);
    } else {
        write::<MAX_DROP_CAPTURED>(packet, fate, place, reason);
    }
}

#[inline(always)]
fn write<const PACKET: usize>(packet: &Packet, fate: u16, place: u64, reason: u32) {
    let Some(mut entry) = DROPS.reserve::<Record<PACKET>>(0) else {
        if let Some(lost) = LOST.get_ptr_mut(0) {
            // SAFETY: the value is this CPU's own.
            unsafe { *lost += 1 };
        }
        return;
    };
    let record = entry.as_mut_ptr();
    let device = packet.device();
    let net = packet.net(device);
    let connection = packet.connection();
    let ifindex =
        if device == 0 { kernel(packet.skb, SKB_IIF.load()) } else { kernel(device, DEV_IFINDEX.load()) };
    let captured = bounds::within::<{ IPV4_HEADER as usize }, PACKET>(packet.link + packet.linear);
    let mut flags = if connection == 0 { 0 } else { FLAG_CONNECTION };
    if packet.link != 0 {
        flags |= FLAG_ETHERNET;
    }
    // SAFETY: `record` is reserved memory of that type; the helpers write at most the sizes of the fields, and the
    // kernel's verifier checks both. A helper that fails writes zeros.
    unsafe {
        (&raw mut (*record).header).write(DropHeader {
            time: bpf_ktime_get_ns(),
            place,
            reason,
            cpu: bpf_get_smp_processor_id(),
            netns: if net == 0 { 0 } else { kernel(net, NET_INUM.load()) },
            ifindex,
            captured: captured as u32,
            fate,
            flags,
            device: [0; 16],
        });
        let into = |field: *mut u8, length: u32, from: u64| {
            read_kernel_into(field.cast::<c_void>(), length, from as *const c_void);
        };
        into((&raw mut (*record).header.device).cast(), 16, device + u64::from(DEV_NAME.load()));
        let tuples = if connection == 0 { 0 } else { connection + u64::from(CT_TUPLE.load()) };
        into((&raw mut (*record).tuples).cast(), NAT_LEN as u32, tuples);
        into((&raw mut (*record).packet).cast(), captured as u32, packet.network - packet.link);
    }
    entry.submit(BPF_RB_NO_WAKEUP);
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
