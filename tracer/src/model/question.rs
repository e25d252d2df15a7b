//! Messages and questions: what the engine makes of sightings.

use super::{DnsMessage, IcmpError, Name, PacketDrop, Rcode, Rtype, Timestamp, Transport, VantageId};
use smallvec::SmallVec;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// One sighting of a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where.
    pub vantage: VantageId,
    /// When.
    pub time: Timestamp,
    /// Number of the frame.
    pub frame: u64,
    /// Source address at this hop.
    pub source: SocketAddr,
    /// Destination address at this hop.
    pub destination: SocketAddr,
}

/// A question's number within a session: never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u64);

/// Why a question was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetransmissionKind {
    /// It already had an answer: glibc asks A again with a lost AAAA.
    AnsweredAgain,
    /// An ICMP unreachable came for it.
    Icmp,
    /// It was refused.
    Refused,
    /// The server failed.
    Servfail,
    /// No answer came.
    Timeout,
}

impl RetransmissionKind {
    /// The word of the JSON output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AnsweredAgain => "answered_again",
            Self::Icmp => "icmp",
            Self::Refused => "refused",
            Self::Servfail => "servfail",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for RetransmissionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A further message of a question that was already asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmission {
    /// Time since the question's previous message.
    pub gap: Duration,
    /// Why.
    pub kind: RetransmissionKind,
    /// It has the id of an earlier message.
    pub same_id: bool,
    /// It comes from the port of the previous message.
    pub same_port: bool,
    /// It goes to another server than the previous message.
    pub server_changed: bool,
}

/// What a query message is to its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmissionKind {
    /// The first one.
    First,
    /// The same message to another server at the same time (musl, HAProxy, dnsmasq): no retry.
    ParallelCopy,
    /// Asked again.
    Retransmission(Retransmission),
    /// Asked again over TCP after a truncated answer.
    TcpFallback,
}

/// One query message of a question: counted once, however many vantages saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmission {
    /// First sighting: nearest to the client.
    pub time: Timestamp,
    /// The client's address as the client has it.
    pub client: SocketAddr,
    /// The server's address as the client asked it: the service address, before any translation.
    pub server: SocketAddr,
    /// The server's address after translation, where a hop or conntrack showed one.
    pub backend: Option<SocketAddr>,
    /// UDP or TCP.
    pub transport: Transport,
    /// The DNS id.
    pub id: u16,
    /// First one, retransmission, copy or fallback.
    pub kind: TransmissionKind,
    /// Its way, by time.
    pub hops: SmallVec<[Hop; 2]>,
    /// Index in [`Question::answers`] of the answer to this message; `None`: unanswered so far.
    pub answered_by: Option<u16>,
    /// The ICMP error it drew, where one was seen.
    pub unreachable: Option<Unreachable>,
    /// Where the kernel told that it dropped this message, the SYN of its connection, or its answer before any hop
    /// saw that.
    pub dropped: Option<Arc<PacketDrop>>,
}

/// An ICMP error that a query drew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// When it was seen nearest to the client.
    pub time: Timestamp,
    /// The error.
    pub error: IcmpError,
}

/// One response message of a question: counted once, however many vantages saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Last sighting: nearest to the client.
    pub time: Timestamp,
    /// Where it says it comes from, at the hop nearest to the client.
    pub from: SocketAddr,
    /// The DNS id.
    pub id: u16,
    /// UDP or TCP.
    pub transport: Transport,
    /// The response code.
    pub rcode: Rcode,
    /// TC was set.
    pub truncated: bool,
    /// AA was set.
    pub authoritative: bool,
    /// NOERROR, not truncated, answer section empty (RFC 2308).
    pub empty_noerror: bool,
    /// An SOA in the authority section.
    pub authority_soa: bool,
    /// Records in the answer section, as the header counts them.
    pub answer_count: u16,
    /// The first addresses of the answer.
    pub addresses: SmallVec<[IpAddr; 4]>,
    /// Octets.
    pub size: u32,
    /// It came after the client had moved on.
    pub late: bool,
    /// Not counted as late (the client's socket was open just now), but the client had given the question up.
    pub passed_over: bool,
    /// Its way, by time.
    pub hops: SmallVec<[Hop; 2]>,
    /// Where the kernel told that it dropped this message: it never reached the client.
    pub dropped: Option<Arc<PacketDrop>>,
}

impl Answer {
    /// Whether it reached the client, in time, and was taken.
    #[must_use]
    pub const fn counts(&self) -> bool {
        !self.late && !self.passed_over && self.dropped.is_none()
    }
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuestionOutcome {
    /// An answer with this response code; NOERROR may still be empty, see [`Answer::empty_noerror`].
    Answered(Rcode),
    /// No answer to any message.
    Unanswered,
    /// No answer, and an ICMP unreachable from the server's side.
    Unreachable,
    /// The engine's table was full, or the session ended while it was open.
    Incomplete,
}

/// Servers mostly answer within this time; it is far below any resolver's retry interval.
const PROMPT: Duration = Duration::from_millis(300);

/// One (name, type) asked by one client, with its retransmissions and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its number.
    pub id: QuestionId,
    /// Who asks.
    pub client: IpAddr,
    /// The name, folded.
    pub name: Name,
    /// The type.
    pub qtype: Rtype,
    /// Every query message, by time; at least one.
    pub transmissions: Vec<Transmission>,
    /// Every response message, by time.
    pub answers: Vec<Answer>,
    /// How it ended.
    pub outcome: QuestionOutcome,
}

