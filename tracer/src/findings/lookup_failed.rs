//! DP104 lookup-failed: lookups that gave no address, by result.
//!
//! Fires for a client, name and result. `count` is the lookups.
//!
//! - error: timeout, unreachable, servfail, refused, truncated; and nodata where NXDOMAIN was due (DP103 says
//!   why): the resolver could not tell whether the name exists, or was told wrongly.
//! - warning: nxdomain for a name that ends in `svc` and was asked only as it is: musl does not try the search
//!   list when the name has ndots dots or more, so an ndots too low for `service.namespace.svc` breaks it.
//! - info: nxdomain and nodata otherwise. DNS did its work; the name is wrong, or is asked to see whether it
//!   exists. So a name that truly does not exist does not make a report fail.
//!
//! Looks alike and does not fire: a lookup whose end is not in the capture (result incomplete); one that waited
//! but got its address (DP102).

use super::{
    Confidence, Cost, Culprit, Finding, Severity, Suspects, Witnesses,
    cause::{Silence, cause, silence},
    causes::Causes,
    groups::{Absorb, Code, Symptoms},
    ndots,
    search::{first_frames, suffix_of},
};
use crate::{
    model::{Family, Lookup, LookupResult, Name, Rcode},
    output::text::human,
};
use std::{net::IpAddr, time::Duration};

const CODE: Code = Code { code: "DP104", name: "lookup-failed" };

#[derive(Debug, Default)]
struct Detail {
    cause: Option<String>,
    suspicious: bool,
    candidates: usize,
    silence: Option<(Silence, Name)>,
    longest: Duration,
    family: Family,
}

impl Absorb for Detail {
    fn absorb(&mut self, other: &Self) {
        if self.cause.is_none() {
            self.cause.clone_from(&other.cause);
            (self.candidates, self.silence, self.family) = (other.candidates, other.silence, other.family);
        }
        self.longest = self.longest.max(other.longest);
        self.suspicious |= other.suspicious;
    }
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct LookupFailed(Symptoms<(IpAddr, Name, LookupResult), Detail>);

impl LookupFailed {
    /// A lookup that ended.
    pub(super) fn lookup(&mut self, lookup: &Lookup, witnesses: Witnesses<'_>) {
        if matches!(lookup.result, LookupResult::Ok | LookupResult::Incomplete) {
            return;
        }
        let key = ((lookup.client, lookup.name, lookup.result), suspects(lookup, witnesses));
        let frames = lookup.steps.iter().flat_map(first_frames);
        let cost =
            if is_failure(lookup) { Cost { waited: lookup.duration, failed: 1 } } else { Cost::default() };
        let Some(detail) = self.0.charge(key, 1, cost, lookup.start, frames) else { return };
        if detail.cause.is_none() {
            detail.cause = cause(lookup);
            detail.candidates = lookup.steps.len();
            detail.silence = lookup.steps.last().map(|last| (silence(last, lookup), last.name));
            detail.family = lookup.family;
        }
        detail.longest = detail.longest.max(lookup.duration);
        detail.suspicious |= ended_wrongly(lookup);
    }

