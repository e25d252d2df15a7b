//! Builds what observers are told, in records that are used again.

use super::{
    Ended, Engine,
    hops::{HopRecord, Way, whole_frame},
    intern::{Endpoint, NameId},
    outcome,
    records::{Bits, DnsBits, MessageRecord, QuestionRecord, Role},
    scratch::{Scratch, empty_answer, empty_question, empty_transmission, resize},
    search,
    table::{NONE, Place},
};
use crate::model::{
    Answer, Class, DnsMessage, Eviction, Family, Flags, Hop, MessageKind, Name, Observer, PacketDrop,
    Question, QuestionId, Rcode, Retransmission, Rtype, Step, Timestamp, Transmission, TransmissionKind,
    Transport, VantageId, Wanted,
};
use smallvec::SmallVec;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Whether somebody looks at where the messages of a question were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ways {
    Wanted,
    Unwanted,
}

impl Engine {
    /// Tells one message as it is known now.
    pub(super) fn tell_message(&mut self, place: Place, out: &mut impl Observer) {
        // What was no question's, and waited for that alone, may be nothing to tell.
        let Some(by_server) = self.is_wanted(place, out.wants_messages()) else { return };
        let mut scratch = std::mem::take(&mut self.scratch).unwrap_or_else(|| Box::new(Scratch::new()));
        let message = &mut scratch.message;
        let record = self.messages.at(place);
        let response = record.bits.has(Bits::RESPONSE);
        message.by_server = by_server;
        self.hops(record, &mut message.hops);
        let (mut client, mut server) = (record.client, record.server);
        if client.is_none() || server.is_none() {
            (client, server) = (Endpoint::default(), Endpoint::default());
        }
        message.client = self.addresses.socket(client);
        message.server = self.addresses.socket(server);
        message.time = self.time_of(record);
        message.transport = transport_of(record);
        let question = self.questions.at(record.question);
        message.question = (record.question != NONE).then_some(QuestionId(question.number));
        message.kind = if !response {
            MessageKind::Query(self.transmission_kind(record))
        } else if record.peer == NONE {
            MessageKind::Unmatched
        } else {
            let since =
                |query: Place| message.time.since(Timestamp::from_nanos(self.messages.at(query).time));
            MessageKind::Response {
                latency: since(self.last_asked(record)),
                since_first: since(question.first),
                late: record.bits.has(Bits::LATE),
            }
        };
        self.dns_message(record, &mut message.dns);
        out.message(message);
        self.scratch = Some(scratch);
    }

    /// Whether a message is told at all; if so, whether its asking side is a server.
    pub(super) fn is_wanted(&self, place: Place, wanted: Wanted) -> Option<bool> {
        if wanted <= Wanted::Nothing {
            return None;
        }
        let record = self.messages.at(place);
        let by_server = self.is_by_server(record);
        (wanted == Wanted::All || by_server || is_telling(record)).then_some(by_server)
    }

    /// Whether the asking side of a message is a server itself.
    fn is_by_server(&self, record: &MessageRecord) -> bool {
        let client = record.client.address();
        self.servers.has(client)
            || client == record.server.address()
            || client == record.backend.address()
            || self.addresses.ip(client).is_loopback()
    }

    /// The newest query message that this response can answer. Which one it does answer (a lost one asked again,
    /// or a slow one?) no packet tells; the latency since the first is told beside.
    fn last_asked(&self, response: &MessageRecord) -> Place {
        let oldest = self.messages.at(response.peer);
        let mut newest = response.peer;
        let mut place = oldest.next;
        while place != NONE {
            let later = self.messages.at(place);
            let same_socket = later.client == oldest.client && later.server == oldest.server;
            let same_message = later.dns.id == oldest.dns.id && transport_of(later) == transport_of(oldest);
            if same_socket && same_message && later.time <= response.time && (later.peer == NONE) {
                newest = place;
            }
            place = later.next;
        }
        newest
    }