impl Question {
    /// When it was first asked.
    #[must_use]
    pub fn first_asked(&self) -> Timestamp {
        self.transmissions.first().map_or(Timestamp::EPOCH, |t| t.time)
    }

    /// The first answer that was of use to the client.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.answers.iter().find(|a| a.counts())
    }

    /// From the first query message to the answer: what the client waited.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.answer().map(|a| a.time.since(self.first_asked()))
    }

    /// From the query message that was answered to its answer: what the server took.
    #[must_use]
    pub fn server_latency(&self) -> Option<Duration> {
        self.replies().find(|(_, answer)| !answer.late).map(|(sent, answer)| answer.time.since(sent.time))
    }

    /// The answers, each with the query message it most likely answers.
    ///
    /// Messages sent again with the same id from the same port cannot be told apart by their answers. Where each
    /// of them was answered, the answers go by order. Else an answer is to the latest one before it if it came
    /// promptly, the earlier ones being lost; if it did not, the server is slow and the answer is to the oldest.
    pub fn replies(&self) -> impl Iterator<Item = (&Transmission, &Answer)> {
        self.answers.iter().enumerate().filter_map(|(index, answer)| {
            let matched =
                self.transmissions.iter().find(|t| t.answered_by.map(usize::from) == Some(index))?;
            if self.transmissions.len() == 1 {
                return Some((matched, answer));
            }
            let alike = || {
                self.transmissions.iter().filter(|sent| {
                    (sent.id, sent.client, sent.server, sent.transport)
                        == (matched.id, matched.client, matched.server, matched.transport)
                })
            };
            if alike().all(|sent| sent.answered_by.is_some()) {
                return Some((matched, answer));
            }
            let prompt =
                |sent: &&Transmission| sent.time <= answer.time && answer.time.since(sent.time) <= PROMPT;
            let latest = alike().rfind(prompt);
            Some((latest.unwrap_or(matched), answer))
        })
    }
}

/// What a message was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A query, and what it is to its question.
    Query(TransmissionKind),
    /// A response to a query message that was seen.
    Response {
        /// From the newest query message that it can answer to this response, both at the hop nearest to the client.
        latency: Duration,
        /// From the question's first query message.
        since_first: Duration,
        /// It came after the client had moved on.
        late: bool,
    },
    /// A response without a query: its query was before the session, was lost by the capture, or never was.
    Unmatched,
}

/// One DNS message on the wire, counted once however many vantages saw it; told once its way is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When the hop nearest to the client saw it: the first for a query, the last for a response.
    pub time: Timestamp,
    /// The client's address as the client has it.
    pub client: SocketAddr,
    /// The server's address as the client sees it.
    pub server: SocketAddr,
    /// UDP or TCP.
    pub transport: Transport,
    /// The question it belongs to.
    pub question: Option<QuestionId>,
    /// What it was found to be.
    pub kind: MessageKind,
    /// The message as decoded at its first sighting.
    pub dns: DnsMessage,
    /// The asking side is a server itself: it was asked by others, asks itself, or is on a loopback.
    pub by_server: bool,
    /// Its way, by time.
    pub hops: SmallVec<[Hop; 2]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::ask;

    /// A question asked at 0 s and 5 s with one id, and where each of its answers was noted and when it came.
    fn asked_twice(answers: &[(usize, u64)]) -> Question {
        let mut question = ask("web", Rtype::A, 0).again(5_000, RetransmissionKind::Timeout).build();
        for (index, &(noted, millis)) in answers.iter().enumerate() {
            let mut answer = ask("web", Rtype::A, millis).address("10.96.4.7").build().answers.remove(0);
            answer.time = crate::findings::testing::at(millis);
            question.answers.push(answer);
            question.transmissions[noted].answered_by = Some(index as u16);
        }
        question
    }

    #[test]
    fn answers_go_to_the_message_they_most_likely_answer() {
        type Noted<'a> = &'a [(usize, u64)];
        let cases: [(&str, Noted<'_>, &[u64]); 4] = [
            ("the first was lost", &[(0, 5_001)], &[1]),
            ("the server is slow, one answer", &[(0, 6_000)], &[6_000]),
            ("the server is slow, both answered", &[(0, 5_100), (1, 10_100)], &[5_100, 5_100]),
            ("answered before the resend", &[(0, 40)], &[40]),
        ];
        for (what, answers, expected) in cases {
            let question = asked_twice(answers);
            let took: Vec<u64> = question
                .replies()
                .map(|(sent, answer)| answer.time.since(sent.time).as_millis() as u64)
                .collect();
            assert_eq!(took, expected, "{what}");
            assert_eq!(question.server_latency(), Some(Duration::from_millis(expected[0])), "{what}");
        }
    }
}
