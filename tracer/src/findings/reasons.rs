//! The kernel's reasons in plain words.

use crate::model::{Fate, PacketDrop};

/// What became of a packet, for a line: `conntrack insert failed (cpu 1; lost against A 4f1a)`.
#[must_use]
pub fn what_happened(drop: &PacketDrop) -> String {
    let mut text = format!("{} (cpu {}", fate(drop), drop.cpu);
    if let Some(rival) = drop.rival {
        let how = if drop.fate.is_loss() { "lost against" } else { "beside" };
        text.push_str(&format!("; {how} {} {:04x}", rival.qtype, rival.id));
    }
    text.push(')');
    text
}

/// The same without the CPU: `conntrack insert failed`, `NETFILTER_DROP at nft_do_chain`.
#[must_use]
pub fn fate(drop: &PacketDrop) -> String {
    match drop.fate {
        Fate::InsertFailed => "conntrack insert failed".into(),
        Fate::TableFull => "conntrack table full".into(),
        Fate::ClashResolved => "conntrack clash resolved".into(),
        Fate::Dropped => reason_at(&drop.reason, &drop.place),
    }
}

/// `NETFILTER_DROP at nft_do_chain`.
pub(super) fn reason_at(reason: &str, place: &str) -> String {
    match (reason, place) {
        ("", "") => "no reason given".into(),
        (reason, "") => reason.into(),
        ("", place) => format!("dropped at {place}"),
        (reason, place) => format!("{reason} at {place}"),
    }
}

/// What a reason means, and what to do about it.
pub(super) fn explained(reason: &str, place: &str) -> (&'static str, &'static str) {
    match reason {
        "NETFILTER_DROP" | "NETFILTER_INGRESS" | "NETFILTER_EGRESS" => match place {
            "nft_do_chain" => (
                "a rule of nftables dropped it",
                "Look for the rule: `nft list ruleset` with counters, iptables-nft and network policies included; \
                 `nft monitor trace` shows which one.",
            ),
            "nf_hook_slow" | "ipt_do_table" | "ip6t_do_table" => (
                "a netfilter hook dropped it: a rule of iptables, or conntrack",
                "Look for the rule: `iptables-save -c` (and ip6tables) on this node, network policies included; a rule \
                 whose counter grows with the drops is it.",
            ),
            _ => (
                "netfilter dropped it",
                "Look at the rules of this node and of the pod: `nft list ruleset`, `iptables-save -c`.",
            ),
        },
        "OTHERHOST" => (
            "its destination MAC address was another host's",
            "Compare `ip neigh` on the sender's side with the pod's own MAC address.",
        ),
        "NEIGH_FAILED" | "NEIGH_CREATEFAIL" | "NEIGH_DEAD" => (
            "the next hop's MAC address could not be found",
            "The next hop does not answer ARP or neighbour discovery: `ip neigh` shows FAILED. Is the pod gone while its \
             route or endpoint stays?",
        ),
        "NEIGH_QUEUEFULL" => (
            "too many packets waited for the next hop's MAC address",
            "The next hop answers ARP too slowly or not at all: `ip neigh`; net.ipv4.neigh.default.unres_qlen_bytes bounds \
             what waits, gc_thresh3 the table.",
        ),
        "SOCKET_RCVBUFF" | "SOCKET_RCVBUF" | "PROTO_MEM" => (
            "the receiver's socket buffer was full",
            "The receiver does not read fast enough: give it CPU (throttling?), or raise net.core.rmem_max and its buffer.",
        ),
        "NO_SOCKET" => (
            "nobody listened at that address and port",
            "The server's process is gone or listens elsewhere: `ss -lnup` and `ss -lntp` in its network namespace.",
        ),
        "UDP_CSUM" | "TCP_CSUM" | "IP_CSUM" | "ICMP_CSUM" | "SKB_CSUM" => (
            "its checksum was wrong",
            "Mostly checksum offload of a tunnel or virtual interface: `ethtool -K DEVICE tx off` on it shows whether it \
             is that.",
        ),
        "IP_RPFILTER" => (
            "its source address is not routed back where it came from (reverse path filter)",
            "Asymmetric routing: net.ipv4.conf.*.rp_filter = 2 (loose), or mend the route to the source.",
        ),
        "QDISC_DROP" | "QDISC_OVERLIMIT" | "QDISC_CONGESTED" | "FULL_RING" => {
            ("the queue of an interface was full", "Look at `tc -s qdisc` and at who fills the interface.")
        }
        "IP_NOPROTO" | "IP_INNOROUTES" | "IP_OUTNOROUTES" | "IP_INADDRERRORS" | "IP_INVALID_SOURCE"
        | "IP_LOCALNET" | "IP_INVALID_DEST" => {
            ("it could not be routed", "Look at `ip route get` for its addresses in that network namespace.")
        }
        "TC_INGRESS" | "TC_EGRESS" | "XDP" | "BPF_CGROUP_EGRESS" | "SOCKET_FILTER" => (
            "a program on the interface or socket dropped it (tc, XDP or BPF)",
            "Look at `tc filter show`, `bpftool net` and `bpftool cgroup tree`: a network plug-in's policy, mostly.",
        ),
        _ => (
            "the kernel freed it",
            "The reason's name is the kernel's (enum skb_drop_reason): include/net/dropreason-core.h says what it means.",
        ),
    }
}
