//! DP206 untranslated-reply: an answer reaches the client from an address that the client did not ask, so that its
//! resolver throws it away and waits.
//!
//! Fires for a client and the address it asked when a query was first seen at the client's own interface, and its answer was
//! last seen at that interface, coming from another address. `count` is such answers. An error where the question was never
//! answered as asked. Causes: on a bridge, bridge-nf-call-iptables = 0 keeps conntrack from translating back; and a clash
//! that a 5.10 or 6.1 kernel resolved (it was told of that question), whose reply is not translated.
//!
//! Looks alike and does not fire: an answer seen behind the translation only (at the server's veth, at a bridge), which is
//! translated later or was lost on its way.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    culprit::Culprit,
    groups::{Code, Groups},
};
use crate::model::{Answer, Fate, PacketDrop, Question, QuestionId, Transmission, VantageId, Vantages};
use std::{collections::VecDeque, net::IpAddr};

const CODE: Code = Code { code: "DP206", name: "untranslated-reply" };
/// Questions with a resolved clash that are remembered until they are told.
const MOST_CLASHES: usize = 4_096;

#[derive(Debug, Default)]
struct Detail {
    from: Option<IpAddr>,
    after_clash: u64,
    never: u64,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct UntranslatedReply {
    groups: Groups<(IpAddr, IpAddr), Detail>,
    vantages: Vantages,
    clashes: VecDeque<QuestionId>,
}

impl UntranslatedReply {
    /// With the table of the hops' vantages, which tells the two directions of one interface.
    pub(super) fn new(vantages: Vantages) -> Self {
        Self { vantages, ..Self::default() }
    }

    /// Whom this rule blames for what became of `question`.
    pub(super) fn blamed(&self, question: &Question) -> Option<Culprit> {
        let (asked, ..) = strays(&self.vantages, question).next()?;
        Some(Culprit::Untranslated(question.client, asked.server.ip()))
    }
}

impl Rule for UntranslatedReply {
    fn packet_drop(&mut self, drop: &PacketDrop) {
        if let (Fate::ClashResolved, Some(question)) = (drop.fate, drop.question) {
            if self.clashes.len() >= MOST_CLASHES {
                self.clashes.pop_front();
            }
            self.clashes.push_back(question);
        }
    }

    fn question(&mut self, question: &Question) {
        let clashed = !self.clashes.is_empty() && {
            let before = self.clashes.len();
            self.clashes.retain(|id| *id != question.id);
            self.clashes.len() < before
        };
        for (asked, answer, from) in strays(&self.vantages, question) {
            let frames = asked.hops.first().into_iter().chain(answer.hops.last()).map(Evidence::from);
            let key = (question.client, asked.server.ip());
            let Some(detail) = self.groups.add(key, 1, answer.time, frames) else { continue };
            detail.from = Some(from);
            detail.after_clash += u64::from(clashed);
            let taken = question.answers.iter().any(|other| other.from == asked.server && other.counts());
            detail.never += u64::from(!taken);
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.groups.findings(|(client, server), group| {
            let Detail { from, after_clash, never } = group.detail;
            let from = from?;
            let severity = if never > 0 { Severity::Error } else { Severity::Warning };
            let mut finding = group.tally.finding(CODE, severity, Confidence::High);
            finding.subject = vec![
                ("client", client.to_string()),
                ("server", server.to_string()),
                ("from", from.to_string()),
            ];
            let answers = if finding.count == 1 { "1 answer".into() } else { format!("{} answers", finding.count) };
            finding.summary = format!("{answers} reached {client} from {from}, but it had asked {server}");
            if after_clash > 0 {
                finding.summary.push_str(&format!(
                    "; {after_clash} of them after a conntrack clash that the kernel resolved for one direction only"
                ));
            }
            finding.blames = vec![Culprit::Untranslated(*client, *server)];
            finding.advice = if after_clash > 0 {
                "Such an answer is ignored by its resolver. Kernels from 6.12 on resolve this clash whole; NodeLocal DNSCache \
                 takes it away."
            } else {
                "The answer was not translated back, and its resolver ignores it. Where pods share a bridge: load br_netfilter \
                 and set net.bridge.bridge-nf-call-iptables=1 (and bridge-nf-call-ip6tables=1); else look for a second path \
                 back that avoids this node's conntrack."
            }
            .into();
            Some(finding)
        })
    }
}

/// The answers that the client cannot take, each with the query it is to and where it comes from.
fn strays<'a>(
    vantages: &Vantages,
    question: &'a Question,
) -> impl Iterator<Item = (&'a Transmission, &'a Answer, IpAddr)> {
    question.answers.iter().enumerate().filter_map(move |(index, answer)| {
        let index = u16::try_from(index).ok()?;
        let asked = question.transmissions.iter().find(|sent| sent.answered_by == Some(index))?;
        Some((asked, answer, stray(vantages, asked, answer)?))
    })
}

fn stray(vantages: &Vantages, asked: &Transmission, answer: &Answer) -> Option<IpAddr> {
    let (first, last) = (asked.hops.first()?, answer.hops.last()?);
    if last.source == first.destination {
        return None;
    }
    let as_client_sent = first.source == asked.client && last.destination == asked.client;
    (as_client_sent && answer.dropped.is_none() && is_same_interface(vantages, first.vantage, last.vantage))
        .then_some(last.source.ip())
}

fn is_same_interface(vantages: &Vantages, one: VantageId, other: VantageId) -> bool {
    if one == other {
        return true;
    }
    let (Some(one), Some(other)) = (vantages.lookup(one), vantages.lookup(other)) else {
        return false;
    };
    (&one.interface, one.ifindex, &one.netns, one.source)
        == (&other.interface, other.ifindex, &other.netns, other.source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, at, drop_of};
    use crate::model::{Direction, Rtype, Vantage};

    /// A question first seen at the client's veth, whose answer was last seen at `interface`, from `from`.
    fn told(interface: &str, from: &str, clash: bool) -> Vec<Finding> {
        let vantages = Vantages::new();
        let enter = |interface: &str, direction| {
            vantages.intern(Vantage { interface: interface.into(), direction, ..Vantage::default() })
        };
        let mut question = ask("web", Rtype::A, 0).address("10.96.4.7").build();
        question.transmissions[0].hops[0].vantage = enter("veth1", Direction::Ingress);
        let last = &mut question.answers[0].hops[0];
        last.vantage = enter(interface, Direction::Egress);
        last.source.set_ip(from.parse().unwrap());
        question.answers[0].from = question.answers[0].hops[0].source;
        let mut rule = UntranslatedReply::new(vantages);
        if clash {
            let mut drop = drop_of(Fate::ClashResolved, at(0));
            drop.question = Some(question.id);
            rule.packet_drop(&drop);
        }
        rule.question(&question);
        rule.findings()
    }

    #[test]
    fn fires_where_the_client_sees_another_address() {
        insta::assert_debug_snapshot!([
            told("veth1", "10.244.0.3", false),
            told("veth1", "10.244.0.3", true)
        ]);
    }

    #[test]
    fn does_not_fire_for_what_is_translated_or_seen_elsewhere() {
        assert_eq!(told("veth1", "10.96.0.10", false), [], "as asked");
        assert_eq!(told("veth2", "10.244.0.3", false), [], "at the server's side: translated later, or lost");
        assert_eq!(told("veth1", "10.96.0.10", true), [], "a clash that cost nothing");
    }
}
