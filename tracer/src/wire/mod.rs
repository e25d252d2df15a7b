//! Bytes to sightings: link, IP, UDP and TCP, DNS; lax, without I/O.
//!
//! One frame gives none, one or several sightings. Whatever decodes is kept, what does not is counted in
//! [`WireCounters`]; nothing that a packet holds can stop the decoder. In steady state no packet allocates: one
//! sighting is filled again and again.

mod dns;
mod emit;
mod ip;
mod link;
mod udp;

use crate::model::{Frame, Sighting, Vantages};
use emit::Emitter;
use ip::{Packet, Unread, protocol};

/// What the decoder did with the frames it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounters {
    /// Frames given to the decoder.
    pub frames: u64,
    /// DNS messages told, once for each vantage that saw them.
    pub dns_messages: u64,
    /// ICMP errors about DNS packets told.
    pub icmp_errors: u64,
    /// Packets and messages that the capture's snap length cut before all of them was read.
    pub truncated: u64,
    /// Packets and messages that break their own format.
    pub malformed: u64,
    /// Frames that carry no DNS: other ports, other protocols, links not understood.
    pub not_dns: u64,
    /// TCP streams and fragmented datagrams dropped before they were complete.
    pub given_up: u64,
}

/// Decodes frames. Holds the state of TCP streams and fragments, so that one decoder serves one session.
#[derive(Debug)]
pub struct Decoder {
    ports: PortSet,
    emitter: Emitter,
}

impl Decoder {
    /// A decoder that takes these UDP and TCP ports for DNS, on either side; 53 where `ports` is empty.
    #[must_use]
    pub fn new(ports: &[u16]) -> Self {
        Self { ports: PortSet::new(ports), emitter: Emitter::default() }
    }

    /// Decodes one frame and tells `out` each DNS message and ICMP error in it.
    ///
    /// `vantages` is the table of `frame.vantage`: a cooked link header names interfaces of its own, which are
    /// entered there.
    pub fn decode(&mut self, frame: &Frame<'_>, vantages: &Vantages, out: &mut impl FnMut(&Sighting)) {
        let _ = vantages;
        self.emitter.counters.frames += 1;
        let Some(link) = link::strip(frame.link, frame.bytes) else {
            self.emitter.counters.not_dns += 1;
            return;
        };
        let link_len = frame.bytes.len() - link.bytes.len();
        let wire_len = usize::try_from(frame.original_len).unwrap_or(usize::MAX).max(frame.bytes.len());
        match ip::parse(link.bytes, wire_len - link_len) {
            Ok(packet) => {
                self.emitter.begin(frame, &packet, frame.vantage, link.destination_mac);
                self.packet(frame, &packet, out);
            }
            Err(Unread::Malformed) => self.emitter.counters.malformed += 1,
            Err(Unread::NotIp) => self.emitter.counters.not_dns += 1,
            Err(Unread::Truncated) => self.emitter.counters.truncated += 1,
        }
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> WireCounters {
        self.emitter.counters
    }

    fn packet(&mut self, frame: &Frame<'_>, packet: &Packet<'_>, out: &mut impl FnMut(&Sighting)) {
        match packet.protocol {
            protocol::UDP => self.udp(packet.payload, packet.wire_len, frame.segment_size, out),
            _ => self.emitter.counters.not_dns += 1,
        }
    }

    fn udp(&mut self, payload: &[u8], wire_len: usize, segment_size: u16, out: &mut impl FnMut(&Sighting)) {
        let Some(datagram) = udp::parse(payload, wire_len, segment_size > 0) else {
            self.emitter.count_unread(payload.len(), wire_len);
            return;
        };
        if !self.ports.either(datagram.source_port, datagram.destination_port) {
            self.emitter.counters.not_dns += 1;
            return;
        }
        self.emitter.udp_ports(datagram.source_port, datagram.destination_port);
        for (message, size) in datagram.segments(segment_size) {
            self.emitter.dns(message, size, out);
        }
    }
}

/// The ports that are DNS, one bit each.
#[derive(Debug)]
struct PortSet(Box<[u64; 1024]>);

impl PortSet {
    fn new(ports: &[u16]) -> Self {
        let mut bits = Box::new([0; 1024]);
        for &port in if ports.is_empty() { &[53] } else { ports } {
            bits[usize::from(port >> 6)] |= 1 << (port & 63);
        }
        Self(bits)
    }

    fn either(&self, source: u16, destination: u16) -> bool {
        self.contains(source) || self.contains(destination)
    }

    fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] >> (port & 63) & 1 != 0
    }
}
