//! What lies below DNS: lengths, headers, tags, fragments, segments, errors.

use super::Storm;
use crate::packet::{self, ICMP, ICMPV6, IPV4, IPV6, Ipv4, SERVICE_VLAN, TCP, UDP, VLAN};

impl Storm {
    pub(super) fn udp_lengths(&mut self) {
        for v6 in [false, true] {
            let true_length = 8 + self.query().len() as u16;
            // None: it is counted.
            let lies = [
                (0, true),
                (1, false),
                (7, false),
                (8, false),
                (9, false),
                (true_length - 1, false),
                (true_length + 1, true),
                (65535, true),
            ];
            for (length, told) in lies {
                let datagram = self.udp(v6, &self.query(), Some(length));
                let frame = self.ends.link.ip(&self.packet(v6, UDP, &datagram));
                let name = told.then(|| self.name());
                self.add(format!("UDP length {length}, IPv6 {v6}"), vec![frame], name, !told);
            }
            for length in 0..8 {
                let datagram = self.udp(v6, &self.query(), None);
                let cut = datagram.get(..length).unwrap_or_default();
                let frame = self.ends.link.ip(&self.packet(v6, UDP, cut));
                self.add(format!("{length} octets of UDP, IPv6 {v6}"), vec![frame], None, length >= 4);
            }
        }
    }

    pub(super) fn ip_headers(&mut self) {
        let true_length = 28 + self.query().len() as u16;
        let totals = [
            (0, true),
            (19, false),
            (27, false),
            (true_length - 1, false),
            (true_length + 1, true),
            (65535, true),
        ];
        for (total, told) in totals {
            let header = Ipv4 { total: Some(total), ..self.ipv4() };
            let frame = self.ends.link.ip(&self.ipv4_packet(&header, &self.udp(false, &self.query(), None)));
            let name = told.then(|| self.name());
            self.add(format!("IPv4 total length {total}"), vec![frame], name, !told);
        }
        for words in [0, 4, 6, 15] {
            let header = Ipv4 { words: Some(words), ..self.ipv4() };
            let frame = self.ends.link.ip(&self.ipv4_packet(&header, &self.udp(false, &self.query(), None)));
            self.add(format!("IPv4 header of {words} words"), vec![frame], None, false);
        }
        // No operation; record route; one whose length is 0; one that runs over the header.
        let options: [&[u8]; 4] = [&[1; 40], &[7, 39, 4].repeat(12), &[0x44, 0, 0, 0], &[0x83, 0xff, 4, 0]];
        for options in options {
            let padded = options.len().div_ceil(4) * 4;
            let mut options = options.to_vec();
            options.resize(padded.min(40), 0);
            let header = Ipv4 { options: options.clone(), ..self.ipv4() };
            let frame = self.ends.link.ip(&self.ipv4_packet(&header, &self.udp(false, &self.query(), None)));
            let name = self.name();
            self.add(format!("IPv4 options {options:?}"), vec![frame], Some(name), false);
        }
        let mut packet = self.packet(false, UDP, &self.udp(false, &self.query(), None));
        packet.splice(0..1, [0x55]);
        self.add("IP version 5", vec![self.ends.link.frame(IPV4, &packet)], None, false);
        let packet = self.packet(true, UDP, &self.udp(true, &self.query(), None));
        self.add("IPv6 that says it is IPv4", vec![self.ends.link.frame(IPV4, &packet)], None, false);
        for length in [0_u16, 7, 65535] {
            let mut packet = self.packet(true, UDP, &self.udp(true, &self.query(), None));
            packet.splice(4..6, length.to_be_bytes());
            let name = (length != 7).then(|| self.name());
            let frame = self.ends.link.ip(&packet);
            self.add(format!("IPv6 payload length {length}"), vec![frame], name, length == 7);
        }
    }

