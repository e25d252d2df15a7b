//! What keys do, what the feed keeps, and what never happens.

use super::build::{NOON, Node, Screen, at, lookup, message, name, pair, tell, tell_question};
use crate::{
    findings::testing::drop_of,
    model::*,
    tui::{Action, App, Feed, Limits, Playback, Request, Snapshot, Status, Theme},
};
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};
use std::time::Duration;

/// A screen of 12 lines for 30 lookups named `n0` to `n29`, one a second.
fn thirty() -> (Node, Screen) {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 100, 12);
    for index in 0..30 {
        let lookup = pair(&mut node, &format!("n{index}.example"), f64::from(index), 0.001);
        tell(&mut screen.feed.lock(), &lookup);
    }
    screen.draw();
    (node, screen)
}

/// The name on the cursor's line.
fn under_cursor(text: &str) -> String {
    let line = text.lines().skip(2).find(|l| l.starts_with('▸')).unwrap_or("");
    line.split_whitespace()
        .find(|w| w.ends_with(".example"))
        .unwrap_or("")
        .trim_end_matches(".example")
        .into()
}

#[test]
fn the_cursor_moves_as_the_keys_say() {
    let (_, mut screen) = thirty();
    assert_eq!(under_cursor(&screen.draw()), "n29");
    for (key, expected) in [
        (KeyCode::Char('k'), "n28"),
        (KeyCode::Up, "n27"),
        (KeyCode::Char('j'), "n28"),
        (KeyCode::Char('g'), "n0"),
        (KeyCode::Up, "n0"),
        (KeyCode::PageDown, "n8"),
        (KeyCode::PageDown, "n16"),
        (KeyCode::PageUp, "n8"),
        (KeyCode::Down, "n9"),
        (KeyCode::End, "n29"),
        (KeyCode::Down, "n29"),
        (KeyCode::Home, "n0"),
        (KeyCode::Char('G'), "n29"),
    ] {
        let text = screen.press(key);
        assert_eq!(under_cursor(&text), expected, "{key:?}\n{text}");
    }
}

#[test]
fn at_the_end_new_lines_are_followed_elsewhere_the_screen_stands_still() {
    let (mut node, mut screen) = thirty();
    tell(&mut screen.feed.lock(), &pair(&mut node, "new1.example", 31.0, 0.001));
    assert_eq!(under_cursor(&screen.draw()), "new1");
    let before = screen.press(KeyCode::Char('k'));
    tell(&mut screen.feed.lock(), &pair(&mut node, "new2.example", 32.0, 0.001));
    let after = screen.draw();
    let list = |text: &str| text.lines().skip(2).take(9).collect::<Vec<_>>().join("\n");
    assert_eq!(list(&before), list(&after));
    assert_eq!(under_cursor(&screen.keys("G")), "new2");
}

#[test]
fn a_frozen_screen_keeps_its_lines_and_goes_on_when_asked() {
    for freeze in
        [KeyEvent::from(KeyCode::Char(' ')), KeyEvent::new(KeyCode::Char('f'), KeyModifiers::CONTROL)]
    {
        let (mut node, mut screen) = thirty();
        screen.app.update(freeze);
        tell(&mut screen.feed.lock(), &pair(&mut node, "new.example", 31.0, 0.001));
        let text = screen.draw();
        assert!(text.contains("FROZEN") && !text.contains("new.example"), "{text}");
        screen.app.update(freeze);
        let text = screen.draw();
        assert!(!text.contains("FROZEN") && text.contains("new.example"), "{text}");
    }
}

