//! Messages → questions: what a query message is to what was asked before.
//!
//! A query joins an open question of its client, name and type
//! - by its id: a copy to another server at the same time, TCP after a truncated answer, or asked again;
//! - without its id, where the resolver is one that takes a new id for each try (Go: OPT without a cookie, or as
//!   long where the capture cut it off) and the last try failed or has been silent.
//!
//! An id used again when its question has its final answer is a new question, unless another question of that
//! lookup still waits: glibc then asks the pair again. A query whose question cannot be read opens none.

use super::{
    Engine,
    hops::Way,
    records::{Bits, Dns, DnsBits, MessageRecord, QuestionRecord, Role},
    table::{NONE, Place},
};
use crate::model::{Observer, Rcode, RetransmissionKind};

const MILLISECOND: u64 = 1_000_000;
/// Copies of one message to several servers leave within this time.
pub(super) const COPY_WINDOW: u64 = 50 * MILLISECOND;
/// A reaction to an answer or an ICMP error follows within this time.
pub(super) const REACTION: u64 = 50 * MILLISECOND;
/// No resolver takes silence for a loss sooner.
pub(super) const SHORTEST_TIMEOUT: u64 = 200 * MILLISECOND;
/// Go reads its timeout in whole seconds.
const SHORTEST_TIMEOUT_OF_GO: u64 = 950 * MILLISECOND;
/// A resolver tries so often with new ids at most (5 attempts at 3 servers); what goes on is somebody asking again
/// and again.
const MOST_TRIES: u16 = 15;
/// No resolver waits longer between two messages of a question.
const LONGEST_TIMEOUT: u64 = 45_000 * MILLISECOND;
/// Lookups of one client, and messages of one question, that are looked at.
const LONGEST_WALK: usize = 16;
const SAME_ID_WALK: usize = 64;
/// Messages of a question; the next one starts a new question.
const MOST_MESSAGES: u16 = 256;
/// Octets of a header, of a question behind its name, and of an OPT record without options (RFC 6891 section 6.1.2).
const HEADER_LEN: usize = 12;
const QUESTION_LEN: usize = 4;
const PLAIN_OPT_LEN: usize = 11;
/// HAProxy's OPT size: its polls take new ids but are no retries.
const HAPROXY_PAYLOAD: u16 = 512;

/// What a question's messages have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// NOERROR or NXDOMAIN, whole, in time: when.
    Final(u64),
    /// The last batch got another response code.
    Failed(Rcode, u64),
    /// Truncated, and no answer over TCP yet.
    Truncated,
    /// The last message drew an ICMP error: when.
    Unreachable(u64),
    /// Nothing.
    Waiting,
}

impl Engine {
    /// Finds or opens the question of a new query message.
    pub(super) fn ask(&mut self, place: Place, out: &mut impl Observer) {
        while self.messages.len() > self.config.most_messages() && self.questions.len() > 0 {
            self.evict_oldest(out);
        }
        let known = self.question_of(place);
        if known.is_none() && !self.messages.at(place).dns.bits.has(DnsBits::HAS_QUESTION) {
            // Malformed, or cut off by the capture: it is told as a message, and asks nothing that could be named.
            self.counters.unreadable += 1;
            return;
        }
        self.messages.at_mut(place).bits.set(Bits::OWNED, true);
        match known {
            Some((question, role)) => {
                let record = self.questions.at_mut(question);
                let previous = std::mem::replace(&mut record.last, place);
                record.messages += 1;
                self.messages.at_mut(previous).next = place;
                let message = self.messages.at_mut(place);
                message.previous = previous;
                message.question = question;
                message.role = role;
                if matches!(role, Role::Retransmission { .. }) {
                    self.counters.retransmissions += 1;
                }
                let (lookup, time) = (self.questions.at(question).lookup, self.messages.at(place).time);
                self.lookups.at_mut(lookup).last_sent = time;
                self.touch(lookup);
            }
            None => self.open_question(place, out),
        }
    }

    fn open_question(&mut self, place: Place, out: &mut impl Observer) {
        while self.questions.len() >= self.config.capacity.max(1) {
            self.evict_oldest(out);
        }
        let message = self.messages.at(place);
        let record = QuestionRecord {
            number: self.counters.opened,
            client: message.client.address(),
            name: self.names.hold_again(message.dns.name),
            first: place,
            last: place,
            qtype: message.dns.qtype,
            messages: 1,
            ..QuestionRecord::default()
        };
        self.counters.opened += 1;
        let question = self.questions.insert(record);
        self.messages.at_mut(place).question = question;
        self.join_lookup(question);
    }