    /// What nothing in `causes` explains, and what something does.
    pub(super) fn told(&self, causes: &Causes) -> Vec<Finding> {
        self.0.findings(causes, |(client, name, result), group| {
            let Detail { cause, suspicious, candidates, silence, longest, family } = &group.detail;
            let unsearched = *result == LookupResult::Nxdomain && *candidates == 1 && ends_in_svc(name);
            let severity = match result {
                LookupResult::Nxdomain if unsearched => Severity::Warning,
                LookupResult::Nxdomain => Severity::Info,
                LookupResult::Nodata if !suspicious => Severity::Info,
                _ => Severity::Error,
            };
            let mut finding = group.tally.finding(CODE, severity, Confidence::High);
            finding.rests_on_absence = matches!(result, LookupResult::Timeout | LookupResult::Truncated);
            finding.subject = vec![
                ("client", client.to_string()),
                ("name", name.to_string()),
                ("result", result.to_string()),
                ("family", family.to_string()),
            ];
            let times =
                if finding.count == 1 { "1 lookup".into() } else { format!("{} lookups", finding.count) };
            let cause = cause.as_deref().unwrap_or("its packets do not say why");
            let after = if *longest >= Duration::from_secs(1) {
                format!(" after {}", human(*longest))
            } else {
                String::new()
            };
            finding.summary = format!("{times} of {name} by {client} failed ({result}){after}: {cause}");
            finding.advice = match result {
                LookupResult::Timeout => silent(*silence),
                LookupResult::Nxdomain if unsearched => format!(
                    "It was asked without the search list. musl does so when a name has ndots dots or more: set \
                     ndots above {}, or write the whole name, {name}.cluster.local.",
                    name.dots()
                ),
                _ => advice(*result, *suspicious, *candidates).into(),
            };
            Some(finding)
        })
    }
}

/// Who may be to blame: for what its last step asked in vain, else for what it was told there.
fn suspects(lookup: &Lookup, witnesses: Witnesses<'_>) -> Suspects {
    let Some(last) = lookup.steps.last() else { return Suspects::new() };
    if ndots::is_unsearched(lookup) {
        return vec![Culprit::Unsearched(lookup.client, lookup.name)];
    }
    if !is_failure(lookup) {
        return Suspects::new();
    }
    let mut suspects = Suspects::new();
    if ended_wrongly(lookup) {
        let suffix = suffix_of(&last.name, &lookup.name).unwrap_or(last.name);
        suspects.push(Culprit::EmptyNoerror(lookup.client, suffix));
    }
    if lookup.result == LookupResult::Truncated {
        suspects.push(Culprit::Truncated(lookup.client, last.name));
    }
    let in_vain = last.questions.iter().filter(|question| {
        question.answer().is_none_or(|answer| !matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN))
    });
    for suspect in in_vain.flat_map(|question| witnesses.suspects(question)) {
        if !suspects.contains(&suspect) {
            suspects.push(suspect);
        }
    }
    suspects
}

/// Whether its client was not told whether the name exists, or was told wrongly.
pub(super) fn is_failure(lookup: &Lookup) -> bool {
    lookup.result.is_failure() || lookup.result == LookupResult::Nodata && ended_wrongly(lookup)
}

/// Whether its last candidate got an empty answer where NXDOMAIN was due.
fn ended_wrongly(lookup: &Lookup) -> bool {
    lookup.steps.last().is_some_and(|last| lookup.suspicious_names.contains(&last.name))
}

fn silent(silence: Option<(Silence, Name)>) -> String {
    match silence {
        Some((Silence::TooLate(_), _)) => {
            "The server is slow, not silent: look at its load and its upstream (see DP105, DP204).".into()
        }
        Some((Silence::OneType, _)) => {
            "The other type was answered, so the server is there: see DP102 for what eats this one.".into()
        }
        Some((Silence::OneName, name)) => format!(
            "The server answers other names: look at where it forwards {name} to, and whether that upstream answers."
        ),
        Some((Silence::Whole, _)) | None => {
            "Check that the server is reachable from this client: its pods are ready, no network policy or security \
             group eats port 53, the node's conntrack table has room."
                .into()
        }
    }
}

/// A name like `service.namespace.svc`, which exists only with the cluster's domain behind it.
fn ends_in_svc(name: &Name) -> bool {
    name.labels().last() == Some(b"svc") && name.dots() >= 1
}

