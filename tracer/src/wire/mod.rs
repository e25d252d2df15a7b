//! Bytes to sightings: link, IP, UDP and TCP, DNS; lax, without I/O.
//!
//! One frame gives none, one or several sightings. Whatever decodes is kept, what does not is counted in
//! [`WireCounters`]; nothing that a packet holds can stop the decoder. In steady state no packet allocates: one
//! sighting is filled again and again.

mod connects;
mod cooked;
mod dns;
mod drops;
mod emit;
mod fragments;
mod icmp;
mod ip;
mod link;
mod stream;
mod streams;
mod tcp;
mod udp;

use crate::model::{ConnectPacket, Frame, Sighting, Timestamp, Transport, Vantages};
use cooked::CookedVantages;
use emit::Emitter;
use fragments::{Datagram, Fragments};
use ip::{Fragment, Packet, Unread, protocol};
use streams::Streams;

/// What the decoder did with the frames it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounters {
    /// Frames given to the decoder.
    pub frames: u64,
    /// DNS messages told, once for each vantage that saw them.
    pub dns_messages: u64,
    /// ICMP errors about DNS packets told.
    pub icmp_errors: u64,
    /// Packets and messages that are not there to their end: cut by the capture's snap length, or by a segment or
    /// fragment that never came.
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
    cooked: CookedVantages,
    fragments: Fragments,
    streams: Streams,
    emitter: Emitter,
    words: drops::Words,
    /// `None` where connections are not followed.
    connects: Option<connects::Last>,
    /// A packet to or from the port of encrypted DNS was seen.
    encrypted: bool,
}

impl Decoder {
    /// A decoder that takes these UDP and TCP ports for DNS, on either side; 53 where `ports` is empty.
    #[must_use]
    pub fn new(ports: &[u16]) -> Self {
        Self {
            ports: PortSet::new(ports),
            cooked: CookedVantages::default(),
            fragments: Fragments::default(),
            streams: Streams::default(),
            emitter: Emitter::default(),
            words: drops::Words::default(),
            connects: None,
            encrypted: false,
        }
    }

    /// Reads the beginnings of connections that are none of DNS, too: see [`Self::take_connect`].
    #[must_use]
    pub fn following_connects(self) -> Self {
        Self { connects: Some(connects::Last::default()), ..self }
    }

    /// What the frame decoded last says of a connection's beginning.
    pub fn take_connect(&mut self) -> Option<ConnectPacket> {
        self.connects.as_mut()?.take()
    }

    /// Decodes one frame and tells `out` each DNS message and ICMP error in it.
    ///
    /// `vantages` is the table of `frame.vantage`: a cooked link header names interfaces of its own, which are
    /// entered there. A frame with a mark is no sighting: see [`Self::packet_drop`].
    pub fn decode(&mut self, frame: &Frame<'_>, vantages: &Vantages, out: &mut impl FnMut(&Sighting)) {
        if frame.drop.is_some() {
            return;
        }
        if self.fragments.any() || self.streams.any_waiting() {
            self.advance(frame.time, out);
        }
        self.emitter.counters.frames += 1;
        let Some(link) = link::strip(frame.link, frame.bytes) else {
            self.emitter.counters.not_dns += 1;
            return;
        };
        let link_len = frame.bytes.len() - link.bytes.len();
        let wire_len = usize::try_from(frame.original_len).unwrap_or(usize::MAX).max(frame.bytes.len());
        match ip::parse(link.bytes, wire_len - link_len) {
            Ok(packet) => {
                let vantage = match link.cooked {
                    Some(cooked) => self.cooked.vantage(frame.vantage, cooked, vantages),
                    None => frame.vantage,
                };
                self.emitter.begin(frame, &packet, vantage, &link);
                self.packet(&packet, frame.segment_size, out);
            }
            Err(Unread::Malformed) => self.emitter.counters.malformed += 1,
            Err(Unread::NotIp) => self.emitter.counters.not_dns += 1,
            Err(Unread::Truncated) => self.emitter.count_unread(frame.bytes.len(), wire_len),
        }
    }

    /// Tells what was waited for long enough: fragments and TCP segments whose rest did not come by `now`.
    ///
    /// [`Self::decode`] does this with each frame's time; a live session without frames does it by its tick.
    pub fn advance(&mut self, now: Timestamp, out: &mut impl FnMut(&Sighting)) {
        while let Some(datagram) = self.fragments.give_up(now) {
            self.incomplete(datagram, out);
        }
        self.streams.advance(now, &mut self.emitter, out);
    }

    /// The session ends: tells what is there of fragments and TCP segments whose rest did not come.
    pub fn finish(&mut self, out: &mut impl FnMut(&Sighting)) {
        while let Some(datagram) = self.fragments.give_up(Timestamp::MAX) {
            self.incomplete(datagram, out);
        }
        self.streams.finish(&mut self.emitter, out);
    }

