//! Findings by cause: a symptom that a finding explains is folded under it, and costs what the cause costs.

use super::{Cost, Culprit, Finding, groups};
use crate::model::Timestamp;
use std::{collections::HashMap, time::Duration};

/// Explained findings of one code that are told one by one; all are counted with their causes.
const TOLD: usize = 20;

/// A lookup is told with its start: what it met came up to a minute later.
const AROUND: Duration = Duration::from_secs(60);

/// What a finding explains of another code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptom {
    /// The symptom's code.
    pub code: &'static str,
    /// The code in words.
    pub name: &'static str,
    /// How much of that code's count is explained.
    pub count: u64,
    /// What that cost.
    pub cost: Cost,
}

/// The finding that explains another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Its code.
    pub code: &'static str,
    /// Its place in the list that [`super::Findings::ranked`] gave.
    pub place: usize,
}

/// Findings so far, causes first: each can explain those that follow.
#[derive(Debug, Default)]
pub(super) struct Causes {
    findings: Vec<Finding>,
    by_culprit: HashMap<Culprit, usize>,
    /// With the place of their cause.
    explained: Vec<(usize, Finding)>,
}

impl Causes {
    /// The first of the suspects whom a finding blames for something at that time.
    pub(super) fn guilty<'a>(
        &self,
        suspects: &'a [Culprit],
        (first, last): (Timestamp, Timestamp),
    ) -> Option<&'a Culprit> {
        suspects.iter().find(|suspect| {
            let cause = self.by_culprit.get(suspect).and_then(|place| self.findings.get(*place));
            cause.is_some_and(|cause| first <= cause.last + AROUND && cause.first <= last + AROUND)
        })
    }

    /// Takes findings of one kind, and folds those that are explained.
    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for mut finding in findings {
            let blames = std::mem::take(&mut finding.blames);
            let suspects = std::mem::take(&mut finding.suspects);
            let span = (finding.first, finding.last);
            let cause = self.guilty(&suspects, span).and_then(|guilty| self.by_culprit.get(guilty)).copied();
            let place = match cause.and_then(|place| Some((place, self.findings.get_mut(place)?))) {
                Some((place, cause)) => {
                    fold(&finding, cause);
                    self.explained.push((place, finding));
                    place
                }
                None => {
                    self.findings.push(finding);
                    self.findings.len() - 1
                }
            };
            for culprit in blames {
                self.by_culprit.entry(culprit).or_insert(place);
            }
        }
    }

    /// All of them by rank: first those that stand for themselves, then the explained ones, which name their cause.
    pub(super) fn ranked(self) -> Vec<Finding> {
        let mut order: Vec<(usize, Finding)> = self.findings.into_iter().enumerate().collect();
        for (_, finding) in &mut order {
            // They count the same lookups, a rule often by questions or in part.
            let mut told = Cost::default();
            finding.symptoms.iter().for_each(|symptom| told += symptom.cost);
            finding.cost = finding.cost.max(told);
        }
        order.sort_by(|(_, a), (_, b)| groups::rank(a, b));
        let place_of = |cause: usize| {
            let place = order.iter().position(|(index, _)| *index == cause)?;
            order.get(place).map(|(_, finding)| Explained { code: finding.code, place })
        };
        let mut explained: Vec<Finding> = self
            .explained
            .into_iter()
            .map(|(cause, finding)| Finding { explained_by: place_of(cause), ..finding })
            .collect();
        explained.sort_by(groups::rank);
        let mut told: HashMap<&'static str, usize> = HashMap::new();
        explained.retain(|finding| {
            let told = told.entry(finding.code).or_default();
            *told += 1;
            *told <= TOLD
        });
        order.into_iter().map(|(_, finding)| finding).chain(explained).collect()
    }
}

