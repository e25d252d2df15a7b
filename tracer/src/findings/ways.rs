//! The ways that queries and answers took, counted: what DP201, DP402 and DP403 are read from.
//!
//! Rule: a way is the row of places where a message was seen, with the address asked and the backend chosen. Each query
//! message is answered, refused (an ICMP error, or no socket), silent, or left out: what the kernel dropped is explained by that (DP301
//! to DP303), what was sent by a wrong MAC address by DP401, and a question that the capture's end cut off says nothing.
//! Only UDP: TCP repeats what is lost, so a segment that is not seen is no lost message.

use super::{Evidence, forward_loop::is_probe, groups::Tally, places::Places};
use crate::{
    model::{
        Answer, Hop, IcmpError, Message, Misdirected, Question, QuestionOutcome, Timestamp, Transmission,
        Transport, VantageId, Vantages,
    },
    stats::{Histogram, Table},
};
use smallvec::SmallVec;
use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    time::Duration,
};

/// Ways that are told apart. A node of 250 pods and three backends has some 2,000.
const MOST_WAYS: usize = 8_192;
/// Places of a way that are kept.
const LONGEST: usize = 8;
/// Backends whose latency is kept.
const MOST_BACKENDS: usize = 256;
/// Clients of a way that are named.
const MOST_CLIENTS: usize = 3;
/// Messages of a way whose times are kept.
const MOST_TIMES: usize = 64;
/// Sources whose times are kept.
const MOST_SOURCES: usize = 64;
/// Frames to a wrong MAC address that are remembered until their question is told.
const MOST_MISDIRECTED: usize = 4_096;
/// Addresses whose node is remembered.
const MOST_HOMES: usize = 65_536;
/// A message is on its way that long at most.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// Places in the order of time.
pub(super) type Row = SmallVec<[VantageId; LONGEST]>;

/// Where queries to one backend were seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct QueryWay {
    /// The address asked.
    pub(super) server: IpAddr,
    /// The address that it was sent to in the end; the one asked where no translation was seen.
    pub(super) backend: IpAddr,
    pub(super) places: Row,
}

/// What became of the queries of one way.
#[derive(Debug, Default)]
pub(super) struct Queries {
    pub(super) answered: u64,
    pub(super) silent: Tally,
    /// When the first ones of these were sent.
    pub(super) silent_at: Vec<Timestamp>,
    /// Questions among the silent and refused ones.
    pub(super) questions: u64,
    /// Of these, those that never got an answer from anybody.
    pub(super) failed: u64,
    pub(super) refused: Tally,
    pub(super) refusal: Option<IcmpError>,
    pub(super) clients: SmallVec<[IpAddr; MOST_CLIENTS]>,
}

impl Queries {
    pub(super) const fn asked(&self) -> u64 {
        self.answered + self.silent.count + self.refused.count
    }
}

/// Where answers were seen whose query was first seen at `asked_at`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AnswerWay {
    pub(super) server: IpAddr,
    pub(super) backend: IpAddr,
    pub(super) asked_at: VantageId,
    pub(super) places: Row,
}

#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) all: Tally,
    /// When the first ones of these were seen, where they did not come back to where they were asked.
    pub(super) stray_at: Vec<Timestamp>,
    /// Those whose client asked again.
    pub(super) in_vain: u64,
    pub(super) clients: SmallVec<[IpAddr; MOST_CLIENTS]>,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) places: Places,
    queries: Table<QueryWay, Queries>,
    answers: Table<AnswerWay, Answers>,
    /// By the address asked and the backend.
    pub(super) latency: Table<(IpAddr, IpAddr), Histogram>,
    /// The source that has the pod of an address; only where there are several.
    pub(super) homes: HashMap<IpAddr, u16, foldhash::fast::RandomState>,
    /// Between when each source saw something; only where there are several.
    seen: Vec<(Timestamp, Timestamp)>,
    misdirected: VecDeque<(u64, VantageId)>,
    latest: Timestamp,
}

enum Fate {
    Answered(Duration),
    Refused(Option<IcmpError>),
    Silent,
}

impl Ways {
    /// With the table of the hops' vantages.
    pub(super) fn new(vantages: Vantages) -> Self {
        Self { places: Places::new(vantages), ..Self::default() }
    }

    /// The ways of queries, always in the same order.
    pub(super) fn queries(&self) -> Vec<(&QueryWay, &Queries)> {
        sorted(&self.queries)
    }

    /// The ways of answers, always in the same order.
    pub(super) fn answers(&self) -> Vec<(&AnswerWay, &Answers)> {
        sorted(&self.answers)
    }

    /// A message of no question.
    pub(super) fn message(&mut self, message: &Message) {
        if message.question.is_none() {
            self.note_sources(&message.hops);
        }
    }

