//! Capture files taken apart and put together again, and their DNS messages read the plainest way: no code of the
//! tracer is used.

use std::{net::Ipv4Addr, path::Path};

const HEADER: usize = 24;
const ETHERNET: usize = 14;

/// One record of a file.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) nanos: u64,
    pub(crate) original_len: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A little-endian Ethernet pcap.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    header: Vec<u8>,
    nanos_per_tick: u64,
    pub(crate) records: Vec<Record>,
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn be16(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes(bytes[..2].try_into().unwrap()))
}

impl Capture {
    pub(crate) fn open(path: &Path) -> Self {
        let file = std::fs::read(path).unwrap();
        let nanos_per_tick = match le32(&file) {
            0xa1b2_3c4d => 1,
            0xa1b2_c3d4 => 1_000,
            other => panic!("{} has the magic {other:x}", path.display()),
        };
        let mut records = Vec::new();
        let mut rest = &file[HEADER..];
        while !rest.is_empty() {
            let len = le32(&rest[8..]) as usize;
            records.push(Record {
                nanos: u64::from(le32(rest)) * 1_000_000_000 + u64::from(le32(&rest[4..])) * nanos_per_tick,
                original_len: le32(&rest[12..]),
                bytes: rest[16..16 + len].to_vec(),
            });
            rest = &rest[16 + len..];
        }
        Self { header: file[..HEADER].to_vec(), nanos_per_tick, records }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut file = self.header.clone();
        for record in &self.records {
            let (seconds, nanos) = (record.nanos / 1_000_000_000, record.nanos % 1_000_000_000);
            let len = record.bytes.len() as u32;
            for word in [seconds as u32, (nanos / self.nanos_per_tick) as u32, len, record.original_len] {
                file.extend(word.to_le_bytes());
            }
            file.extend(&record.bytes);
        }
        file
    }

    /// The longest record.
    pub(crate) fn longest(&self) -> usize {
        self.records.iter().map(|record| record.bytes.len()).max().unwrap()
    }

    /// Octets of records that hold what each query asks, over IPv4 without options: over UDP its question, over TCP
    /// the header of the first message in a segment.
    pub(crate) fn longest_question(&self) -> usize {
        let is_query = |frame: &&Vec<u8>| be16(&frame[ETHERNET + 22..]) == 53;
        let queries = self.records.iter().map(|record| &record.bytes).filter(is_query);
        let question_end = |frame: &Vec<u8>| match dns_offset(frame) {
            Some(dns) => dns + 12 + frame[dns + 12..].iter().position(|&length| length == 0).unwrap() + 5,
            None => ETHERNET + 20 + usize::from(frame[ETHERNET + 32] >> 4) * 4 + 2 + 12,
        };
        queries.map(question_end).max().unwrap()
    }

    /// Every DNS message over UDP.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.records.iter().filter_map(Message::read).collect()
    }
}

/// A DNS message over UDP and IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) nanos: u64,
    pub(crate) client: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    pub(crate) response: bool,
    pub(crate) rcode: u8,
    pub(crate) qtype: usize,
    pub(crate) name: String,
}

/// Whether a frame is TCP over IPv4.
pub(crate) fn is_tcp(frame: &[u8]) -> bool {
    frame.get(ETHERNET + 9) == Some(&6)
}

/// Where a frame's DNS message begins, if it is one over UDP and IPv4.
pub(crate) fn dns_offset(frame: &[u8]) -> Option<usize> {
    let ip = frame.get(ETHERNET..)?;
    let header = usize::from(ip.first()? & 15) * 4;
    let udp = ip.get(header..)?;
    let is_dns = be16(&frame[12..]) == 0x800 && ip[9] == 17 && (be16(udp) == 53 || be16(&udp[2..]) == 53);
    is_dns.then_some(ETHERNET + header + 8)
}

impl Message {
    fn read(record: &Record) -> Option<Self> {
        let frame = &record.bytes;
        let dns = &frame[dns_offset(frame)?..];
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
        let (from, to) = (address(ETHERNET + 12), address(ETHERNET + 16));
        let response = dns[2] & 0x80 != 0;
        let (client, server) = if response { (to, from) } else { (from, to) };
        let (mut labels, mut at) = (Vec::new(), 12);
        while dns[at] > 0 {
            let end = at + 1 + usize::from(dns[at]);
            labels.push(String::from_utf8(dns[at + 1..end].to_ascii_lowercase()).unwrap());
            at = end;
        }
        let (rcode, qtype, name) = (dns[3] & 15, be16(&dns[at + 1..]), labels.join("."));
        Some(Self { nanos: record.nanos, client, server, response, rcode, qtype, name })
    }
}