/// Counts a symptom with its cause, which is as bad as what it did.
fn fold(finding: &Finding, cause: &mut Finding) {
    cause.severity = cause.severity.max(finding.severity);
    match cause.symptoms.iter_mut().find(|symptom| symptom.code == finding.code) {
        Some(symptom) => {
            symptom.count += finding.count;
            symptom.cost += finding.cost;
        }
        None => cause.symptoms.push(Symptom {
            code: finding.code,
            name: finding.name,
            count: finding.count,
            cost: finding.cost,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        findings::{
            Findings, Severity,
            testing::{Ask, ask, drops_of, lookup, lost},
        },
        model::{
            Coverage, Family, Fate, Lookup, LookupResult, Observer as _, Rcode, RetransmissionKind, Rtype,
        },
    };

    /// `(code, count, what it explains, the code of what explains it)` of each finding in these lookups.
    type Told = (&'static str, u64, Vec<(&'static str, u64)>, Option<&'static str>);

    fn found(lookups: &[Lookup]) -> (Vec<Finding>, Vec<Told>) {
        let mut findings = Findings::default();
        for lookup in lookups {
            for question in lookup.steps.iter().flat_map(|step| &step.questions) {
                drops_of(question).for_each(|drop| findings.packet_drop(drop));
                crate::findings::testing::messages(question).iter().for_each(|m| findings.message(m));
                findings.question(question);
            }
            findings.lookup(lookup);
        }
        let span = (lookups[0].start, lookups[0].end());
        let ranked = findings.ranked(&Coverage::default(), span);
        let told = ranked.iter().map(|finding| {
            let explains = finding.symptoms.iter().map(|symptom| (symptom.code, symptom.count)).collect();
            (finding.code, finding.count, explains, finding.explained_by.map(|by| by.code))
        });
        let told = told.collect();
        (ranked, told)
    }

    fn waited(at: u64) -> Ask {
        ask("web", Rtype::AAAA, at).again(5_000, RetransmissionKind::Timeout).empty()
    }

    /// One of a pair waited 5 s, and the kernel told why, or did not.
    fn pair(at: u64, raced: bool) -> Lookup {
        let a = ask("web", Rtype::A, at).address("10.96.4.7").build();
        let aaaa = if raced { lost(waited(at), Fate::InsertFailed, "", "") } else { waited(at).build() };
        lookup("web", Family::Glibc, LookupResult::Ok, vec![a, aaaa])
    }

    #[test]
    fn what_a_cause_explains_is_folded_under_it_and_the_rest_stays() {
        let (ranked, told) = found(&[pair(0, true), pair(10_000, false), pair(20_000, true)]);
        assert_eq!(
            told,
            [
                ("DP301", 2, vec![("DP102", 2)], None),
                ("DP102", 1, vec![], None),
                ("DP102", 2, vec![], Some("DP301")),
            ]
        );
        assert_eq!(ranked[0].cost.waited.as_secs(), 10, "its own waits and its symptoms' are the same ones");
        assert_eq!(ranked[1].cost.waited.as_secs(), 5);
        assert_eq!(ranked[2].explained_by.map(|by| by.place), Some(0));
    }

    #[test]
    fn a_cause_is_as_bad_as_what_it_did() {
        let late = |at| {
            let question =
                ask("web", Rtype::A, at).answered(Rcode::NOERROR, &["10.96.4.7"], 6_000).late().build();
            lookup("web", Family::Musl, LookupResult::Timeout, vec![question])
        };
        let (ranked, told) = found(&[late(0)]);
        assert_eq!(told, [("DP105", 1, vec![("DP104", 1)], None), ("DP104", 1, vec![], Some("DP105"))]);
        assert_eq!((ranked[0].severity, ranked[0].cost.failed), (Severity::Error, 1));
        // Seen often enough, the server is slow, and that explains all of it.
        let (_, told) = found(&[0, 10, 20, 30, 40].map(|at| late(at * 1_000)));
        assert_eq!(
            told,
            [
                ("DP204", 5, vec![("DP105", 5), ("DP104", 5)], None),
                ("DP104", 5, vec![], Some("DP204")),
                ("DP105", 5, vec![], Some("DP204")),
            ]
        );
    }

    #[test]
    fn a_cause_explains_what_happened_at_its_time() {
        let unlike = |millis| {
            let refused = [Rtype::A, Rtype::AAAA]
                .map(|t| ask("web", t, millis).answered(Rcode::REFUSED, &[], 1).build());
            lookup("web", Family::Musl, LookupResult::Refused, refused.to_vec())
        };
        let (_, told) = found(&[unlike(0), unlike(1_000)]);
        assert_eq!(told, [("DP203", 4, vec![("DP104", 2)], None), ("DP104", 2, vec![], Some("DP203"))]);
        let mut other = unlike(7_200_000);
        other.name = "db".parse().unwrap();
        let lookups = [unlike(0), unlike(1_000)];
        let mut causes = Causes::default();
        causes.extend([Finding {
            blames: vec![Culprit::TableFull],
            first: lookups[0].start,
            last: lookups[1].start,
            ..crate::findings::testing::finding("DP302")
        }]);
        let guilty = |time| causes.guilty(&[Culprit::TableFull], (time, time)).is_some();
        assert_eq!([lookups[1].start, other.start].map(guilty), [true, false]);
    }

    #[test]
    fn what_nobody_explains_stands_for_itself() {
        let dead = ask("web", Rtype::A, 0).again(5_000, RetransmissionKind::Timeout).build();
        let (_, told) = found(&[lookup("web", Family::Musl, LookupResult::Timeout, vec![dead])]);
        assert_eq!(told, [("DP104", 1, vec![], None)]);
        let (_, told) = found(&[pair(0, false)]);
        assert_eq!(told, [("DP102", 1, vec![], None)]);
    }
}
