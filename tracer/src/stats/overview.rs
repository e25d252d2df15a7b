//! What a page shows beside the findings: how it went over time, and who and what occurs most.

use super::{Series, Share, Top};
use crate::model::{Lookup, LookupResult, Name, Observer, Question, Rcode};
use std::{collections::BTreeMap, net::IpAddr};

/// Response codes counted one by one.
const MAX_RCODES: usize = 32;

/// Times, clients, names and response codes.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Over time.
    pub series: Series,
    /// By who asked.
    pub clients: Top<IpAddr>,
    /// By the name that was looked up.
    pub names: Top<Name>,
    /// Answers by response code.
    pub rcodes: BTreeMap<Rcode, u64>,
}

impl Observer for Overview {
    fn question(&mut self, question: &Question) {
        if let Some(latency) = question.latency() {
            self.series.at(question.first_asked()).waits.record(latency);
        }
        for answer in &question.answers {
            if self.rcodes.len() < MAX_RCODES || self.rcodes.contains_key(&answer.rcode) {
                *self.rcodes.entry(answer.rcode).or_default() += 1;
            }
        }
    }

    fn lookup(&mut self, lookup: &Lookup) {
        let bucket = self.series.at(lookup.start);
        bucket.lookups += 1;
        bucket.failed += u64::from(lookup.result.is_failure());
        let without = u64::from(!matches!(lookup.result, LookupResult::Ok | LookupResult::Incomplete));
        let (queries, took) = (u64::from(lookup.queries), lookup.duration);
        let share = Share { lookups: 1, without, queries, took, ..Share::default() };
        self.clients.add(&lookup.client, share);
        self.names.add(&lookup.name, share);
    }
}
