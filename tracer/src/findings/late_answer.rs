//! DP105 late-answer: answers that came after the client had given up on the question.
//!
//! Fires for a client and server at the first one. `count` is the late responses. A warning: the server works,
//! but for this client it might as well have been silent.
//!
//! Looks alike and does not fire: an answer that is slow but still wanted; a second answer to a question asked
//! twice, where the client had not moved on.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    culprit::Culprit,
    groups::{Code, Groups},
};
use crate::{
    model::{Message, MessageKind, Name},
    output::text::human,
};
use std::{net::IpAddr, time::Duration};

const CODE: Code = Code { code: "DP105", name: "late-answer" };

#[derive(Debug, Default)]
struct Detail {
    shortest: Option<Duration>,
    longest: Duration,
    name: Name,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct LateAnswer(Groups<(IpAddr, IpAddr), Detail>);

impl Rule for LateAnswer {
    fn message(&mut self, message: &Message) {
        let MessageKind::Response { latency, late: true, .. } = message.kind else { return };
        let key = (message.client.ip(), message.server.ip());
        let frames = message.hops.first().map(Evidence::from);
        let Some(detail) = self.0.add(key, 1, message.time, frames) else { return };
        detail.shortest = Some(detail.shortest.map_or(latency, |shortest| shortest.min(latency)));
        detail.longest = detail.longest.max(latency);
        detail.name = message.dns.name;
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|(client, server), group| {
            let Detail { shortest, longest, name } = &group.detail;
            let mut finding = group.tally.finding(CODE, Severity::Warning, Confidence::High);
            finding.subject = vec![("client", client.to_string()), ("server", server.to_string())];
            let (shortest, longest) = (human(shortest.unwrap_or_default()).to_string(), human(*longest).to_string());
            let range = if shortest == longest { longest } else { format!("{shortest} to {longest}") };
            finding.summary = if finding.count == 1 {
                format!("{server} answered {client} once after {client} had given up: {range} for {name}")
            } else {
                format!(
                    "{server} answered {client} {} times after {client} had given up: {range}, last for {name}",
                    finding.count
                )
            };
            finding.suspects = vec![Culprit::Slow(*server)];
            finding.blames = vec![Culprit::Late(*client, *server)];
            finding.advice = "The server is slow, not silent: look at its load and its upstream; a higher timeout in \
                              resolv.conf only hides it."
                .into();
            Some(finding)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, direct, found, lookup};
    use crate::model::{Family, LookupResult, Rcode, RetransmissionKind, Rtype};

    #[test]
    fn fires_for_answers_nobody_waits_for_any_more() {
        let late = |at, after| {
            let question =
                ask("web", Rtype::A, at).answered(Rcode::NOERROR, &["10.96.4.7"], after).late().build();
            lookup("web", Family::Musl, LookupResult::Timeout, vec![question])
        };
        insta::assert_debug_snapshot!(found::<LateAnswer>(&[late(1, 6_000), late(20_000, 5_500)]));
    }

    #[test]
    fn does_not_fire_for_a_slow_answer_or_a_second_one() {
        let slow = ask("web", Rtype::A, 1).answered(Rcode::NOERROR, &["10.96.4.7"], 4_900).build();
        let twice = ask("web", Rtype::A, 1)
            .answered(Rcode::NOERROR, &["10.96.4.7"], 3_000)
            .again(2_500, RetransmissionKind::Timeout)
            .address("10.96.4.7")
            .build();
        let lookups = [slow, twice].map(|q| lookup("web", Family::Glibc, LookupResult::Ok, vec![q]));
        assert_eq!(found::<LateAnswer>(&lookups), []);
        assert_eq!(found::<LateAnswer>(&[direct("web", 1)]), []);
    }
}
