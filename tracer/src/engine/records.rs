//! What the engine keeps: small fixed records that name each other by place.

use super::{
    hops::Hops,
    intern::{Address, Endpoint, NameId},
    table::{Chained, Links, NONE, Place, Slab},
    timers::{Timed, TimerLinks},
};
use crate::model::{Edns, IcmpError, RetransmissionKind, Unreachable};
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::{hash::BuildHasher, net::IpAddr};

/// A DNS message without its name and records: what [`crate::model::DnsMessage`] is built from again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dns {
    pub(super) name: NameId,
    pub(super) size: u32,
    pub(super) id: u16,
    pub(super) flags: u16,
    pub(super) rcode: u16,
    pub(super) qtype: u16,
    pub(super) qclass: u16,
    pub(super) counts: [u16; 4],
    pub(super) matching: u16,
    pub(super) edns_size: u16,
    pub(super) edns_options: u16,
    pub(super) bits: DnsBits,
}

/// Yes-or-no facts of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DnsBits(pub(super) u8);

impl DnsBits {
    pub(super) const HAS_QUESTION: u8 = 1;
    pub(super) const CUT: u8 = 2;
    pub(super) const EDNS: u8 = 4;
    pub(super) const DNSSEC_OK: u8 = 8;
    pub(super) const COOKIE: u8 = 16;
    pub(super) const SOA: u8 = 32;

    pub(super) const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

impl Dns {
    pub(super) fn edns(&self) -> Option<Edns> {
        self.bits.has(DnsBits::EDNS).then_some(Edns {
            udp_payload_size: self.edns_size,
            dnssec_ok: self.bits.has(DnsBits::DNSSEC_OK),
            cookie: self.bits.has(DnsBits::COOKIE),
            options_len: self.edns_options,
        })
    }

    /// A query with an OPT record, or one whose additional section the capture cut off: it holds nothing else.
    pub(super) const fn has_edns(&self) -> bool {
        self.bits.has(DnsBits::EDNS) || (self.bits.has(DnsBits::CUT) && self.counts[3] > 0)
    }

    pub(super) const fn truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// RFC 2308 section 2.2: NOERROR, whole, no answer record.
    pub(super) const fn is_empty_noerror(&self) -> bool {
        self.rcode == 0 && !self.truncated() && self.counts[1] == 0
    }

    /// NOERROR with records of the type asked for; where the capture cut them off, with any.
    pub(super) const fn is_positive(&self) -> bool {
        let records = self.matching > 0 || (self.counts[1] > 0 && self.bits.has(DnsBits::CUT));
        self.rcode == 0 && !self.truncated() && records
    }
}

/// The records of a message that are of variable length.
#[derive(Clone, Debug, Default)]
pub(super) struct Extra {
    pub(super) addresses: SmallVec<[IpAddr; 4]>,
    pub(super) cname_target: Option<NameId>,
}

/// Yes-or-no facts of a packet or message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(u16);

impl Bits {
    /// QR.
    pub(super) const RESPONSE: Self = Self(1);
    pub(super) const TCP: Self = Self(2);
    pub(super) const DONT_FRAGMENT: Self = Self(4);
    /// Its hop window is open: the queue of messages to tell names it.
    pub(super) const IN_WINDOW: Self = Self(8);
    /// A question holds it.
    pub(super) const OWNED: Self = Self(16);
    /// A response after the client had moved on.
    pub(super) const LATE: Self = Self(32);
    /// An [`IcmpError`], no DNS message.
    pub(super) const ICMP: Self = Self(64);
    /// Found by name, type and id.
    pub(super) const CHAINED: Self = Self(128);
    /// Observers know it.
    pub(super) const TOLD: Self = Self(256);
    /// A response in time that the client did not take: it went on all the same.
    pub(super) const PASSED_OVER: Self = Self(512);
    /// The kernel told that it dropped this: it did not arrive.
    pub(super) const DROPPED: Self = Self(1024);
    /// A drop is known by this message's place.
    pub(super) const HAS_DROP: Self = Self(2048);
    /// A response that was of no use to the client.
    pub(super) const USELESS: Self = Self(Self::LATE.0 | Self::PASSED_OVER.0 | Self::DROPPED.0);

    /// Whether any of these is set.
    pub(super) const fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }
    pub(super) const fn set(&mut self, bit: Self, on: bool) {
        if on {
            self.0 |= bit.0;
        } else {
            self.0 &= !bit.0;
        }
    }
    pub(super) const fn with(mut self, bit: Self, on: bool) -> Self {
        self.set(bit, on);
        self
    }
}

/// The two conntrack tuples: original source and destination, reply source and destination.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nat {
    pub(super) client: Endpoint,
    pub(super) server: Endpoint,
    pub(super) backend: Endpoint,
    pub(super) client_outside: Endpoint,
}

/// A sighting while it waits for those before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Packet {
    pub(super) time: u64,
    pub(super) frame: u64,
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
    pub(super) nat: Nat,
    pub(super) dns: Dns,
    /// Place of an [`Extra`], or of an ICMP error.
    pub(super) extra: Place,
    pub(super) vantage: u16,
    pub(super) ip_id: u16,
    pub(super) ttl: u8,
    pub(super) bits: Bits,
}

