//! Each screen at three sizes.

use super::build::{Node, Screen, at, ip, lookup, pair, socket, tell, tell_question};
use crate::{
    findings::testing::drop_of,
    model::{
        Conntrack, DnsMessage, Fate, Flow, IcmpError, Lookup, LookupResult, Observer as _, PacketDrop,
        PodName, QuestionOutcome, Rcode, Resolver, Rival, Rtype, Service, Transport, Unreachable,
    },
    tui::{Motion, Playback, Recording},
};
use ratatui::crossterm::event::KeyCode;
use std::time::Duration;

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 10)];

/// The same screen at every size.
fn at_all_sizes(what: &str, scene: impl Fn(&mut Screen)) {
    for (width, height) in SIZES {
        let mut node = Node::new();
        let lookups = a_bad_day(&mut node);
        let mut screen = Screen::new(&node, width, height);
        for lookup in &lookups {
            tell(&mut screen.feed.lock(), lookup);
        }
        for question in noise(&mut node) {
            tell_question(&mut screen.feed.lock(), &question);
        }
        screen.feed.lock().status_mut().coverage.dns_messages = 40;
        screen.draw();
        scene(&mut screen);
        let text = screen.draw();
        insta::assert_snapshot!(format!("{what}_{width}x{height}"), text);
    }
}

fn a_bad_day(node: &mut Node) -> Vec<Lookup> {
    let mut all = vec![pair(node, "registry.corp.example", 1.0, 0.001_9)];

    // ndots:5: three search names that do not exist before the one that does.
    let mut steps = Vec::new();
    for (index, suffix) in
        [".shop.svc.cluster.local", ".svc.cluster.local", ".cluster.local", ""].iter().enumerate()
    {
        let (host, start) = (format!("api.example.com{suffix}"), 3.412 + 0.000_6 * index as f64);
        let (rcode, addresses): (_, &[&str]) = if suffix.is_empty() {
            (Rcode::NOERROR, &["203.0.113.9", "203.0.113.10"])
        } else {
            (Rcode::NXDOMAIN, &[])
        };
        let a = node.answered(&host, Rtype::A, start, 0.000_4, rcode, addresses);
        let aaaa = node.answered(&host, Rtype::AAAA, start + 0.000_003, 0.000_45, rcode, &[]);
        steps.push(vec![a, aaaa]);
    }
    all.push(lookup("api.example.com", LookupResult::Ok, steps));

    all.push(payments(node));

    let mut nodata = lookup(
        "registry.corp",
        LookupResult::Nodata,
        vec![vec![node.answered(
            "registry.corp.ml.svc.cluster.local",
            Rtype::A,
            4.02,
            0.000_8,
            Rcode::NOERROR,
            &[],
        )]],
    );
    nodata.suspicious_names.push(nodata.steps[0].name);
    all.push(nodata);

    let mut dead = node.question("db.example.net", Rtype::A);
    for second in [4.0, 9.0] {
        node.send(&mut dead, second, 3);
    }
    let mut timeout = lookup("db.example.net", LookupResult::Timeout, vec![vec![dead]]);
    timeout.client = ip("10.244.1.99");
    all.push(timeout);

    let mut rejected = node.question("cache.shop.svc.cluster.local", Rtype::A);
    node.send(&mut rejected, 9.2, 1);
    let sent = &mut rejected.transmissions[0];
    sent.unreachable = Some(Unreachable {
        time: at(9.200_2),
        error: IcmpError {
            from: ip("10.96.0.10"),
            to: sent.client.ip(),
            kind: 3,
            code: 3,
            v6: false,
            quoted: Flow { source: sent.client, destination: sent.server },
            quoted_transport: Transport::Udp,
            quoted_id: Some(sent.id),
        },
    });
    rejected.outcome = QuestionOutcome::Unreachable;
    all.push(lookup("cache", LookupResult::Unreachable, vec![vec![rejected]]));
    all
}

