//! DP203 server-errors: a server that answers SERVFAIL, REFUSED, FORMERR or NOTIMP in bursts.
//!
//! Fires for a server and response code when at least four such answers came within 10 s. `count` is all such
//! answers of the session.
//!
//! - error: at least half of the server's answers were such.
//! - warning: fewer.
//!
//! Looks alike and does not fire: one failed pair that the resolver asks again with success; NXDOMAIN, which is
//! an answer.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    culprit::Culprit,
    groups::{Code, Groups},
};
use crate::{
    model::{Message, Name, Question, Rcode, Timestamp},
    stats::Table,
};
use std::{collections::VecDeque, net::IpAddr, time::Duration};

const CODE: Code = Code { code: "DP203", name: "server-errors" };
/// A pair asked again once makes two to three.
const BURST: usize = 4;
const BURST_TIME: Duration = Duration::from_secs(10);
/// Servers whose answers are counted, to know the share of errors.
const MAX_SERVERS: usize = 1_024;
/// Names kept for a group.
const MAX_NAMES: usize = 3;

#[derive(Debug, Default)]
struct Detail {
    recent: VecDeque<Timestamp>,
    burst: bool,
    names: Vec<Name>,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct ServerErrors {
    errors: Groups<(IpAddr, Rcode), Detail>,
    answers: Table<IpAddr, u64>,
}

impl ServerErrors {
    fn count(&mut self, server: IpAddr) {
        if let Some(count) = self.answers.entry(server, MAX_SERVERS) {
            *count += 1;
        }
    }
}

impl Rule for ServerErrors {
    /// Answers are counted with their question; one by one only errors are told, and what no question was seen for.
    fn question(&mut self, question: &Question) {
        for sent in question.transmissions.iter().filter(|sent| sent.answered_by.is_some()) {
            self.count(sent.server.ip());
        }
    }

    fn message(&mut self, message: &Message) {
        if !message.dns.is_response() {
            return;
        }
        let (server, rcode) = (message.server.ip(), message.dns.rcode);
        if message.question.is_none() {
            self.count(server);
        }
        if !matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED | Rcode::FORMERR | Rcode::NOTIMP) {
            return;
        }
        let frames = message.hops.first().map(Evidence::from);
        let Some(detail) = self.errors.add((server, rcode), 1, message.time, frames) else { return };
        if detail.names.len() < MAX_NAMES && !detail.names.contains(&message.dns.name) {
            detail.names.push(message.dns.name);
        }
        if !detail.burst {
            detail.recent.push_back(message.time);
            while detail.recent.front().is_some_and(|first| message.time.since(*first) > BURST_TIME) {
                detail.recent.pop_front();
            }
            detail.burst = detail.recent.len() >= BURST;
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.errors.findings(|(server, rcode), group| {
            if !group.detail.burst {
                return None;
            }
            let answers = self.answers.get(server).copied().unwrap_or(group.tally.count);
            let half = group.tally.count * 2 >= answers;
            let severity = if half { Severity::Error } else { Severity::Warning };
            let mut finding = group.tally.finding(CODE, severity, Confidence::High);
            finding.subject = vec![("server", server.to_string()), ("rcode", rcode.to_string())];
            let names: Vec<String> = group.detail.names.iter().map(Name::to_string).collect();
            finding.summary = format!(
                "{server} answered {rcode} {} times of {answers}, first for {}",
                finding.count,
                names.join(", ")
            );
            finding.suspects = vec![Culprit::Loop(*server)];
            finding.blames = vec![Culprit::Errors(*server, *rcode)];
            finding.advice = match *rcode {
                Rcode::SERVFAIL => {
                    "The server could not find out: look at its log, its upstream, and whether it is in sync with the \
                     API server. musl and c-ares end a search at it, glibc and Go ask up to ten times as much."
                }
                Rcode::REFUSED => {
                    "The server does not serve this client or zone: check its zones, its access rules, and that the \
                     clients' resolv.conf names the right server."
                }
                _ => "The server does not understand the query: look at the query's EDNS and at what is in between.",
            }
            .into();
            Some(finding)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, found, lookup, searched};
    use crate::model::{Family, Lookup, LookupResult, RetransmissionKind, Rtype};

    fn servfail(at: u64) -> Lookup {
        let pair =
            [Rtype::A, Rtype::AAAA].map(|t| ask("web", t, at).answered(Rcode::SERVFAIL, &[], 1).build());
        lookup("web", Family::CAres, LookupResult::Servfail, pair.to_vec())
    }

    #[test]
    fn fires_for_a_burst() {
        insta::assert_debug_snapshot!(found::<ServerErrors>(&[servfail(1), servfail(2_000)]));
    }

    #[test]
    fn a_burst_among_many_good_answers_is_a_warning() {
        let mut lookups: Vec<Lookup> =
            (0..10).map(|n| searched("api.example.com", Family::Glibc, n * 100)).collect();
        lookups.extend([servfail(2_000), servfail(2_500)]);
        let findings = found::<ServerErrors>(&lookups);
        assert_eq!((findings.len(), findings[0].severity, findings[0].count), (1, Severity::Warning, 4));
    }

    #[test]
    fn does_not_fire_for_one_failed_pair_that_is_asked_again_or_for_rare_ones() {
        let again = [Rtype::A, Rtype::AAAA].map(|t| {
            ask("web", t, 1)
                .answered(Rcode::SERVFAIL, &[], 1)
                .again(2, RetransmissionKind::Servfail)
                .address("10.0.0.1")
                .build()
        });
        let one = lookup("web", Family::Glibc, LookupResult::Ok, again.to_vec());
        assert_eq!(found::<ServerErrors>(&[one]), []);
        let rare: Vec<Lookup> = (0..20).map(|n| servfail(n * 11_000)).collect();
        assert_eq!(found::<ServerErrors>(&rare), []);
    }

    #[test]
    fn does_not_fire_for_nxdomain() {
        assert_eq!(found::<ServerErrors>(&[searched("api.example.com", Family::Glibc, 1)]), []);
    }
}
