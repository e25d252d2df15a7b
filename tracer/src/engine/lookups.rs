//! Questions → lookups: which questions one getaddrinfo() call asked.
//!
//! A new question is looked at against the open lookups of its client whose candidates begin with the same label,
//! newest first:
//! - **pair**: its name is there, its type not yet, and it comes from its sibling's socket (a program that waits for
//!   a processor between the two is late, but keeps its socket), or ≤ 20 ms after its sibling, ≤ 50 ms after the
//!   sibling's answer, or after the types asked before all failed (`getent hosts`: AAAA, then A);
//! - **next candidate**: the lookup has no address yet, the names share a base (see `search`), and it comes
//!   ≤ 250 ms after the last answer, or a timeout's length after the last query when one is unanswered;
//! - **repetition**: the same walk within 50 ms of an answer of 30 records and more is glibc's buffer growing, as
//!   often as it has to double for them; the socket tells which A an AAAA belongs to.
//!
//! Pairs win over next candidates, a shared port over none, a likely suffix over any, then the smaller gap. A lookup ends when nothing can
//! follow; only then its questions are told.

use super::{
    Engine,
    intern::{Address, NameId},
    questions::{REACTION, SHORTEST_TIMEOUT, Standing},
    records::{Bits, LookupRecord, QuestionRecord},
    search,
    table::{Links, NONE, Place},
};
use crate::model::{Family, Opcode, Rtype};
use std::hash::BuildHasher;

const MILLISECOND: u64 = 1_000_000;
/// A and AAAA of one candidate leave within this time.
const PAIR_WINDOW: u64 = 20 * MILLISECOND;
/// Both leave one socket: whoever waits this long between them waits for a processor.
const PAIR_WINDOW_OF_SOCKET: u64 = 1_000 * MILLISECOND;
/// The next candidate follows the last answer within this time.
const NEXT_WINDOW: u64 = 250 * MILLISECOND;
/// Nobody but the resolver itself reacts to an answer within this time.
const AT_ONCE: u64 = 2 * MILLISECOND;
/// All candidates at once (busybox nslookup) leave one port within this time of each other, whatever was answered.
const BURST_WINDOW: u64 = 5 * MILLISECOND;
/// The next candidate follows a timeout at most this long after the last query.
const LONGEST_NEXT: u64 = 32_000 * MILLISECOND;
/// c-ares gives a try up after 2 to 8 s, the last one without a trace.
const GIVEN_UP: u64 = 2_000 * MILLISECOND;
/// Answers from which glibc's buffer of 1 or 2 KiB may be too small.
const LARGE_ANSWER: u16 = 30;
/// What glibc's buffer begins with, and holds for each address (nss.h: `struct gaih_addrtuple`) and for a name.
const FIRST_BUFFER: u32 = 1024;
const ADDRESS_TUPLE: u32 = 40;
const SHORT_NAME: u32 = 32;
const LONGEST_WALK: usize = 24;
/// Lookups of one name that a client's threads have under way at once: a question that so many of the newest have
/// asked already belongs to none that is older.
const MOST_AT_ONCE: u32 = 8;
/// Questions of a lookup; the next one starts a new lookup.
const MOST_QUESTIONS: u16 = 64;
/// mDNS asks everybody: no lookup.
const MDNS: u16 = 5353;

/// How well a question continues a lookup: greater is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    pair: bool,
    same_port: bool,
    /// Its name follows by what is known of search lists, and not only at once.
    believed: bool,
    /// Negative gap, so that the smaller gap is greater.
    closeness: i64,
}

impl Engine {
    /// Puts a new question into the lookup it continues, or opens one for it.
    pub(super) fn join_lookup(&mut self, question: Place) {
        let record = self.questions.at(question);
        let message = self.messages.at(record.first);
        let time = message.time;
        let noise =
            is_noise(Rtype(record.qtype), message.dns.flags, message.client.port(), message.server.port())
                || self.names.wire(record.name).len() == 1;
        let label = self.first_label(record.name);
        let client = self.client(record.client, time);
        let known = if noise { None } else { self.lookup_of(question, client, label) };
        let lookup = match known {
            Some(lookup) => {
                let last = self.questions.at(self.lookups.at(lookup).last_question).name;
                if self.lookups.at(lookup).positive && last != self.questions.at(question).name {
                    self.pass_over_answers(lookup);
                }
                let record = self.lookups.at_mut(lookup);
                record.questions += 1;
                let last = std::mem::replace(&mut record.last_question, question);
                self.questions.at_mut(last).next = question;
                lookup
            }
            None => {
                let number = self.questions.at(question).number;
                let lookup = self.lookups.insert(LookupRecord {
                    number,
                    started: time,
                    last_answer: 0,
                    client,
                    label,
                    first_question: question,
                    last_question: question,
                    questions: 1,
                    noise,
                    ..LookupRecord::default()
                });
                self.by_label.push(&mut self.lookups, lookup);
                self.link_to_client(lookup, client);
                self.link_to_all(lookup);
                lookup
            }
        };
        self.questions.at_mut(question).lookup = lookup;
        self.lookups.at_mut(lookup).last_sent = time;
        self.touch(lookup);
    }

