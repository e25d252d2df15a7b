//! Scenario files: packets as lines, and what the engine must tell of them.
//!
//! ```text
//! # comment
//! show messages questions lookups            what is compared; lookups when absent
//! resolv.conf search a.example, options ndots:2
//! 0.3 veth1 10.0.0.5:4000 > 10.96.0.10:53 Q 4f1a A web.default.svc.cluster.local [options]
//! 0.9 veth1 10.96.0.10:53 > 10.0.0.5:4000 R 4f1a A web.default.svc.cluster.local NOERROR 10.1.1.1 [options]
//! 0.9 veth1 10.0.0.5 > 10.96.0.10 icmp 10.96.0.10:53 > 10.0.0.5:4000 [4f1a]
//! 0.3 veth1 10.0.0.5:4000 > 10.96.0.10:53 drop insert_failed [Q 4f1a A web.default.svc.cluster.local] [options]
//! advance 20000
//! ---
//! expected lines
//! ```
//! Times are milliseconds. Options: `tcp`, `tc`, `soa`, `ttl=63`, `ipid=7`, `edns=1232`, `cookie`, `unreadable`,
//! `an=40`, `df=0`, and `nat=CLIENT>SERVER,BACKEND>CLIENT` for conntrack's tuples. A drop has `tcp` and `nat` too, and `cpu=1`,
//! `reason=NO_SOCKET`, `place=udp_rcv`; without Q or R its data could not be read.

use dnspath::{
    engine::{Config, Engine, EngineCounters, SearchList},
    model::{
        AnswerSummary, Class, DnsMessage, Edns, Fate, Flags, Flow, Hop, IcmpError, Lookup, Message,
        MessageKind, NatTuple, Observer, PacketDrop, Question, QuestionOutcome, Rcode, Retransmission,
        Sighting, SightingBody, Timestamp, TransmissionKind, Transport, Vantage, Vantages,
    },
};
use std::{fmt::Write as _, net::SocketAddr, time::Duration};

/// 2023-11-14T22:13:20Z.
const START: u64 = 1_700_000_000_000_000_000;

pub(crate) struct Scenario {
    pub(crate) vantages: Vantages,
    pub(crate) steps: Vec<Step>,
    pub(crate) show: Vec<String>,
    pub(crate) resolv_conf: Option<SearchList>,
    pub(crate) expected: String,
}

#[expect(clippy::large_enum_variant, reason = "few, in a test")]
#[derive(Clone)]
pub(crate) enum Step {
    See(Sighting),
    Drop(PacketDrop),
    Advance(Timestamp),
}

pub(crate) fn read(text: &str) -> Scenario {
    let (input, expected) = text.split_once("---\n").expect("a line --- before what is expected");
    let mut scenario = Scenario {
        vantages: Vantages::new(),
        steps: vec![],
        show: vec!["lookups".into()],
        resolv_conf: None,
        expected: expected.into(),
    };
    for line in input.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["show", what @ ..] => scenario.show = what.iter().map(ToString::to_string).collect(),
            ["resolv.conf", ..] => {
                let text = line.trim_start_matches("resolv.conf").trim().replace(", ", "\n");
                scenario.resolv_conf = Some(SearchList::from_resolv_conf(&text));
            }
            ["advance", time] => scenario.steps.push(Step::Advance(at(time))),
            [_, _, _, ">", _, "drop", ..] => {
                let frame = scenario.steps.len() as u64 + 1;
                scenario.steps.push(Step::Drop(dropped(&words, frame, &scenario.vantages)));
            }
            _ => {
                let frame = scenario.steps.len() as u64 + 1;
                let sighting = packet(&words, frame, &scenario.vantages);
                scenario.steps.push(Step::See(sighting));
            }
        }
    }
    scenario
}

fn at(milliseconds: &str) -> Timestamp {
    let (whole, part) = milliseconds.split_once('.').unwrap_or((milliseconds, ""));
    let nanos = format!("{whole}{part:0<6}").parse::<u64>().expect("a time in milliseconds");
    Timestamp::from_nanos(START + nanos)
}

fn socket(text: &str) -> SocketAddr {
    text.parse().or_else(|_| format!("{text}:0").parse()).unwrap_or_else(|_| panic!("address {text:?}"))
}

