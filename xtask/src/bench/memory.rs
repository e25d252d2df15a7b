//! Memory and time as the load, the pods and the share of unanswered queries grow.

use super::{
    Extent, bench_program,
    offline::warm,
    rotated, scratch,
    table::{Column, Table},
};
use crate::command::{output, run, say};
use anyhow::{Context, Result};
use dnspath_tests::{tracer, usage};
use serde_json::Value;
use std::{fs, path::Path, process::Command, time::Duration};

const LIMIT: Duration = Duration::from_secs(600);
/// Answers that find what they ask for come in tens: five candidates, A and AAAA.
const QUERIES_A_LOOKUP: f64 = 10.0;
const MESSAGES_A_LOOKUP: u64 = 20;

const COLUMNS: [Column; 6] = [
    Column::new("open_questions", "open questions at most", 0),
    Column::new("engine_mib", "engine, MiB", 1),
    Column::new("engine_ns_per_message", "engine, ns a message", 0),
    Column::new("engine_us_per_lookup", "engine, µs a lookup", 2),
    Column::new("report_mib", "`report`, peak MiB", 1),
    Column::new("report_ns_per_message", "`report`, CPU ns a message", 0),
];

/// One kind of traffic: lookups a second, pods, share without answer.
struct Case {
    name: &'static str,
    lookups_per_second: u32,
    clients: u32,
    unanswered: f64,
}

const fn case(name: &'static str, lookups_per_second: u32, clients: u32, unanswered: f64) -> Case {
    Case { name, lookups_per_second, clients, unanswered }
}

/// 2,000 lookups a second are 40,000 messages. One whose answers never come is four, and open for 17 seconds.
const CASES: [Case; 13] = [
    case("100 lookups/s", 100, 246, 0.001),
    case("1,000 lookups/s", 1_000, 246, 0.001),
    case("2,000 lookups/s, 246 pods, 0.1 % unanswered", 2_000, 246, 0.001),
    case("10,000 lookups/s", 10_000, 246, 0.001),
    case("50,000 lookups/s", 50_000, 246, 0.001),
    case("10 pods", 2_000, 10, 0.001),
    case("1,000 pods", 2_000, 1_000, 0.001),
    case("5,000 pods", 2_000, 5_000, 0.001),
    case("0 % unanswered", 2_000, 246, 0.0),
    case("10 % unanswered", 2_000, 246, 0.1),
    case("50 % unanswered", 2_000, 246, 0.5),
    case("100 % unanswered", 2_000, 246, 1.0),
    case("200,000 questions open, 5,000 pods", 5_750, 5_000, 1.0),
];

pub(crate) fn measure(extent: &Extent) -> Result<Vec<Table>> {
    let messages: u64 = if extent.quick { 60_000 } else { 600_000 };
    let seconds: u64 = if extent.quick { 0 } else { 2 };
    let rounds = extent.pairs.min(3);
    let title = format!(
        "{messages} messages of generated traffic (two seconds of it where that is more); where a row does not say: \
         2,000 lookups/s, 246 pods, 0.1 % unanswered. The engine has two sightings of each message, `report` reads one"
    );
    let mut table = Table::new("memory", title, "traffic", &COLUMNS);
    let folder = scratch()?;
    for round in 0..rounds {
        for case in rotated(&CASES, round) {
            say(&format!("bench: round {} of {rounds}: {}", round + 1, case.name));
            // Tables that still grow would cost more than a message does.
            let enough = seconds * u64::from(case.lookups_per_second) * MESSAGES_A_LOOKUP;
            table.add(case.name, &case.measure(messages.max(enough), &folder)?);
        }
    }
    table.sort_rows(|row| CASES.iter().position(|case| case.name == row));
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(vec![table])
}

impl Case {
    fn measure(&self, messages: u64, folder: &Path) -> Result<[Option<f64>; 6]> {
        let decoded = self.play(messages, "decode")?;
        let joined = self.play(messages, "engine")?;
        let number = |value: &Value, key: &str| value[key].as_f64().with_context(|| format!("no {key}"));
        let nanos = number(&joined, "cpu_ns")? - number(&decoded, "cpu_ns")?;
        let queries = number(&joined, "queries")?;
        let capture = folder.join("case.pcap");
        let mut generate = bench_program();
        generate
            .args(["generate", "--packets", &messages.to_string(), "-w"])
            .arg(&capture)
            .args(self.arguments());
        run(&mut generate)?;
        warm(&capture)?;
        let mut report = Command::new(tracer::binary()?);
        let report = usage::measure(report.arg("report").arg(&capture), &[0, 1], LIMIT)?.usage;
        Ok([
            Some(number(&joined, "most_open_questions")?),
            Some(number(&joined, "engine_octets")? / f64::from(1 << 20)),
            Some(nanos / messages as f64),
            // Without answers there is no second candidate: such a lookup is less than ten queries.
            (self.unanswered < 0.01).then_some(nanos / 1e3 / (queries / QUERIES_A_LOOKUP)),
            Some(report.peak_kib as f64 / 1024.0),
            Some(report.cpu_seconds * 1e9 / messages as f64),
        ])
    }

    fn play(&self, messages: u64, pass: &str) -> Result<Value> {
        let mut play = bench_program();
        play.args(["engine", "--messages", &messages.to_string(), "--pass", pass]).args(self.arguments());
        let line = output(&mut play)?;
        serde_json::from_str(&line).with_context(|| format!("dnspath-bench does not print JSON: {line}"))
    }

    fn arguments(&self) -> [String; 6] {
        let (rate, unanswered) = (self.lookups_per_second.to_string(), self.unanswered.to_string());
        [
            "--lookups-per-second".into(),
            rate,
            "--clients".into(),
            self.clients.to_string(),
            "--unanswered".into(),
            unanswered,
        ]
    }
}
