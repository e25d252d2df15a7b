//! What conntrack makes of a packet: both tuples of its connection, where its addresses are translated.

use aya_ebpf::{
    EbpfContext as _, Global, helpers::bpf_probe_read_kernel,
    helpers::generated::bpf_probe_read_kernel as read_kernel_into, programs::TcContext,
};
use core::{ffi::c_void, mem::MaybeUninit};
use dnspath_ebpf::FLAG_CLASH;

/// Offset of `sk_buff._nfct`; `u32::MAX` where the kernel has none or its BTF does not tell.
#[unsafe(no_mangle)]
static SKB_NFCT: Global<u32> = Global::new(u32::MAX);
/// Offset of `nf_conn.tuplehash[0].tuple`; `nf_conn.status` is the word [`STATUS`] from there.
#[unsafe(no_mangle)]
static CT_TUPLE: Global<u32> = Global::new(0);

/// `IPS_SRC_NAT | IPS_DST_NAT` (nf_conntrack_common.h).
const IPS_NAT: u64 = 0x30;
/// An entry for replies alone, because another has its tuple; Linux 5.7 and later.
const IPS_NAT_CLASH: u64 = 1 << 12;
/// Low bits of `sk_buff._nfct` hold `enum ip_conntrack_info`.
const NFCT_POINTER: u64 = !7;
/// Its values from here on are of packets in the reply direction.
const IP_CT_IS_REPLY: u64 = 3;

/// From `tuplehash[0].tuple` on to `status`: read in one call.
const WORDS: usize = 13;
/// Where `tuplehash[1].tuple` begins.
const REPLY: usize = 7;
const STATUS: usize = 12;
const AF_INET: u64 = 2;

/// Room for what is read of a connection: the caller's, because the stack has room for one copy alone.
pub type Room = MaybeUninit<[u64; WORDS]>;

/// A translated connection, as conntrack holds it.
pub struct Connection<'a> {
    words: &'a [u64; WORDS],
    /// [`FLAG_CLASH`] or 0.
    pub clash: u32,
}

impl<'a> Connection<'a> {
    /// The packet's connection, where conntrack translates it: then the addresses here differ from those at the packet's
    /// other hops.
    ///
    /// The context of a tc program is the `sk_buff` itself at run time, so its `_nfct` can be read without a kfunc.
    #[inline(always)]
    pub fn translated(packet: &TcContext, room: &'a mut Room) -> Option<Self> {
        let nfct = SKB_NFCT.load();
        if nfct == u32::MAX {
            return None;
        }
        // SAFETY: bpf_probe_read_kernel takes any address, and fails rather than faults; it then fills what it was given with
        // zeros.
        let (nfct, words) = unsafe {
            let nfct =
                bpf_probe_read_kernel((packet.as_ptr() as u64 + u64::from(nfct)) as *const u64).ok()?;
            let connection = nfct & NFCT_POINTER;
            if connection == 0 {
                return None;
            }
            read_kernel_into(
                room.as_mut_ptr().cast::<c_void>(),
                size_of::<[u64; WORDS]>() as u32,
                (connection + u64::from(CT_TUPLE.load())) as *const c_void,
            );
            (nfct, room.assume_init_ref())
        };
        let status = words[STATUS];
        let is_clash = status & IPS_NAT_CLASH != 0 && nfct & !NFCT_POINTER < IP_CT_IS_REPLY;
        let clash = if is_clash { FLAG_CLASH } else { 0 };
        if status & IPS_NAT != 0 { Some(Self { words, clash }) } else { None }
    }

    /// Both tuples, where they are of IPv4: source and destination address of each, then the ports.
    #[inline(always)]
    pub fn ipv4(&self) -> Option<[u64; 3]> {
        let [addresses, ports] = self.tuple(0)?;
        let [reply_addresses, reply_ports] = self.tuple(REPLY)?;
        Some([addresses, reply_addresses, ports | reply_ports << 32])
    }

    /// `struct nf_conntrack_tuple`: 16 octets of source address, source port, family, 16 of destination address, its port.
    #[inline(always)]
    fn tuple(&self, at: usize) -> Option<[u64; 2]> {
        let (source, middle, end) = (self.words[at], self.words[at + 2], self.words[at + 4]);
        if middle >> 16 & 0xffff != AF_INET {
            return None;
        }
        let addresses = source & 0xffff_ffff | middle & !0xffff_ffff;
        let ports = middle & 0xffff | (end >> 32 & 0xffff) << 16;
        Some([addresses, ports])
    }

    /// Both tuples as they are in the kernel.
    #[inline(always)]
    pub fn whole(&self) -> [u64; 12] {
        let mut words = [0; 12];
        let mut index = 0;
        while index < words.len() {
            words[index] = self.words[index];
            index += 1;
        }
        words
    }
}
