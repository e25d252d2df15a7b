//! What the engine costs: memory for each open question (always checked), time for each sighting (by hand, in a
//! release build: `cargo test --release --test engine_cost -- --ignored --nocapture`).

use dnspath::{
    engine::{Config, Engine},
    model::{
        AnswerSummary, Class, DnsMessage, Flags, Flow, Name, NatTuple, Observer, Question, Rcode, Rtype,
        Sighting, SightingBody, Timestamp, Transport, VantageId,
    },
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const START: u64 = 1_700_000_000_000_000_000;

fn server() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 53)
}

fn backend() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2)), 53)
}

fn client(number: u32, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0af4_0000 + number)), port)
}

#[derive(Clone, Copy)]
struct Query {
    time: u64,
    client: SocketAddr,
    id: u16,
    qtype: Rtype,
    rcode: Option<Rcode>,
}

/// A query (or, with a response code, its response) at a vantage: 0 is the client's side, others the backend's.
fn sighting(query: Query, name: Name, vantage: u16, frame: u64) -> Sighting {
    let far = if vantage == 0 { server() } else { backend() };
    let asked = Flow { source: query.client, destination: far };
    let original = Flow { source: query.client, destination: server() };
    let reply = Flow { source: backend(), destination: query.client };
    let response = query.rcode.is_some();
    let addresses = match query.rcode {
        Some(Rcode::NOERROR) => [IpAddr::V4(Ipv4Addr::LOCALHOST)].into_iter().collect(),
        _ => AnswerSummary::default().addresses,
    };
    let matching = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
    Sighting {
        frame,
        time: Timestamp::from_nanos(START + query.time),
        vantage: VantageId(vantage + 8 * u16::from(response)),
        transport: Transport::Udp,
        flow: if response { asked.reversed() } else { asked },
        destination_mac: None,
        source_mac: None,
        ttl: 64,
        ip_id: 0,
        dont_fragment: true,
        nat: (vantage != 0).then_some(NatTuple { original, reply }),
        body: SightingBody::Dns(DnsMessage {
            id: query.id,
            flags: Flags(if response { 0x8180 } else { 0x0100 }),
            rcode: query.rcode.unwrap_or_default(),
            name,
            qtype: query.qtype,
            qclass: Class::IN,
            has_question: true,
            counts: [1, matching, 0, 0],
            answer: AnswerSummary { addresses, matching, ..AnswerSummary::default() },
            size: 60,
            ..DnsMessage::default()
        }),
    }
}

#[test]
fn two_hundred_thousand_open_questions_fit_in_64_mib() {
    let mut engine = Engine::new(Config::default());
    for number in 0..100_000_u32 {
        let name: Name = format!("service-{number}.namespace.svc.cluster.local").parse().unwrap();
        let port = 1024 + u16::try_from(number % 60_000).unwrap();
        for (index, qtype) in [Rtype::A, Rtype::AAAA].into_iter().enumerate() {
            let time = u64::from(number) * 100_000 + index as u64 * 20_000;
            let id = u16::try_from(number % 65_536).unwrap().wrapping_add(index as u16 * 7);
            let query = Query { time, client: client(number % 500, port), id, qtype, rcode: None };
            engine.observe(&sighting(query, name, 0, 1), &mut ());
            let query = Query { time: time + 5_000, ..query };
            engine.observe(&sighting(query, name, 1, 2), &mut ());
        }
    }
    engine.advance(Timestamp::from_nanos(START + 100_000 * 100_000 + 200_000_000), &mut ());
    assert_eq!(engine.counters().open_questions, 200_000);
    let (memory, open) = (engine.memory(), 200_000);
    println!("{} octets for each open question, two hops each", memory / open);
    assert!(memory <= 64 << 20, "{memory} octets");
}

/// Counts, so that nothing is optimised away.
#[derive(Default)]
struct Count(u64);

impl Observer for Count {
    fn question(&mut self, question: &Question) {
        self.0 += question.transmissions.len() as u64;
    }
}

/// This thread's processor time: other work on the machine does not count.
fn cpu_nanos() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[test]
#[ignore = "a measurement: needs a release build and a quiet machine"]
fn time_for_each_sighting() {
    let suffixes = [".ns.svc.cluster.local", ".svc.cluster.local", ".cluster.local", ""];
    let names: Vec<Name> = (0..1000)
        .flat_map(|number| {
            suffixes.map(|suffix| format!("api-{number}.example.com{suffix}").parse().unwrap())
        })
        .collect();
    // 250,000 messages a second, each at two vantages. What is sent, in little: the sighting itself is built anew each time, as the decoder does.
    let mut all: Vec<(Query, usize, u16)> = vec![];
    for lookup in 0..40_000_u32 {
        for (step, suffix) in suffixes.iter().enumerate() {
            let name = (lookup % 1000) as usize * suffixes.len() + step;
            for (index, qtype) in [Rtype::A, Rtype::AAAA].into_iter().enumerate() {
                let time = u64::from(lookup) * 64_000 + step as u64 * 300_000 + index as u64 * 3_000;
                let port = 1024 + u16::try_from((lookup * 5 + step as u32) % 60_000).unwrap();
                let id = u16::try_from((lookup * 8_191 + step as u32 * 77 + index as u32 * 7_001) % 65_536)
                    .unwrap();
                let client = client(lookup * 7 % 251, port);
                let query = Query { time, client, id, qtype, rcode: None };
                let rcode = if suffix.is_empty() { Rcode::NOERROR } else { Rcode::NXDOMAIN };
                let answer = Query { time: time + 200_000, rcode: Some(rcode), ..query };
                all.push((query, name, 0));
                all.push((Query { time: time + 5_000, ..query }, name, 1));
                all.push((answer, name, 1));
                all.push((Query { time: answer.time + 5_000, ..answer }, name, 0));
            }
        }
    }
    all.sort_by_key(|(query, ..)| query.time);
    for round in 0..3 {
        let start = cpu_nanos();
        for &(query, name, vantage) in &all {
            std::hint::black_box(sighting(query, names[name], vantage, 1));
        }
        let building = cpu_nanos() - start;
        let (mut engine, mut count) = (Engine::new(Config::default()), Count::default());
        let start = cpu_nanos();
        for &(query, name, vantage) in &all {
            engine.observe(std::hint::black_box(&sighting(query, names[name], vantage, 1)), &mut count);
        }
        engine.finish(&mut count);
        let nanos = (cpu_nanos() - start - building) / all.len() as i64;
        println!("round {round}: {nanos} ns for each of {} sightings, {} messages", all.len(), count.0);
        assert_eq!(engine.counters().lookups, 40_000);
    }
}