    fn dns_message(&self, record: &MessageRecord, dns: &mut DnsMessage) {
        let compact = &record.dns;
        dns.id = compact.id;
        dns.flags = Flags(compact.flags);
        dns.rcode = Rcode(compact.rcode);
        dns.name.copy_wire(self.names.wire(compact.name));
        dns.qtype = Rtype(compact.qtype);
        dns.qclass = Class(compact.qclass);
        dns.has_question = compact.bits.has(DnsBits::HAS_QUESTION);
        dns.counts = compact.counts;
        dns.edns = compact.edns();
        dns.size = compact.size;
        dns.cut = compact.bits.has(DnsBits::CUT);
        let answer = &mut dns.answer;
        answer.addresses.clear();
        answer.cname_target = None;
        if record.extra != NONE {
            let extra = self.extras.at(record.extra);
            answer.addresses.extend_from_slice(&extra.addresses);
            answer.cname_target = extra.cname_target.map(|target| Box::new(self.name(target)));
        }
        answer.matching = compact.matching;
        answer.authority_soa = compact.bits.has(DnsBits::SOA);
    }

    pub(super) fn name(&self, id: NameId) -> Name {
        let mut name = Name::ROOT;
        name.copy_wire(self.names.wire(id));
        name
    }

    fn hops(&self, record: &MessageRecord, hops: &mut SmallVec<[Hop; 2]>) {
        hops.clear();
        let response = record.bits.has(Bits::RESPONSE);
        let client = self.addresses.socket(record.client);
        for hop in record.hops.own() {
            hops.push(self.hop(record, hop, client, response));
        }
        for hop in record.hops.further(&self.further_hops) {
            hops.push(self.hop(record, &hop, client, response));
        }
    }

    fn hops_if(&self, ways: Ways, record: &MessageRecord, hops: &mut SmallVec<[Hop; 2]>) {
        match ways {
            Ways::Wanted => self.hops(record, hops),
            Ways::Unwanted => hops.clear(),
        }
    }

    fn hop(&self, record: &MessageRecord, hop: &HopRecord, client: SocketAddr, response: bool) -> Hop {
        let (source, destination) = match hop.flow.other() {
            Some(place) => {
                let flow = self.flows.at(place);
                (self.addresses.socket(flow.source), self.addresses.socket(flow.destination))
            }
            None => {
                let far = if hop.flow == Way::ASKED { record.server } else { record.backend };
                let far = self.addresses.socket(far);
                if response { (far, client) } else { (client, far) }
            }
        };
        Hop {
            vantage: VantageId(hop.vantage),
            time: Timestamp::from_nanos(record.time + u64::from(hop.offset)),
            frame: whole_frame(hop.frame, self.newest_frame),
            source,
            destination,
        }
    }

    /// Where a response came from at the hop nearest to the client.
    fn came_from_last(&self, record: &MessageRecord) -> Endpoint {
        match record.hops.last(&self.further_hops).flow {
            Way::ASKED => record.server,
            Way::TRANSLATED => record.backend,
            Way(place) => self.flows.at(place).source,
        }
    }

    /// The time at the hop nearest to the client: the first of a query, the last of a response.
    fn time_of(&self, record: &MessageRecord) -> Timestamp {
        let after =
            if record.bits.has(Bits::RESPONSE) { record.hops.last(&self.further_hops).offset } else { 0 };
        Timestamp::from_nanos(record.time + u64::from(after))
    }

    fn transmission_kind(&self, record: &MessageRecord) -> TransmissionKind {
        match record.role {
            Role::First => TransmissionKind::First,
            Role::ParallelCopy => TransmissionKind::ParallelCopy,
            Role::TcpFallback => TransmissionKind::TcpFallback,
            Role::Retransmission { kind, same_id, same_port, server_changed } => {
                let gap = record.time.saturating_sub(self.messages.at(record.previous).time);
                let gap = Duration::from_nanos(gap);
                TransmissionKind::Retransmission(Retransmission {
                    gap,
                    kind,
                    same_id,
                    same_port,
                    server_changed,
                })
            }
        }
    }

