//! The correlation core: sightings to messages, questions, steps, lookups. No I/O, no clock: time is an argument.
//!
//! The order of things:
//! 1. `reorder`: sightings wait for [`Config::slack`], then go on in the order of time.
//! 2. `messages`: a sighting is a further hop of a known message, or a new message.
//! 3. `questions`, `answers`: a query joins its question or opens one; a response and an ICMP error find the query
//!    they belong to.
//! 4. `lookups` (with `search`, `clients`): a question joins its lookup or opens one.
//! 5. `drops`: what the kernel dropped finds its message.
//! 6. Telling. A message is told when its hop window has passed; a lookup and its questions when nothing can
//!    continue it (`deadlines`, `timers`). `tell` builds what observers see, `outcome` and `family` judge it.
//!
//! Everything is bounded by [`Config::capacity`]: where there is no room, the oldest lookup is told as incomplete,
//! and counted. Records are small and name each other by place (`table`, `records`, `intern`).

mod aliases;
mod answers;
mod clients;
mod connects;
mod deadlines;
mod drops;
mod family;
mod hops;
mod intern;
mod lookups;
mod macs;
mod messages;
mod outcome;
mod questions;
mod records;
mod reorder;
mod scratch;
mod search;
mod table;
mod tell;
mod timers;
mod votes;

pub use connects::Connects;
pub use macs::Macs;
pub use search::SearchList;

use crate::model::{NatTuple, Observer, Sighting, SightingBody, Timestamp, Transport};
use clients::ClientRecord;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hops::{FurtherHop, OtherFlow};
use intern::{Addresses, Endpoint, Names};
use records::{
    Bits, Dns, DnsBits, Extra, IcmpRecord, LookupRecord, MessageRecord, Nat, Packet, QuestionRecord,
};
use reorder::Reorder;
use scratch::Scratch;
use std::{collections::VecDeque, net::IpAddr, time::Duration};
use table::{Chains, NONE, Place, Slab};
use timers::Wheel;

/// A sighting this much older than what was passed on shows a clock that was set back, if many follow.
const CLOCK_STEP: u64 = 1_000_000_000;
/// So many in a row are a clock that was set back, and not stragglers.
const CLOCK_STEP_RUN: u32 = 64;

