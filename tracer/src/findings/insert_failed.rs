//! DP301 conntrack-insert-failed: DNS packets that the kernel dropped because their connection could not be entered
//! into the connection table: another one had taken one of its two tuples meanwhile (`__nf_conntrack_confirm`).
//!
//! Fires for a client and server at the first one. `count` is the packets lost this way. A warning where the client asked
//! again and was answered, an error where a question never got an answer.
//!
//! Looks alike and does not fire: a clash that the kernel resolved (DP304); a full table (DP302); a rule (DP303), which
//! has the same reason at the same function where iptables is legacy.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    culprit::Culprit,
    groups::{Code, Groups},
    losses::Loss,
};
use crate::{
    model::{Fate, Flow, NatTuple, PacketDrop, QuestionOutcome, Transport},
    output::text::human,
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

const CODE: Code = Code { code: "DP301", name: "conntrack-insert-failed" };
/// CPUs and messages that are named.
const MAX_NAMED: usize = 4;

#[derive(Debug, Default)]
struct Detail {
    cpus: BTreeSet<u32>,
    /// Types and names.
    queries: Vec<String>,
    tuples: Option<(Flow, Option<Flow>)>,
    rival: Option<String>,
    tcp: bool,
    waits: u64,
    waited: Duration,
    longest: Duration,
    unanswered: u64,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct InsertFailed(Groups<(IpAddr, IpAddr), Detail>);

impl Rule for InsertFailed {
    fn loss(&mut self, loss: &Loss<'_>) {
        let drop = loss.drop;
        if drop.fate != Fate::InsertFailed {
            return;
        }
        let asked = drop.asked();
        let key = (asked.source.ip(), asked.destination.ip());
        let frame = Evidence { frame: drop.frame, vantage: drop.vantage };
        let Some(detail) = self.0.charge(key, 1, loss.cost(), drop.time, [frame]) else { return };
        if detail.cpus.len() < MAX_NAMED {
            detail.cpus.insert(drop.cpu);
        }
        let query = query(loss);
        if detail.queries.len() < MAX_NAMED && !detail.queries.contains(&query) {
            detail.queries.push(query);
        }
        detail.tuples = Some((asked, drop.connection.map(|NatTuple { reply, .. }| reply)));
        if let Some(rival) = drop.rival {
            detail.rival = Some(format!("{} {:04x}", rival.qtype, rival.id));
        }
        detail.tcp |= drop.transport == Transport::Tcp;
        if let Some(wait) = loss.wait {
            detail.waits += 1;
            detail.waited += wait;
            detail.longest = detail.longest.max(wait);
        }
        detail.unanswered += u64::from(loss.question.is_some_and(|question| {
            matches!(question.outcome, QuestionOutcome::Unanswered | QuestionOutcome::Unreachable)
        }));
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|(client, server), group| {
            let detail = &group.detail;
            let severity = if detail.unanswered > 0 { Severity::Error } else { Severity::Warning };
            let mut finding = group.tally.finding(CODE, severity, Confidence::High);
            let cpus: Vec<String> = detail.cpus.iter().map(u32::to_string).collect();
            finding.subject = vec![
                ("client", client.to_string()),
                ("server", server.to_string()),
                ("cpu", cpus.join(" ")),
                ("queries", detail.queries.join(", ")),
            ];
            if let Some((original, reply)) = detail.tuples {
                finding.subject.push(("original", tuple(original)));
                finding.subject.extend(reply.map(|reply| ("reply", tuple(reply))));
            }
            if detail.waits > 0 {
                finding.subject.push(("waited_s", format!("{:.3}", detail.waited.as_secs_f64())));
            }
            finding.blames = vec![Culprit::InsertFailed(*client, *server)];
            finding.summary = detail.summary(*client, *server, finding.count, &cpus);
            finding.advice = if detail.tcp {
                "Over TCP no kernel resolves such a clash. Ways out: NodeLocal DNSCache (no translation, no race), or \
                 MASQUERADE rules with --random-fully where clients share an address."
            } else {
                "Ways out: NodeLocal DNSCache (no translation, no race); a kernel from 5.10 on, which resolves all but \
                 clashes with another client's connection; MASQUERADE rules with --random-fully; for glibc the option \
                 single-request-reopen."
            }
            .into();
            Some(finding)
        })
    }
}

impl Detail {
    fn summary(&self, client: IpAddr, server: IpAddr, count: u64, cpus: &[String]) -> String {
        let packets = if count == 1 { "1 packet".into() } else { format!("{count} packets") };
        let mut text = format!(
            "conntrack insert failed (cpu {}): the kernel dropped {packets} of {client} and {server}: {}",
            cpus.join(", "),
            self.queries.join(", ")
        );
        if let Some(rival) = &self.rival {
            text.push_str(&format!("; lost against {rival}"));
        }
        if let Some((original, reply)) = self.tuples {
            text.push_str(&format!("; tuples {}", tuple(original)));
            if let Some(reply) = reply {
                text.push_str(&format!(" and {}", tuple(reply)));
            }
        }
        if self.waits == 1 {
            text.push_str(&format!("; it cost {}", human(self.longest)));
        } else if self.waits > 1 {
            text.push_str(&format!("; they cost {}, {} at most", human(self.waited), human(self.longest)));
        }
        if self.unanswered > 0 {
            text.push_str(&format!("; {} never answered", self.unanswered));
        }
        text
    }
}

fn tuple(flow: Flow) -> String {
    format!("{} > {}", flow.source, flow.destination)
}

/// The message that was lost: `AAAA web`, `answer to A web`, `TCP connection for A web`.
pub(super) fn query(loss: &Loss<'_>) -> String {
    let PacketDrop { dns, transport, .. } = loss.drop;
    let answer = if loss.drop.is_response() { "answer to " } else { "" };
    let named = dns.as_ref().filter(|dns| dns.has_question).map(|dns| (dns.qtype, dns.name));
    match (named, loss.question) {
        (Some((qtype, name)), _) => format!("{answer}{qtype} {name}"),
        (None, Some(q)) if *transport == Transport::Tcp => {
            format!("TCP connection for {} {}", q.qtype, q.name)
        }
        (None, Some(question)) => format!("{answer}{} {}", question.qtype, question.name),
        (None, None) => format!("{transport} packet with unknown question"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, at, drop_of, losses, lost};
    use crate::model::{RetransmissionKind, Rtype};

    #[test]
    fn fires_with_the_query_the_tuples_and_the_wait() {
        let aaaa = ask("web", Rtype::AAAA, 0).again(5_000, RetransmissionKind::Timeout).empty();
        let again = ask("db", Rtype::A, 9_000).again(2_500, RetransmissionKind::Timeout).address("10.1.1.1");
        let questions = [aaaa, again].map(|ask| lost(ask, Fate::InsertFailed, "", ""));
        insta::assert_debug_snapshot!(losses::<InsertFailed>(&questions, &[]));
    }

    #[test]
    fn is_an_error_where_nothing_was_answered() {
        let dead = lost(ask("web", Rtype::A, 0), Fate::InsertFailed, "", "");
        let findings = losses::<InsertFailed>(&[dead], &[]);
        assert_eq!(findings[0].severity, Severity::Error);
        let mut unseen = drop_of(Fate::InsertFailed, at(3));
        unseen.dns = None;
        let findings = losses::<InsertFailed>(&[], &[unseen]);
        assert_eq!(findings[0].severity, Severity::Warning, "nobody saw its question");
    }

    #[test]
    fn does_not_fire_for_a_resolved_clash_a_rule_or_a_full_table() {
        for fate in [Fate::ClashResolved, Fate::Dropped, Fate::TableFull] {
            assert_eq!(losses::<InsertFailed>(&[], &[drop_of(fate, at(1))]), [], "{fate}");
        }
    }

    #[test]
    fn does_not_fire_where_a_copy_was_dropped_and_the_query_answered() {
        let answered = ask("web", Rtype::A, 0).address("10.1.1.1").build();
        let mut copy = drop_of(Fate::InsertFailed, at(0));
        copy.question = Some(answered.id);
        assert_eq!(losses::<InsertFailed>(&[answered], &[copy]), []);
    }
}
