//! The engine against captures whose lookups are known: one table, and a floor below each of its columns.
//!
//! What packets alone cannot tell: a name that was asked with a trailing dot, from a short name with its first
//! suffix; musl before 1.2.1, which takes A where AAAA failed; the resolver behind one query without options; an
//! answer that came in the millisecond in which its client gave up. Gaps differ by rounding to tenths.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own input must fail")]

use dnspath::{
    engine::{Config, Engine, SearchList},
    model::{
        Family, Flow, Lookup, Message, MessageKind, Observer, Question, Rcode, Retransmission, Sighting,
        SightingBody, Timestamp, Transport, Vantages,
    },
    trace::Reader,
    wire::Decoder,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/resolvers")
}

fn index() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("index.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sightings(file: &str) -> Vec<Sighting> {
    let vantages = Vantages::new();
    let mut reader = Reader::open(&folder().join(file), 0).unwrap();
    let mut decoder = Decoder::new(&[53]);
    let mut all = vec![];
    while let Some(frame) = reader.next_frame(&vantages).unwrap() {
        decoder.decode(&frame, &vantages, &mut |sighting: &Sighting| all.push(sighting.clone()));
    }
    all
}

/// Everything that was told.
#[derive(Default)]
struct Told {
    lookups: Vec<Lookup>,
    totals: BTreeMap<String, i64>,
}

impl Told {
    fn add(&mut self, key: &str, count: usize) {
        *self.totals.entry(key.into()).or_default() += i64::try_from(count).unwrap();
    }
}

impl Observer for Told {
    fn message(&mut self, message: &Message) {
        let dns = &message.dns;
        if let MessageKind::Query(_) = message.kind {
            self.add("queries", 1);
            self.add("tcp_queries", usize::from(message.transport == Transport::Tcp));
            return;
        }
        self.add("responses", 1);
        self.add("tc_responses", usize::from(dns.flags.truncated()));
        self.add("nxdomain_responses", usize::from(dns.rcode == Rcode::NXDOMAIN));
        self.add("servfail_responses", usize::from(dns.rcode == Rcode::SERVFAIL));
        self.add("refused_responses", usize::from(dns.rcode == Rcode::REFUSED));
        self.add(&format!("empty_noerror_{}", dns.qtype), usize::from(dns.is_empty_noerror()));
    }

    fn question(&mut self, question: &Question) {
        self.add("unanswered", question.transmissions.iter().filter(|t| t.answered_by.is_none()).count());
        self.add("late_responses", question.answers.iter().filter(|a| a.late).count());
    }

    fn lookup(&mut self, lookup: &Lookup) {
        self.add("retransmissions", lookup.retransmissions.len());
        self.add("wasted_search_queries", lookup.wasted_search_queries.unwrap_or(0) as usize);
        self.lookups.push(lookup.clone());
    }
}

fn run<'a>(sightings: impl IntoIterator<Item = &'a Sighting>) -> Told {
    run_with(Config::default(), sightings)
}

fn run_with<'a>(config: Config, sightings: impl IntoIterator<Item = &'a Sighting>) -> Told {
    let (mut engine, mut told) = (Engine::new(config), Told::default());
    for sighting in sightings {
        engine.observe(sighting, &mut told);
    }
    engine.finish(&mut told);
    let counters = engine.counters();
    assert_eq!(counters.opened, counters.closed + counters.open_questions);
    told
}

const TOTALS: [&str; 9] = [
    "queries",
    "tcp_queries",
    "unanswered",
    "responses",
    "nxdomain_responses",
    "servfail_responses",
    "refused_responses",
    "tc_responses",
    "retransmissions",
];

/// Captures that are right, by column: what was reached. Some cannot be told: see the module's documentation.
const FLOORS: [(&str, usize); 13] = [
    ("answered by", 165),
    ("candidates", 166),
    ("family", 158),
    ("family not wrong", 166),
    ("gaps", 164),
    ("lookups", 166),
    ("name", 160),
    ("queries", 166),
    ("result", 165),
    ("retransmissions", 166),
    ("suspicious", 166),
    ("totals", 166),
    ("wasted", 165),
];

/// The totals that README.txt of the corpus counts, from the index.
fn expected_totals(truth: &Value) -> BTreeMap<String, i64> {
    let count = |key: &&str| ((*key).to_owned(), truth["totals"][*key].as_i64().unwrap());
    let mut totals: BTreeMap<String, i64> = TOTALS.iter().map(count).collect();
    for (qtype, count) in truth["totals"]["empty_noerror"].as_object().unwrap() {
        totals.insert(format!("empty_noerror_{qtype}"), count.as_i64().unwrap());
    }
    let late = lookups_of(truth).map(|l| l["late_responses"].as_i64().unwrap()).sum();
    totals.insert("late_responses".into(), late);
    totals
}

/// The lookups of the index that were on the wire.
fn lookups_of(truth: &Value) -> impl Iterator<Item = &Value> {
    truth["lookup_list"].as_array().unwrap().iter().filter(|l| l["queries"].as_i64() > Some(0))
}