fn packet(words: &[&str], frame: u64, vantages: &Vantages) -> Sighting {
    let [time, interface, source, ">", destination, what, rest @ ..] = words else {
        panic!("not a packet: {words:?}")
    };
    let vantage = vantages.intern(Vantage { interface: (*interface).into(), ..Vantage::default() });
    let mut sighting = Sighting {
        frame,
        time: at(time),
        vantage,
        transport: Transport::Udp,
        flow: Flow { source: socket(source), destination: socket(destination) },
        destination_mac: None,
        source_mac: None,
        ttl: 64,
        ip_id: 0,
        dont_fragment: true,
        nat: None,
        body: SightingBody::Dns(DnsMessage::default()),
    };
    let mut options: &[&str] = &[];
    match (*what, rest) {
        ("icmp", [source, ">", destination, id @ ..]) => {
            sighting.body = SightingBody::Icmp(IcmpError {
                from: sighting.flow.source.ip(),
                to: sighting.flow.destination.ip(),
                kind: 3,
                code: 3,
                v6: false,
                quoted: Flow { source: socket(source), destination: socket(destination) },
                quoted_transport: Transport::Udp,
                quoted_id: id.first().map(|id| u16::from_str_radix(id, 16).unwrap()),
            });
        }
        ("Q", [id, qtype, name, more @ ..]) => {
            sighting.body = SightingBody::Dns(dns(id, qtype, name));
            options = more;
        }
        ("R", [id, qtype, name, rcode, more @ ..]) => {
            let mut message = dns(id, qtype, name);
            message.flags = Flags(0x8180);
            message.rcode = rcode.parse().unwrap();
            let addresses: Vec<_> = more.iter().map_while(|word| word.parse().ok()).collect();
            options = &more[addresses.len()..];
            message.counts[1] = u16::try_from(addresses.len()).unwrap();
            message.answer = AnswerSummary {
                matching: message.counts[1],
                addresses: addresses.into(),
                ..AnswerSummary::default()
            };
            sighting.body = SightingBody::Dns(message);
        }
        _ => panic!("neither Q, R nor icmp: {words:?}"),
    }
    for option in options {
        set_option(&mut sighting, option);
    }
    sighting
}

fn dropped(words: &[&str], frame: u64, vantages: &Vantages) -> PacketDrop {
    let [time, interface, source, ">", destination, "drop", fate, rest @ ..] = words else {
        panic!("not a drop: {words:?}")
    };
    let all = [Fate::ClashResolved, Fate::Dropped, Fate::InsertFailed, Fate::TableFull];
    let mut drop = PacketDrop {
        frame,
        time: at(time),
        vantage: vantages.intern(Vantage { interface: (*interface).into(), ..Vantage::default() }),
        fate: all.into_iter().find(|known| known.as_str() == *fate).expect("a fate"),
        cpu: 0,
        reason: "".into(),
        place: "".into(),
        transport: Transport::Udp,
        flow: Flow { source: socket(source), destination: socket(destination) },
        connection: None,
        destination_mac: None,
        dns: None,
        question: None,
        rival: None,
    };
    let options = match rest {
        [what @ ("Q" | "R"), id, qtype, name, options @ ..] => {
            let mut message = dns(id, qtype, name);
            message.flags = Flags(if *what == "R" { 0x8180 } else { 0x0100 });
            drop.dns = Some(message);
            options
        }
        options => options,
    };
    for option in options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "tcp" => drop.transport = Transport::Tcp,
            "cpu" => drop.cpu = value.parse().unwrap(),
            "reason" => drop.reason = value.into(),
            "place" => drop.place = value.into(),
            "nat" => drop.connection = Some(tuples(value)),
            _ => panic!("unknown option {option:?} of a drop"),
        }
    }
    drop
}

fn tuples(text: &str) -> NatTuple {
    let flow = |text: &str| {
        let (source, destination) = text.split_once('>').unwrap();
        Flow { source: socket(source), destination: socket(destination) }
    };
    let (original, reply) = text.split_once(',').unwrap();
    NatTuple { original: flow(original), reply: flow(reply) }
}

fn dns(id: &str, qtype: &str, name: &str) -> DnsMessage {
    DnsMessage {
        id: u16::from_str_radix(id, 16).unwrap(),
        flags: Flags(0x0100),
        name: name.parse().unwrap(),
        qtype: qtype.parse().unwrap(),
        qclass: Class::IN,
        has_question: true,
        counts: [1, 0, 0, 0],
        size: 40,
        ..DnsMessage::default()
    }
}