    fn fill_question(&self, place: Place, cut_off: bool, ways: Ways, question: &mut Question) {
        let record = self.questions.at(place);
        question.id = QuestionId(record.number);
        question.client = self.addresses.ip(record.client);
        question.name.copy_wire(self.names.wire(record.name));
        question.qtype = Rtype(record.qtype);
        if record.messages == 1 {
            self.fill_only_message(record.first, ways, question);
        } else {
            self.fill_messages(record, ways, question);
        }
        question.outcome = outcome::of_question(question, cut_off);
    }

    /// Of nearly all questions: one query, and its answer if it has one.
    fn fill_only_message(&self, place: Place, ways: Ways, question: &mut Question) {
        let message = self.messages.at(place);
        let answered = message.peer != NONE;
        resize(&mut question.transmissions, 1, empty_transmission);
        resize(&mut question.answers, usize::from(answered), empty_answer);
        if let Some(transmission) = question.transmissions.first_mut() {
            self.fill_transmission(message, answered.then_some(0), ways, transmission);
            transmission.dropped = self.dropped(place);
        }
        if let Some(answer) = question.answers.first_mut() {
            self.fill_answer(self.messages.at(message.peer), ways, answer);
            answer.dropped = self.dropped(message.peer);
        }
    }

    fn fill_messages(&self, record: &QuestionRecord, ways: Ways, question: &mut Question) {
        let mut answers: SmallVec<[(u64, Place); 8]> = SmallVec::new();
        let mut place = record.first;
        while place != NONE {
            let message = self.messages.at(place);
            if message.peer != NONE {
                answers.push((self.messages.at(message.peer).time, message.peer));
            }
            place = message.next;
        }
        answers.sort_by_key(|&(time, _)| time);
        let mut place = record.first;
        let count = usize::from(record.messages);
        resize(&mut question.transmissions, count, empty_transmission);
        for transmission in &mut question.transmissions {
            let message = self.messages.at(place);
            let answered_by = answers.iter().position(|&(_, answer)| answer == message.peer);
            self.fill_transmission(message, answered_by, ways, transmission);
            transmission.dropped = self.dropped(place);
            place = message.next;
        }
        resize(&mut question.answers, answers.len(), empty_answer);
        for (answer, (_, place)) in question.answers.iter_mut().zip(answers) {
            self.fill_answer(self.messages.at(place), ways, answer);
            answer.dropped = self.dropped(place);
        }
    }

    /// What was dropped of a message; nothing of a query that was answered all the same.
    fn dropped(&self, place: Place) -> Option<Arc<PacketDrop>> {
        let record = self.messages.at(place);
        let answered = !record.bits.has(Bits::RESPONSE) && record.peer != NONE;
        if !record.bits.has(Bits::HAS_DROP) || (answered && record.bits.has(Bits::DROPPED)) {
            return None;
        }
        self.drops.of_message(place).map(Arc::clone)
    }

    fn fill_transmission(
        &self,
        record: &MessageRecord,
        answered_by: Option<usize>,
        ways: Ways,
        to: &mut Transmission,
    ) {
        self.hops_if(ways, record, &mut to.hops);
        to.time = Timestamp::from_nanos(record.time);
        to.client = self.addresses.socket(record.client);
        to.server = self.addresses.socket(record.server);
        to.backend = record.backend.is_some().then(|| self.addresses.socket(record.backend));
        to.transport = transport_of(record);
        to.id = record.dns.id;
        to.kind = self.transmission_kind(record);
        to.answered_by = answered_by.and_then(|index| u16::try_from(index).ok());
        to.unreachable = (record.icmp != NONE).then(|| self.icmps.at(record.icmp).unreachable()).flatten();
    }

