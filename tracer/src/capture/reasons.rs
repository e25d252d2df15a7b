//! Why the kernel says it freed a packet: the names of `enum skb_drop_reason`, whose numbers differ between kernels;
//! and which of these, and of the places in its code, mean no loss at all.

use super::btf::Btf;
use std::collections::HashMap;

/// Freed, but not lost: what the receiver had already, what an application left unread when it closed its socket,
/// copies for packet sockets.
const NO_LOSS_REASONS: [&str; 11] = [
    "CONSUMED",
    "NOT_DROPPED_YET",
    "PACKET_SOCK_ERROR",
    "QUEUE_PURGE",
    "SOCKET_CLOSE",
    "TCP_CLOSE",
    "TCP_OFOMERGE",
    "TCP_OLD_ACK",
    "TCP_OLD_DATA",
    "TCP_OLD_SEQUENCE",
    "TCP_RESET",
];

/// Functions whose freeing of a packet is no loss: the same, on kernels that give no reason; drivers that are done
/// with a packet they have sent; the original of a packet that was cut into several.
const NO_LOSS_PLACES: [&str; 16] = [
    "__dev_kfree_skb_any",
    "__sk_destruct",
    "dev_kfree_skb_any_reason",
    "inet_sock_destruct",
    "net_tx_action",
    "nfqnl_enqueue_packet",
    "packet_rcv",
    "packet_rcv_fanout",
    "packet_rcv_spkt",
    "run_filter",
    "sk_stream_kill_queues",
    "skb_queue_purge",
    "skb_queue_purge_reason",
    "tpacket_rcv",
    "udp_destruct_common",
    "udp_destruct_sock",
];

/// The kernel's reason of last resort.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// Names of reasons.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    names: HashMap<u32, String>,
}

impl Reasons {
    pub(super) fn of(btf: &Btf) -> Self {
        // Those of other subsystems have their number in the upper half.
        let all = ["skb_drop_reason", "mac80211_drop_reason", "ovs_drop_reason"];
        let names = all.iter().flat_map(|name| btf.enum_values(name));
        let is_reason = |name: &str| !name.ends_with("_SUBSYS_MASK") && !name.ends_with("_MAX");
        Self {
            names: names
                .filter(|(name, _)| is_reason(name))
                .map(|(name, value)| (value, shortened(&name).into()))
                .collect(),
        }
    }

    /// How many have names.
    pub(super) fn known(&self) -> usize {
        self.names.len()
    }

    /// The name without its prefix; empty where the kernel gives none.
    pub(super) fn name(&self, reason: u32) -> &str {
        self.names.get(&reason).map_or("", String::as_str)
    }
}

fn shortened(name: &str) -> &str {
    let prefixes = ["SKB_DROP_REASON_", "SKB_"];
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

/// Whether a packet freed for this reason, by this function, is lost.
pub(super) fn is_loss(reason: &str, place: &str, is_tcp: bool) -> bool {
    // Without a reason, what TCP frees after it looked into it may just as well have been used up.
    let unsaid = reason.is_empty() || reason == NOT_SPECIFIED;
    let used_up = is_tcp && unsaid && (place.is_empty() || place.starts_with("tcp_"));
    !used_up && !NO_LOSS_REASONS.contains(&reason) && !NO_LOSS_PLACES.contains(&place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go() {
        let names = ["SKB_DROP_REASON_NO_SOCKET", "SKB_CONSUMED", "OVS_DROP_METER"].map(shortened);
        assert_eq!(names, ["NO_SOCKET", "CONSUMED", "OVS_DROP_METER"]);
    }

    #[test]
    fn what_a_closing_socket_throws_away_is_no_loss() {
        assert!(is_loss("NETFILTER_DROP", "nf_hook_slow", false));
        assert!(is_loss("", "", false));
        assert!(!is_loss("QUEUE_PURGE", "skb_queue_purge_reason", false));
        assert!(!is_loss("", "skb_queue_purge", false));
    }

    #[test]
    fn what_tcp_frees_without_a_reason_may_have_been_used() {
        assert!(!is_loss("", "tcp_rcv_state_process", true));
        assert!(!is_loss("NOT_SPECIFIED", "", true));
        assert!(is_loss("NO_SOCKET", "tcp_v4_rcv", true));
        assert!(is_loss("NOT_SPECIFIED", "ip_forward", true));
    }
}
