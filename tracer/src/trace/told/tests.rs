use super::*;
use proptest::prelude::*;

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn read_back(resolver: &Resolver, time: Timestamp) -> Resolver {
    let comment = of_resolver(resolver, time);
    assert!(comment.len() <= usize::from(u16::MAX), "{} octets", comment.len());
    assert!(!comment.contains(char::is_control), "{comment:?}");
    match read(comment.as_bytes()) {
        Some(Said::News(news)) => match &news[..] {
            [News::Resolver(resolver, read_at)] if *read_at == time => Resolver::clone(resolver),
            other => panic!("{other:?}"),
        },
        other => panic!("{comment}: {other:?}"),
    }
}

#[test]
fn a_person_can_read_it() {
    let resolver = Resolver {
        pod: PodName { namespace: "shop".into(), name: "web-1".into() },
        container: "app".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        resolv_conf: "nameserver 10.96.0.10\nsearch a.example\n".into(),
        environment: "options ndots:2\n".into(),
        libc: Libc::Musl,
        agrees: true,
        has_server: true,
    };
    assert_eq!(
        of_resolver(&resolver, at(1_795_176_000_412_000_000)),
        "dnspath: resolver; namespace shop; pod web-1; container app; read at 1795176000.412000000; \
         addresses 10.0.0.1 fd00::1; libc musl; agrees; has a server; \
         resolv.conf nameserver 10.96.0.10\\nsearch a.example\\n; environment options ndots:2\\n"
    );
    assert_eq!(read_back(&resolver, at(7)), resolver);
    assert_eq!(read_back(&Resolver::default(), at(u64::MAX)), Resolver::default());
}

#[test]
fn times_and_ends_are_read_back() {
    assert_eq!(read(super::at(at(5)).as_bytes()), Some(Said::At(at(5))));
    let all = [("10.0.0.1".parse().unwrap(), at(1_000_000_001)), ("fd00::1".parse().unwrap(), at(0))];
    let news = all.map(|(address, time)| News::Gone(address, time)).to_vec();
    assert_eq!(read(gone(all.into_iter()).as_bytes()), Some(Said::News(news)));
    assert_eq!(read(since(all.into_iter()).as_bytes()), Some(Said::Since(all.to_vec())));
}

#[test]
fn what_others_wrote_says_nothing() {
    for comment in [
        &b""[..],
        b"told at 1.000000000",
        b"dnspath: told at 1.5",
        b"dnspath: told at 99999999999.000000000",
        b"dnspath: gone; 10.0.0.1",
        b"dnspath: gone; x at 1.000000000",
        b"dnspath: since; 10.0.0.1",
        b"dnspath: resolver; pod web",
        b"dnspath: resolver; read at 1.000000000; pod \\u{d800}",
        b"dnspath: resolver; read at 1.000000000; pod \\x41",
        b"dnspath: resolver; read at 1.000000000; pod \\",
        b"dnspath: resolver; read at 1.000000000; addresses x",
        b"dnspath: gso 512",
        b"dnspath: told at \xff",
    ] {
        assert_eq!(read(comment), None, "{}", String::from_utf8_lossy(comment));
    }
}

