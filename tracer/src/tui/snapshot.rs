//! What one drawing sees: a copy that costs what changed since the last one.

use super::{
    feed::{Feed, Shown},
    found::FindingRow,
    kernel::DropRow,
    names::NameRow,
    pods::PodRow,
    row::Row,
    servers::ServerRow,
    status::{Rates, Status},
};
use crate::model::{Timestamp, Vantages};
use std::{collections::VecDeque, sync::Arc};

/// The state of a [`Feed`] at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Changes whenever the lines do.
    pub(super) generation: u64,
    /// The feed's, as it was last.
    restarts: u64,
    /// Unusual lookups, ordinary ones, questions.
    pub(super) lanes: [VecDeque<Arc<Row>>; 3],
    /// For each lane, the share that is kept where it is not all.
    pub(super) sampled: [Option<Shown>; 3],
    /// The worst first.
    pub(super) findings: Vec<Arc<FindingRow>>,
    pub(super) servers: Vec<Arc<ServerRow>>,
    pub(super) pods: Vec<Arc<PodRow>>,
    /// Those that cost most queries.
    pub(super) names: Vec<Arc<NameRow>>,
    /// How many there are; `None`: very many.
    pub(super) names_met: Option<usize>,
    /// Drops and clashes, the newest last.
    pub(super) drops: VecDeque<Arc<DropRow>>,
    /// How many there were.
    pub(super) drops_told: u64,
    pub(super) status: Status,
    pub(super) rates: Rates,
    pub(super) newest: Timestamp,
    pub(super) vantages: Vantages,
}

impl Snapshot {
    /// Takes over what is new in `feed`. A frozen screen keeps its lines; its header goes on. In a replay its clock
    /// counts in place of `now`.
    pub fn refresh(&mut self, feed: &mut Feed, frozen: bool, now: Timestamp) {
        let now = feed.status().playback.as_ref().map_or(now, |playback| playback.position);
        feed.tick(now);
        self.status.clone_from(feed.status());
        self.rates = feed.rates(now);
        self.newest = feed.newest();
        self.vantages.clone_from(feed.vantages());
        if frozen {
            return;
        }
        let mut changed = self.restarts != feed.restarts();
        if changed {
            self.restarts = feed.restarts();
            self.lanes.iter_mut().for_each(VecDeque::clear);
        }
        for ((lane, copy), sampled) in feed.lanes().iter().zip(&mut self.lanes).zip(&mut self.sampled) {
            changed |= lane.copy_to(copy);
            *sampled = lane.sampled();
        }
        feed.refresh_rows(now);
        self.findings = feed.finding_rows().to_vec();
        self.pods = feed.pod_rows().to_vec();
        self.names = feed.name_rows().to_vec();
        self.names_met = feed.names_met();
        self.servers = feed.servers();
        feed.drops().copy_to(&mut self.drops);
        self.drops_told = feed.drops().told();
        self.generation += u64::from(changed);
    }
}
