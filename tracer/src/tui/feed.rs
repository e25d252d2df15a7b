//! What the engine tells, kept for the screen in bounded memory.
//!
//! Three lanes of lines, each with its own cap: unusual lookups, ordinary ones, and questions that belong to no
//! lookup. A lane takes what comes until it is full; from then on only so many lines a tick, and counts the
//! rest: at a high rate most ordinary lookups cost a glance and a count.

use super::{
    found::{FindingRow, Found},
    kernel::Drops,
    names::{NameRow, Names},
    pods::{PodRow, Pods},
    row::{Row, Setting},
    servers::{self, ServerRow},
    status::{RateMeter, Rates, Status},
    text,
};
use crate::{
    findings::{Findings, Source},
    model::{
        BlindSpot, Connect, Lookup, LookupResult, Message, MessageKind, Misdirected, Observer, PacketDrop,
        Question, QuestionId, Resolver, RuleCount, Timestamp, Vantages, pass_on,
    },
    output::ladder::Ladder,
    stats::{Role, Servers},
};
use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A full lane's budget is per this much record time.
const TICK: u64 = 100_000_000;
/// How long a question waits for the lookup it may belong to.
const HOLD: Duration = Duration::from_secs(2);

/// How much a feed keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Lines of lookups that failed, waited, were asked again or look suspicious.
    pub unusual: usize,
    /// Lines of other lookups.
    pub ordinary: usize,
    /// Lines of questions that belong to no lookup.
    pub questions: usize,
    /// New lines per 0.1 s of record time in a full lane.
    pub lines_per_tick: u32,
    /// Octets of messages kept for ladders; the oldest lose theirs first.
    pub ladder_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { unusual: 5_000, ordinary: 4_000, questions: 1_000, lines_per_tick: 25, ladder_bytes: 8 << 20 }
    }
}

/// An [`Observer`] that keeps what the screens show.
pub struct Feed {
    limits: Limits,
    vantages: Vantages,
    names: Option<crate::model::Pods>,
    findings: Findings,
    found: Found,
    /// Things told to the rules.
    told: u64,
    pods: Pods,
    pod_rows: Vec<Arc<PodRow>>,
    looked_up: Names,
    name_rows: Vec<Arc<NameRow>>,
    oldest: Option<Timestamp>,
    status: Status,
    newest: Timestamp,
    /// How often it began anew: its lines are then not those of before.
    restarts: u64,
    next_serial: u64,
    lanes: [Lane; 3],
    pending: VecDeque<(QuestionId, Timestamp, Row, Arc<Ladder>)>,
    ladders: VecDeque<(usize, Arc<Ladder>)>,
    ladder_bytes: usize,
    servers: Servers<(SocketAddr, Role)>,
    drops: Drops,
    meter: RateMeter,
}

/// Lines of one sort, oldest first.
#[derive(Debug, Default)]
pub(super) struct Lane {
    rows: VecDeque<Arc<Row>>,
    sampler: Sampler,
}

/// Which lane a line is in.
#[derive(Clone, Copy)]
enum LaneKind {
    Unusual,
    Ordinary,
    Questions,
}

/// Of how many lines one lane shows how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) kept: u64,
    pub(super) seen: u64,
}

#[derive(Debug, Default)]
struct Sampler {
    tick: u64,
    kept_this_tick: u32,
    second: u64,
    current: Shown,
    last: Shown,
}

impl Feed {
    /// An empty feed. `vantages` is the session's table: it names the interfaces on the ladder.
    #[must_use]
    pub fn new(vantages: Vantages, limits: Limits) -> Self {
        Self {
            limits,
            findings: Findings::new(vantages.clone()),
            vantages,
            names: None,
            found: Found::default(),
            told: 0,
            pods: Pods::default(),
            pod_rows: Vec::new(),
            looked_up: Names::default(),
            name_rows: Vec::new(),
            oldest: None,
            status: Status::default(),
            newest: Timestamp::EPOCH,
            restarts: 0,
            next_serial: 1,
            lanes: std::array::from_fn(|_| Lane::default()),
            pending: VecDeque::new(),
            ladders: VecDeque::new(),
            ladder_bytes: 0,
            servers: Servers::default(),
            drops: Drops::default(),
            meter: RateMeter::new(),
        }
    }

