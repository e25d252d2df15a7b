//! Hostile bytes: the kept corpus, and properties over any bytes.

use super::{
    Decoder, WireCounters,
    samples::{ethernet, header, name, prefixed, query, record, tcp_packet, udp_packet},
};
use crate::model::{Frame, LinkType, Name, Sighting, SightingBody, Timestamp, VantageId, Vantages};
use proptest::prelude::*;
use std::path::Path;

const LINKS: [LinkType; 6] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Null,
    LinkType::Other(127),
];

fn frame(link: LinkType, bytes: &[u8], original_len: usize) -> Frame<'_> {
    Frame {
        number: 1,
        time: Timestamp::from_nanos(1),
        vantage: VantageId(0),
        link,
        original_len: u32::try_from(original_len).unwrap(),
        bytes,
        segment_size: 0,
        nat: None,
        drop: None,
    }
}

/// Everything that frames give, the end of the session included.
fn decode<'a>(frames: impl IntoIterator<Item = Frame<'a>>) -> (Vec<Sighting>, WireCounters) {
    let vantages = Vantages::new();
    let mut decoder = Decoder::new(&[53]);
    let mut told = Vec::new();
    let mut out = |sighting: &Sighting| told.push(sighting.clone());
    for frame in frames {
        decoder.decode(&frame, &vantages, &mut out);
    }
    decoder.finish(&mut out);
    (told, decoder.counters())
}

fn show(sighting: &Sighting) -> String {
    match &sighting.body {
        SightingBody::Dns(message) => format!("{}{}", message.id, if message.cut { " cut" } else { "" }),
        SightingBody::Icmp(error) => format!("icmp {}", error.quoted_id.unwrap()),
    }
}

/// The counters that are not zero, frames left out.
fn show_counters(counters: WireCounters) -> String {
    let WireCounters { frames: _, dns_messages, icmp_errors, truncated, malformed, not_dns, given_up } =
        counters;
    let named = [
        ("dns_messages", dns_messages),
        ("icmp_errors", icmp_errors),
        ("truncated", truncated),
        ("malformed", malformed),
        ("not_dns", not_dns),
        ("given_up", given_up),
    ];
    let shown = named.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}"));
    shown.collect::<Vec<_>>().join(", ")
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// One file of the corpus: a link type, frames in hexadecimal (`of N`: octets on the wire), what they tell.
fn run_case(text: &str) -> Result<(), String> {
    let mut link = LinkType::Ethernet;
    let (mut frames, mut told, mut counted) = (Vec::new(), "", "");
    for line in text.lines() {
        match line.split_once(' ').unwrap() {
            ("#", _) => {}
            ("link", "ethernet") => link = LinkType::Ethernet,
            ("link", "raw") => link = LinkType::RawIp,
            ("link", "sll") => link = LinkType::LinuxSll,
            ("link", "sll2") => link = LinkType::LinuxSll2,
            ("link", "null") => link = LinkType::Null,
            ("frame", rest) => {
                let (hex, len) = rest.split_once(" of ").unwrap_or((rest, "0"));
                let bytes = from_hex(hex);
                let len = bytes.len().max(len.parse().unwrap());
                frames.push((bytes, len));
            }
            ("told", expected) => told = expected,
            ("counted", expected) => counted = expected,
            other => panic!("unknown line {other:?}"),
        }
    }
    let (sightings, counters) = decode(frames.iter().map(|(bytes, len)| frame(link, bytes, *len)));
    let shown = sightings.iter().map(show).collect::<Vec<_>>().join(", ");
    let shown = if shown.is_empty() { "nothing".into() } else { shown };
    let found = format!("told {shown}\ncounted {}", show_counters(counters));
    let expected = format!("told {told}\ncounted {counted}");
    if found == expected { Ok(()) } else { Err(format!("found\n{found}\nexpected\n{expected}")) }
}

