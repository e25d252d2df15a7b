//! One DNS message (RFC 1035 section 4): header and first question whole, the rest walked for a summary.
//!
//! Rule: the counts in the header are claims. Each record is read only where its bytes are; the first one that
//! does not decode ends the walk and sets `cut`, and everything read before it is kept. Compression pointers
//! only go backwards, past nothing already followed, so that every name ends.

use crate::model::{AnswerSummary, Class, DnsMessage, Edns, Flags, Name, NameBuilder, Rcode, Rtype};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a header.
pub(super) const HEADER_LEN: usize = 12;
/// Octets of a question behind its name.
const QUESTION_LEN: usize = 4;
/// Octets of the longest name (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// Addresses kept of one answer.
const MAX_ADDRESSES: usize = 16;
/// EDNS option COOKIE (RFC 7873 section 4).
const OPTION_COOKIE: u16 = 10;

const ANSWER: usize = 1;
const AUTHORITY: usize = 2;
const ADDITIONAL: usize = 3;

/// What is kept between messages, so that none of them allocates.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    builder: NameBuilder,
    /// The box of a CNAME target.
    target: Option<Box<Name>>,
}

/// Reads `bytes`, what there is of a message of `size` octets, into `message`, whose old content is replaced.
///
/// `false`: not even the header is there, and `message` is untouched.
pub(super) fn read(bytes: &[u8], size: usize, message: &mut DnsMessage, scratch: &mut Scratch) -> bool {
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
        scratch.target = Some(target);
    }

    let questions_end = questions(bytes, message, &mut scratch.builder);
    if !message.has_question {
        (message.name, message.qtype, message.qclass) = (Name::ROOT, Rtype::default(), Class::default());
    }
    let [_, records_claimed @ ..] = message.counts;
    message.cut = match questions_end {
        None => true,
        Some(_) if records_claimed == [0; 3] => false,
        Some(start) => records(bytes, start, message, scratch).is_none(),
    };
    true
}

/// Whether `bytes` look like a message with one question: for places where it is not sure that one begins. `cut`:
/// the question may be missing.
pub(super) fn is_plausible(bytes: &[u8], cut: bool) -> bool {
    let Some(&[_, _, f0, f1, q0, q1, ..]) = bytes.first_chunk::<HEADER_LEN>() else { return false };
    // Opcodes up to DSO (RFC 8490), Z clear, no more than one question (RFC 9619).
    let opcode = f0 >> 3 & 0xf;
    if opcode > 6 || f1 & 0x40 != 0 {
        return false;
    }
    let class = |end: usize| chunk::<4>(bytes, end).map(|&[_, _, c0, c1]| u16::from_be_bytes([c0, c1]));
    match u16::from_be_bytes([q0, q1]) {
        1 => match read_name(bytes, HEADER_LEN, &mut NameBuilder::new()).and_then(class) {
            // IN, CH, HS, NONE and ANY.
            Some(class) => matches!(class, 1 | 3 | 4 | 254 | 255),
            None => cut,
        },
        _ => false,
    }
}

/// Reads the first question and skips the others; gives where the records start.
fn questions(bytes: &[u8], message: &mut DnsMessage, builder: &mut NameBuilder) -> Option<usize> {
    if message.counts[0] == 0 {
        return Some(HEADER_LEN);
    }
    let mut position = first_question(bytes, message, builder)?;
    for _ in 1..message.counts[0] {
        position = skip_name(bytes, position)? + QUESTION_LEN;
        if position > bytes.len() {
            return None;
        }
    }
    Some(position)
}

/// Reads the first question; gives where it ends.
fn first_question(bytes: &[u8], message: &mut DnsMessage, builder: &mut NameBuilder) -> Option<usize> {
    let plain = plain_name(bytes, HEADER_LEN);
    let end = match plain {
        Some(name) => HEADER_LEN + name.len(),
        None => read_name(bytes, HEADER_LEN, builder)?,
    };
    let &[t0, t1, c0, c1] = chunk::<QUESTION_LEN>(bytes, end)?;
    match plain {
        Some(name) => message.name.fold_wire(name),
        None => builder.write_to(&mut message.name),
    }
    message.qtype = Rtype(u16::from_be_bytes([t0, t1]));
    message.qclass = Class(u16::from_be_bytes([c0, c1]));
    message.has_question = true;
    Some(end + QUESTION_LEN)
}

