use super::{text::BLIND_SPOTS, *};
use crate::{
    findings::{Findings, testing::*},
    model::{BlindSpot, Family, Fate, Lookup, LookupResult, Observer, RetransmissionKind, Rtype, Service},
};
use std::net::SocketAddr;

struct Session {
    stats: Stats,
    findings: Findings,
    log: LookupLog,
    coverage: Coverage,
}

fn session(lookups: &[Lookup]) -> Session {
    let mut all = (Stats::default(), (Findings::default(), LookupLog::default()));
    let mut sightings = 0;
    for lookup in lookups {
        for question in lookup.steps.iter().flat_map(|step| &step.questions) {
            for message in messages(question) {
                all.message(&message);
                sightings += 1;
            }
            all.question(question);
        }
        all.lookup(lookup);
    }
    let (stats, (findings, log)) = all;
    let coverage = Coverage { frames: sightings + 3, dns_messages: sightings, ..Coverage::default() };
    Session { stats, findings, log, coverage }
}

fn printed(session: &Session, lookups: bool) -> (String, String) {
    let span = session.stats.span();
    let findings = session.findings.ranked(&session.coverage, span.unwrap_or_default());
    let report = Report {
        sources: &["capture.pcapng".into()],
        window: span,
        coverage: session.coverage,
        clocks: &[],
        cut: false,
        stats: &session.stats,
        findings: &findings,
        vantages: &Vantages::new(),
        names: &Pods::new(),
        baseline: None,
        lookups: lookups.then_some(&session.log),
    };
    let (mut text, mut json) = (Vec::new(), Vec::new());
    report.write_text(&mut text).unwrap();
    report.write_json(&mut json).unwrap();
    (String::from_utf8(text).unwrap(), String::from_utf8(json).unwrap())
}

fn raced(at: u64) -> Lookup {
    let web = "web.default.svc.cluster.local";
    let a = ask(web, Rtype::A, at).address("10.96.4.7").build();
    let aaaa = ask(web, Rtype::AAAA, at).again(5_000, RetransmissionKind::Timeout).empty().build();
    lookup("web", Family::Glibc, LookupResult::Ok, vec![a, aaaa])
}

fn unanswered(name: &str, at: u64) -> Lookup {
    let lost =
        [Rtype::A, Rtype::AAAA].map(|t| ask(name, t, at).again(2_500, RetransmissionKind::Timeout).build());
    lookup(name, Family::Musl, LookupResult::Timeout, lost.to_vec())
}

fn incident() -> Session {
    let mut lookups: Vec<Lookup> =
        (0..40).map(|n| searched("api.example.com", Family::Glibc, n * 100)).collect();
    lookups.extend((0..20).map(|n| direct("db.shop.svc.cluster.local", n * 150)));
    lookups.extend([raced(500), raced(9_000)]);
    lookups.extend(["payments", "orders", "stock", "users"].map(|name| unanswered(name, 12_000)));
    session(&lookups)
}