    fn fill_answer(&self, record: &MessageRecord, ways: Ways, to: &mut Answer) {
        self.hops_if(ways, record, &mut to.hops);
        let dns = &record.dns;
        to.time = self.time_of(record);
        to.from = self.addresses.socket(self.came_from_last(record));
        to.id = dns.id;
        to.transport = transport_of(record);
        to.rcode = Rcode(dns.rcode);
        to.truncated = dns.truncated();
        to.authoritative = Flags(dns.flags).authoritative();
        to.empty_noerror = dns.is_empty_noerror();
        to.authority_soa = dns.bits.has(DnsBits::SOA);
        to.answer_count = dns.counts[1];
        to.addresses.clear();
        if record.extra != NONE {
            to.addresses.extend_from_slice(&self.extras.at(record.extra).addresses);
        }
        to.size = dns.size;
        to.late = record.bits.has(Bits::LATE);
        to.passed_over = record.bits.has(Bits::PASSED_OVER);
    }

    /// Tells a lookup and its questions, and frees them.
    pub(super) fn end_lookup(&mut self, lookup: Place, ended: Ended, out: &mut impl Observer) {
        self.tell_waiting_messages(lookup, out);
        let mut scratch = std::mem::take(&mut self.scratch).unwrap_or_else(|| Box::new(Scratch::new()));
        let ways = if out.wants_messages() == Wanted::Lookups { Ways::Unwanted } else { Ways::Wanted };
        self.fill_lookup(lookup, ended, ways, &mut scratch);
        for step in &scratch.lookup.steps {
            for question in &step.questions {
                out.question(question);
                if ended == Ended::Evicted {
                    out.evicted(Eviction::Questions);
                }
            }
        }
        let record = self.lookups.at(lookup);
        if !record.noise {
            out.lookup(&scratch.lookup);
            self.counters.lookups += 1;
        }
        if ended == Ended::Evicted {
            out.evicted(Eviction::Lookups);
        }
        self.scratch = Some(scratch);
        self.free_lookup(lookup, ended);
    }

    fn fill_lookup(&mut self, lookup: Place, ended: Ended, ways: Ways, scratch: &mut Scratch) {
        let record = self.lookups.at(lookup);
        let (client, noise) = (record.client, record.noise);
        let cut_off = self.is_cut_off(lookup, ended);
        let mut positive: SmallVec<[QuestionId; 8]> = SmallVec::new();
        // Questions in the order asked, grouped by the order in which their names were first asked.
        let mut names: SmallVec<[(NameId, usize); 8]> = SmallVec::new();
        let mut place = record.first_question;
        while place != NONE {
            let question = self.questions.at(place);
            match names.iter_mut().find(|(name, _)| *name == question.name) {
                Some((_, count)) => *count += 1,
                None => names.push((question.name, 1)),
            }
            if self.is_positive(place) {
                positive.push(QuestionId(question.number));
            }
            place = question.next;
        }
        let Scratch { lookup: told, spare_steps, spare_questions, .. } = scratch;
        while told.steps.len() > names.len() {
            spare_steps.extend(told.steps.pop());
        }
        while told.steps.len() < names.len() {
            let spare = spare_steps.pop();
            told.steps.push(spare.unwrap_or_else(|| Step { name: Name::ROOT, questions: Vec::new() }));
        }
        for (step, (name, count)) in told.steps.iter_mut().zip(names) {
            step.name.copy_wire(self.names.wire(name));
            while step.questions.len() > count {
                spare_questions.extend(step.questions.pop());
            }
            while step.questions.len() < count {
                step.questions.push(spare_questions.pop().unwrap_or_else(empty_question));
            }
            let mut place = record.first_question;
            for question in &mut step.questions {
                while place != NONE && self.questions.at(place).name != name {
                    place = self.questions.at(place).next;
                }
                self.fill_question(place, cut_off, ways, question);
                place = self.questions.at(place).next;
            }
        }
        scratch.lookup.client = self.addresses.ip(self.clients.at(client).address);
        if noise {
            return;
        }
        scratch.lookup.forwarded = self.servers.has(self.clients.at(client).address);
        scratch.lookup.family = Family::Unknown;
        if !scratch.lookup.forwarded {
            let mut votes = std::mem::take(&mut self.learnt_mut(client).votes);
            self.vote(lookup, &mut votes);
            scratch.lookup.family = self.family_seen(lookup, &votes);
            self.learnt_mut(client).votes = votes;
        }
        let base = {
            let names: SmallVec<[&[u8]; 8]> = scratch.lookup.steps.iter().map(|s| s.name.as_wire()).collect();
            search::base(&names, &self.knowledge(client))
        };
        let base =
            if outcome::asked_as_is(&scratch.lookup, !positive.is_empty()) { usize::MAX } else { base };
        outcome::fill(&mut scratch.lookup, base, &positive, cut_off);
        if scratch.lookup.steps.len() > 1 {
            self.learn_suffixes(client, &scratch.lookup);
        }
    }

