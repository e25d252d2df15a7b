//! Lookups in trouble, kept for the pictures of the page: one of each kind.

use crate::{
    findings::Evidence,
    model::{Lookup, LookupResult, Misdirected, Name, Observer, Pods, VantageId, Vantages},
    output::ladder::Ladder,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

/// Ladders kept.
const MOST: usize = 1_024;
/// Frames of a lookup that can be asked for.
const FRAMES: usize = 64;
/// A lookup that takes less, gets its address and searches little is ordinary.
const SLOW: Duration = Duration::from_millis(200);
/// So many queries for other names are worth a picture.
const WASTED: u32 = 4;

/// One lookup.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) ladder: Ladder,
    /// The client's pod, or its address; escaped.
    pub(super) client: String,
    /// What was looked up, escaped.
    pub(super) name: String,
    pub(super) result: LookupResult,
    pub(super) took: Duration,
}

/// What lookups have in common that need one picture only.
type Kind = (IpAddr, Name, LookupResult, bool);

/// The first lookup of each kind, by the frames it is made of.
#[derive(Debug)]
pub(super) struct Samples {
    vantages: Vantages,
    pods: Pods,
    known: HashSet<Kind>,
    all: Vec<Sample>,
    by_frame: HashMap<(VantageId, u64), usize>,
    /// The latest frames that went astray.
    astray: VecDeque<(VantageId, u64)>,
}

impl Samples {
    pub(super) fn new(vantages: Vantages, pods: Pods) -> Self {
        Self {
            vantages,
            pods,
            known: HashSet::new(),
            all: Vec::new(),
            by_frame: HashMap::new(),
            astray: VecDeque::new(),
        }
    }

    /// The lookup that one of these frames is of; the number tells it from others.
    pub(super) fn showing(&self, evidence: &[Evidence]) -> Option<(usize, &Sample)> {
        let place = evidence.iter().find_map(|shown| self.by_frame.get(&(shown.vantage, shown.frame)))?;
        Some((*place, self.all.get(*place)?))
    }
}

impl Observer for Samples {
    fn misdirected(&mut self, frame: &Misdirected) {
        if self.astray.len() >= FRAMES {
            self.astray.pop_front();
        }
        self.astray.push_back((frame.vantage, frame.frame));
    }

    fn lookup(&mut self, lookup: &Lookup) {
        let ordinary = lookup.result == LookupResult::Ok
            && lookup.duration < SLOW
            && lookup.retransmissions.is_empty()
            && lookup.wasted_search_queries.unwrap_or(0) < WASTED;
        let questions = || lookup.steps.iter().flat_map(|step| &step.questions);
        let sent = questions().flat_map(|question| &question.transmissions);
        let answered = questions().flat_map(|question| &question.answers);
        let hops = sent.clone().flat_map(|sent| &sent.hops).chain(answered.clone().flat_map(|a| &a.hops));
        let in_vain = || sent.clone().any(|sent| sent.answered_by.is_none());
        let astray = || {
            !self.astray.is_empty() && hops.clone().any(|hop| self.astray.contains(&(hop.vantage, hop.frame)))
        };
        if self.all.len() >= MOST || ordinary && !in_vain() && !astray() {
            return;
        }
        let waited = questions().any(|question| question.transmissions.len() > 1);
        if !self.known.insert((lookup.client, lookup.name, lookup.result, waited)) {
            return;
        }
        let dropped = sent.filter_map(|sent| sent.dropped.as_deref());
        let dropped = dropped.chain(answered.filter_map(|answer| answer.dropped.as_deref()));
        let frames =
            dropped.map(|drop| (drop.vantage, drop.frame)).chain(hops.map(|hop| (hop.vantage, hop.frame)));
        for frame in frames.take(FRAMES) {
            self.by_frame.entry(frame).or_insert(self.all.len());
        }
        let pod = self.pods.name_at(lookup.client, lookup.start);
        let client = pod.map_or_else(|| lookup.client.to_string(), |pod| pod.to_string());
        self.all.push(Sample {
            ladder: Ladder::of_lookup(lookup, &self.vantages),
            client: crate::output::text::escape(&client).into_owned(),
            name: lookup.name.to_string(),
            result: lookup.result,
            took: lookup.duration,
        });
    }
}
