//! What each server was asked and did: by its address for the report, by address, port and role for the screen.

use super::{Histogram, Table};
use crate::model::{Answer, Question, QuestionOutcome, Rcode, Transmission, TransmissionKind};
use std::{
    collections::BTreeMap,
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

/// Servers counted one by one; all further ones share an entry. Each may need 8 KiB of histogram.
const MAX_SERVERS: usize = 256;
/// Response codes counted one by one for a server.
const MAX_RCODES: usize = 16;

/// What one server was asked and did.
#[derive(Clone, Debug, Default)]
pub struct ServerStats {
    /// Query messages sent to it.
    pub queries: u64,
    /// Query messages it answered, in time or late.
    pub answered: u64,
    /// Query messages it did not answer.
    pub unanswered: u64,
    /// Query messages that drew an ICMP error.
    pub unreachable: u64,
    /// Query messages that were sent again.
    pub retransmissions: u64,
    /// Its answers by response code; codes beyond the first 16 are left out.
    pub rcodes: BTreeMap<Rcode, u64>,
    /// From each message to its answer.
    pub latency: Histogram,
}

impl ServerStats {
    fn query(&mut self, sent: &Transmission) {
        self.queries += 1;
        *if sent.answered_by.is_some() { &mut self.answered } else { &mut self.unanswered } += 1;
        self.unreachable += u64::from(sent.unreachable.is_some());
        self.retransmissions += u64::from(matches!(sent.kind, TransmissionKind::Retransmission(_)));
    }

    fn answer(&mut self, sent: &Transmission, answer: &Answer) {
        self.latency.record(answer.time.since(sent.time));
        if let Some(count) = self.rcodes.get_mut(&answer.rcode) {
            *count += 1;
        } else if self.rcodes.len() < MAX_RCODES {
            self.rcodes.insert(answer.rcode, 1);
        }
    }
}

/// Which side of a translation an address is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// What clients send to.
    Asked,
    /// What a service address was translated to.
    Backend,
}

/// A table of servers, of bounded size.
#[derive(Clone, Debug)]
pub struct Servers<K = IpAddr> {
    all: Table<K, ServerStats>,
    other: ServerStats,
}

impl<K> Default for Servers<K> {
    fn default() -> Self {
        Self { all: Table::default(), other: ServerStats::default() }
    }
}

impl Servers<IpAddr> {
    /// Counts the messages of a question that ended, by the address the client asked.
    pub(super) fn question(&mut self, question: &Question) {
        self.count(question, |sent| [Some(sent.server.ip()), None]);
    }

    /// The servers, the most asked first.
    #[must_use]
    pub fn ranked(&self) -> Vec<(IpAddr, &ServerStats)> {
        let mut all: Vec<_> = self.iter().map(|(address, stats)| (*address, stats)).collect();
        all.sort_by(|(a, x), (b, y)| y.queries.cmp(&x.queries).then(a.cmp(b)));
        all
    }
}

impl Servers<(SocketAddr, Role)> {
    /// Counts the messages of a question that ended, for what the client asked and, where a hop or conntrack showed
    /// another address behind it, for that too. Messages that may still be answered (the session ended, the engine's
    /// table was full) are left out.
    pub fn question_by_role(&mut self, question: &Question) {
        let open = question.outcome == QuestionOutcome::Incomplete;
        self.count(question, |sent| {
            if open && sent.answered_by.is_none() {
                return [None, None];
            }
            let backend = sent.backend.filter(|backend| *backend != sent.server);
            [Some((sent.server, Role::Asked)), backend.map(|backend| (backend, Role::Backend))]
        });
    }
}

impl<K: Copy + Eq + Hash> Servers<K> {
    /// Counts each message of a question for those that `keys` says it was sent to.
    fn count(&mut self, question: &Question, keys: impl Fn(&Transmission) -> [Option<K>; 2]) {
        if let ([sent], [answer]) = (&question.transmissions[..], &question.answers[..]) {
            // Nearly always.
            for key in keys(sent).into_iter().flatten() {
                let server = self.entry(key);
                server.query(sent);
                server.answer(sent, answer);
            }
            return;
        }
        for sent in &question.transmissions {
            for key in keys(sent).into_iter().flatten() {
                self.entry(key).query(sent);
            }
        }
        for (sent, answer) in question.replies() {
            for key in keys(sent).into_iter().flatten() {
                self.entry(key).answer(sent, answer);
            }
        }
    }

    fn entry(&mut self, key: K) -> &mut ServerStats {
        self.all.entry(key, MAX_SERVERS).unwrap_or(&mut self.other)
    }

    /// The servers, in the order they were first asked.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &ServerStats)> {
        self.all.iter()
    }

    /// All servers that found no room in the table, together; `None` where there was room for all.
    #[must_use]
    pub fn other(&self) -> Option<&ServerStats> {
        (self.other.queries > 0).then_some(&self.other)
    }
}
