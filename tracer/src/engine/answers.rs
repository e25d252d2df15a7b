//! Responses and ICMP errors: which query message they belong to, and whether they came too late.
//!
//! One response answers one message: the oldest without an answer that fits in transport, client address and
//! port, server, id, name and type; one that the kernel dropped only where there is no other. A response is late when the client had moved on before: to another socket, to
//! the next candidate, past its resolver's limit — or when it drew an ICMP error from the client.

use super::{
    Engine,
    intern::Endpoint,
    messages::Sides,
    questions::SHORTEST_TIMEOUT,
    records::{Bits, IcmpRecord, MessageRecord, Packet, Role},
    table::{NONE, Place},
};
use crate::model::{Family, IcmpError, Transport, Wanted};

const LONGEST_WALK: usize = 64;
/// Messages of a client among which an ICMP error's is searched.
const ICMP_WALK: usize = 1024;
/// A closed socket answers with ICMP at once.
const SOCKET_CLOSED_WITHIN: u64 = 1_000_000;
/// musl's limit for a candidate, Go's for a try.
const FIVE_SECONDS: u64 = 5_020_000_000;

impl Engine {
    /// Finds the query of a new response, and gives this one's place; `newest` is the last message of its name, type and
    /// id.
    pub(super) fn new_response(&mut self, packet: &Packet, sides: &Sides, newest: Place) -> Place {
        self.counters.responses += 1;
        let query = if packet.dns.bits.has(super::records::DnsBits::HAS_QUESTION) {
            self.query_answered(packet, sides, newest)
        } else {
            self.query_of_flow(sides.client, sides.far, Some(packet.dns.id), |m| {
                m.peer == NONE && m.bits.has(Bits::TCP) == packet.bits.has(Bits::TCP)
            })
        };
        if query == NONE {
            self.counters.unmatched += 1;
            let server = if sides.asked.is_some() { sides.asked } else { sides.far };
            let place = self.new_message(packet, sides.client, server, NONE);
            self.messages.at_mut(place).bits.set(Bits::CHAINED, true);
            self.by_id.push(&mut self.messages, place);
            self.add_hop(place, packet, sides);
            return place;
        }
        let asked = self.messages.at(query);
        let (client, server, backend, question) = (asked.client, asked.server, asked.backend, asked.question);
        let place = self.new_message(packet, client, server, query);
        let record = self.messages.at_mut(place);
        record.backend = backend;
        record.question = question;
        record.bits.set(Bits::OWNED, true);
        self.messages.at_mut(query).peer = place;
        self.add_hop(place, packet, sides);
        let late = self.came_late(query, packet.time);
        self.messages.at_mut(place).bits.set(Bits::LATE, late);
        let lookup = self.questions.at(question).lookup;
        self.note_answer(lookup, place);
        place
    }

    /// The oldest query without an answer that this response fits.
    fn query_answered(&self, packet: &Packet, sides: &Sides, newest: Place) -> Place {
        let (mut exact, mut translated, mut other_source) = (NONE, NONE, NONE);
        let mut dropped = NONE;
        let mut server_known = false;
        let mut place = newest;
        for _ in 0..LONGEST_WALK {
            if place == NONE {
                break;
            }
            let record = self.messages.at(place);
            let here = place;
            place = record.same_id_links.older;
            if record.bits.has(Bits::RESPONSE)
                || record.question == NONE
                || record.bits.has(Bits::TCP) != packet.bits.has(Bits::TCP)
            {
                continue;
            }
            let from_server = sides.far == record.server
                || sides.far == record.backend
                || (sides.asked.is_some() && sides.asked == record.server);
            if record.client == sides.client {
                server_known |= from_server;
                if record.peer == NONE && from_server && record.bits.has(Bits::DROPPED) {
                    dropped = here;
                } else if record.peer == NONE && from_server {
                    exact = here;
                } else if record.peer == NONE && sides.far.port() == record.server.port() {
                    translated = here;
                }
            } else if record.peer == NONE && from_server && self.left_as(record, sides.near) {
                other_source = here;
            }
        }
        if exact != NONE {
            exact
        } else if dropped != NONE {
            dropped
        } else if !server_known && translated != NONE {
            translated
        } else {
            other_source
        }
    }

    /// Whether the client no longer waited for an answer to `query` at `time`.
    fn came_late(&self, query: Place, time: u64) -> bool {
        let asked = self.messages.at(query);
        let question = self.questions.at(asked.question);
        let mut later = asked.next;
        while later != NONE {
            let retry = self.messages.at(later);
            if matches!(retry.role, Role::Retransmission { .. })
                && retry.client.port() != asked.client.port()
                && retry.bits.has(Bits::TCP) == asked.bits.has(Bits::TCP)
            {
                return true;
            }
            later = retry.next;
        }
        let waited = time.saturating_sub(asked.time);
        if waited < SHORTEST_TIMEOUT {
            return false;
        }
        let mut next = question.next;
        while next != NONE {
            let other = self.questions.at(next);
            let started = self.messages.at(other.first).time;
            if other.name != question.name && started.saturating_sub(asked.time) >= SHORTEST_TIMEOUT {
                return true;
            }
            next = other.next;
        }
        let first = self.messages.at(question.first).time;
        time.saturating_sub(first) > FIVE_SECONDS
            && match self.family_of(question.lookup) {
                Family::Musl => true,
                Family::Go => waited > FIVE_SECONDS,
                _ => false,
            }
    }

