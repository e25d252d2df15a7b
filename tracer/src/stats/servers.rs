//! What each server was asked and did, by the address the clients asked.

use super::Histogram;
use crate::model::{Question, Rcode};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
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
    /// Its answers by response code; codes beyond the first 16 are left out.
    pub rcodes: BTreeMap<Rcode, u64>,
    /// From each message to its answer.
    pub latency: Histogram,
}

/// A table of servers, of bounded size.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    all: HashMap<IpAddr, ServerStats, foldhash::fast::RandomState>,
    other: ServerStats,
}

impl Servers {
    /// Counts the messages of a question that ended.
    pub(super) fn question(&mut self, question: &Question) {
        for transmission in &question.transmissions {
            let server = self.entry(transmission.server.ip());
            server.queries += 1;
            if transmission.answered_by.is_some() {
                server.answered += 1;
            } else {
                server.unanswered += 1;
            }
        }
        for (sent, answer) in question.replies() {
            let server = self.entry(sent.server.ip());
            server.latency.record(answer.time.since(sent.time));
            if server.rcodes.len() < MAX_RCODES || server.rcodes.contains_key(&answer.rcode) {
                *server.rcodes.entry(answer.rcode).or_default() += 1;
            }
        }
    }

    fn entry(&mut self, address: IpAddr) -> &mut ServerStats {
        if self.all.len() < MAX_SERVERS || self.all.contains_key(&address) {
            self.all.entry(address).or_default()
        } else {
            &mut self.other
        }
    }

    /// The servers, the most asked first.
    #[must_use]
    pub fn ranked(&self) -> Vec<(IpAddr, &ServerStats)> {
        let mut all: Vec<_> = self.all.iter().map(|(address, stats)| (*address, stats)).collect();
        all.sort_by(|(a, x), (b, y)| y.queries.cmp(&x.queries).then(a.cmp(b)));
        all
    }

    /// All servers that found no room in the table, together; `None` where there was room for all.
    #[must_use]
    pub fn other(&self) -> Option<&ServerStats> {
        (self.other.queries > 0).then_some(&self.other)
    }
}