    /// Whether there were packets of encrypted DNS, which are not read.
    #[must_use]
    pub const fn has_encrypted(&self) -> bool {
        self.encrypted
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> WireCounters {
        self.emitter.counters
    }

    fn packet(&mut self, packet: &Packet<'_>, segment_size: u16, out: &mut impl FnMut(&Sighting)) {
        match (packet.protocol, packet.fragment) {
            (protocol::UDP | protocol::TCP, Some(fragment)) => self.fragment(packet, fragment, out),
            (protocol::UDP | protocol::TCP, None) => {
                self.transport(packet.protocol, packet.payload, packet.wire_len, segment_size, out);
            }
            (protocol::ICMP | protocol::ICMPV6, None) => match icmp::parse(packet) {
                Some(error)
                    if self.ports.either(error.quoted.source.port(), error.quoted.destination.port()) =>
                {
                    self.emitter.icmp(error, out);
                }
                Some(error) => {
                    self.emitter.counters.not_dns += 1;
                    if let Some(last) = &mut self.connects {
                        last.unreachable(&error, packet, &self.emitter.envelope());
                    }
                }
                None => self.emitter.counters.not_dns += 1,
            },
            _ => self.emitter.counters.not_dns += 1,
        }
    }

    fn transport(
        &mut self,
        protocol: u8,
        bytes: &[u8],
        wire_len: usize,
        segment_size: u16,
        out: &mut impl FnMut(&Sighting),
    ) {
        match self.is_dns(bytes) {
            Some(true) if protocol == protocol::UDP => self.udp(bytes, wire_len, segment_size, out),
            Some(true) => self.tcp(bytes, wire_len, out),
            Some(false) => {
                self.emitter.counters.not_dns += 1;
                self.encrypted |= is_encrypted(bytes);
                if protocol == protocol::TCP
                    && let Some(last) = &mut self.connects
                {
                    last.segment(bytes, wire_len, &self.emitter.envelope());
                }
            }
            None => self.emitter.count_unread(bytes.len(), wire_len),
        }
    }

    /// Whether a UDP or TCP header has a DNS port; `None` where the ports are cut off.
    fn is_dns(&self, transport: &[u8]) -> Option<bool> {
        let &[s0, s1, d0, d1] = transport.first_chunk::<4>()?;
        Some(self.ports.either(u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
    }

    fn udp(&mut self, bytes: &[u8], wire_len: usize, segment_size: u16, out: &mut impl FnMut(&Sighting)) {
        let Some(datagram) = udp::parse(bytes, wire_len, segment_size > 0) else {
            self.emitter.count_unread(bytes.len(), wire_len);
            return;
        };
        self.emitter.ports(Transport::Udp, datagram.source_port, datagram.destination_port);
        for (message, size) in datagram.segments(segment_size) {
            self.emitter.dns(message, size, out);
        }
    }

    fn tcp(&mut self, bytes: &[u8], wire_len: usize, out: &mut impl FnMut(&Sighting)) {
        let Some(segment) = tcp::parse(bytes, wire_len) else {
            self.emitter.count_unread(bytes.len(), wire_len);
            return;
        };
        self.emitter.ports(Transport::Tcp, segment.source_port, segment.destination_port);
        self.streams.segment(&segment, &mut self.emitter, out);
    }

    fn fragment(&mut self, packet: &Packet<'_>, fragment: Fragment, out: &mut impl FnMut(&Sighting)) {
        let envelope = self.emitter.envelope();
        if fragment.offset == 0 && self.is_dns(packet.payload) == Some(false) {
            self.fragments.ignore(envelope, packet, fragment);
            self.emitter.counters.not_dns += 1;
        } else if let Some(datagram) = self.fragments.add(envelope, packet, fragment) {
            self.transport(datagram.protocol(), datagram.bytes(), datagram.wire_len(), 0, out);
            self.fragments.recycle(datagram);
        }
    }

    /// Tells a datagram as far as it is there.
    fn incomplete(&mut self, datagram: Datagram, out: &mut impl FnMut(&Sighting)) {
        self.emitter.restore(datagram.envelope);
        self.emitter.counters.given_up += 1;
        self.transport(datagram.protocol(), datagram.bytes(), datagram.wire_len(), 0, out);
        self.fragments.recycle(datagram);
    }
}

/// Whether a UDP or TCP header has the port of DNS over TLS and QUIC (RFC 7858, RFC 9250).
fn is_encrypted(transport: &[u8]) -> bool {
    const PORT: [u8; 2] = 853_u16.to_be_bytes();
    transport.get(..2) == Some(&PORT) || transport.get(2..4) == Some(&PORT)
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

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod robustness_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod stream_tests;
