//! The findings of a replay on its way, and when each was known first.

use crate::{
    findings::{Finding, Findings, Source},
    model::{Coverage, Observer, Timestamp, Vantages, pass_on},
};
use std::{collections::HashSet, time::Duration};

/// The rules are asked at most this often, in the files' time.
const STEP: Duration = Duration::from_millis(100);
/// And not more often than so many times on the way so far, so that a day costs little more than an hour.
const ASKED: u32 = 1_000;
/// Findings kept. The rules tell at most 20 each.
const MOST: usize = 1_000;

/// Watches what the engine tells.
#[derive(Debug)]
pub(super) struct Watch {
    findings: Findings,
    /// Something was told since the rules were asked.
    fresh: bool,
    /// When to ask the rules next.
    due: Timestamp,
}

/// One finding, when it was found first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// From here on it can be seen.
    pub(super) known: Timestamp,
    /// The time of what shows it.
    pub(super) first: Timestamp,
    /// Its code, name and summary.
    pub(super) text: String,
}

/// Every finding met so far, by the time it was known. It outlives the watches: going back forgets nothing.
#[derive(Debug, Default)]
pub(super) struct Found {
    items: Vec<Item>,
    known: HashSet<(&'static str, String)>,
    /// The one gone to last.
    at: Option<usize>,
}

impl Watch {
    /// A watch over files that start then; `vantages` names the places of their hops.
    pub(super) fn from(start: Timestamp, vantages: &Vantages) -> Self {
        Self { findings: Findings::new(vantages.clone()), fresh: false, due: start + STEP }
    }

    /// Says which files are read together.
    pub(super) fn set_sources(&mut self, sources: Vec<Source>) {
        self.findings.set_sources(sources);
    }

    /// When to ask the rules next: reading is not to go further before.
    pub(super) const fn due(&self) -> Timestamp {
        self.due
    }

    /// The rules, which are to be told something.
    fn told(&mut self) -> &mut Findings {
        self.fresh = true;
        &mut self.findings
    }

    /// Asks the rules, at `position` with every event before told, and enters what is new.
    pub(super) fn ask(
        &mut self,
        position: Timestamp,
        coverage: &Coverage,
        span: (Timestamp, Timestamp),
        found: &mut Found,
    ) {
        // Through silence in ever longer steps.
        let silence = position.since(span.1);
        let step = STEP.max(position.since(span.0) / ASKED).max(silence);
        self.due = position + step;
        if std::mem::take(&mut self.fresh) {
            for finding in self.findings.ranked(coverage, span) {
                found.enter(position, &finding);
            }
        }
    }
}

impl Observer for Watch {
    pass_on!(|watch| *watch.told());
}

impl Found {
    fn enter(&mut self, known: Timestamp, finding: &Finding) {
        if finding.stands_for() > 1 || finding.explained_by.is_some() || self.items.len() >= MOST {
            return;
        }
        let subject = finding.identity().map(|(key, value)| format!("{key}={value} ")).collect();
        if !self.known.insert((finding.code, subject)) {
            return;
        }
        let time = finding.first.to_string();
        let clock = time.get(11..23).unwrap_or(&time);
        let text = format!("{} {} at {clock}: {}", finding.code, finding.name, finding.summary);
        let item = Item { known, first: finding.first, text };
        let place = self.items.partition_point(|other| (other.known, other.first) <= (known, item.first));
        self.items.insert(place, item);
        self.at = self.at.map(|at| if place <= at { at + 1 } else { at });
    }

    /// The finding behind `position`, or behind the one gone to if that is where the replay is.
    pub(super) fn next(&mut self, position: Timestamp) -> Option<&Item> {
        let next = match self.current(position) {
            Some(at) => at + 1,
            None => self.items.partition_point(|item| item.known <= position),
        };
        self.go_to(next)
    }

    /// The last finding up to `position`, or the one before that if the replay went to it.
    pub(super) fn previous(&mut self, position: Timestamp) -> Option<&Item> {
        let behind = self
            .current(position)
            .unwrap_or_else(|| self.items.partition_point(|item| item.known <= position));
        self.go_to(behind.checked_sub(1)?)
    }

    fn current(&self, position: Timestamp) -> Option<usize> {
        self.at.filter(|&at| self.items.get(at).is_some_and(|item| item.known == position))
    }

    fn go_to(&mut self, index: usize) -> Option<&Item> {
        let item = self.items.get(index)?;
        self.at = Some(index);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{at, drop_of};
    use crate::model::{BlindSpot, Fate};

    fn finding(code: &'static str, first: u64) -> Finding {
        Finding {
            subject: vec![("name", "a.example".into())],
            count: 1,
            first: Timestamp::from_nanos(first),
            last: Timestamp::from_nanos(first),
            summary: "it happened".into(),
            ..crate::findings::testing::finding(code)
        }
    }

    /// What the rules are not told, nobody can go to.
    #[test]
    fn drops_and_blind_spots_are_among_what_is_gone_to() {
        let mut watch = Watch::from(Timestamp::EPOCH, &Vantages::new());
        let mut found = Found::default();
        watch.packet_drop(&drop_of(Fate::Dropped, at(5)));
        watch.blind_spot(&BlindSpot::encrypted_dns(), at(6));
        watch.ask(at(100), &Coverage::default(), (at(0), at(6)), &mut found);
        let codes: Vec<&str> = found.items.iter().map(|item| &item.text[..5]).collect();
        assert_eq!(codes, ["DP303", "DP902"]);
    }

    #[test]
    fn a_finding_that_grows_is_gone_to_once() {
        let mut found = Found::default();
        for (known, clients, place) in
            [(10, "10.0.0.1", "f"), (20, "10.0.0.1 10.0.0.2", "f"), (30, "10.0.0.1", "g")]
        {
            let mut finding = finding("DP303", 5);
            finding.subject =
                vec![("reason", "R".into()), ("place", place.into()), ("clients", clients.into())];
            found.enter(Timestamp::from_nanos(known), &finding);
        }
        let known: Vec<u64> = found.items.iter().map(|item| item.known.as_nanos()).collect();
        assert_eq!(known, [10, 30]);
    }

    #[test]
    fn findings_are_walked_in_both_directions_by_the_time_they_were_known() {
        let mut found = Found::default();
        let at = Timestamp::from_nanos;
        for (known, code, first) in
            [(20, "DP2", 12), (10, "DP1", 5), (20, "DP3", 11), (20, "DP3", 11), (90, "DP1", 80)]
        {
            found.enter(at(known), &finding(code, first));
        }
        let code = |item: Option<&Item>| item.map(|item| (item.text[..3].to_owned(), item.known.as_nanos()));
        let some = |code: &str, known| Some((code.to_owned(), known));
        assert_eq!(code(found.next(at(0))), some("DP1", 10));
        assert_eq!(code(found.next(at(10))), some("DP3", 20));
        assert_eq!(code(found.next(at(20))), some("DP2", 20), "two that were known at one time");
        assert_eq!(code(found.next(at(20))), None);
        assert_eq!(code(found.previous(at(20))), some("DP3", 20));
        assert_eq!(code(found.previous(at(20))), some("DP1", 10));
        assert_eq!(code(found.previous(at(10))), None);
        assert_eq!(code(found.previous(at(500))), some("DP2", 20));
    }
}
