//! DP303 packet-dropped: DNS packets that the kernel dropped for any other reason than conntrack's table, by reason and
//! place.
//!
//! Fires at the first loss; `count` is the packets lost. A warning where the client asked again and was answered, an error
//! where a question never got an answer.
//!
//! Looks alike and does not fire: a response that finds its socket closed (NO_SOCKET: the client had given up, or had
//! another server's answer: DP105 where it was late); the first probe of CoreDNS's loop plugin, before its own socket is
//! there; a copy of a message that was answered (a bridge that floods, a
//! capture in promiscuous mode); a frame for another MAC address (OTHERHOST: DP401); DP301, DP302.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    culprit::{Culprit, blamed},
    forward_loop::is_probe,
    groups::{Code, Groups},
    insert_failed::query,
    losses::Loss,
    reasons,
};
use crate::{
    model::{Fate, PacketDrop, QuestionOutcome},
    output::text::human,
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

const CODE: Code = Code { code: "DP303", name: "packet-dropped" };
/// Clients, servers and messages that are named.
const MAX_NAMED: usize = 3;
/// Clients that are told apart.
const MAX_CLIENTS: usize = 1_024;

#[derive(Debug, Default)]
struct Detail {
    clients: BTreeSet<IpAddr>,
    servers: BTreeSet<IpAddr>,
    queries: Vec<String>,
    longest: Duration,
    unanswered: u64,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct PacketDropped(Groups<Culprit, Detail>);

impl Rule for PacketDropped {
    fn loss(&mut self, loss: &Loss<'_>) {
        let drop = loss.drop;
        if drop.fate != Fate::Dropped || found_no_socket(drop) || &*drop.reason == "OTHERHOST" {
            return;
        }
        let frame = Evidence { frame: drop.frame, vantage: drop.vantage };
        let Some(detail) = self.0.charge(blamed(drop), 1, loss.cost(), drop.time, [frame]) else { return };
        let asked = drop.asked();
        if detail.clients.len() < MAX_CLIENTS {
            detail.clients.insert(asked.source.ip());
        }
        if detail.servers.len() < MAX_NAMED {
            detail.servers.insert(asked.destination.ip());
        }
        let query = query(loss);
        if detail.queries.len() < MAX_NAMED && !detail.queries.contains(&query) {
            detail.queries.push(query);
        }
        detail.longest = detail.longest.max(loss.wait.unwrap_or_default());
        detail.unanswered += u64::from(loss.question.is_some_and(|question| {
            matches!(question.outcome, QuestionOutcome::Unanswered | QuestionOutcome::Unreachable)
        }));
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|culprit, group| {
            let Culprit::Dropped(reason, place, nobody_at) = culprit else { return None };
            let detail = &group.detail;
            let severity = if detail.unanswered > 0 { Severity::Error } else { Severity::Warning };
            let mut finding = group.tally.finding(CODE, severity, Confidence::High);
            let (means, advice) = reasons::explained(reason, place);
            let list = |all: &BTreeSet<IpAddr>| {
                let mut named: Vec<String> = all.iter().take(MAX_NAMED).map(IpAddr::to_string).collect();
                if all.len() > MAX_NAMED {
                    named.push(format!("{} more", all.len() - MAX_NAMED));
                }
                named
            };
            let clients = list(&detail.clients);
            finding.subject = vec![
                ("reason", reason.to_string()),
                ("place", place.to_string()),
                ("clients", clients.join(" ")),
                ("servers", list(&detail.servers).join(" ")),
            ];
            let packets = if finding.count == 1 {
                "1 DNS packet".into()
            } else {
                format!("{} DNS packets", finding.count)
            };
            finding.summary = format!(
                "the kernel dropped {packets} of {} ({}): {means}; {}",
                clients.join(", "),
                reasons::reason_at(reason, place),
                detail.queries.join(", ")
            );
            if !detail.longest.is_zero() {
                finding.summary.push_str(&format!("; it cost {} at most", human(detail.longest)));
            }
            if detail.unanswered > 0 {
                finding.summary.push_str(&format!("; {} never answered", detail.unanswered));
            }
            finding.blames = vec![culprit.clone()];
            // CoreDNS ends itself when it forwards in a loop.
            finding.suspects = nobody_at.map(Culprit::Loop).into_iter().collect();
            finding.advice = advice.into();
            Some(finding)
        })
    }
}

/// A response for whom nobody waits any more, or the probe of a CoreDNS that does not listen itself yet.
fn found_no_socket(drop: &PacketDrop) -> bool {
    let is_probe = || drop.dns.as_ref().is_some_and(|dns| is_probe(&dns.name, dns.qtype));
    &*drop.reason == "NO_SOCKET" && (drop.is_response() || is_probe())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{answer_lost, ask, at, drop_of, losses, lost};
    use crate::model::{RetransmissionKind, Rtype};

    const RULE: (&str, &str) = ("NETFILTER_DROP", "nft_do_chain");

    #[test]
    fn fires_by_reason_and_place_with_plain_words() {
        let dead = lost(ask("web", Rtype::A, 0), Fate::Dropped, RULE.0, RULE.1);
        let again = ask("db", Rtype::A, 9_000).again(2_500, RetransmissionKind::Timeout).address("10.1.1.1");
        let again = lost(again, Fate::Dropped, "NEIGH_FAILED", "arp_error_report");
        let answer = ask("db", Rtype::A, 20_000).address("10.1.1.1");
        let answer = answer_lost(answer, "SOCKET_RCVBUFF", "udp_queue_rcv_one_skb");
        insta::assert_debug_snapshot!(losses::<PacketDropped>(&[dead, again, answer], &[]));
    }

    #[test]
    fn the_reasons_of_the_field_are_explained() {
        for reason in [
            "NETFILTER_DROP",
            "OTHERHOST",
            "NEIGH_FAILED",
            "NEIGH_QUEUEFULL",
            "SOCKET_RCVBUFF",
            "NO_SOCKET",
            "UDP_CSUM",
            "IP_RPFILTER",
        ] {
            assert_ne!(reasons::explained(reason, ""), reasons::explained("", ""), "{reason}");
        }
        let at = |place| reasons::explained("NETFILTER_DROP", place).0;
        assert_ne!(at("nft_do_chain"), at("nf_hook_slow"));
        assert_eq!(at("nf_hook_slow"), at("ipt_do_table"));
    }

    #[test]
    fn does_not_fire_for_an_answer_that_finds_its_socket_closed() {
        let late = ask("web", Rtype::A, 0).address("10.1.1.1");
        let late = answer_lost(late, "NO_SOCKET", "__udp4_lib_rcv");
        assert_eq!(losses::<PacketDropped>(&[late], &[]), []);
        let query = lost(ask("web", Rtype::A, 0), Fate::Dropped, "NO_SOCKET", "__udp4_lib_rcv");
        assert_eq!(
            losses::<PacketDropped>(&[query], &[]).len(),
            1,
            "a query that nobody takes is another thing"
        );
    }

    #[test]
    fn does_not_fire_for_a_copy_or_what_others_tell() {
        let answered = ask("web", Rtype::A, 0).address("10.1.1.1").build();
        let mut copy = drop_of(Fate::Dropped, at(0));
        (copy.reason, copy.place, copy.question) = (RULE.0.into(), RULE.1.into(), Some(answered.id));
        let mut flooded = drop_of(Fate::Dropped, at(0));
        flooded.reason = "OTHERHOST".into();
        let others = [copy, flooded, drop_of(Fate::InsertFailed, at(1)), drop_of(Fate::TableFull, at(2))];
        assert_eq!(losses::<PacketDropped>(&[answered], &others), []);
    }
}
