//! Packets that a hostile pod could send: everything DNS, UDP, TCP, IP and Ethernet can lie about, and among them
//! the odd but well-formed ones, which must be understood.

mod network;

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use crate::lab::Lab;
use crate::packet::{self, Ipv4, Link, UDP};
use crate::topology::{VIP4, VIP6};

/// One frame and what is to be told of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is odd about it.
    pub what: String,
    /// The frames, one or, of a fragmented datagram, several.
    pub frames: Vec<Vec<u8>>,
    /// The DNS id, of this case alone.
    pub id: u16,
    /// The name as it must be told; `None`: nothing in particular is.
    pub name: Option<String>,
    /// It must be among those counted as malformed or truncated.
    pub counted: bool,
    /// A packet dissector reads the same name.
    pub plain: bool,
}

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The link.
    pub link: Link,
    /// The pod's addresses: IPv4, IPv6.
    pub pod: [IpAddr; 2],
    /// The server's addresses: IPv4, IPv6.
    pub server: [IpAddr; 2],
}

impl Ends {
    /// A pod of a lab, and its DNS service.
    ///
    /// # Errors
    /// The lab has no such pod, or the pod's link cannot be read.
    pub fn of(lab: &Lab, pod: &str) -> Result<Self> {
        let pod = lab.pod(pod)?;
        let link = Link::to_gateway(pod, lab.node())?;
        Ok(Self { link, pod: [pod.ip4.into(), pod.ip6.into()], server: [VIP4.into(), VIP6.into()] })
    }
}

/// All cases.
pub fn storm(ends: Ends) -> Vec<Case> {
    let mut storm = Storm { ends, cases: Vec::new() };
    storm.counts_and_pointers();
    storm.names();
    storm.cuts();
    storm.records();
    storm.udp_lengths();
    storm.ip_headers();
    storm.extension_headers();
    storm.tags();
    for v6 in [false, true] {
        storm.fragments(v6);
        storm.segments(v6);
        storm.icmp_errors(v6);
    }
    storm.cases
}

/// `count` frames of the storm with some octets changed behind the MAC addresses; the same for the same `seed`.
pub fn mutations(cases: &[Case], count: usize, mut seed: u64) -> Vec<Vec<u8>> {
    // xorshift64 (Marsaglia, 2003).
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let frames: Vec<&Vec<u8>> = cases.iter().flat_map(|case| &case.frames).collect();
    let mut made = Vec::with_capacity(count);
    while made.len() < count {
        let Some(mut frame) = frames.get(random(frames.len())).map(|frame| (*frame).clone()) else { break };
        for _ in 0..1 + random(4) {
            let at = 12 + random(frame.len() - 12);
            if let Some(octet) = frame.get_mut(at) {
                *octet = random(256) as u8;
            }
        }
        if random(4) == 0 {
            frame.truncate(14 + random(frame.len() - 14));
        }
        made.push(frame);
    }
    made
}

struct Storm {
    ends: Ends,
    cases: Vec<Case>,
}

/// A DNS header: id, RD, four counts.
fn header(id: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0]);
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes
}

/// A name in wire form.
fn wire(labels: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend(*label);
    }
    bytes.push(0);
    bytes
}

/// A name as text: RFC 1035 section 5.1's escapes for all that is not printable, in lower case.
fn shown(labels: &[&[u8]]) -> String {
    let label = |label: &&[u8]| -> String {
        label
            .iter()
            .map(|octet| match octet {
                b'.' | b'\\' => format!("\\{}", char::from(*octet)),
                0x21..=0x7e => char::from(*octet).to_ascii_lowercase().to_string(),
                _ => format!("\\{octet:03}"),
            })
            .collect()
    };
    labels.iter().map(label).collect::<Vec<_>>().join(".")
}

/// Type A, class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

impl Storm {
    fn id(&self) -> u16 {
        0x4000 + self.cases.len() as u16
    }

    fn name(&self) -> String {
        format!("case{}.storm.example.com", self.cases.len())
    }

