//! Streams and fragments: what arrives cut up, out of order, twice or never.

use super::{
    Decoder, WireCounters,
    ip::protocol,
    samples::{ipv4, ipv6, prefixed, query, tcp_packet, udp},
};
use crate::model::{Frame, LinkType, SightingBody, Timestamp, VantageId, Vantages};
use proptest::prelude::*;
use std::time::Duration;

const SYN: u8 = 0x02;
const FIN: u8 = 0x11;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Sequence number of the SYN: the stream's octets wrap around.
const INITIAL: u32 = u32::MAX - 20;

/// A decoder, and what it told: "id" of each message, "id…" where it was cut.
struct Session {
    decoder: Decoder,
    vantages: Vantages,
    vantage: VantageId,
    now: Timestamp,
    frames: u64,
    told: Vec<String>,
}

impl Session {
    fn new() -> Self {
        Self {
            decoder: Decoder::new(&[53]),
            vantages: Vantages::new(),
            vantage: VantageId(0),
            now: Timestamp::from_nanos(1_000_000_000),
            frames: 0,
            told: Vec::new(),
        }
    }

    /// A raw IP packet of which `captured` octets are there.
    fn cut_packet(&mut self, packet: &[u8], captured: usize) -> &mut Self {
        self.frames += 1;
        let frame = Frame {
            number: self.frames,
            time: self.now,
            vantage: self.vantage,
            link: LinkType::RawIp,
            original_len: u32::try_from(packet.len()).unwrap(),
            bytes: &packet[..captured.min(packet.len())],
            segment_size: 0,
            nat: None,
            drop: None,
        };
        let told = &mut self.told;
        self.decoder.decode(&frame, &self.vantages, &mut |sighting| told.push(show(&sighting.body)));
        self
    }

    fn packet(&mut self, packet: &[u8]) -> &mut Self {
        self.cut_packet(packet, usize::MAX)
    }

    fn syn(&mut self) -> &mut Self {
        self.packet(&tcp_packet(4000, 53, INITIAL, SYN, &[]))
    }

    /// Octets of the stream, from `offset` on.
    fn octets(&mut self, offset: usize, octets: &[u8], flags: u8) -> &mut Self {
        self.packet(&tcp_packet(4000, 53, sequence(offset), flags, octets))
    }

    fn wait(&mut self, millis: u64) -> &mut Self {
        self.now = self.now + Duration::from_millis(millis);
        let told = &mut self.told;
        self.decoder.advance(self.now, &mut |sighting| told.push(show(&sighting.body)));
        self
    }

    fn finish(&mut self) -> &mut Self {
        let told = &mut self.told;
        self.decoder.finish(&mut |sighting| told.push(show(&sighting.body)));
        self
    }

    /// What was told since the last call.
    fn told(&mut self) -> String {
        std::mem::take(&mut self.told).join(" ")
    }

    fn counters(&self) -> WireCounters {
        self.decoder.counters()
    }
}

fn show(body: &SightingBody) -> String {
    match body {
        SightingBody::Dns(message) => format!("{}{}", message.id, if message.cut { "…" } else { "" }),
        SightingBody::Icmp(error) => format!("icmp {}", error.kind),
    }
}

fn sequence(offset: usize) -> u32 {
    INITIAL.wrapping_add(1).wrapping_add(u32::try_from(offset).unwrap())
}

/// Messages 1 to `count`, each behind its length.
fn stream(count: u16) -> Vec<u8> {
    (1..=count).flat_map(|id| prefixed(&query(id, "www.example.com"))).collect()
}

/// Octets of one of them.
const EACH: usize = 35;

