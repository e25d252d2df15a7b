//! Hand-built events for tests: what the engine would tell, said in a few words.

use crate::model::{
    Answer, DnsMessage, Family, Fate, Flags, Flow, Hop, IcmpError, Lookup, LookupResult, Message,
    MessageKind, Name, NatTuple, PacketDrop, Question, QuestionId, QuestionOutcome, Rcode, Retransmission,
    RetransmissionKind, Rtype, Step, Timestamp, Transmission, TransmissionKind, Transport, Unreachable,
    VantageId,
};
use smallvec::smallvec;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub(crate) const CLIENT: &str = "10.244.1.5";
pub(crate) const SERVER: &str = "10.96.0.10";
/// 2026-11-20T12:00:00Z.
const START: u64 = 1_795_176_000_000_000_000;

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(START + millis * 1_000_000)
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A question under construction; its frames are numbered from its start's milliseconds times ten.
pub(crate) struct Ask {
    question: Question,
    server: SocketAddr,
    frame: u64,
}

pub(crate) fn ask(asked: &str, qtype: Rtype, at_millis: u64) -> Ask {
    let frame = at_millis * 10 + u64::from(qtype == Rtype::AAAA) * 2 + 1;
    let mut ask = Ask {
        question: Question {
            id: QuestionId(frame),
            client: CLIENT.parse().unwrap(),
            name: name(asked),
            qtype,
            transmissions: vec![],
            answers: vec![],
            outcome: QuestionOutcome::Unanswered,
        },
        server: SocketAddr::new(SERVER.parse().unwrap(), 53),
        frame,
    };
    ask.send(at(at_millis), TransmissionKind::First, Transport::Udp);
    ask
}

impl Ask {
    pub(crate) fn from(mut self, client: &str) -> Self {
        let client: IpAddr = client.parse().unwrap();
        self.question.client = client;
        for transmission in &mut self.question.transmissions {
            transmission.client.set_ip(client);
        }
        self
    }

    pub(crate) fn to(mut self, server: &str) -> Self {
        self.server.set_ip(server.parse().unwrap());
        self.question.transmissions.last_mut().unwrap().server = self.server;
        self
    }

    /// Sent again so long after the first time.
    pub(crate) fn again(mut self, after_millis: u64, kind: RetransmissionKind) -> Self {
        let time = self.question.first_asked() + Duration::from_millis(after_millis);
        let gap = time.since(self.question.transmissions.last().unwrap().time);
        let resent = Retransmission { gap, kind, same_id: true, same_port: true, server_changed: false };
        self.send(time, TransmissionKind::Retransmission(resent), Transport::Udp);
        self
    }

    pub(crate) fn over_tcp(mut self, after_millis: u64) -> Self {
        let time = self.question.first_asked() + Duration::from_millis(after_millis);
        self.send(time, TransmissionKind::TcpFallback, Transport::Tcp);
        self
    }

    fn send(&mut self, time: Timestamp, kind: TransmissionKind, transport: Transport) {
        let client = SocketAddr::new(self.question.client, 40_001);
        let frame = self.frame + self.question.transmissions.len() as u64 * 100;
        self.question.transmissions.push(Transmission {
            time,
            client,
            server: self.server,
            backend: None,
            transport,
            id: 0x4f1a,
            kind,
            hops: smallvec![Hop {
                vantage: VantageId(0),
                time,
                frame,
                source: client,
                destination: self.server
            }],
            answered_by: None,
            unreachable: None,
            dropped: None,
        });
    }

    /// The last message answered so long after it was sent.
    pub(crate) fn answered(mut self, rcode: Rcode, addresses: &[&str], after_millis: u64) -> Self {
        let index = self.question.answers.len();
        let sent = self.question.transmissions.last_mut().unwrap();
        sent.answered_by = Some(index as u16);
        let time = sent.time + Duration::from_millis(after_millis);
        let (client, transport, frame) = (sent.client, sent.transport, sent.hops[0].frame + 1);
        self.question.outcome = QuestionOutcome::Answered(rcode);
        self.question.answers.push(Answer {
            time,
            from: self.server,
            id: 0x4f1a,
            transport,
            rcode,
            truncated: false,
            authoritative: true,
            empty_noerror: rcode == Rcode::NOERROR && addresses.is_empty(),
            authority_soa: addresses.is_empty(),
            answer_count: addresses.len() as u16,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            size: 100,
            late: false,
            passed_over: false,
            dropped: None,
            hops: smallvec![Hop {
                vantage: VantageId(0),
                time,
                frame,
                source: self.server,
                destination: client
            }],
        });
        self
    }

    pub(crate) fn nxdomain(self) -> Self {
        self.answered(Rcode::NXDOMAIN, &[], 1)
    }

    pub(crate) fn empty(self) -> Self {
        self.answered(Rcode::NOERROR, &[], 1)
    }

    pub(crate) fn address(self, address: &str) -> Self {
        self.answered(Rcode::NOERROR, &[address], 1)
    }

    pub(crate) fn truncated(mut self) -> Self {
        self = self.answered(Rcode::NOERROR, &[], 1);
        let answer = self.question.answers.last_mut().unwrap();
        (answer.truncated, answer.empty_noerror) = (true, false);
        self
    }

