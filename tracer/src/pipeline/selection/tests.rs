use super::*;
use crate::{
    findings::testing::{CLIENT, SERVER, ask, at, direct, messages, searched},
    model::Family,
};

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn selection(names: &[&str], rcodes: &[Rcode]) -> Selection {
    let names: Vec<NameGlob> = names.iter().map(|name| name.parse().unwrap()).collect();
    Selection::new(vec![], vec![], &names, vec![], rcodes.to_vec()).unwrap()
}

#[test]
fn addresses_and_prefixes() {
    let cases = [
        ("10.244.1.5", "10.244.1.5", true),
        ("10.244.1.5", "10.244.1.6", false),
        ("10.244.0.0/16", "10.244.255.1", true),
        ("10.244.0.0/16", "10.245.0.1", false),
        ("10.244.1.99/24", "10.244.1.1", true),
        ("0.0.0.0/0", "192.0.2.1", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("10.244.0.0/16", "::ffff:10.244.1.5", true),
        ("2001:db8::/32", "2001:db8:1::1", true),
        ("2001:db8::/32", "2001:db9::1", false),
        ("::/0", "fe80::1", true),
        ("::1", "::1", true),
    ];
    for (network, address, expected) in cases {
        let network: Network = network.parse().unwrap();
        assert_eq!(network.contains(address.parse().unwrap()), expected, "{network:?} {address}");
    }
    for text in
        ["", "10.244", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "example.com", "10.0.0.0/8/8"]
    {
        assert!(text.parse::<Network>().is_err(), "{text}");
    }
}

#[test]
fn name_patterns() {
    let cases = [
        ("api.example.com", "api.example.com", true),
        ("API.Example.com.", "api.example.com", true),
        ("*.example.com", "api.eu.example.com", true),
        ("*.example.com", "example.com", false),
        ("api?.example.com", "api1.example.com", true),
        ("{web,api}.*", "api.default", true),
        ("example.com", "notexample.com", false),
        (".", ".", true),
    ];
    for (pattern, name, expected) in cases {
        assert_eq!(
            selection(&[pattern], &[]).admits_name(&name.parse().unwrap()),
            expected,
            "{pattern} {name}"
        );
    }
    for pattern in ["", "[", "{a"] {
        assert!(pattern.parse::<NameGlob>().is_err(), "{pattern}");
    }
}

#[test]
fn values_of_one_option_are_alternatives_and_options_must_all_hold() {
    let lookup = searched("api.example.com", Family::Glibc, 1);
    let of = |clients: &[&str], servers: &[&str], qtypes: &[Rtype]| {
        Selection::new(networks(clients), networks(servers), &[], qtypes.to_vec(), vec![]).unwrap()
    };
    assert!(Selection::default().admits_lookup(&lookup));
    assert!(of(&["192.0.2.1", CLIENT], &[SERVER], &[Rtype::AAAA]).admits_lookup(&lookup));
    assert!(!of(&["192.0.2.1"], &[SERVER], &[]).admits_lookup(&lookup));
    assert!(!of(&[CLIENT], &["192.0.2.1"], &[]).admits_lookup(&lookup));
    assert!(!of(&[CLIENT], &[SERVER], &[Rtype::MX]).admits_lookup(&lookup));
}

#[test]
fn a_backend_is_a_server_too() {
    let mut question = ask("web", Rtype::A, 1).address("10.96.4.7").build();
    question.transmissions[0].backend = Some("10.244.0.3:53".parse().unwrap());
    let selection = Selection::new(vec![], networks(&["10.244.0.3"]), &[], vec![], vec![]).unwrap();
    assert!(selection.admits_question(&question));
    assert!(!selection.admits_question(&ask("web", Rtype::A, 1).build()));
}

#[test]
fn a_lookup_matches_by_its_name_or_a_candidate_and_is_whole() {
    let lookup = searched("api.example.com", Family::Glibc, 1);
    assert!(selection(&["api.example.com"], &[]).admits_lookup(&lookup));
    assert!(selection(&["*.svc.cluster.local"], &[]).admits_lookup(&lookup));
    assert!(!selection(&["*.internal"], &[]).admits_lookup(&lookup));
    assert!(selection(&[], &[Rcode::NXDOMAIN]).admits_lookup(&lookup));
    assert!(!selection(&[], &[Rcode::NXDOMAIN]).admits_lookup(&direct("web", 1)));
}

#[test]
fn a_response_code_selects_responses() {
    let selection = selection(&[], &[Rcode::NXDOMAIN]);
    let messages = messages(&ask("web", Rtype::A, 1).nxdomain().build());
    assert_eq!(messages.iter().map(|m| selection.admits_message(m)).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_window_includes_its_ends() {
    let window = Window { since: Some(at(100)), until: Some(at(200)) };
    let selection = Selection { window, ..Selection::default() };
    for (millis, expected) in [(99, false), (100, true), (200, true), (201, false)] {
        assert_eq!(selection.admits_lookup(&direct("web", millis)), expected, "{millis}");
        assert_eq!(selection.admits_question(&ask("web", Rtype::A, millis).build()), expected, "{millis}");
    }
}

#[test]
fn times_are_resolved_against_a_reference() {
    let times = Times { since: Some("10s".parse().unwrap()), until: Some("5s".parse().unwrap()) };
    assert!(times.is_relative());
    let window = times.resolve(at(60_000)).unwrap();
    assert_eq!(window, Window { since: Some(at(50_000)), until: Some(at(55_000)) });
    let backwards = Times { since: times.until, until: times.since };
    insta::assert_snapshot!(
        backwards.resolve(at(60_000)).unwrap_err(),
        @"cannot select from 2026-11-20T12:00:55.000000000Z to 2026-11-20T12:00:50.000000000Z: it ends before it starts; swap --since and --until"
    );
}

#[test]
fn only_what_is_selected_is_passed_on() {
    struct Count([u32; 2]);
    impl Observer for Count {
        fn question(&mut self, _: &Question) {
            self.0[0] += 1;
        }
        fn lookup(&mut self, _: &Lookup) {
            self.0[1] += 1;
        }
    }
    let selection = selection(&["web*"], &[]);
    let mut selected = Selected::new(&selection, Count([0; 2]));
    for name in ["web", "db"] {
        selected.lookup(&direct(name, 1));
        selected.question(&ask(name, Rtype::A, 1).build());
    }
    assert_eq!(selected.observer.0, [1, 1]);
}

/// Else the time before a window would know what was found in it, and nothing would be new.
#[test]
fn what_is_learnt_of_the_node_behind_the_window_is_not_passed_on() {
    struct Count(u32);
    impl Observer for Count {
        fn blind_spot(&mut self, _: &BlindSpot, _: Timestamp) {
            self.0 += 1;
        }
        fn resolver(&mut self, _: &Resolver, _: Timestamp) {
            self.0 += 10;
        }
        fn rules(&mut self, _: &RuleCount, _: Timestamp) {
            self.0 += 100;
        }
    }
    let window = Window { since: Some(at(1_000)), until: Some(at(2_000)) };
    let selection = Selection { window, ..Selection::default() };
    for (selection, expected) in [(&selection, [111, 111, 0]), (&selection.earlier().unwrap(), [111, 0, 0])] {
        let told = [500, 1_500, 2_500].map(|millis| {
            let mut selected = Selected::new(selection, Count(0));
            selected.blind_spot(&BlindSpot::encrypted_dns(), at(millis));
            selected.resolver(&Resolver::default(), at(millis));
            selected.rules(&RuleCount::default(), at(millis));
            selected.observer.0
        });
        assert_eq!(told, expected);
    }
}

#[test]
fn pods_are_selected_by_the_name_they_had_when_they_asked() {
    let globs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<PodGlob>>();
    let (early, late) = (direct("web", 1), direct("web", 1_000));
    let admitted = |namespaces: &[&str], names: &[&str]| {
        let selection = Selection {
            pod_filter: PodFilter::new(&globs(namespaces), &globs(names)).unwrap(),
            ..Selection::default()
        };
        let pods = &selection.pods;
        let tell = |namespace: &str, name: &str| {
            pods.tell(
                early.client,
                PodName { namespace: namespace.into(), name: name.into() },
                Timestamp::EPOCH,
            );
        };
        tell("shop", "web-7c9f");
        pods.end(early.client, at(500));
        tell("ml", "train-0");
        [selection.admits_lookup(&early), selection.admits_lookup(&late)]
    };
    assert_eq!(admitted(&[], &[]), [true, true]);
    assert_eq!(admitted(&["shop"], &[]), [true, false]);
    assert_eq!(admitted(&["sh?p", "ml"], &[]), [true, true]);
    assert_eq!(admitted(&[], &["web-*"]), [true, false]);
    assert_eq!(admitted(&[], &["ml/train-?"]), [false, true]);
    assert_eq!(admitted(&["shop"], &["train-0"]), [false, false]);
    for pattern in ["", "[", "{a"] {
        assert!(pattern.parse::<PodGlob>().is_err(), "{pattern}");
    }
    // Who has no name is in no namespace.
    let selection =
        Selection { pod_filter: PodFilter::new(&globs(&["*"]), &[]).unwrap(), ..Selection::default() };
    assert!(!selection.admits_lookup(&early));
}
