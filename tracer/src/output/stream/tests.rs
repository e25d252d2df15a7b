use super::*;
use crate::{
    findings::{
        Confidence, Cost, Evidence, Explained, Severity, Symptom,
        testing::{self, ask, at, direct, drop_of, lookup, messages, searched},
    },
    model::{
        Direction, Family, Fate, LookupResult, MacAddress, MessageKind, QuestionId, Rcode,
        RetransmissionKind, Rival, Rtype, Transport, Vantage, VantageId,
    },
};

fn printed(format: Format, unit: Unit, tell: impl FnOnce(&mut Stream<&mut Vec<u8>>)) -> String {
    let vantages = Vantages::new();
    vantages.intern(Vantage {
        interface: "veth1".into(),
        direction: Direction::Ingress,
        ..Vantage::default()
    });
    let mut to = Vec::new();
    let mut stream = Stream::new(&mut to, format, &[unit], vantages);
    tell(&mut stream);
    stream.flush().unwrap();
    String::from_utf8(to).unwrap()
}

fn both(unit: Unit, tell: impl Fn(&mut Stream<&mut Vec<u8>>)) -> String {
    let json = printed(Format::Json, unit, &tell);
    for line in json.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    format!("{json}\n{}", printed(Format::Text, unit, &tell))
}

fn lost_once() -> Question {
    ask("web.default.svc.cluster.local", Rtype::AAAA, 10)
        .again(5_000, RetransmissionKind::Timeout)
        .empty()
        .build()
}

fn telling_everything(stream: &mut impl Observer) {
    let lookup = direct("web", 3);
    stream.lookup(&lookup);
    for question in &lookup.steps[0].questions {
        stream.question(question);
        for message in messages(question) {
            stream.message(&message);
        }
    }
}

/// What a file says of its session is unescaped when it is read.
#[test]
fn foreign_words_are_escaped_in_lines_of_text() {
    let finding = Finding { summary: "a\u{9b}2Jb\nc\u{202e}".into(), ..testing::finding("DP902") };
    let text = printed(Format::Text, Unit::Finding, |stream| stream.finding(&finding));
    assert!(text.contains(r"a\u{9b}2Jb\u{a}c\u{202e}"), "{text}");
}

#[test]
fn lookups() {
    let lines = both(Unit::Lookup, |stream| {
        stream.lookup(&searched("api.example.com", Family::Musl, 412));
        stream.lookup(&direct("web", 900));
        let a = ask("web.default.svc.cluster.local", Rtype::A, 10).address("10.96.4.7").build();
        stream.lookup(&lookup("web", Family::Glibc, LookupResult::Ok, vec![a, lost_once()]));
        let lost = ask("web", Rtype::A, 20).from("fd00::5").to("fd00:10:96::a").build();
        stream.lookup(&lookup("web", Family::Unknown, LookupResult::Timeout, vec![lost]));
        let mut stopped = lookup(
            "api.example.com",
            Family::Musl,
            LookupResult::Nodata,
            vec![ask("api.example.com.cluster.local", Rtype::A, 30).empty().build()],
        );
        stopped.suspicious_names.push(stopped.steps[0].name);
        stream.lookup(&stopped);
    });
    insta::assert_snapshot!(lines);
}

#[test]
fn questions() {
    let lines = both(Unit::Question, |stream| {
        stream.question(&ask("api.example.com.cluster.local", Rtype::A, 1).nxdomain().build());
        stream.question(&lost_once());
        stream.question(&ask("web", Rtype::HTTPS, 2).from("fd00::5").to("fd00:10:96::a").build());
        stream.question(&ask("web", Rtype(65_280), 2).unreachable().build());
    });
    insta::assert_snapshot!(lines);
}

#[test]
fn messages_with_their_hops() {
    let lines = both(Unit::Message, |stream| {
        let found = ask("web", Rtype::A, 3).address("10.96.4.7").build();
        let late = ask("web", Rtype::A, 5).answered(Rcode::SERVFAIL, &[], 6_000).late().build();
        let tcp = ask("big", Rtype::TXT, 7).truncated().over_tcp(2).answered(Rcode::NOERROR, &[], 1).build();
        for question in [found, late, tcp, lost_once()] {
            for message in messages(&question) {
                stream.message(&message);
            }
        }
        let mut stray =
            messages(&ask("web", Rtype::A, 9).from("fd00::5").to("::1").address("fd00::1").build());
        let mut stray = stray.pop().unwrap();
        (stray.kind, stray.question) = (MessageKind::Unmatched, None);
        let mut further = stray.hops[0];
        (further.time, further.frame) = (at(11), 99);
        stray.hops.push(further);
        stream.message(&stray);
    });
    insta::assert_snapshot!(lines);
}

