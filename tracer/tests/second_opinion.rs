//! The decoder against hickory-proto: what both read of a message must be the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own input must fail")]

use dnspath::{
    model::{DnsMessage, Frame, LinkType, SightingBody, Timestamp, VantageId, Vantages},
    trace::Reader,
    wire::Decoder,
};
use hickory_proto::{
    op::Message,
    rr::{DNSClass, Name, RData},
};
use proptest::prelude::*;
use std::{net::IpAddr, path::Path, sync::OnceLock};

/// The UDP payloads of a few captures that show every kind of answer.
fn payloads() -> &'static [Vec<u8>] {
    static PAYLOADS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PAYLOADS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/resolvers");
        let mut all = Vec::new();
        for file in [
            "tcsmall-go119",
            "cname-glibc236",
            "nodatainternal-soa-musl125",
            "tcsmall-glibc236",
            "okext-dig918",
        ] {
            let mut reader = Reader::open(&folder.join(file).with_extension("pcap"), 0).unwrap();
            while let Some(frame) = reader.next_frame(&Vantages::new()).unwrap() {
                let ip_header = usize::from(frame.bytes[14] & 0xf) * 4;
                if frame.bytes[23] == 17 {
                    all.push(frame.bytes[14 + ip_header + 8..].to_vec());
                }
            }
        }
        all
    })
}

/// What our decoder makes of a UDP payload.
fn ours(payload: &[u8]) -> Option<DnsMessage> {
    let length = |header: usize| u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(28));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 53]);
    packet.extend(length(8));
    packet.extend([0, 0]);
    packet.extend(payload);
    let mut message = None;
    let frame = Frame {
        number: 1,
        time: Timestamp::EPOCH,
        vantage: VantageId(0),
        link: LinkType::RawIp,
        original_len: u32::try_from(packet.len()).unwrap(),
        bytes: &packet,
        segment_size: 0,
        nat: None,
        drop: None,
    };
    Decoder::new(&[53]).decode(&frame, &Vantages::new(), &mut |sighting| {
        if let SightingBody::Dns(dns) = &sighting.body {
            message = Some(dns.clone());
        }
    });
    message
}

fn wire_form(name: &Name) -> Option<Vec<u8>> {
    let labels = name.iter().map(<[u8]>::to_ascii_lowercase);
    let ours =
        dnspath::model::Name::from_labels(labels.collect::<Vec<_>>().iter().map(Vec::as_slice)).ok()?;
    Some(ours.as_wire().to_vec())
}

/// Compares what both read; nothing is said where hickory refuses the message.
fn compare(payload: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(theirs) = Message::from_vec(payload) else { return Ok(false) };
    let Some(ours) = ours(payload) else { return Err(TestCaseError::fail("hickory reads it, we do not")) };
    prop_assert_eq!(ours.id, theirs.metadata.id);
    prop_assert_eq!(ours.counts[0], u16::try_from(theirs.queries.len()).unwrap());
    prop_assert_eq!(ours.counts[1], u16::try_from(theirs.answers.len()).unwrap());
    if let Some(query) = theirs.queries.first() {
        prop_assert!(ours.has_question);
        prop_assert_eq!(Some(ours.name.as_wire().to_vec()), wire_form(query.name()));
        prop_assert_eq!(ours.qtype.0, u16::from(query.query_type()));
    }
    if ours.is_response() {
        let addresses: Vec<IpAddr> = theirs
            .answers
            .iter()
            // An address record of another class is no address.
            .filter(|record| record.dns_class == DNSClass::IN)
            .filter_map(|record| match &record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
            .collect();
        prop_assert_eq!(&ours.answer.addresses[..], &addresses[..addresses.len().min(16)]);
    }
    Ok(true)
}

#[test]
fn real_messages_are_read_alike() {
    let read = payloads().iter().filter(|payload| compare(payload).unwrap()).count();
    assert_eq!(read, payloads().len());
    assert!(read > 25, "{read} messages");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_messages_that_hickory_still_reads_are_read_alike(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut payload = which.get(payloads()).clone();
        for (at, value) in changes {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        compare(&payload)?;
    }
}
