//! What the engine tells, and what it could not see.

use super::{
    BlindSpot, Connect, Conntrack, Lookup, Message, Misdirected, PacketDrop, Question, Resolver, RuleCount,
    Timestamp,
};
use std::net::IpAddr;

/// Why the engine let go of something before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Eviction {
    /// The table of open questions was full.
    Questions,
    /// The table of open lookups was full.
    Lookups,
}

/// Takes what the engine finds. Each thing is told once, when it is complete; all of it is borrowed, so who
/// wants to keep it clones it.
pub trait Observer {
    /// Whether [`Self::message`] does anything: else messages are not put together for it.
    fn wants_messages(&self) -> bool {
        true
    }
    /// A DNS message whose way is complete.
    fn message(&mut self, _message: &Message) {}
    /// A question that ended: answered, given up, evicted, or open when the session ended.
    fn question(&mut self, _question: &Question) {}
    /// A lookup that ended.
    fn lookup(&mut self, _lookup: &Lookup) {}
    /// A DNS packet that the kernel dropped, or a clash that it resolved. Told before its question.
    fn packet_drop(&mut self, _drop: &PacketDrop) {}
    /// A frame that was sent to a MAC address that is not its receiver's.
    fn misdirected(&mut self, _frame: &Misdirected) {}
    /// An attempt to connect to an answered address that ended.
    fn connect(&mut self, _connect: &Connect) {}
    /// Something that cannot be seen, as it was found at `time`; told by who runs the session.
    fn blind_spot(&mut self, _spot: &BlindSpot, _time: Timestamp) {}
    /// A container's resolver as it was read at `time`; told by who follows the node, and not by the engine.
    fn resolver(&mut self, _resolver: &Resolver, _time: Timestamp) {}
    /// The capture lost frames somewhere between these times; told by who runs the session.
    fn lost(&mut self, _from: Timestamp, _until: Timestamp, _frames: u64) {}
    /// The packet rules of a namespace, counted at `time`; told by who follows the node.
    fn rules(&mut self, _count: &RuleCount, _time: Timestamp) {}
    /// The pod of an address is on the node that a source was recorded on; told by who reads several files.
    fn resides(&mut self, _address: IpAddr, _source: u16) {}
    /// Something was dropped for want of room.
    fn evicted(&mut self, _eviction: Eviction) {}
}

/// Nobody listens.
impl Observer for () {}

