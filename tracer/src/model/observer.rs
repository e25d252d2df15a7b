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

/// Which messages somebody wants to be told: the less, the less is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// None, and of questions only what their lookup is made of: not where their messages were seen.
    Lookups,
    /// None: questions say enough.
    Nothing,
    /// Those that say more than their question does: of no question, late, with a response code that is an error, and
    /// to and from [`Message::by_server`].
    Telling,
    /// Every one.
    All,
}

/// Takes what the engine finds. Each thing is told once, when it is complete; all of it is borrowed, so who
/// wants to keep it clones it.
pub trait Observer {
    /// Which messages [`Self::message`] is told, and how much of questions.
    fn wants_messages(&self) -> Wanted {
        Wanted::All
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

/// Implements every method of [`Observer`] by telling others, in this order: `pass_on!(|it| it.first, it.second)`.
/// What is written once cannot forget an event.
macro_rules! pass_on {
    (|$it:ident| $($to:expr),+ $(,)?) => {
        $crate::model::pass_on! { @each [|$it| $($to),+]
            message(message: &$crate::model::Message);
            question(question: &$crate::model::Question);
            lookup(lookup: &$crate::model::Lookup);
            packet_drop(drop: &$crate::model::PacketDrop);
            misdirected(frame: &$crate::model::Misdirected);
            connect(connect: &$crate::model::Connect);
            blind_spot(spot: &$crate::model::BlindSpot, time: $crate::model::Timestamp);
            resolver(resolver: &$crate::model::Resolver, time: $crate::model::Timestamp);
            lost(from: $crate::model::Timestamp, until: $crate::model::Timestamp, frames: u64);
            rules(count: &$crate::model::RuleCount, time: $crate::model::Timestamp);
            resides(address: std::net::IpAddr, source: u16);
            evicted(eviction: $crate::model::Eviction);
        }
    };
    (@each $others:tt $($event:ident $arguments:tt;)+) => {
        $($crate::model::pass_on! { @one $others $event $arguments $arguments })+
    };
    (@one [|$it:ident| $($to:expr),+] $event:ident ($($name:ident: $kind:ty),+) $arguments:tt) => {
        #[inline]
        fn $event(&mut self, $($name: $kind),+) {
            let $it = self;
            $($crate::model::pass_on! { @tell $to, $event $arguments })+
        }
    };
    (@tell $to:expr, $event:ident ($($name:ident: $kind:ty),+)) => {
        $crate::model::Observer::$event(&mut $to, $($name),+);
    };
}
pub(crate) use pass_on;

/// Nobody listens.
impl Observer for () {
    fn wants_messages(&self) -> Wanted {
        Wanted::Lookups
    }
}

/// Perhaps somebody listens.
impl<O: Observer> Observer for Option<O> {
    fn wants_messages(&self) -> Wanted {
        self.as_ref().map_or(Wanted::Lookups, O::wants_messages)
    }
    pass_on!(|it| match it {
        Some(one) => one,
        None => return,
    });
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    fn wants_messages(&self) -> Wanted {
        self.0.wants_messages().max(self.1.wants_messages())
    }
    pass_on!(|both| both.0, both.1);
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn wants_messages(&self) -> Wanted {
        (**self).wants_messages()
    }
    pass_on!(|it| **it);
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