/// The AAAA is lost on the way; 5 s later glibc asks both again, on the same port.
fn payments(node: &mut Node) -> Lookup {
    let host = "payments.shop.svc.cluster.local";
    let mut a = node.answered(host, Rtype::A, 3.518, 0.000_214, Rcode::NOERROR, &["10.96.4.7"]);
    let mut aaaa = node.question(host, Rtype::AAAA);
    node.send(&mut aaaa, 3.518_003, 1);
    node.send(&mut a, 8.523, 3);
    node.answer(&mut a, 8.523_3, Rcode::NOERROR, &["10.96.4.7"]);
    node.send(&mut aaaa, 8.523_31, 3);
    node.answer(&mut aaaa, 8.523_6, Rcode::NOERROR, &[]);
    lookup("payments", LookupResult::Ok, vec![vec![a, aaaa]])
}

/// The same, with what the kernel told of it.
fn raced(node: &mut Node) -> (Lookup, PacketDrop) {
    let mut raced = payments(node);
    raced.name = "checkout".parse().unwrap();
    let aaaa = &mut raced.steps[0].questions[1];
    let mut drop = drop_of(Fate::InsertFailed, at(3.518_021));
    (drop.reason, drop.place) = ("NETFILTER_DROP".into(), "__nf_conntrack_confirm".into());
    drop.dns = Some(DnsMessage {
        id: aaaa.transmissions[0].id,
        name: aaaa.name,
        qtype: aaaa.qtype,
        has_question: true,
        ..DnsMessage::default()
    });
    (drop.question, drop.rival) = (Some(aaaa.id), Some(Rival { qtype: Rtype::A, id: 0x4f1a }));
    aaaa.transmissions[0].dropped = Some(drop.clone().into());
    (raced, drop)
}

fn with_drops(screen: &mut Screen) {
    let mut node = Node::new();
    let (lookup, drop) = raced(&mut node);
    let mut feed = screen.feed.lock();
    feed.packet_drop(&drop);
    tell(&mut feed, &lookup);
    let mut answer = drop_of(Fate::Dropped, at(4.2));
    (answer.reason, answer.place, answer.cpu) = ("NEIGH_FAILED".into(), "arp_error_report".into(), 0);
    answer.flow = answer.connection.unwrap().reply;
    answer.dns = None;
    feed.packet_drop(&answer);
    let mut resolved = drop_of(Fate::ClashResolved, at(5.0));
    resolved.dns.as_mut().unwrap().has_question = true;
    feed.packet_drop(&resolved);
    feed.status_mut().coverage.conntrack = Some(Conntrack {
        insert_failed: 1,
        clash_resolve: 1,
        drop: 1,
        found: 12,
        entries: 1_024,
        max: 262_144,
        ..Conntrack::default()
    });
}

#[test]
fn kernel() {
    at_all_sizes("kernel", |screen| {
        with_drops(screen);
        screen.keys("5");
    });
}

#[test]
fn kernel_without_drops() {
    at_all_sizes("kernel_without_drops", |screen| {
        screen.keys("5");
    });
}

#[test]
fn ladder_with_a_drop() {
    at_all_sizes("ladder_with_a_drop", |screen| {
        with_drops(screen);
        screen.keys("/checkout");
        screen.press(KeyCode::Enter);
        screen.press(KeyCode::Enter);
        screen.keys("j");
    });
}

fn noise(node: &mut Node) -> Vec<crate::model::Question> {
    let reverse = "7.4.96.10.in-addr.arpa";
    let mut later = node.question("1234.5678.cluster.local", Rtype::HINFO);
    node.send(&mut later, 9.9, 3);
    later.transmissions[0].server = socket("127.0.0.53:53");
    vec![node.answered(reverse, Rtype::PTR, 6.0, 0.000_5, Rcode::NXDOMAIN, &[]), later]
}

#[test]
fn empty() {
    for (width, height) in SIZES {
        let mut screen = Screen::new(&Node::new(), width, height);
        insta::assert_snapshot!(format!("empty_{width}x{height}"), screen.draw());
    }
}

#[test]
fn list() {
    at_all_sizes("list", |_| {});
}

#[test]
fn list_with_questions() {
    at_all_sizes("list_with_questions", |screen| {
        screen.press(KeyCode::Char('a'));
    });
}

#[test]
fn filter_typed() {
    at_all_sizes("filter_typed", |screen| {
        screen.keys("/pod~web took>1s");
    });
}

#[test]
fn filter_kept() {
    at_all_sizes("filter_kept", |screen| {
        screen.keys("/pod~web took>1s");
        screen.press(KeyCode::Enter);
    });
}

#[test]
fn filter_not_understood() {
    at_all_sizes("filter_not_understood", |screen| {
        screen.keys("/result=late");
    });
}

