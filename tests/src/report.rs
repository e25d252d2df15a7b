//! `dnspath report`: run on files or on a live session, and two reports of one session compared.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clock::wait_until;
use crate::process::{Process, bound_command, output_of};
use crate::tracer::binary;

/// Reports read files within this time, even on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Two vantages see one message this far apart, in seconds; far below any resolver's retry interval.
const APART_S: f64 = 0.05;

/// Runs `dnspath report` with these arguments on these files: its exit status and standard output.
///
/// # Errors
/// There is no binary, or it does not end by itself.
pub fn report(arguments: &[&str], files: &[impl AsRef<Path>]) -> Result<(i32, String)> {
    let mut command = bound_command(binary()?);
    command.arg("report").args(arguments).args(files.iter().map(|file| file.as_ref()));
    let output = output_of(&mut command, "", LIMIT)?;
    let status = output.status.code().context("dnspath report was killed")?;
    ensure!(status < 2, "dnspath report ended with {status}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((status, String::from_utf8(output.stdout).context("the report is not UTF-8")?))
}

/// The JSON report with every lookup.
///
/// # Errors
/// As [`report`], or it is not JSON.
pub fn report_json(arguments: &[&str], files: &[impl AsRef<Path>]) -> Result<Value> {
    let arguments: Vec<&str> = ["-o", "json", "--lookups"].iter().chain(arguments).copied().collect();
    serde_json::from_str(&report(&arguments, files)?.1).context("the report is not JSON")
}

/// A running `dnspath report` without files.
#[derive(Debug)]
pub struct LiveReport {
    process: Process,
    output: PathBuf,
}

impl LiveReport {
    /// Starts it with `arguments` besides `-o json --lookups`; its files go to `directory`. Returns once it has
    /// attached.
    ///
    /// # Errors
    /// There is no binary, or it does not get ready; the message has what it said.
    pub fn start(directory: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_by(bound_command(binary()?), directory, &[&["--lookups"], arguments].concat())
    }

    /// As [`LiveReport::start`], without the lookups.
    ///
    /// # Errors
    /// As there.
    pub fn start_plain(directory: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_by(bound_command(binary()?), directory, arguments)
    }

    /// As [`LiveReport::start_plain`], by a command that ends in the binary.
    ///
    /// # Errors
    /// As there.
    pub fn start_by(mut command: Command, directory: &Path, arguments: &[&str]) -> Result<Self> {
        let (ready, output) = (directory.join("report.ready"), directory.join("report.json"));
        let stdout = File::create(&output).context("cannot create the report's file")?;
        command.args(["report", "-o", "json", "--duration", "1h", "--ready-file"]).arg(&ready);
        command.args(arguments);
        let log = directory.join("report.log");
        let mut process = Process::spawn_with_stdout("dnspath report", &mut command, stdout.into(), &log)?;
        wait_until(Duration::from_secs(90), || ready.exists() || !process.is_running());
        if !ready.exists() {
            bail!("dnspath report {} did not get ready: {}", arguments.join(" "), process.log()?.trim());
        }
        Ok(Self { process, output })
    }

    /// Interrupts it and returns its report.
    ///
    /// # Errors
    /// It does not end, or what it printed is not JSON.
    pub fn finish(self) -> Result<Value> {
        Ok(self.finish_with_status()?.1)
    }

    /// Interrupts it and returns its exit status and its report.
    ///
    /// # Errors
    /// As [`LiveReport::finish`].
    pub fn finish_with_status(mut self) -> Result<(i32, Value)> {
        let status = self.process.stop(Signal::INT, Duration::from_secs(10))?;
        let Some(code @ (0 | 1)) = status.code() else {
            bail!("dnspath report ended with {status}: {}", self.process.log()?.trim());
        };
        let text = std::fs::read_to_string(&self.output).context("cannot read the report")?;
        Ok((code, serde_json::from_str(&text).context("the live report is not JSON")?))
    }
}

/// Repeated `--client` arguments.
pub fn clients(addresses: &[String]) -> Vec<&str> {
    addresses.iter().flat_map(|address| ["--client", address.as_str()]).collect()
}

/// Whether two reports say the same of one session: everything but times, latencies and frame numbers.
///
/// # Errors
/// What differs, the first of each kind.
pub fn same(one: &Value, other: &Value) -> Result<()> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, one: Value, other: Value| {
        if one != other {
            differences.push(format!("{what}: {one}\n  and {other}"));
        }
    };
    for (key, value) in one["totals"].as_object().context("no totals")? {
        // What the kernel dropped is in no capture of tcpdump's.
        if key != "drops" {
            compare(key, value.clone(), other["totals"][key].clone());
        }
    }
    compare("servers", servers(one), servers(other));
    let (ones, others) = (by_client(one)?, by_client(other)?);
    compare("lookups a client", counts(&ones), counts(&others));
    for (client, lookups) in &ones {
        for (a, b) in lookups.iter().zip(others.get(client).into_iter().flatten()) {
            let (mut one, mut other) = (without_times(a), without_times(b));
            // A cause that only the kernel tells, and a family for which the votes of one capture were too few: votes
            // weigh times, which tcpdump and dnspath take some microseconds apart.
            let told =
                |lookup: &Value| lookup["cause"].as_str().is_some_and(|cause| cause.contains("dropped"));
            if told(&one) || told(&other) {
                (one["cause"], other["cause"]) = (Value::Null, Value::Null);
            }
            if one["family"] == "unknown" || other["family"] == "unknown" {
                (one["family"], other["family"]) = (Value::Null, Value::Null);
            }
            compare(&format!("a lookup of {client}"), one, other);
            if let Some(apart) = apart(a, b) {
                compare("waits", json!(format!("{apart} s apart: {a}")), json!(b));
            }
        }
    }
    compare("findings", findings(one), findings(other));
    differences.truncate(6);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

fn list<'a>(report: &'a Value, key: &str) -> &'a [Value] {
    report[key].as_array().map_or(&[], Vec::as_slice)
}

