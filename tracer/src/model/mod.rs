//! The words of dnspath as types: no I/O, no clock, no runtime.
//!
//! A packet's way through these types: a [`Frame`] is what one hook or one capture file gave; the `wire` layer
//! turns it into [`Sighting`]s (one DNS message, or one ICMP error about one, at one [`Vantage`]); the `engine`
//! joins sightings to [`Message`]s, messages to [`Question`]s and questions to [`Lookup`]s, and tells an
//! [`Observer`] about each.

mod blind;
mod check;
mod connect;
mod containers;
mod dns;
mod frame;
mod kernel;
mod lookup;
mod name;
mod news;
mod observer;
mod pods;
mod question;
mod resolver;
mod rules;
mod services;
mod sighting;
mod time;
mod vantage;

pub use blind::BlindSpot;
pub use check::{Check, Verdict};
pub use connect::{Connect, ConnectOutcome, ConnectPacket, ConnectStep};
pub use dns::{AnswerSummary, Class, DnsMessage, Edns, Flags, Opcode, Rcode, Rtype};
pub use frame::{Frame, LinkType, NatTuple};
pub use kernel::{Conntrack, DropMark, Fate, Misdirected, PacketDrop, Rival};
pub use lookup::{Family, Lookup, LookupResult, Step};
pub use name::{Name, NameBuilder, NameError};
pub use news::News;
pub(crate) use observer::pass_on;
pub use observer::{Coverage, Eviction, Observer, Wanted};
pub use pods::{PodName, Pods};
pub use question::{
    Answer, Hop, Message, MessageKind, Question, QuestionId, QuestionOutcome, Retransmission,
    RetransmissionKind, Transmission, TransmissionKind, Unreachable,
};
pub use resolver::{Libc, Resolver};
pub use rules::RuleCount;
pub use services::{Service, Services};
pub use sighting::{Flow, IcmpError, MacAddress, Sighting, SightingBody, Transport};
pub use time::Timestamp;
pub use vantage::{Direction, InterfaceKind, Vantage, VantageId, Vantages};