#[test]
fn several_messages_in_one_segment_and_one_over_many() {
    let octets = stream(3);
    let mut session = Session::new();
    assert_eq!(session.syn().octets(0, &octets, ACK).told(), "1 2 3");

    let mut session = Session::new();
    session.syn();
    for (offset, octet) in octets.iter().enumerate() {
        session.octets(offset, &[*octet], ACK);
        let whole = (1..=(offset + 1) / EACH).map(|id| id.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(session.told.join(" "), whole);
    }
    assert_eq!(session.counters().given_up, 0);
}

#[test]
fn segments_out_of_order_wait_for_their_turn() {
    let octets = stream(3);
    let mut session = Session::new();
    session.syn().octets(80, &octets[80..], ACK).octets(40, &octets[40..80], ACK);
    assert_eq!(session.told(), "");
    assert_eq!(session.octets(0, &octets[..40], ACK).told(), "1 2 3");
    assert_eq!(session.octets(105, &stream(1), ACK).told(), "1");
    assert_eq!(session.counters().given_up, 0);
}

#[test]
fn octets_sent_again_tell_nothing_twice() {
    let octets = stream(3);
    let mut session = Session::new();
    session.syn().octets(0, &octets[..50], ACK).octets(0, &octets[..50], ACK).octets(
        20,
        &octets[20..50],
        ACK,
    );
    assert_eq!(session.told(), "1");
    // Overlapping what is known on the left.
    assert_eq!(session.octets(10, &octets[10..], ACK).told(), "2 3");
    assert_eq!(session.octets(0, &octets, FIN).octets(0, &octets, FIN).told(), "");
    // The SYN itself too.
    assert_eq!(session.syn().octets(105, &stream(1), ACK).told(), "1");
}

#[test]
fn a_query_in_the_syn_is_read_once() {
    let mut session = Session::new();
    let octets = stream(2);
    session.packet(&tcp_packet(4000, 53, INITIAL, SYN, &octets[..EACH]));
    assert_eq!(session.told(), "1");
    // The server did not take it: it comes again behind the handshake.
    assert_eq!(session.octets(0, &octets, ACK).told(), "2");
}

#[test]
fn a_stream_joined_in_the_middle_starts_at_the_next_message() {
    let octets = stream(3);
    let mut session = Session::new();
    session.octets(20, &octets[20..EACH], ACK);
    assert_eq!(session.told(), "");
    assert_eq!(session.octets(EACH, &octets[EACH..], ACK).told(), "2 3");
}

#[test]
fn what_came_before_its_syn_is_read() {
    let octets = stream(3);
    // A later message first, then the body, the length and the handshake of those before it.
    let mut session = Session::new();
    assert_eq!(session.octets(2 * EACH, &octets[2 * EACH..], ACK).told(), "3");
    assert_eq!(session.octets(2, &octets[2..EACH], ACK).told(), "");
    assert_eq!(session.octets(EACH, &octets[EACH..2 * EACH], ACK).told(), "2");
    assert_eq!(session.octets(0, &octets[..2], ACK).told(), "1");
    assert_eq!(session.octets(3 * EACH, &[], FIN).syn().octets(0, &octets, ACK).told(), "");
    assert_eq!(session.octets(3 * EACH, &stream(1), ACK).wait(2_000).told(), "1");
    // A body alone, then its length.
    let mut session = Session::new();
    assert_eq!(session.octets(2, &octets[2..EACH], ACK).octets(0, &octets[..2], ACK).told(), "1");
    // And where the length comes with the SYN.
    let mut session = Session::new();
    session.octets(2, &octets[2..EACH], ACK);
    session.packet(&tcp_packet(4000, 53, INITIAL, SYN, &octets[..2]));
    assert_eq!(session.told(), "1");
    assert_eq!(session.counters().given_up, 0);
}

#[test]
fn a_body_whose_length_never_comes_is_given_up() {
    let octets = stream(3);
    let mut session = Session::new();
    assert_eq!(session.octets(2, &octets[2..EACH], ACK).wait(999).told(), "");
    assert_eq!(session.wait(2).told(), "");
    assert_eq!(session.counters().given_up, 1);
    assert_eq!(session.octets(EACH, &octets[EACH..], ACK).told(), "2 3");
    // Of two messages before the start the one between is missing.
    let mut session = Session::new();
    session.octets(2 * EACH, &octets[2 * EACH..], ACK).octets(0, &octets[..EACH], ACK);
    assert_eq!(session.told(), "3");
    assert_eq!(session.wait(1_001).told(), "1");
}

#[test]
fn each_vantage_has_its_own_stream() {
    let octets = stream(1);
    let mut session = Session::new();
    for vantage in [0, 1] {
        session.vantage = VantageId(vantage);
        session.syn();
    }
    for (part, offset) in [(&octets[..10], 0), (&octets[10..], 10)] {
        for vantage in [0, 1] {
            session.vantage = VantageId(vantage);
            session.octets(offset, part, ACK);
        }
    }
    assert_eq!(session.told(), "1 1");
}

#[test]
fn behind_a_segment_that_never_comes_the_stream_goes_on() {
    let octets = stream(4);
    let mut session = Session::new();
    session.syn().octets(0, &octets[..20], ACK).octets(30, &octets[30..], ACK);
    assert_eq!(session.wait(999).told(), "");
    // The question is not all there, its id is; the lost octets are all of message 1.
    assert_eq!(session.wait(2).told(), "1… 2 3 4");
    assert_eq!(session.counters().given_up, 1);
    assert_eq!(session.octets(140, &stream(1), ACK).told(), "1");
}

#[test]
fn a_hole_over_the_end_of_a_message_is_left_at_the_next_start() {
    let octets = stream(4);
    let mut session = Session::new();
    session.syn().octets(0, &octets[..30], ACK).octets(40, &octets[40..70], ACK).octets(
        70,
        &octets[70..],
        ACK,
    );
    // Message 2 begins in the hole; the first segment that begins with one is that of message 3.
    assert_eq!(session.wait(1_001).told(), "1… 3 4");
    assert_eq!(session.octets(140, &stream(1), ACK).told(), "1");
}

#[test]
fn an_end_tells_what_is_there() {
    for flags in [FIN, RST | ACK] {
        let octets = stream(2);
        let mut session = Session::new();
        session.syn().octets(0, &octets[..60], ACK);
        assert_eq!(session.told(), "1");
        assert_eq!(session.octets(60, &[], flags).told(), "2…");
        assert_eq!(session.counters().given_up, 1);
    }
}

#[test]
fn the_end_of_the_session_tells_what_waits() {
    let octets = stream(3);
    let mut session = Session::new();
    session.syn().octets(EACH, &octets[EACH..], ACK);
    assert_eq!(session.finish().told(), "2 3");
    assert_eq!(session.counters().given_up, 1);
    assert_eq!(session.finish().told(), "");
}

#[test]
fn segments_cut_by_the_capture_leave_the_end_of_their_message_known() {
    let octets = stream(3);
    let mut session = Session::new();
    session.syn();
    // Only 15 octets of the first segment's 20 are there, then everything.
    session.cut_packet(&tcp_packet(4000, 53, sequence(0), ACK, &octets[..20]), 55);
    session.octets(20, &octets[20..], ACK);
    assert_eq!(session.told(), "1… 2 3");
    assert_eq!(session.counters().truncated, 1);
}

#[test]
fn a_new_connection_on_the_same_ports_starts_afresh() {
    let octets = stream(1);
    let mut session = Session::new();
    session.syn().octets(0, &octets[..20], ACK);
    session.packet(&tcp_packet(4000, 53, 77, SYN, &[]));
    session.packet(&tcp_packet(4000, 53, 78, ACK, &octets));
    assert_eq!(session.told(), "1");
    // And without its SYN.
    session.packet(&tcp_packet(4000, 53, 0x7000_0000, ACK, &octets));
    assert_eq!(session.told(), "1");
    assert_eq!(session.counters().given_up, 1);
}

#[test]
fn a_length_of_no_message_is_malformed_and_ends_the_guessing() {
    let mut session = Session::new();
    session.syn().octets(0, &[0, 5, 1, 2, 3, 4, 5, 9, 9, 9], ACK);
    assert_eq!((session.told(), session.counters().malformed), (String::new(), 1));
    assert_eq!(session.octets(10, &stream(1), ACK).told(), "1");
}

#[test]
fn streams_and_what_they_hold_are_bounded() {
    let mut session = Session::new();
    let half = &prefixed(&[0; 60_000])[..1_400];
    for n in 0..40_000_u16 {
        session.packet(&tcp_packet(10_000 + n, 53, 0, SYN, half));
    }
    let counters = session.counters();
    assert!(counters.given_up > 20_000, "{counters:?}");
    session.finish();
    assert_eq!(session.counters().given_up, 40_000);
}

/// `message` over IPv4 as fragments of eight times `eighths` octets.
fn fragments(message: &[u8], eighths: usize) -> Vec<Vec<u8>> {
    let datagram = udp(4000, 53, message);
    let chunks: Vec<_> = datagram.chunks(eighths * 8).collect();
    let last = chunks.len() - 1;
    let word = |index: usize| u16::try_from(index * eighths).unwrap() | if index < last { 0x2000 } else { 0 };
    chunks.iter().enumerate().map(|(index, chunk)| ipv4(protocol::UDP, word(index), chunk)).collect()
}

#[test]
fn fragments_in_any_order_are_one_message() {
    let parts = fragments(&query(5, "www.example.com"), 2);
    assert_eq!(parts.len(), 3);
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let mut session = Session::new();
        for index in order {
            assert_eq!(session.told(), "");
            session.packet(&parts[index]);
        }
        assert_eq!(session.told(), "5");
        assert_eq!(session.wait(1_000).finish().told(), "");
    }
}

