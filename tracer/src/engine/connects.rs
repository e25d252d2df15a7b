//! What becomes of answered addresses: attempts to connect to them, by the packets that begin TCP connections.
//!
//! Rule: an attempt is a SYN from an address that was answered the SYN's destination at most [`WINDOW`] before. It ends with
//! the server's SYN+ACK or RST, or an ICMP error that quotes it; without any of them it was met with silence if it was
//! asked again, and is forgotten if it was not (who gives up within a second tells nothing). The client's initial sequence
//! number tells attempts apart and is the same at every vantage.
//!
//! Both tables are bounded. That of answers has one place for each of its hashes, so that a response costs one look into
//! memory; where two share a place, the older answer's connections are not told.

use crate::model::{
    Connect, ConnectOutcome, ConnectPacket, ConnectStep, Name, Observer, Sighting, SightingBody, Timestamp,
};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::smallvec;
use std::{collections::VecDeque, hash::BuildHasher as _, net::IpAddr, net::SocketAddr, time::Duration};

/// A client connects within this time of its answer, if it does because of it.
const WINDOW: Duration = Duration::from_secs(10);
/// An attempt has its answer after this time (Linux asks again after 1, 3 and 7 s), or none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Places for answers: a power of two.
const ANSWERS: usize = 4_096;
/// Attempts open at once; further ones are not told.
const ATTEMPTS: usize = 8_192;

/// An address that was the answer to a client.
#[derive(Clone, Debug)]
struct Answered {
    client: IpAddr,
    address: IpAddr,
    name: Name,
    time: Timestamp,
}

/// Where to, and the client's initial sequence number.
type Key = (SocketAddr, u32);

/// Answers and attempts of a session.
#[derive(Debug)]
pub struct Connects {
    hasher: FixedState,
    /// Empty until there is an answer.
    answers: Vec<Option<Answered>>,
    attempts: HashMap<Key, Connect, FixedState>,
    /// Open attempts and some ended ones, by the time of their first SYN.
    by_time: VecDeque<(Timestamp, Key)>,
}

impl Connects {
    /// Nothing is known; `seed` is that of the hash tables.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            answers: Vec::new(),
            attempts: HashMap::with_hasher(hasher.clone()),
            by_time: VecDeque::new(),
            hasher,
        }
    }

    /// Takes note of the addresses in a response.
    pub fn see(&mut self, sighting: &Sighting) {
        let SightingBody::Dns(message) = &sighting.body else { return };
        if !message.is_response() || message.answer.addresses.is_empty() {
            return;
        }
        if self.answers.is_empty() {
            self.answers.resize(ANSWERS, None);
        }
        let client = sighting.flow.destination.ip();
        for &address in &message.answer.addresses {
            let place = self.place(client, address);
            match &mut self.answers[place] {
                Some(known)
                    if known.client == client && known.address == address && known.name == message.name =>
                {
                    known.time = sighting.time;
                }
                other => *other = Some(Answered { client, address, name: message.name, time: sighting.time }),
            }
        }
    }

    /// Takes a packet of a connection's beginning.
    pub fn packet(&mut self, packet: &ConnectPacket, out: &mut impl Observer) {
        self.advance(packet.time, out);
        let key = (packet.flow.destination, packet.initial_sequence);
        let outcome = match packet.step {
            ConnectStep::Asked => return self.asked(key, packet),
            ConnectStep::Accepted => ConnectOutcome::Accepted,
            ConnectStep::Refused => ConnectOutcome::Refused,
            ConnectStep::Unreachable(error) if !error.is_unreachable() => return,
            ConnectStep::Unreachable(_) => ConnectOutcome::Unreachable,
        };
        let Some(mut attempt) = self.attempts.remove(&key) else { return };
        (attempt.outcome, attempt.ended) = (outcome, packet.time);
        attempt.frames.push((packet.frame, packet.vantage));
        if let ConnectStep::Unreachable(error) = packet.step {
            attempt.error = Some(error);
        }
        out.connect(&attempt);
    }

    fn asked(&mut self, key: Key, packet: &ConnectPacket) {
        let time = packet.time;
        if let Some(attempt) = self.attempts.get_mut(&key) {
            // At its first vantage it is asked again; elsewhere it goes on.
            if attempt.frames.first().is_some_and(|(_, vantage)| *vantage == packet.vantage) {
                attempt.asked += 1;
                attempt.ended = time;
            }
            return;
        }
        let (client, server) = (packet.flow.source, packet.flow.destination);
        let place = self.place(client.ip(), server.ip());
        let answered = self.answers.get(place).and_then(Option::as_ref);
        let is_it = |it: &&Answered| {
            it.client == client.ip()
                && it.address == server.ip()
                && it.time <= time
                && time.since(it.time) <= WINDOW
        };
        let Some(answered) = answered.filter(is_it) else { return };
        if self.attempts.len() >= ATTEMPTS {
            return;
        }
        let attempt = Connect {
            client,
            server,
            name: answered.name,
            answered: answered.time,
            time,
            ended: time,
            asked: 1,
            outcome: ConnectOutcome::Silent,
            error: None,
            frames: smallvec![(packet.frame, packet.vantage)],
        };
        self.attempts.insert(key, attempt);
        self.by_time.push_back((time, key));
        if self.by_time.len() > 4 * ATTEMPTS {
            let attempts = &self.attempts;
            self.by_time.retain(|(time, key)| attempts.get(key).is_some_and(|open| open.time == *time));
        }
    }

    /// Says that it is `now`: tells the attempts that nobody answered.
    pub fn advance(&mut self, now: Timestamp, out: &mut impl Observer) {
        // Those that ended are here until their time comes, unless they are many.
        while let Some((time, key)) = self.by_time.front().copied()
            && (now.since(time) >= PATIENCE || !self.attempts.contains_key(&key))
        {
            self.by_time.pop_front();
            self.end(key, time, out);
        }
    }

    /// The session ends: tells the attempts that nobody answered so far.
    pub fn finish(&mut self, out: &mut impl Observer) {
        while let Some((time, key)) = self.by_time.pop_front() {
            self.end(key, time, out);
        }
    }

    fn end(&mut self, key: Key, time: Timestamp, out: &mut impl Observer) {
        if self.attempts.get(&key).is_none_or(|attempt| attempt.time != time) {
            return;
        }
        if let Some(attempt) = self.attempts.remove(&key)
            && attempt.asked > 1
        {
            out.connect(&attempt);
        }
    }

    /// Octets that the tables hold now.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.answers.capacity() * size_of::<Option<Answered>>()
            + self.attempts.capacity() * size_of::<(Key, Connect)>()
            + self.by_time.capacity() * size_of::<(Timestamp, Key)>()
    }

    fn place(&self, client: IpAddr, address: IpAddr) -> usize {
        usize::try_from(self.hasher.hash_one((client, address))).unwrap_or(0) & (ANSWERS - 1)
    }
}

#[cfg(test)]
#[path = "connects_tests.rs"]
mod tests;