fn set_option(sighting: &mut Sighting, option: &str) {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    match key {
        "tcp" => return sighting.transport = Transport::Tcp,
        "ttl" => return sighting.ttl = value.parse().unwrap(),
        "ipid" => return sighting.ip_id = value.parse().unwrap(),
        "df" => return sighting.dont_fragment = value == "1",
        "nat" => return sighting.nat = Some(tuples(value)),
        _ => {}
    }
    let SightingBody::Dns(message) = &mut sighting.body else { panic!("{option} of no DNS message") };
    match key {
        "tc" => message.flags.0 |= 0x0200,
        "soa" => message.answer.authority_soa = true,
        "edns" => {
            message.edns = Some(Edns { udp_payload_size: value.parse().unwrap(), ..Edns::default() });
        }
        // The capture has no more than the header.
        "unreadable" => {
            (message.has_question, message.cut) = (false, true);
            message.name = "".parse().unwrap_or_default();
            message.qtype = dnspath::model::Rtype::default();
        }
        "cookie" => message.edns.get_or_insert_default().cookie = true,
        "an" => {
            message.counts[1] = value.parse().unwrap();
            message.answer.matching = message.counts[1];
        }
        _ => panic!("unknown option {option:?}"),
    }
}

/// What was told, as lines.
pub(crate) struct Lines<'a> {
    pub(crate) text: String,
    pub(crate) show: &'a [String],
    pub(crate) vantages: &'a Vantages,
}

impl Lines<'_> {
    fn shows(&self, what: &str) -> bool {
        self.show.iter().any(|s| s == what)
    }

    fn hops(&self, hops: &[Hop]) -> String {
        let first = hops[0].time;
        let mut text = String::new();
        for hop in hops {
            let vantage = self.vantages.lookup(hop.vantage).map_or("?".into(), |v| v.to_string());
            let offset = ms(hop.time.since(first));
            write!(text, " [{vantage} +{offset} {}>{}]", hop.source, hop.destination).unwrap();
        }
        text
    }
}

fn milliseconds(time: Timestamp) -> String {
    ms(time.since(Timestamp::from_nanos(START)))
}

