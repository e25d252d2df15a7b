use super::*;
use crate::{
    findings::testing::{ask, at, messages, name},
    model::{Direction, InterfaceKind, Vantage, VantageId},
};
use std::collections::HashSet;

const PROBE: &str = "4391264813.7752938123";
const SERVER: &str = "10.244.0.3";

fn vantages() -> (Vantages, VantageId) {
    let vantages = Vantages::new();
    vantages.intern(Vantage { interface: "veth1".into(), ..Vantage::default() });
    let loopback = vantages.intern(Vantage {
        interface: "lo".into(),
        direction: Direction::Egress,
        kind: InterfaceKind::Loopback,
        netns: Some(SERVER.into()),
        ..Vantage::default()
    });
    (vantages, loopback)
}

/// One query, told at its time.
struct Query<'a> {
    millis: u64,
    port: u16,
    way: (&'a str, &'a str, &'a str),
    question: (&'a str, Rtype),
    answered: Option<Rcode>,
    vantage: VantageId,
}

/// What the rule says of queries `(client, asked, receiver)`, each with a port of its own.
fn told(queries: &[Query<'_>]) -> Vec<Finding> {
    let mut rule = ForwardLoop::new(vantages().0);
    let mut servers = HashSet::new();
    for query in queries {
        let (client, asked, receiver) = query.way;
        servers.insert(receiver);
        let mut question = ask(query.question.0, query.question.1, query.millis).from(client).to(asked);
        if let Some(rcode) = query.answered {
            question = question.answered(rcode, &[], 1);
        }
        for mut message in messages(&question.build()) {
            message.client.set_port(query.port);
            message.by_server = servers.contains(client) || message.client.ip().is_loopback();
            let response = message.dns.is_response();
            let hop = &mut message.hops[0];
            hop.vantage = query.vantage;
            let far = if response { &mut hop.source } else { &mut hop.destination };
            far.set_ip(receiver.parse().unwrap());
            rule.message(&message);
        }
    }
    rule.findings()
}

fn repeated<'a>(
    count: u16,
    every_millis: u64,
    way: (&'a str, &'a str, &'a str),
    question: (&'a str, Rtype),
) -> Vec<Query<'a>> {
    let loopback = way.0.parse::<IpAddr>().unwrap().is_loopback();
    let vantage = if loopback { vantages().1 } else { VantageId(0) };
    let query = |number: u16| Query {
        millis: 1 + u64::from(number) * every_millis,
        port: 40_000 + number,
        way,
        question,
        answered: None,
        vantage,
    };
    (0..count).map(query).collect()
}

const LOOPBACK: (&str, &str, &str) = ("127.0.0.1", "127.0.0.53", "127.0.0.53");
const SERVICE: (&str, &str, &str) = (SERVER, "10.96.0.10", SERVER);

#[test]
fn probes_that_come_back() {
    let over_loopback = repeated(3, 1, LOOPBACK, (PROBE, Rtype::HINFO));
    let mut by_service = repeated(2, 1, SERVICE, (PROBE, Rtype::HINFO));
    by_service.push(Query {
        millis: 50,
        port: 50_000,
        way: ("10.244.0.9", "10.96.0.10", SERVER),
        question: ("web", Rtype::A),
        answered: Some(Rcode::SERVFAIL),
        vantage: VantageId(0),
    });
    insta::assert_debug_snapshot!([told(&over_loopback), told(&by_service)]);
}

#[test]
fn two_servers_that_forward_to_each_other() {
    let ways = [("10.244.0.3", "10.96.0.10", "10.244.0.4"), ("10.244.0.4", "10.96.0.10", "10.244.0.3")];
    // A client's question first: what is asked is a server.
    let mut queries = repeated(1, 1, ("10.244.0.9", "10.96.0.10", "10.244.0.3"), ("web", Rtype::A));
    for number in 0..4_u16 {
        let mut query = repeated(1, 1, ways[usize::from(number % 2)], (PROBE, Rtype::HINFO)).remove(0);
        (query.millis, query.port) = (2 + u64::from(number), 41_000 + number);
        queries.push(query);
    }
    let findings = told(&queries);
    assert_eq!((findings.len(), findings[0].count), (1, 3), "{findings:?}");
    assert!(findings[0].summary.contains("each other by way of 10.96.0.10"), "{}", findings[0].summary);
}

#[test]
fn an_ordinary_question_that_multiplies() {
    let findings = told(&repeated(200, 1, LOOPBACK, ("web.example.com", Rtype::A)));
    assert_eq!((findings.len(), findings[0].count, findings[0].confidence), (1, 200, Confidence::Medium));
    assert_eq!(findings[0].subject, [("server", SERVER.to_owned()), ("asks", "127.0.0.53".to_owned())]);
    assert_eq!((findings[0].first, findings[0].last), (at(1), at(200)));
}

#[test]
fn does_not_fire_for_healthy_probes_and_digs() {
    let silent = repeated(2, 10, LOOPBACK, (PROBE, Rtype::HINFO));
    assert_eq!(told(&silent), [], "its own probe, and a stray copy");
    assert_eq!(told(&repeated(10, 3_000, LOOPBACK, (PROBE, Rtype::HINFO))), [], "a silent upstream");
    let client = ("10.244.0.9", "10.96.0.10", SERVER);
    assert_eq!(told(&repeated(50, 1, client, (PROBE, Rtype::HINFO))), [], "dig with a name like a probe's");
    assert_eq!(told(&repeated(50, 1, client, ("example.com", Rtype::HINFO))), [], "dig");
    let upstream = (SERVER, "192.0.2.53", "192.0.2.53");
    assert_eq!(told(&repeated(50, 1, upstream, (PROBE, Rtype::HINFO))), [], "forwarded, and asked again");
}

#[test]
fn does_not_fire_for_a_cache_in_the_pod_or_a_server_that_asks_itself() {
    let threads = repeated(16, 0, LOOPBACK, ("web.example.com", Rtype::A));
    assert_eq!(told(&threads), [], "threads that start together");
    for way in [LOOPBACK, SERVICE] {
        let mut answered = repeated(500, 2, way, ("web.example.com", Rtype::A));
        answered.iter_mut().for_each(|query| query.answered = Some(Rcode::NOERROR));
        assert_eq!(told(&answered), [], "answered each time");
    }
}

#[test]
fn probes_have_names_of_two_numbers() {
    for (text, expected) in [(PROBE, true), ("12.34.cluster.local", true), ("12.x", false), ("12", false)] {
        assert_eq!(is_probe(&name(text), Rtype::HINFO), expected, "{text}");
    }
    assert!(!is_probe(&name(PROBE), Rtype::A));
    assert!(!is_probe(&Name::ROOT, Rtype::HINFO));
}