    /// Where there are several sources: when each of them saw something.
    fn note_sources(&mut self, hops: &[Hop]) {
        hops.iter().for_each(|hop| self.places.learn(hop.vantage));
        if self.places.has_several_sources() {
            hops.iter().for_each(|hop| self.note_source(hop));
        }
    }

    pub(super) fn misdirected(&mut self, frame: &Misdirected) {
        if self.misdirected.len() >= MOST_MISDIRECTED {
            self.misdirected.pop_front();
        }
        self.misdirected.push_back((frame.frame, frame.vantage));
    }

    /// Tells that the pod of an address is on the node of this source.
    pub(super) fn at_home(&mut self, address: IpAddr, source: u16) {
        if self.homes.len() < MOST_HOMES || self.homes.contains_key(&address) {
            self.homes.insert(address, source);
        }
    }

    pub(super) fn question(&mut self, question: &Question) {
        question.transmissions.iter().for_each(|sent| self.note_sources(&sent.hops));
        question.answers.iter().for_each(|answer| self.note_sources(&answer.hops));
        if let Some(last) = question.transmissions.last() {
            self.latest = self.latest.max(last.time);
        }
        // A CoreDNS that asks itself whether it is in a loop (DP205) says nothing of a server.
        let probe = question.client.is_loopback() && is_probe(&question.name, question.qtype);
        if probe || question.outcome == QuestionOutcome::Incomplete {
            return;
        }
        let mut told: SmallVec<[(IpAddr, IpAddr); 2]> = SmallVec::new();
        for sent in question.transmissions.iter().filter(|sent| sent.transport == Transport::Udp) {
            let fate = match (reply_to(question, sent), &sent.dropped, &sent.unreachable) {
                (Some(answer), ..) => Fate::Answered(answer.time.since(sent.time)),
                // It reached the server's namespace, where nobody listens.
                (None, Some(drop), unreachable) if &*drop.reason == "NO_SOCKET" => {
                    Fate::Refused(unreachable.map(|it| it.error))
                }
                (None, Some(_), _) => continue,
                (None, None, Some(_)) if refused_on_node(sent, &self.places) => continue,
                (None, None, Some(unreachable)) => Fate::Refused(Some(unreachable.error)),
                (None, None, None) => Fate::Silent,
            };
            if !self.is_misdirected(&sent.hops) {
                self.query(question, sent, &fate, &mut told);
            }
        }
        for (sent, answer) in question.replies().filter(|(sent, _)| sent.transport == Transport::Udp) {
            if answer.dropped.is_none() && !self.is_misdirected(&answer.hops) {
                self.answer(question, sent, answer);
            }
        }
    }

    fn query(
        &mut self,
        question: &Question,
        sent: &Transmission,
        fate: &Fate,
        told: &mut SmallVec<[(IpAddr, IpAddr); 2]>,
    ) {
        let (server, backend) = addresses(sent);
        if self.places.has_several_sources() {
            self.learn_homes(sent);
        }
        let is_it = |way: &QueryWay| {
            (way.server, way.backend) == (server, backend) && is_row(&way.places, &sent.hops)
        };
        let way = || QueryWay { server, backend, places: row(&sent.hops) };
        let Some(queries) = self.queries.entry_like(is_it, way, MOST_WAYS) else { return };
        let unanswered = match *fate {
            Fate::Answered(took) => {
                queries.answered += 1;
                self.record(server, backend, took);
                return;
            }
            Fate::Refused(error) => {
                queries.refusal = error.or(queries.refusal);
                &mut queries.refused
            }
            Fate::Silent => {
                note(&mut queries.silent_at, sent.time);
                &mut queries.silent
            }
        };
        unanswered.add(1, sent.time, sent.hops.last().map(Evidence::from));
        name(&mut queries.clients, question.client);
        if !told.contains(&(server, backend)) {
            told.push((server, backend));
            queries.questions += 1;
            queries.failed += u64::from(question.answer().is_none());
        }
    }

    fn record(&mut self, server: IpAddr, backend: IpAddr, took: Duration) {
        if let Some(latency) = self.latency.entry((server, backend), MOST_BACKENDS) {
            latency.record(took);
        }
    }

    fn answer(&mut self, question: &Question, sent: &Transmission, answer: &Answer) {
        let Some(first) = sent.hops.first() else { return };
        let (server, backend) = addresses(sent);
        let asked_at = first.vantage;
        if self.places.has_several_sources()
            && let Some(first) = answer.hops.first()
            && self.places.comes_from_pod(first.vantage)
        {
            self.at_home(backend, self.places.source(first.vantage));
        }
        let is_it = |way: &AnswerWay| {
            (way.server, way.backend, way.asked_at) == (server, backend, asked_at)
                && is_row(&way.places, &answer.hops)
        };
        let way = || AnswerWay { server, backend, asked_at, places: row(&answer.hops) };
        let Some(answers) = self.answers.entry_like(is_it, way, MOST_WAYS) else { return };
        if !answer.hops.iter().any(|hop| self.places.is_same_interface(hop.vantage, asked_at)) {
            note(&mut answers.stray_at, answer.time);
        }
        answers.all.add(1, answer.time, answer.hops.last().map(Evidence::from));
        let asked_again = |other: &Transmission| other.time > answer.time && other.server == sent.server;
        answers.in_vain += u64::from(question.transmissions.iter().any(asked_again));
        name(&mut answers.clients, question.client);
    }