#[test]
fn keys_ask_the_session_and_a_replay_has_its_own() {
    let (_, mut screen) = thirty();
    let ask = |screen: &mut Screen, code| screen.app.update(KeyEvent::new(code, KeyModifiers::NONE));
    let save = KeyEvent::new(KeyCode::Char('s'), KeyModifiers::CONTROL);
    assert_eq!(screen.app.update(save), Action::Ask(Request::Save));
    assert_eq!(ask(&mut screen, KeyCode::Char('n')), Action::Draw);
    screen.feed.lock().status_mut().playback = Some(Playback::default());
    screen.draw();
    for (code, request) in [
        (KeyCode::Char(' '), Request::Pause),
        (KeyCode::Char('n'), Request::NextFinding),
        (KeyCode::Char('N'), Request::PreviousFinding),
        (KeyCode::Left, Request::Skip(-10)),
        (KeyCode::Char('>'), Request::Skip(60)),
        (KeyCode::Char('='), Request::Faster),
        (KeyCode::Char('-'), Request::Slower),
    ] {
        assert_eq!(ask(&mut screen, code), Action::Ask(request));
    }
    screen.keys("t-5");
    screen.press(KeyCode::Backspace);
    let text = screen.keys("30s");
    assert!(text.contains("go to -30s▏"), "{text}");
    assert_eq!(ask(&mut screen, KeyCode::Enter), Action::Ask(Request::GoTo("-30s".into())));
    screen.keys("t12");
    screen.press(KeyCode::Esc);
    assert!(!screen.draw().contains("go to"));
}

#[test]
fn what_is_said_stays_until_the_next_key() {
    let (_, mut screen) = thirty();
    screen.feed.lock().status_mut().say("saved a\x1b[2J.pcapng");
    assert!(screen.draw().contains("saved a\\u{1b}[2J.pcapng"));
    assert!(screen.draw().contains("saved a"));
    assert!(!screen.press(KeyCode::Char('j')).contains("saved a"));
    screen.feed.lock().status_mut().say("saved b");
    assert!(screen.draw().contains("saved b"));
}

#[test]
fn warnings_are_bounded_and_the_newest_stay() {
    let mut status = Status::default();
    for number in 0..1_000 {
        status.warn([number.to_string()]);
    }
    assert_eq!(status.notes.len(), 64);
    assert_eq!(status.notes.last().map(String::as_str), Some("999"));
}

#[test]
fn a_feed_that_began_anew_takes_the_lines_of_before_away() {
    let (mut node, mut screen) = thirty();
    screen.draw();
    let mut fresh = Feed::new(node.vantages.clone(), Limits::default());
    tell(&mut fresh, &pair(&mut node, "again.example", 2.0, 0.001));
    let fresh = fresh.in_place_of(&screen.feed.lock());
    *screen.feed.lock() = fresh;
    let text = screen.draw();
    assert!(text.contains("again.example") && text.contains(" 1 lookup"), "{text}");
}

#[test]
fn sorting_walks_the_columns_and_turns_round() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 120, 20);
    for (host, seconds, took) in
        [("b.example", 1.0, 0.003), ("c.example", 2.0, 0.001), ("a.example", 3.0, 0.002)]
    {
        tell(&mut screen.feed.lock(), &pair(&mut node, host, seconds, took));
    }
    let order = |text: &str| {
        let names =
            text.lines().take(10).filter_map(|l| l.split_whitespace().find(|w| w.ends_with(".example")));
        names.map(|n| n[..1].to_owned()).collect::<String>()
    };
    assert_eq!(order(&screen.draw()), "bca");
    for expected in [
        "bca by start ▲",
        "bca by client ▲",
        "abc by name ▲",
        "bca by type ▲",
        "bca by result ▲",
        "bac by took ▼",
        "bca by queries ▼",
        "bca by what happened ▲",
        "bca",
    ] {
        let text = screen.keys("s");
        let foot = text.lines().last().unwrap().split("  ").next().unwrap().to_owned();
        let by = foot.split(" · ").nth(1).unwrap_or("");
        assert_eq!(format!("{} {by}", order(&text)).trim_end(), expected);
    }
    assert_eq!(order(&screen.keys("r")), "acb");
    assert!(screen.draw().contains("newest first"));
}

