//! Conntrack's counters as a BPF program reads them: per CPU and network namespace, without symbols.
//!
//! Shared by both objects of the kernel side; offsets come from the kernel's BTF.

use crate::offsets;
use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_kernel as read_kernel_into},
    macros::map,
    maps::PerCpuArray,
};
use core::{
    ffi::c_void,
    ptr::{read_volatile, write_volatile},
};

/// One element, which holds the distance from a per-CPU object's address to this CPU's copy of it.
#[map]
static CPU: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// Room for a copy of `struct bpf_array` up to its `pptrs`.
#[map]
static SCRATCH: PerCpuArray<[u64; SCRATCH_WORDS]> = PerCpuArray::with_max_entries(1, 0);
const SCRATCH_WORDS: usize = 48;

offsets! {
    /// `bpf_array.pptrs`.
    ARRAY_PPTRS
    /// `net.ns.inum`.
    NET_INUM
    /// `net.ct.stat`.
    NET_STAT
    /// `net_device.nd_net`.
    DEV_NET
    /// `sk_buff.dev`.
    SKB_DEV
    /// The first of `ip_conntrack_stat`'s members that are read; the next three count from there.
    STAT
    /// `ip_conntrack_stat.insert_failed`, from [`STAT`].
    STAT_INSERT_FAILED
    /// `ip_conntrack_stat.drop`, from [`STAT`].
    STAT_DROP
    /// `ip_conntrack_stat.clash_resolve`, from [`STAT`].
    STAT_CLASH_RESOLVE
}

/// What one CPU counted in one namespace.
#[derive(Clone, Copy)]
pub struct Counters {
    pub insert_failed: u32,
    pub drop: u32,
    pub clash_resolve: u32,
}

/// The value at a kernel address; 0 where it cannot be read.
#[inline(always)]
pub fn kernel<T: Copy + Default>(address: u64, offset: u32) -> T {
    // SAFETY: bpf_probe_read_kernel takes any address, and fails rather than faults.
    unsafe { bpf_probe_read_kernel((address + u64::from(offset)) as *const T).unwrap_or_default() }
}

/// Reads this CPU's counters of a `struct net`.
#[inline(always)]
pub fn counters(net: u64) -> Option<Counters> {
    let stat: u64 = kernel(net, NET_STAT.load());
    if net == 0 || stat == 0 {
        return None;
    }
    counters_at(stat.wrapping_add(per_cpu_distance()?))
}

/// Reads the counters at their address.
#[inline(always)]
pub fn counters_at(stat: u64) -> Option<Counters> {
    // SAFETY: as in `kernel`.
    let words: [u32; 4] =
        unsafe { bpf_probe_read_kernel((stat + u64::from(STAT.load())) as *const [u32; 4]).ok()? };
    let word = |offset: u32| {
        // Offsets are constants to the verifier; this compares them with constants.
        match offset {
            0 => words[0],
            4 => words[1],
            8 => words[2],
            12 => words[3],
            _ => 0,
        }
    };
    Some(Counters {
        insert_failed: word(STAT_INSERT_FAILED.load()),
        drop: word(STAT_DROP.load()),
        clash_resolve: word(STAT_CLASH_RESOLVE.load()),
    })
}

/// What is added to the address of a per-CPU object to give this CPU's copy (`__per_cpu_offset`, a symbol that not
/// every kernel shows): the address of this CPU's element of a per-CPU array, less the one that the array's own
/// `pptrs` holds.
#[inline(always)]
pub fn per_cpu_distance() -> Option<u64> {
    let (element, scratch) = (CPU.get_ptr_mut(0)?, SCRATCH.get_ptr_mut(0)?);
    // SAFETY: both are this CPU's own map values; the map's address is only read through bpf_probe_read_kernel.
    unsafe {
        if *element != 0 {
            return Some(*element);
        }
        let copied = read_kernel_into(
            scratch.cast::<c_void>(),
            size_of::<[u64; SCRATCH_WORDS]>() as u32,
            (&raw const CPU).cast::<c_void>(),
        );
        let word = ARRAY_PPTRS.load() as usize / 8;
        if copied != 0 || word >= SCRATCH_WORDS {
            return None;
        }
        let words = scratch.cast::<u64>();
        let in_array = read_volatile(words.add(word));
        // Stored and loaded again, a pointer to map memory is a number to the verifier.
        write_volatile(words, element as u64);
        *element = read_volatile(words).wrapping_sub(in_array);
        Some(*element)
    }
}
