//! What enter does in the views Findings and Pods.

use super::build::{Node, Screen, at, ip, lookup, pair, tell};
use crate::{
    model::*,
    tui::{Feed, Limits},
};
use ratatui::crossterm::event::KeyCode;

/// A lookup whose AAAA waited 5 s, told with the question that makes the rules speak.
fn with_a_wait(node: &mut Node, screen: &Screen) {
    let mut a = node.answered("wait.example", Rtype::A, 2.0, 0.001, Rcode::NOERROR, &["192.0.2.1"]);
    a.transmissions[0].hops.truncate(1);
    let mut aaaa = node.question("wait.example", Rtype::AAAA);
    node.send(&mut aaaa, 2.0, 1);
    node.send(&mut aaaa, 7.0, 3);
    node.answer(&mut aaaa, 7.001, Rcode::NOERROR, &[]);
    let waited = lookup("wait.example", LookupResult::Ok, vec![vec![a, aaaa]]);
    tell(&mut screen.feed.lock(), &waited);
}

#[test]
fn enter_on_a_finding_shows_it_whole_and_then_its_lookup() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 120, 30);
    assert!(screen.keys("2").contains("Nothing wrong found so far."));
    with_a_wait(&mut node, &screen);
    screen.now = at(20.0);
    let text = screen.draw();
    assert!(text.contains("DP102") && text.contains("1 finding"), "{text}");
    let text = screen.press(KeyCode::Enter);
    assert!(text.contains("do: ") && text.contains("enter: its lookup, 12:00:02.000 wait.example"), "{text}");
    let text = screen.press(KeyCode::Enter);
    assert!(text.contains("vethdns1") && text.contains("wait.example"), "{text}");
    let text = screen.press(KeyCode::Esc);
    assert!(text.contains("do: "), "back at the finding: {text}");
    assert!(screen.press(KeyCode::Esc).contains("SEVERITY"));
}

/// Several findings of one code and client: the cursor goes past the first of them, and enter opens its own.
#[test]
fn each_finding_of_a_client_can_be_gone_to() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 120, 30);
    for name in ["one.example", "two.example", "three.example"] {
        let questions = [Rtype::A, Rtype::AAAA].map(|qtype| {
            let mut question = node.question(name, qtype);
            node.send(&mut question, 2.0, 1);
            node.answer(&mut question, 2.001, Rcode::SERVFAIL, &[]);
            question
        });
        tell(&mut screen.feed.lock(), &lookup(name, LookupResult::Servfail, vec![questions.to_vec()]));
    }
    screen.now = at(20.0);
    let list = screen.keys("2");
    let held: Vec<&str> = list.lines().filter(|line| line.contains("DP104")).collect();
    assert_eq!(held.len(), 3, "{list}");
    let names = ["one.example", "two.example", "three.example"];
    let mut opened: Vec<&str> = Vec::new();
    for _ in 0..held.len() {
        let text = screen.press(KeyCode::Enter);
        assert!(text.contains("DP104 lookup-failed"), "{text}");
        opened.extend(names.iter().copied().filter(|name| text.contains(&format!("lookup of {name} by"))));
        screen.press(KeyCode::Esc);
        screen.keys("j");
    }
    opened.sort_unstable();
    assert_eq!(opened, ["one.example", "three.example", "two.example"]);
}

#[test]
fn enter_on_a_name_shows_its_lookups() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 120, 30);
    for host in ["one.example", "two.example"] {
        let one = pair(&mut node, host, 3.0, 0.001);
        tell(&mut screen.feed.lock(), &one);
    }
    screen.now = at(20.0);
    let text = screen.keys("6");
    assert!(text.contains("FAN-OUT") && text.contains("2 names"), "{text}");
    let text = screen.press(KeyCode::Enter);
    assert!(text.contains("/ name=one.example") && !text.contains("two.example"), "{text}");
}

#[test]
fn enter_on_a_finding_whose_lookup_is_gone_shows_its_client_s() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 120, 30);
    let limits = Limits { ladder_bytes: 0, ..Limits::default() };
    *screen.feed.lock() = Feed::new(node.vantages.clone(), limits);
    with_a_wait(&mut node, &screen);
    screen.keys("2");
    let text = screen.press(KeyCode::Enter);
    assert!(text.contains("enter: the lookups of 10.244.1.23"), "{text}");
    assert!(screen.press(KeyCode::Enter).contains("/ client=10.244.1.23"));
}

#[test]
fn a_pod_is_one_line_whatever_address_it_asks_from_and_leads_to_its_lookups() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 120, 30);
    let mut of_other_address = pair(&mut node, "six.example", 3.0, 0.001);
    of_other_address.client = ip("fd00::23");
    let names = Pods::new();
    for address in ["10.244.1.23", "fd00::23"] {
        names.tell(
            ip(address),
            PodName { namespace: "shop".into(), name: "web-7c9f".into() },
            Timestamp::EPOCH,
        );
    }
    {
        let mut feed = screen.feed.lock();
        *feed = Feed::new(node.vantages.clone(), Limits::default()).with_pods(names);
        tell(&mut feed, &pair(&mut node, "four.example", 2.0, 0.001));
        tell(&mut feed, &of_other_address);
        let resolver = Resolver {
            addresses: vec![ip("10.244.1.23")],
            resolv_conf:
                "search shop.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
                    .into(),
            ..Resolver::default()
        };
        feed.resolver(&resolver, at(1.0));
    }
    let text = screen.keys("4");
    let line = text.lines().find(|line| line.contains("shop/web-7c9f")).unwrap();
    assert!(line.contains(" 2 ") && line.contains(" 5 "), "{text}");
    assert!(
        text.contains("shop/web-7c9f · 10.244.1.23 fd00::23 · asks 10.96.0.10 · ndots 5 · search shop.svc.cluster.local svc.cluster.local"),
        "{text}"
    );
    let text = screen.press(KeyCode::Enter);
    assert!(text.contains("/ pod=shop/web-7c9f · 2 lookups"), "{text}");
}
