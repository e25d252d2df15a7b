//! Counters, histograms, top lists.
//!
//! The counting rules:
//! - A message on the wire is counted once, however many vantages saw it; retransmissions count as queries.
//! - A query message is unanswered when no response matches it; one response answers one message.
//! - Retransmissions are further messages of a question already asked, without the copies to other servers at
//!   the same time and without TCP after a truncated answer.
//! - A wasted query is one whose name is not the one that gave the lookup its address; failed lookups have none.
//! - Latency is what the client waited, from a question's first message to its answer; late answers do not
//!   count. A server's latency is from the message it answered.

mod histogram;
mod overview;
mod series;
mod servers;
mod table;
mod top;

pub use histogram::Histogram;
pub use overview::Overview;
pub use series::{Bucket, Series};
pub use servers::{Role, ServerStats, Servers};
pub(crate) use table::Table;
pub use top::{Share, Top};

use crate::model::{
    Fate, Lookup, LookupResult, Message, MessageKind, Observer, PacketDrop, Question, Rcode, Rtype,
    Timestamp, TransmissionKind, Transport, Wanted,
};
use std::collections::BTreeMap;

/// Query types counted one by one; a client can invent 65,536 of them.
const MAX_TYPES: usize = 32;

/// The counters of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lookups that ended, or were open when the session ended.
    pub lookups: u64,
    /// Query messages.
    pub queries: u64,
    /// Query messages over UDP.
    pub udp_queries: u64,
    /// Query messages over TCP.
    pub tcp_queries: u64,
    /// Response messages, those without a query included.
    pub responses: u64,
    /// Query messages without a response.
    pub unanswered: u64,
    /// Query messages that repeat a question.
    pub retransmissions: u64,
    /// Query messages for names that gave no address, of lookups that got one from another name.
    pub wasted_search_queries: u64,
    /// NOERROR responses with an empty answer section and TC clear, by query type.
    pub empty_noerror: BTreeMap<Rtype, u64>,
    /// The same for query types beyond the first 32.
    pub empty_noerror_other: u64,
    /// Empty NOERROR responses where NXDOMAIN was due.
    pub suspicious_empty_noerror: u64,
    /// NXDOMAIN responses.
    pub nxdomain_responses: u64,
    /// SERVFAIL responses.
    pub servfail_responses: u64,
    /// REFUSED responses.
    pub refused_responses: u64,
    /// Responses with TC set.
    pub tc_responses: u64,
    /// Responses that came after the client had moved on.
    pub late_responses: u64,
    /// DNS packets the kernel dropped.
    pub drops: u64,
    /// Of them, those whose connection could not be entered into conntrack's table.
    pub insert_failed: u64,
    /// Conntrack clashes that cost nothing.
    pub clashes_resolved: u64,
    /// Lookups by result; only those that occurred.
    pub results: BTreeMap<LookupResult, u64>,
}

/// Counts what the engine tells. Its memory is bounded whatever is on the wire.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    totals: Totals,
    latency: Histogram,
    servers: Servers,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    by_message: bool,
}

impl Stats {
    /// Counts each message by itself, not with its question: for who is told some messages of a question and not others
    /// (a window in time, a filter).
    #[must_use]
    pub fn by_message() -> Self {
        Self { by_message: true, ..Self::default() }
    }