#[test]
fn tabs_change_the_view_and_wrap() {
    let (_, mut screen) = thirty();
    assert!(screen.press(KeyCode::Tab).contains("SEVERITY"));
    assert!(screen.press(KeyCode::Tab).contains("UNANSWERED"));
    assert!(screen.press(KeyCode::Tab).contains("RESOLVER"));
    assert!(screen.press(KeyCode::Tab).contains("conntrack"));
    assert!(screen.press(KeyCode::Tab).contains("FAN-OUT"));
    assert!(screen.press(KeyCode::Tab).contains("WHAT HAPPENED"));
    assert!(screen.press(KeyCode::BackTab).contains("FAN-OUT"));
    assert!(screen.keys("1").contains("WHAT HAPPENED"));
    assert!(screen.keys("3").contains("UNANSWERED"));
    assert!(screen.keys("9").contains("UNANSWERED"));
}

#[test]
fn drops_are_bounded_filtered_and_lead_to_their_client() {
    let mut screen = Screen::new(&Node::new(), 120, 24);
    for millis in 0..1_200 {
        let mut drop = drop_of(Fate::Dropped, NOON + Duration::from_millis(millis));
        let name = if millis == 1_100 { "needle.example" } else { "hay.example" };
        (drop.dns.as_mut().unwrap().name, drop.dns.as_mut().unwrap().has_question) =
            (name.parse().unwrap(), true);
        screen.feed.lock().packet_drop(&drop);
    }
    let text = screen.keys("5");
    assert!(text.contains("1,000 of 1,200 drops and clashes · the newest 1,000 kept"), "{text}");
    screen.keys("/needle");
    let text = screen.press(KeyCode::Enter);
    assert_eq!(text.lines().filter(|line| line.contains("4f1a needle")).count(), 1, "{text}");
    assert!(screen.press(KeyCode::Enter).contains("/ client=10.244.1.5"));
}

#[test]
fn enter_opens_and_closes_a_ladder_and_esc_closes_it_too() {
    let (_, mut screen) = thirty();
    for close in [KeyCode::Enter, KeyCode::Esc] {
        assert!(screen.press(KeyCode::Enter).contains("vethdns1"));
        assert!(screen.press(close).contains("WHAT HAPPENED"));
    }
}

#[test]
fn enter_on_a_server_shows_its_lookups() {
    let (_, mut screen) = thirty();
    screen.keys("3");
    let text = screen.press(KeyCode::Enter);
    assert!(text.contains("/ server=10.96.0.10:53 · 30 lookups"), "{text}");
}

#[test]
fn quit_keys_quit_everywhere() {
    let q = KeyEvent::from(KeyCode::Char('q'));
    let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for before in ["", "?", "2"] {
        for key in [q, ctrl_c] {
            let (_, mut screen) = thirty();
            screen.keys(before);
            assert_eq!(screen.app.update(key), Action::Quit, "after {before:?}");
        }
    }
    let (_, mut screen) = thirty();
    screen.keys("/");
    assert_eq!(screen.app.update(q), Action::Draw);
    assert!(screen.draw().contains("/ q"));
    assert_eq!(screen.app.update(ctrl_c), Action::Quit);
}

#[test]
fn questions_of_no_lookup_show_only_when_asked_for() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 120, 20);
    let alone = node.answered("1.0.0.10.in-addr.arpa", Rtype::PTR, 1.0, 0.001, Rcode::NXDOMAIN, &[]);
    let inside = node.answered("_http._tcp.example", Rtype::SRV, 1.0, 0.001, Rcode::NXDOMAIN, &[]);
    let claiming = lookup("_http._tcp.example", LookupResult::Nxdomain, vec![vec![inside]]);
    {
        let mut feed = screen.feed.lock();
        tell_question(&mut feed, &alone);
        tell(&mut feed, &claiming);
        feed.message(&message(9.0, MessageKind::Unmatched));
    }
    let text = screen.draw();
    assert!(!text.contains("in-addr.arpa") && text.contains("1 other question (a)"), "{text}");
    let text = screen.keys("a");
    assert!(text.contains("in-addr.arpa"), "{text}");
    let lines = text.lines().skip(3).take(14);
    assert_eq!(lines.filter(|l| l.contains("_http._tcp.example")).count(), 1, "{text}");
}