    /// Where the pods of a query's ends are.
    fn learn_homes(&mut self, sent: &Transmission) {
        if let Some(first) = sent.hops.first().filter(|hop| self.places.comes_from_pod(hop.vantage)) {
            self.at_home(sent.client.ip(), self.places.source(first.vantage));
        }
        let entering = sent.hops.iter().rfind(|hop| self.places.enters_pod(hop.vantage));
        if let Some(hop) = entering {
            self.at_home(hop.destination.ip(), self.places.source(hop.vantage));
        }
    }

    fn note_source(&mut self, hop: &Hop) {
        let source = usize::from(self.places.source(hop.vantage));
        if self.seen.len() <= source && source < MOST_SOURCES {
            self.seen.resize(source + 1, (Timestamp::MAX, Timestamp::EPOCH));
        }
        if let Some((first, last)) = self.seen.get_mut(source) {
            *first = (*first).min(hop.time);
            *last = (*last).max(hop.time);
        }
    }

    /// Between when this source saw something.
    pub(super) fn seen(&self, source: u16) -> Option<(Timestamp, Timestamp)> {
        self.seen.get(usize::from(source)).copied().filter(|(first, last)| first <= last)
    }

    fn is_misdirected(&self, hops: &[Hop]) -> bool {
        !self.misdirected.is_empty()
            && hops.iter().any(|hop| self.misdirected.contains(&(hop.frame, hop.vantage)))
    }

    /// Whether all of these may still have been on their way when the capture ended.
    pub(super) fn may_be_cut_off(&self, tally: &Tally) -> bool {
        tally.first + ON_ITS_WAY > self.latest
    }

    /// The places of a way that are of one source, for each source.
    pub(super) fn by_source(&self, places: &Row) -> SmallVec<[(u16, Row); 2]> {
        let mut parts: SmallVec<[(u16, Row); 2]> = SmallVec::new();
        for &place in places {
            let source = self.places.source(place);
            match parts.iter_mut().find(|(of, _)| *of == source) {
                Some((_, part)) => part.push(place),
                None => parts.push((source, SmallVec::from_slice(&[place]))),
            }
        }
        parts
    }
}

/// The answer that a query message most likely got.
pub(super) fn reply_to<'a>(question: &'a Question, sent: &Transmission) -> Option<&'a Answer> {
    match (&question.transmissions[..], &question.answers[..]) {
        (_, []) => None,
        ([_], [answer, ..]) => Some(answer),
        _ => question.replies().find(|(of, _)| std::ptr::eq(*of, sent)).map(|(_, answer)| answer),
    }
}

/// Whether a query was rejected before it was sent to any backend and before it left the node: by a rule (DP202).
pub(super) fn refused_on_node(sent: &Transmission, places: &Places) -> bool {
    sent.backend.is_none()
        && sent
            .unreachable
            .is_some_and(|it| it.error.is_port_unreachable() && it.error.from != sent.server.ip())
        && !sent.hops.iter().any(|hop| places.leaves_node(hop.vantage) || places.enters_pod(hop.vantage))
}

/// The address asked, and where it was sent to.
pub(super) fn addresses(sent: &Transmission) -> (IpAddr, IpAddr) {
    (sent.server.ip(), sent.backend.unwrap_or(sent.server).ip())
}

/// The first places and the last one.
fn row(hops: &[Hop]) -> Row {
    let mut row: Row = hops.iter().take(LONGEST).map(|hop| hop.vantage).collect();
    if let (Some(end), Some(last)) = (row.last_mut(), hops.last()) {
        *end = last.vantage;
    }
    row
}

/// Whether these are the places of `hops`, as [`row`] has them.
fn is_row(row: &Row, hops: &[Hop]) -> bool {
    row.len() == hops.len() && row.iter().zip(hops).all(|(place, hop)| *place == hop.vantage)
}

fn note(times: &mut Vec<Timestamp>, time: Timestamp) {
    if times.len() < MOST_TIMES {
        times.push(time);
    }
}

fn name(clients: &mut SmallVec<[IpAddr; MOST_CLIENTS]>, client: IpAddr) {
    if clients.len() < MOST_CLIENTS && !clients.contains(&client) {
        clients.push(client);
    }
}

fn sorted<K: Ord + Hash, V>(table: &Table<K, V>) -> Vec<(&K, &V)> {
    let mut all: Vec<_> = table.iter().collect();
    all.sort_unstable_by_key(|(way, _)| *way);
    all
}
