//! One DNS message (RFC 1035 section 4): header and first question whole, the rest walked for a summary.
//!
//! Rule: the counts in the header are claims. Each record is read only where its bytes are; the first one that
//! does not decode ends the walk and sets `cut`, and everything read before it is kept. Compression pointers
//! only go backwards, past nothing already followed, so that every name ends.

use crate::model::{AnswerSummary, Class, DnsMessage, Edns, Flags, Name, NameBuilder, Rcode, Rtype};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a header.
pub(super) const HEADER_LEN: usize = 12;
/// Addresses kept of one answer.
const MAX_ADDRESSES: usize = 16;
/// EDNS option COOKIE (RFC 7873 section 4).
const OPTION_COOKIE: u16 = 10;

const ANSWER: usize = 1;
const AUTHORITY: usize = 2;
const ADDITIONAL: usize = 3;

/// Reads `bytes`, what there is of a message of `size` octets, into `message`, whose old content is replaced.
///
/// `false`: not even the header is there, and `message` is untouched. `spare` keeps the box of a CNAME target
/// between messages.
pub(super) fn read(
    bytes: &[u8],
    size: usize,
    message: &mut DnsMessage,
    spare: &mut Option<Box<Name>>,
) -> bool {
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else { return false };
    let [i0, i1, f0, f1, q0, q1, an0, an1, ns0, ns1, ar0, ar1] = *header;
    message.id = u16::from_be_bytes([i0, i1]);
    message.flags = Flags(u16::from_be_bytes([f0, f1]));
    message.rcode =
        if message.flags.is_response() { Rcode(message.flags.rcode().into()) } else { Rcode::NOERROR };
    message.counts = [
        u16::from_be_bytes([q0, q1]),
        u16::from_be_bytes([an0, an1]),
        u16::from_be_bytes([ns0, ns1]),
        u16::from_be_bytes([ar0, ar1]),
    ];
    message.size = u32::try_from(size).unwrap_or(u32::MAX);
    message.has_question = false;
    message.edns = None;
    message.answer.addresses.clear();
    message.answer.matching = 0;
    message.answer.authority_soa = false;
    if let Some(target) = message.answer.cname_target.take() {
        *spare = Some(target);
    }

    let questions_end = questions(bytes, message);
    if !message.has_question {
        (message.name, message.qtype, message.qclass) = (Name::ROOT, Rtype::default(), Class::default());
    }
    message.cut = questions_end.and_then(|start| records(bytes, start, message, spare)).is_none();
    true
}

/// Reads the first question and skips the others; gives where the records start.
fn questions(bytes: &[u8], message: &mut DnsMessage) -> Option<usize> {
    let mut position = HEADER_LEN;
    for index in 0..message.counts[0] {
        let end = if index == 0 {
            let (name, end) = read_name(bytes, position)?;
            let &[t0, t1, c0, c1] = chunk::<4>(bytes, end)?;
            message.name = name;
            message.qtype = Rtype(u16::from_be_bytes([t0, t1]));
            message.qclass = Class(u16::from_be_bytes([c0, c1]));
            message.has_question = true;
            end
        } else {
            skip_name(bytes, position)?
        };
        position = end + 4;
        if position > bytes.len() {
            return None;
        }
    }
    Some(position)
}

/// Walks answer, authority and additional section.
fn records(
    bytes: &[u8],
    start: usize,
    message: &mut DnsMessage,
    spare: &mut Option<Box<Name>>,
) -> Option<()> {
    let mut last_cname = None;
    let walked = walk(bytes, start, message, &mut last_cname);
    if let Some((name, _)) = last_cname.and_then(|position| read_name(bytes, position)) {
        let mut target = spare.take().unwrap_or_default();
        *target = name;
        message.answer.cname_target = Some(target);
    }
    walked
}

fn walk(bytes: &[u8], start: usize, message: &mut DnsMessage, last_cname: &mut Option<usize>) -> Option<()> {
    let mut position = start;
    for section in ANSWER..=ADDITIONAL {
        for _ in 0..message.counts.get(section).copied().unwrap_or(0) {
            let record = Record::read(bytes, position)?;
            match section {
                ANSWER if message.is_response() => {
                    answer_record(&record, message.qtype, &mut message.answer);
                    if record.rtype == Rtype::CNAME {
                        *last_cname = Some(record.end - record.data.len());
                    }
                }
                AUTHORITY if message.is_response() => {
                    message.answer.authority_soa |= record.rtype == Rtype::SOA;
                }
                ADDITIONAL if record.rtype == Rtype::OPT && message.edns.is_none() => {
                    opt_record(&record, message);
                }
                _ => {}
            }
            position = record.end;
        }
    }
    Some(())
}