#[test]
fn ipv6_fragments_are_one_message() {
    let datagram = udp(4000, 53, &query(5, "www.example.com"));
    let fragment = |offset: usize, more: u8, octets: &[u8]| {
        let [high, low] = u16::try_from(offset).unwrap().to_be_bytes();
        ipv6(44, &[&[protocol::UDP, 0, high, low | more, 1, 2, 3, 4], octets].concat())
    };
    let mut session = Session::new();
    session.packet(&fragment(16, 0, &datagram[16..])).packet(&fragment(0, 1, &datagram[..16]));
    assert_eq!(session.told(), "5");
}

#[test]
fn the_first_fragment_alone_is_told_once_nothing_more_comes() {
    let parts = fragments(&query(5, "www.example.com"), 4);
    let mut session = Session::new();
    session.packet(&parts[0]);
    assert_eq!(session.wait(99).told(), "");
    assert_eq!(session.wait(2).told(), "5…");
    assert_eq!(session.counters().given_up, 1);
    // Without a first fragment nobody knows what it is.
    assert_eq!(session.packet(&parts[1]).wait(200).told(), "");
    assert_eq!(session.counters().given_up, 1);
    assert_eq!(session.packet(&parts[0]).finish().told(), "5…");
}

#[test]
fn a_first_fragment_cut_by_the_capture_is_told_at_once() {
    let parts = fragments(&query(5, "www.example.com"), 4);
    let mut session = Session::new();
    assert_eq!(session.cut_packet(&parts[0], 45).told(), "5…");
    assert_eq!(session.packet(&parts[1]).wait(200).told(), "");
    assert_eq!((session.counters().truncated, session.counters().given_up), (1, 0));
}

