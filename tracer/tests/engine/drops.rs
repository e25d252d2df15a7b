//! Over any packets and drops: each drop is told once, before its question, and order within the slack is free.

use super::properties::sightings;
use dnspath::{
    engine::{Config, Engine},
    model::{
        Fate, Observer, PacketDrop, Question, QuestionId, Sighting, SightingBody, Timestamp, Transport,
        VantageId,
    },
};
use proptest::prelude::*;
use std::collections::HashSet;

#[derive(Clone, Debug)]
enum Event {
    Seen(Sighting),
    Dropped(PacketDrop),
}

impl Event {
    fn time(&self) -> Timestamp {
        match self {
            Self::Seen(sighting) => sighting.time,
            Self::Dropped(drop) => drop.time,
        }
    }
}

/// What a probe would tell of a sighting's packet: readable or not, with its connection or without.
fn dropped(sighting: &Sighting, fate: Fate, readable: bool) -> PacketDrop {
    let dns = match &sighting.body {
        SightingBody::Dns(dns) if readable => Some(dns.clone()),
        _ => None,
    };
    PacketDrop {
        frame: sighting.frame + 10_000,
        time: sighting.time.plus_nanos(20_000),
        vantage: VantageId(9),
        fate,
        cpu: u32::from(sighting.ip_id),
        reason: "NETFILTER_DROP".into(),
        place: "".into(),
        transport: sighting.transport,
        flow: sighting.flow,
        connection: sighting.nat,
        destination_mac: None,
        dns,
        question: None,
        rival: None,
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let fate = prop::sample::select(vec![
        Fate::ClashResolved,
        Fate::Dropped,
        Fate::Dropped,
        Fate::InsertFailed,
        Fate::TableFull,
    ]);
    let drops = prop::collection::vec(prop::option::weighted(0.5, (fate, any::<bool>(), any::<bool>())), 80);
    (sightings(80), drops).prop_map(|(all, drops)| {
        let mut events = Vec::new();
        for (sighting, drop) in all.into_iter().zip(drops) {
            if let Some((fate, readable, seen)) = drop {
                events.push(Event::Dropped(dropped(&sighting, fate, readable)));
                if !seen {
                    continue;
                }
            }
            events.push(Event::Seen(sighting));
        }
        events.sort_by_key(Event::time);
        events
    })
}

#[derive(Default)]
struct Told {
    text: Vec<String>,
    drops: HashSet<u64>,
    questions: HashSet<QuestionId>,
}

impl Observer for Told {
    fn packet_drop(&mut self, drop: &PacketDrop) {
        assert!(self.drops.insert(drop.frame), "told once");
        assert!(drop.question.is_none_or(|id| !self.questions.contains(&id)), "before its question");
        self.text.push(format!("{drop:?}"));
    }
    fn question(&mut self, question: &Question) {
        self.questions.insert(question.id);
        let of_sent = question.transmissions.iter().filter_map(|sent| sent.dropped.as_deref());
        let of_answers = question.answers.iter().filter_map(|answer| answer.dropped.as_deref());
        for drop in of_sent.chain(of_answers) {
            assert!(drop.fate.is_loss() && self.drops.contains(&drop.frame));
            assert_eq!(drop.question, Some(question.id));
        }
        self.text.push(format!("{question:?}"));
    }
}

fn run(config: Config, events: &[Event]) -> (Told, Engine) {
    let (mut engine, mut told) = (Engine::new(config), Told::default());
    for event in events {
        match event {
            Event::Seen(sighting) => engine.observe(sighting, &mut told),
            Event::Dropped(drop) => engine.observe_drop(drop, &mut told),
        }
    }
    engine.finish(&mut told);
    (told, engine)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_drop_is_told_once_and_before_its_question(events in events(), capacity in 1..200_usize) {
        let (told, engine) = run(Config { capacity, ..Config::default() }, &events);
        let given = events.iter().filter(|event| matches!(event, Event::Dropped(_))).count();
        prop_assert!(told.drops.len() <= given, "reports of one packet are one");
        prop_assert!(told.drops.len() * 3 >= given, "and no more than these are joined");
        prop_assert_eq!(engine.next_deadline(), None);
        prop_assert_eq!(engine.counters().opened, engine.counters().closed);
    }

    #[test]
    fn order_within_the_slack_does_not_matter(
        events in events(),
        lags in prop::collection::vec(0..48_000_000_u64, 160),
    ) {
        let (expected, _) = run(Config::default(), &events);
        let mut order: Vec<_> = events.iter().zip(&lags).collect();
        order.sort_by_key(|(event, lag)| event.time().plus_nanos(**lag));
        let disordered: Vec<_> = order.into_iter().map(|(event, _)| event.clone()).collect();
        let (told, _) = run(Config { seed: 99, ..Config::default() }, &disordered);
        prop_assert_eq!(told.text, expected.text);
    }
}

/// A flood of drops that match nothing, bare TCP segments among them, takes no more memory after a while.
#[test]
fn memory_does_not_grow_with_the_drops() {
    let mut engine = Engine::new(Config::default());
    let mut drop = PacketDrop {
        frame: 0,
        time: Timestamp::from_nanos(1_700_000_000_000_000_000),
        vantage: VantageId(0),
        fate: Fate::Dropped,
        cpu: 0,
        reason: "".into(),
        place: "".into(),
        transport: Transport::Udp,
        flow: dnspath::model::Flow {
            source: "10.0.0.5:4000".parse().unwrap(),
            destination: "10.96.0.10:53".parse().unwrap(),
        },
        connection: None,
        destination_mac: None,
        dns: None,
        question: None,
        rival: None,
    };
    let mut after_half = 0;
    for number in 0..60_000_u64 {
        drop.frame = number;
        drop.time = drop.time.plus_nanos(1_000);
        drop.transport = if number % 2 == 0 { Transport::Udp } else { Transport::Tcp };
        engine.observe_drop(&drop, &mut ());
        if number == 30_000 {
            after_half = engine.memory();
        }
    }
    assert!(engine.memory() <= after_half * 11 / 10, "{} after {after_half}", engine.memory());
    engine.finish(&mut ());
    assert_eq!(engine.counters().drops, 60_000);
}