/// One resource record (RFC 1035 section 4.1.3), its owner name skipped.
struct Record<'a> {
    rtype: Rtype,
    class: u16,
    ttl: u32,
    data: &'a [u8],
    /// Where the next record starts.
    end: usize,
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8], position: usize) -> Option<Self> {
        let fixed = skip_name(bytes, position)?;
        let &[t0, t1, c0, c1, l0, l1, l2, l3, d0, d1] = chunk::<10>(bytes, fixed)?;
        let start = fixed + 10;
        let end = start + usize::from(u16::from_be_bytes([d0, d1]));
        Some(Self {
            rtype: Rtype(u16::from_be_bytes([t0, t1])),
            class: u16::from_be_bytes([c0, c1]),
            ttl: u32::from_be_bytes([l0, l1, l2, l3]),
            data: bytes.get(start..end)?,
            end,
        })
    }
}

fn answer_record(record: &Record<'_>, qtype: Rtype, answer: &mut AnswerSummary) {
    if record.rtype == qtype || qtype == Rtype::ANY {
        answer.matching = answer.matching.saturating_add(1);
    }
    let address: IpAddr = if record.rtype == Rtype::A {
        let Ok(octets) = <[u8; 4]>::try_from(record.data) else { return };
        Ipv4Addr::from(octets).into()
    } else if record.rtype == Rtype::AAAA {
        let Ok(octets) = <[u8; 16]>::try_from(record.data) else { return };
        Ipv6Addr::from(octets).into()
    } else {
        return;
    };
    if record.class == Class::IN.0 && answer.addresses.len() < MAX_ADDRESSES {
        answer.addresses.push(address);
    }
}

/// OPT (RFC 6891 section 6.1.2): the class is the payload size, the TTL holds RCODE bits, version and flags.
fn opt_record(record: &Record<'_>, message: &mut DnsMessage) {
    let [extended_rcode, _version, flags, _] = record.ttl.to_be_bytes();
    if message.is_response() {
        message.rcode.0 |= u16::from(extended_rcode) << 4;
    }
    message.edns = Some(Edns {
        udp_payload_size: record.class,
        dnssec_ok: flags & 0x80 != 0,
        cookie: has_option(record.data, OPTION_COOKIE),
        options_len: u16::try_from(record.data.len()).unwrap_or(u16::MAX),
    });
}

fn has_option(mut options: &[u8], wanted: u16) -> bool {
    while let Some((&[c0, c1, l0, l1], rest)) = options.split_first_chunk::<4>() {
        if u16::from_be_bytes([c0, c1]) == wanted {
            return true;
        }
        match rest.get(usize::from(u16::from_be_bytes([l0, l1]))..) {
            Some(next) => options = next,
            None => return false,
        }
    }
    false
}

/// Reads a name that may be compressed (RFC 1035 section 4.1.4); gives it and where it ends at `start`.
fn read_name(bytes: &[u8], start: usize) -> Option<(Name, usize)> {
    let mut builder = NameBuilder::new();
    let (mut position, mut lowest, mut end) = (start, start, None);
    loop {
        let length = usize::from(*bytes.get(position)?);
        match length {
            0 => return Some((builder.finish(), end.unwrap_or(position + 1))),
            1..=0x3f => {
                let label = bytes.get(position + 1..position + 1 + length)?;
                builder.push(label).ok()?;
                position += 1 + length;
            }
            0xc0.. => {
                let target = (length & 0x3f) << 8 | usize::from(*bytes.get(position + 1)?);
                if target >= lowest {
                    return None;
                }
                end.get_or_insert(position + 2);
                (position, lowest) = (target, target);
            }
            // 01 and 10 are no label types any more (RFC 6891 section 5).
            _ => return None,
        }
    }
}

/// Where a name that starts at `position` ends, without following its pointer.
fn skip_name(bytes: &[u8], mut position: usize) -> Option<usize> {
    loop {
        let length = *bytes.get(position)?;
        match length {
            0 => return Some(position + 1),
            1..=0x3f => position += 1 + usize::from(length),
            0xc0.. => return Some(position + 2),
            _ => return None,
        }
    }
}

fn chunk<const N: usize>(bytes: &[u8], position: usize) -> Option<&[u8; N]> {
    bytes.get(position..)?.first_chunk::<N>()
}