fn family_is_right(truth: &str, family: Family) -> bool {
    let family = family.as_str();
    match truth.strip_prefix("c-ares") {
        Some("<1.20") => ["c-ares", "c-ares<1.20"].contains(&family),
        Some(version) if version.starts_with(">=") => ["c-ares", "c-ares>=1.20"].contains(&family),
        Some(_) => family.starts_with("c-ares"),
        None => truth == family,
    }
}

/// The lookups' facts by column, in the words of the index; a column is compared as a multiset.
fn facts_of_truth(truth: &Value) -> BTreeMap<&'static str, Vec<String>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), Into::into);
    let list = |value: &Value| {
        let items: Vec<String> = value.as_array().unwrap().iter().map(text).collect();
        items.join(" ")
    };
    let resent = |r: &Value| {
        format!("{} {} {} {}", text(&r["kind"]), r["same_id"], r["same_port"], r["server_changed"])
    };
    let mut facts: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for lookup in lookups_of(truth) {
        let mut all: Vec<_> = lookup["retransmissions"].as_array().unwrap().iter().map(resent).collect();
        all.sort();
        let gaps = lookup["gaps_s"].as_array().unwrap();
        for (column, fact) in [
            ("answered by", text(&lookup["answered_by"])),
            ("candidates", list(&lookup["candidates"])),
            ("gaps", gaps.iter().map(|g| format!("{:.1} ", g.as_f64().unwrap())).collect()),
            ("name", text(&lookup["name"]).trim_end_matches('.').into()),
            ("queries", text(&lookup["queries"])),
            ("result", text(&lookup["result"])),
            ("retransmissions", all.join(", ")),
            ("suspicious", list(&lookup["suspicious_names"])),
            ("wasted", text(&lookup["wasted_search_queries"])),
        ] {
            facts.entry(column).or_default().push(fact);
        }
    }
    facts.entry("lookups").or_default().push(truth["lookups"].to_string());
    facts
}

fn facts_told(lookups: &[Lookup]) -> BTreeMap<&'static str, Vec<String>> {
    let resent =
        |r: &Retransmission| format!("{} {} {} {}", r.kind, r.same_id, r.same_port, r.server_changed);
    let none = || "null".to_owned();
    let mut facts: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for lookup in lookups {
        let mut all: Vec<_> = lookup.retransmissions.iter().map(resent).collect();
        all.sort();
        let candidates: Vec<_> = lookup.steps.iter().map(|s| s.name.to_string()).collect();
        let suspicious: Vec<_> = lookup.suspicious_names.iter().map(ToString::to_string).collect();
        for (column, fact) in [
            ("answered by", lookup.answered_by.map_or_else(none, |n| n.to_string())),
            ("candidates", candidates.join(" ")),
            ("gaps", lookup.gaps.iter().map(|g| format!("{:.1} ", g.as_secs_f64())).collect()),
            ("name", lookup.name.to_string()),
            ("queries", lookup.queries.to_string()),
            ("result", lookup.result.to_string()),
            ("retransmissions", all.join(", ")),
            ("suspicious", suspicious.join(" ")),
            ("wasted", lookup.wasted_search_queries.map_or_else(none, |w| w.to_string())),
        ] {
            facts.entry(column).or_default().push(fact);
        }
    }
    facts.entry("lookups").or_default().push(lookups.len().to_string());
    facts
}

#[derive(Default)]
struct Column {
    right: usize,
    wrong: Vec<String>,
}

impl Column {
    fn check(&mut self, file: &str, ok: bool, detail: impl FnOnce() -> String) {
        if ok {
            self.right += 1;
        } else {
            self.wrong.push(format!("{file}: {}", detail()));
        }
    }
}

#[test]
fn lookups_results_and_totals_are_those_of_the_captures() {
    let mut table: BTreeMap<&str, Column> = BTreeMap::new();
    let index = index();
    for truth in &index {
        let file = truth["file"].as_str().unwrap();
        let told = run(&sightings(file));
        let mut got = facts_told(&told.lookups);
        for (column, mut expected) in facts_of_truth(truth) {
            let mut got = got.remove(column).unwrap_or_default();
            expected.sort();
            got.sort();
            let ok = expected == got;
            table
                .entry(column)
                .or_default()
                .check(file, ok, || format!("expected {expected:?}, got {got:?}"));
        }
        let total = |key: &String| told.totals.get(key).copied().unwrap_or(0);
        let differ: Vec<_> = expected_totals(truth)
            .iter()
            .filter(|(key, count)| total(key) != **count)
            .map(|(key, count)| format!("{key} {count}, got {}", total(key)))
            .collect();
        table.entry("totals").or_default().check(file, differ.is_empty(), || differ.join("; "));
        let family = truth["family"].as_str().unwrap();
        let guess = told.lookups.last().map_or(Family::Unknown, |l| l.family);
        let right = family_is_right(family, guess);
        let detail = || format!("{family} taken for {guess}");
        table.entry("family").or_default().check(file, right, detail);
        let not_wrong = right || guess == Family::Unknown;
        table.entry("family not wrong").or_default().check(file, not_wrong, detail);
    }
    let mut text = String::new();
    for (name, column) in &table {
        writeln!(text, "{name:20} {:4} of {}", column.right, index.len()).unwrap();
        for wrong in &column.wrong {
            writeln!(text, "    {wrong}").unwrap();
        }
    }
    println!("{text}");
    for (name, floor) in FLOORS {
        let right = table.get(name).map_or(0, |column| column.right);
        assert!(right >= floor, "{name}: {right} of {} right, {floor} were\n{text}", index.len());
    }
}

