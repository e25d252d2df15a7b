//! Over any packets: nothing is lost, nothing is paired wrongly, nothing grows, and order within the slack is free.

use dnspath::{
    engine::{Config, Engine},
    model::{
        AnswerSummary, Class, DnsMessage, Edns, Flags, Flow, IcmpError, Lookup, Message, NatTuple, Observer,
        Question, Rcode, Rtype, Sighting, SightingBody, Timestamp, Transport, VantageId,
    },
};
use proptest::prelude::*;
use std::net::{Ipv6Addr, SocketAddr};

const START: u64 = 1_700_000_000_000_000_000;
const NAMES: [&str; 5] =
    ["web.default.svc.cluster.local", "WEB.svc.Cluster.local", "web", "api.example.com", "."];
const SOCKETS: [&str; 7] = [
    "10.0.0.5:4000",
    "10.0.0.5:4001",
    "[2001:db8::5]:4000",
    "10.96.0.10:53",
    "10.244.0.2:53",
    "[2001:db8::53]:53",
    "10.0.0.1:4000",
];

fn socket() -> impl Strategy<Value = SocketAddr> {
    prop::sample::select(&SOCKETS[..]).prop_map(|s| s.parse().unwrap())
}

fn flow() -> impl Strategy<Value = Flow> {
    (socket(), socket()).prop_map(|(source, destination)| Flow { source, destination })
}

/// Mostly what resolvers send: a client's port to a server's, or back.
fn usual_flow() -> impl Strategy<Value = Flow> {
    prop_oneof![
        4 => (0..3_usize, 3..6_usize, any::<bool>()).prop_map(|(client, server, back)| {
            let flow = Flow {
                source: SOCKETS[client].parse().unwrap(),
                destination: SOCKETS[server].parse().unwrap(),
            };
            if back { flow.reversed() } else { flow }
        }),
        1 => flow(),
    ]
}

fn message() -> impl Strategy<Value = DnsMessage> {
    (
        0..3_u16,
        any::<bool>(),
        prop::sample::select(vec![0_u16, 2, 3, 5]),
        prop::sample::select(&NAMES[..]),
        prop::sample::select(vec![1_u16, 28, 13, 65280]),
        (prop::bool::weighted(0.95), any::<bool>(), prop::bool::weighted(0.1), any::<bool>(), any::<bool>()),
        0..60_u16,
    )
        .prop_map(|(id, response, rcode, name, qtype, (has_question, edns, tc, soa, cut), count)| {
            DnsMessage {
                id,
                flags: Flags(0x0100 | u16::from(response) << 15 | u16::from(tc) << 9),
                rcode: Rcode(rcode),
                name: if has_question { name.parse().unwrap() } else { dnspath::model::Name::ROOT },
                qtype: if has_question { Rtype(qtype) } else { Rtype(0) },
                qclass: Class::IN,
                has_question,
                counts: [u16::from(has_question), count, 0, 0],
                edns: edns.then_some(Edns { udp_payload_size: 1232, ..Edns::default() }),
                answer: AnswerSummary { matching: count, authority_soa: soa, ..AnswerSummary::default() },
                size: 40,
                cut,
            }
        })
}

fn body() -> impl Strategy<Value = SightingBody> {
    prop_oneof![
        9 => message().prop_map(SightingBody::Dns),
        1 => (flow(), prop::option::of(0..3_u16), any::<bool>()).prop_map(|(quoted, quoted_id, v6)| {
            SightingBody::Icmp(IcmpError {
                from: quoted.destination.ip(),
                to: quoted.source.ip(),
                kind: 3,
                code: 3,
                v6,
                quoted,
                quoted_transport: Transport::Udp,
                quoted_id,
            })
        }),
    ]
}

/// Gaps that resolvers show: microseconds, around the slack, and timeouts.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..300_000_u64, 2 => 0..120_000_000_u64, 1 => 0..7_000_000_000_u64]
}

fn sighting() -> impl Strategy<Value = (u64, Sighting)> {
    let place = (0..3_u16, 60..64_u8, 0..4_u16, any::<bool>(), prop::bool::weighted(0.1));
    let nat = prop::option::weighted(0.2, (flow(), flow()));
    (gap(), usual_flow(), place, nat, body()).prop_map(
        |(gap, flow, (vantage, ttl, ip_id, df, tcp), nat, body)| {
            let sighting = Sighting {
                frame: 0,
                time: Timestamp::EPOCH,
                vantage: VantageId(vantage),
                transport: if tcp { Transport::Tcp } else { Transport::Udp },
                flow,
                destination_mac: None,
                source_mac: None,
                ttl,
                ip_id,
                dont_fragment: df,
                nat: nat.map(|(original, reply)| NatTuple { original, reply }),
                body,
            };
            (gap, sighting)
        },
    )
}

