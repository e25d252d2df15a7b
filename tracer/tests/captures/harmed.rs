//! Captures cut short, doubled, out of order, in mixed case, with a clock that jumps: nothing is invented.

use crate::{
    corpus,
    pcap::{Capture, dns_offset, is_tcp},
    report_of,
};
use dnspath::{
    engine::{Config, Engine},
    model::{Lookup, Message, MessageKind, Observer, Question, Sighting, Vantages},
    trace::Reader,
    wire::Decoder,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::SocketAddr};

/// Resolvers and troubles of each kind: search, retries, empty answers, TCP, ICMP, four lookups at once.
const FILES: [&str; 9] = [
    "okext-glibc236",
    "okext-musl123",
    "nodatawild-musl125",
    "dropfirstboth-glibc236",
    "dropallaaaa-go119",
    "noserver-musl125",
    "tc-glibc236",
    "slow6s-cares1348",
    "parallel4-go119",
];

/// What was told of one capture, by frame numbers.
#[derive(Default)]
struct Told {
    /// Frame and id: several messages may be in one segment.
    queries: BTreeSet<(u64, u16)>,
    responses: usize,
    /// What was asked (client, id) and the answer's first frame: equal queries cannot be told apart.
    pairs: BTreeSet<(SocketAddr, u16, u64)>,
    lookups: usize,
    candidates: BTreeSet<String>,
}

impl Observer for Told {
    fn message(&mut self, message: &Message) {
        match message.kind {
            MessageKind::Query(_) => {
                assert!(self.queries.insert((message.hops[0].frame, message.dns.id)), "told twice");
            }
            MessageKind::Response { .. } | MessageKind::Unmatched => self.responses += 1,
        }
    }
    fn question(&mut self, question: &Question) {
        for sent in &question.transmissions {
            if let Some(answer) = sent.answered_by.and_then(|index| question.answers.get(usize::from(index)))
            {
                self.pairs.insert((sent.client, sent.id, answer.hops[0].frame));
            }
        }
    }
    fn lookup(&mut self, lookup: &Lookup) {
        self.lookups += 1;
        self.candidates.extend(lookup.steps.iter().map(|step| step.name.to_string()));
    }
}

fn told(capture: &Capture) -> Told {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture.pcap");
    std::fs::write(&path, capture.to_bytes()).unwrap();
    let vantages = Vantages::new();
    let mut reader = Reader::open(&path, 0).unwrap();
    let (mut decoder, mut engine) = (Decoder::new(&[53]), Engine::new(Config::default()));
    let mut told = Told::default();
    while let Some(frame) = reader.next_frame(&vantages).unwrap() {
        decoder.decode(&frame, &vantages, &mut |sighting: &Sighting| engine.observe(sighting, &mut told));
    }
    decoder.finish(&mut |sighting: &Sighting| engine.observe(sighting, &mut told));
    engine.finish(&mut told);
    told
}

#[test]
fn cut_at_any_length_nothing_is_invented() {
    let mut problems = Vec::new();
    for name in FILES {
        let whole = Capture::open(&corpus(name));
        let full = told(&whole);
        assert!(full.lookups > 0 && !full.queries.is_empty(), "{name}");
        for length in 14..=whole.longest() {
            let mut cut = whole.clone();
            for record in &mut cut.records {
                record.bytes.truncate(length);
            }
            let seen = told(&cut);
            let mut check = |ok: bool, what: &str| {
                if !ok {
                    problems.push(format!("{name} cut at {length}: {what}"));
                }
            };
            check(seen.queries.is_subset(&full.queries), "a query that the whole file has not");
            check(seen.responses <= full.responses, "more responses");
            check(seen.pairs.is_subset(&full.pairs), "a pair that the whole file has not");
            // A query cut before its question no longer shows what it goes with.
            let most = if length >= whole.longest_question() { full.lookups } else { seen.queries.len() };
            check(seen.lookups <= most, "more lookups");
            check(seen.candidates.is_subset(&full.candidates), "a name that nobody asked");
        }
    }
    assert!(problems.is_empty(), "{} problems: {:#?}", problems.len(), problems);
}

/// A report without what differs where frames are numbered otherwise.
fn without_frames(mut report: Value) -> Value {
    for key in ["coverage", "sources"] {
        report[key].take();
    }
    for finding in report["findings"].as_array_mut().unwrap() {
        finding["evidence"].take();
    }
    report
}