fn servers(report: &Value) -> Value {
    let mut all: Vec<String> = list(report, "servers")
        .iter()
        .map(|s| json!([s["server"], s["queries"], s["answered"], s["unanswered"], s["rcodes"]]).to_string())
        .collect();
    all.sort();
    json!(all)
}

type ByClient<'a> = BTreeMap<&'a str, Vec<&'a Value>>;

/// The lookups by client, in the order of their start.
fn by_client(report: &Value) -> Result<ByClient<'_>> {
    let mut all = ByClient::new();
    for lookup in list(report, "lookups") {
        let client = lookup["client"].as_str().with_context(|| format!("no client: {lookup}"))?;
        all.entry(client).or_default().push(lookup);
    }
    Ok(all)
}

fn counts(all: &ByClient<'_>) -> Value {
    all.iter().map(|(client, lookups)| ((*client).to_owned(), json!(lookups.len()))).collect()
}

/// A lookup without what may differ: a file knows no pods. Its cause has latencies in words, so only what comes before them is kept.
fn without_times(lookup: &Value) -> Value {
    let mut lookup = lookup.clone();
    let kinds = |resent: &Value| resent["kind"].clone();
    lookup["retransmissions"] = list(&lookup, "retransmissions").iter().map(kinds).collect();
    lookup["gaps_s"] = json!(list(&lookup, "gaps_s").len());
    let cause = lookup["cause"].as_str().map(|cause| {
        cause.split(' ').filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect::<String>()
    });
    lookup["cause"] = json!(cause);
    if let Some(fields) = lookup.as_object_mut() {
        fields.retain(|key, _| !["start", "duration_s", "pod"].contains(&key.as_str()));
    }
    lookup
}

/// How far apart two waits of the same lookup are, where that is too far.
fn apart(one: &Value, other: &Value) -> Option<f64> {
    let waits = |lookup: &Value| -> Vec<f64> {
        let gaps = list(lookup, "gaps_s").iter().chain(std::iter::once(&lookup["duration_s"]));
        let resent = list(lookup, "retransmissions").iter().map(|resent| &resent["gap_s"]);
        gaps.chain(resent).filter_map(Value::as_f64).collect()
    };
    waits(one).into_iter().zip(waits(other)).map(|(a, b)| (a - b).abs()).find(|apart| *apart > APART_S)
}

/// The findings of `code` in a report.
pub fn of_code<'a>(report: &'a Value, code: &str) -> Vec<&'a Value> {
    list(report, "findings").iter().filter(|finding| finding["code"] == code).collect()
}

/// The findings without times, frame numbers, pods (which a file does not know), and the summary, which has waits in
/// words.
fn findings(report: &Value) -> Value {
    // Those that rest on the kernel's word alone, what a live session says of itself, and what is lost between places that
    // only some captures see.
    let of_kernel = |f: &&Value| {
        f["code"].as_str().is_some_and(|code| code.starts_with("DP30") || ["DP402", "DP902"].contains(&code))
    };
    let mut all: Vec<String> = list(report, "findings")
        .iter()
        .filter(|f| !of_kernel(f))
        .map(|f| {
            let mut subject = f["subject"].clone();
            if let Some(fields) = subject.as_object_mut() {
                fields
                    .retain(|key, _| !["pod", "pods", "server_pod", "service_name"].contains(&key.as_str()));
            }
            if f["code"] == "DP102" {
                // Its cause, and the advice on that, may be the kernel's word; who waited for what is not.
                if let Some(fields) = subject.as_object_mut() {
                    fields.remove("cause");
                }
                return json!([f["code"], f["severity"], subject, f["count"]]).to_string();
            }
            json!([f["code"], f["severity"], f["confidence"], subject, f["count"], f["advice"]]).to_string()
        })
        .collect();
    all.sort();
    json!(all)
}