#[test]
fn an_incident_as_text() {
    let (text, _) = printed(&incident(), false);
    assert!(text.lines().count() <= 40, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn an_incident_as_json() {
    let (_, json) = printed(&incident(), false);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    insta::assert_json_snapshot!(value);
}

#[test]
fn many_clients_in_the_same_trouble_stay_few_lines() {
    let lookups: Vec<Lookup> = (0..300_u64)
        .map(|n| {
            let mut one = searched("api.example.com", Family::Glibc, n);
            one.client = format!("10.244.{}.{}", n / 250, n % 250).parse().unwrap();
            one
        })
        .collect();
    let (text, _) = printed(&session(&lookups), false);
    assert!(text.starts_with("1 warning: "), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn many_findings_stay_few_lines() {
    let names: Vec<Lookup> =
        (0..300).map(|n| searched(&format!("api{n}.example.com"), Family::Glibc, n)).collect();
    let (text, _) = printed(&session(&names), false);
    assert!(text.starts_with("300 warnings: "), "{text}");
    assert!(text.contains("and 298 more of this kind with a count of 1,788"), "{text}");
    assert!(text.lines().count() <= 40, "{text}");
}

#[test]
fn each_blind_spot_is_told() {
    let mut session = session(&[direct("web", 1)]);
    for number in 0..14 {
        let spot =
            BlindSpot::new(&format!("{number:02}"), format!("found {number}"), "much", "Look elsewhere.");
        session.findings.blind_spot(&spot, at(0));
    }
    let (text, _) = printed(&session, false);
    assert!(text.starts_with("Nothing wrong found (14 notes): "), "{text}");
    for number in 0..BLIND_SPOTS {
        assert!(text.contains(&format!("    found {number}; not seen: much.\n")), "{number}: {text}");
    }
    assert!(text.contains("and 2 more of this kind with a count of 2"), "{text}");
    assert_eq!(text.matches("Look elsewhere").count(), 1, "{text}");
}

/// What a file says of a session is unescaped when it is read.
#[test]
fn words_of_a_file_are_escaped() {
    let mut session = session(&[direct("web", 1)]);
    let spot = BlindSpot::new("a\x1b[2J", "\u{9b}31mfound\u{202e}", "b\nc", "\x1b]0;title\x07");
    session.findings.blind_spot(&spot, at(0));
    let (text, _) = printed(&session, false);
    assert!(text.contains(r"    \u{9b}31mfound\u{202e}; not seen: b\u{a}c."), "{text}");
    assert!(text.contains(r"    -> \u{1b}]0;title\u{7}"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn a_clean_window_says_so_in_few_lines() {
    let (text, _) = printed(&session(&[direct("web", 1), direct("db", 20)]), false);
    insta::assert_snapshot!(text);
}

#[test]
fn no_dns_is_no_clean_window() {
    let mut empty = session(&[]);
    empty.coverage.frames = 1_234;
    let (text, json) = printed(&empty, true);
    insta::assert_snapshot!(format!("{text}\n{json}"));
}

#[test]
fn what_rests_on_absence_is_inconclusive_where_frames_were_lost() {
    let mut lossy = incident();
    (lossy.coverage.lost, lossy.coverage.evicted) = (17, 2);
    let (text, _) = printed(&lossy, false);
    insta::assert_snapshot!(text);
}

#[test]
fn drops_and_conntrack_s_counters_are_told() {
    let mut session = session(&[direct("web", 1)]);
    let web = "web.default.svc.cluster.local";
    let aaaa = ask(web, Rtype::AAAA, 10).again(5_000, RetransmissionKind::Timeout).empty();
    let aaaa = lost(aaaa, Fate::InsertFailed, "NETFILTER_DROP", "__nf_conntrack_confirm");
    let rule = drop_of(Fate::Dropped, at(40));
    let resolved = drop_of(Fate::ClashResolved, at(50));
    let mut all = (&mut session.stats, &mut session.findings);
    for drop in drops_of(&aaaa).chain([&rule, &resolved]) {
        all.packet_drop(drop);
    }
    all.question(&aaaa);
    all.lookup(&lookup("web", Family::Glibc, LookupResult::Ok, vec![aaaa]));
    session.coverage.conntrack = Some(crate::model::Conntrack {
        insert_failed: 3,
        clash_resolve: 1,
        drop: 3,
        entries: 1_024,
        max: 262_144,
        ..Default::default()
    });
    let (text, json) = printed(&session, false);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    insta::assert_snapshot!(format!("{text}\n{:#}\n{:#}", json["coverage"], json["totals"]));
}

#[test]
fn lookups_are_added_by_their_start() {
    let (_, json) = printed(&session(&[direct("late", 900), direct("early", 1)]), true);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let names: Vec<&str> =
        value["lookups"].as_array().unwrap().iter().map(|lookup| lookup["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["early", "late"]);
    assert!(value["lookups"][0].get("unit").is_none());
    let (_, without) = printed(&session(&[direct("web", 1)]), false);
    assert!(serde_json::from_str::<serde_json::Value>(&without).unwrap().get("lookups").is_none());
}

#[test]
fn the_same_events_make_the_same_octets() {
    assert_eq!(printed(&incident(), true), printed(&incident(), true));
}

/// A page of these lookups.
fn page(lookups: &[Lookup]) -> String {
    let session = session(lookups);
    let mut page = Page::new(Vantages::new(), Pods::default());
    for lookup in lookups {
        for question in lookup.steps.iter().flat_map(|step| &step.questions) {
            page.question(question);
        }
        page.lookup(lookup);
    }
    let span = session.stats.span();
    let findings = session.findings.ranked(&session.coverage, span.unwrap_or_default());
    let report = Report {
        sources: &["<capture>.pcapng".into()],
        window: span,
        coverage: session.coverage,
        cut: false,
        stats: &session.stats,
        findings: &findings,
        vantages: &Vantages::new(),
        names: &Pods::new(),
        clocks: &[],
        baseline: None,
        lookups: None,
    };
    let mut html = Vec::new();
    report.write_html(&page, &mut html).unwrap();
    String::from_utf8(html).unwrap()
}

#[test]
fn a_page() {
    let html =
        page(&[raced(0), unanswered("orders", 9_000), searched("api.example.com", Family::Glibc, 9_500)]);
    insta::assert_snapshot!(html);
}

#[test]
fn a_page_holds_no_markup_of_others_and_fetches_nothing() {
    let hostile = "x<script>alert(1)</script>&\"'";
    let html = page(&[unanswered(hostile, 0)]);
    assert!(html.contains("x&lt;script&gt;") && html.contains("&lt;capture&gt;.pcapng"), "{html}");
    for word in ["<script", "http:", "https:", "url(", "src=", "@import"] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn a_page_stays_small_whatever_happened() {
    let lookups: Vec<Lookup> =
        (0..5_000).map(|n| unanswered(&format!("{}.{n}.example", "n".repeat(60)), n * 500)).collect();
    let html = page(&lookups);
    assert!(html.len() < 400_000, "{} octets", html.len());
    assert_eq!(html, page(&lookups), "the same events, other octets");
}

#[test]
fn what_changed_is_told_against_the_time_before() {
    let before: Vec<Lookup> = (0..10).map(|n| direct("db.shop.svc.cluster.local", n * 1_000)).collect();
    let now = [raced(20_000), unanswered("orders", 22_000), direct("db.shop.svc.cluster.local", 23_000)];
    let (earlier, later) = (session(&before), session(&now));
    let mut known = Known::default();
    let mut met = known.sibling();
    for (lookups, known) in [(&before[..], &mut known), (&now[..], &mut met)] {
        for lookup in lookups {
            lookup
                .steps
                .iter()
                .flat_map(|step| &step.questions)
                .for_each(|question| known.question(question));
            known.lookup(lookup);
        }
    }
    let (from, window) = (before[0].start, (at(15_000), at(30_000)));
    let of = |session: &Session| session.findings.ranked(&session.coverage, window);
    let (findings_before, findings) = (of(&earlier), of(&later));
    let baseline = Baseline {
        span: (from, window.0),
        stats: &earlier.stats,
        findings: &findings_before,
        known: &known,
        now: &met,
    };
    let report = Report {
        sources: &[],
        window: Some(window),
        coverage: later.coverage,
        cut: false,
        stats: &later.stats,
        findings: &findings,
        vantages: &Vantages::new(),
        names: &Pods::new(),
        clocks: &[],
        baseline: Some(&baseline),
        lookups: None,
    };
    insta::assert_json_snapshot!(report.changed(&baseline));
    insta::assert_snapshot!(report.changes().join("\n"));
}

#[test]
fn services_have_their_names_and_backends() {
    let session = incident();
    let names = Pods::new();
    let (server, stats) = session.stats.servers().ranked()[0];
    assert!(stats.queries > 0);
    let service = Service {
        address: SocketAddr::new(server, 53),
        name: "kube-system/kube-dns:dns".into(),
        backends: ["10.244.0.3:53".parse().unwrap()].into(),
    };
    names.services().tell(&service, Timestamp::EPOCH);
    names.services().saw(service.address, "10.244.0.2:53".parse().unwrap());
    let report = Report {
        sources: &[],
        window: session.stats.span(),
        coverage: session.coverage,
        clocks: &[],
        cut: false,
        stats: &session.stats,
        findings: &[],
        vantages: &Vantages::new(),
        names: &names,
        baseline: None,
        lookups: None,
    };
    let (mut text, mut json) = (Vec::new(), Vec::new());
    report.write_text(&mut text).unwrap();
    report.write_json(&mut json).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("kube-system/kube-dns ({server}): answered ")), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let shown = &json["servers"][0];
    assert_eq!(shown["server"], server.to_string());
    assert_eq!(shown["service"], "kube-system/kube-dns");
    assert_eq!(
        (&shown["k8s.namespace.name"], &shown["k8s.service.name"]),
        (&"kube-system".into(), &"kube-dns".into())
    );
    assert_eq!(shown["backends"], serde_json::json!(["10.244.0.2:53", "10.244.0.3:53"]));
}