    fn question_of(&self, place: Place) -> Option<(Place, Role)> {
        let message = self.messages.at(place);
        if message.bits.has(Bits::TCP) && !message.dns.bits.has(DnsBits::HAS_QUESTION) {
            return self.question_cut_off(message);
        }
        let mut other = message.same_id_links.older;
        for _ in 0..SAME_ID_WALK {
            if other == NONE {
                break;
            }
            let earlier = self.messages.at(other);
            if earlier.question != NONE
                && !earlier.bits.has(Bits::RESPONSE)
                && earlier.client.address() == message.client.address()
                && let Some(role) = self.role(earlier.question, message, true)
            {
                return Some((earlier.question, role));
            }
            other = earlier.same_id_links.older;
        }
        self.question_by_new_id(message)
    }

    /// The truncated question that a query over TCP repeats of which the capture has no more than the header.
    fn question_cut_off(&self, message: &MessageRecord) -> Option<(Place, Role)> {
        let mut lookup = self.newest_lookup(message.client.address());
        for _ in 0..LONGEST_WALK {
            if lookup == NONE {
                break;
            }
            let mut question = self.lookups.at(lookup).first_question;
            while question != NONE {
                let record = self.questions.at(question);
                let last = self.messages.at(record.last);
                if last.dns.id == message.dns.id
                    && last.server == message.server
                    && !last.bits.has(Bits::TCP)
                    && self.standing(question, message.time) == Standing::Truncated
                {
                    return Some((question, Role::TcpFallback));
                }
                question = record.next;
            }
            lookup = self.lookups.at(lookup).of_client.older;
        }
        None
    }

    /// Of the questions that wait for a retry with a new id, the one that has waited longest.
    fn question_by_new_id(&self, message: &MessageRecord) -> Option<(Place, Role)> {
        let new_id_each_time = |m: &MessageRecord| match m.dns.edns() {
            Some(edns) => !edns.cookie && edns.udp_payload_size != HAPROXY_PAYLOAD,
            None => self.has_plain_opt_cut_off(&m.dns),
        };
        if !new_id_each_time(message) && !message.bits.has(Bits::TCP) {
            return None;
        }
        let mut best: Option<(u64, Place, Role)> = None;
        let mut lookup = self.newest_of_label(message.client.address(), message.dns.name);
        for _ in 0..LONGEST_WALK {
            if lookup == NONE {
                break;
            }
            let of_lookup = self.lookups.at(lookup);
            let mut question = of_lookup.first_question;
            while question != NONE {
                let record = self.questions.at(question);
                let last = self.messages.at(record.last);
                if (record.name, record.qtype) == (message.dns.name, message.dns.qtype)
                    && new_id_each_time(last) == new_id_each_time(message)
                    && best.is_none_or(|(time, ..)| last.time < time)
                    && let Some(role) = self.role(question, message, false)
                {
                    best = Some((last.time, question, role));
                }
                question = record.next;
            }
            lookup = of_lookup.of_label.older;
        }
        best.map(|(_, question, role)| (question, role))
    }

    /// Whether the capture cut a query's OPT record off, and its size on the wire says that this had no options.
    fn has_plain_opt_cut_off(&self, dns: &Dns) -> bool {
        let question = HEADER_LEN + self.names.wire(dns.name).len() + QUESTION_LEN;
        dns.bits.has(DnsBits::CUT)
            && dns.bits.has(DnsBits::HAS_QUESTION)
            && dns.counts == [1, 0, 0, 1]
            && usize::try_from(dns.size) == Ok(question + PLAIN_OPT_LEN)
    }

    /// What `message` is to an open question; `None` where it is none of its messages.
    fn role(&self, question: Place, message: &MessageRecord, same_id: bool) -> Option<Role> {
        let record = self.questions.at(question);
        let last = self.messages.at(record.last);
        let gap = message.time.saturating_sub(last.time);
        if gap > LONGEST_TIMEOUT || record.messages >= MOST_MESSAGES {
            return None;
        }
        if !same_id && record.messages >= MOST_TRIES {
            return None;
        }
        let standing = self.standing(question, message.time);
        let (tcp, last_tcp) = (message.bits.has(Bits::TCP), last.bits.has(Bits::TCP));
        let same_port = message.client.port() == last.client.port();
        if tcp && !last_tcp {
            return (same_id || standing == Standing::Truncated).then_some(Role::TcpFallback);
        }
        let answered = !matches!(standing, Standing::Waiting | Standing::Final(_));
        if same_id && tcp == last_tcp && (same_port || !answered) && self.is_copy(record.last, message) {
            return Some(Role::ParallelCopy);
        }
        let kind = match standing {
            Standing::Final(time) => {
                let crossed = time.saturating_add(MILLISECOND) > message.time;
                if !same_id || gap < SHORTEST_TIMEOUT {
                    return None;
                } else if crossed || self.untranslated(question) {
                    RetransmissionKind::Timeout
                } else if self.waits(record.lookup, message.time)
                    || self.sibling_timed_out(question, message.time)
                {
                    RetransmissionKind::AnsweredAgain
                } else {
                    return None;
                }
            }
            Standing::Failed(_, time) if !same_id && message.time.saturating_sub(time) > REACTION => {
                return None;
            }
            Standing::Failed(Rcode::REFUSED, _) => RetransmissionKind::Refused,
            Standing::Failed(..) => RetransmissionKind::Servfail,
            Standing::Unreachable(time) if message.time.saturating_sub(time) <= REACTION => {
                RetransmissionKind::Icmp
            }
            // Nobody takes Go's TCP connection: it asks anew at once.
            Standing::Truncated
                if !same_id && !last_tcp && self.was_answered_just_now(last, message.time) =>
            {
                RetransmissionKind::AnsweredAgain
            }
            Standing::Unreachable(_) | Standing::Waiting | Standing::Truncated => {
                if !same_id && gap < SHORTEST_TIMEOUT_OF_GO {
                    return None;
                }
                RetransmissionKind::Timeout
            }
        };
        Some(Role::Retransmission { kind, same_id, same_port, server_changed: message.server != last.server })
    }