    /// Messages whose hop window is open when their lookup ends are told now.
    fn tell_waiting_messages(&mut self, lookup: Place, out: &mut impl Observer) {
        if self.window.is_empty() {
            return;
        }
        let mut waiting: SmallVec<[(u64, Place); 16]> = SmallVec::new();
        self.for_each_message(lookup, |engine, place| {
            let record = engine.messages.at_mut(place);
            if record.bits.has(Bits::IN_WINDOW) && !record.bits.has(Bits::TOLD) {
                record.bits.set(Bits::TOLD, true);
                waiting.push((record.time, place));
            }
        });
        waiting.sort_unstable();
        for (_, place) in waiting {
            self.tell_message(place, out);
        }
    }

    /// Every message of a lookup, each query followed by its answer.
    fn for_each_message(&mut self, lookup: Place, mut act: impl FnMut(&mut Self, Place)) {
        let mut question = self.lookups.at(lookup).first_question;
        while question != NONE {
            let mut place = self.questions.at(question).first;
            question = self.questions.at(question).next;
            while place != NONE {
                let (peer, next) = (self.messages.at(place).peer, self.messages.at(place).next);
                act(self, place);
                if peer != NONE {
                    act(self, peer);
                }
                place = next;
            }
        }
    }

    fn free_lookup(&mut self, lookup: Place, ended: Ended) {
        self.unlink_lookup(lookup);
        self.for_each_message(lookup, |engine, place| {
            let record = engine.messages.at_mut(place);
            record.bits.set(Bits::OWNED, false);
            record.question = NONE;
            record.peer = NONE;
            if record.bits.has(Bits::CHAINED) {
                record.bits.set(Bits::CHAINED, false);
                engine.by_id.remove(&mut engine.messages, place);
            }
            engine.free_message(place);
        });
        let mut question = self.lookups.at(lookup).first_question;
        while question != NONE {
            let next = self.questions.at(question).next;
            let record = self.questions.remove(question);
            self.names.release(record.name);
            self.counters.closed += 1;
            self.counters.evicted += u64::from(ended == Ended::Evicted);
            question = next;
        }
        self.lookups.remove(lookup);
    }
}

/// Whether a message says more than its question does: see [`Wanted::Telling`].
fn is_telling(record: &MessageRecord) -> bool {
    let error = || !matches!(Rcode(record.dns.rcode), Rcode::NOERROR | Rcode::NXDOMAIN);
    record.question == NONE || (record.bits.has(Bits::RESPONSE) && (record.bits.has(Bits::LATE) || error()))
}

fn transport_of(record: &MessageRecord) -> Transport {
    if record.bits.has(Bits::TCP) { Transport::Tcp } else { Transport::Udp }
}
