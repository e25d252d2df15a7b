//! A yardstick, no part of dnspath: the least that a capture of DNS can do in a tc classifier. `cargo xtask bench`
//! measures the classifier of `main.rs` against it.
//!
//! It knows UDP port 53 over IPv4 without options behind an Ethernet header, and copies each such frame into a
//! record of one size. It looks at no connection, no fragment, no other port.
#![no_std]
#![no_main]
// The kernel side is built with RUSTC_BOOTSTRAP, for `core`; inline assembly for this target comes with it.
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "kernel boundary: helpers, maps and packet memory")]
#![expect(missing_docs, unreachable_pub, reason = "the classifier macro makes functions of its own")]

mod bounds;

use aya_ebpf::{
    EbpfContext as _,
    bindings::TC_ACT_UNSPEC,
    helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::{classifier, map},
    maps::{PerCpuArray, RingBuf},
    programs::TcContext,
};
use core::ffi::c_void;

/// Of the same size as dnspath's.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
/// Frames lost because the ring was full.
#[map]
static MISSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Ethernet, IPv4 and the ports.
const HEAD: usize = 14 + 20 + 4;
/// Octets of a frame that fit into a record of 200.
const FRAME: usize = 184;
/// The reader comes by time, as dnspath's does.
const BPF_RB_NO_WAKEUP: u64 = 1;

#[repr(C)]
struct Record {
    /// CLOCK_MONOTONIC in nanoseconds.
    time: u64,
    /// `ifindex << 1 | egress`.
    vantage: u32,
    captured: u32,
    frame: [u8; FRAME],
}

/// What an interface receives.
#[classifier]
fn minimal_in(packet: TcContext) -> i32 {
    capture::<false>(&packet)
}

/// What an interface sends.
#[classifier]
fn minimal_out(packet: TcContext) -> i32 {
    capture::<true>(&packet)
}

#[inline(always)]
fn capture<const EGRESS: bool>(packet: &TcContext) -> i32 {
    if is_dns(packet) {
        write::<EGRESS>(packet);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn is_dns(packet: &TcContext) -> bool {
    let (start, end) = (packet.data(), packet.data_end());
    if start + HEAD > end {
        return false;
    }
    // SAFETY: the octets lie before `data_end`, as the verifier checks as well.
    let head = unsafe { &*(start as *const [u8; HEAD]) };
    const DNS: [u8; 2] = [0, 53];
    [head[12], head[13]] == [0x08, 0x00]
        && head[14] == 0x45
        && head[23] == 17
        && ([head[34], head[35]] == DNS || [head[36], head[37]] == DNS)
}

#[inline(always)]
fn write<const EGRESS: bool>(packet: &TcContext) {
    let Some(mut entry) = RECORDS.reserve::<Record>(0) else { return count_missed() };
    let captured = bounds::within::<HEAD, FRAME>(packet.len().into()) as u32;
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is reserved memory of that type, `skb` the context the kernel called the program with; the
    // helper writes at most the size of the field, which the verifier checks.
    let copied = unsafe {
        (&raw mut (*record).time).write(bpf_ktime_get_ns());
        (&raw mut (*record).vantage).write((*packet.skb.skb).ifindex << 1 | EGRESS as u32);
        (&raw mut (*record).captured).write(captured);
        bpf_skb_load_bytes(packet.as_ptr(), 0, (&raw mut (*record).frame).cast::<c_void>(), captured)
    };
    if copied == 0 {
        entry.submit(BPF_RB_NO_WAKEUP);
    } else {
        entry.discard(BPF_RB_NO_WAKEUP);
        count_missed();
    }
}

#[inline(always)]
fn count_missed() {
    let Some(count) = MISSED.get_ptr_mut(0) else { return };
    // SAFETY: the value is this CPU's own, and the program is not preempted by itself on one CPU.
    unsafe { *count += 1 };
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// As that of `main.rs`.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
