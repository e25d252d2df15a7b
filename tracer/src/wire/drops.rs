//! What the drop probe tells of a packet (a frame with a [`crate::model::DropMark`]).
//!
//! Rule: the packet is read as far as its bytes go, and what they do not say is taken from its connection's tuples. It
//! is no sighting, no part of a TCP stream and no piece of a datagram: the kernel freed it. An ICMP error is left
//! out, for the packet that it quotes was not dropped.

use super::{
    Decoder, PortSet, dns,
    ip::{self, Packet, protocol},
    link, tcp, udp,
};
use crate::model::{DnsMessage, Flow, Frame, MacAddress, NatTuple, PacketDrop, Transport};
use std::{net::SocketAddr, sync::Arc};

/// Different reasons and places that are held once; kernels have some hundred.
const MOST_WORDS: usize = 512;
/// Octets of a reason or place; symbols of the kernel have at most 512 (`KSYM_NAME_LEN`).
const LONGEST_WORD: usize = 512;
/// Octets of the length before a DNS message over TCP (RFC 1035 section 4.2.2).
const PREFIX: usize = 2;

/// Reasons and places, each held once.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<Arc<str>>);

impl Words {
    /// A file can say anything: what is no printable ASCII reads as a question mark.
    fn hold(&mut self, word: &str) -> Arc<str> {
        let harmless = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        let word: String = word.chars().take(LONGEST_WORD).map(harmless).collect();
        if let Some(known) = self.0.iter().find(|known| ***known == word) {
            return Arc::clone(known);
        }
        let new: Arc<str> = word.into();
        if self.0.len() < MOST_WORDS {
            self.0.push(Arc::clone(&new));
        }
        new
    }
}

/// What the packet's own bytes say.
#[derive(Debug, Default)]
struct Read {
    transport: Option<Transport>,
    flow: Option<Flow>,
    destination_mac: Option<MacAddress>,
    dns: Option<DnsMessage>,
}

impl Decoder {
    /// Reads a frame with a mark; `None` where it has none, where it is no DNS, or where neither its bytes nor its
    /// connection say whose it was.
    pub fn packet_drop(&mut self, frame: &Frame<'_>) -> Option<PacketDrop> {
        let mark = frame.drop?;
        self.emitter.counters.frames += 1;
        let read = self.dropped_bytes(frame);
        let ports = |flow: &Flow| self.ports.either(flow.source.port(), flow.destination.port());
        let known = |read: &Read| match (read.flow, frame.nat) {
            (Some(flow), None) => ports(&flow) || flow.source.port() == 0,
            (Some(flow), Some(nat)) => ports(&flow) || ports(&nat.original) || ports(&nat.reply),
            (None, Some(nat)) => ports(&nat.original) || ports(&nat.reply),
            (None, None) => false,
        };
        let Some(read) = read.filter(known) else {
            self.emitter.counters.not_dns += 1;
            return None;
        };
        // Without addresses: only a connection's first packet is looked at before there are any, and that is original.
        let flow = read.flow.or(frame.nat.map(|nat| nat.original))?;
        Some(PacketDrop {
            frame: frame.number,
            time: frame.time,
            vantage: frame.vantage,
            fate: mark.fate,
            cpu: mark.cpu,
            reason: self.words.hold(mark.reason),
            place: self.words.hold(mark.place),
            transport: read.transport.unwrap_or_default(),
            flow: with_ports(flow, frame.nat),
            connection: frame.nat,
            destination_mac: read.destination_mac,
            dns: read.dns,
            question: None,
            rival: None,
        })
    }

    /// `None`: it is certain that this is no DNS packet.
    fn dropped_bytes(&mut self, frame: &Frame<'_>) -> Option<Read> {
        let mut read = Read::default();
        let Some(link) = link::strip(frame.link, frame.bytes) else { return Some(read) };
        read.destination_mac = link.destination_mac;
        let wire_len = usize::try_from(frame.original_len).unwrap_or(usize::MAX).max(link.bytes.len());
        let packet = match ip::parse(link.bytes, wire_len) {
            Ok(packet) => packet,
            Err(ip::Unread::Truncated) => return Some(read),
            Err(ip::Unread::NotIp | ip::Unread::Malformed) => {
                self.emitter.counters.malformed += 1;
                return Some(read);
            }
        };
        read.transport = match packet.protocol {
            protocol::UDP => Some(Transport::Udp),
            protocol::TCP => Some(Transport::Tcp),
            _ => return None,
        };
        let socket = |ip, port| SocketAddr::new(ip, port);
        let (source, destination) = ports(&packet).unwrap_or_default();
        read.flow = Some(Flow {
            source: socket(packet.source, source),
            destination: socket(packet.destination, destination),
        });
        read.dns = message(&packet, &self.ports, frame.segment_size);
        Some(read)
    }
}

/// The ports, where they are there: a later fragment has none.
fn ports(packet: &Packet<'_>) -> Option<(u16, u16)> {
    if packet.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return None;
    }
    let &[s0, s1, d0, d1] = packet.payload.first_chunk::<4>()?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

/// Gives a flow whose ports could not be read those of its connection, by whichever side it is on.
fn with_ports(flow: Flow, connection: Option<NatTuple>) -> Flow {
    if flow.source.port() != 0 || flow.destination.port() != 0 {
        return flow;
    }
    let Some(NatTuple { original, reply }) = connection else { return flow };
    let same = |other: &Flow| {
        other.source.ip() == flow.source.ip() && other.destination.ip() == flow.destination.ip()
    };
    [original, reply, reply.reversed(), original.reversed()].into_iter().find(same).unwrap_or(flow)
}

/// The DNS message of a packet, as far as it is there.
fn message(packet: &Packet<'_>, ports: &PortSet, segment_size: u16) -> Option<DnsMessage> {
    if packet.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return None;
    }
    if packet.protocol == protocol::UDP {
        let datagram = udp::parse(packet.payload, packet.wire_len, segment_size > 0)?;
        let (bytes, size) = datagram.segments(segment_size).next()?;
        return ports.either(datagram.source_port, datagram.destination_port).then(|| decode(bytes, size))?;
    }
    let segment = tcp::parse(packet.payload, packet.wire_len)?;
    let &[high, low] = segment.payload.first_chunk::<PREFIX>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    // Some write the length in a segment of its own.
    let prefixed = segment.payload.get(PREFIX..)?;
    let cut = |bytes: &[u8], size: usize| bytes.len() < size;
    if dns::is_plausible(prefixed, cut(prefixed, length)) {
        return decode(prefixed.get(..length).unwrap_or(prefixed), length);
    }
    let whole = segment.payload;
    dns::is_plausible(whole, cut(whole, segment.wire_len)).then(|| decode(whole, segment.wire_len))?
}

fn decode(bytes: &[u8], size: usize) -> Option<DnsMessage> {
    let mut message = DnsMessage::default();
    dns::read(bytes, size, &mut message, &mut dns::Scratch::default()).then_some(message)
}

#[cfg(test)]
#[path = "drops_tests.rs"]
mod tests;