#[test]
fn a_known_search_list_changes_names_only_for_the_better() {
    let (mut right, mut right_without) = (0, 0);
    for truth in index() {
        let file = truth["file"].as_str().unwrap();
        let conf = &truth["resolv_conf"];
        let suffixes = conf["search"].as_array().unwrap().iter();
        let list = SearchList {
            suffixes: suffixes.map(|s| s.as_str().unwrap().parse().unwrap()).collect(),
            ndots: u8::try_from(conf["ndots"].as_u64().unwrap()).unwrap(),
        };
        let capture = sightings(file);
        let config = Config { resolv_conf: Some(list), ..Config::default() };
        let mut known = facts_told(&run_with(config, &capture).lookups);
        let mut unknown = facts_told(&run(&capture).lookups);
        let expected = facts_of_truth(&truth);
        for facts in [&mut known, &mut unknown] {
            for column in facts.values_mut() {
                column.sort();
            }
        }
        let mut names = expected["name"].clone();
        names.sort();
        right += usize::from(known.remove("name").as_ref() == Some(&names));
        right_without += usize::from(unknown.remove("name").as_ref() == Some(&names));
        assert_eq!(known, unknown, "{file}");
    }
    println!("names right: {right} with the list, {right_without} without");
    assert!(right >= right_without);
}

/// One capture's sightings as those of another client, at another time.
fn moved(sightings: &mut [Sighting], client: IpAddr, to: IpAddr, start: u64) {
    let first = sightings.iter().map(|s| s.time).min().unwrap();
    let change = |flow: &mut Flow| {
        for socket in [&mut flow.source, &mut flow.destination] {
            if socket.ip() == client {
                socket.set_ip(to);
            }
        }
    };
    for sighting in sightings {
        sighting.time = Timestamp::from_nanos(start) + sighting.time.since(first);
        change(&mut sighting.flow);
        if let SightingBody::Icmp(error) = &mut sighting.body {
            change(&mut error.quoted);
            for ip in [&mut error.from, &mut error.to] {
                if *ip == client {
                    *ip = to;
                }
            }
        }
    }
}

#[test]
fn captures_merged_into_one_give_the_sums_of_their_counts() {
    let (mut all, mut sums, mut apart) =
        (vec![], BTreeMap::<String, i64>::new(), BTreeMap::<String, i64>::new());
    let mut results = BTreeMap::<String, i64>::new();
    for (number, truth) in index().iter().enumerate() {
        let mut capture = sightings(truth["file"].as_str().unwrap());
        for (key, count) in run(&capture).totals {
            *apart.entry(key).or_default() += count;
        }
        *sums.entry("lookups".into()).or_default() += truth["lookups"].as_i64().unwrap();
        for lookup in lookups_of(truth) {
            *results.entry(lookup["result"].as_str().unwrap().into()).or_default() += 1;
        }
        for (key, count) in expected_totals(truth) {
            *sums.entry(key).or_default() += count;
        }
        let number = u32::try_from(number).unwrap();
        let to = IpAddr::V4(Ipv4Addr::from(0x0a50_0000 + number));
        let start = 1_700_000_000_000_000_000 + u64::from(number) * 7_919_000_000 % 20_000_000_000;
        moved(&mut capture, truth["client_ip"].as_str().unwrap().parse().unwrap(), to, start);
        all.extend(capture);
    }
    all.sort_by_key(|s| s.time);
    let told = run(&all);
    let mut totals = told.totals;
    totals.insert("lookups".into(), i64::try_from(told.lookups.len()).unwrap());
    for (key, count) in &sums {
        println!("{key:24} expected {count:6}, merged {:6}", totals.get(key).copied().unwrap_or(0));
    }
    // Exact, each of them: what was told of the captures one by one is no excuse.
    for (key, count) in sums.iter().filter(|(key, _)| *key != "lookups") {
        assert_eq!(totals.get(key).copied().unwrap_or(0), *count, "{key} of the captures merged");
    }
    let (told_lookups, lookups) = (totals["lookups"], sums["lookups"]);
    assert!((told_lookups - lookups).abs() * 100 <= lookups, "{told_lookups} lookups, expected {lookups}");
    for lookup in &told.lookups {
        *results.entry(lookup.result.to_string()).or_default() -= 1;
    }
    let apart_by: i64 = results.values().map(|count| count.abs()).sum();
    println!("results that differ: {results:?}");
    assert!(apart_by * 100 <= 2 * lookups, "each lookup of another result counts twice: {results:?}");
    for (key, count) in &apart {
        assert_eq!(totals.get(key), Some(count), "{key} differs between captures merged and apart");
    }
}