#[test]
fn names_and_titles_cannot_reach_the_terminal() {
    let mut node = Node::new();
    let evil = Name::from_labels([b"\x1b[2J\x07".as_slice(), b"\xe2\x80\xae"]).unwrap();
    let mut bad = pair(&mut node, "x.example", 1.0, 0.001);
    bad.name = evil;
    bad.steps[0].name = evil;
    let vantage = Vantage { interface: "eth\x1b[31m".into(), ..Vantage::default() };
    bad.steps[0].questions[0].transmissions[0].hops[0].vantage = node.vantages.intern(vantage);
    let mut screen = Screen::new(&node, 120, 30);
    *screen.feed.lock() = Feed::new(node.vantages.clone(), Limits::default());
    {
        let mut feed = screen.feed.lock();
        tell(&mut feed, &bad);
        let status = feed.status_mut();
        status.title = "node\x1b[1m".into();
        status.interfaces = "\r\n\t".into();
        status.notes = vec!["\u{9b}31m".into()];
    }
    let mut texts = vec![screen.draw(), screen.press(KeyCode::Enter)];
    texts.push(screen.keys("?"));
    assert!(texts[0].contains("\\027[2j\\007"), "{}", texts[0]);
    assert!(texts[1].contains("eth\\u{1b}"), "{}", texts[1]);
    for text in texts {
        let bad = |c: &char| (c.is_control() && *c != '\n') || matches!(*c, '\u{202a}'..='\u{202e}');
        assert_eq!(text.chars().find(bad), None, "{text}");
    }
}

#[test]
fn typed_control_characters_are_not_taken() {
    let (_, mut screen) = thirty();
    let text = screen.keys("/a\u{1b}\u{202e}b");
    assert!(text.contains("/ ab"), "{text}");
}

#[test]
fn a_feed_keeps_no_more_than_its_limits() {
    let limits = Limits { unusual: 50, ordinary: 40, questions: 10, lines_per_tick: 5, ladder_bytes: 20_000 };
    let mut node = Node::new();
    let mut feed = Feed::new(node.vantages.clone(), limits);
    for index in 0..400 {
        let seconds = f64::from(index) * 0.01;
        tell(&mut feed, &pair(&mut node, "ok.example", seconds, 0.001));
        let mut failed = pair(&mut node, "failed.example", seconds, 0.001);
        failed.result = LookupResult::Servfail;
        tell(&mut feed, &failed);
        let ptr = node.answered("1.in-addr.arpa", Rtype::PTR, seconds, 0.001, Rcode::NOERROR, &[]);
        tell_question(&mut feed, &ptr);
    }
    let mut snapshot = Snapshot::default();
    snapshot.refresh(&mut feed, false, at(5.0));
    let lines: Vec<usize> = snapshot.lanes.iter().map(|l| l.len()).collect();
    assert_eq!(lines, [50, 40, 10]);
    let held: usize =
        snapshot.lanes.iter().flatten().filter_map(|r| r.ladder.upgrade()).map(|l| l.size()).sum();
    assert!((10_000..=20_000).contains(&held), "{held} octets of ladders");
    // 10 lookups a tick, of which 5 are kept.
    let ordinary = snapshot.sampled[1].unwrap();
    assert_eq!(ordinary.seen.div_ceil(ordinary.kept), 2, "{ordinary:?}");
}

#[test]
fn a_full_lane_makes_no_lines_beyond_its_share_of_a_tick() {
    let limits = Limits { ordinary: 100, lines_per_tick: 5, ..Limits::default() };
    let mut node = Node::new();
    let mut feed = Feed::new(node.vantages.clone(), limits);
    let made = |feed: &mut Feed| {
        let mut snapshot = Snapshot::default();
        snapshot.refresh(feed, false, at(1.0));
        snapshot.lanes[1].back().map(|row| row.serial)
    };
    let ordinary = pair(&mut node, "ok.example", 0.01, 0.001);
    for _ in 0..10_000 {
        feed.lookup(&ordinary);
    }
    // Filling the lane took 100; the share of this tick was used up on the way.
    assert_eq!(made(&mut feed), Some(100));
    feed.lookup(&pair(&mut node, "ok.example", 0.21, 0.001));
    assert_eq!(made(&mut feed), Some(101));
}