fn ms(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let text = format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn resent(r: &Retransmission) -> String {
    let mut text = format!("{} after {} ms", r.kind, ms(r.gap));
    for (set, word) in
        [(r.same_id, ", same id"), (r.same_port, ", same port"), (r.server_changed, ", other server")]
    {
        text.push_str(if set { word } else { "" });
    }
    text
}

fn role(kind: &TransmissionKind) -> String {
    match kind {
        TransmissionKind::First => "first".into(),
        TransmissionKind::ParallelCopy => "parallel copy".into(),
        TransmissionKind::TcpFallback => "tcp fallback".into(),
        TransmissionKind::Retransmission(r) => format!("retransmission: {}", resent(r)),
    }
}

fn fate(drop: Option<&PacketDrop>) -> String {
    drop.map_or(String::new(), |drop| format!("; {} at {}", drop.fate, milliseconds(drop.time)))
}

impl Observer for Lines<'_> {
    fn message(&mut self, message: &Message) {
        if !self.shows("messages") {
            return;
        }
        let kind = match &message.kind {
            MessageKind::Query(kind) => format!("Q {}", role(kind)),
            MessageKind::Response { latency, since_first, late } => format!(
                "R {} {} ms, {} ms since first{}",
                message.dns.rcode,
                ms(*latency),
                ms(*since_first),
                if *late { ", late" } else { "" }
            ),
            MessageKind::Unmatched => format!("R {} unmatched", message.dns.rcode),
        };
        let question = message.question.map_or("-".into(), |q| q.0.to_string());
        let Message { client, server, transport, dns, .. } = message;
        let (time, hops) = (milliseconds(message.time), self.hops(&message.hops));
        writeln!(
            self.text,
            "message {time} {transport} {client} {server} {:04x} {} {} of {question}: {kind}{hops}",
            dns.id, dns.qtype, dns.name
        )
        .unwrap();
    }

    fn question(&mut self, question: &Question) {
        if !self.shows("questions") {
            return;
        }
        let outcome = match question.outcome {
            QuestionOutcome::Answered(Rcode::NOERROR) => "answered".into(),
            QuestionOutcome::Answered(rcode) => format!("answered {rcode}"),
            other => format!("{other:?}").to_lowercase(),
        };
        let Question { id, client, name, qtype, transmissions, answers, .. } = question;
        writeln!(
            self.text,
            "question {} {client} {qtype} {name}: {outcome}, {} queries, {} answers, {} late",
            id.0,
            transmissions.len(),
            answers.len(),
            answers.iter().filter(|a| a.late).count()
        )
        .unwrap();
        for transmission in transmissions {
            let backend = transmission.backend.map_or(String::new(), |b| format!(" at {b}"));
            let icmp = if transmission.unreachable.is_some() { " unreachable" } else { "" };
            let answer = transmission.answered_by.map_or("unanswered".into(), |a| format!("answer {a}"));
            let kind = role(&transmission.kind);
            let dropped = fate(transmission.dropped.as_deref());
            writeln!(self.text, "  to {}{backend}: {kind}; {answer}{icmp}{dropped}", transmission.server)
                .unwrap();
        }
        for (index, answer) in answers.iter().enumerate().filter(|(_, answer)| answer.dropped.is_some()) {
            writeln!(self.text, "  answer {index}{}", fate(answer.dropped.as_deref())).unwrap();
        }
    }

    fn packet_drop(&mut self, drop: &PacketDrop) {
        if !self.shows("drops") {
            return;
        }
        let PacketDrop { time, fate, cpu, reason, place, transport, flow, .. } = drop;
        let asked = drop.asked();
        let what = match &drop.dns {
            Some(dns) => format!("{:04x} {} {}", dns.id, dns.qtype, dns.name),
            None => "unreadable".into(),
        };
        let question = drop.question.map_or("-".into(), |q| q.0.to_string());
        let rival = drop.rival.map_or(String::new(), |r| format!(", rival {} {:04x}", r.qtype, r.id));
        writeln!(
            self.text,
            "drop {} {fate} {transport} {}>{} asked {}, {what} of {question}: cpu {cpu} {reason}@{place}{rival}",
            milliseconds(*time),
            flow.source,
            flow.destination,
            asked.destination
        )
        .unwrap();
    }

    fn lookup(&mut self, lookup: &Lookup) {
        if !self.shows("lookups") {
            return;
        }
        let Lookup { client, name, result, queries, family, .. } = lookup;
        write!(self.text, "lookup {client} {name}: {result}, {queries} queries").unwrap();
        if let Some(wasted) = lookup.wasted_search_queries {
            write!(self.text, ", {wasted} wasted").unwrap();
        }
        let forwarded = if lookup.forwarded { ", for another client" } else { "" };
        let start = milliseconds(lookup.start);
        writeln!(self.text, ", {} ms from {start}, {family}{forwarded}", ms(lookup.duration)).unwrap();
        for step in &lookup.steps {
            let types: Vec<_> = step.questions.iter().map(|q| q.qtype.to_string()).collect();
            let by = if lookup.answered_by == Some(step.name) { ", answered by it" } else { "" };
            let suspicious = if lookup.suspicious_names.contains(&step.name) { ", suspicious" } else { "" };
            writeln!(self.text, "  {} {}{by}{suspicious}", types.join("+"), step.name).unwrap();
        }
        for retransmission in &lookup.retransmissions {
            writeln!(self.text, "  again: {}", resent(retransmission)).unwrap();
        }
        for gap in &lookup.gaps {
            writeln!(self.text, "  gap: {} ms", ms(*gap)).unwrap();
        }
    }
}

/// Runs a scenario's steps; gives the lines told, and the counters at the end.
pub(crate) fn run(scenario: &Scenario, steps: &[Step], seed: u64) -> (String, EngineCounters) {
    let config = Config { seed, resolv_conf: scenario.resolv_conf.clone(), ..Config::default() };
    let mut engine = Engine::new(config);
    let mut lines = Lines { text: String::new(), show: &scenario.show, vantages: &scenario.vantages };
    for step in steps {
        match step {
            Step::See(sighting) => engine.observe(sighting, &mut lines),
            Step::Drop(drop) => engine.observe_drop(drop, &mut lines),
            Step::Advance(now) => engine.advance(*now, &mut lines),
        }
    }
    engine.finish(&mut lines);
    let counters = engine.counters();
    if scenario.show.iter().any(|s| s == "counters") {
        let EngineCounters { queries, responses, unmatched, retransmissions, duplicates, .. } = counters;
        writeln!(
            lines.text,
            "counters: {queries} queries, {responses} responses, {unmatched} unmatched, {retransmissions} \
             retransmissions, {duplicates} duplicates"
        )
        .unwrap();
    }
    (lines.text, counters)
}
