//! What machine it is, and what else it does.

use super::{Extent, commit};
use serde_json::{Value, json};
use std::{fmt::Write as _, fs, thread::sleep, time::Duration};

/// How long to look at what others do.
const LOOK: Duration = Duration::from_secs(2);

/// Share of all processors' time that is in use now, in percent.
pub(crate) fn busy_percent() -> f64 {
    let read = || busy_and_all(&fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or_default();
    let before = read();
    sleep(LOOK);
    let after = read();
    100.0 * (after.0 - before.0) / (after.1 - before.1).max(1.0)
}

/// Ticks that were not idle, and all, from the first line of `/proc/stat`: user, nice, system, idle, iowait, irq,
/// softirq, steal; guests are in user already.
fn busy_and_all(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    let all: f64 = ticks.iter().sum();
    (ticks.len() == 8).then(|| (all - ticks[3] - ticks[4], all))
}

/// What the numbers depend on.
pub(crate) fn facts(extent: &Extent) -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    json!({
        "commit": commit(),
        "kernel": kernel.trim(),
        "os": value_of(&os, "PRETTY_NAME", '=').map(|name| name.trim_matches('"').to_owned()),
        "cpu": value_of(&cpuinfo, "model name", ':'),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_mib": value_of(&meminfo, "MemTotal", ':')
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .map(|kib| kib / 1024),
        "pairs": extent.pairs,
        "seconds": extent.seconds,
        "quick": extent.quick,
    })
}

fn value_of(text: &str, name: &str, separator: char) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(separator)?.1.trim().to_owned())
}

/// The facts as a list.
pub(crate) fn markdown(facts: &Value) -> String {
    let text = |key: &str| match &facts[key] {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    };
    let mut list = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        list,
        "- {} processors ({}), {} MiB of memory, Linux {}, {}.",
        text("cpus"),
        text("cpu"),
        text("memory_mib"),
        text("kernel"),
        text("os")
    );
    let quick =
        if facts["quick"] == true { ", `--quick`: these numbers show only that it works" } else { "" };
    let _ = writeln!(
        list,
        "- dnspath at {}, {} rounds, {} s of load in each live measurement{quick}.",
        text("commit"),
        text("pairs"),
        text("seconds")
    );
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_ticks_are_not_busy() {
        let text = "cpu  10 20 30 400 50 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(busy_and_all(text), Some((81.0, 531.0)));
        assert_eq!(busy_and_all("intr 1"), None);
    }

    #[test]
    fn facts_are_read_by_name() {
        assert_eq!(value_of("model name\t: Xeon : 2\n", "model name", ':').as_deref(), Some("Xeon : 2"));
        assert_eq!(value_of("x", "model name", ':'), None);
    }
}
