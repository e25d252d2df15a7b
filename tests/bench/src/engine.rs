//! The decoder and the engine on frames made in memory: no kernel, no file, no thread beside them.

use std::net::{IpAddr, SocketAddr};

use dnspath::{
    engine::{Config, Engine},
    model::{
        Direction, Flow, Frame, InterfaceKind, LinkType, NatTuple, Timestamp, Vantage, VantageId, Vantages,
    },
    wire::Decoder,
};

use crate::{
    frames::{Names, SERVER, address, build},
    traffic::{Message, Traffic},
};

/// Where the traffic begins, in nanoseconds since 1970.
const BEGIN: u64 = 1_767_225_600_000_000_000;
/// From one vantage to the next.
const HOP: u64 = 5_000;
/// The service's only backend.
const BACKEND: [u8; 4] = [10, 244, 0, 2];
/// Longer than any frame of the traffic.
const LONGEST_FRAME: usize = 512;

/// How far each frame goes. What a part costs is the difference to the pass before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pass {
    /// Made, and that is all
    Frames,
    /// And decoded
    Decode,
    /// And given to the engine
    Engine,
}

/// Plays messages to a decoder and an engine, each message at two vantages: the client's link and, translated, the
/// backend's.
pub struct Player {
    names: Names,
    frame: Vec<u8>,
    played: u64,
    /// Octets of all frames, so that the first pass has a result.
    octets: u64,
    vantages: Vantages,
    ids: [VantageId; 4],
    decoder: Decoder,
    engine: Engine,
}

impl Player {
    /// At the start of a session.
    pub fn new(traffic: &Traffic) -> Self {
        let vantages = Vantages::new();
        let ids = [
            ("veth-client", Direction::Ingress),
            ("veth-dns", Direction::Egress),
            ("veth-dns", Direction::Ingress),
            ("veth-client", Direction::Egress),
        ];
        let ids = ids.map(|(interface, direction)| {
            let kind = InterfaceKind::Veth;
            vantages.intern(Vantage { interface: interface.into(), direction, kind, ..Vantage::default() })
        });
        Self {
            names: Names::new(traffic.names),
            frame: Vec::with_capacity(LONGEST_FRAME),
            played: 0,
            octets: 0,
            vantages,
            ids,
            decoder: Decoder::new(&[53]),
            engine: Engine::new(Config::default()),
        }
    }

    /// One message, both its frames.
    pub fn play(&mut self, message: &Message, pass: Pass) {
        // What leaves for a pod has been translated: its connection's tuples come with it.
        let ends = match message.response {
            false => [(SERVER, self.ids[0], false), (BACKEND, self.ids[1], true)],
            true => [(BACKEND, self.ids[2], false), (SERVER, self.ids[3], true)],
        };
        for (hop, (server, vantage, translated)) in ends.into_iter().enumerate() {
            build(message, server, &self.names, &mut self.frame);
            self.played += 1;
            self.octets += self.frame.len() as u64;
            if pass == Pass::Frames {
                continue;
            }
            let frame = Frame {
                number: self.played,
                time: Timestamp::from_nanos(BEGIN + message.time + hop as u64 * HOP),
                vantage,
                link: LinkType::Ethernet,
                original_len: self.frame.len() as u32,
                bytes: &self.frame,
                segment_size: 0,
                nat: translated.then(|| translation(message)),
                drop: None,
            };
            let engine = &mut self.engine;
            self.decoder.decode(&frame, &self.vantages, &mut |sighting| {
                if pass == Pass::Engine {
                    engine.observe(std::hint::black_box(sighting), &mut ());
                } else {
                    std::hint::black_box(sighting);
                }
            });
        }
    }

    /// Frames so far, and their octets.
    pub fn played(&self) -> (u64, u64) {
        (self.played, self.octets)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

fn translation(message: &Message) -> NatTuple {
    let end = |octets: [u8; 4], port| SocketAddr::new(IpAddr::from(octets), port);
    let client = end(address(message.client), message.port);
    NatTuple {
        original: Flow { source: client, destination: end(SERVER, 53) },
        reply: Flow { source: end(BACKEND, 53), destination: client },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_understands_what_it_is_told() {
        let traffic = Traffic { lookups_per_second: 100.0, ..Traffic::default() };
        let mut player = Player::new(&traffic);
        let messages: Vec<Message> = traffic.messages().take(20_000).collect();
        for message in &messages {
            player.play(message, Pass::Engine);
        }
        let mut engine = player.engine;
        engine.finish(&mut ());
        let counters = engine.counters();
        let queries = messages.iter().filter(|message| !message.response).count() as u64;
        assert_eq!((counters.sightings, counters.queries), (40_000, queries));
        assert_eq!((counters.responses, counters.unmatched), (20_000 - queries, 0));
        // Ten queries are one lookup, and both copies of a message are one message.
        let lookups = counters.lookups as f64 / (queries as f64 / 10.0);
        assert!((lookups - 1.0).abs() < 0.1, "{lookups} of the lookups there were");
    }
}