/// One DNS message. A query's `peer` is its answer, a response's the query it answers.
#[derive(Debug)]
pub(super) struct MessageRecord {
    /// First sighting.
    pub(super) time: u64,
    pub(super) client: Endpoint,
    pub(super) server: Endpoint,
    pub(super) backend: Endpoint,
    pub(super) dns: Dns,
    pub(super) question: Place,
    /// The next query message of its question.
    pub(super) next: Place,
    /// The query message of its question before it.
    pub(super) previous: Place,
    pub(super) peer: Place,
    pub(super) icmp: Place,
    pub(super) extra: Place,
    pub(super) same_id_links: Links,
    pub(super) hops: Hops,
    pub(super) ip_id: u16,
    pub(super) bits: Bits,
    pub(super) role: Role,
}

impl Default for MessageRecord {
    fn default() -> Self {
        Self {
            time: 0,
            client: Endpoint::NONE,
            server: Endpoint::NONE,
            backend: Endpoint::NONE,
            dns: Dns::default(),
            question: NONE,
            next: NONE,
            previous: NONE,
            peer: NONE,
            icmp: NONE,
            extra: NONE,
            same_id_links: Links::default(),
            hops: Hops::default(),
            ip_id: 0,
            bits: Bits::default(),
            role: Role::First,
        }
    }
}

/// What a query message is to its question; the gap follows from `previous`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    #[default]
    First,
    ParallelCopy,
    TcpFallback,
    Retransmission {
        kind: RetransmissionKind,
        same_id: bool,
        same_port: bool,
        server_changed: bool,
    },
}

/// Name, type and id: what no translation and no hop changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageKey {
    pub(super) name: NameId,
    pub(super) qtype: u16,
    pub(super) id: u16,
}

impl Dns {
    pub(super) const fn key(&self) -> MessageKey {
        MessageKey { name: self.name, qtype: self.qtype, id: self.id }
    }
}

impl Chained for MessageRecord {
    type Key = MessageKey;
    fn key(&self) -> MessageKey {
        self.dns.key()
    }
    fn links(&mut self) -> &mut Links {
        &mut self.same_id_links
    }
    fn hash(key: &MessageKey, hasher: &FixedState) -> u64 {
        hasher.hash_one((key.name, u32::from(key.qtype) << 16 | u32::from(key.id)))
    }
}

/// One (name, type) of one client.
#[derive(Debug)]
pub(super) struct QuestionRecord {
    pub(super) number: u64,
    pub(super) client: Address,
    pub(super) name: NameId,
    pub(super) first: Place,
    pub(super) last: Place,
    pub(super) lookup: Place,
    /// The next question of its lookup.
    pub(super) next: Place,
    pub(super) qtype: u16,
    pub(super) messages: u16,
}

impl Default for QuestionRecord {
    fn default() -> Self {
        Self {
            number: 0,
            client: Address::default(),
            name: NameId::default(),
            first: NONE,
            last: NONE,
            lookup: NONE,
            next: NONE,
            qtype: 0,
            messages: 0,
        }
    }
}

/// An open lookup.
#[derive(Debug)]
pub(super) struct LookupRecord {
    pub(super) number: u64,
    pub(super) started: u64,
    pub(super) last_answer: u64,
    pub(super) last_sent: u64,
    pub(super) client: Place,
    pub(super) label: u32,
    pub(super) first_question: Place,
    pub(super) last_question: Place,
    pub(super) of_client: Links,
    pub(super) of_label: Links,
    /// The lookups opened before and after it.
    pub(super) of_all: Links,
    pub(super) timer: TimerLinks,
    pub(super) questions: u16,
    /// It has an accepted answer.
    pub(super) positive: bool,
    /// A large answer came: the same walk may come again.
    pub(super) large: bool,
    /// It is told as questions alone.
    pub(super) noise: bool,
}

impl Default for LookupRecord {
    fn default() -> Self {
        Self {
            number: 0,
            started: 0,
            last_answer: 0,
            last_sent: 0,
            client: NONE,
            label: 0,
            first_question: NONE,
            last_question: NONE,
            of_client: Links::default(),
            of_label: Links::default(),
            of_all: Links::default(),
            timer: TimerLinks::default(),
            questions: 0,
            positive: false,
            large: false,
            noise: false,
        }
    }
}

impl Chained for LookupRecord {
    type Key = (Place, u32);
    fn key(&self) -> (Place, u32) {
        (self.client, self.label)
    }
    fn links(&mut self) -> &mut Links {
        &mut self.of_label
    }
    fn hash(key: &(Place, u32), hasher: &FixedState) -> u64 {
        hasher.hash_one(key)
    }
}

impl Timed for Slab<LookupRecord> {
    fn timer(&mut self, place: Place) -> &mut TimerLinks {
        &mut self.at_mut(place).timer
    }
}

/// An ICMP error: where it came from is kept whole, these are rare.
#[derive(Clone, Debug, Default)]
pub(super) struct IcmpRecord {
    pub(super) error: Option<IcmpError>,
    pub(super) time: u64,
}

impl IcmpRecord {
    pub(super) fn unreachable(&self) -> Option<Unreachable> {
        self.error.map(|error| Unreachable { time: crate::model::Timestamp::from_nanos(self.time), error })
    }
}

const _: () = assert!(size_of::<MessageRecord>() <= 144);
const _: () = assert!(size_of::<QuestionRecord>() <= 48);
const _: () = assert!(size_of::<Packet>() <= 136);
