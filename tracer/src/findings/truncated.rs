//! DP106 truncated: an answer was cut (TC set) and no whole one came over TCP.
//!
//! Fires for a client and name when a question got a truncated answer over UDP and no answer over TCP.
//! `count` is such questions.
//!
//! - error: the lookup gave no address.
//! - warning: the client took what the cut answer had: some of the addresses.
//!
//! Looks alike and does not fire: the ordinary case, a truncated answer followed by the whole one over TCP.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    culprit::Culprit,
    groups::{Code, Groups},
    search::{frames, questions},
};
use crate::model::{Family, Lookup, LookupResult, Name, Question, Transport};
use std::net::IpAddr;

const CODE: Code = Code { code: "DP106", name: "truncated" };

#[derive(Debug, Default)]
struct Detail {
    failed: bool,
    tcp_tried: bool,
    size: u32,
    family: Family,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct Truncated(Groups<(IpAddr, Name), Detail>);

impl Rule for Truncated {
    fn lookup(&mut self, lookup: &Lookup) {
        for question in questions(lookup).filter(|question| is_cut(question, lookup)) {
            let key = (lookup.client, question.name);
            let shown = question.answers.iter().filter_map(|a| a.hops.first()).map(Evidence::from);
            let frames = frames(question).chain(shown);
            let Some(detail) = self.0.add(key, 1, question.first_asked(), frames) else { continue };
            detail.failed |= lookup.result != LookupResult::Ok;
            detail.tcp_tried |= question.transmissions.iter().any(|sent| sent.transport == Transport::Tcp);
            detail.size =
                question.answers.iter().map(|answer| answer.size).max().unwrap_or(0).max(detail.size);
            detail.family = lookup.family;
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|(client, name), group| {
            let Detail { failed, tcp_tried, size, family } = &group.detail;
            let severity = if *failed { Severity::Error } else { Severity::Warning };
            let mut finding = group.tally.finding(CODE, severity, Confidence::High);
            finding.subject = vec![
                ("client", client.to_string()),
                ("name", name.to_string()),
                ("family", family.to_string()),
            ];
            finding.summary = format!(
                "the answer for {name} to {client} was cut at {size} octets, {}; {}",
                if *tcp_tried {
                    "and the query over TCP had no answer"
                } else {
                    "and no query over TCP followed"
                },
                if *failed { "the lookup failed" } else { "the client made do with a part of it" }
            );
            finding.rests_on_absence = true;
            finding.blames = vec![Culprit::Truncated(*client, *name)];
            finding.advice = match (tcp_tried, family) {
                (true, _) => {
                    "The server took the connection but did not answer: check that it serves TCP.".into()
                }
                (false, Family::Musl) => {
                    "musl asks over TCP from 1.2.4 on: update the image, or check that TCP port 53 is open."
                        .into()
                }
                (false, _) => {
                    "Check that TCP port 53 is open to the server: a refused connection is not seen here."
                        .into()
                }
            };
            Some(finding)
        })
    }
}

/// Whether a question's answer was cut and nothing in its lookup brought the whole one over TCP: it may have been
/// asked there as a question of its own.
fn is_cut(question: &Question, lookup: &Lookup) -> bool {
    let mut same = questions(lookup).filter(|q| (q.name, q.qtype) == (question.name, question.qtype));
    question.answers.iter().any(|answer| answer.truncated)
        && !same.any(|q| q.answers.iter().any(|a| a.transport == Transport::Tcp && !a.truncated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, found, lookup};
    use crate::model::{Rcode, Rtype};

    #[test]
    fn fires_where_no_whole_answer_follows() {
        let never = ask("big", Rtype::A, 1).truncated().build();
        let in_vain = ask("huge", Rtype::A, 1).truncated().over_tcp(2).build();
        insta::assert_debug_snapshot!(found::<Truncated>(&[
            lookup("big", Family::Musl, LookupResult::Ok, vec![never]),
            lookup("huge", Family::Glibc, LookupResult::Truncated, vec![in_vain]),
        ]));
    }

    #[test]
    fn does_not_fire_where_tcp_brings_the_whole_answer() {
        let whole =
            ask("big", Rtype::A, 1).truncated().over_tcp(2).answered(Rcode::NOERROR, &["10.96.4.8"], 1);
        assert_eq!(
            found::<Truncated>(&[lookup("big", Family::Glibc, LookupResult::Ok, vec![whole.build()])]),
            []
        );
    }

    #[test]
    fn does_not_fire_where_the_whole_answer_came_to_the_same_question_asked_anew() {
        let cut = ask("big", Rtype::A, 1).truncated().build();
        let whole = ask("big", Rtype::A, 1).over_tcp(2).answered(Rcode::NOERROR, &["10.96.4.8"], 1).build();
        let other = ask("big", Rtype::AAAA, 1).over_tcp(2).answered(Rcode::NOERROR, &[], 1).build();
        let both = |second| [lookup("big", Family::Glibc, LookupResult::Ok, vec![cut.clone(), second])];
        assert_eq!(found::<Truncated>(&both(whole)), []);
        assert_eq!(found::<Truncated>(&both(other)).len(), 1);
    }

    #[test]
    fn a_server_that_forwards_is_not_told_as_a_client() {
        use crate::{
            findings::Findings,
            model::{Coverage, Observer, Timestamp},
        };
        let mut leg = lookup(
            "big",
            Family::Unknown,
            LookupResult::Truncated,
            vec![ask("big", Rtype::A, 1).truncated().build()],
        );
        let told = |one: &Lookup| {
            let mut findings = Findings::default();
            findings.lookup(one);
            findings.ranked(&Coverage::default(), (Timestamp::EPOCH, Timestamp::EPOCH)).len()
        };
        assert!(told(&leg) > 0);
        leg.forwarded = true;
        assert_eq!(told(&leg), 0);
    }
}