    /// Clients are named by `names`, as these are known when a line is made: addresses are used again.
    #[must_use]
    pub fn with_pods(mut self, names: crate::model::Pods) -> Self {
        self.names = Some(names);
        self
    }

    /// An empty feed that takes the place of `other`: its facts are taken over, and screens forget its lines.
    #[must_use]
    pub fn in_place_of(mut self, other: &Self) -> Self {
        self.status = other.status.clone();
        self.restarts = other.restarts + 1;
        self
    }

    /// Says which files are read together.
    pub fn set_sources(&mut self, sources: Vec<Source>) {
        self.findings.set_sources(sources);
    }

    /// The facts of the header, for the pipeline to fill in.
    pub fn status_mut(&mut self) -> &mut Status {
        &mut self.status
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    pub(super) fn vantages(&self) -> &Vantages {
        &self.vantages
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// The time of the newest message.
    pub(super) fn newest(&self) -> Timestamp {
        self.newest
    }

    pub(super) fn rates(&self, now: Timestamp) -> Rates {
        self.meter.rates(now)
    }

    pub(super) fn servers(&self) -> Vec<Arc<ServerRow>> {
        let name = |server: SocketAddr| {
            let names = self.names.as_ref()?;
            let service = names.services().name_at(server.ip(), Some(server.port()), self.newest);
            let pod = || names.name_at(server.ip(), self.newest).map(|pod| pod.to_string());
            service.map(|name| name.to_string()).or_else(pod).map(|name| text::escape(&name).into_owned())
        };
        servers::rows(&self.servers, name)
    }

    /// How many names were looked up; `None` where some were forgotten.
    pub(super) fn names_met(&self) -> Option<usize> {
        self.looked_up.met()
    }

    /// Makes the lines of findings, pods and names anew, where that is due at `now`.
    pub(super) fn refresh_rows(&mut self, now: Timestamp) {
        let span = (self.oldest.unwrap_or_default(), self.newest);
        let nobody = crate::model::Pods::default();
        let names = self.names.as_ref().unwrap_or(&nobody);
        if self.found.refresh(&self.findings, self.told, now, (&self.status.coverage, span), names) {
            let name = |client, time| Some(names.name_at(client, time)?.to_string());
            self.pod_rows = self.pods.rows(name);
            self.name_rows = self.looked_up.rows();
        }
    }

    pub(super) fn finding_rows(&self) -> &[Arc<FindingRow>] {
        self.found.rows()
    }

    pub(super) fn pod_rows(&self) -> &[Arc<PodRow>] {
        &self.pod_rows
    }

    pub(super) fn name_rows(&self) -> &[Arc<NameRow>] {
        &self.name_rows
    }

    pub(super) const fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Unusual lookups, ordinary ones, questions.
    pub(super) fn lanes(&self) -> &[Lane; 3] {
        &self.lanes
    }

    fn cap(&self, kind: LaneKind) -> usize {
        match kind {
            LaneKind::Unusual => self.limits.unusual,
            LaneKind::Ordinary => self.limits.ordinary,
            LaneKind::Questions => self.limits.questions,
        }
    }

    fn wants(&mut self, kind: LaneKind) -> bool {
        let cap = self.cap(kind);
        let lane = &mut self.lanes[kind as usize];
        let free = lane.rows.len() < cap;
        lane.sampler.take(self.newest, if free { u32::MAX } else { self.limits.lines_per_tick })
    }

    fn push(&mut self, kind: LaneKind, row: Row, ladder: Arc<Ladder>) {
        let cap = self.cap(kind);
        let rows = &mut self.lanes[kind as usize].rows;
        while rows.len() >= cap.max(1) {
            rows.pop_front();
        }
        rows.push_back(Arc::new(row));
        let size = ladder.size();
        self.ladder_bytes += size;
        self.ladders.push_back((size, ladder));
        while self.ladder_bytes > self.limits.ladder_bytes
            && let Some((size, _)) = self.ladders.pop_front()
        {
            self.ladder_bytes -= size;
        }
    }

    fn setting<'a>(
        &'a self,
        serial: u64,
        client: IpAddr,
        start: Timestamp,
        ladder: &'a Arc<Ladder>,
    ) -> Setting<'a> {
        let pod = self.names.as_ref().and_then(|names| names.name_at(client, start));
        let who =
            pod.map_or_else(|| client.to_string(), |pod| text::escape(&pod.to_string()).into_owned()).into();
        Setting { serial, who, vantages: &self.vantages, ladder }
    }

    fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial - 1
    }

    /// Time passes, also when nothing is told.
    pub(super) fn tick(&mut self, now: Timestamp) {
        self.release(now);
    }

    /// Questions that no lookup claimed in time become lines of their own.
    fn release(&mut self, now: Timestamp) {
        while let Some((_, ended, ..)) = self.pending.front()
            && (now.since(*ended) > HOLD || self.pending.len() > self.limits.questions)
            && let Some((_, _, mut row, ladder)) = self.pending.pop_front()
        {
            row.serial = self.serial();
            self.push(LaneKind::Questions, row, ladder);
        }
    }
}

impl Observer for Feed {
    fn message(&mut self, message: &Message) {
        self.newest = self.newest.max(message.time);
        self.oldest.get_or_insert(message.time);
        self.findings.message(message);
        match message.kind {
            MessageKind::Query(_) => self.meter.query(message.time),
            MessageKind::Response { latency, .. } => self.meter.response(message.time, latency),
            MessageKind::Unmatched => {}
        }
        if !self.pending.is_empty() {
            self.release(self.newest);
        }
    }

    fn question(&mut self, question: &Question) {
        self.servers.question_by_role(question);
        self.findings.question(question);
        self.told += 1;
        // Addresses are always asked for by a lookup, which is told later.
        if question.qtype.is_address() || !self.wants(LaneKind::Questions) {
            return;
        }
        let ladder = Arc::new(Ladder::of_question(question, &self.vantages));
        let row =
            Row::of_question(question, self.setting(0, question.client, question.first_asked(), &ladder));
        self.pending.push_back((question.id, self.newest, row, ladder));
        self.release(self.newest);
    }

    fn lookup(&mut self, lookup: &Lookup) {
        if !self.pending.is_empty() {
            let questions = lookup.steps.iter().flat_map(|s| &s.questions);
            for own in questions.filter(|q| !q.qtype.is_address()) {
                self.pending.retain(|(id, ..)| *id != own.id);
            }
        }
        self.newest = self.newest.max(lookup.end());
        self.findings.lookup(lookup);
        self.pods.lookup(lookup);
        self.looked_up.lookup(lookup);
        let kind = if is_unusual(lookup) { LaneKind::Unusual } else { LaneKind::Ordinary };
        if !self.wants(kind) {
            return;
        }
        let serial = self.serial();
        let ladder = Arc::new(Ladder::of_lookup(lookup, &self.vantages));
        let row = Row::of_lookup(lookup, self.setting(serial, lookup.client, lookup.start, &ladder));
        self.push(kind, row, ladder);
    }

    fn packet_drop(&mut self, drop: &PacketDrop) {
        self.newest = self.newest.max(drop.time);
        self.drops.add(drop, &self.vantages);
        self.findings.packet_drop(drop);
        self.told += 1;
    }