#[test]
fn fragments_of_other_protocols_and_ports_are_dropped() {
    let mut session = Session::new();
    let other = udp(4000, 80, &[7; 64]);
    session.packet(&ipv4(protocol::UDP, 0x2000, &other[..32])).packet(&ipv4(protocol::UDP, 4, &other[32..]));
    session.packet(&ipv4(protocol::ICMP, 0x2000, &[3; 64])).packet(&ipv4(protocol::UDP, 0x3fff, &[7; 64]));
    assert_eq!(session.wait(200).told(), "");
    assert_eq!(session.counters().dns_messages, 0);
}

#[test]
fn overlapping_fragments_cannot_rewrite_what_came_first() {
    let message = query(5, "www.example.com");
    let parts = fragments(&message, 4);
    let mut forged = parts[0].clone();
    forged[28] = 0xff;
    let mut session = Session::new();
    session.packet(&parts[0]).packet(&forged).packet(&parts[1]);
    assert_eq!(session.told(), "5");
}

#[test]
fn many_open_datagrams_push_out_the_oldest() {
    let mut session = Session::new();
    let parts = fragments(&query(5, "www.example.com"), 4);
    for id in 0..1_000_u16 {
        let mut first = parts[0].clone();
        first[4..6].copy_from_slice(&id.to_be_bytes());
        session.packet(&first);
    }
    assert!(session.counters().given_up > 800);
    session.finish();
    assert_eq!(session.counters().given_up, 1_000);
}

proptest! {
    /// Any cutting of a stream into segments, in any order and with repetitions, gives each message once.
    #[test]
    fn any_order_of_segments_gives_each_message_once(
        cuts in proptest::collection::btree_set(1_usize..350, 0..20),
        order in proptest::collection::vec(any::<u16>(), 40),
    ) {
        let octets = stream(10);
        let mut bounds: Vec<usize> = cuts.into_iter().collect();
        bounds.insert(0, 0);
        bounds.push(octets.len());
        let segments: Vec<_> = bounds.windows(2).map(|pair| pair[0]..pair[1]).collect();
        let mut sent: Vec<(u16, usize)> = order.iter().enumerate().map(|(n, key)| (*key, n % segments.len())).collect();
        sent.sort_unstable();
        let mut session = Session::new();
        session.syn();
        for range in sent.iter().map(|(_, index)| segments[*index].clone()).chain(segments.clone()) {
            session.octets(range.start, &octets[range], ACK);
        }
        prop_assert_eq!(session.told(), "1 2 3 4 5 6 7 8 9 10");
        prop_assert_eq!(session.counters().given_up, 0);
    }

    /// Messages in any order, and the handshake too.
    #[test]
    fn any_order_of_messages_and_syn_gives_each_message_once(order in Just((0..11_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let octets = stream(10);
        let mut session = Session::new();
        for index in order {
            match octets.get(index * EACH..(index + 1) * EACH) {
                Some(message) => session.octets(index * EACH, message, ACK),
                None => session.syn(),
            };
        }
        session.wait(2_000).finish();
        session.told.sort_by_key(|id| id.parse::<u16>().unwrap());
        prop_assert_eq!(session.told(), "1 2 3 4 5 6 7 8 9 10");
    }

    /// Whatever is lost, nothing is told that was not sent, and nothing twice.
    #[test]
    fn lost_segments_invent_nothing(lost in proptest::collection::vec(any::<bool>(), 35), step in 1_usize..40) {
        let octets = stream(10);
        let mut session = Session::new();
        session.syn();
        for (index, chunk) in octets.chunks(step).enumerate() {
            if !lost.get(index % lost.len()).copied().unwrap_or(false) {
                session.octets(index * step, chunk, ACK);
            }
            session.wait(300);
        }
        session.wait(2_000).finish();
        let ids: Vec<u16> = session.told.iter().map(|told| told.trim_end_matches('…').parse().unwrap()).collect();
        prop_assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", ids);
        prop_assert!(ids.iter().all(|id| (1..=10).contains(id)), "{:?}", ids);
    }
}
