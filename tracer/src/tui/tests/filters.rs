//! What filters let through, and what they say of what they do not understand.

use super::build::{Node, Screen, lookup, pair, tell};
use crate::model::{LookupResult, Rcode, Rtype};
use ratatui::crossterm::event::KeyCode;

/// A screen with `shop` (A and AAAA, 1 ms, ok), `slow` (A, 2 s, ok) and `gone` (MX, nxdomain).
fn screen() -> Screen {
    let mut node = Node::new();
    let screen = Screen::new(&node, 200, 20);
    let slow = node.answered("slow.example", Rtype::A, 2.0, 2.0, Rcode::NOERROR, &["192.0.2.1"]);
    let gone = node.answered("gone.example", Rtype::MX, 5.0, 0.001, Rcode::NXDOMAIN, &[]);
    let all = [
        pair(&mut node, "shop.example", 1.0, 0.001),
        lookup("slow.example", LookupResult::Ok, vec![vec![slow]]),
        lookup("gone.example", LookupResult::Nxdomain, vec![vec![gone]]),
    ];
    for lookup in &all {
        tell(&mut screen.feed.lock(), lookup);
    }
    screen
}

fn shown(text: &str) -> String {
    let names = ["shop.example", "slow.example", "gone.example"];
    names.into_iter().filter(|n| text.contains(n)).map(|n| &n[..4]).collect::<Vec<_>>().join(" ")
}

#[test]
fn filters_let_through_what_they_say() {
    for (filter, expected) in [
        ("", "shop slow gone"),
        ("slow", "slow"),
        ("SLOW", "slow"),
        ("!slow", "shop gone"),
        ("s*p.example", "shop"),
        ("name~s*", "shop slow"),
        ("name=gone.example", "gone"),
        ("name!=gone.example", "shop slow"),
        ("name!~o", ""),
        ("pod~web", "shop slow gone"),
        ("pod~db", ""),
        ("client=10.244.1.23", "shop slow gone"),
        ("client=10.244.0.0/16 !slow", "shop gone"),
        ("client!=10.0.0.0/8", ""),
        ("client=fd00::/8", ""),
        ("server=10.96.0.10", "shop slow gone"),
        ("server=10.96.0.10:53", "shop slow gone"),
        ("server=10.96.0.10:54", ""),
        ("server~10.244.*", "shop slow gone"),
        ("type=AAAA", "shop"),
        ("type=a", "shop slow"),
        ("result=nxdomain", "gone"),
        ("!result=ok", "gone"),
        ("took>1s", "slow"),
        ("took<=1500ms", "shop gone"),
        ("queries=2", "shop"),
        ("start>12:00:02", "gone"),
        ("start>=12:00:02", "slow gone"),
        ("start>12:00:01 start<12:00:05", "slow"),
    ] {
        let mut screen = screen();
        screen.keys("/");
        let text = screen.keys(filter);
        let list = text.lines().take(17).collect::<String>();
        assert_eq!(shown(&list), expected, "{filter}\n{text}");
    }
}

#[test]
fn what_is_not_understood_is_explained_and_the_last_good_filter_stays() {
    for (filter, error) in [
        ("nme=x", "no column \"nme\"; there are start pod name"),
        ("result=late", "is none of ok nxdomain nodata"),
        ("took>1", "\"1\" is no time span (1s, 200ms, 50us)"),
        ("took~1s", "took cannot be compared with \"~\"; use < >"),
        ("queries>many", "\"many\" is no number"),
        ("client=10.1.2", "\"10.1.2\" is no address"),
        ("client=10.0.0.0/33", "is no address"),
        ("name>x", "name cannot be compared with \">\"; use = ~"),
        ("start>noon", "is no time of day (12:00:03)"),
        ("name~[", "is no pattern"),
        ("took>", "nothing behind \">\""),
    ] {
        let mut screen = screen();
        screen.keys("/slow ");
        let text = screen.keys(filter);
        assert!(text.lines().nth(18).unwrap().contains(error), "{filter}\n{text}");
        let list = text.lines().take(17).collect::<String>();
        assert!(!list.contains("shop.example"), "{filter} widened the list\n{text}");
        // Enter does not leave a filter that is not understood; esc clears it.
        assert!(screen.press(KeyCode::Enter).lines().nth(18).unwrap().contains(error));
        assert_eq!(shown(&screen.press(KeyCode::Esc)), "shop slow gone");
    }
}

#[test]
fn an_edited_filter_follows_each_key() {
    let mut screen = screen();
    assert_eq!(shown(&screen.keys("/sl")), "slow");
    assert_eq!(shown(&screen.press(KeyCode::Backspace)), "shop slow");
    assert!(screen.press(KeyCode::Enter).contains("/ s · 2 of 3 lookups"));
    assert_eq!(shown(&screen.press(KeyCode::Esc)), "shop slow gone");
}