    /// The newest open lookup of a client whose candidates begin with the same label as this name.
    pub(super) fn newest_of_label(&self, client: Address, name: NameId) -> Place {
        self.by_label.newest(&self.lookups, &(self.client_place(client), self.first_label(name)))
    }

    fn first_label(&self, name: NameId) -> u32 {
        let wire = self.names.wire(name);
        let length = wire.first().map_or(0, |&l| usize::from(l));
        (self.hasher.hash_one(wire.get(1..=length).unwrap_or_default()) >> 16) as u32
    }

    fn lookup_of(&self, question: Place, client: Place, label: u32) -> Option<Place> {
        let mut best: Option<(Fit, Place)> = None;
        let mut asked_in = 0;
        let mut lookup = self.by_label.newest(&self.lookups, &(client, label));
        let new = self.questions.at(question);
        for _ in 0..LONGEST_WALK {
            if lookup == NONE || asked_in == MOST_AT_ONCE {
                break;
            }
            let record = self.lookups.at(lookup);
            if !record.large && self.asked(record.first_question, new) {
                asked_in += 1;
                lookup = record.of_label.older;
                continue;
            }
            if self.follows_sibling(record, question) {
                return Some(lookup);
            }
            if !record.noise
                && record.questions < MOST_QUESTIONS
                && let Some(fit) = self.fit_question(lookup, question)
                && best.is_none_or(|(best, _)| best < fit)
            {
                best = Some((fit, lookup));
                if fit.pair && fit.same_port {
                    // Nothing fits better: those behind it are older.
                    break;
                }
            }
            lookup = record.of_label.older;
        }
        best.map(|(_, lookup)| lookup)
    }

    /// Whether the lookup's last question is the other one of a pair with this one, from the same socket, which has
    /// not asked it: nothing fits better.
    fn follows_sibling(&self, record: &LookupRecord, question: Place) -> bool {
        let (new, last) = (self.questions.at(question), self.questions.at(record.last_question));
        if last.name != new.name || record.noise || record.questions >= MOST_QUESTIONS {
            return false;
        }
        let message = self.messages.at(new.first);
        message.time.saturating_sub(self.messages.at(last.first).time) <= PAIR_WINDOW_OF_SOCKET
            && self.came_from(last, message.client.port())
            && !(record.large && self.socket_asked(record.first_question, new, message.client.port()))
    }

    /// Whether a question was asked from this port, first or last: over TCP it is another.
    fn came_from(&self, question: &QuestionRecord, port: u16) -> bool {
        self.messages.at(question.first).client.port() == port
            || self.messages.at(question.last).client.port() == port
    }

    /// Whether a lookup, whose questions begin with `question`, has one of the name and type of `new` from this port.
    fn socket_asked(&self, mut question: Place, new: &QuestionRecord, port: u16) -> bool {
        while question != NONE {
            let other = self.questions.at(question);
            if other.name == new.name && other.qtype == new.qtype && self.came_from(other, port) {
                return true;
            }
            question = other.next;
        }
        false
    }

