//! Filters and exit statuses, against counts made from the frames here.

use crate::{
    corpus, dnspath,
    pcap::{Capture, Message},
    report,
};
use std::path::Path;

const A: usize = 1;
const AAAA: usize = 28;
const NXDOMAIN: u8 = 3;

fn open(name: &str) -> Vec<Message> {
    Capture::open(&corpus(name)).messages()
}

/// Queries and responses of a report.
fn counted(words: &str, names: &[&str]) -> (u64, u64) {
    let files: Vec<_> = names.iter().map(|name| corpus(name)).collect();
    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let totals = report(words, &files)["totals"].take();
    (totals["queries"].as_u64().unwrap(), totals["responses"].as_u64().unwrap())
}

fn expected(messages: &[Message], keep: impl Fn(&Message) -> bool) -> (u64, u64) {
    let of = |response| messages.iter().filter(|m| m.response == response && keep(m)).count() as u64;
    (of(false), of(true))
}

#[test]
fn each_filter_counts_what_the_frames_hold() {
    type Keep = fn(&Message) -> bool;
    let cases: [(&str, &str, Keep); 13] = [
        ("okext-glibc236", "", |_| true),
        ("okext-glibc236", "--type A", |m| m.qtype == A),
        ("okext-glibc236", "--type aaaa", |m| m.qtype == AAAA),
        ("okext-glibc236", "--type A --type AAAA", |_| true),
        ("okext-glibc236", "--type TYPE65", |_| false),
        ("okext-glibc236", "--name *.cluster.local", |m| m.name.ends_with(".cluster.local")),
        ("okext-glibc236", "--name API.example.com.", |m| m.name == "api.example.com"),
        ("okext-glibc236", "--name api.*.svc.* --type A", |m| m.qtype == A && m.name.contains(".svc.")),
        ("okext-glibc236", "--rcode NXDOMAIN", |m| m.response && m.rcode == NXDOMAIN),
        ("okext-glibc236", "--rcode NOERROR,REFUSED", |m| m.response && m.rcode == 0),
        ("dropns1of2-glibc236", "--server 10.96.0.10", |m| m.server.octets() == [10, 96, 0, 10]),
        ("dropns1of2-glibc236", "--server 10.96.0.11/32", |m| m.server.octets() == [10, 96, 0, 11]),
        ("servfailall-glibc236", "--rcode SERVFAIL", |m| m.response && m.rcode == 2),
    ];
    for (name, words, keep) in cases {
        let messages = open(name);
        assert_eq!(counted(words, &[name]), expected(&messages, keep), "{name} {words}");
    }
}

#[test]
fn clients_are_told_apart_in_several_files() {
    let names = ["okext-glibc236", "dropfirstboth-musl125", "parallel4-glibc236"];
    let all: Vec<Message> = names.iter().flat_map(|name| open(name)).collect();
    for client in [all[0].client, all[all.len() - 1].client] {
        let words = format!("--client {client}");
        assert_eq!(counted(&words, &names), expected(&all, |m| m.client == client), "{words}");
    }
    let net = |m: &Message| m.client.octets()[..3] == [10, 244, 1];
    assert_eq!(counted("--client 10.244.1.0/24", &names), expected(&all, net));
    assert_eq!(counted("--client 192.0.2.1", &names), (0, 0));
}

#[test]
fn windows_in_time_count_what_lies_in_them() {
    let name = "dropfirstboth-go119";
    let messages = open(name);
    let (first, last) = (messages[0].nanos, messages[messages.len() - 1].nanos);
    assert!(last - first > 4_000_000_000, "retries after 5 s");
    let middle = first + (last - first) / 2;
    let shown = |nanos: u64| {
        let seconds = i64::try_from(nanos / 1_000_000_000).unwrap();
        let time = jiff::Timestamp::new(seconds, i32::try_from(nanos % 1_000_000_000).unwrap()).unwrap();
        time.to_string()
    };
    let cases = [
        (format!("--since {}", shown(middle)), middle, u64::MAX),
        (format!("--until {}", shown(middle)), 0, middle),
        (format!("--since {} --until {}", shown(first), shown(last)), first, last),
        (format!("--since {}", shown(last)), last, u64::MAX),
        ("--last 1s".to_owned(), last - 1_000_000_000, u64::MAX),
        ("--last 1h".to_owned(), 0, u64::MAX),
        ("--until 1s".to_owned(), 0, last - 1_000_000_000),
    ];
    for (words, from, to) in cases {
        let keep = |m: &Message| (from..=to).contains(&m.nanos);
        assert_eq!(counted(&words, &[name]), expected(&messages, keep), "{words}");
    }
}

#[test]
fn the_exit_status_says_what_was_found() {
    let missing = Path::new("missing.pcap");
    let notes = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(notes.path(), "no capture at all").unwrap();
    let (clean, info, warning, error) =
        ("tc-glibc236", "nxdomain-glibc236", "okext-glibc236", "dropall-go119");
    let cases = [
        ("report", clean, 0),
        ("report --fail-on info", clean, 0),
        ("report", info, 0),
        ("report --fail-on info", info, 1),
        ("report --fail-on warning", warning, 1),
        ("report --fail-on error", warning, 0),
        ("report", warning, 1),
        ("report -o json", warning, 1),
        ("report", error, 1),
        ("report --fail-on error", error, 1),
        ("report --client 192.0.2.1", error, 0),
        ("report --since 2100-01-01T00:00:00Z", error, 0),
        ("report --fail-on nothing", clean, 2),
        ("report --client 10.0.0.0/99", clean, 2),
        ("report --duration 1s", clean, 2),
        ("report --since 5m --last 5m", clean, 2),
        ("report --since 2026-01-02 --until 2026-01-01", clean, 2),
    ];
    for (words, name, expected) in cases {
        let (status, printed, said) = dnspath(words, &[&corpus(name)]);
        assert_eq!(status, Some(expected), "{words} {name}: {said}");
        assert_eq!(printed.is_empty(), expected == 2, "{words} {name}: a report, or a complaint");
        assert_eq!(said.is_empty(), expected != 2, "{words} {name}: {said}");
    }
    for file in [missing, notes.path()] {
        let (status, printed, said) = dnspath("report", &[&corpus(error), file]);
        assert_eq!((status, printed.as_str()), (Some(2), ""), "{said}");
        assert!(said.contains(&file.display().to_string()), "{said}");
    }
}

#[test]
fn a_file_makes_the_same_octets_each_time() {
    for words in ["report", "report -o json --lookups"] {
        for name in ["parallel4-glibc236", "dropfirstaaaa-musl125", "timeoutsuffix-cares1348"] {
            let first = dnspath(words, &[&corpus(name)]);
            for _ in 0..4 {
                assert_eq!(first, dnspath(words, &[&corpus(name)]), "{words} {name}");
            }
        }
    }
}