#[test]
fn without_colours_nothing_is_coloured_and_nothing_is_lost() {
    let colours = |theme| {
        let (_, mut screen) = thirty();
        screen.app = App::new(theme);
        screen.feed.lock().status_mut().coverage.lost = 1;
        screen.draw();
        let cells = &screen.terminal.backend().buffer().content;
        (cells.iter().filter(|c| c.fg != Color::Reset || c.bg != Color::Reset).count(), screen.text())
    };
    let ((coloured, with), (plain, without)) = (colours(Theme::COLOUR), colours(Theme::PLAIN));
    assert!(coloured > 0);
    assert_eq!(plain, 0);
    assert_eq!(with, without);
}

#[test]
fn a_number_too_long_for_its_column_is_rounded_not_cut() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 80, 24);
    let mut many = pair(&mut node, "many.example", 1.0, 0.001);
    many.queries = 1_735_000_000;
    tell(&mut screen.feed.lock(), &many);
    screen.terminal.backend_mut().resize(110, 24);
    assert!(screen.draw().contains(" 1.74G "), "{}", screen.text());
}

#[test]
fn ordinary_lookups_never_push_out_unusual_ones() {
    let limits = Limits { unusual: 5, ordinary: 5, ..Limits::default() };
    let mut node = Node::new();
    let mut feed = Feed::new(node.vantages.clone(), limits);
    let mut failed = pair(&mut node, "failed.example", 0.0, 0.001);
    failed.result = LookupResult::Timeout;
    tell(&mut feed, &failed);
    for index in 0..100 {
        tell(&mut feed, &pair(&mut node, "ok.example", f64::from(index), 0.001));
    }
    let mut snapshot = Snapshot::default();
    snapshot.refresh(&mut feed, false, at(100.0));
    assert_eq!(snapshot.lanes[0].len(), 1);
}

#[test]
fn snapshots_taken_on_the_way_equal_one_taken_at_the_end() {
    let limits = Limits { unusual: 7, ordinary: 7, ..Limits::default() };
    let mut node = Node::new();
    let mut feed = Feed::new(node.vantages.clone(), limits);
    let (mut often, mut once) = (Snapshot::default(), Snapshot::default());
    for index in 0..40 {
        tell(&mut feed, &pair(&mut node, &format!("n{index}.example"), f64::from(index), 0.001));
        if index % 3 == 0 {
            often.refresh(&mut feed, false, at(50.0));
        }
    }
    often.refresh(&mut feed, false, at(50.0));
    once.refresh(&mut feed, false, at(50.0));
    let serials = |s: &Snapshot| s.lanes.iter().flatten().map(|r| r.serial).collect::<Vec<_>>();
    assert_eq!(serials(&often), serials(&once));
    assert_eq!(serials(&once).len(), 7);
}

#[test]
fn more_servers_than_fit_share_one_line() {
    let mut node = Node::new();
    let mut feed = Feed::new(node.vantages.clone(), Limits::default());
    let template = node.answered("x.example", Rtype::A, 1.0, 0.001, Rcode::NOERROR, &["192.0.2.1"]);
    for index in 0..600u32 {
        let mut question = template.clone();
        question.transmissions[0].backend = None;
        question.transmissions[0].server.set_ip(std::net::Ipv4Addr::from_bits(0x0a00_0000 + index).into());
        feed.question(&question);
    }
    let rows = feed.servers();
    assert_eq!(rows.len(), 257);
    assert_eq!(rows[256].server, None);
    assert_eq!(rows[256].queries, 344);
}

