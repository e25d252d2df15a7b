use super::*;
use crate::model::{AnswerSummary, DnsMessage, Flags, Flow, IcmpError, Transport, VantageId};

const POD: &str = "10.244.1.5:40000";
const NODE: &str = "192.168.0.7:51000";
const SERVER: &str = "203.0.113.10:443";
/// The client's veth, and the uplink.
const VETH: VantageId = VantageId(0);
const UPLINK: VantageId = VantageId(1);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_795_176_000_000_000_000 + millis * 1_000_000)
}

#[derive(Default)]
struct Told(Vec<Connect>);

impl Observer for Told {
    fn connect(&mut self, connect: &Connect) {
        self.0.push(connect.clone());
    }
}

/// A session whose pod was answered [`SERVER`] at 0.
struct Scene {
    connects: Connects,
    told: Told,
    frame: u64,
}

impl Scene {
    fn new() -> Self {
        let mut connects = Connects::new(7);
        for client in [POD, NODE] {
            connects.see(&answer(client, "203.0.113.10", 0));
        }
        Self { connects, told: Told::default(), frame: 100 }
    }

    fn packet(&mut self, millis: u64, vantage: VantageId, client: &str, number: u32, step: ConnectStep) {
        self.frame += 1;
        let flow = Flow { source: client.parse().unwrap(), destination: SERVER.parse().unwrap() };
        let (frame, time) = (self.frame, at(millis));
        let packet = ConnectPacket { frame, time, vantage, flow, initial_sequence: number, step };
        self.connects.packet(&packet, &mut self.told);
    }

    fn asks(&mut self, millis: u64) {
        self.packet(millis, VETH, POD, 77, ConnectStep::Asked);
    }

    fn told(mut self) -> Vec<(ConnectOutcome, u32, u64)> {
        self.connects.finish(&mut self.told);
        let of = |it: &Connect| (it.outcome, it.asked, it.ended.since(at(0)).as_millis() as u64);
        self.told.0.iter().map(of).collect()
    }
}

fn answer(client: &str, address: &str, millis: u64) -> Sighting {
    let mut summary = AnswerSummary::default();
    summary.addresses.push(address.parse().unwrap());
    Sighting {
        frame: 2,
        time: at(millis),
        vantage: VETH,
        transport: Transport::Udp,
        flow: Flow { source: "10.96.0.10:53".parse().unwrap(), destination: client.parse().unwrap() },
        destination_mac: None,
        source_mac: None,
        ttl: 64,
        ip_id: 0,
        dont_fragment: true,
        nat: None,
        body: SightingBody::Dns(DnsMessage {
            flags: Flags(0x8180),
            has_question: true,
            name: "api.example.com".parse().unwrap(),
            answer: summary,
            ..DnsMessage::default()
        }),
    }
}

fn unreachable(kind: u8) -> ConnectStep {
    let flow = Flow { source: POD.parse().unwrap(), destination: SERVER.parse().unwrap() };
    ConnectStep::Unreachable(IcmpError {
        from: "10.244.1.1".parse().unwrap(),
        to: flow.source.ip(),
        kind,
        code: 1,
        v6: false,
        quoted: flow,
        quoted_transport: Transport::Tcp,
        quoted_id: None,
    })
}

#[test]
fn each_way_to_end() {
    use ConnectOutcome::{Accepted, Refused, Silent, Unreachable};
    let ends =
        [(ConnectStep::Accepted, Accepted), (ConnectStep::Refused, Refused), (unreachable(3), Unreachable)];
    for (step, outcome) in ends {
        let mut scene = Scene::new();
        scene.asks(5);
        scene.packet(6, VETH, POD, 77, step);
        assert_eq!(scene.told(), [(outcome, 1, 6)]);
    }
    let mut scene = Scene::new();
    [5, 1_005, 3_005].into_iter().for_each(|millis| scene.asks(millis));
    scene.connects.advance(at(10_004), &mut scene.told);
    assert_eq!(scene.told.0, [], "it may be answered yet");
    scene.connects.advance(at(10_005), &mut scene.told);
    assert_eq!(scene.told(), [(Silent, 3, 3_005)]);
}

#[test]
fn an_attempt_is_told_with_its_name_client_and_frames() {
    let mut scene = Scene::new();
    scene.asks(5);
    scene.packet(6, UPLINK, NODE, 77, ConnectStep::Asked);
    scene.packet(7, UPLINK, NODE, 77, unreachable(3));
    let [told] = &scene.told.0[..] else { panic!("{:?}", scene.told.0) };
    assert_eq!((told.client.to_string(), told.server.to_string()), (POD.into(), SERVER.into()));
    assert_eq!((told.name.to_string(), told.asked, told.answered), ("api.example.com".into(), 1, at(0)));
    assert_eq!(told.frames[..], [(101, VETH), (103, UPLINK)]);
    assert!(told.error.is_some());
}

#[test]
fn what_ends_an_attempt_is_told_once_and_the_next_one_is_another() {
    let mut scene = Scene::new();
    scene.asks(5);
    for vantage in [UPLINK, VETH] {
        scene.packet(6, vantage, POD, 77, ConnectStep::Accepted);
    }
    // A connection that was accepted is reset at its end.
    scene.packet(50, VETH, POD, 77, ConnectStep::Refused);
    scene.packet(60, VETH, POD, 78, ConnectStep::Asked);
    scene.packet(61, VETH, POD, 78, ConnectStep::Refused);
    assert_eq!(scene.told(), [(ConnectOutcome::Accepted, 1, 6), (ConnectOutcome::Refused, 1, 61)]);
}

#[test]
fn what_has_nothing_to_do_with_an_answer_is_not_told() {
    let mut scene = Scene::new();
    scene.packet(5, VETH, "10.244.1.6:40000", 77, ConnectStep::Asked);
    scene.packet(6, VETH, "10.244.1.6:40000", 77, ConnectStep::Refused);
    scene.packet(5, VETH, POD, 78, ConnectStep::Refused);
    scene.packet(10_001, VETH, POD, 79, ConnectStep::Asked);
    scene.packet(10_002, VETH, POD, 79, ConnectStep::Refused);
    assert_eq!(scene.told(), [], "another client, no SYN, too late");
}

#[test]
fn who_gives_up_at_once_or_is_told_to_slow_down_tells_nothing() {
    let mut scene = Scene::new();
    scene.asks(5);
    scene.packet(6, VETH, POD, 77, unreachable(4));
    assert_eq!(scene.told(), []);
    let mut scene = Scene::new();
    scene.asks(5);
    scene.packet(6, UPLINK, POD, 77, ConnectStep::Asked);
    assert_eq!(scene.told(), [], "the same SYN elsewhere");
}

#[test]
fn an_answer_renews_the_time_and_memory_is_bounded() {
    let mut scene = Scene::new();
    scene.connects.see(&answer(POD, "203.0.113.10", 9_000));
    scene.packet(12_000, VETH, POD, 1, ConnectStep::Asked);
    scene.packet(12_001, VETH, POD, 1, ConnectStep::Refused);
    for number in 0..200_000 {
        scene.packet(12_002, VETH, POD, 10 + number, ConnectStep::Asked);
        if number % 2 == 0 {
            scene.packet(12_002, VETH, POD, 10 + number, ConnectStep::Accepted);
        }
    }
    let outcomes: Vec<_> = scene.told.0.iter().map(|told| told.outcome).collect();
    assert_eq!(outcomes[0], ConnectOutcome::Refused);
    let memory = scene.connects.memory();
    assert!(memory < 16 << 20, "{memory}");
}
