//! Where the kernel side finds what it reads in the kernel's structs: globals of its objects, from BTF.

use super::{btf::Btf, record::TUPLE_STRIDE};

/// Names of globals and their values.
pub(super) type Offsets = Vec<(&'static str, u32)>;

/// Marks "cannot be read" for the kernel side.
const UNKNOWN: u32 = u32::MAX;
/// Octets of `sk_buff` that the drop probe reads in one go.
const HEADERS_LEN: u32 = 64;
/// Octets of `ip_conntrack_stat` that are read in one go.
const STAT_LEN: u32 = 16;
/// Octets of `struct bpf_array` that are copied to find its `pptrs`.
const SCRATCH_LEN: u32 = 48 * 8;

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

    /// `first` and how far the others lie behind it, where all end within `length` octets.
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
        let first = offsets.iter().copied().min().unwrap_or(0);
        for (offset, (member, size)) in offsets.iter_mut().zip(members) {
            *offset -= first;
            if *offset + size > length {
                return Err(format!("{name}.{member} lies far from its companions here"));
            }
        }
        Ok((first, offsets))
    }
}

/// What both objects read conntrack's tuples by: for the classifiers.
pub(super) fn of_translation(btf: &Btf) -> Result<Offsets, String> {
    let find = Finder(btf);
    let stride = btf.size_of("nf_conntrack_tuple_hash").unwrap_or(0);
    if stride as usize != TUPLE_STRIDE {
        return Err(format!("struct nf_conntrack_tuple_hash has {stride} octets here, not {TUPLE_STRIDE}"));
    }
    Ok(vec![
        ("SKB_NFCT", find.along(&[("sk_buff", "_nfct")])?),
        ("CT_STATUS", find.along(&[("nf_conn", "status")])?),
        ("CT_TUPLE", find.along(&[("nf_conn", "tuplehash"), ("nf_conntrack_tuple_hash", "tuple")])?),
    ])
}

/// How conntrack's counters are read: for both objects.
pub(super) fn of_counters(btf: &Btf) -> Result<Offsets, String> {
    let find = Finder(btf);
    let (stat, [insert_failed, drop, clash_resolve]) = find.window(
        "ip_conntrack_stat",
        [("insert_failed", 4), ("drop", 4), ("clash_resolve", 4)],
        STAT_LEN,
    )?;
    let pptrs = find.along(&[("bpf_array", "pptrs")])?;
    if pptrs + 8 > SCRATCH_LEN {
        return Err("bpf_array.pptrs lies farther than is read".into());
    }
    Ok(vec![
        ("ARRAY_PPTRS", pptrs),
        ("NET_INUM", find.along(&[("net", "ns"), ("ns_common", "inum")])?),
        ("NET_STAT", find.along(&[("net", "ct"), ("netns_ct", "stat")])?),
        ("DEV_NET", find.along(&[("net_device", "nd_net")])?),
        ("SKB_DEV", find.along(&[("sk_buff", "dev")])?),
        ("STAT", stat),
        ("STAT_INSERT_FAILED", insert_failed),
        ("STAT_DROP", drop),
        ("STAT_CLASH_RESOLVE", clash_resolve),
    ])
}

/// Globals for a kernel whose counters cannot be read.
pub(super) fn without(names: &Result<Offsets, String>, all: &[&'static str]) -> Offsets {
    match names {
        Ok(offsets) => offsets.clone(),
        Err(_) => all.iter().map(|name| (*name, UNKNOWN)).collect(),
    }
}

/// What the drop probe reads besides.
pub(super) fn of_drops(btf: &Btf) -> Result<Offsets, String> {
    let find = Finder(btf);
    let (headers, [protocol, network_header, tail, head]) = find.window(
        "sk_buff",
        [("protocol", 2), ("network_header", 2), ("tail", 4), ("head", 8)],
        HEADERS_LEN,
    )?;
    let reason = |name: &str| {
        let all = btf.enum_values("skb_drop_reason");
        all.iter().find(|(value, _)| value == name).map_or(UNKNOWN, |(_, value)| *value)
    };
    Ok(vec![
        ("KFREE_SKB_ARGS", btf.tracepoint_arguments("kfree_skb").unwrap_or(2)),
        ("SKB_DST", find.along(&[("sk_buff", "_skb_refdst")])?),
        ("SKB_SK", find.along(&[("sk_buff", "sk")])?),
        ("SKB_IIF", find.along(&[("sk_buff", "skb_iif")])?),
        ("SKB_HEADERS", headers),
        ("SKB_PROTOCOL", protocol),
        ("SKB_NETWORK_HEADER", network_header),
        ("SKB_TAIL", tail),
        ("SKB_HEAD", head),
        ("DST_DEV", find.along(&[("dst_entry", "dev")])?),
        ("SK_NET", find.along(&[("sock", "__sk_common"), ("sock_common", "skc_net")])?),
        ("DEV_IFINDEX", find.along(&[("net_device", "ifindex")])?),
        ("DEV_NAME", find.along(&[("net_device", "name")])?),
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