#[test]
fn ladder_with_an_unanswered_aaaa() {
    at_all_sizes("ladder", |screen| {
        screen.keys("/payments");
        screen.press(KeyCode::Enter);
        screen.press(KeyCode::Enter);
        screen.keys("j");
    });
}

#[test]
fn ladder_of_a_search() {
    at_all_sizes("ladder_of_a_search", |screen| {
        screen.keys("/api.ex");
        screen.press(KeyCode::Enter);
        screen.press(KeyCode::Enter);
    });
}

#[test]
fn ladder_with_icmp() {
    at_all_sizes("ladder_with_icmp", |screen| {
        screen.press(KeyCode::Enter);
        screen.keys("j");
    });
}

#[test]
fn servers() {
    at_all_sizes("servers", |screen| {
        let service = Service {
            address: "10.96.0.10:53".parse().unwrap(),
            name: "kube-system/kube-dns:dns".into(),
            backends: [].into(),
        };
        screen.names.services().tell(&service, at(0.0));
        let coredns = PodName { namespace: "kube-system".into(), name: "coredns-5d78c9869d-x2x7q".into() };
        screen.names.tell("10.244.0.5".parse().unwrap(), coredns, at(0.0));
        screen.keys("3");
    });
}

#[test]
fn findings() {
    at_all_sizes("findings", |screen| {
        with_drops(screen);
        screen.now = at(60.0);
        screen.keys("2");
    });
}

#[test]
fn a_finding() {
    at_all_sizes("finding", |screen| {
        with_drops(screen);
        screen.now = at(60.0);
        screen.keys("2");
        screen.press(KeyCode::Enter);
    });
}

#[test]
fn pods() {
    at_all_sizes("pods", |screen| {
        let resolver = Resolver {
            addresses: vec![ip("10.244.1.23")],
            resolv_conf:
                "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n\
                          options ndots:5\n"
                    .into(),
            ..Resolver::default()
        };
        screen.feed.lock().resolver(&resolver, at(1.0));
        screen.now = at(12.6);
        screen.keys("4");
    });
}

#[test]
fn names() {
    at_all_sizes("names", |screen| {
        screen.now = at(12.6);
        screen.keys("6");
    });
}

#[test]
fn help() {
    at_all_sizes("help", |screen| {
        screen.keys("?");
    });
}

/// Makes the session a replay of a file that stands at 9.3 s.
fn replayed(screen: &mut Screen, motion: Motion) {
    let mut feed = screen.feed.lock();
    let status = feed.status_mut();
    status.title = "node-7.pcapng, node-8.pcapng".into();
    status.interfaces = "veth7c9f · cni0 · eth0".into();
    let speed = "10×".into();
    status.playback = Some(Playback { position: at(9.3), start: at(1.0), speed, motion });
}

#[test]
fn a_paused_replay_at_a_finding() {
    at_all_sizes("replay", |screen| {
        replayed(screen, Motion::Paused);
        let found = "DP102 retry-gap at 12:00:03.518: payments waited 5 s for an answer, 1 time";
        screen.feed.lock().status_mut().say(found);
    });
}

#[test]
fn a_time_is_typed_into_a_replay() {
    at_all_sizes("replay_time", |screen| {
        replayed(screen, Motion::Playing);
        screen.draw();
        screen.keys("t12:00:05");
    });
}

#[test]
fn help_of_a_replay() {
    at_all_sizes("replay_help", |screen| {
        replayed(screen, Motion::Playing);
        screen.draw();
        screen.keys("?");
    });
}

#[test]
fn frozen() {
    at_all_sizes("frozen", |screen| {
        screen.keys(" ");
    });
}

#[test]
fn loss_recording_and_warnings() {
    at_all_sizes("loss", |screen| {
        let mut feed = screen.feed.lock();
        let status = feed.status_mut();
        status.coverage.lost = 1_204;
        status.coverage.truncated = 12;
        status.recording = Some(Recording { elapsed: Duration::from_secs(133) });
        status.notes = vec![
            "Drop reasons cannot be read: CAP_PERFMON is missing.".into(),
            "eth0: DNS over TLS (port 853) is not decoded.".into(),
            "IPVS balances 10.96.0.10: what is behind it cannot be told apart.".into(),
        ];
    });
}
