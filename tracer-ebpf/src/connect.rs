//! How TCP connections other than DNS begin: user space knows which of them go to addresses that were answered. (It knows
//! that some milliseconds after the connection began, too late to ask for its packets by a table of addresses.)
//!
//! Everything here is for such packets alone; another packet costs a look at its TCP flags in memory.

use super::{FRAMES, HEAD, Record, bounds};
use crate::ports::DnsPorts;
use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_RB_AVAIL_DATA,
    helpers::{
        bpf_get_smp_processor_id,
        generated::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    },
    macros::map,
    maps::PerCpuArray,
    programs::TcContext,
};
use core::ffi::c_void;
use dnspath_ebpf::{
    CLASSES, CONNECTS_PASSED_OVER, COUNTS as COUNTERS, ENCRYPTED_SEEN, FLAG_CONNECT, FLAG_EGRESS,
    FLAG_RAW_IP, Link, Ports, RecordHeader,
};

/// Octets of the ring that may be in use when such a packet is still written: the rest is for DNS. 0: none is.
#[unsafe(no_mangle)]
static CONNECT_ROOM: Global<u32> = Global::new(0);
/// What was seen and not copied.
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// Octets of a frame that are kept: headers, with every option, and an ICMP error's quote as far as its sequence number.
const KEPT: usize = CLASSES[1];
const BPF_RB_NO_WAKEUP: u64 = 1;

/// The DNS ports, and what is of interest besides.
pub struct Watched;

impl Ports for Watched {
    #[inline(always)]
    fn contains(&self, port: u16) -> bool {
        DnsPorts.contains(port)
    }
    #[inline(always)]
    fn note_encrypted(&self) {
        count(ENCRYPTED_SEEN);
    }
    #[inline(always)]
    fn follows_connects(&self) -> bool {
        CONNECT_ROOM.load() != 0
    }
}

/// The octet at `at`, where it is in the packet's linear part: without a call.
#[inline(always)]
pub fn peek(packet: &TcContext, at: u32) -> Option<u8> {
    /// No TCP header that is followed lies deeper.
    const DEEPEST: usize = 255;
    if at > DEEPEST as u32 {
        return None;
    }
    let octet = packet.data() + bounds::within::<0, DEEPEST>(at.into()) as usize;
    if octet + 1 > packet.data_end() {
        return None;
    }
    // SAFETY: it lies before the end of the packet's linear part; the kernel's verifier checks that.
    Some(unsafe { *(octet as *const u8) })
}

/// Copies the headers of a packet that begins or refuses a connection.
#[inline(never)]
pub fn capture(packet: &TcContext, link: Link, egress: bool) {
    if FRAMES.query(BPF_RB_AVAIL_DATA.into()) > u64::from(CONNECT_ROOM.load()) {
        return count(CONNECTS_PASSED_OVER);
    }
    let Some(mut entry) = FRAMES.reserve::<Record<0, KEPT>>(0) else {
        return count(CONNECTS_PASSED_OVER);
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `skb` is the context the kernel called the program with.
    let skb = unsafe { &*packet.skb.skb };
    let captured = bounds::within::<HEAD, KEPT>(packet.len().into()) as u32;
    let mut flags = FLAG_CONNECT;
    if egress {
        flags |= FLAG_EGRESS;
    }
    if link == Link::RawIp {
        flags |= FLAG_RAW_IP;
    }
    // SAFETY: `record` is reserved memory of that type; the helper writes at most the size of the field, and the kernel's
    // verifier checks that.
    let copied = unsafe {
        (&raw mut (*record).header).write(RecordHeader {
            time: bpf_ktime_get_ns(),
            ifindex: skb.ifindex,
            frame_len: packet.len(),
            captured,
            segment_size: 0,
            cpu: bpf_get_smp_processor_id() as u16,
            flags,
            reserved: 0,
        });
        bpf_skb_load_bytes(packet.as_ptr(), 0, (&raw mut (*record).frame).cast::<c_void>(), captured)
    };
    if copied == 0 {
        entry.submit(BPF_RB_NO_WAKEUP);
    } else {
        entry.discard(BPF_RB_NO_WAKEUP);
    }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
fn count(counter: u32) {
    let Some(count) = COUNTS.get_ptr_mut(counter) else { return };
    // SAFETY: the value is this CPU's own, and the program is not preempted by itself on one CPU.
    unsafe { *count += 1 };
}