    /// The counters.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What clients waited for their answers.
    #[must_use]
    pub const fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Every server asked.
    #[must_use]
    pub const fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The times of the first and the last message.
    #[must_use]
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.first.zip(self.last)
    }

    fn messages_of(&mut self, question: &Question) {
        for sent in &question.transmissions {
            self.query(sent.time, sent.transport, sent.kind);
        }
        for answer in &question.answers {
            self.response(&Response {
                time: answer.time,
                qtype: question.qtype,
                rcode: answer.rcode,
                truncated: answer.truncated,
                empty_noerror: answer.empty_noerror,
                late: answer.late,
            });
        }
    }

    fn note(&mut self, time: Timestamp) {
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
    }

    fn query(&mut self, time: Timestamp, transport: Transport, kind: TransmissionKind) {
        self.note(time);
        self.totals.queries += 1;
        match transport {
            Transport::Udp => self.totals.udp_queries += 1,
            Transport::Tcp => self.totals.tcp_queries += 1,
        }
        self.totals.retransmissions += u64::from(matches!(kind, TransmissionKind::Retransmission(_)));
    }

    fn response(&mut self, response: &Response) {
        self.note(response.time);
        let totals = &mut self.totals;
        totals.responses += 1;
        totals.late_responses += u64::from(response.late);
        match response.rcode {
            Rcode::NXDOMAIN => totals.nxdomain_responses += 1,
            Rcode::SERVFAIL => totals.servfail_responses += 1,
            Rcode::REFUSED => totals.refused_responses += 1,
            _ => {}
        }
        totals.tc_responses += u64::from(response.truncated);
        if response.empty_noerror {
            let known = totals.empty_noerror.len();
            match totals.empty_noerror.get_mut(&response.qtype) {
                Some(count) => *count += 1,
                None if known < MAX_TYPES => {
                    totals.empty_noerror.insert(response.qtype, 1);
                }
                None => totals.empty_noerror_other += 1,
            }
        }
    }
}

/// What is counted of a response message.
struct Response {
    time: Timestamp,
    qtype: Rtype,
    rcode: Rcode,
    truncated: bool,
    empty_noerror: bool,
    late: bool,
}

impl Observer for Stats {
    fn wants_messages(&self) -> Wanted {
        if self.by_message { Wanted::All } else { Wanted::Telling }
    }

    /// Those of no question; all others are counted with theirs.
    fn message(&mut self, message: &Message) {
        if message.question.is_some() && !self.by_message {
            return;
        }
        let late = match message.kind {
            MessageKind::Query(kind) => return self.query(message.time, message.transport, kind),
            MessageKind::Response { late, .. } => late,
            MessageKind::Unmatched => false,
        };
        let dns = &message.dns;
        self.response(&Response {
            time: message.time,
            qtype: dns.qtype,
            rcode: dns.rcode,
            truncated: dns.flags.truncated(),
            empty_noerror: dns.is_empty_noerror(),
            late,
        });
    }

    fn question(&mut self, question: &Question) {
        if !self.by_message {
            self.messages_of(question);
        }
        if let Some(latency) = question.latency() {
            self.latency.record(latency);
        }
        self.totals.unanswered +=
            question.transmissions.iter().filter(|t| t.answered_by.is_none()).count() as u64;
        self.servers.question(question);
    }

    fn packet_drop(&mut self, drop: &PacketDrop) {
        self.totals.drops += u64::from(drop.fate.is_loss());
        self.totals.insert_failed += u64::from(drop.fate == Fate::InsertFailed);
        self.totals.clashes_resolved += u64::from(!drop.fate.is_loss());
    }

    fn lookup(&mut self, lookup: &Lookup) {
        self.totals.lookups += 1;
        *self.totals.results.entry(lookup.result).or_default() += 1;
        self.totals.wasted_search_queries += u64::from(lookup.wasted_search_queries.unwrap_or(0));
        self.totals.retransmissions += repetitions(lookup);
        if lookup.suspicious_names.is_empty() {
            return;
        }
        self.totals.suspicious_empty_noerror += lookup
            .steps
            .iter()
            .filter(|step| lookup.suspicious_names.contains(&step.name))
            .flat_map(|step| &step.questions)
            .flat_map(|question| &question.answers)
            .filter(|answer| answer.empty_noerror)
            .count() as u64;
    }
}

/// Questions that a lookup asked a second time over (glibc, for whose buffer an answer was too large): their messages are
/// told as first ones.
fn repetitions(lookup: &Lookup) -> u64 {
    if lookup.retransmissions.is_empty() {
        return 0;
    }
    let questions = lookup.steps.iter().flat_map(|step| &step.questions);
    let told = questions
        .flat_map(|question| &question.transmissions)
        .filter(|sent| matches!(sent.kind, TransmissionKind::Retransmission(_)))
        .count();
    lookup.retransmissions.len().saturating_sub(told) as u64
}

#[cfg(test)]
mod tests;
