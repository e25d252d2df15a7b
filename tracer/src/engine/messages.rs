//! Sightings → messages: one message on the wire is one message here, however many vantages saw it.
//!
//! A packet keeps its DNS id, name, type and transport on its whole way, and its IPv4 identification. What
//! conntrack changes follows from its tuples where the kernel side read them; else the change is inferred within
//! [`UNTOLD_WINDOW`]: DNAT leaves the client's address and port, SNAT the server's. A vantage sees a message
//! once: what it sees again is a retransmission, or a capture's duplicate.

use super::{
    Engine,
    hops::{HopRecord, OtherFlow, Way},
    intern::Endpoint,
    records::{Bits, MessageRecord, Packet},
    table::{NONE, Place},
};
use crate::model::{Observer, Wanted};

/// A translation nobody told of is believed this long after the message's first sighting.
const UNTOLD_WINDOW: u64 = 50_000_000;
/// A capture that sees a frame twice does so within this time.
const DUPLICATE_WINDOW: u64 = 1_500_000;
/// Messages of one name, type and id that are looked at.
const LONGEST_WALK: usize = 64;
/// IPv4 identifications are compared for UDP: segmentation offload gives TCP segments new ones.
const NO_IP_ID: u16 = 0;

/// A packet's two sides before translation, as far as they are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sides {
    pub(super) client: Endpoint,
    /// The service address where conntrack told it.
    pub(super) asked: Endpoint,
    /// The answering side where conntrack told it.
    pub(super) backend: Endpoint,
    /// The server's side as this packet has it.
    pub(super) far: Endpoint,
    /// The client's side as this packet has it.
    pub(super) near: Endpoint,
}

enum Known {
    Hop(Place),
    Duplicate,
    No,
}

impl Engine {
    pub(super) fn process(&mut self, packet: &Packet, out: &mut impl Observer) {
        self.now = self.now.max(packet.time);
        self.run_timers(out);
        if packet.bits.has(Bits::ICMP) {
            self.icmp(packet, out.wants_messages());
            return;
        }
        let sides = self.sides(packet);
        let newest = self.by_id.newest(&self.messages, &packet.dns.key());
        match self.known(packet, &sides, newest) {
            Known::Hop(place) => {
                self.add_hop(place, packet, &sides);
                self.drop_packet(packet);
            }
            Known::Duplicate => {
                self.counters.duplicates += 1;
                self.drop_packet(packet);
            }
            Known::No if packet.bits.has(Bits::RESPONSE) => {
                let place = self.new_response(packet, &sides, newest);
                self.await_hops(place, out.wants_messages());
            }
            Known::No => self.new_query(packet, &sides, out),
        }
    }

    fn sides(&mut self, packet: &Packet) -> Sides {
        let response = packet.bits.has(Bits::RESPONSE);
        let (near, far) =
            if response { (packet.destination, packet.source) } else { (packet.source, packet.destination) };
        let nat = packet.nat;
        if nat.client.is_some() {
            self.nat_told = true;
            if nat.client_outside != nat.client {
                self.aliases.learn(nat.client_outside, nat.client, packet.time);
            }
            return Sides { client: nat.client, asked: nat.server, backend: nat.backend, far, near };
        }
        let client = self.aliases.inside(near).unwrap_or(near);
        Sides { client, asked: Endpoint::NONE, backend: Endpoint::NONE, far, near }
    }

    /// The message this packet is a further sighting of: of those that fit best, the oldest. `newest` is the last one of
    /// its name, type and id.
    fn known(&self, packet: &Packet, sides: &Sides, newest: Place) -> Known {
        let response = packet.bits.has(Bits::RESPONSE);
        let (mut best, mut best_fit) = (NONE, 0);
        let mut place = newest;
        for _ in 0..LONGEST_WALK {
            if place == NONE {
                break;
            }
            let message = self.messages.at(place);
            let older = message.same_id_links.older;
            let target = match (response, message.bits.has(Bits::RESPONSE)) {
                (true, false) => message.peer,
                (false, true) => NONE,
                _ => place,
            };
            place = older;
            if target == NONE {
                continue;
            }
            let record = self.messages.at(target);
            let fit = self.fit(record, packet, sides);
            if fit == 0 {
                continue;
            }
            match self.hop_at(record, packet.vantage) {
                None if fit >= best_fit => (best, best_fit) = (target, fit),
                Some(hop)
                    if packet.ip_id != NO_IP_ID
                        && hop.ttl == packet.ttl
                        && record.ip_id == packet.ip_id
                        && packet.time.abs_diff(record.time + u64::from(hop.offset)) <= DUPLICATE_WINDOW =>
                {
                    return Known::Duplicate;
                }
                _ => {}
            }
        }
        if best == NONE { Known::No } else { Known::Hop(best) }
    }