    fn connect(&mut self, connect: &Connect) {
        self.findings.connect(connect);
        self.told += 1;
    }
    fn lost(&mut self, from: Timestamp, until: Timestamp, frames: u64) {
        self.findings.lost(from, until, frames);
    }
    fn rules(&mut self, count: &RuleCount, time: Timestamp) {
        self.findings.rules(count, time);
        self.told += 1;
    }

    fn resides(&mut self, address: IpAddr, source: u16) {
        self.findings.resides(address, source);
    }

    fn blind_spot(&mut self, spot: &BlindSpot, time: Timestamp) {
        self.findings.blind_spot(spot, time);
        self.told += 1;
    }

    fn misdirected(&mut self, frame: &Misdirected) {
        self.findings.misdirected(frame);
        self.told += 1;
    }

    fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        self.findings.resolver(resolver, time);
        self.pods.resolver(resolver);
        self.told += 1;
    }
}

/// Whether a lookup is kept before others: it failed, waited, was asked again, or something about its answers
/// is odd.
fn is_unusual(lookup: &Lookup) -> bool {
    lookup.result != LookupResult::Ok
        || !lookup.retransmissions.is_empty()
        || !lookup.gaps.is_empty()
        || !lookup.suspicious_names.is_empty()
        || lookup.steps.iter().flat_map(|s| &s.questions).flat_map(|q| &q.answers).any(|a| a.late)
}

impl Sampler {
    fn take(&mut self, now: Timestamp, per_tick: u32) -> bool {
        let (tick, second) = (now.as_nanos() / TICK, now.as_nanos() / (TICK * 10));
        if tick != self.tick {
            self.tick = tick;
            self.kept_this_tick = 0;
        }
        if second != self.second {
            self.last = std::mem::take(&mut self.current);
            self.second = second;
        }
        let kept = self.kept_this_tick < per_tick;
        self.kept_this_tick = self.kept_this_tick.saturating_add(u32::from(kept));
        self.current.kept += u64::from(kept);
        self.current.seen += 1;
        kept
    }
}

impl Lane {
    /// Makes `copy` equal to this lane's lines; costs what changed.
    pub(super) fn copy_to(&self, copy: &mut VecDeque<Arc<Row>>) -> bool {
        let oldest = self.rows.front().map_or(u64::MAX, |r| r.serial);
        let before = copy.len();
        while copy.front().is_some_and(|r| r.serial < oldest) {
            copy.pop_front();
        }
        let gone = before - copy.len();
        let newest = copy.back().map_or(0, |r| r.serial);
        let from = self.rows.partition_point(|r| r.serial <= newest);
        copy.extend(self.rows.range(from..).map(Arc::clone));
        gone > 0 || from < self.rows.len()
    }

    /// The share of the last full second that was kept; `None` where all of it was.
    pub(super) fn sampled(&self) -> Option<Shown> {
        let Sampler { current, last, .. } = self.sampler;
        [last, current].into_iter().find(|s| s.kept < s.seen)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<usize> = self.lanes.iter().map(|l| l.rows.len()).collect();
        f.debug_struct("Feed").field("lines", &lines).field("ladder_bytes", &self.ladder_bytes).finish()
    }
}

/// A feed that the pipeline's thread writes and the screen's thread reads.
///
/// Each call of the observer takes the lock once; who has many things to tell calls [`SharedFeed::lock`] and
/// tells them to the guard.
#[derive(Clone, Debug)]
pub struct SharedFeed(Arc<Mutex<Feed>>);

impl SharedFeed {
    /// Shares a feed.
    #[must_use]
    pub fn new(feed: Feed) -> Self {
        Self(Arc::new(Mutex::new(feed)))
    }

    /// The feed itself, until the guard is dropped. A panic of the other thread does not matter: the feed is
    /// only ever shown.
    pub fn lock(&self) -> MutexGuard<'_, Feed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for SharedFeed {
    pass_on!(|shared| *shared.lock());
}