#[test]
fn the_longest_texts_are_cut_and_still_read() {
    for filler in ["x", "\u{1b}", ";", "\\", "ü", "; pod x", "\n"] {
        let long = filler.repeat((64 << 10) / filler.len());
        let resolver = Resolver {
            pod: PodName { namespace: long.clone(), name: long.clone() },
            container: long.clone(),
            addresses: vec![IpAddr::from([0xff_u8; 16]); 10_000],
            resolv_conf: long.clone(),
            environment: long.clone(),
            ..Resolver::default()
        };
        let read = read_back(&resolver, at(1));
        assert!(long.starts_with(&read.resolv_conf) && read.resolv_conf.len() > 3_000, "{filler:?}");
        assert_eq!(read.addresses.len(), MOST_ADDRESSES);
        assert_eq!(read_back(&read, at(1)), read, "what was cut once stays as it is");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_back(
        resolv_conf in "(\\PC|[\\x00-\\x20;\\\\]){0,300}",
        environment in "(\\PC|[\\x00-\\x20;\\\\]){0,100}",
        name in "(\\PC|[\\x00-\\x20;\\\\]){0,40}",
        agrees: bool,
        has_server: bool,
        nanos: u64,
    ) {
        let pod = PodName { namespace: String::new(), name };
        let resolver =
            Resolver { pod, resolv_conf, environment, agrees, has_server, ..Resolver::default() };
        prop_assert_eq!(read_back(&resolver, at(nanos)), resolver);
    }

    #[test]
    fn any_comment_is_read_or_not(comment in proptest::collection::vec(any::<u8>(), 0..200), key in 0..3_usize) {
        let start = ["dnspath: told at ", "dnspath: gone; ", "dnspath: resolver; "][key];
        let _ = read(&[start.as_bytes(), &comment].concat());
    }
}

#[test]
fn containers_are_read_back() {
    let pod = PodName { namespace: "shop".into(), name: "web-1; name x".into() };
    for name in [Some("app"), None] {
        let comment = of_container(&pod, name, at(1_795_176_000_412_000_000));
        let Some(Said::News(news)) = read(comment.as_bytes()) else { panic!("{comment}") };
        let since = at(1_795_176_000_412_000_000);
        assert_eq!(news, [News::Container(Arc::new(pod.clone()), name.map(Into::into), since)], "{comment}");
    }
    for broken in ["", "; pod x", "; since x", "; since 1.000000000; name \\x"] {
        assert_eq!(read(format!("dnspath: container{broken}").as_bytes()), None, "{broken:?}");
    }
}

#[test]
fn counted_rules_are_read_back() {
    let worst = Some(("-t nat -A POSTROUTING -m comment --comment \"a; b\\n\" -j MASQUERADE".to_owned(), 7));
    for counted in [
        RuleCount { netns: "node-7".into(), rules: 12, duplicates: 6, worst },
        RuleCount { netns: "\u{1b}; rule x".into(), rules: text::MOST_COUNTED, ..RuleCount::default() },
        RuleCount::default(),
    ] {
        let comment = of_rules(&counted, at(1_795_176_000_412_000_000));
        assert!(!comment.contains(char::is_control), "{comment}");
        let Some(Said::News(news)) = read(comment.as_bytes()) else { panic!("{comment}") };
        assert_eq!(news, [News::Rules(Arc::new(counted), at(1_795_176_000_412_000_000))], "{comment}");
    }
    for broken in ["", "; count 7", "; counted at 1.000000000; count x", "; counted at 1.000000000; count -1"]
    {
        assert_eq!(read(format!("dnspath: rules{broken}").as_bytes()), None, "{broken}");
    }
    let long = RuleCount { worst: Some(("x".repeat(100_000), 2)), ..RuleCount::default() };
    assert!(of_rules(&long, at(0)).len() < 2_000);
}

#[test]
fn a_blind_spot_is_read_back() {
    let time = Timestamp::from_nanos(1_795_176_000_412_000_000);
    for spot in [
        BlindSpot::encrypted_dns(),
        BlindSpot::new("a", "b; what c\n", "\u{1b}[31m", ""),
        BlindSpot::default(),
    ] {
        let comment = of_blind_spot(&spot, time);
        assert!(!comment.contains(char::is_control), "{comment}");
        let Some(Said::News(news)) = read(comment.as_bytes()) else { panic!("{comment}") };
        assert_eq!(news, [News::Blind(Arc::new(spot), time)], "{comment}");
    }
    assert_eq!(read(b"dnspath: blind spot; what ipvs"), None, "when is missing");
    let long = BlindSpot::new("a", "x".repeat(100_000), "", "");
    assert!(of_blind_spot(&long, time).len() < 5_000);
}

#[test]
fn a_service_is_read_back() {
    let time = Timestamp::from_nanos(1_795_176_000_412_000_000);
    let backends = |count: u16| {
        let of = |number: u16| format!("[fd00:244:1111:2222:3333:4444:5555:{number:x}]:53").parse().unwrap();
        (1..=count).map(of).collect::<BTreeSet<_>>()
    };
    let address = "10.96.0.10:53".parse().unwrap();
    for (name, count) in [("kube-system/kube-dns:dns", 2), ("", 0), ("a; b\u{1b}\\/\n", 0), ("many", 256)] {
        let service = Service { address, name: name.into(), backends: backends(count) };
        let comment = of_service(&service, time);
        assert!(comment.len() <= usize::from(u16::MAX), "{} octets", comment.len());
        assert!(!comment.contains(char::is_control), "{comment}");
        let Some(Said::News(news)) = read(comment.as_bytes()) else { panic!("{comment}") };
        assert_eq!(news, [News::Service(Arc::new(service), time)], "{comment}");
    }
    for broken in [
        "",
        "; address x",
        "; address 10.96.0.10:53",
        "; found at 1.000000000; address 10.96.0.10:53; backends x",
    ] {
        assert_eq!(read(format!("dnspath: service{broken}").as_bytes()), None, "{broken}");
    }
    let long = Service { address, name: "x".repeat(100_000), backends: backends(5_000) };
    assert!(of_service(&long, time).len() < 20_000);
}