#[test]
fn every_lookup_opens_as_a_ladder_in_which_its_messages_are() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 120, 40);
    let mut late = pair(&mut node, "late.example", 1.0, 0.3);
    late.steps[0].questions[1].answers[0].late = true;
    late.name = name("late.example");
    tell(&mut screen.feed.lock(), &late);
    screen.draw();
    let text = screen.press(KeyCode::Enter);
    assert_eq!(text.matches("▶").count(), 2, "{text}");
    assert_eq!(text.matches("◀").count(), 2, "{text}");
    assert!(text.contains("late: NOERROR empty"), "{text}");
}

/// Puts so many more interfaces on the way of the last message.
fn lengthen(node: &Node, question: &mut Question, more: usize) {
    let hops = &mut question.transmissions.last_mut().unwrap().hops;
    let last = hops[hops.len() - 1];
    for index in 0..more {
        let vantage = Vantage { interface: format!("more{index}"), ..Vantage::default() };
        hops.push(Hop { vantage: node.vantages.intern(vantage), ..last });
    }
}

#[test]
fn a_way_too_long_for_the_screen_keeps_its_ends_and_says_what_is_hidden() {
    let mut node = Node::new();
    let mut screen = Screen::new(&node, 80, 24);
    let mut long = node.question("long.example", Rtype::A);
    node.send(&mut long, 1.0, 3);
    lengthen(&node, &mut long, 5);
    tell(&mut screen.feed.lock(), &lookup("long.example", LookupResult::Timeout, vec![vec![long]]));
    screen.draw();
    let text = screen.press(KeyCode::Enter);
    let labels = text.lines().nth(4).unwrap();
    assert!(labels.contains("veth7") && labels.contains("more4"), "{text}");
    assert!(labels.contains("4 hops not shown"), "{text}");
    // The way in words has as many as its pane has room for, and counts the rest.
    assert!(text.contains("and 5 more hops"), "{text}");
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let code = prop_oneof![
        4 => prop::sample::select("jkgGsra/?q 12abn=~<>!*[:.".chars().collect::<Vec<_>>()).prop_map(KeyCode::Char),
        1 => any::<char>().prop_map(KeyCode::Char),
        3 => prop::sample::select(vec![
            KeyCode::Enter, KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::BackTab, KeyCode::Backspace,
            KeyCode::PageUp, KeyCode::PageDown, KeyCode::Up, KeyCode::Down, KeyCode::Home, KeyCode::End,
            KeyCode::F(3), KeyCode::Null,
        ]),
    ];
    let modifiers = prop_oneof![
        6 => Just(KeyModifiers::NONE), 1 => Just(KeyModifiers::CONTROL), 1 => Just(KeyModifiers::SHIFT)
    ];
    (code, modifiers).prop_map(|(code, modifiers)| KeyEvent::new(code, modifiers))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_keys_at_no_size_panic(
        steps in prop::collection::vec((any_key(), 0u16..130, 0u16..50, any::<bool>()), 1..60)
    ) {
        let mut node = Node::new();
        let mut feed = Feed::new(node.vantages.clone(), Limits { ordinary: 20, ..Limits::default() });
        feed.status_mut().notes = vec!["one".into(), "two".into(), "three".into()];
        let mut app = App::new(Theme::COLOUR);
        let mut snapshot = Snapshot::default();
        for (index, (key, width, height, told)) in steps.into_iter().enumerate() {
            if told {
                tell(&mut feed, &pair(&mut node, &format!("n{index}.example"), index as f64, 0.001));
                let mut lost = node.question("lost.example", Rtype::AAAA);
                node.send(&mut lost, index as f64, index % 4);
                node.send(&mut lost, index as f64 + 5.0, 3);
                lengthen(&node, &mut lost, index % 9);
                tell(&mut feed, &lookup("lost", LookupResult::Timeout, vec![vec![lost]]));
            }
            app.update(key);
            snapshot.refresh(&mut feed, app.is_frozen(), at(index as f64));
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| app.draw(frame, &snapshot)).unwrap();
        }
    }
}
