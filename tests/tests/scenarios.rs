//! The incidents of the field and what looks like them: of each, the first finding of the live report and of its recording's is
//! what the scenario says, and of a look-alike no incident is named.
//!
//! Scenarios in which the kernel drops nothing are played beside each other, in labs of their own. `--repeat N` plays
//! all of them N times; `--rate N` sets the load beside all incidents, in queries a second.

use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use dnspath_tests::clock;
use dnspath_tests::harness::{Outcome, Results, caught, list};
use dnspath_tests::requirements::{find, why_no_lab};
use dnspath_tests::scenarios::{ALL, Scenario, all_at_once, expect, session::Session};

/// Sessions beside each other; more would only wait for the CPU, and their labs for the kernel's RTNL lock.
const AT_ONCE: usize = 6;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut results = Results::default();
    let (repeat, rate) = match (number_after(&arguments, "--repeat"), number_after(&arguments, "--rate")) {
        (Ok(repeat), Ok(rate)) => (repeat.unwrap_or(1), rate),
        (Err(e), _) | (_, Err(e)) => {
            results.add("arguments", Duration::ZERO, Err(e));
            return results.end();
        }
    };
    let parts: Vec<&String> =
        arguments.iter().filter(|word| !word.starts_with('-') && word.parse::<u32>().is_err()).collect();
    let chosen: Vec<&Scenario> = ALL_SCENARIOS
        .iter()
        .filter(|scenario| parts.is_empty() || parts.iter().any(|part| scenario.name.contains(part.as_str())))
        .collect();
    let together = parts.is_empty() || parts.iter().any(|part| ALL_AT_ONCE.contains(part.as_str()));
    if arguments.iter().any(|word| word == "--list") {
        let of_all = together.then_some(ALL_AT_ONCE);
        return list(chosen.iter().map(|scenario| scenario.name).chain(of_all));
    }
    let (alone, beside): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|scenario| scenario.drops);
    for _ in 0..repeat {
        for beside in beside.chunks(AT_ONCE).chain(alone.chunks(1)) {
            play(beside, &mut results);
        }
        if together {
            let start = clock::now();
            let outcome = caught(|| all_at_once(rate));
            results.add(ALL_AT_ONCE, start.elapsed(), outcome);
        }
    }
    results.end()
}

const ALL_AT_ONCE: &str = "all-at-once";
/// Queries a second of the load beside all incidents: as many as are asked for, and what slower machines follow.
const RATES: [u32; 3] = [20_000, 10_000, 4_000];

static ALL_SCENARIOS: &[Scenario] = &ALL;

/// All incidents in one lab, under a load that is lowered until this machine can follow it.
fn all_at_once(rate: Option<u32>) -> Result<Outcome> {
    if let Some(reason) = why_no_lab().or_else(missing_for_load) {
        return Ok(Outcome::LeftOut(reason));
    }
    let mut tried = String::new();
    for rate in rate.map_or(RATES.to_vec(), |rate| vec![rate]) {
        let all = all_at_once::play(rate)?;
        if all.lost == 0 && all.load.lost == 0 {
            all.check()?;
            let (asked, incidents) = (all.load.queries_per_second, all.incidents);
            return Ok(Outcome::Measured(format!(
                "{incidents} incidents named at {asked:.0} queries/s{tried}"
            )));
        }
        tried
            .push_str(&format!("; at {rate}/s {} records and {} queries were lost", all.lost, all.load.lost));
    }
    bail!("this machine follows no load{tried}")
}

fn missing_for_load() -> Option<String> {
    let missing = ["dnsperf", "knotd"].into_iter().find(|tool| find(tool).is_none())?;
    Some(format!("{missing} is missing"))
}

/// The number after an option, where it is given.
fn number_after(arguments: &[String], option: &str) -> Result<Option<u32>> {
    let Some(at) = arguments.iter().position(|word| word == option) else { return Ok(None) };
    let number = arguments.get(at + 1).and_then(|number| number.parse().ok());
    number.map(Some).ok_or_else(|| anyhow!("{option} wants a number"))
}

/// Plays scenarios beside each other, each in a lab and a thread of its own. A lab is built, and taken down, while no
/// session runs: servers that start and end make the kernel drop packets.
fn play(scenarios: &[&Scenario], results: &mut Results) {
    let (built, played) = (Barrier::new(scenarios.len()), Barrier::new(scenarios.len()));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let (built, played) = (&built, &played);
        let started: Vec<_> =
            scenarios.iter().map(|scenario| scope.spawn(move || play_one(scenario, built, played))).collect();
        started.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("panicked"))).collect()
    });
    for (scenario, outcome) in scenarios.iter().zip(outcomes) {
        let (took, result) = outcome.unwrap_or_else(|e| (Duration::ZERO, Err(e)));
        results.add(scenario.name, took, result);
    }
}

fn play_one(scenario: &Scenario, built: &Barrier, played: &Barrier) -> (Duration, Result<Outcome>) {
    let start = clock::now();
    let mut lab = None;
    let ready = caught(|| {
        if let Some(reason) = why_no_lab().or_else(|| scenario.why_not()) {
            return Ok(Outcome::LeftOut(reason));
        }
        lab = Some(scenario.stage()?);
        Ok(Outcome::Passed)
    });
    built.wait();
    let mut kept = Vec::new();
    let result = ready.and_then(|outcome| {
        let Some(lab) = &lab else { return Ok(outcome) };
        caught(|| {
            let (session, mut happened) = Session::of(lab, scenario.arguments, || scenario.happen(lab))?;
            kept.append(&mut happened.kept);
            expect::first_finding(scenario, &session, &happened).map(Outcome::Measured).or_else(|wrong| {
                Err(wrong.context(format!("see {}", session.keep(scenario.name)?.display())))
            })
        })
    });
    played.wait();
    (start.elapsed(), result)
}