    /// The last answer came after the client had moved on.
    pub(crate) fn late(mut self) -> Self {
        self.question.answers.last_mut().unwrap().late = true;
        self.question.outcome = QuestionOutcome::Unanswered;
        self
    }

    /// The last message drew an ICMP port unreachable from the server.
    pub(crate) fn unreachable(mut self) -> Self {
        let server = self.server;
        let sent = self.question.transmissions.last_mut().unwrap();
        sent.unreachable = Some(Unreachable {
            time: sent.time,
            error: IcmpError {
                from: server.ip(),
                to: sent.client.ip(),
                kind: 3,
                code: 3,
                v6: false,
                quoted: Flow { source: sent.client, destination: server },
                quoted_transport: Transport::Udp,
                quoted_id: Some(sent.id),
            },
        });
        self.question.outcome = QuestionOutcome::Unreachable;
        self
    }

    pub(crate) fn build(self) -> Question {
        self.question
    }
}

/// A lookup of these questions, in order; questions of one name that follow each other are one step.
pub(crate) fn lookup(asked: &str, family: Family, result: LookupResult, questions: Vec<Question>) -> Lookup {
    let accepted = questions
        .iter()
        .find(|q| q.answer().is_some_and(|a| !a.addresses.is_empty()))
        .map(|q| q.name)
        .filter(|_| result == LookupResult::Ok);
    let sent = || questions.iter().flat_map(|q| q.transmissions.iter().map(move |t| (q, t)));
    let start = sent().map(|(_, t)| t.time).min().unwrap();
    let end = questions
        .iter()
        .flat_map(|q| q.answers.iter().map(|a| a.time).chain(q.transmissions.iter().map(|t| t.time)))
        .max()
        .unwrap();
    let mut retransmissions: Vec<Retransmission> = Vec::new();
    for (_, transmission) in sent() {
        if let TransmissionKind::Retransmission(resent) = transmission.kind {
            retransmissions.push(resent);
        }
    }
    let queries = sent().count() as u32;
    let wasted = accepted.map(|by| sent().filter(|(q, _)| q.name != by).count() as u32);
    let gaps: Vec<Duration> =
        retransmissions.iter().map(|r| r.gap).filter(|gap| gap.as_millis() >= 200).take(1).collect();
    let client = questions[0].client;
    let mut steps: Vec<Step> = Vec::new();
    for question in questions {
        match steps.last_mut() {
            Some(step) if step.name == question.name => step.questions.push(question),
            _ => steps.push(Step { name: question.name, questions: vec![question] }),
        }
    }
    Lookup {
        client,
        name: name(asked),
        result,
        answered_by: accepted,
        steps,
        queries,
        wasted_search_queries: wasted,
        retransmissions,
        gaps,
        suspicious_names: Vec::new(),
        forwarded: false,
        start,
        duration: end.since(start),
        family,
    }
}

/// The Kubernetes default search list of namespace `default`.
pub(crate) const SUFFIXES: [&str; 3] = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"];

/// A pair that found `asked` after NXDOMAIN for every suffix.
pub(crate) fn searched(asked: &str, family: Family, at_millis: u64) -> Lookup {
    let mut questions = Vec::new();
    for (index, suffix) in SUFFIXES.iter().enumerate() {
        for qtype in [Rtype::A, Rtype::AAAA] {
            questions.push(
                ask(&format!("{asked}.{suffix}"), qtype, at_millis + index as u64 * 2).nxdomain().build(),
            );
        }
    }
    questions.push(ask(asked, Rtype::A, at_millis + 6).address("203.0.113.10").build());
    questions.push(ask(asked, Rtype::AAAA, at_millis + 6).address("2001:db8::10").build());
    lookup(asked, family, LookupResult::Ok, questions)
}

/// An A and AAAA pair answered at once.
pub(crate) fn direct(asked: &str, at_millis: u64) -> Lookup {
    let a = ask(asked, Rtype::A, at_millis).address("10.96.4.7").build();
    let aaaa = ask(asked, Rtype::AAAA, at_millis).empty().build();
    lookup(asked, Family::Glibc, LookupResult::Ok, vec![a, aaaa])
}

/// The messages of a question.
pub(crate) fn messages(question: &Question) -> Vec<Message> {
    let first = question.first_asked();
    let mut messages = Vec::new();
    for transmission in &question.transmissions {
        messages.push(Message {
            time: transmission.time,
            client: transmission.client,
            server: transmission.server,
            transport: transmission.transport,
            question: Some(question.id),
            kind: MessageKind::Query(transmission.kind),
            dns: DnsMessage {
                id: transmission.id,
                flags: Flags(0x0100),
                name: question.name,
                qtype: question.qtype,
                has_question: true,
                counts: [1, 0, 0, 0],
                size: 40,
                ..DnsMessage::default()
            },
            by_server: false,
            hops: transmission.hops.clone(),
        });
    }
    for (index, answer) in question.answers.iter().enumerate() {
        let asked = question.transmissions.iter().find(|t| t.answered_by == Some(index as u16)).unwrap();
        let mut dns = DnsMessage {
            id: answer.id,
            flags: Flags(0x8580 | if answer.truncated { 0x0200 } else { 0 }),
            rcode: answer.rcode,
            name: question.name,
            qtype: question.qtype,
            has_question: true,
            counts: [1, answer.answer_count, 0, 0],
            size: answer.size,
            ..DnsMessage::default()
        };
        dns.answer.addresses.extend(answer.addresses.iter().copied());
        messages.push(Message {
            time: answer.time,
            client: asked.client,
            server: asked.server,
            transport: answer.transport,
            question: Some(question.id),
            kind: MessageKind::Response {
                latency: answer.time.since(asked.time),
                since_first: answer.time.since(first),
                late: answer.late,
            },
            dns,
            by_server: false,
            hops: answer.hops.clone(),
        });
    }
    messages
}

