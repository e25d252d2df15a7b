use super::super::samples::{ethernet, ipv4, ipv6, prefixed, query, tcp_packet, udp, udp_packet};
use super::*;
use crate::model::{DropMark, Fate, LinkType, Sighting, Timestamp, VantageId, Vantages};

const MARK: DropMark<'_> =
    DropMark { fate: Fate::InsertFailed, cpu: 1, reason: "NETFILTER_DROP", place: "nf_hook_slow" };

fn marked(link: LinkType, bytes: &[u8], nat: Option<NatTuple>) -> Frame<'_> {
    Frame {
        number: 7,
        time: Timestamp::from_nanos(9),
        vantage: VantageId(0),
        link,
        original_len: u32::try_from(bytes.len()).unwrap(),
        bytes,
        segment_size: 0,
        nat,
        drop: Some(MARK),
    }
}

fn read(bytes: &[u8], nat: Option<NatTuple>) -> Option<PacketDrop> {
    Decoder::new(&[]).packet_drop(&marked(LinkType::RawIp, bytes, nat))
}

/// 10.0.0.1:4000 asked 10.96.0.10:53 and was led to 10.0.0.2:53.
fn connection() -> NatTuple {
    let socket = |text: &str| text.parse().unwrap();
    NatTuple {
        original: Flow { source: socket("10.0.0.1:4000"), destination: socket("10.96.0.10:53") },
        reply: Flow { source: socket("10.0.0.2:53"), destination: socket("10.0.0.1:4000") },
    }
}

fn id_and_name(drop: &PacketDrop) -> Option<(u16, String)> {
    drop.dns.as_ref().map(|dns| (dns.id, dns.name.to_string()))
}

#[test]
fn both_versions_and_both_transports_are_read() {
    for v6 in [false, true] {
        let drop = read(&udp_packet(v6, 4000, 53, &query(0x4f1a, "web")), None).unwrap();
        assert_eq!(id_and_name(&drop), Some((0x4f1a, "web".into())));
        assert_eq!((drop.transport, drop.flow.destination.port()), (Transport::Udp, 53));
        assert_eq!(
            (drop.frame, drop.cpu, &*drop.reason, &*drop.place),
            (7, 1, "NETFILTER_DROP", "nf_hook_slow")
        );
        assert!(!drop.is_response());
    }
    let message = query(0x4f1a, "web");
    for payload in [prefixed(&message), message] {
        let drop = read(&tcp_packet(4000, 53, 1, 0x18, &payload), None).unwrap();
        assert_eq!(id_and_name(&drop), Some((0x4f1a, "web".into())));
        assert_eq!(drop.transport, Transport::Tcp);
    }
    let syn = read(&tcp_packet(4000, 53, 1, 0x02, &[]), None).unwrap();
    assert_eq!((syn.transport, syn.dns), (Transport::Tcp, None));
}

#[test]
fn what_the_bytes_do_not_say_the_connection_does() {
    let whole = udp_packet(false, 4000, 53, &query(0x4f1a, "web"));
    for (cut, id) in [(0, None), (19, None), (20, None), (28, None), (40, Some(0x4f1a))] {
        let mut frame = marked(LinkType::RawIp, &whole[..cut], Some(connection()));
        frame.original_len = u32::try_from(whole.len()).unwrap();
        let drop = Decoder::new(&[]).packet_drop(&frame).unwrap();
        assert_eq!(drop.dns.as_ref().map(|dns| dns.id), id, "{cut} octets");
        let at = if cut < 20 { "10.96.0.10:53" } else { "10.0.0.2:53" };
        assert_eq!(
            (drop.flow.source.to_string(), drop.flow.destination.to_string()),
            ("10.0.0.1:4000".into(), at.into())
        );
        assert_eq!(drop.asked().destination.to_string(), "10.96.0.10:53");
        assert!(!drop.is_response());
    }
    assert_eq!(read(&whole[..19], None), None, "nobody knows whose it was");
}

#[test]
fn a_later_fragment_has_the_ports_of_its_connection() {
    let mut later = ipv4(protocol::UDP, 185, &[7; 30]);
    later[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
    let drop = read(&later, Some(connection())).unwrap();
    assert_eq!(
        (drop.flow.source.to_string(), drop.flow.destination.to_string()),
        ("10.0.0.2:53".into(), "10.0.0.1:4000".into())
    );
    assert_eq!(drop.dns, None);
    assert!(drop.is_response());
    assert_eq!(read(&later, None).unwrap().flow.source.port(), 0);
}

#[test]
fn neither_other_ports_nor_icmp_are_dns() {
    assert_eq!(read(&udp_packet(false, 4000, 443, &query(1, "web")), None), None);
    let quote = udp_packet(false, 4000, 53, &query(1, "web"));
    let error = [&[3, 3, 0, 0, 0, 0, 0, 0], &quote[..]].concat();
    for packet in [ipv4(protocol::ICMP, 0, &error), ipv6(protocol::ICMPV6, &error)] {
        assert_eq!(read(&packet, Some(connection())), None);
    }
    let translated = udp_packet(false, 4000, 5300, &udp(1, 2, &[]));
    assert!(read(&translated, Some(connection())).is_some(), "the port asked counts, not the backend's");
}

#[test]
fn a_mark_makes_no_sighting_and_no_stream() {
    let vantages = Vantages::new();
    let message = prefixed(&query(0x4f1a, "web"));
    let (first, second) = message.split_at(5);
    let mut told: Vec<Sighting> = Vec::new();
    let mut decoder = Decoder::new(&[]);
    let segments = [(0, 0x02, &[][..]), (1, 0x18, first), (6, 0x18, second)]
        .map(|(sequence, flags, payload)| ethernet(&tcp_packet(4000, 53, sequence, flags, payload)));
    for (index, bytes) in segments.iter().enumerate() {
        let mut frame = marked(LinkType::Ethernet, bytes, None);
        // The first segment with data was dropped: nothing of it may be told.
        frame.drop = (index == 1).then_some(MARK);
        decoder.decode(&frame, &vantages, &mut |sighting| told.push(sighting.clone()));
        let drop = decoder.packet_drop(&frame);
        assert_eq!(drop.is_some(), index == 1);
        assert!(drop.is_none_or(|drop| drop.destination_mac.is_some()));
    }
    assert_eq!(told, []);
}

#[test]
fn words_are_held_once_and_bounded() {
    let mut words = Words::default();
    let first = words.hold("NETFILTER_DROP");
    assert!(Arc::ptr_eq(&first, &words.hold("NETFILTER_DROP")));
    for number in 0..2_000 {
        words.hold(&number.to_string());
    }
    assert_eq!(words.0.len(), MOST_WORDS);
    assert_eq!(words.hold(&"\x1b".repeat(900)), "?".repeat(LONGEST_WORD).into());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        segment_size in 0_u16..60,
        translated in proptest::prelude::any::<bool>(),
    ) {
        let mut frame = marked(LinkType::RawIp, &bytes, translated.then(connection));
        frame.segment_size = segment_size;
        let _ = Decoder::new(&[]).packet_drop(&frame);
    }
}