    pub(super) fn extension_headers(&mut self) {
        let chains: [(&str, &[u8]); 8] = [
            ("hop-by-hop", &[0]),
            ("routing", &[43]),
            ("destination", &[60]),
            ("authentication", &[51]),
            ("an atomic fragment", &[44]),
            ("all of them", &[0, 60, 43, 44, 51, 60]),
            ("nine destination options", &[60; 9]),
            ("forty destination options", &[60; 40]),
        ];
        for (what, chain) in chains {
            let mut payload = self.udp(true, &self.query(), None);
            let mut next = UDP;
            for kind in chain.iter().rev() {
                // Type and length, then as much padding as each has at least.
                let header: &[u8] = match kind {
                    44 => &[next, 0, 0, 0, 0, 0, 0, 9],
                    // Six words, minus two.
                    51 => &[next, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                    43 => &[next, 0, 253, 0, 0, 0, 0, 0],
                    _ => &[next, 0, 1, 4, 0, 0, 0, 0],
                };
                payload = [header, &payload].concat();
                next = *kind;
            }
            let frame = self.ends.link.ip(&self.packet(true, next, &payload));
            // RFC 8200 lets six stand; what has more is not followed.
            if chain.len() <= 6 {
                self.add_plain(what, vec![frame]);
            } else {
                self.add(what, vec![frame], None, false);
            }
        }
        let mut lie = vec![UDP, 255, 1, 4, 0, 0, 0, 0];
        lie.extend(self.udp(true, &self.query(), None));
        let frame = self.ends.link.ip(&self.packet(true, 60, &lie));
        self.add("an extension header past the end", vec![frame], None, false);
    }

    pub(super) fn tags(&mut self) {
        let tags: [(&str, &[u16], bool); 6] = [
            ("a VLAN tag", &[VLAN], true),
            ("two VLAN tags", &[VLAN, VLAN], true),
            ("QinQ", &[SERVICE_VLAN, VLAN], true),
            ("the old QinQ", &[0x9100, VLAN], false),
            ("five tags", &[VLAN; 5], false),
            ("a tag and nothing behind it", &[VLAN], false),
        ];
        for (what, tags, told) in tags {
            for v6 in [false, true] {
                let mut payload = self.packet(v6, UDP, &self.udp(v6, &self.query(), None));
                if what.ends_with("behind it") {
                    payload.clear();
                }
                let mut ethertype = if v6 { IPV6 } else { IPV4 };
                for tag in tags.iter().rev() {
                    payload = [&[0, 7], &ethertype.to_be_bytes()[..], &payload].concat();
                    ethertype = *tag;
                }
                let frame = self.ends.link.frame(ethertype, &payload);
                let what = format!("{what}, IPv6 {v6}");
                if told {
                    self.add_plain(what, vec![frame])
                } else {
                    self.add(what, vec![frame], None, false)
                }
            }
        }
        let padded =
            [self.packet(false, UDP, &self.udp(false, &self.query(), None)), vec![0xaa; 40]].concat();
        let frame = self.ends.link.ip(&padded);
        self.add_plain("Ethernet padding", vec![frame]);
    }

    /// A fragment of `datagram`: octets from `start` on, of the length asked for.
    fn fragment(&self, v6: bool, datagram: &[u8], start: usize, length: usize, more: bool) -> Vec<u8> {
        let octets: Vec<u8> = datagram.iter().skip(start).take(length).copied().collect();
        let more = u16::from(more);
        let packet = if v6 {
            let field = (start as u16) & !7 | more;
            let mut payload = vec![UDP, 0];
            payload.extend(field.to_be_bytes());
            payload.extend(u32::from(self.id()).to_be_bytes());
            payload.extend(octets);
            self.packet(true, 44, &payload)
        } else {
            let header = Ipv4 { fragment: (start / 8) as u16 | more << 13, ..self.ipv4() };
            self.ipv4_packet(&header, &octets)
        };
        self.ends.link.ip(&packet)
    }

    pub(super) fn fragments(&mut self, v6: bool) {
        // Start, length, more to come.
        type Pieces = &'static [(usize, usize, bool)];
        const ALL: usize = usize::MAX;
        let ways: [(&str, Pieces, bool, bool); 9] = [
            ("two in order", &[(0, 48, true), (48, ALL, false)], true, true),
            ("four in order", &[(0, 8, true), (8, 16, true), (24, 32, true), (56, ALL, false)], true, true),
            ("the last twice", &[(0, 48, true), (48, ALL, false), (48, ALL, false)], true, false),
            ("the first last", &[(48, ALL, false), (0, 48, true)], false, false),
            ("overlapping", &[(0, 56, true), (40, ALL, false)], true, false),
            ("a hole that is never filled", &[(0, 40, true), (56, ALL, false)], false, false),
            ("only the first", &[(0, 40, true)], false, false),
            ("only the last", &[(48, ALL, false)], false, false),
            ("past the largest datagram", &[(0, 48, true), (65528, 24, false)], false, false),
        ];
        for (what, pieces, told, plain) in ways {
            let mut message = self.query();
            // A padding option makes it long enough to cut.
            message.splice(11..12, [1]);
            message.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 68, 0, 12, 0, 64]);
            message.extend([0; 64]);
            let datagram = self.udp(v6, &message, None);
            let frames = pieces
                .iter()
                .map(|(start, length, more)| self.fragment(v6, &datagram, *start, *length, *more))
                .collect();
            let what = format!("fragments: {what}, IPv6 {v6}");
            let name = told.then(|| self.name());
            if plain { self.add_plain(what, frames) } else { self.add(what, frames, name, false) }
        }
    }

    pub(super) fn segments(&mut self, v6: bool) {
        const ACK: u8 = 0x10;
        const SYN: u8 = 0x02;
        let prefixed = |message: &[u8]| [&(message.len() as u16).to_be_bytes()[..], message].concat();
        let one = |storm: &mut Self, what: &str, flags: u8, words: u8, payload: &[u8], plain: bool| {
            let segment = packet::tcp(storm.pod(v6), storm.server(v6), 1000, flags, words, payload);
            let frame = storm.ends.link.ip(&storm.packet(v6, TCP, &segment));
            let what = format!("TCP: {what}, IPv6 {v6}");
            if plain { storm.add_plain(what, vec![frame]) } else { storm.add(what, vec![frame], None, false) }
        };
        let query = self.query();
        one(self, "a query without a handshake", ACK, 5, &prefixed(&query), true);
        let query = self.query();
        one(self, "a query in the SYN", SYN, 5, &prefixed(&query), false);
        one(self, "prefix 0", ACK, 5, &[0; 20], false);
        one(self, "prefix 65535", ACK, 5, &[0xff; 40], false);
        one(self, "half a prefix", ACK, 5, &[0], false);
        one(self, "garbage", ACK, 5, b"GET / HTTP/1.1\r\nHost: dns\r\n\r\n", false);
        for words in [0, 4, 6, 15] {
            let query = self.query();
            one(self, &format!("a header of {words} words"), ACK, words, &prefixed(&query), false);
        }
        for flags in [0, 0x3f, 0xff] {
            let query = self.query();
            one(self, &format!("flags {flags:#x}"), flags, 5, &prefixed(&query), false);
        }
        for length in 0..20 {
            let segment = packet::tcp(self.pod(v6), self.server(v6), 1, ACK, 5, &[]);
            let cut = segment.get(..length).unwrap_or_default();
            let frame = self.ends.link.ip(&self.packet(v6, TCP, cut));
            self.add(format!("{length} octets of TCP, IPv6 {v6}"), vec![frame], None, false);
        }
    }

    pub(super) fn icmp_errors(&mut self, v6: bool) {
        let (kinds, protocol): (&[u8], u8) =
            if v6 { (&[1, 2, 3, 4], ICMPV6) } else { (&[3, 4, 5, 11, 12], ICMP) };
        let quote = self.packet(v6, UDP, &self.udp(v6, &self.query(), None));
        let quotes = (0..quote.len()).filter_map(|length| quote.get(..length));
        let mut all: Vec<(String, u8, Vec<u8>)> =
            quotes.map(|quote| (format!("{} octets of quote", quote.len()), 0, quote.to_vec())).collect();
        let error = packet::icmp(self.pod(v6).ip(), self.server(v6).ip(), 3, 3, &quote);
        all.push(("an error about an error".into(), 0, self.packet(v6, protocol, &error)));
        for code in [1, 3, 255] {
            all.push((format!("code {code}"), code, quote.clone()));
        }
        for (index, (what, code, quote)) in all.into_iter().enumerate() {
            let kind = kinds.get(index % kinds.len()).copied().unwrap_or_default();
            let error = packet::icmp(self.pod(v6).ip(), self.server(v6).ip(), kind, code, &quote);
            let frame = self.ends.link.ip(&self.packet(v6, protocol, &error));
            self.add(format!("ICMP {kind}: {what}, IPv6 {v6}"), vec![frame], None, false);
        }
    }
}
