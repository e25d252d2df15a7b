//! DP103 empty-noerror: a server says "exists, but has no such record" where "does not exist" was due.
//!
//! Fires for a client and search suffix when a candidate with that suffix got an empty NOERROR (NODATA, RFC 2308
//! section 2.2) for every type asked where NXDOMAIN was due; the engine decides that for each lookup
//! ([`crate::model::Lookup::suspicious_names`]). `count` is the lookups it happened to.
//!
//! - error: it ended a lookup without an address; musl goes on only after NXDOMAIN.
//! - warning: the search went on; the same answers break musl clients.
//!
//! Confidence is high where another candidate of the same lookup got NXDOMAIN or an address, or the answer had
//! no SOA; else medium: the name may exist without addresses.
//!
//! Looks alike and does not fire: an empty AAAA beside an A with an address; names that exist without an
//! address (a namespace's own name).

use super::{
    Confidence, Cost, Finding, Rule, Severity,
    culprit::Culprit,
    groups::{Code, Groups},
    search::{first_frames, suffix_of},
};
use crate::model::{Family, Lookup, LookupResult, Name, Rcode, Step};
use std::net::IpAddr;

const CODE: Code = Code { code: "DP103", name: "empty-noerror" };

#[derive(Debug, Default)]
struct Detail {
    ended: u64,
    sure: bool,
    example: Option<(Name, Name)>,
    family: Family,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct EmptyNoerror(Groups<(IpAddr, Name), Detail>);

impl Rule for EmptyNoerror {
    fn lookup(&mut self, lookup: &Lookup) {
        if lookup.suspicious_names.is_empty() {
            return;
        }
        let mut told: Vec<Name> = Vec::new();
        for step in lookup.steps.iter().filter(|step| lookup.suspicious_names.contains(&step.name)) {
            let suffix = suffix_of(&step.name, &lookup.name).unwrap_or(step.name);
            if told.contains(&suffix) {
                continue;
            }
            told.push(suffix);
            let key = (lookup.client, suffix);
            let ended = lookup.result == LookupResult::Nodata
                && lookup.steps.last().is_some_and(|last| last.name == step.name);
            let cost = if ended { Cost { waited: lookup.duration, failed: 1 } } else { Cost::default() };
            let Some(detail) = self.0.charge(key, 1, cost, lookup.start, first_frames(step)) else {
                continue;
            };
            detail.ended += u64::from(ended);
            detail.sure |= lookup.steps.iter().any(denied_or_found) || without_soa(step);
            if detail.example.is_none() {
                detail.example = Some((lookup.name, step.name));
            }
            if detail.family == Family::Unknown {
                detail.family = lookup.family;
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.0.findings(|(client, suffix), group| {
            let Detail { ended, sure, example, family } = &group.detail;
            let (name, candidate) = (*example)?;
            let severity = if *ended > 0 { Severity::Error } else { Severity::Warning };
            let confidence = if *sure { Confidence::High } else { Confidence::Medium };
            let mut finding = group.tally.finding(CODE, severity, confidence);
            finding.subject = vec![
                ("client", client.to_string()),
                ("suffix", suffix.to_string()),
                ("name", name.to_string()),
                ("family", family.to_string()),
            ];
            finding.summary = format!(
                "{candidate} got an empty NOERROR where NXDOMAIN was due, in {} of {client}: {}",
                if finding.count == 1 { "1 lookup".into() } else { format!("{} lookups", finding.count) },
                consequence(*family, *ended)
            );
            finding.blames = vec![Culprit::EmptyNoerror(*client, *suffix)];
            finding.advice = format!(
                "Make the server of {suffix} answer NXDOMAIN for names it does not have (a wildcard record, or a \
                 template or rewrite without NXDOMAIN, answers so), or take {suffix} out of the search list; until \
                 then ask for {name}. with its trailing dot."
            );
            Some(finding)
        })
    }
}

fn denied_or_found(step: &Step) -> bool {
    step.questions.iter().filter_map(|question| question.answer()).any(|answer| {
        answer.rcode == Rcode::NXDOMAIN || answer.rcode == Rcode::NOERROR && !answer.addresses.is_empty()
    })
}

fn without_soa(step: &Step) -> bool {
    step.questions
        .iter()
        .filter_map(|question| question.answer())
        .any(|a| a.empty_noerror && !a.authority_soa)
}

fn consequence(family: Family, ended: u64) -> &'static str {
    match (family, ended) {
        (Family::Musl, 1..) => "musl stops its search there, the program got no address",
        (_, 1..) => "the search ended there, the program got no address",
        (Family::Musl, 0) => "this search had another end, but musl stops at such an answer",
        (Family::Glibc | Family::Go, 0) => "the search went on; musl (Alpine) clients stop there and fail",
        (_, 0) => "the search went on; resolvers like musl stop there and fail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, direct, found, lookup, searched};
    use crate::model::Rtype;

    const EMPTY: &str = "api.example.com.cluster.local";

    fn stopped(family: Family) -> Lookup {
        let pair = [Rtype::A, Rtype::AAAA].map(|qtype| ask(EMPTY, qtype, 5).empty().build());
        let mut stopped = lookup("api.example.com", family, LookupResult::Nodata, pair.to_vec());
        stopped.suspicious_names.push(stopped.steps[0].name);
        stopped
    }

    #[test]
    fn fires_as_an_error_where_it_ends_a_lookup() {
        insta::assert_debug_snapshot!(found::<EmptyNoerror>(&[stopped(Family::Musl), stopped(Family::Musl)]));
    }

    #[test]
    fn fires_as_a_warning_where_the_search_goes_on() {
        let mut questions: Vec<_> =
            [Rtype::A, Rtype::AAAA].map(|qtype| ask(EMPTY, qtype, 5).empty().build()).to_vec();
        questions.push(ask("api.example.com", Rtype::A, 6).address("203.0.113.10").build());
        let mut went_on = lookup("api.example.com", Family::Glibc, LookupResult::Ok, questions);
        went_on.suspicious_names.push(went_on.steps[0].name);
        let findings = found::<EmptyNoerror>(&[went_on]);
        assert_eq!((findings[0].severity, findings[0].confidence), (Severity::Warning, Confidence::High));
        assert!(findings[0].summary.contains("musl (Alpine) clients stop there"), "{}", findings[0].summary);
    }

    #[test]
    fn does_not_fire_for_an_empty_aaaa_beside_an_address_or_for_nxdomain() {
        let lookups =
            [direct("web.default.svc.cluster.local", 1), searched("api.example.com", Family::Musl, 9)];
        assert_eq!(found::<EmptyNoerror>(&lookups), []);
    }

    #[test]
    fn does_not_fire_for_a_name_that_exists_without_an_address() {
        let pair =
            [Rtype::A, Rtype::AAAA].map(|t| ask("shop.svc.cluster.local", t, 1).empty().build()).to_vec();
        assert_eq!(found::<EmptyNoerror>(&[lookup("shop", Family::Musl, LookupResult::Nodata, pair)]), []);
    }
}