#[test]
fn the_kept_corpus_tells_and_counts_what_its_files_say() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/wire");
    let mut files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut wrong = Vec::new();
    for file in &files {
        if let Err(difference) = run_case(&std::fs::read_to_string(file).unwrap()) {
            wrong.push(format!("{}: {difference}", file.file_name().unwrap().to_string_lossy()));
        }
    }
    assert!(files.len() >= 27, "{} files", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn joined_datagrams_are_a_message_each() {
    let messages: Vec<u8> = [1, 2, 3].iter().flat_map(|id| query(*id, "a.example")).collect();
    let size = messages.len() / 3;
    let packet = udp_packet(false, 4000, 53, &messages);
    for captured in [packet.len(), packet.len() - 1] {
        let joined = Frame {
            segment_size: u16::try_from(size).unwrap(),
            ..frame(LinkType::RawIp, &packet[..captured], packet.len())
        };
        let (told, counters) = decode([joined]);
        let last = if captured == packet.len() { "3" } else { "3 cut" };
        assert_eq!(told.iter().map(show).collect::<Vec<_>>(), ["1", "2", last]);
        assert_eq!(counters.truncated, u64::from(captured < packet.len()));
    }
}

#[test]
fn a_sighting_has_what_the_headers_say() {
    let bytes = ethernet(&udp_packet(false, 4000, 53, &query(1, "a")));
    let (told, _) = decode([frame(LinkType::Ethernet, &bytes, bytes.len())]);
    let sighting = &told[0];
    assert_eq!(sighting.flow.source.to_string(), "10.0.0.1:4000");
    assert_eq!(sighting.flow.destination.to_string(), "10.0.0.2:53");
    assert_eq!(sighting.destination_mac.unwrap().to_string(), "02:00:00:00:00:02");
    assert_eq!((sighting.ttl, sighting.ip_id, sighting.dont_fragment), (64, 0x1234, false));
    assert_eq!((sighting.frame, sighting.time), (1, Timestamp::from_nanos(1)));

    let bytes = ethernet(&udp_packet(true, 53, 4000, &query(1, "a")));
    let (told, _) = decode([frame(LinkType::Ethernet, &bytes, bytes.len())]);
    assert_eq!(told[0].flow.source.to_string(), "[fd00::1]:53");
    assert_eq!((told[0].ttl, told[0].ip_id), (63, 0));
}

#[test]
fn other_ports_are_dns_only_when_listed() {
    let bytes = udp_packet(false, 5353, 5353, &query(1, "a"));
    let vantages = Vantages::new();
    for (ports, expected) in [(&[][..], 0), (&[53][..], 0), (&[53, 5353][..], 1)] {
        let mut decoder = Decoder::new(ports);
        decoder.decode(&frame(LinkType::RawIp, &bytes, bytes.len()), &vantages, &mut |_| {});
        assert_eq!(decoder.counters().dns_messages, expected);
    }
}

/// Valid packets of each kind, in Ethernet.
fn valid() -> Vec<Vec<u8>> {
    let mut response = header(9, 0x8180, [1, 2, 1, 1]);
    response.extend(name("www.example.com"));
    response.extend([0, 1, 0, 1]);
    let target = [&[3], b"cdn".as_slice(), &[0xc0, 16]].concat();
    response.extend(record(&[0xc0, 12], 5, 1, 60, &target));
    response.extend(record(&[0xc0, 33], 1, 1, 60, &[10, 0, 0, 1]));
    response.extend(record(&[0], 6, 1, 60, &[0; 22]));
    response.extend(record(&[0], 41, 1_232, 0x8000, &[0, 10, 0, 2, 1, 2]));
    let asked = query(8, "www.example.com");
    let unreachable = [&[3, 3, 0, 0, 0, 0, 0, 0], udp_packet(false, 4000, 53, &asked).as_slice()].concat();
    let mut first_fragment = udp_packet(false, 4000, 53, &asked);
    first_fragment[6] = 0x20;
    [
        udp_packet(false, 4000, 53, &asked),
        udp_packet(true, 53, 4000, &response),
        tcp_packet(4000, 53, 5, 0x10, &[prefixed(&asked), prefixed(&response)].concat()),
        super::samples::ipv4(super::ip::protocol::ICMP, 0, &unreachable),
        first_fragment,
    ]
    .iter()
    .map(|packet| ethernet(packet))
    .collect()
}

fn names(sighting: &Sighting) -> Vec<&Name> {
    match &sighting.body {
        SightingBody::Dns(message) => {
            std::iter::once(&message.name).chain(message.answer.cname_target.as_deref()).collect()
        }
        SightingBody::Icmp(_) => Vec::new(),
    }
}

/// What holds whatever the bytes are.
fn check(told: &[Sighting], counters: WireCounters, frames: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(counters.frames, frames);
    prop_assert_eq!(counters.dns_messages + counters.icmp_errors, told.len() as u64);
    for sighting in told {
        for name in names(sighting) {
            prop_assert!((1..=255).contains(&name.as_wire().len()));
            prop_assert_eq!(Name::from_wire(name.as_wire()), Ok(*name));
        }
        if let SightingBody::Dns(message) = &sighting.body {
            prop_assert!(message.has_question || message.name.is_root());
            prop_assert!(message.size >= 12);
        }
    }
    Ok(())
}

#[test]
fn every_snap_length_of_every_kind_of_packet() {
    for packet in valid() {
        for captured in 0..=packet.len() {
            let (told, counters) = decode([frame(LinkType::Ethernet, &packet[..captured], packet.len())]);
            check(&told, counters, 1).unwrap();
            if captured < packet.len() {
                assert!(told.iter().all(|s| !matches!(&s.body, SightingBody::Dns(m) if m.id == 9 && !m.cut)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_on_any_link(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), link in 0..LINKS.len(), more in 0_usize..70_000
    ) {
        let (told, counters) = decode([frame(LINKS[link], &bytes, bytes.len() + more)]);
        check(&told, counters, 1)?;
    }

    #[test]
    fn any_message_behind_valid_headers(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), v6 in any::<bool>(), segment_size in 0_u16..64
    ) {
        let packet = udp_packet(v6, 4000, 53, &bytes);
        let joined = Frame { segment_size, ..frame(LinkType::RawIp, &packet, packet.len()) };
        let (told, counters) = decode([joined]);
        check(&told, counters, 1)?;
    }

    #[test]
    fn valid_packets_with_octets_changed_and_cut(
        which in 0_usize..5,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut packet = valid().swap_remove(which);
        for (index, value) in changes {
            let at = index.index(packet.len());
            packet[at] = value;
        }
        let captured = cut.index(packet.len() + 1);
        let whole = frame(LinkType::Ethernet, &packet, packet.len());
        let short = frame(LinkType::Ethernet, &packet[..captured], packet.len());
        let (told, counters) = decode([short, whole, short]);
        check(&told, counters, 3)?;
    }

    #[test]
    fn any_segments_of_a_stream(
        segments in proptest::collection::vec(
            (0_u32..400, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60), any::<prop::sample::Index>()), 0..60
        )
    ) {
        let packets: Vec<_> = segments
            .iter()
            .map(|(sequence, flags, payload, cut)| {
                let packet = tcp_packet(4000, 53, *sequence, *flags, payload);
                let captured = cut.index(packet.len() + 1);
                (packet, captured)
            })
            .collect();
        let frames = packets.iter().map(|(packet, captured)| {
            frame(LinkType::RawIp, &packet[..*captured], packet.len())
        });
        let (told, counters) = decode(frames);
        check(&told, counters, packets.len() as u64)?;
    }
}
