//! Where the kernel side finds what it reads in the kernel's structs: globals of its objects, from BTF.

use super::{btf::Btf, reasons::Reasons, record::TUPLE_STRIDE};
use dnspath_ebpf::NAT_LEN;

/// Names of globals and their values.
pub(super) type Offsets = Vec<(&'static str, u32)>;

/// Marks "this kernel has none" for the kernel side.
const UNKNOWN: u32 = u32::MAX;
/// Octets of `sk_buff` that the drop probe reads in one go.
const HEADERS_LEN: u32 = 64;
/// Octets of `ip_conntrack_stat` that are read in one go.
const STAT_LEN: u32 = 16;
/// Octets of `struct bpf_array` that are copied to find its `pptrs`.
const SCRATCH_LEN: u32 = 48 * 8;

/// What the kernel's BTF tells, for all objects: it is read once, and its 5 MB are given back.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) translation: Result<Offsets, String>,
    pub(super) counters: Result<Offsets, String>,
    pub(super) drops: Result<Offsets, String>,
    pub(super) reasons: Reasons,
}

impl Kernel {
    /// Of the running kernel; where it has no BTF, each says so.
    pub(super) fn read() -> Self {
        match Btf::of_kernel() {
            Ok(mut btf) => {
                // Where conntrack is built in, or not loaded yet, the kernel's own BTF is all there is.
                let _ = btf.add_module("nf_conntrack");
                Self {
                    translation: of_translation(&btf),
                    counters: of_counters(&btf),
                    drops: of_drops(&btf),
                    reasons: Reasons::of(&btf),
                }
            }
            Err(error) => {
                let none = || Err(error.to_string());
                Self { translation: none(), counters: none(), drops: none(), reasons: Reasons::default() }
            }
        }
    }
}

/// Finds offsets, and says which is missing.
struct Finder<'a>(&'a Btf);

impl Finder<'_> {
    /// The offset along a way of members: `[("net", "ct"), ("netns_ct", "stat")]`.
    fn along(&self, way: &[(&str, &str)]) -> Result<u32, String> {
        let step = |(name, member): &(&str, &str)| {
            let offset = self.0.member_offset(name, member);
            offset.ok_or_else(|| format!("the kernel's BTF knows no {name}.{member}"))
        };
        way.iter().map(step).sum()
    }

    /// Where `length` aligned octets begin that hold all these members, and how far in each lies.
    fn window<const N: usize>(
        &self,
        name: &str,
        members: [(&str, u32); N],
        length: u32,
    ) -> Result<(u32, [u32; N]), String> {
        let mut offsets = [0; N];
        for (offset, (member, _)) in offsets.iter_mut().zip(members) {
            *offset = self.along(&[(name, member)])?;
        }
        // Whole words are read: a verifier takes no word of the stack that is not aligned.
        let first = offsets.iter().copied().min().unwrap_or(0) / 8 * 8;
        for (offset, (member, size)) in offsets.iter_mut().zip(members) {
            *offset -= first;
            if *offset + size > length {
                return Err(format!("{name}.{member} lies far from its companions here"));
            }
        }
        Ok((first, offsets))
    }
}

/// What both objects read conntrack's tuples by.
fn of_translation(btf: &Btf) -> Result<Offsets, String> {
    let find = Finder(btf);
    let stride = btf.size_of("nf_conntrack_tuple_hash").unwrap_or(0);
    if stride as usize != TUPLE_STRIDE {
        return Err(format!("struct nf_conntrack_tuple_hash has {stride} octets here, not {TUPLE_STRIDE}"));
    }
    let tuple = find.along(&[("nf_conn", "tuplehash"), ("nf_conntrack_tuple_hash", "tuple")])?;
    if find.along(&[("nf_conn", "status")])? != tuple + NAT_LEN as u32 {
        return Err("nf_conn.status does not follow its tuples here".into());
    }
    Ok(vec![("SKB_NFCT", find.along(&[("sk_buff", "_nfct")])?), ("CT_TUPLE", tuple)])
}

/// How conntrack's counters are read: for both objects.
fn of_counters(btf: &Btf) -> Result<Offsets, String> {
    let find = Finder(btf);
    let (stat, [insert_failed, drop]) =
        find.window("ip_conntrack_stat", [("insert_failed", 4), ("drop", 4)], STAT_LEN)?;
    let pptrs = find.along(&[("bpf_array", "pptrs")])?;
    if pptrs + 8 > SCRATCH_LEN {
        return Err("bpf_array.pptrs lies farther than is read".into());
    }
    Ok(vec![
        ("ARRAY_PPTRS", pptrs),
        ("NET_STAT", find.along(&[("net", "ct"), ("netns_ct", "stat")])?),
        ("DEV_NET", find.along(&[("net_device", "nd_net")])?),
        ("SKB_DEV", find.along(&[("sk_buff", "dev")])?),
        ("STAT", stat),
        ("STAT_INSERT_FAILED", insert_failed),
        ("STAT_DROP", drop),
    ])
}