/// Perhaps somebody listens.
impl<O: Observer> Observer for Option<O> {
    fn wants_messages(&self) -> bool {
        self.as_ref().is_some_and(O::wants_messages)
    }
    fn message(&mut self, message: &Message) {
        if let Some(observer) = self {
            observer.message(message);
        }
    }
    fn question(&mut self, question: &Question) {
        if let Some(observer) = self {
            observer.question(question);
        }
    }
    fn lookup(&mut self, lookup: &Lookup) {
        if let Some(observer) = self {
            observer.lookup(lookup);
        }
    }
    fn packet_drop(&mut self, drop: &PacketDrop) {
        if let Some(observer) = self {
            observer.packet_drop(drop);
        }
    }
    fn misdirected(&mut self, frame: &Misdirected) {
        if let Some(observer) = self {
            observer.misdirected(frame);
        }
    }
    fn connect(&mut self, connect: &Connect) {
        if let Some(observer) = self {
            observer.connect(connect);
        }
    }
    fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        if let Some(observer) = self {
            observer.resolver(resolver, time);
        }
    }
    fn blind_spot(&mut self, spot: &BlindSpot, time: Timestamp) {
        if let Some(observer) = self {
            observer.blind_spot(spot, time);
        }
    }
    fn lost(&mut self, from: Timestamp, until: Timestamp, frames: u64) {
        if let Some(observer) = self {
            observer.lost(from, until, frames);
        }
    }
    fn rules(&mut self, count: &RuleCount, time: Timestamp) {
        if let Some(observer) = self {
            observer.rules(count, time);
        }
    }
    fn resides(&mut self, address: IpAddr, source: u16) {
        if let Some(observer) = self {
            observer.resides(address, source);
        }
    }
    fn evicted(&mut self, eviction: Eviction) {
        if let Some(observer) = self {
            observer.evicted(eviction);
        }
    }
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    fn wants_messages(&self) -> bool {
        self.0.wants_messages() || self.1.wants_messages()
    }
    fn message(&mut self, message: &Message) {
        self.0.message(message);
        self.1.message(message);
    }
    fn question(&mut self, question: &Question) {
        self.0.question(question);
        self.1.question(question);
    }
    fn lookup(&mut self, lookup: &Lookup) {
        self.0.lookup(lookup);
        self.1.lookup(lookup);
    }
    fn packet_drop(&mut self, drop: &PacketDrop) {
        self.0.packet_drop(drop);
        self.1.packet_drop(drop);
    }
    fn misdirected(&mut self, frame: &Misdirected) {
        self.0.misdirected(frame);
        self.1.misdirected(frame);
    }
    fn connect(&mut self, connect: &Connect) {
        self.0.connect(connect);
        self.1.connect(connect);
    }
    fn blind_spot(&mut self, spot: &BlindSpot, time: Timestamp) {
        self.0.blind_spot(spot, time);
        self.1.blind_spot(spot, time);
    }
    fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        self.0.resolver(resolver, time);
        self.1.resolver(resolver, time);
    }
    fn lost(&mut self, from: Timestamp, until: Timestamp, frames: u64) {
        self.0.lost(from, until, frames);
        self.1.lost(from, until, frames);
    }
    fn rules(&mut self, count: &RuleCount, time: Timestamp) {
        self.0.rules(count, time);
        self.1.rules(count, time);
    }
    fn resides(&mut self, address: IpAddr, source: u16) {
        self.0.resides(address, source);
        self.1.resides(address, source);
    }
    fn evicted(&mut self, eviction: Eviction) {
        self.0.evicted(eviction);
        self.1.evicted(eviction);
    }
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn wants_messages(&self) -> bool {
        (**self).wants_messages()
    }
    fn message(&mut self, message: &Message) {
        (**self).message(message);
    }
    fn question(&mut self, question: &Question) {
        (**self).question(question);
    }
    fn lookup(&mut self, lookup: &Lookup) {
        (**self).lookup(lookup);
    }
    fn packet_drop(&mut self, drop: &PacketDrop) {
        (**self).packet_drop(drop);
    }
    fn misdirected(&mut self, frame: &Misdirected) {
        (**self).misdirected(frame);
    }
    fn connect(&mut self, connect: &Connect) {
        (**self).connect(connect);
    }
    fn blind_spot(&mut self, spot: &BlindSpot, time: Timestamp) {
        (**self).blind_spot(spot, time);
    }
    fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        (**self).resolver(resolver, time);
    }
    fn lost(&mut self, from: Timestamp, until: Timestamp, frames: u64) {
        (**self).lost(from, until, frames);
    }
    fn rules(&mut self, count: &RuleCount, time: Timestamp) {
        (**self).rules(count, time);
    }
    fn resides(&mut self, address: IpAddr, source: u16) {
        (**self).resides(address, source);
    }
    fn evicted(&mut self, eviction: Eviction) {
        (**self).evicted(eviction);
    }
}

/// What was seen, lost, truncated, evicted: shown on every screen and in every file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Frames read.
    pub frames: u64,
    /// DNS messages decoded, each sighting counted.
    pub dns_messages: u64,
    /// Frames the capture lost: the ring was full, or the file says so.
    pub lost: u64,
    /// Frames shorter than on the wire by which a DNS message was cut.
    pub truncated: u64,
    /// Frames or messages that broke a rule of their format.
    pub malformed: u64,
    /// Questions and lookups dropped for want of room, TCP streams and fragments given up.
    pub evicted: u64,
    /// What conntrack counted meanwhile, where it could be read.
    pub conntrack: Option<Conntrack>,
}