    /// How well a packet fits a message as a further sighting: 0 not at all, 3 for certain.
    fn fit(&self, record: &MessageRecord, packet: &Packet, sides: &Sides) -> u8 {
        let age = packet.time.abs_diff(record.time);
        let same_transport = record.bits.has(Bits::TCP) == packet.bits.has(Bits::TCP);
        let same_packet = packet.bits.has(Bits::TCP)
            || record.ip_id == NO_IP_ID
            || packet.ip_id == NO_IP_ID
            || record.ip_id == packet.ip_id;
        if age > self.config.hop_window_nanos() || !same_transport || !same_packet {
            return 0;
        }
        let far_known = sides.far == record.server || sides.far == record.backend;
        if record.client == sides.client {
            if sides.asked.is_some() {
                let same = sides.asked == record.server
                    || sides.backend == record.server
                    || sides.far == record.server;
                return if same { 3 } else { 0 };
            }
            let translated =
                record.backend.is_none() && sides.far.port() == record.server.port() && age <= UNTOLD_WINDOW;
            return if far_known { 3 } else { u8::from(translated) * 2 };
        }
        // A copy with another source that nobody explained: forwarded, so its TTL is lower.
        let forwarded = record.hops.first().ttl != packet.ttl;
        u8::from(far_known && forwarded && !self.nat_told && age <= UNTOLD_WINDOW)
    }

    fn hop_at(&self, record: &MessageRecord, vantage: u16) -> Option<HopRecord> {
        record.hops.iter(&self.further_hops).find(|hop| hop.vantage == vantage)
    }

    fn new_query(&mut self, packet: &Packet, sides: &Sides, out: &mut impl Observer) {
        let server = if sides.asked.is_some() { sides.asked } else { sides.far };
        let place = self.new_message(packet, sides.client, server, NONE);
        self.messages.at_mut(place).bits.set(Bits::CHAINED, true);
        self.by_id.push(&mut self.messages, place);
        self.add_hop(place, packet, sides);
        self.counters.queries += 1;
        self.servers.note(server);
        self.ask(place, out);
        self.await_hops(place, out.wants_messages());
        if self.drops.awaits_tcp() && packet.bits.has(Bits::TCP) {
            self.join_syns(place, out);
        }
    }

    /// Makes the record of a message whose first sighting this is; it takes over what the packet holds.
    pub(super) fn new_message(
        &mut self,
        packet: &Packet,
        client: Endpoint,
        server: Endpoint,
        peer: Place,
    ) -> Place {
        self.messages.insert(MessageRecord {
            time: packet.time,
            client,
            server,
            dns: packet.dns,
            peer,
            extra: packet.extra,
            ip_id: packet.ip_id,
            bits: packet.bits,
            ..MessageRecord::default()
        })
    }

    /// Has a message told when its way is complete, if it is told at all; and one that no question holds let go then.
    pub(super) fn await_hops(&mut self, place: Place, wanted: Wanted) {
        let told = self.is_wanted(place, wanted).is_some();
        let record = self.messages.at_mut(place);
        if (told || !record.bits.has(Bits::OWNED)) && !record.bits.has(Bits::IN_WINDOW) {
            record.bits.set(Bits::IN_WINDOW, true);
            let time = record.time;
            self.window.push_back((time, place));
        }
    }

    /// Adds a sighting, and what it says of the message's addresses.
    pub(super) fn add_hop(&mut self, place: Place, packet: &Packet, sides: &Sides) {
        let record = self.messages.at(place);
        if sides.near == record.client && sides.far == record.server && sides.asked.is_none() {
            // As it was asked: nothing new of its addresses.
            self.push_hop(place, packet, Way::ASKED);
            return;
        }
        let (server, backend) = if sides.asked.is_some() {
            (sides.asked, sides.backend)
        } else if record.client != sides.client || sides.far == record.server {
            (record.server, record.backend)
        } else {
            (record.server, sides.far)
        };
        if record.client != sides.client {
            self.aliases.learn(sides.near, record.client, packet.time);
        }
        self.set_server(place, server, if backend == server { Endpoint::NONE } else { backend });

        let record = self.messages.at(place);
        let way = if sides.near == record.client && sides.far == record.server {
            Way::ASKED
        } else if sides.near == record.client && sides.far == record.backend {
            Way::TRANSLATED
        } else {
            let flow = OtherFlow { source: packet.source, destination: packet.destination };
            Way(self.flows.insert(flow))
        };
        self.push_hop(place, packet, way);
    }

