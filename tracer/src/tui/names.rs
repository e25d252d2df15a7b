//! The lines of the names view: what is looked up most, and what that takes.

use crate::{
    model::{Lookup, LookupResult, Name, Rcode},
    stats::{Share, Top},
};
use std::{hash::BuildHasher, sync::Arc, time::Duration};

/// Lines: the names that cost most queries.
const SHOWN: usize = 1_000;

/// Every name that was looked up, as far as there is room.
#[derive(Debug, Default)]
pub(super) struct Names(Top<Name>);

/// One line of the names view.
#[derive(Debug)]
pub(super) struct NameRow {
    /// Of the name.
    pub(super) key: u64,
    pub(super) name: Box<str>,
    pub(super) queries: u64,
    pub(super) lookups: u64,
    /// Lookups that ended without an address.
    pub(super) without: u64,
    /// Queries for each lookup, rounded.
    pub(super) fan_out: u64,
    /// Of a hundred answers, those NXDOMAIN, rounded.
    pub(super) nxdomain_percent: u64,
    /// On average.
    pub(super) took: Option<Duration>,
}

impl NameRow {
    /// Most of its answers said that there is no such name.
    pub(super) const fn wasted_most(&self) -> bool {
        self.nxdomain_percent > 50
    }
}

impl Names {
    /// Counts a lookup; what a server asks for others is counted with theirs.
    pub(super) fn lookup(&mut self, lookup: &Lookup) {
        if lookup.forwarded {
            return;
        }
        let questions = lookup.steps.iter().flat_map(|step| &step.questions);
        let rcodes = questions.flat_map(|question| &question.answers).map(|answer| answer.rcode);
        let (mut answers, mut nxdomain) = (0, 0);
        rcodes.for_each(|rcode| {
            answers += 1;
            nxdomain += u64::from(rcode == Rcode::NXDOMAIN);
        });
        let without = !matches!(lookup.result, LookupResult::Ok | LookupResult::Incomplete);
        let one = Share {
            lookups: 1,
            without: without.into(),
            queries: lookup.queries.into(),
            answers,
            nxdomain,
            took: lookup.duration,
        };
        self.0.add(&lookup.name, one);
    }

    /// How many there are; `None` where some were forgotten.
    pub(super) fn met(&self) -> Option<usize> {
        self.0.len()
    }

    /// The lines, those that cost most queries.
    pub(super) fn rows(&self) -> Vec<Arc<NameRow>> {
        self.0.ranked(SHOWN).into_iter().map(|(name, share)| Arc::new(row(name, share))).collect()
    }
}

fn row(name: &Name, share: Share) -> NameRow {
    let Share { lookups, without, queries, answers, nxdomain, took } = share;
    let rounded = |part: u64, whole: u64| (part + whole / 2).checked_div(whole).unwrap_or(0);
    NameRow {
        key: foldhash::fast::FixedState::default().hash_one(name),
        name: name.to_string().into(),
        queries,
        lookups,
        without,
        fan_out: rounded(queries, lookups),
        nxdomain_percent: rounded(nxdomain * 100, answers),
        took: u32::try_from(lookups).ok().and_then(|lookups| took.checked_div(lookups)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        findings::testing::{ask, direct, lookup, searched},
        model::{Family, Rtype},
    };

    #[test]
    fn what_a_name_takes_is_counted_a_lookup() {
        let mut names = Names::default();
        for number in 0..3 {
            names.lookup(&searched("api.example.com", Family::Glibc, number * 100));
        }
        names.lookup(&direct("web", 1_000));
        let mut of_a_server = direct("web", 2_000);
        of_a_server.forwarded = true;
        names.lookup(&of_a_server);
        let told: Vec<_> = names
            .rows()
            .iter()
            .map(|row| (row.name.to_string(), row.lookups, row.queries, row.fan_out, row.nxdomain_percent))
            .collect();
        assert_eq!(told, [("api.example.com".into(), 3, 24, 8, 75), ("web".into(), 1, 2, 2, 0)]);
        assert_eq!(names.met(), Some(2));
    }

    #[test]
    fn memory_and_lines_are_bounded() {
        let mut names = Names::default();
        for number in 0..10_000 {
            let one = ask(&format!("n{number}.example"), Rtype::A, 1).address("10.1.1.1").build();
            names.lookup(&lookup(&format!("n{number}.example"), Family::Musl, LookupResult::Ok, vec![one]));
        }
        assert_eq!((names.rows().len(), names.met()), (SHOWN, None));
    }
}
