//! Every file of `tests/scenarios`: what it expects, with another seed, and with its packets out of order.

use super::scenario::{Scenario, Step, read, run};
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    files
}

/// The packets as several rings would give them: each up to 45 ms late, deterministically.
fn disordered(scenario: &Scenario) -> Vec<Step> {
    let mut steps: Vec<(u64, Step)> = scenario
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let lag = (index as u64 * 7_919 % 46) * 1_000_000;
            match step {
                Step::See(sighting) => (sighting.time.as_nanos() + lag, step.clone()),
                Step::Drop(drop) => (drop.time.as_nanos() + lag, step.clone()),
                Step::Advance(now) => (now.as_nanos() + 46_000_000, step.clone()),
            }
        })
        .collect();
    steps.sort_by_key(|(arrival, _)| *arrival);
    steps.into_iter().map(|(_, step)| step).collect()
}

/// With `WRITE_SCENARIOS=1` the files are written anew with what was told: read the difference.
#[test]
fn each_scenario_is_told_as_its_file_says() {
    let files = files();
    assert!(files.len() > 20, "the scenarios are there");
    let mut wrong = vec![];
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let scenario = read(&text);
        let (told, counters) = run(&scenario, &scenario.steps, 1);
        assert_eq!(counters.opened, counters.closed, "{}", file.display());
        if std::env::var_os("WRITE_SCENARIOS").is_some() {
            let (input, _) = text.split_once("---\n").unwrap();
            std::fs::write(&file, format!("{input}---\n{told}")).unwrap();
            continue;
        }
        if told != scenario.expected {
            wrong.push(format!("{}\nexpected:\n{}told:\n{told}", file.display(), scenario.expected));
        }
        assert_eq!(run(&scenario, &scenario.steps, 2).0, told, "the seed matters: {}", file.display());
        let disordered = run(&scenario, &disordered(&scenario), 1).0;
        assert_eq!(disordered, told, "the order of packets matters: {}", file.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