    fn push_hop(&mut self, place: Place, packet: &Packet, way: Way) {
        let record = self.messages.at_mut(place);
        let offset = u32::try_from(packet.time.saturating_sub(record.time)).unwrap_or(u32::MAX);
        let hop = HopRecord::new(packet.frame, offset, way, packet.vantage, packet.ttl);
        record.hops.push(hop, &mut self.further_hops);
    }

    /// Changes what is known of the server's addresses; hops that were told by the old ones get their own.
    fn set_server(&mut self, place: Place, server: Endpoint, backend: Endpoint) {
        let record = self.messages.at(place);
        let (old_server, old_backend, client) = (record.server, record.backend, record.client);
        if old_server == server && (old_backend == backend || backend.is_none()) {
            return;
        }
        let response = record.bits.has(Bits::RESPONSE);
        let Self { messages, further_hops, flows, .. } = self;
        messages.at_mut(place).hops.change_ways(further_hops, |way| {
            let far = match way {
                Way::ASKED => old_server,
                Way::TRANSLATED => old_backend,
                _ => Endpoint::NONE,
            };
            if far.is_none() {
                way
            } else if far == server {
                Way::ASKED
            } else if far == backend {
                Way::TRANSLATED
            } else {
                let (source, destination) = if response { (far, client) } else { (client, far) };
                Way(flows.insert(OtherFlow { source, destination }))
            }
        });
        if backend.is_some() {
            self.servers.note(backend);
        }
        let record = self.messages.at_mut(place);
        record.server = server;
        record.backend = backend;
    }

    /// Whether a query was seen with this address as its source: a translation without conntrack's word.
    pub(super) fn left_as(&self, record: &MessageRecord, source: Endpoint) -> bool {
        let other = |hop: HopRecord| hop.flow.other().map(|place| self.flows.at(place).source);
        record.hops.iter(&self.further_hops).any(|hop| other(hop) == Some(source))
    }

    /// Gives back what a packet holds.
    pub(super) fn drop_packet(&mut self, packet: &Packet) {
        self.names.release(packet.dns.name);
        self.drop_extra(packet.extra);
    }

    pub(super) fn drop_extra(&mut self, extra: Place) {
        if extra != NONE
            && let Some(target) = self.extras.remove(extra).cname_target
        {
            self.names.release(target);
        }
    }

    /// Tells the messages whose hop window has passed.
    pub(super) fn tell_messages(&mut self, now: u64, out: &mut impl Observer) {
        let window = self.config.hop_window_nanos();
        while let Some(&(time, place)) = self.window.front() {
            if time.saturating_add(window) > now && self.window.len() <= self.config.capacity {
                break;
            }
            self.window.pop_front();
            if !self.messages.at(place).bits.has(Bits::TOLD) {
                self.tell_message(place, out);
            }
            let bits = &mut self.messages.at_mut(place).bits;
            bits.set(Bits::TOLD, true);
            bits.set(Bits::IN_WINDOW, false);
            self.free_message(place);
        }
    }

    /// Frees a message that neither its hop window nor its question holds.
    pub(super) fn free_message(&mut self, place: Place) {
        let bits = self.messages.at(place).bits;
        if bits.has(Bits::IN_WINDOW) || bits.has(Bits::OWNED) {
            return;
        }
        if bits.has(Bits::CHAINED) {
            self.by_id.remove(&mut self.messages, place);
        }
        if bits.has(Bits::HAS_DROP) {
            self.drops.forget(place);
        }
        let record = self.messages.at(place);
        let (name, icmp, extra) = (record.dns.name, record.icmp, record.extra);
        record.hops.free(&mut self.further_hops, &mut self.flows);
        self.messages.free(place);
        if icmp != NONE {
            self.icmps.free(icmp);
        }
        self.names.release(name);
        self.drop_extra(extra);
    }
}
