//! The one sighting that is filled and told, and the counters.

use super::{WireCounters, dns, ip::Packet, link::LinkPayload};
use crate::model::{
    DnsMessage, Flow, Frame, IcmpError, MacAddress, NatTuple, Sighting, SightingBody, Timestamp, Transport,
    VantageId,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a sighting says beside its body: kept for what can only be told later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) frame: u64,
    pub(super) time: Timestamp,
    pub(super) vantage: VantageId,
    pub(super) transport: Transport,
    pub(super) flow: Flow,
    destination_mac: Option<MacAddress>,
    source_mac: Option<MacAddress>,
    ttl: u8,
    ip_id: u16,
    dont_fragment: bool,
    nat: Option<NatTuple>,
}

/// Fills and tells sightings.
#[derive(Debug)]
pub(super) struct Emitter {
    pub(super) counters: WireCounters,
    /// Its body is always a DNS message, so that its buffers serve again.
    sighting: Sighting,
    scratch: dns::Scratch,
}

impl Default for Emitter {
    fn default() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            counters: WireCounters::default(),
            sighting: Sighting {
                frame: 0,
                time: Timestamp::EPOCH,
                vantage: VantageId::default(),
                transport: Transport::Udp,
                flow: Flow { source: nowhere, destination: nowhere },
                destination_mac: None,
                source_mac: None,
                ttl: 0,
                ip_id: 0,
                dont_fragment: false,
                nat: None,
                body: SightingBody::Dns(DnsMessage::default()),
            },
            scratch: dns::Scratch::default(),
        }
    }
}

impl Emitter {
    /// Fills in what a frame's headers up to IP say; ports are 0 until the transport header is read.
    #[inline]
    pub(super) fn begin(
        &mut self,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        vantage: VantageId,
        link: &LinkPayload<'_>,
    ) {
        let sighting = &mut self.sighting;
        sighting.frame = frame.number;
        sighting.time = frame.time;
        sighting.vantage = vantage;
        sighting.flow = Flow {
            source: SocketAddr::new(packet.source, 0),
            destination: SocketAddr::new(packet.destination, 0),
        };
        sighting.destination_mac = link.destination_mac;
        sighting.source_mac = link.source_mac;
        sighting.ttl = packet.ttl;
        sighting.ip_id = packet.id;
        sighting.dont_fragment = packet.dont_fragment;
        // Large, and most frames have none.
        if frame.nat.is_some() || sighting.nat.is_some() {
            sighting.nat = frame.nat;
        }
    }

    /// Fills in what the transport header says.
    pub(super) fn ports(&mut self, transport: Transport, source: u16, destination: u16) {
        self.sighting.transport = transport;
        self.sighting.flow.source.set_port(source);
        self.sighting.flow.destination.set_port(destination);
    }

    /// What is filled in.
    pub(super) fn envelope(&self) -> Envelope {
        let sighting = &self.sighting;
        Envelope {
            frame: sighting.frame,
            time: sighting.time,
            vantage: sighting.vantage,
            transport: sighting.transport,
            flow: sighting.flow,
            destination_mac: sighting.destination_mac,
            source_mac: sighting.source_mac,
            ttl: sighting.ttl,
            ip_id: sighting.ip_id,
            dont_fragment: sighting.dont_fragment,
            nat: sighting.nat,
        }
    }

    /// Fills in what was filled in before.
    pub(super) fn restore(&mut self, envelope: Envelope) {
        let sighting = &mut self.sighting;
        sighting.frame = envelope.frame;
        sighting.time = envelope.time;
        sighting.vantage = envelope.vantage;
        sighting.transport = envelope.transport;
        sighting.flow = envelope.flow;
        sighting.destination_mac = envelope.destination_mac;
        sighting.source_mac = envelope.source_mac;
        sighting.ttl = envelope.ttl;
        sighting.ip_id = envelope.ip_id;
        sighting.dont_fragment = envelope.dont_fragment;
        sighting.nat = envelope.nat;
    }

    /// Tells an ICMP error.
    pub(super) fn icmp(&mut self, error: IcmpError, out: &mut impl FnMut(&Sighting)) {
        self.counters.icmp_errors += 1;
        let Envelope { frame, time, vantage, flow, ttl, ip_id, dont_fragment, nat, .. } = self.envelope();
        let Envelope { destination_mac, source_mac, .. } = self.envelope();
        out(&Sighting {
            frame,
            time,
            vantage,
            transport: error.quoted_transport,
            flow,
            destination_mac,
            source_mac,
            ttl,
            ip_id,
            dont_fragment,
            nat,
            body: SightingBody::Icmp(error),
        });
    }

    /// Tells one DNS message of `size` octets on the wire, of which `bytes` are there.
    pub(super) fn dns(&mut self, bytes: &[u8], size: usize, out: &mut impl FnMut(&Sighting)) {
        let SightingBody::Dns(message) = &mut self.sighting.body else { return };
        if !dns::read(bytes, size, message, &mut self.scratch) {
            self.count_unread(bytes.len(), size);
            return;
        }
        self.counters.dns_messages += 1;
        if message.cut {
            self.count_unread(bytes.len(), size);
        }
        out(&self.sighting);
    }

    /// Counts something that could not be read to its end: cut by the capture, or broken.
    pub(super) fn count_unread(&mut self, captured: usize, wire_len: usize) {
        if captured < wire_len {
            self.counters.truncated += 1;
        } else {
            self.counters.malformed += 1;
        }
    }
}
