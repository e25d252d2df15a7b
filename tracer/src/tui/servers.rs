//! What each server address did, counted from questions that ended.

use super::histogram::Histogram;
use crate::model::{Question, QuestionOutcome, Rcode, TransmissionKind};
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Server addresses that are told apart; all further ones share one line.
pub(super) const MAX_SERVERS: usize = 512;

/// Counts by server address: the address that clients asked and, where a hop or conntrack showed another one
/// behind it, that one too.
#[derive(Debug)]
pub(super) struct Servers {
    index: HashMap<(SocketAddr, Role), usize, RandomState>,
    all: Vec<Tally>,
    others: Tally,
}

/// Which side of a translation an address is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Role {
    /// What clients send to.
    Asked,
    /// What a service address was translated to.
    Backend,
}

#[derive(Clone, Debug, Default)]
struct Tally {
    queries: u64,
    answered: u64,
    unreachable: u64,
    retransmissions: u64,
    /// NOERROR, SERVFAIL, NXDOMAIN, REFUSED, any other.
    rcodes: [u64; 5],
    latency: Histogram,
    server: Option<(SocketAddr, Role)>,
}

/// One line of the servers view.
#[derive(Debug)]
pub(super) struct ServerRow {
    /// Stays the same for the session.
    pub(super) key: u64,
    /// `None`: all further servers.
    pub(super) server: Option<SocketAddr>,
    pub(super) role: Role,
    pub(super) queries: u64,
    pub(super) answered: u64,
    pub(super) unanswered: u64,
    pub(super) unreachable: u64,
    pub(super) retransmissions: u64,
    pub(super) rcodes: [u64; 5],
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
}

impl Servers {
    pub(super) fn new() -> Self {
        Self {
            index: HashMap::with_hasher(RandomState::default()),
            all: Vec::new(),
            others: Tally::default(),
        }
    }

    /// Counts a question that ended. Its queries that may still be answered (the session ended, the table was
    /// full) are left out.
    pub(super) fn count(&mut self, question: &Question) {
        for message in &question.transmissions {
            let answer = message.answered_by.and_then(|index| question.answers.get(usize::from(index)));
            if answer.is_none() && question.outcome == QuestionOutcome::Incomplete {
                continue;
            }
            let latency = answer.map(|a| (a.rcode, a.time.since(message.time)));
            let resent = matches!(message.kind, TransmissionKind::Retransmission(_));
            let backend = message.backend.filter(|b| *b != message.server);
            let both = [Some((message.server, Role::Asked)), backend.map(|b| (b, Role::Backend))];
            for (server, role) in both.into_iter().flatten() {
                let tally = self.entry(server, role);
                tally.queries += 1;
                tally.retransmissions += u64::from(resent);
                tally.unreachable += u64::from(message.unreachable.is_some());
                if let Some((rcode, latency)) = latency {
                    tally.answered += 1;
                    tally.latency.record(latency);
                    tally.rcodes[rcode_slot(rcode)] += 1;
                }
            }
        }
    }

    fn entry(&mut self, server: SocketAddr, role: Role) -> &mut Tally {
        let full = self.all.len() >= MAX_SERVERS;
        let index = match self.index.get(&(server, role)) {
            Some(&known) => known,
            None if full => usize::MAX,
            None => {
                self.all.push(Tally { server: Some((server, role)), ..Tally::default() });
                self.index.insert((server, role), self.all.len() - 1);
                self.all.len() - 1
            }
        };
        self.all.get_mut(index).unwrap_or(&mut self.others)
    }

    /// All lines, in the order the servers were first seen.
    pub(super) fn rows(&self) -> Vec<Arc<ServerRow>> {
        let others = (self.others.queries > 0).then_some(&self.others);
        self.all.iter().chain(others).enumerate().map(|(key, t)| Arc::new(t.row(key as u64))).collect()
    }
}

impl Tally {
    fn row(&self, key: u64) -> ServerRow {
        ServerRow {
            key,
            server: self.server.map(|(server, _)| server),
            role: self.server.map_or(Role::Asked, |(_, role)| role),
            queries: self.queries,
            answered: self.answered,
            unanswered: self.queries.saturating_sub(self.answered),
            unreachable: self.unreachable,
            retransmissions: self.retransmissions,
            rcodes: self.rcodes,
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
        }
    }
}

fn rcode_slot(rcode: Rcode) -> usize {
    match rcode {
        Rcode::NOERROR => 0,
        Rcode::SERVFAIL => 1,
        Rcode::NXDOMAIN => 2,
        Rcode::REFUSED => 3,
        _ => 4,
    }
}