/// Every file of the corpus whose report a change makes another one.
fn differing(change: impl Fn(&mut Capture), compared: impl Fn(Value) -> Value) -> Vec<String> {
    let mut differing = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(corpus("x").parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        files += 1;
        let whole = Capture::open(&path);
        let mut changed = whole.clone();
        change(&mut changed);
        let (expected, got) = (compared(report_of(&whole)), compared(report_of(&changed)));
        if expected != got {
            let keys = expected.as_object().unwrap().keys();
            let odd: Vec<_> = keys
                .filter(|key| expected[*key] != got[*key])
                .map(|key| format!("{key}: {}\n      {}", expected[key], got[key]))
                .collect();
            differing.push(format!("{}: {}", path.display(), odd.join("\n    ")));
        }
    }
    assert!(files > 100, "{files} files");
    differing.sort();
    differing
}

fn none(differing: &[String]) {
    assert!(differing.is_empty(), "{} files: {}", differing.len(), differing.join("\n"));
}

#[test]
fn mixed_case_changes_nothing() {
    // As servers do, each response repeats its query's letters (0x20): the case comes from the id.
    none(&differing(
        |capture| {
            for record in &mut capture.records {
                let Some(dns) = dns_offset(&record.bytes) else { continue };
                let (mut at, id) = (dns + 12, record.bytes[dns + 1]);
                while record.bytes[at] > 0 {
                    let end = at + 1 + usize::from(record.bytes[at]);
                    for (index, octet) in record.bytes[at + 1..end].iter_mut().enumerate() {
                        if (usize::from(id) >> (index % 8)) & 1 == 1 {
                            octet.make_ascii_uppercase();
                        }
                    }
                    at = end;
                }
            }
        },
        without_frames,
    ));
}

/// Times are the messages' own; a copy seen 50 µs later may stand for its message.
fn without_times(report: Value) -> Value {
    let mut report = without_frames(report);
    for key in ["latency_s", "window"] {
        report[key].take();
    }
    let rounded = |value: &Value| json!((value.as_f64().unwrap_or_default() * 100.0).round());
    for server in report["servers"].as_array_mut().unwrap() {
        for key in ["p50_s", "p99_s"] {
            server[key].take();
        }
    }
    for lookup in report["lookups"].as_array_mut().unwrap() {
        lookup["duration_s"].take();
        lookup["cause"].take();
        lookup["gaps_s"] = lookup["gaps_s"].as_array().unwrap().iter().map(rounded).collect();
        for resent in lookup["retransmissions"].as_array_mut().unwrap() {
            resent["gap_s"] = rounded(&resent["gap_s"]);
        }
    }
    for finding in report["findings"].as_array_mut().unwrap() {
        finding["summary"].take();
        for key in ["first", "last"] {
            finding[key].take();
        }
    }
    report
}

#[test]
fn frames_captured_twice_are_counted_once() {
    none(&differing(
        |capture| {
            let copies = capture.records.iter().cloned().map(|mut record| {
                record.nanos += 50_000;
                record
            });
            let mut all: Vec<_> = capture.records.iter().cloned().chain(copies).collect();
            all.sort_by_key(|record| record.nanos);
            capture.records = all;
        },
        without_times,
    ));
}

#[test]
fn records_out_of_order_within_20_ms_change_nothing() {
    none(&differing(
        |capture| {
            // Each record is written up to 20 ms late, by its number; TCP's stay in place: a message has the time of the
            // segment that made it whole.
            let mut at = 0_u64;
            let mut late: Vec<_> = capture
                .records
                .drain(..)
                .map(|record| {
                    at += 1;
                    let late = if is_tcp(&record.bytes) { 0 } else { at * 7_919_123 % 19_900_000 };
                    (record.nanos + late, record)
                })
                .collect();
            late.sort_by_key(|(written, _)| *written);
            capture.records = late.into_iter().map(|(_, record)| record).collect();
        },
        without_frames,
    ));
}

#[test]
fn a_clock_that_jumps_loses_no_message() {
    for name in FILES {
        let whole = Capture::open(&corpus(name));
        let expected = told(&whole);
        for (numerator, jump) in [(1, -3_600), (2, -3_600), (1, -1), (3, 86_400), (1, -2_000_000_000)] {
            let mut jumped = whole.clone();
            let from = jumped.records.len() * numerator / 4;
            for record in &mut jumped.records[from..] {
                record.nanos = record.nanos.saturating_add_signed(i64::from(jump) * 1_000_000_000);
            }
            let seen = told(&jumped);
            assert_eq!(seen.queries, expected.queries, "{name}: {jump} s from record {from} on");
            assert_eq!(seen.responses, expected.responses, "{name}: {jump} s from record {from} on");
        }
    }
}