    fn fit_question(&self, lookup: Place, question: Place) -> Option<Fit> {
        let (record, new) = (self.lookups.at(lookup), self.questions.at(question));
        let message = self.messages.at(new.first);
        let (now, port) = (message.time, message.client.port());
        let since_answer = now.saturating_sub(record.last_answer);
        if record.positive && since_answer > REACTION && now.saturating_sub(record.last_sent) > PAIR_WINDOW {
            return None;
        }
        // One walk over the lookup's questions: what there is of this name, and of the others.
        let (mut sibling, mut last_sent, mut same_port) = (NONE, 0, false);
        let (mut waiting, mut unreachable) = (false, false);
        let (mut walks, mut most) = (0, [0; 2]);
        let mut place = record.first_question;
        while place != NONE {
            let other = self.questions.at(place);
            let last = self.messages.at(other.last);
            last_sent = last_sent.max(last.time);
            same_port |= last.client.port() == port;
            // Whatever its last message got, it does not wait.
            if !self.has_answer(last, now) {
                match self.standing(place, now) {
                    Standing::Waiting => waiting = true,
                    Standing::Unreachable(time) => {
                        waiting = true;
                        unreachable |= now.saturating_sub(time) <= REACTION;
                    }
                    _ => {}
                }
            }
            if other.name == new.name {
                walks += u32::from(other.qtype == new.qtype);
                sibling = place;
            }
            if record.large {
                let most = if other.qtype == Rtype::AAAA.0 { &mut most[1] } else { &mut most[0] };
                *most = self.most_records(place).max(*most);
            }
            place = other.next;
        }
        let gap = now.saturating_sub(last_sent.max(record.last_answer));
        let closeness = -i64::try_from(gap).unwrap_or(i64::MAX);
        let fit = |pair| Some(Fit { pair, same_port, believed: true, closeness });

        if walks > 0 {
            let again = record.large
                && since_answer <= REACTION
                && walks < most_walks(most.iter().sum())
                && !self.socket_asked(record.first_question, new, port)
                && matches!(self.family_of(lookup), Family::Glibc | Family::Unknown);
            return if again { fit(false) } else { None };
        }
        if sibling != NONE {
            let other = self.questions.at(sibling);
            let asked = self.messages.at(other.first).time;
            let window = if self.came_from(other, port) { PAIR_WINDOW_OF_SOCKET } else { PAIR_WINDOW };
            let together = now.saturating_sub(asked) <= window;
            let in_turn = !waiting && since_answer <= REACTION;
            return if together || in_turn { fit(true) } else { None };
        }
        let at_once = same_port && now.saturating_sub(last_sent) <= BURST_WINDOW;
        let goes_on = record.large || at_once || (since_answer <= AT_ONCE && self.came_too_late(lookup));
        if record.positive && !goes_on {
            return None;
        }
        let answered = !waiting && since_answer <= NEXT_WINDOW;
        let since_sent = now.saturating_sub(last_sent);
        let timed_out = waiting && (SHORTEST_TIMEOUT..=LONGEST_NEXT).contains(&since_sent);
        if !(at_once || answered || timed_out || unreachable) {
            return None;
        }
        let prompt = at_once || (answered && since_answer <= AT_ONCE);
        let believed = self.continues(lookup, new.name, false);
        let continues = believed || (prompt && self.continues(lookup, new.name, true));
        continues.then_some(Fit { pair: false, same_port, believed, closeness })
    }

    /// Whether a lookup, whose questions begin with `question`, has one of the name and type of `new`.
    fn asked(&self, mut question: Place, new: &QuestionRecord) -> bool {
        while question != NONE {
            let other = self.questions.at(question);
            if other.name == new.name && other.qtype == new.qtype {
                return true;
            }
            question = other.next;
        }
        false
    }

    /// The most answer records that a message of the question got.
    fn most_records(&self, question: Place) -> u32 {
        let (mut place, mut most) = (self.questions.at(question).last, 0);
        while place != NONE {
            let message = self.messages.at(place);
            if message.peer != NONE {
                most = self.messages.at(message.peer).dns.counts[1].max(most);
            }
            place = message.previous;
        }
        u32::from(most)
    }

    /// Whether each address of a lookup answered a message so old that the client may have given it up: it asked
    /// again, and the answer took longer than any first timeout of a resolver that does not wait for all tries.
    fn came_too_late(&self, lookup: Place) -> bool {
        let mut question = self.lookups.at(lookup).first_question;
        while question != NONE {
            let record = self.questions.at(question);
            if self.is_positive(question)
                && !(record.messages > 1 && self.slowest_positive(question).is_some())
            {
                return false;
            }
            question = record.next;
        }
        true
    }

    /// A query whose address took more than [`GIVEN_UP`].
    fn slowest_positive(&self, question: Place) -> Option<Place> {
        let mut place = self.questions.at(question).last;
        while place != NONE {
            let message = self.messages.at(place);
            let answer = self.messages.at(message.peer);
            if message.peer != NONE
                && !answer.bits.has(Bits::USELESS)
                && answer.dns.is_positive()
                && answer.time.saturating_sub(message.time) > GIVEN_UP
            {
                return Some(place);
            }
            place = message.previous;
        }
        None
    }

