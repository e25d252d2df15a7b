//! Every lookup of a session, for the JSON report.

use crate::{
    model::{Lookup, Observer, Pods, Timestamp},
    output::json::LookupView,
};

/// Keeps lookups as JSON. The one thing whose memory grows with what is seen, and only when asked for.
#[derive(Debug, Default)]
pub struct LookupLog {
    pods: Pods,
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
        let pod = self.pods.name_at(lookup.client, lookup.start);
        let container = self.pods.container_at(lookup.client, lookup.start);
        let (pod, container) = (pod.as_deref(), container.as_deref());
        let view = LookupView { lookup, pod, container, line: false };
        match serde_json::to_writer(&mut self.json, &view) {
            Ok(()) => self.entries.push((lookup.start, from, self.json.len())),
            // Writing to memory does not fail; if it did, half an object would make the report unreadable.
            Err(_) => self.json.truncate(from),
        }
    }
}
