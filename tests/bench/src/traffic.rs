//! Traffic of a cluster, made from a seed: pods that walk four search suffixes before each name, so that 80 % of the
//! answers are NXDOMAIN; some answers never come.

use std::{cmp::Reverse, collections::BinaryHeap};

use fastrand::Rng;

/// What is appended to a name, in the order a resolver tries: the last is the name itself.
pub const SUFFIXES: [&str; 5] =
    [".default.svc.cluster.local", ".svc.cluster.local", ".cluster.local", ".corp.internal", ""];

const SECOND: f64 = 1e9;
/// glibc's interval, and how often it asks.
const RETRY: u64 = 5_000_000_000;
const ATTEMPTS: u8 = 2;

/// What the traffic is like.
#[derive(Clone, Debug, clap::Args)]
pub struct Traffic {
    /// Pods that ask
    #[arg(long, default_value_t = 246)]
    pub clients: u32,
    /// Lookups that begin in a second, over all pods; each is ten queries
    #[arg(long, default_value_t = 2_000.0)]
    pub lookups_per_second: f64,
    /// Share of queries whose answer never comes
    #[arg(long, default_value_t = 0.001)]
    pub unanswered: f64,
    /// Different names that are looked up
    #[arg(long, default_value_t = 500)]
    pub names: u32,
    /// The same seed makes the same traffic
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { clients: 246, lookups_per_second: 2_000.0, unanswered: 0.001, names: 500, seed: 1 }
    }
}

/// One DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Nanoseconds since the traffic began.
    pub time: u64,
    /// Which client.
    pub client: u32,
    /// Its port.
    pub port: u16,
    /// The DNS id.
    pub id: u16,
    /// Which name.
    pub name: u32,
    /// Which of [`SUFFIXES`] is appended.
    pub suffix: u8,
    /// AAAA; else A.
    pub aaaa: bool,
    /// An answer; else a query.
    pub response: bool,
}

impl Message {
    /// Whether its answer is NXDOMAIN: only the name itself exists.
    pub fn exists(&self) -> bool {
        usize::from(self.suffix) == SUFFIXES.len() - 1
    }
}

impl Traffic {
    /// Its messages in the order of their time, without end.
    pub fn messages(&self) -> Messages {
        let mut messages = Messages {
            traffic: self.clone(),
            random: Rng::with_seed(self.seed),
            due: BinaryHeap::new(),
            made: 0,
        };
        messages.push(0, Event::Arrival);
        messages
    }
}

/// See [`Traffic::messages`].
pub struct Messages {
    traffic: Traffic,
    random: Rng,
    due: BinaryHeap<Reverse<(u64, u64, Event)>>,
    made: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A pod looks up a name.
    Arrival,
    /// A resolver sends A and AAAA for a candidate.
    Step(Step),
    Message(Message),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    client: u32,
    name: u32,
    suffix: u8,
    /// Port and ids, where it asks again.
    again: Option<(u16, [u16; 2])>,
    attempt: u8,
}

impl Messages {
    fn push(&mut self, time: u64, event: Event) {
        // The number keeps the order of what is due at one time.
        self.made += 1;
        self.due.push(Reverse((time, self.made, event)));
    }

    fn arrive(&mut self, now: u64) {
        let gap = -(1.0 - self.random.f64()).ln() / self.traffic.lookups_per_second * SECOND;
        self.push(now + gap as u64, Event::Arrival);
        let (client, name) =
            (self.random.u32(..self.traffic.clients.max(1)), self.random.u32(..self.traffic.names.max(1)));
        self.step(now, Step { client, name, suffix: 0, again: None, attempt: 1 });
    }

    /// Sends both queries and decides what becomes of them.
    fn step(&mut self, now: u64, step: Step) {
        let Step { client, name, suffix, .. } = step;
        let (port, ids) = step
            .again
            .unwrap_or_else(|| (self.random.u16(32_768..61_000), [self.random.u16(..), self.random.u16(..)]));
        let (mut answered, mut done) = (0, now);
        for (index, id) in ids.into_iter().enumerate() {
            let sent = now + index as u64 * self.random.u64(5_000..40_000);
            let query =
                Message { time: sent, client, port, id, name, suffix, aaaa: index == 1, response: false };
            self.push(sent, Event::Message(query));
            if self.random.f64() >= self.traffic.unanswered {
                let time = sent + self.random.u64(80_000..900_000);
                self.push(time, Event::Message(Message { time, response: true, ..query }));
                (answered, done) = (answered + 1, done.max(time));
            }
        }
        if answered == ids.len() {
            if usize::from(suffix) + 1 < SUFFIXES.len() {
                let next = Step { client, name, suffix: suffix + 1, again: None, attempt: 1 };
                let thought = done + self.random.u64(20_000..80_000);
                self.push(thought, Event::Step(next));
            }
        } else if step.attempt < ATTEMPTS {
            let again = Step { again: Some((port, ids)), attempt: step.attempt + 1, ..step };
            self.push(now + RETRY, Event::Step(again));
        }
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        loop {
            let Reverse((time, _, event)) = self.due.pop()?;
            match event {
                Event::Arrival => self.arrive(time),
                Event::Step(step) => self.step(time, step),
                Event::Message(message) => return Some(message),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(traffic: &Traffic, count: usize) -> Vec<Message> {
        traffic.messages().take(count).collect()
    }

    #[test]
    fn one_seed_makes_one_traffic() {
        let traffic = Traffic::default();
        assert_eq!(first(&traffic, 20_000), first(&traffic, 20_000));
        assert_ne!(first(&traffic, 100), first(&Traffic { seed: 2, ..traffic }, 100));
    }

    #[test]
    fn its_shares_are_those_asked_for() {
        let all = first(&Traffic { unanswered: 0.01, ..Traffic::default() }, 200_000);
        assert!(all.is_sorted_by_key(|message| message.time));
        let count = |wanted: fn(&&Message) -> bool| all.iter().filter(wanted).count() as f64;
        let answers = count(|message| message.response);
        let nxdomain = count(|message| message.response && !message.exists());
        assert!((nxdomain / answers - 0.8).abs() < 0.01, "{}", nxdomain / answers);
        let lost = 1.0 - answers / (all.len() as f64 - answers);
        assert!((lost - 0.01).abs() < 0.003, "{lost}");
        let clients: std::collections::HashSet<u32> = all.iter().map(|message| message.client).collect();
        assert_eq!(clients.len(), 246);
    }

    #[test]
    fn who_gets_no_answer_asks_once_more_after_five_seconds() {
        let silent = Traffic { unanswered: 1.0, lookups_per_second: 0.001, ..Traffic::default() };
        let all = first(&silent, 4);
        assert!(all.iter().all(|message| !message.response && message.suffix == 0));
        assert_eq!((all[0].id, all[0].port, all[0].time + RETRY), (all[2].id, all[2].port, all[2].time));
    }
}