pub(crate) fn sightings(most: usize) -> impl Strategy<Value = Vec<Sighting>> {
    prop::collection::vec(sighting(), 1..most).prop_map(|all| {
        let mut time = START;
        let number = |(frame, (gap, mut sighting)): (usize, (u64, Sighting))| {
            time += gap;
            sighting.time = Timestamp::from_nanos(time);
            sighting.frame = frame as u64 + 1;
            sighting
        };
        all.into_iter().enumerate().map(number).collect()
    })
}

#[derive(Default)]
struct Told {
    text: Vec<String>,
    messages: u64,
    transmissions: u64,
    matched: u64,
    evicted: u64,
}

impl Observer for Told {
    fn message(&mut self, message: &Message) {
        self.messages += 1;
        assert!(message.hops.is_sorted_by_key(|h| h.time), "hops by time");
        self.text.push(format!("{message:?}"));
    }
    fn question(&mut self, question: &Question) {
        self.transmissions += question.transmissions.len() as u64;
        self.matched += question.answers.len() as u64;
        for transmission in &question.transmissions {
            assert_eq!(transmission.client.ip(), question.client);
            let Some(answer) = transmission.answered_by else { continue };
            let answer = &question.answers[usize::from(answer)];
            assert_eq!((answer.id, answer.transport), (transmission.id, transmission.transport));
            assert!(answer.time >= transmission.time, "an answer before its query");
        }
        self.text.push(format!("{question:?}"));
    }
    fn lookup(&mut self, lookup: &Lookup) {
        assert!(!lookup.steps.is_empty());
        let sent =
            lookup.steps.iter().flat_map(|s| &s.questions).map(|q| q.transmissions.len()).sum::<usize>();
        assert_eq!(sent, lookup.queries as usize);
        self.text.push(format!("{lookup:?}"));
    }
    fn evicted(&mut self, _: dnspath::model::Eviction) {
        self.evicted += 1;
    }
}

fn run(config: Config, sightings: &[Sighting]) -> (Told, Engine) {
    let (mut engine, mut told) = (Engine::new(config), Told::default());
    for sighting in sightings {
        engine.observe(sighting, &mut told);
        let counters = engine.counters();
        assert_eq!(counters.opened, counters.closed + counters.open_questions);
    }
    engine.finish(&mut told);
    (told, engine)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_told_once_and_nothing_stays(all in sightings(120)) {
        let (told, engine) = run(Config::default(), &all);
        let counters = engine.counters();
        prop_assert_eq!(counters.open_questions, 0);
        prop_assert_eq!(told.messages, counters.queries + counters.responses);
        prop_assert_eq!(told.transmissions + counters.unreadable, counters.queries);
        prop_assert_eq!(told.matched + counters.unmatched, counters.responses);
        prop_assert_eq!(told.evicted, 0);
        prop_assert_eq!(engine.next_deadline(), None);
    }

    #[test]
    fn order_within_the_slack_and_the_seed_do_not_matter(
        all in sightings(80),
        lags in prop::collection::vec(0..50_000_000_u64, 80),
    ) {
        let (expected, _) = run(Config::default(), &all);
        let mut order: Vec<_> = all.iter().zip(&lags).collect();
        order.sort_by_key(|(sighting, lag)| sighting.time.plus_nanos(**lag));
        let disordered: Vec<_> = order.into_iter().map(|(sighting, _)| sighting.clone()).collect();
        let (told, engine) = run(Config { seed: 99, ..Config::default() }, &disordered);
        prop_assert_eq!(engine.counters().out_of_order, 0);
        prop_assert_eq!(told.text, expected.text);
    }

    #[test]
    fn when_the_engine_is_told_the_time_does_not_matter(all in sightings(80)) {
        let (expected, _) = run(Config::default(), &all);
        let (mut engine, mut told) = (Engine::new(Config::default()), Told::default());
        for sighting in &all {
            while let Some(deadline) = engine.next_deadline().filter(|d| *d <= sighting.time) {
                engine.advance(deadline, &mut told);
                prop_assert!(engine.next_deadline() > Some(deadline) || engine.next_deadline().is_none());
            }
            engine.observe(sighting, &mut told);
        }
        engine.finish(&mut told);
        let sorted = |mut text: Vec<String>| {
            text.sort();
            text
        };
        prop_assert_eq!(sorted(told.text), sorted(expected.text));
    }

    #[test]
    fn capacity_is_never_passed(all in sightings(120), capacity in 1..6_usize) {
        let (mut engine, mut told) =
            (Engine::new(Config { capacity, ..Config::default() }), Told::default());
        for sighting in &all {
            engine.observe(sighting, &mut told);
            prop_assert!(engine.counters().open_questions <= capacity as u64);
        }
        engine.finish(&mut told);
        let counters = engine.counters();
        prop_assert_eq!(counters.opened, counters.closed);
        prop_assert_eq!(told.messages, counters.queries + counters.responses);
        prop_assert!(told.evicted >= counters.evicted);
    }

    #[test]
    fn clocks_that_jump_never_break_it(
        all in sightings(200),
        times in prop::collection::vec(prop_oneof![Just(0_u64), Just(u64::MAX), any::<u64>(), START..START + 10_000_000_000], 200),
    ) {
        let jumping: Vec<_> = all
            .into_iter()
            .zip(times)
            .map(|(mut sighting, time)| {
                sighting.time = Timestamp::from_nanos(time);
                sighting
            })
            .collect();
        let (mut engine, mut told) = (Engine::new(Config::default()), Count(0));
        for sighting in &jumping {
            engine.observe(sighting, &mut told);
        }
        engine.finish(&mut told);
        let counters = engine.counters();
        prop_assert_eq!(counters.opened, counters.closed);
        prop_assert_eq!(told.0, counters.queries + counters.responses);
    }
}