fn advice(result: LookupResult, suspicious: bool, candidates: usize) -> &'static str {
    match result {
        LookupResult::Unreachable => {
            "Nothing listens at that address: check that the DNS service has ready endpoints \
             (kubectl -n kube-system get endpointslices)."
        }
        LookupResult::Servfail => "Look at the server's log and at its upstream: it could not find out.",
        LookupResult::Refused => {
            "The server does not serve this client or zone: check its zones and access rules."
        }
        LookupResult::Truncated => "Let TCP port 53 through, or make the answer smaller (see DP106).",
        LookupResult::Nodata if suspicious => "See DP103: the answer should have been NXDOMAIN.",
        LookupResult::Nodata => "The name exists without an address: check which record it should have.",
        LookupResult::Nxdomain if candidates > 1 => {
            "No candidate of the search exists: check the spelling, the namespace, and that the service exists."
        }
        LookupResult::Nxdomain => "The name does not exist: check its spelling.",
        LookupResult::Timeout | LookupResult::Ok | LookupResult::Incomplete => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, direct, lookup, searched, witnessed};
    use crate::model::{RetransmissionKind, Rtype};

    fn found(lookups: &[Lookup]) -> Vec<Finding> {
        let mut rule = LookupFailed::default();
        witnessed(|witnesses| lookups.iter().for_each(|lookup| rule.lookup(lookup, witnesses)));
        rule.told(&Causes::default())
    }

    fn failed(name: &str, result: LookupResult) -> Lookup {
        let question = ask(name, Rtype::A, 1).again(5_000, RetransmissionKind::Timeout).build();
        lookup(name, Family::Glibc, result, vec![question])
    }

    #[test]
    fn fires_by_client_name_and_result() {
        let lookups = [
            failed("web", LookupResult::Timeout),
            failed("web", LookupResult::Timeout),
            failed("web", LookupResult::Servfail),
            failed("db", LookupResult::Unreachable),
        ];
        insta::assert_debug_snapshot!(found(&lookups));
    }

    #[test]
    fn a_name_that_does_not_exist_is_information() {
        for result in [LookupResult::Nxdomain, LookupResult::Nodata] {
            let findings = found(&[failed("typo", result)]);
            assert_eq!((findings.len(), findings[0].severity), (1, Severity::Info), "{result}");
        }
    }

    #[test]
    fn an_in_cluster_name_asked_without_the_search_list_is_a_warning() {
        let asked = ask("api.prod.svc", Rtype::A, 1).nxdomain().build();
        let findings = found(&[lookup("api.prod.svc", Family::Musl, LookupResult::Nxdomain, vec![asked])]);
        assert_eq!(findings[0].severity, Severity::Warning);
        assert!(findings[0].advice.contains("set ndots above 2, or write"), "{}", findings[0].advice);
    }

    #[test]
    fn a_late_answer_is_not_called_none() {
        let late = ask("web", Rtype::A, 1).answered(Rcode::NOERROR, &["10.96.4.7"], 6_000).late().build();
        let findings = found(&[lookup("web", Family::Go, LookupResult::Timeout, vec![late])]);
        assert!(
            findings[0].summary.ends_with("10.96.0.10 answered too late, after 6.00 s"),
            "{}",
            findings[0].summary
        );
        assert!(findings[0].advice.contains("DP105"));
    }

    #[test]
    fn a_timeout_says_what_got_no_answer() {
        let lost = || ask("api.example.com.corp", Rtype::A, 9).build();
        let cases = [
            (vec![lost()], "no answer from 10.96.0.10"),
            (
                vec![ask("api.example.com.svc", Rtype::A, 1).nxdomain().build(), lost()],
                "no answer for api.example.com.corp from 10.96.0.10, which answered other names",
            ),
            (
                vec![lost(), ask("api.example.com.corp", Rtype::AAAA, 9).empty().build()],
                "no answer to A api.example.com.corp from 10.96.0.10",
            ),
        ];
        for (questions, expected) in cases {
            let timeout = lookup("api.example.com", Family::Musl, LookupResult::Timeout, questions);
            assert_eq!(cause(&timeout).as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_empty_answer_that_ended_the_search_wrongly_is_an_error() {
        let mut stopped = failed("api.example.com.cluster.local", LookupResult::Nodata);
        stopped.suspicious_names.push(stopped.steps[0].name);
        assert_eq!(found(&[stopped])[0].severity, Severity::Error);
    }

    #[test]
    fn does_not_fire_where_an_address_came_or_the_end_was_not_seen() {
        let lookups = [
            direct("web", 1),
            searched("api.example.com", Family::Glibc, 2),
            failed("web", LookupResult::Ok),
            failed("web", LookupResult::Incomplete),
        ];
        assert_eq!(found(&lookups), []);
    }
}