#[test]
fn findings() {
    let finding = Finding {
        name: "lookup-failed",
        severity: Severity::Error,
        confidence: Confidence::High,
        subject: vec![("client", "10.244.1.5".into()), ("result", "timeout".into())],
        count: 3,
        cost: Cost { waited: std::time::Duration::from_secs(15), failed: 3 },
        first: at(0),
        last: at(4_000),
        summary: "3 lookups of 10.244.1.5 got no answer".into(),
        advice: "Look at the server.".into(),
        evidence: [1, 7].map(|frame| Evidence { frame, vantage: VantageId(0) }).to_vec(),
        symptoms: vec![Symptom { code: "DP102", name: "retry-gap", count: 2, cost: Cost::default() }],
        explained_by: Some(Explained { code: "DP301", place: 0 }),
        ..testing::finding("DP104")
    };
    insta::assert_snapshot!(both(Unit::Finding, |stream| stream.finding(&finding)));
}

#[test]
fn drops() {
    let lines = both(Unit::Drop, |stream| {
        let mut raced = drop_of(Fate::InsertFailed, at(3));
        (raced.reason, raced.place) = ("NETFILTER_DROP".into(), "__nf_conntrack_confirm".into());
        raced.dns.as_mut().unwrap().has_question = true;
        raced.question = Some(QuestionId(7));
        raced.rival = Some(Rival { qtype: Rtype::AAAA, id: 0x4f9b });
        stream.packet_drop(&raced);
        let mut resolved = raced.clone();
        (resolved.fate, resolved.reason) = (Fate::ClashResolved, "".into());
        stream.packet_drop(&resolved);
        let mut answer = drop_of(Fate::Dropped, at(4));
        (answer.reason, answer.place) = ("OTHERHOST".into(), "ip_rcv".into());
        answer.flow = answer.connection.take().unwrap().original.reversed();
        answer.destination_mac = Some(MacAddress([2, 0, 0, 0, 0, 9]));
        answer.dns = None;
        stream.packet_drop(&answer);
        let mut syn = drop_of(Fate::TableFull, at(5));
        (syn.dns, syn.transport) = (None, Transport::Tcp);
        stream.packet_drop(&syn);
    });
    insta::assert_snapshot!(lines);
}

#[test]
fn only_the_units_asked_for_make_a_line() {
    for (unit, count) in [(Unit::Lookup, 1), (Unit::Question, 2), (Unit::Message, 4), (Unit::Finding, 0)] {
        let lines = printed(Format::Text, unit, |stream| telling_everything(stream));
        assert_eq!(lines.lines().count(), count, "{unit:?}:\n{lines}");
    }
}

#[test]
fn a_name_cannot_break_its_line_or_reach_the_terminal() {
    let evil = ask("a\\027[31m\\010x\\034y", Rtype::A, 1).nxdomain().build();
    for (format, unit) in [(Format::Json, Unit::Question), (Format::Text, Unit::Message)] {
        let lines = printed(format, unit, |stream| {
            stream.question(&evil);
            stream.message(&messages(&evil)[0]);
        });
        assert_eq!(lines.lines().count(), 1);
        assert!(lines.trim_end().bytes().all(|b| (0x20..0x7f).contains(&b)), "{lines:?}");
    }
}

#[test]
fn a_failed_write_is_told_once_and_ends_the_printing() {
    struct Closed(usize);
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut stream = Stream::new(Closed(0), Format::Text, &[Unit::Lookup], Vantages::new());
    stream.lookup(&direct("web", 1));
    assert_eq!(stream.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(stream.is_broken());
    stream.lookup(&direct("web", 2));
    stream.flush().unwrap();
    assert_eq!(stream.to.0, 1);
}

#[test]
fn pods_stand_for_their_addresses() {
    let lookup = direct("web", 1);
    let pods = Pods::new();
    pods.tell(
        lookup.client,
        PodName { namespace: "shop".into(), name: "web-7c9f6d5b8-x2k4p".into() },
        Timestamp::EPOCH,
    );
    let pod = pods.name(lookup.client).unwrap();
    pods.tell_container(&pod, Some("app"), Timestamp::EPOCH);
    let print = |format: Format| {
        let mut to = Vec::new();
        let mut stream = Stream::new(&mut to, format, &[Unit::Lookup, Unit::Question], Vantages::new())
            .with_pods(pods.clone());
        stream.question(&lookup.steps[0].questions[0]);
        stream.lookup(&lookup);
        stream.flush().unwrap();
        drop(stream);
        String::from_utf8(to).unwrap()
    };
    for line in print(Format::Json).lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["client"], "10.244.1.5");
        assert_eq!(line["pod"], "shop/web-7c9f6d5b8-x2k4p");
        assert_eq!(line["k8s.namespace.name"], "shop");
        assert_eq!(line["k8s.pod.name"], "web-7c9f6d5b8-x2k4p");
        assert_eq!(line["k8s.container.name"], "app");
    }
    let text = print(Format::Text);
    assert_eq!(text.matches("  shop/web-7c9f6d5b8-x2k4p  ").count(), 2, "{text}");
    assert!(!text.contains("10.244.1.5"), "{text}");
}
