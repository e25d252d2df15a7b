//! DP304 clash-resolved: two connections had one tuple, and the kernel joined them (`nf_ct_resolve_clash`): a race that
//! cost nothing.
//!
//! Fires for a client and server at the first one; `count` is the clashes. Information: on an older kernel each would
//! have been a lost packet and a wait of seconds.
//!
//! Looks alike and does not fire: a clash that cost the packet (DP301). Where the answer then came from an address that
//! was not asked, DP206 says so.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    groups::{Code, Groups},
};
use crate::model::{Fate, PacketDrop};
use std::net::IpAddr;

const CODE: Code = Code { code: "DP304", name: "clash-resolved" };

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct ClashResolved(Groups<(IpAddr, IpAddr), u32>);

impl Rule for ClashResolved {
    fn packet_drop(&mut self, drop: &PacketDrop) {
        if drop.fate != Fate::ClashResolved {
            return;
        }
        let asked = drop.asked();
        let frame = Evidence { frame: drop.frame, vantage: drop.vantage };
        if let Some(cpu) = self.0.add((asked.source.ip(), asked.destination.ip()), 1, drop.time, [frame]) {
            *cpu = drop.cpu;
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|(client, server), group| {
            let mut finding = group.tally.finding(CODE, Severity::Info, Confidence::High);
            finding.subject = vec![("client", client.to_string()), ("server", server.to_string())];
            let times = if finding.count == 1 { "once".into() } else { format!("{} times", finding.count) };
            finding.summary = format!(
                "packets of {client} to {server} raced for one conntrack entry {times} and the kernel resolved it (last on cpu {})",
                group.detail
            );
            finding.advice = "Nothing was lost. A kernel before 5.10, or a clash with another client's connection, drops such a \
                              packet (DP301); NodeLocal DNSCache takes the race away."
                .into();
            Some(finding)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{at, drop_of};

    fn told(fates: &[Fate]) -> Vec<Finding> {
        let mut rule = ClashResolved::default();
        for (fate, second) in fates.iter().zip(0..) {
            rule.packet_drop(&drop_of(*fate, at(second * 1_000)));
        }
        rule.findings()
    }

    #[test]
    fn fires_as_information() {
        insta::assert_debug_snapshot!(told(&[Fate::ClashResolved, Fate::ClashResolved]));
    }

    #[test]
    fn does_not_fire_for_a_clash_that_cost_its_packet() {
        assert_eq!(told(&[Fate::InsertFailed, Fate::Dropped, Fate::TableFull]), []);
    }
}
