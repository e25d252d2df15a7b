//! Every lookup of a session, for the JSON report.

use crate::{
    model::{Lookup, Observer, Pods, Timestamp},
    output::lookup_json::LookupJson,
};

/// Keeps lookups as JSON. The one thing whose memory grows with what is seen, and only when asked for.
#[derive(Debug, Default)]
pub struct LookupLog {
    pods: Pods,
    writer: LookupJson,
    json: Vec<u8>,
    entries: Vec<(Timestamp, usize, usize)>,
}

impl LookupLog {
    /// A log that names clients by `pods`.
    #[must_use]
    pub fn new(pods: Pods) -> Self {
        Self { pods, ..Self::default() }
    }

    /// The JSON objects of all lookups, by their start; those of one time in the order they ended.
    pub(super) fn by_start(&self) -> impl Iterator<Item = &[u8]> {
        let mut entries = self.entries.clone();
        entries.sort_by_key(|(start, ..)| *start);
        entries.into_iter().filter_map(|(_, from, to)| self.json.get(from..to))
    }
}

impl Observer for LookupLog {
    fn lookup(&mut self, lookup: &Lookup) {
        let from = self.json.len();
        let asking = self.pods.asking_at(lookup.client, lookup.start);
        let names =
            asking.as_ref().map_or((None, None), |(pod, container)| (Some(&**pod), container.as_deref()));
        self.writer.append(&mut self.json, lookup, names, false);
        self.entries.push((lookup.start, from, self.json.len()));
    }
}