    /// A well-formed query for this case's own name.
    fn query(&self) -> Vec<u8> {
        crate::query::query(self.id(), &self.name(), crate::query::Qtype::A)
    }

    fn pod(&self, v6: bool) -> SocketAddr {
        SocketAddr::new(self.ends.pod[usize::from(v6)], 20_000 + self.cases.len() as u16)
    }

    fn server(&self, v6: bool) -> SocketAddr {
        SocketAddr::new(self.ends.server[usize::from(v6)], 53)
    }

    /// An IP packet of this case: pod to server.
    fn packet(&self, v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.pod(v6).ip(), self.server(v6).ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.ipv4().packet(from, to, protocol, payload),
            (IpAddr::V6(from), IpAddr::V6(to)) => packet::ipv6(from, to, protocol, payload),
            _ => Vec::new(),
        }
    }

    fn ipv4(&self) -> Ipv4 {
        Ipv4 { id: self.id(), ..Ipv4::default() }
    }

    fn ipv4_packet(&self, header: &Ipv4, payload: &[u8]) -> Vec<u8> {
        match (self.pod(false).ip(), self.server(false).ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => header.packet(from, to, UDP, payload),
            _ => Vec::new(),
        }
    }

    fn udp(&self, v6: bool, message: &[u8], length: Option<u16>) -> Vec<u8> {
        packet::udp(self.pod(v6), self.server(v6), message, length)
    }

    fn add(&mut self, what: impl Into<String>, frames: Vec<Vec<u8>>, name: Option<String>, counted: bool) {
        let id = self.id();
        self.cases.push(Case { what: what.into(), frames, id, name, counted, plain: false });
    }

    /// As [`Storm::add`], of a frame that says what every dissector reads.
    fn add_plain(&mut self, what: impl Into<String>, frames: Vec<Vec<u8>>) {
        let name = self.name();
        self.add(what, frames, Some(name), false);
        if let Some(case) = self.cases.last_mut() {
            case.plain = true;
        }
    }

    /// A message in an ordinary IPv4 datagram.
    fn message(&mut self, what: impl Into<String>, message: &[u8], name: Option<String>, counted: bool) {
        let frame = self.ends.link.ip(&self.packet(false, UDP, &self.udp(false, message, None)));
        self.add(what, vec![frame], name, counted);
    }

    fn counts_and_pointers(&mut self) {
        for counts in [[65535, 0, 0, 0], [1, 65535, 65535, 65535], [1, 0, 0, 65535], [65535; 4]] {
            let mut message = self.query();
            message.splice(4..12, counts.iter().flat_map(|count: &u16| count.to_be_bytes()));
            let name = self.name();
            self.message(format!("counts {counts:?}"), &message, Some(name), true);
        }
        self.message("no question", &header(self.id(), [0; 4]), None, false);
        let pointers: [(&str, &[u8]); 9] = [
            ("a pointer to itself", &[0xc0, 12]),
            ("two pointers in a circle", &[0xc0, 14, 0xc0, 12]),
            ("a label and a pointer back to it", &[1, b'a', 0xc0, 12]),
            ("a pointer forward", &[0xc0, 20, 0, 1, 0, 1, 0, 0, 1, b'a', 0]),
            ("a pointer past the end", &[0xff, 0xff]),
            ("a pointer into the header", &[0xc0, 0]),
            ("half a pointer", &[0xc0]),
            ("the label type 64", &[0x41, b'a', 0]),
            ("the label type 128", &[0x81, b'a', 0]),
        ];
        for (what, name) in pointers {
            let mut message = header(self.id(), [1, 0, 0, 0]);
            message.extend(name);
            if what != "half a pointer" {
                message.extend(A_IN);
            }
            // The header's own octets can be read as a name.
            self.message(what, &message, None, what != "a pointer into the header");
        }
    }

    fn names(&mut self) {
        let long = [b'x'; 63];
        let odd: [&[&[u8]]; 12] = [
            &[b"\x1b[2J\x1b[31mred\x1b]0;title\x07", b"example"],
            &[b"line\nbreak\r\n", b"example"],
            &[b"nul\0nul", b"example"],
            &[b"\xff\xfe\x80", b"example"],
            &[b"\xe2\x80\xae", b"\xc2\x9b31m"],
            &[b" space and tab\t", b"\x7f"],
            &[b"dot.dot", b"back\\slash"],
            &[b"\"quotes\"", b"{\"unit\":1}", b"';--"],
            &[b"%s%n", b"$(reboot)", b"`id`"],
            &[b"MiXeD", b"CaSe"],
            &[&long],
            &[&long, &long, &long, &[b'y'; 61]],
        ];
        for labels in odd {
            let mut message = header(self.id(), [1, 0, 0, 0]);
            message.extend(wire(labels));
            message.extend(A_IN);
            let name = shown(labels);
            self.message(format!("the name {name}"), &message, Some(name), false);
        }
        let single: Vec<&[u8]> = vec![b"1"; 127];
        let mut message = header(self.id(), [1, 0, 0, 0]);
        message.extend(wire(&single));
        message.extend(A_IN);
        self.message("127 labels", &message, Some(shown(&single)), false);
        for labels in [vec![&[b'z'; 63][..], &long, &long, &[b'y'; 62]], vec![&b"1"[..]; 128]] {
            let mut message = header(self.id(), [1, 0, 0, 0]);
            message.extend(wire(&labels));
            message.extend(A_IN);
            self.message("a name of more than 255 octets", &message, None, true);
        }
        for (qtype, class) in [(0, 0), (65535, 65535), (255, 255), (1, 3), (251, 1)] {
            let mut message = self.query();
            let end = message.len() - 4;
            message.truncate(end);
            message.extend([qtype, class].iter().flat_map(|value: &u16| value.to_be_bytes()));
            let name = self.name();
            self.message(format!("type {qtype}, class {class}"), &message, Some(name), false);
        }
        for opcode in 1..16_u8 {
            let mut message = self.query();
            message.splice(2..3, [opcode << 3]);
            self.message(format!("opcode {opcode}"), &message, None, false);
        }
    }

    /// A query cut after each of its octets.
    fn cuts(&mut self) {
        for length in 0..self.query().len() {
            let message = self.query();
            let cut = message.get(..length).unwrap_or_default();
            self.message(format!("cut after {length} octets"), cut, None, true);
        }
    }

    /// Records behind the question.
    fn records(&mut self) {
        let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0, 0];
        let options: [(&str, &[u8], bool); 6] = [
            ("an OPT record", &[0, 0], false),
            ("an OPT record with a length past the end", &[0xff, 0xff], true),
            ("an OPT record with half a length", &[0], true),
            ("an option with a length past the end", &[0, 4, 0, 10, 0xff, 0xff], false),
            ("half an option", &[0, 1, 0], false),
            ("a cookie", &[0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8], false),
        ];
        for (what, rest, counted) in options {
            let mut message = self.query();
            message.splice(11..12, [1]);
            message.extend([&opt[..], rest].concat());
            let name = self.name();
            self.message(what, &message, Some(name), counted);
        }
        // Responses that nobody asked for, from the pod's own port 53.
        let owner: [(&str, &[u8]); 4] = [
            ("an answer that points to itself", &[0xc0, 0xff]),
            ("an answer with a length past the end", &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 1, 2]),
            ("an address of five octets", &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 5, 1, 2, 3, 4, 5]),
            ("an alias that points past the end", &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 0xff]),
        ];
        for (what, record) in owner {
            let mut message = self.query();
            message.splice(2..4, [0x84, 0]);
            message.splice(7..8, [1]);
            message.extend(record);
            let (mut from, mut to) = (self.pod(false), self.server(false));
            to.set_port(from.port());
            from.set_port(53);
            let frame = self.ends.link.ip(&self.packet(false, UDP, &packet::udp(from, to, &message, None)));
            self.add(what, vec![frame], None, false);
        }
    }
}