struct Count(u64);

impl Observer for Count {
    fn message(&mut self, _: &Message) {
        self.0 += 1;
    }
}

/// A clock that is set back by an hour: what was open is told, and the engine goes on.
#[test]
fn a_clock_set_back_starts_time_anew() {
    let query = |number: u64, time: u64| Sighting {
        frame: number,
        time: Timestamp::from_nanos(time),
        vantage: VantageId(0),
        transport: Transport::Udp,
        flow: Flow { source: SOCKETS[0].parse().unwrap(), destination: SOCKETS[3].parse().unwrap() },
        destination_mac: None,
        source_mac: None,
        ttl: 64,
        ip_id: 0,
        dont_fragment: true,
        nat: None,
        body: SightingBody::Dns(DnsMessage {
            id: u16::try_from(number).unwrap(),
            flags: Flags(0x0100),
            name: NAMES[3].parse().unwrap(),
            qtype: Rtype::A,
            has_question: true,
            ..DnsMessage::default()
        }),
    };
    let (mut engine, mut told) = (Engine::new(Config::default()), Told::default());
    engine.observe(&query(1, START), &mut told);
    for number in 2..200 {
        engine.observe(&query(number, START - 3_600_000_000_000 + number * 1_000_000), &mut told);
    }
    assert_eq!(engine.counters().clock_steps, 1);
    engine.advance(Timestamp::from_nanos(START - 3_500_000_000_000), &mut told);
    assert_eq!(engine.counters().open_questions, 0, "they time out by the new clock");
}

/// Spoofed sources, a new one for each query: clients, names and addresses are forgotten, and every answer finds
/// its query.
#[test]
fn memory_does_not_grow_with_the_clients_that_were() {
    let message = |number: u32, response: bool| DnsMessage {
        id: 7,
        flags: Flags(0x0100 | u16::from(response) << 15),
        name: format!("host-{number}.example.com").parse().unwrap(),
        qtype: Rtype::A,
        has_question: true,
        counts: [1, u16::from(response), 0, 0],
        answer: AnswerSummary { matching: u16::from(response), ..AnswerSummary::default() },
        ..DnsMessage::default()
    };
    let (mut engine, mut told, mut most) = (Engine::new(Config::default()), Count(0), [0; 2]);
    for number in 0..400_000_u32 {
        let source =
            SocketAddr::new(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number)).into(), 4000);
        let flow = Flow { source, destination: SOCKETS[5].parse().unwrap() };
        for (response, flow) in [(false, flow), (true, flow.reversed())] {
            let time = START + u64::from(number) * 100_000 + u64::from(response) * 50_000;
            engine.observe(
                &Sighting {
                    frame: 1,
                    time: Timestamp::from_nanos(time),
                    vantage: VantageId(0),
                    transport: Transport::Udp,
                    flow,
                    destination_mac: None,
                    source_mac: None,
                    ttl: 64,
                    ip_id: 0,
                    dont_fragment: false,
                    nat: None,
                    body: SightingBody::Dns(message(number, response)),
                },
                &mut told,
            );
        }
        let half = &mut most[usize::from(number >= 200_000)];
        *half = engine.memory().max(*half);
    }
    assert!(most[1] <= most[0] * 11 / 10, "{most:?}");
    engine.finish(&mut told);
    let counters = engine.counters();
    assert_eq!((counters.unmatched, counters.lookups, told.0), (0, 400_000, 800_000));
}

/// A monitor that asks one name every 100 ms from a new socket, with or without EDNS, and is never answered: no
/// question stays open for ever.
#[test]
fn one_name_asked_again_and_again_leaves_nothing_open() {
    for options in ["", "edns=1232"] {
        let asked = |n: u64| {
            let (port, id) = (20_000 + n % 30_000, n * 7_919 % 65_536);
            format!("{} v 10.0.0.5:{port} > 10.96.0.10:53 Q {id:04x} A gone.example.com {options}\n", n * 100)
        };
        let text: String = (0..1_200).map(asked).collect();
        let scenario = super::scenario::read(&format!("{text}---\n"));
        let (mut engine, mut told) = (Engine::new(Config::default()), Told::default());
        let mut most = 0;
        for step in &scenario.steps {
            let super::scenario::Step::See(sighting) = step else { continue };
            engine.observe(sighting, &mut told);
            most = most.max(engine.counters().open_questions);
        }
        assert!(most <= 150, "{most} questions open at once");
        assert!(engine.counters().closed * 15 >= 900, "{:?}", engine.counters());
    }
}
