//! How TCP connections that are none of DNS begin: bare SYN, SYN+ACK and RST, and ICMP errors that quote such a packet.
//!
//! Rule: an answer to a SYN acknowledges the number behind the client's initial one (RFC 9293 section 3.5); an ICMP error
//! quotes eight octets of TCP at least, the fourth to the seventh of which are the sequence number.

use super::{
    emit::Envelope,
    ip::{self, Packet},
    tcp,
};
use crate::model::{ConnectPacket, ConnectStep, Flow, IcmpError, Transport};

/// Octets of an ICMP header before its quote.
const ICMP_HEADER: usize = 8;

/// What the last frame said.
#[derive(Debug, Default)]
pub(super) struct Last(Option<ConnectPacket>);

impl Last {
    #[inline]
    pub(super) fn take(&mut self) -> Option<ConnectPacket> {
        // Nearly always nothing, which is not copied.
        self.0.as_ref()?;
        self.0.take()
    }

    /// Reads a TCP segment; `envelope` has its addresses, without ports.
    pub(super) fn segment(&mut self, bytes: &[u8], wire_len: usize, envelope: &Envelope) {
        let Some(segment) = tcp::parse(bytes, wire_len) else { return };
        let acknowledges = segment.acknowledged != 0;
        let step = match (segment.syn, segment.rst) {
            _ if segment.wire_len > 0 => return,
            (true, false) if acknowledges => ConnectStep::Accepted,
            (true, false) => ConnectStep::Asked,
            (false, true) if acknowledges => ConnectStep::Refused,
            _ => return,
        };
        let mut flow = envelope.flow;
        flow.source.set_port(segment.source_port);
        flow.destination.set_port(segment.destination_port);
        let (flow, initial_sequence) = match step {
            ConnectStep::Asked => (flow, segment.sequence),
            _ => (flow.reversed(), segment.acknowledged.wrapping_sub(1)),
        };
        self.tell(envelope, flow, initial_sequence, step);
    }

    /// Reads what an ICMP error quotes.
    pub(super) fn unreachable(&mut self, error: &IcmpError, packet: &Packet<'_>, envelope: &Envelope) {
        if error.quoted_transport != Transport::Tcp {
            return;
        }
        let quote = packet.payload.get(ICMP_HEADER..).unwrap_or_default();
        let Ok(quoted) = ip::parse(quote, packet.wire_len.saturating_sub(ICMP_HEADER)) else { return };
        let Some(&[s0, s1, s2, s3]) = quoted.payload.get(4..).and_then(|rest| rest.first_chunk::<4>()) else {
            return;
        };
        let step = ConnectStep::Unreachable(*error);
        self.tell(envelope, error.quoted, u32::from_be_bytes([s0, s1, s2, s3]), step);
    }

    fn tell(&mut self, envelope: &Envelope, flow: Flow, initial_sequence: u32, step: ConnectStep) {
        let Envelope { frame, time, vantage, .. } = *envelope;
        self.0 = Some(ConnectPacket { frame, time, vantage, flow, initial_sequence, step });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Frame, LinkType, Timestamp, VantageId, Vantages},
        wire::{Decoder, ip::protocol, samples},
    };

    fn told(decoder: Decoder, bytes: &[u8]) -> Option<ConnectPacket> {
        let mut decoder = decoder;
        let frame = Frame {
            number: 9,
            time: Timestamp::from_nanos(7),
            vantage: VantageId(3),
            link: LinkType::RawIp,
            original_len: u32::try_from(bytes.len()).unwrap(),
            bytes,
            segment_size: 0,
            nat: None,
            drop: None,
        };
        decoder.decode(&frame, &Vantages::new(), &mut |sighting| panic!("no DNS: {sighting:?}"));
        let told = decoder.take_connect();
        assert_eq!(decoder.take_connect(), None, "told once");
        assert_eq!(decoder.counters().not_dns, 1);
        told
    }

    fn following(bytes: &[u8]) -> Option<(u16, u16, u32, ConnectStep)> {
        told(Decoder::new(&[]).following_connects(), bytes).map(|packet| {
            assert_eq!((packet.frame, packet.vantage), (9, VantageId(3)));
            let Flow { source, destination } = packet.flow;
            (source.port(), destination.port(), packet.initial_sequence, packet.step)
        })
    }

    /// A segment that acknowledges `acknowledged`.
    fn answer(flags: u8, acknowledged: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = samples::tcp_packet(443, 40_000, 0, flags, payload);
        packet[28..32].copy_from_slice(&acknowledged.to_be_bytes());
        packet
    }

    #[test]
    fn the_steps_of_a_beginning_have_the_clients_number() {
        let syn = samples::tcp_packet(40_000, 443, 77, 0x02, &[]);
        assert_eq!(following(&syn), Some((40_000, 443, 77, ConnectStep::Asked)));
        assert_eq!(following(&answer(0x12, 78, &[])), Some((40_000, 443, 77, ConnectStep::Accepted)));
        assert_eq!(following(&answer(0x14, 78, &[])), Some((40_000, 443, 77, ConnectStep::Refused)));
        let quote = [&[3, 1, 0, 0, 0, 0, 0, 0], &syn[..28]].concat();
        let error = samples::ipv4(protocol::ICMP, 0, &quote);
        let Some((40_000, 443, 77, ConnectStep::Unreachable(error))) = following(&error) else {
            panic!("not told");
        };
        assert!(error.is_unreachable());
    }

    #[test]
    fn nothing_else_is_told() {
        for (what, packet) in [
            ("acknowledgement", answer(0x10, 78, &[])),
            ("end", answer(0x11, 78, &[])),
            ("data", answer(0x12, 78, b"x")),
            ("RST that acknowledges nothing", answer(0x04, 0, &[])),
            ("UDP", samples::udp_packet(false, 40_000, 443, b"x")),
        ] {
            assert_eq!(following(&packet), None, "{what}");
        }
        let syn = samples::tcp_packet(40_000, 443, 77, 0x02, &[]);
        assert_eq!(told(Decoder::new(&[]), &syn), None, "not wanted");
        for length in 24..syn.len() {
            assert_eq!(following(&syn[..length]), None, "cut at {length}");
        }
    }
}
