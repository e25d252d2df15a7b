//! A small builder of lookups: questions are added with the times and hops of their messages.

use crate::{
    model::*,
    tui::{App, Feed, Limits, SharedFeed, Snapshot, Theme},
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use smallvec::SmallVec;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// 2026-11-20 12:00:00 UTC.
pub(crate) const NOON: Timestamp = Timestamp::from_nanos(1_795_176_000_000_000_000);

pub(crate) fn at(seconds: f64) -> Timestamp {
    NOON + Duration::from_secs_f64(seconds)
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A node with one pod's veth, a bridge and the server's veth.
pub(crate) struct Node {
    pub(crate) vantages: Vantages,
    way_out: Vec<VantageId>,
    way_back: Vec<VantageId>,
    next_question: u64,
}

impl Node {
    pub(crate) fn new() -> Self {
        let vantages = Vantages::new();
        let enter = |interface: &str, direction| {
            vantages.intern(Vantage { interface: interface.into(), direction, ..Vantage::default() })
        };
        let way_out = vec![
            enter("veth7c9f", Direction::Ingress),
            enter("cni0", Direction::Ingress),
            enter("vethdns1", Direction::Egress),
        ];
        let way_back = vec![
            enter("vethdns1", Direction::Ingress),
            enter("cni0", Direction::Egress),
            enter("veth7c9f", Direction::Egress),
        ];
        Self { vantages, way_out, way_back, next_question: 0 }
    }

    fn hops(way: &[VantageId], time: Timestamp, from: SocketAddr, to: SocketAddr) -> SmallVec<[Hop; 2]> {
        let hop = |(index, vantage): (usize, &VantageId)| Hop {
            vantage: *vantage,
            time: time.plus_nanos(4_000 * index as u64),
            frame: 10 + index as u64,
            source: from,
            destination: to,
        };
        way.iter().enumerate().map(hop).collect()
    }

    /// A question first asked at `seconds`; nothing sent so far.
    pub(crate) fn question(&mut self, host: &str, qtype: Rtype) -> Question {
        self.next_question += 1;
        Question {
            id: QuestionId(self.next_question),
            client: ip("10.244.1.23"),
            name: name(host),
            qtype,
            transmissions: Vec::new(),
            answers: Vec::new(),
            outcome: QuestionOutcome::Unanswered,
        }
    }

    /// Sends it (again); `seen` of the three vantages see it.
    pub(crate) fn send(&self, question: &mut Question, seconds: f64, seen: usize) {
        let (client, server) = (SocketAddr::new(question.client, 40_000), socket("10.96.0.10:53"));
        let backend = socket("10.244.0.5:53");
        let time = at(seconds);
        let kind = question.transmissions.last().map_or(TransmissionKind::First, |last| {
            TransmissionKind::Retransmission(Retransmission {
                gap: time.since(last.time),
                kind: RetransmissionKind::Timeout,
                same_id: true,
                same_port: true,
                server_changed: false,
            })
        });
        let mut hops = Self::hops(&self.way_out[..seen], time, client, server);
        if let Some(last) = hops.get_mut(2) {
            last.destination = backend;
        }
        question.transmissions.push(Transmission {
            time,
            client,
            server,
            backend: (seen == 3).then_some(backend),
            transport: Transport::Udp,
            id: 0x4f1a + (question.id.0 % 0x100) as u16,
            kind,
            hops,
            answered_by: None,
            unreachable: None,
            dropped: None,
        });
    }

    /// Answers the last message.
    pub(crate) fn answer(&self, question: &mut Question, seconds: f64, rcode: Rcode, addresses: &[&str]) {
        let index = question.answers.len() as u16;
        let last = question.transmissions.last_mut().unwrap();
        last.answered_by = Some(index);
        question.answers.push(Answer {
            time: at(seconds),
            from: last.server,
            id: last.id,
            transport: Transport::Udp,
            rcode,
            truncated: false,
            authoritative: true,
            empty_noerror: rcode == Rcode::NOERROR && addresses.is_empty(),
            authority_soa: addresses.is_empty(),
            answer_count: addresses.len() as u16,
            addresses: addresses.iter().map(|a| ip(a)).collect(),
            size: 120,
            late: false,
            passed_over: false,
            dropped: None,
            hops: Self::hops(&self.way_back, at(seconds - 0.000_008), last.server, last.client),
        });
        question.outcome = QuestionOutcome::Answered(rcode);
    }

    /// A question with one message and one answer `took` seconds later.
    pub(crate) fn answered(
        &mut self,
        host: &str,
        qtype: Rtype,
        seconds: f64,
        took: f64,
        rcode: Rcode,
        addresses: &[&str],
    ) -> Question {
        let mut question = self.question(host, qtype);
        self.send(&mut question, seconds, 3);
        self.answer(&mut question, seconds + took, rcode, addresses);
        question
    }
}

/// A lookup of these steps; counts and times are taken from the questions.
pub(crate) fn lookup(host: &str, result: LookupResult, steps: Vec<Vec<Question>>) -> Lookup {
    let steps: Vec<Step> =
        steps.into_iter().map(|questions| Step { name: questions[0].name, questions }).collect();
    let questions = || steps.iter().flat_map(|s| &s.questions);
    let sent = || questions().flat_map(|q| &q.transmissions);
    let answered_by = (result == LookupResult::Ok).then(|| steps.last().unwrap().name);
    let mut times: Vec<Timestamp> = sent().map(|t| t.time).collect();
    times.sort_unstable();
    let start = times[0];
    let end = questions().flat_map(|q| &q.answers).filter(|a| !a.late).map(|a| a.time).max();
    let gaps = times.windows(2).map(|w| w[1].since(w[0])).filter(|g| *g >= Duration::from_millis(200));
    let wasted =
        |by: Name| questions().filter(|q| q.name != by).map(|q| q.transmissions.len() as u32).sum::<u32>();
    let retransmission = |t: &Transmission| match t.kind {
        TransmissionKind::Retransmission(r) => Some(r),
        _ => None,
    };
    Lookup {
        client: questions().next().unwrap().client,
        name: name(host),
        result,
        answered_by,
        queries: sent().count() as u32,
        wasted_search_queries: answered_by.map(wasted),
        retransmissions: sent().filter_map(retransmission).collect(),
        gaps: gaps.collect(),
        suspicious_names: Vec::new(),
        forwarded: false,
        start,
        duration: end.unwrap_or(times[times.len() - 1]).since(start),
        family: Family::Glibc,
        steps,
    }
}

/// A and AAAA of one name, both answered after `took` seconds.
pub(crate) fn pair(node: &mut Node, host: &str, seconds: f64, took: f64) -> Lookup {
    let a = node.answered(host, Rtype::A, seconds, took, Rcode::NOERROR, &["10.96.4.7"]);
    let aaaa = node.answered(host, Rtype::AAAA, seconds + 0.000_003, took, Rcode::NOERROR, &[]);
    lookup(host, LookupResult::Ok, vec![vec![a, aaaa]])
}

/// The message that announces a query or an answer.
pub(crate) fn message(seconds: f64, kind: MessageKind) -> Message {
    Message {
        time: at(seconds),
        client: socket("10.244.1.23:40000"),
        server: socket("10.96.0.10:53"),
        transport: Transport::Udp,
        question: None,
        kind,
        dns: DnsMessage::default(),
        by_server: false,
        hops: SmallVec::new(),
    }
}

/// Tells a feed a lookup as the engine would: messages, questions, lookup.
pub(crate) fn tell(feed: &mut Feed, lookup: &Lookup) {
    for question in lookup.steps.iter().flat_map(|s| &s.questions) {
        tell_question(feed, question);
    }
    feed.lookup(lookup);
}

pub(crate) fn tell_question(feed: &mut Feed, question: &Question) {
    let base = |time: Timestamp| time.since(NOON).as_secs_f64();
    for sent in &question.transmissions {
        feed.message(&message(base(sent.time), MessageKind::Query(sent.kind)));
    }
    for answer in &question.answers {
        let latency = answer.time.since(question.first_asked());
        let kind = MessageKind::Response { latency, since_first: latency, late: answer.late };
        feed.message(&message(base(answer.time), kind));
    }
    feed.question(question);
}

/// An app, its feed, and what it last drew.
pub(crate) struct Screen {
    pub(crate) app: App,
    pub(crate) feed: SharedFeed,
    pub(crate) names: Pods,
    pub(crate) snapshot: Snapshot,
    pub(crate) terminal: Terminal<TestBackend>,
    pub(crate) now: Timestamp,
}

impl Screen {
    pub(crate) fn new(node: &Node, width: u16, height: u16) -> Self {
        let names = Pods::new();
        names.tell(
            ip("10.244.1.23"),
            PodName { namespace: "shop".into(), name: "web-7c9f".into() },
            Timestamp::EPOCH,
        );
        let mut feed = Feed::new(node.vantages.clone(), Limits::default()).with_pods(names.clone());
        feed.status_mut().title = "node-7".into();
        feed.status_mut().interfaces = "14 veths · cni0 · eth0".into();
        Self {
            app: App::new(Theme::PLAIN),
            feed: SharedFeed::new(feed),
            names,
            snapshot: Snapshot::default(),
            terminal: Terminal::new(TestBackend::new(width, height)).unwrap(),
            now: at(12.0),
        }
    }

    pub(crate) fn draw(&mut self) -> String {
        self.snapshot.refresh(&mut self.feed.lock(), self.app.is_frozen(), self.now);
        let (app, snapshot) = (&mut self.app, &self.snapshot);
        self.terminal.draw(|frame| app.draw(frame, snapshot)).unwrap();
        self.text()
    }

    pub(crate) fn text(&self) -> String {
        let buffer = self.terminal.backend().buffer();
        let width = usize::from(buffer.area.width).max(1);
        let rows = buffer.content.chunks(width);
        rows.map(|row| row.iter().map(|c| c.symbol()).collect::<String>().trim_end().to_owned() + "\n")
            .collect()
    }

    pub(crate) fn press(&mut self, code: KeyCode) -> String {
        self.app.update(KeyEvent::new(code, KeyModifiers::NONE));
        self.draw()
    }

    pub(crate) fn keys(&mut self, text: &str) -> String {
        for c in text.chars() {
            self.press(KeyCode::Char(c));
        }
        self.draw()
    }
}