/// A finding that says nothing yet.
pub(crate) fn finding(code: &'static str) -> super::Finding {
    let code = super::groups::Code { code, name: "test" };
    super::groups::Tally::default().finding(code, super::Severity::Info, super::Confidence::High)
}

/// Tells a rule about symptoms, with witnesses that saw nothing.
pub(super) fn witnessed(tell: impl FnOnce(super::Witnesses<'_>)) {
    let (wrong_mac, untranslated_reply) = Default::default();
    tell(super::Witnesses { wrong_mac: &wrong_mac, untranslated_reply: &untranslated_reply });
}

/// What one rule finds in these lookups and their messages.
pub(crate) fn found<R: super::Rule + Default>(lookups: &[Lookup]) -> Vec<super::Finding> {
    let mut rule = R::default();
    for lookup in lookups {
        for question in lookup.steps.iter().flat_map(|step| &step.questions) {
            for message in messages(question) {
                rule.message(&message);
            }
            rule.question(question);
        }
        rule.lookup(lookup);
    }
    rule.findings()
}

/// A query of [`CLIENT`] to [`SERVER`] that the kernel dropped, and who sent it through a service.
pub(crate) fn drop_of(fate: Fate, time: Timestamp) -> PacketDrop {
    let client = SocketAddr::new(CLIENT.parse().unwrap(), 40_001);
    let server = SocketAddr::new(SERVER.parse().unwrap(), 53);
    let backend: SocketAddr = "10.244.0.3:53".parse().unwrap();
    PacketDrop {
        frame: 5_000 + time.since(at(0)).as_millis() as u64,
        time,
        vantage: VantageId(0),
        fate,
        cpu: 1,
        reason: "".into(),
        place: "".into(),
        transport: Transport::Udp,
        flow: Flow { source: client, destination: backend },
        connection: Some(NatTuple {
            original: Flow { source: client, destination: server },
            reply: Flow { source: backend, destination: client },
        }),
        destination_mac: None,
        dns: Some(DnsMessage { id: 0x4f1a, name: name("web"), qtype: Rtype::A, ..DnsMessage::default() }),
        question: None,
        rival: None,
    }
}

/// A question whose first message the kernel dropped.
pub(crate) fn lost(asked: Ask, fate: Fate, reason: &str, place: &str) -> Question {
    let mut question = asked.build();
    let first = &mut question.transmissions[0];
    let mut drop = drop_of(fate, first.time);
    drop.dns = Some(DnsMessage {
        id: first.id,
        name: question.name,
        qtype: question.qtype,
        has_question: true,
        ..DnsMessage::default()
    });
    (drop.reason, drop.place, drop.question) = (reason.into(), place.into(), Some(question.id));
    first.dropped = Some(Arc::new(drop));
    question
}

/// A question whose last answer the kernel dropped.
pub(crate) fn answer_lost(asked: Ask, reason: &str, place: &str) -> Question {
    let mut question = lost(asked, Fate::Dropped, reason, place);
    let mut drop = PacketDrop::clone(&question.transmissions[0].dropped.take().unwrap());
    drop.flow = drop.connection.unwrap().reply;
    drop.dns.as_mut().unwrap().flags = Flags(0x8180);
    question.answers.last_mut().unwrap().dropped = Some(Arc::new(drop));
    question.outcome = QuestionOutcome::Unanswered;
    question
}

/// What is known to be dropped of a question.
pub(crate) fn drops_of(question: &Question) -> impl Iterator<Item = &PacketDrop> {
    let sent = question.transmissions.iter().map(|sent| &sent.dropped);
    sent.chain(question.answers.iter().map(|answer| &answer.dropped)).flatten().map(|drop| &**drop)
}

/// What one rule finds of these drops and those of these questions.
pub(crate) fn losses<R: super::Rule + Default>(
    questions: &[Question],
    drops: &[PacketDrop],
) -> Vec<super::Finding> {
    let (mut rule, mut losses) = (R::default(), super::Losses::default());
    for drop in questions.iter().flat_map(drops_of).chain(drops) {
        rule.packet_drop(drop);
        losses.packet_drop(drop, |loss| rule.loss(loss));
    }
    for question in questions {
        losses.question(question, |loss| rule.loss(loss));
        rule.question(question);
    }
    rule.findings()
}
