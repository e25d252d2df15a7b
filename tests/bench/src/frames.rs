//! Traffic as a capture file: classic pcap with nanoseconds, Ethernet, as tcpdump would have taken it on a bridge.

use std::io::{self, Write};

use crate::traffic::{Message, SUFFIXES, Traffic};

/// 2026-01-01 00:00:00 UTC, in seconds.
const BEGIN: u64 = 1_767_225_600;
/// The address of the cluster's DNS service.
pub(crate) const SERVER: [u8; 4] = [10, 96, 0, 10];
/// An A record's data, and the last octets of an AAAA record's.
const ADDRESS: [u8; 4] = [198, 51, 100, 10];

/// Writes the first `packets` messages.
///
/// # Errors
/// Those of `out`.
pub fn write_pcap(traffic: &Traffic, packets: usize, out: &mut impl Write) -> io::Result<()> {
    let names = Names::new(traffic.names);
    // Magic number of nanoseconds, version 2.4, time zone, accuracy, snap length, LINKTYPE_ETHERNET.
    for word in [0xa1b2_3c4d_u32, 4 << 16 | 2, 0, 0, 262_144, 1] {
        out.write_all(&word.to_le_bytes())?;
    }
    let mut frame = Vec::with_capacity(512);
    for message in traffic.messages().take(packets) {
        build(&message, SERVER, &names, &mut frame);
        let (seconds, nanos) = (BEGIN + message.time / 1_000_000_000, message.time % 1_000_000_000);
        let length = frame.len() as u32;
        for word in [seconds as u32, nanos as u32, length, length] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(&frame)?;
    }
    Ok(())
}

/// All names in wire form (RFC 1035 section 3.1).
pub(crate) struct Names(Vec<Vec<u8>>);

impl Names {
    pub(crate) fn new(count: u32) -> Self {
        let wire = |text: String| {
            let labels = text.split('.').flat_map(|label| {
                std::iter::once(label.len() as u8).chain(label.bytes()).collect::<Vec<_>>()
            });
            labels.chain([0]).collect()
        };
        Self(texts(count).map(wire).collect())
    }

    fn of(&self, message: &Message) -> &[u8] {
        &self.0[place(message)]
    }
}

/// All names in the order of [`place`].
fn texts(count: u32) -> impl Iterator<Item = String> {
    (0..count.max(1)).flat_map(|name| SUFFIXES.map(|suffix| format!("api-{name}.example.com{suffix}")))
}

/// A message's place among [`texts`].
fn place(message: &Message) -> usize {
    message.name as usize * SUFFIXES.len() + usize::from(message.suffix)
}

/// A client's address: 10.244.0.16 and those after it.
pub(crate) fn address(client: u32) -> [u8; 4] {
    (0x0af4_0010 + client).to_be_bytes()
}

/// The frame of a message between its client and `server`.
pub(crate) fn build(message: &Message, server: [u8; 4], names: &Names, frame: &mut Vec<u8>) {
    let client = address(message.client);
    let (from, to) = if message.response { (server, client) } else { (client, server) };
    let (source, destination) = if message.response { (53, message.port) } else { (message.port, 53) };
    frame.clear();
    for end in [to, from] {
        frame.extend([0x02, 0]);
        frame.extend(end);
    }
    frame.extend([0x08, 0]);
    // Version and length; service; total length, set below; id; don't fragment; TTL; UDP; checksum, set below.
    frame.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(u16::to_be_bytes(source));
    frame.extend(u16::to_be_bytes(destination));
    // UDP length, set below, and no checksum.
    frame.extend([0; 4]);
    dns(message, names.of(message), frame);
    let length = frame.len() as u16;
    frame[16..18].copy_from_slice(&(length - 14).to_be_bytes());
    frame[38..40].copy_from_slice(&(length - 34).to_be_bytes());
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// A query, or an answer as an authoritative server that recurses gives it: an address, or NXDOMAIN with the zone's
/// SOA record.
fn dns(message: &Message, name: &[u8], out: &mut Vec<u8>) {
    let qtype: u16 = if message.aaaa { 28 } else { 1 };
    let [flags, answers, authorities] = match (message.response, message.exists()) {
        (false, _) => [0x0100_u16, 0, 0],
        (true, true) => [0x8580, 1, 0],
        (true, false) => [0x8583, 0, 1],
    };
    for word in [message.id, flags, 1, answers, authorities, 0] {
        out.extend(word.to_be_bytes());
    }
    out.extend(name);
    for word in [qtype, 1] {
        out.extend(word.to_be_bytes());
    }
    if answers > 0 {
        // A pointer to the question's name, type, class, TTL 30.
        out.extend([0xc0, 12]);
        out.extend(qtype.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 30]);
        let data: &[u8] = if message.aaaa { &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0] } else { &[] };
        out.extend((data.len() as u16 + 4).to_be_bytes());
        out.extend(data);
        out.extend(ADDRESS);
    }
    if authorities > 0 {
        // The root's SOA: primary name "ns.", mailbox "h.", five numbers.
        out.extend([0, 0, 6, 0, 1, 0, 0, 0, 30, 0, 27, 2, b'n', b's', 0, 1, b'h', 0]);
        out.extend([0; 20]);
    }
}

/// The Internet checksum (RFC 1071) of a header without one.
fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnspath::{
        model::{Frame, LinkType, SightingBody, Timestamp, Vantage, Vantages},
        wire::Decoder,
    };

    #[test]
    fn a_file_has_the_same_octets_each_time() {
        let file = |seed| {
            let mut out = Vec::new();
            write_pcap(&Traffic { seed, ..Traffic::default() }, 5_000, &mut out).unwrap();
            out
        };
        assert_eq!(file(1), file(1));
        assert_ne!(file(1), file(2));
    }

    #[test]
    fn each_frame_is_read_as_what_it_was_made_from() {
        let (names, mut frame) = (Names::new(500), Vec::new());
        let texts: Vec<String> = texts(500).collect();
        let vantages = Vantages::new();
        let vantage = vantages.intern(Vantage { interface: "any".into(), ..Vantage::default() });
        let mut decoder = Decoder::new(&[53]);
        for message in Traffic::default().messages().take(2_000) {
            build(&message, SERVER, &names, &mut frame);
            let seen = Frame {
                number: 1,
                time: Timestamp::from_nanos(message.time),
                vantage,
                link: LinkType::Ethernet,
                original_len: frame.len() as u32,
                bytes: &frame,
                segment_size: 0,
                nat: None,
                drop: None,
            };
            let mut read = Vec::new();
            decoder.decode(&seen, &vantages, &mut |sighting| read.push(sighting.clone()));
            let [sighting] = read.as_slice() else { panic!("{read:?}") };
            let SightingBody::Dns(dns) = &sighting.body else { panic!("{sighting:?}") };
            assert_eq!(dns.name.to_string().trim_end_matches('.'), texts[place(&message)]);
            let addresses = usize::from(message.response && message.exists());
            assert_eq!((dns.id, dns.answer.addresses.len()), (message.id, addresses));
            let rcode = if message.response && !message.exists() { 3 } else { 0 };
            assert_eq!((dns.rcode.0, dns.qtype.0 == 28), (rcode, message.aaaa));
        }
    }
}