/// What the engine is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Open questions at most; past it the oldest are let go.
    pub capacity: usize,
    /// Whether it is followed how connections to answered addresses begin.
    pub connects: bool,
    /// The search list of every client for whom no other was told.
    pub resolv_conf: Option<SearchList>,
    /// How far sightings may be out of order: nothing is decided sooner.
    pub slack: Duration,
    /// A message's sightings come within this time of the first.
    pub hop_window: Duration,
    /// How long a question without an answer waits for its next message at least; resolvers that double their
    /// timeouts get more.
    pub unanswered: Duration,
    /// Seed of the hash tables. Nothing that is told depends on it.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 262_144,
            connects: true,
            resolv_conf: None,
            slack: Duration::from_millis(50),
            hop_window: Duration::from_millis(100),
            unanswered: Duration::from_secs(12),
            seed: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl Config {
    fn hop_window_nanos(&self) -> u64 {
        nanos(self.hop_window)
    }
    /// Messages held at once: a query and its answer for each question, and those in their hop window.
    const fn most_messages(&self) -> usize {
        self.capacity.saturating_mul(2).saturating_add(1024)
    }
    fn unanswered_nanos(&self) -> u64 {
        nanos(self.unanswered)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What the engine has done so far. `opened` is always `closed` plus `open_questions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Sightings taken, ICMP errors included.
    pub sightings: u64,
    /// Query messages.
    pub queries: u64,
    /// Of those, messages whose question cannot be read: they belong to no question.
    pub unreadable: u64,
    /// Response messages, those without a query included.
    pub responses: u64,
    /// Response messages without a query.
    pub unmatched: u64,
    /// Query messages that ask again.
    pub retransmissions: u64,
    /// Sightings that a capture had twice.
    pub duplicates: u64,
    /// Sightings that came later than the slack allows: taken with their own time, but out of order.
    pub out_of_order: u64,
    /// Times that the clock was set back, whereupon everything open was told.
    pub clock_steps: u64,
    /// Questions open now.
    pub open_questions: u64,
    /// Questions opened.
    pub opened: u64,
    /// Questions told and let go.
    pub closed: u64,
    /// Of those, let go for want of room.
    pub evicted: u64,
    /// Lookups told.
    pub lookups: u64,
    /// Packets told that the kernel dropped.
    pub drops: u64,
}

/// Why a lookup ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Nothing can continue it.
    Quiet,
    /// There was no room.
    Evicted,
    /// The session ended.
    Session,
}

/// The state of a session. See the module's documentation.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    hasher: FixedState,
    names: Names,
    addresses: Addresses,
    aliases: aliases::Aliases,
    reorder: Reorder,
    wheel: Wheel,
    /// Messages whose hop window is open, by time.
    window: VecDeque<(u64, Place)>,
    messages: Slab<MessageRecord>,
    further_hops: Slab<FurtherHop>,
    flows: Slab<OtherFlow>,
    extras: Slab<Extra>,
    icmps: Slab<IcmpRecord>,
    questions: Slab<QuestionRecord>,
    lookups: Slab<LookupRecord>,
    clients: Slab<ClientRecord>,
    by_id: Chains,
    by_label: Chains,
    drops: drops::Drops,
    client_index: HashTable<Place>,
    sweep_clients_at: usize,
    /// Addresses that were asked: what these ask themselves, they ask for others.
    servers: aliases::Servers,
    /// Open lookups in the order they were opened: the ends of the list.
    oldest_lookup: Place,
    youngest_lookup: Place,
    /// The time up to which everything was decided.
    now: u64,
    /// The greatest number of a frame so far.
    newest_frame: u64,
    /// Sightings in a row that were far behind.
    behind: u32,
    started: bool,
    /// Conntrack's tuples come with this session: translations need not be guessed.
    nat_told: bool,
    counters: EngineCounters,
    fired: Vec<Place>,
    scratch: Option<Box<Scratch>>,
}

impl Engine {
    /// An engine at the start of a session.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let hasher = FixedState::with_seed(config.seed);
        Self {
            reorder: Reorder::new(nanos(config.slack)),
            drops: drops::Drops::new(nanos(config.slack), hasher.clone()),
            config,
            hasher: hasher.clone(),
            names: Names::new(hasher.clone()),
            addresses: Addresses::new(hasher.clone()),
            aliases: aliases::Aliases::new(hasher.clone()),
            wheel: Wheel::new(),
            window: VecDeque::new(),
            messages: Slab::new(),
            further_hops: Slab::new(),
            flows: Slab::new(),
            extras: Slab::new(),
            icmps: Slab::new(),
            questions: Slab::new(),
            lookups: Slab::new(),
            clients: Slab::new(),
            by_id: Chains::new(hasher.clone()),
            by_label: Chains::new(hasher.clone()),
            client_index: HashTable::new(),
            sweep_clients_at: 16_384,
            servers: aliases::Servers::new(hasher.clone()),
            oldest_lookup: NONE,
            youngest_lookup: NONE,
            now: 0,
            newest_frame: 0,
            behind: 0,
            started: false,
            nat_told: false,
            counters: EngineCounters::default(),
            fired: Vec::new(),
            scratch: None,
        }
    }

    /// Tells the search list of one client, as its resolv.conf has it.
    pub fn set_search_list(&mut self, client: IpAddr, list: SearchList) {
        let address = self.addresses.address(client);
        let place = self.client(address, self.now);
        self.learnt_mut(place).list = Some(list);
    }

    /// Takes one sighting.
    pub fn observe(&mut self, sighting: &Sighting, out: &mut impl Observer) {
        self.counters.sightings += 1;
        self.newest_frame = self.newest_frame.max(sighting.frame);
        let time = sighting.time.as_nanos();
        if !self.started {
            self.started = true;
            self.restart(time);
        }
        self.note_clock(time, out);
        self.pass_on(time, out);
        let packet = self.packet(sighting);
        if let Some(late) = self.reorder.put(packet) {
            self.counters.out_of_order += 1;
            self.process(&late, out);
        }
        if self.addresses.wants_sweep() {
            self.sweep_addresses();
        }
    }

    /// Tells the engine that it is `now`: every sighting from before has been given to it, but for the slack.
    pub fn advance(&mut self, now: Timestamp, out: &mut impl Observer) {
        if self.started {
            self.pass_on(now.as_nanos(), out);
        }
    }

    /// When [`Self::advance`] has something to do, if nothing is observed before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let window = self.config.hop_window_nanos();
        let message = self.window.front().map(|(time, _)| time.saturating_add(window));
        let drop = (self.drops.next_due != u64::MAX).then_some(self.drops.next_due);
        let decided = [message, self.wheel.next_deadline(), drop].into_iter().flatten().min();
        let deadline = decided.map(|d| d.saturating_add(self.reorder.lag()));
        [deadline, self.reorder.next_deadline()].into_iter().flatten().min().map(Timestamp::from_nanos)
    }

    /// The session ends: tells everything that is still open.
    pub fn finish(&mut self, out: &mut impl Observer) {
        while let Some(bucket) = self.reorder.take(u64::MAX) {
            self.process_bucket(bucket, out);
        }
        self.join_all_drops(out);
        self.tell_messages(u64::MAX, out);
        while self.oldest_lookup != NONE {
            self.end_lookup(self.oldest_lookup, Ended::Session, out);
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> EngineCounters {
        let mut counters = self.counters;
        counters.open_questions = self.questions.len() as u64;
        counters
    }

    /// Octets that the engine's tables hold now.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.names.memory()
            + self.addresses.memory()
            + self.aliases.memory()
            + self.reorder.memory()
            + self.window.capacity() * size_of::<(u64, Place)>()
            + self.messages.memory()
            + self.further_hops.memory()
            + self.flows.memory()
            + self.extras.memory()
            + self.icmps.memory()
            + self.questions.memory()
            + self.lookups.memory()
            + self.clients.memory()
            + self.by_id.memory()
            + self.by_label.memory()
            + self.drops.memory()
            + self.client_index.capacity() * 6
            + self.servers.memory()
    }

    /// Passes on what is older than `now` by the slack.
    fn pass_on(&mut self, now: u64, out: &mut impl Observer) {
        while let Some(bucket) = self.reorder.take(now) {
            // What was due before these sightings comes before them, however far this call reaches.
            self.let_pass(self.reorder.taken_from(), out);
            self.process_bucket(bucket, out);
        }
        self.reorder.skip_to(now);
        self.let_pass(self.reorder.passed(), out);
    }

    fn let_pass(&mut self, passed: u64, out: &mut impl Observer) {
        if passed > self.now {
            self.now = passed;
            self.run_timers(out);
        }
    }

    fn process_bucket(&mut self, bucket: Vec<Packet>, out: &mut impl Observer) {
        for packet in &bucket {
            self.process(packet, out);
        }
        self.reorder.give_back(bucket);
    }

    /// A clock that was set back: everything open ends, and time starts anew.
    fn note_clock(&mut self, time: u64, out: &mut impl Observer) {
        if time.saturating_add(CLOCK_STEP) >= self.reorder.passed() {
            self.behind = 0;
            return;
        }
        self.behind += 1;
        if self.behind >= CLOCK_STEP_RUN {
            self.behind = 0;
            self.counters.clock_steps += 1;
            self.finish(out);
            self.restart(time);
        }
    }

    fn restart(&mut self, time: u64) {
        self.reorder.restart(time);
        self.now = self.reorder.passed();
        self.wheel.restart(self.now);
    }

    fn evict_oldest(&mut self, out: &mut impl Observer) {
        // A drop is told before its question.
        self.join_all_drops(out);
        if self.oldest_lookup != NONE {
            self.end_lookup(self.oldest_lookup, Ended::Evicted, out);
        }
    }

    fn packet(&mut self, sighting: &Sighting) -> Packet {
        let bits = Bits::default()
            .with(Bits::TCP, sighting.transport == Transport::Tcp)
            .with(Bits::DONT_FRAGMENT, sighting.dont_fragment);
        let mut packet = Packet {
            time: sighting.time.as_nanos(),
            frame: sighting.frame,
            source: self.addresses.endpoint(sighting.flow.source),
            destination: self.addresses.endpoint(sighting.flow.destination),
            extra: NONE,
            vantage: sighting.vantage.0,
            ip_id: sighting.ip_id,
            ttl: sighting.ttl,
            bits,
            ..Packet::default()
        };
        if let Some(nat) = &sighting.nat {
            packet.nat = self.nat(nat);
        }
        match &sighting.body {
            SightingBody::Icmp(error) => {
                packet.bits.set(Bits::ICMP, true);
                packet.extra = self.icmps.insert(IcmpRecord { error: Some(*error), time: packet.time });
            }
            SightingBody::Dns(message) => {
                packet.bits.set(Bits::RESPONSE, message.is_response());
                packet.dns = self.dns(message);
                let answer = &message.answer;
                if !answer.addresses.is_empty() || answer.cname_target.is_some() {
                    let names = &mut self.names;
                    packet.extra = self.extras.insert(Extra {
                        addresses: answer.addresses.clone(),
                        cname_target: answer.cname_target.as_ref().map(|n| names.hold(n.as_wire())),
                    });
                }
            }
        }
        packet
    }

    fn nat(&mut self, nat: &NatTuple) -> Nat {
        Nat {
            client: self.addresses.endpoint(nat.original.source),
            server: self.addresses.endpoint(nat.original.destination),
            backend: self.addresses.endpoint(nat.reply.source),
            client_outside: self.addresses.endpoint(nat.reply.destination),
        }
    }

    fn dns(&mut self, message: &crate::model::DnsMessage) -> Dns {
        let edns = message.edns.unwrap_or_default();
        let facts = [
            (message.has_question, DnsBits::HAS_QUESTION),
            (message.cut, DnsBits::CUT),
            (message.edns.is_some(), DnsBits::EDNS),
            (edns.dnssec_ok, DnsBits::DNSSEC_OK),
            (edns.cookie, DnsBits::COOKIE),
            (message.answer.authority_soa, DnsBits::SOA),
        ];
        Dns {
            name: self.names.hold(message.name.as_wire()),
            size: message.size,
            id: message.id,
            flags: message.flags.0,
            rcode: message.rcode.0,
            qtype: message.qtype.0,
            qclass: message.qclass.0,
            counts: message.counts,
            matching: message.answer.matching,
            edns_size: edns.udp_payload_size,
            edns_options: edns.options_len,
            bits: DnsBits(facts.iter().filter(|(on, _)| *on).fold(0, |bits, (_, bit)| bits | bit)),
        }
    }

    /// Forgets the IPv6 addresses that no record holds.
    fn sweep_addresses(&mut self) {
        let packets = self.reorder.iter().flat_map(|p| {
            [p.source, p.destination, p.nat.client, p.nat.server, p.nat.backend, p.nat.client_outside]
        });
        let messages = self.messages.iter().flat_map(|m| [m.client, m.server, m.backend]);
        let flows = self.flows.iter().flat_map(|f| [f.source, f.destination]);
        let endpoints = packets.chain(messages).chain(flows).chain(self.aliases.iter());
        let held = endpoints
            .filter(|e| e.is_some())
            .map(Endpoint::address)
            .chain(self.questions.iter().map(|q| q.client))
            .chain(self.clients.iter().map(|c| c.address))
            .chain(self.servers.iter());
        self.addresses.sweep(held);
    }
}