    /// The client went on to its next candidate although an address had come: it did not take it.
    fn pass_over_answers(&mut self, lookup: Place) {
        let mut question = self.lookups.at(lookup).first_question;
        while question != NONE {
            while let Some(query) = self.slowest_positive(question) {
                let answer = self.messages.at(query).peer;
                self.messages.at_mut(answer).bits.set(Bits::PASSED_OVER, true);
            }
            question = self.questions.at(question).next;
        }
        let positive = self.has_address(lookup);
        self.lookups.at_mut(lookup).positive = positive;
    }

    /// Whether `name` can be the next candidate of a lookup's walk.
    fn continues(&self, lookup: Place, name: NameId, prompt: bool) -> bool {
        let record = self.lookups.at(lookup);
        let mut names: smallvec::SmallVec<[&[u8]; 8]> = smallvec::SmallVec::new();
        let mut place = record.first_question;
        while place != NONE {
            let question = self.questions.at(place);
            let wire = self.names.wire(question.name);
            if names.last() != Some(&wire) {
                names.push(wire);
            }
            place = question.next;
        }
        search::continues(&names, self.names.wire(name), &self.knowledge(record.client), prompt)
    }

    /// Notes a response that was matched, or found late or dropped.
    pub(super) fn note_answer(&mut self, lookup: Place, response: Place) {
        let answer = self.messages.at(response);
        let (useless, time) = (answer.bits.has(Bits::USELESS), answer.time);
        let large = answer.dns.counts[1] >= LARGE_ANSWER;
        let positive = if useless {
            self.has_address(lookup)
        } else {
            self.lookups.at(lookup).positive || self.is_positive(answer.question)
        };
        let record = self.lookups.at_mut(lookup);
        record.positive = positive;
        if !useless {
            record.last_answer = record.last_answer.max(time);
            record.large |= large;
        }
        self.touch(lookup);
    }

    fn has_address(&self, lookup: Place) -> bool {
        let mut question = self.lookups.at(lookup).first_question;
        while question != NONE {
            if self.is_positive(question) {
                return true;
            }
            question = self.questions.at(question).next;
        }
        false
    }

    /// Whether a question got in time what it asked for.
    pub(super) fn is_positive(&self, question: Place) -> bool {
        if self.questions.at(question).messages > 1 && self.untranslated(question) {
            return false;
        }
        let mut place = self.questions.at(question).last;
        while place != NONE {
            let message = self.messages.at(place);
            if message.peer != NONE {
                let answer = self.messages.at(message.peer);
                if !answer.bits.has(Bits::USELESS) && answer.dns.is_positive() {
                    return true;
                }
            }
            place = message.previous;
        }
        false
    }

    /// The newest open lookup of an address.
    pub(super) fn newest_lookup(&self, address: Address) -> Place {
        self.clients.at(self.client_place(address)).newest
    }

    /// Takes a lookup out of all that finds it. Its record stays until it is freed.
    pub(super) fn unlink_lookup(&mut self, lookup: Place) {
        self.wheel.unset(&mut self.lookups, lookup);
        self.by_label.remove(&mut self.lookups, lookup);
        self.unlink_from_client(lookup);
        let Links { older, newer } = self.lookups.at(lookup).of_all;
        if older == NONE {
            self.oldest_lookup = newer;
        } else {
            self.lookups.at_mut(older).of_all.newer = newer;
        }
        if newer == NONE {
            self.youngest_lookup = older;
        } else {
            self.lookups.at_mut(newer).of_all.older = older;
        }
    }

    fn link_to_all(&mut self, lookup: Place) {
        let older = std::mem::replace(&mut self.youngest_lookup, lookup);
        self.lookups.at_mut(lookup).of_all = Links { older, newer: NONE };
        if older == NONE {
            self.oldest_lookup = lookup;
        } else {
            self.lookups.at_mut(older).of_all.newer = lookup;
        }
    }
}

/// How often glibc asks, at most, until its buffer holds so many addresses.
fn most_walks(addresses: u32) -> u32 {
    let wanted = addresses.saturating_mul(ADDRESS_TUPLE).saturating_add(SHORT_NAME);
    wanted.div_ceil(FIRST_BUFFER).next_power_of_two().trailing_zeros() + 1
}

/// Messages of servers to each other and to all: no program's lookup.
fn is_noise(qtype: Rtype, flags: u16, client_port: u16, server_port: u16) -> bool {
    let query = crate::model::Flags(flags).opcode() == Opcode::QUERY;
    let between_servers = matches!(
        qtype,
        Rtype::HINFO | Rtype::NS | Rtype::SOA | Rtype::DS | Rtype::DNSKEY | Rtype::AXFR | Rtype::IXFR
    );
    !query || between_servers || client_port == MDNS || server_port == MDNS
}