/// Walks answer, authority and additional section.
fn records(bytes: &[u8], start: usize, message: &mut DnsMessage, scratch: &mut Scratch) -> Option<()> {
    let mut last_cname = None;
    let walked = walk(bytes, start, message, &mut last_cname);
    if last_cname.and_then(|position| read_name(bytes, position, &mut scratch.builder)).is_some() {
        let mut target = scratch.target.take().unwrap_or_default();
        scratch.builder.write_to(&mut target);
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

/// The octets of a name that has no compression pointer and ends in time, as that of every question should be.
fn plain_name(bytes: &[u8], start: usize) -> Option<&[u8]> {
    let rest = bytes.get(start..)?;
    let mut position = 0;
    while let length @ 1..=0x3f = *rest.get(position)? {
        position += 1 + usize::from(length);
    }
    match rest.get(position) {
        Some(0) if position < MAX_NAME => rest.get(..=position),
        _ => None,
    }
}

/// Reads a name that may be compressed (RFC 1035 section 4.1.4); gives where it ends at `start`.
fn read_name(bytes: &[u8], start: usize, builder: &mut NameBuilder) -> Option<usize> {
    builder.clear();
    let (mut position, mut lowest, mut end) = (start, start, None);
    loop {
        let length = usize::from(*bytes.get(position)?);
        match length {
            0 => return Some(end.unwrap_or(position + 1)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::{header, name, query, record};

    const RESPONSE: u16 = 0x8180;
    /// A pointer to the question's name.
    const TO_QUESTION: [u8; 2] = [0xc0, 12];

    fn decode(bytes: &[u8]) -> DnsMessage {
        let mut message = DnsMessage::default();
        assert!(read(bytes, bytes.len(), &mut message, &mut Scratch::default()));
        message
    }

    /// A response to (example.com, `qtype`) with these records behind the question.
    fn response(flags: u16, qtype: u16, counts: [u16; 3], records: &[Vec<u8>]) -> Vec<u8> {
        let mut message = header(7, flags, [1, counts[0], counts[1], counts[2]]);
        message.extend(name("Example.com"));
        message.extend(qtype.to_be_bytes());
        message.extend([0, 1]);
        message.extend(records.concat());
        message
    }

    #[test]
    fn a_query_is_read_whole() {
        let message = decode(&query(0x1234, "WWW.Example.com"));
        assert_eq!((message.id, message.name.to_string()), (0x1234, "www.example.com".into()));
        assert_eq!((message.qtype, message.qclass), (Rtype::A, Class::IN));
        assert!(message.has_question && !message.is_response() && !message.cut);
        assert_eq!(message.size, 33);
    }

    #[test]
    fn an_answer_is_summarised() {
        let target = [&[3], b"cdn".as_slice(), &TO_QUESTION].concat();
        let records = [
            record(&TO_QUESTION, 5, 1, 60, &target),
            record(&target, 1, 1, 60, &[10, 0, 0, 1]),
            record(&target, 1, 1, 60, &[10, 0, 0, 2]),
            record(&target, 1, 1, 60, &[10, 0, 0]),
        ];
        let message = decode(&response(RESPONSE, 1, [4, 0, 0], &records));
        let addresses: Vec<_> = message.answer.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(message.answer.matching, 3);
        assert_eq!(message.answer.cname_target.unwrap().to_string(), "cdn.example.com");
        assert!(!message.cut && !message.answer.authority_soa);
    }

    #[test]
    fn aaaa_records_give_ipv6_addresses() {
        let address = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let message =
            decode(&response(RESPONSE, 28, [1, 0, 0], &[record(&TO_QUESTION, 28, 1, 60, &address)]));
        assert_eq!(message.answer.addresses[0].to_string(), "fd00::9");
    }

    #[test]
    fn addresses_are_bounded_and_their_count_is_not() {
        let records: Vec<_> = (0..100).map(|n| record(&TO_QUESTION, 1, 1, 60, &[10, 0, 0, n])).collect();
        let message = decode(&response(RESPONSE, 1, [100, 0, 0], &records));
        assert_eq!((message.answer.addresses.len(), message.answer.matching), (MAX_ADDRESSES, 100));
    }

    #[test]
    fn a_negative_answer_has_its_soa() {
        let message =
            decode(&response(RESPONSE | 3, 1, [0, 1, 0], &[record(&TO_QUESTION, 6, 1, 30, &[0; 22])]));
        assert_eq!(message.rcode, Rcode::NXDOMAIN);
        assert!(message.answer.authority_soa);
    }

    #[test]
    fn opt_gives_size_flags_cookie_and_the_upper_rcode_bits() {
        let cookie = [0, 3, 0, 0, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        let opt = record(&[0], 41, 1_232, 0x0100_8000, &cookie);
        let message = decode(&response(RESPONSE, 1, [0, 0, 1], std::slice::from_ref(&opt)));
        assert_eq!(message.rcode, Rcode::BADVERS);
        let expected = Edns { udp_payload_size: 1_232, dnssec_ok: true, cookie: true, options_len: 16 };
        assert_eq!(message.edns, Some(expected));
        let query = decode(&response(0x0100, 1, [0, 0, 1], &[opt]));
        assert_eq!((query.rcode, query.edns), (Rcode::NOERROR, Some(expected)));
    }

    #[test]
    fn options_that_lie_end_the_search_for_a_cookie() {
        for options in [&[0, 3, 0, 9, 1][..], &[0, 3], &[0, 3, 0xff, 0xff]] {
            assert!(!has_option(options, OPTION_COOKIE));
        }
    }

    #[test]
    fn a_cut_message_keeps_what_decoded() {
        let records =
            [record(&TO_QUESTION, 1, 1, 60, &[10, 0, 0, 1]), record(&TO_QUESTION, 1, 1, 60, &[10, 0, 0, 2])];
        let whole = response(RESPONSE, 1, [2, 0, 0], &records);
        for length in HEADER_LEN..whole.len() {
            let mut message = DnsMessage::default();
            assert!(read(&whole[..length], whole.len(), &mut message, &mut Scratch::default()));
            assert!(message.cut, "cut at {length}");
            assert_eq!(message.id, 7);
            assert_eq!(message.has_question, length >= 29, "cut at {length}");
            assert_eq!(message.name == Name::ROOT, length < 29, "cut at {length}");
            assert_eq!(message.answer.addresses.len(), usize::from(length >= 45), "cut at {length}");
        }
        assert!(!read(&whole[..11], whole.len(), &mut DnsMessage::default(), &mut Scratch::default()));
    }

    #[test]
    fn counts_are_claims() {
        let mut bytes = query(1, "a.b");
        bytes[4..12].fill(0xff);
        let message = decode(&bytes);
        assert!(message.cut && message.has_question);
        assert_eq!((message.name.to_string(), message.counts), ("a.b".into(), [0xffff; 4]));

        let message = decode(&header(1, RESPONSE, [0, 0, 0, 0]));
        assert!(!message.has_question && !message.cut && message.name.is_root());
    }

    #[test]
    fn pointers_that_do_not_go_back_end_the_reading() {
        let question = |name: &[u8]| [&header(1, 0, [1, 0, 0, 0])[..], name, &[0, 1, 0, 1]].concat();
        for (what, name) in [
            ("to itself", &[0xc0, 12][..]),
            ("forwards", &[0xc0, 14, 0]),
            ("round a label", &[1, b'a', 0xc0, 12]),
            ("behind the end", &[0xff, 0xff]),
            ("an old label type", &[0x41, 0]),
        ] {
            let message = decode(&question(name));
            assert!(message.cut && !message.has_question, "{what}");
        }
        // Into the header, which is behind: allowed, and read as what is there.
        assert_eq!(decode(&question(&[1, b'a', 0xc0, 2])).name.to_string(), "a");
    }

    #[test]
    fn names_of_255_octets_pass_and_longer_ones_do_not() {
        let label = |length: usize| [vec![u8::try_from(length).unwrap()], vec![b'x'; length]].concat();
        let of = |last: usize| [label(63), label(63), label(63), label(last), vec![0]].concat();
        let question = |name: Vec<u8>| [header(1, 0, [1, 0, 0, 0]), name, vec![0, 1, 0, 1]].concat();
        let longest = decode(&question(of(61)));
        assert_eq!((longest.name.as_wire().len(), longest.cut), (255, false));
        assert!(decode(&question(of(62))).cut);
    }

    #[test]
    fn a_message_read_into_the_place_of_another_keeps_nothing_of_it() {
        let records = [
            record(&TO_QUESTION, 5, 1, 60, &name("t")),
            record(&TO_QUESTION, 1, 1, 60, &[10, 0, 0, 1]),
            record(&[0], 6, 1, 0, &[]),
            record(&[0], 41, 512, 0, &[]),
        ];
        let full = response(RESPONSE, 1, [2, 1, 1], &records);
        let bare = header(9, 0, [0; 4]);
        let (mut message, mut scratch) = (DnsMessage::default(), Scratch::default());
        assert!(read(&full, full.len(), &mut message, &mut scratch));
        assert!(message.answer.cname_target.is_some() && message.edns.is_some());
        assert!(read(&bare, bare.len(), &mut message, &mut scratch));
        assert_eq!(message, decode(&bare));
        assert!(scratch.target.is_some(), "the box serves again");
    }
}