    pub(super) fn icmp(&mut self, packet: &Packet, wanted: Wanted) {
        let Some(error) = self.icmps.remove(packet.extra).error else { return };
        let source = self.addresses.endpoint(error.quoted.source);
        let destination = self.addresses.endpoint(error.quoted.destination);
        let tcp = error.quoted_transport == Transport::Tcp;
        let client = self.aliases.inside(source).unwrap_or(source);
        let query = self.query_of_flow(client, destination, error.quoted_id, |m| {
            m.bits.has(Bits::TCP) == tcp && m.time <= packet.time
        });
        if query != NONE {
            self.note_unreachable(query, error, packet.time);
            return;
        }
        let client = self.aliases.inside(destination).unwrap_or(destination);
        let query = self.query_of_flow(client, source, error.quoted_id, |m| {
            m.bits.has(Bits::TCP) == tcp && m.peer != NONE
        });
        if query != NONE {
            self.note_socket_closed(query, packet.time, wanted);
        }
    }

    fn note_unreachable(&mut self, query: Place, error: IcmpError, time: u64) {
        let record = self.messages.at(query);
        let known = record.icmp;
        if known == NONE {
            let icmp = self.icmps.insert(IcmpRecord { error: Some(error), time });
            self.messages.at_mut(query).icmp = icmp;
        } else if time.saturating_sub(self.icmps.at(known).time) < self.config.hop_window_nanos() {
            *self.icmps.at_mut(known) = IcmpRecord { error: Some(error), time };
        }
        let question = self.messages.at(query).question;
        self.touch(self.questions.at(question).lookup);
    }

    /// The client's socket was closed when the answer came: late, unless another answer had closed it, or nearly in
    /// time.
    fn note_socket_closed(&mut self, query: Place, time: u64, wanted: Wanted) {
        let asked = self.messages.at(query);
        let answer = self.messages.at(asked.peer);
        let arrived = answer.time + u64::from(answer.hops.last(&self.further_hops).offset);
        if time.saturating_sub(arrived) > SOCKET_CLOSED_WITHIN || self.was_answered_before(asked) {
            return;
        }
        let (place, question) = (asked.peer, asked.question);
        let what = if self.was_just_open(asked) { Bits::PASSED_OVER } else { Bits::LATE };
        self.messages.at_mut(place).bits.set(what, true);
        self.await_hops(place, wanted);
        let lookup = self.questions.at(question).lookup;
        self.note_answer(lookup, place);
    }

    /// Whether the client had what it needed before this query's answer came: another server's answer, or a
    /// truncated one that sent it to TCP.
    fn was_answered_before(&self, asked: &MessageRecord) -> bool {
        let answer = self.messages.at(asked.peer);
        let mut question = self.lookups.at(self.questions.at(asked.question).lookup).first_question;
        while question != NONE {
            let record = self.questions.at(question);
            let mut place = record.first;
            while place != NONE {
                let message = self.messages.at(place);
                let other = self.messages.at(message.peer);
                let earlier = message.peer != NONE && message.peer != asked.peer && other.time <= answer.time;
                let copy = earlier && question == asked.question && self.has_copy(place);
                if (copy && !other.bits.has(Bits::USELESS))
                    || message.bits.has(Bits::TCP)
                    || (message.peer != NONE && other.dns.truncated())
                {
                    return true;
                }
                place = message.next;
            }
            question = record.next;
        }
        false
    }

    /// Whether the socket took another answer a moment before this query's answer found it closed: the client
    /// gave up in between, within less than any resolver's timeout. That is a dead heat, no late answer.
    fn was_just_open(&self, asked: &MessageRecord) -> bool {
        let answered = self.messages.at(asked.peer).time;
        let mut question = self.lookups.at(self.questions.at(asked.question).lookup).first_question;
        while question != NONE {
            let record = self.questions.at(question);
            let mut place = record.first;
            while place != NONE {
                let message = self.messages.at(place);
                let other = self.messages.at(message.peer);
                if message.client == asked.client
                    && message.peer != NONE
                    && message.peer != asked.peer
                    && !other.bits.has(Bits::LATE)
                    && answered.checked_sub(other.time).is_some_and(|since| since < SHORTEST_TIMEOUT)
                {
                    return true;
                }
                place = message.next;
            }
            question = record.next;
        }
        false
    }

    /// The newest query of a client's socket to a server that `wanted` takes, by address alone.
    fn query_of_flow(
        &self,
        client: Endpoint,
        server: Endpoint,
        id: Option<u16>,
        wanted: impl Fn(&MessageRecord) -> bool,
    ) -> Place {
        let mut lookup = self.newest_lookup(client.address());
        let (mut best, mut best_time) = (NONE, 0);
        let mut looked_at = 0;
        while lookup != NONE && best == NONE {
            let mut question = self.lookups.at(lookup).first_question;
            while question != NONE {
                let record = self.questions.at(question);
                let mut place = record.last;
                while place != NONE {
                    let message = self.messages.at(place);
                    if message.client == client
                        && (message.server == server || message.backend == server)
                        && id.is_none_or(|id| id == message.dns.id)
                        && message.time >= best_time
                        && wanted(message)
                    {
                        (best, best_time) = (place, message.time);
                    }
                    looked_at += 1;
                    if looked_at > ICMP_WALK {
                        return best;
                    }
                    place = message.previous;
                }
                question = record.next;
            }
            lookup = self.lookups.at(lookup).of_client.older;
        }
        best
    }
}