    /// Whether `message` goes to a server that the messages just before it, `last` and back, did not go to.
    fn is_copy(&self, last: Place, message: &MessageRecord) -> bool {
        let mut place = last;
        for step in 0..LONGEST_WALK {
            if place == NONE {
                return step > 0;
            }
            let earlier = self.messages.at(place);
            if message.time.saturating_sub(earlier.time) > COPY_WINDOW {
                return step > 0;
            }
            if earlier.server == message.server {
                return false;
            }
            place = earlier.previous;
        }
        true
    }

    /// Whether a query has an answer that was of use to the client, up to `now`.
    pub(super) fn has_answer(&self, query: &MessageRecord, now: u64) -> bool {
        let answer = self.messages.at(query.peer);
        query.peer != NONE && answer.time <= now && !answer.bits.has(Bits::USELESS)
    }

    fn was_answered_just_now(&self, query: &MessageRecord, now: u64) -> bool {
        let answer = self.messages.at(query.peer);
        query.peer != NONE && answer.time <= now && now.saturating_sub(answer.time) <= REACTION
    }

    /// What became of a question so far; answers at or after `now` do not count.
    pub(super) fn standing(&self, question: Place, now: u64) -> Standing {
        let record = self.questions.at(question);
        let last = self.messages.at(record.last);
        let mut standing = Standing::Waiting;
        let mut place = record.last;
        for _ in 0..LONGEST_WALK {
            if place == NONE {
                break;
            }
            let message = self.messages.at(place);
            place = message.previous;
            let recent = last.time.saturating_sub(message.time) <= COPY_WINDOW;
            if message.peer == NONE {
                if message.icmp != NONE && recent && standing == Standing::Waiting {
                    standing = Standing::Unreachable(self.icmps.at(message.icmp).time);
                }
                continue;
            }
            let answer = self.messages.at(message.peer);
            if answer.time > now || answer.bits.has(Bits::USELESS) {
                continue;
            }
            match Rcode(answer.dns.rcode) {
                Rcode::NOERROR | Rcode::NXDOMAIN if !answer.dns.truncated() => {
                    return Standing::Final(answer.time);
                }
                Rcode::NOERROR | Rcode::NXDOMAIN => standing = Standing::Truncated,
                rcode if recent && !matches!(standing, Standing::Failed(..) | Standing::Truncated) => {
                    standing = Standing::Failed(rcode, answer.time);
                }
                _ => {}
            }
        }
        standing
    }

    /// Whether an answer of the question came from another address than the one that was asked (no reverse
    /// translation on its way): the client does not take it.
    pub(super) fn untranslated(&self, question: Place) -> bool {
        let mut place = self.questions.at(question).last;
        for _ in 0..LONGEST_WALK {
            if place == NONE {
                return false;
            }
            let message = self.messages.at(place);
            if message.peer != NONE {
                let answer = self.messages.at(message.peer);
                return answer.hops.last(&self.further_hops).flow != Way::ASKED;
            }
            place = message.previous;
        }
        false
    }

    /// Whether another question of the lookup was asked again since this one was, and got its answer just now:
    /// glibc's single-request mode asks the second one when the first one has its answer.
    fn sibling_timed_out(&self, question: Place, now: u64) -> bool {
        let record = self.questions.at(question);
        let asked = self.messages.at(record.last).time;
        let mut sibling = self.lookups.at(record.lookup).first_question;
        while sibling != NONE {
            let other = self.questions.at(sibling);
            let last = self.messages.at(other.last);
            if sibling != question
                && other.name == record.name
                && last.time > asked
                && matches!(last.role, Role::Retransmission { kind: RetransmissionKind::Timeout, .. })
                && matches!(self.standing(sibling, now), Standing::Final(time) if now.saturating_sub(time) <= REACTION)
            {
                return true;
            }
            sibling = other.next;
        }
        false
    }

    /// Whether a question of the lookup has no final answer.
    pub(super) fn waits(&self, lookup: Place, now: u64) -> bool {
        let mut question = self.lookups.at(lookup).first_question;
        while question != NONE {
            if !matches!(self.standing(question, now), Standing::Final(_)) {
                return true;
            }
            question = self.questions.at(question).next;
        }
        false
    }
}
