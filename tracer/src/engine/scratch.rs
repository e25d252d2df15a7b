//! Records that are filled, shown to observers and filled again: what they hold is not allocated anew.

use crate::model::{
    Answer, DnsMessage, Family, Lookup, LookupResult, Message, MessageKind, Name, Question, QuestionId,
    QuestionOutcome, Rcode, Rtype, Step, Timestamp, Transmission, TransmissionKind, Transport,
};
use smallvec::SmallVec;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Records that are filled, shown and filled again.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) message: Message,
    pub(super) lookup: Lookup,
    pub(super) spare_steps: Vec<Step>,
    pub(super) spare_questions: Vec<Question>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        let message = Message {
            time: Timestamp::EPOCH,
            client: NOWHERE,
            server: NOWHERE,
            transport: Transport::Udp,
            question: None,
            kind: MessageKind::Unmatched,
            dns: DnsMessage::default(),
            by_server: false,
            hops: SmallVec::new(),
        };
        let lookup = Lookup {
            client: NOWHERE.ip(),
            name: Name::ROOT,
            result: LookupResult::Incomplete,
            answered_by: None,
            steps: Vec::new(),
            queries: 0,
            wasted_search_queries: None,
            retransmissions: Vec::new(),
            gaps: Vec::new(),
            suspicious_names: Vec::new(),
            start: Timestamp::EPOCH,
            duration: Duration::ZERO,
            family: Family::Unknown,
            forwarded: false,
        };
        Self { message, lookup, spare_steps: Vec::new(), spare_questions: Vec::new() }
    }
}

/// Makes `all` so long; what is there is kept to be filled again.
pub(super) fn resize<T>(all: &mut Vec<T>, count: usize, empty: impl Fn() -> T) {
    if all.len() != count {
        all.resize_with(count, empty);
    }
}

pub(super) fn empty_transmission() -> Transmission {
    Transmission {
        time: Timestamp::EPOCH,
        client: NOWHERE,
        server: NOWHERE,
        backend: None,
        transport: Transport::Udp,
        id: 0,
        kind: TransmissionKind::First,
        hops: SmallVec::new(),
        answered_by: None,
        unreachable: None,
        dropped: None,
    }
}

pub(super) fn empty_answer() -> Answer {
    Answer {
        time: Timestamp::EPOCH,
        from: NOWHERE,
        id: 0,
        transport: Transport::Udp,
        rcode: Rcode::NOERROR,
        truncated: false,
        authoritative: false,
        empty_noerror: false,
        authority_soa: false,
        answer_count: 0,
        addresses: SmallVec::new(),
        size: 0,
        late: false,
        passed_over: false,
        dropped: None,
        hops: SmallVec::new(),
    }
}

pub(super) fn empty_question() -> Question {
    Question {
        id: QuestionId(0),
        client: NOWHERE.ip(),
        name: Name::ROOT,
        qtype: Rtype(0),
        transmissions: Vec::new(),
        answers: Vec::new(),
        outcome: QuestionOutcome::Incomplete,
    }
}