/// What the drop probe reads besides.
fn of_drops(btf: &Btf) -> Result<Offsets, String> {
    let find = Finder(btf);
    let (headers, [protocol, network_header, mac_header, tail, head]) = find.window(
        "sk_buff",
        [("protocol", 2), ("network_header", 2), ("mac_header", 2), ("tail", 4), ("head", 8)],
        HEADERS_LEN,
    )?;
    let reason = |name: &str| {
        let all = btf.enum_values("skb_drop_reason");
        all.iter().find(|(value, _)| value == name).map_or(UNKNOWN, |(_, value)| *value)
    };
    Ok(vec![
        ("KFREE_SKB_ARGS", btf.tracepoint_arguments("kfree_skb").unwrap_or(2)),
        ("NET_INUM", find.along(&[("net", "ns"), ("ns_common", "inum")])?),
        ("SKB_DST", find.along(&[("sk_buff", "_skb_refdst")])?),
        ("SKB_SK", find.along(&[("sk_buff", "sk")])?),
        ("SKB_IIF", find.along(&[("sk_buff", "skb_iif")])?),
        ("SKB_HEADERS", headers),
        ("SKB_PROTOCOL", protocol),
        ("SKB_NETWORK_HEADER", network_header),
        ("SKB_MAC_HEADER", mac_header),
        ("SKB_TAIL", tail),
        ("SKB_HEAD", head),
        ("DST_DEV", find.along(&[("dst_entry", "dev")])?),
        ("SK_NET", find.along(&[("sock", "__sk_common"), ("sock_common", "skc_net")])?),
        ("DEV_IFINDEX", find.along(&[("net_device", "ifindex")])?),
        ("DEV_NAME", find.along(&[("net_device", "name")])?),
        ("CT_STATUS", find.along(&[("nf_conn", "status")])?),
        ("CT_NET", find.along(&[("nf_conn", "ct_net")])?),
        (
            "CT_PPREV",
            find.along(&[
                ("nf_conn", "tuplehash"),
                ("nf_conntrack_tuple_hash", "hnnode"),
                ("hlist_nulls_node", "pprev"),
            ])?,
        ),
        ("REASON_NETFILTER", reason("SKB_DROP_REASON_NETFILTER_DROP")),
        ("REASON_CONSUMED", reason("SKB_CONSUMED")),
        ("REASON_NOT_DROPPED", reason("SKB_NOT_DROPPED_YET")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(offsets: &Offsets, name: &str) -> Option<u32> {
        offsets.iter().find(|(global, _)| *global == name).map(|(_, value)| *value)
    }

    /// What the kernel 6.18 that this was first tried on has; another has others.
    #[test]
    fn offsets_of_linux_6_18() {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let Ok(btf) = Btf::of_kernel() else { return };
        let found = [of_translation(&btf), of_counters(&btf), of_drops(&btf)];
        let found: Offsets = found.into_iter().flat_map(Result::unwrap).collect();
        // Members of every kernel.
        for name in ["SKB_DEV", "SKB_NFCT", "NET_STAT", "DEV_IFINDEX"] {
            assert!(value(&found, name).is_some_and(|offset| offset > 0), "{name}");
        }
        if !release.starts_with("6.18.") {
            return;
        }
        let expected = [
            ("SKB_DEV", 16),
            ("SKB_NFCT", 104),
            ("SKB_HEADERS", 176),
            ("SKB_PROTOCOL", 0),
            ("SKB_NETWORK_HEADER", 4),
            ("SKB_TAIL", 8),
            ("SKB_HEAD", 16),
            ("CT_TUPLE", 32),
            ("CT_STATUS", 128),
            ("CT_NET", 136),
            ("NET_INUM", 176),
            ("NET_STAT", 2896),
            ("DEV_IFINDEX", 224),
            ("DEV_NET", 264),
            ("ARRAY_PPTRS", 312),
            ("KFREE_SKB_ARGS", 4),
            ("REASON_NETFILTER", 12),
        ];
        for (name, offset) in expected {
            assert_eq!(value(&found, name), Some(offset), "{name}");
        }
        let stat = |name| value(&found, name).unwrap() + value(&found, "STAT").unwrap();
        assert_eq!((stat("STAT_INSERT_FAILED"), stat("STAT_DROP")), (12, 20));
    }
}
