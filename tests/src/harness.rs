//! A test runner that knows a third result: left out, with the reason. A machine without root or without a tool
//! says so in the summary rather than passing.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::Result;

use crate::clock;
use crate::requirements::why_no_lab;

/// How a test ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What it checks is so.
    Passed,
    /// What it checks is so, and what was measured on the way.
    Measured(String),
    /// It could not be run here, and why.
    LeftOut(String),
}

/// One test: its name and what it does.
pub type Test = (&'static str, fn() -> Result<Outcome>);

/// Runs tests one after another in this thread and prints `N passed, N failed, N left out` with each reason.
/// Arguments that do not begin with `-` are parts of names to run; `--list` prints the names.
pub fn run(tests: &[Test]) -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let list = arguments.iter().any(|argument| argument == "--list");
    arguments.retain(|argument| !argument.starts_with('-'));
    let chosen: Vec<_> = tests
        .iter()
        .filter(|(name, _)| arguments.is_empty() || arguments.iter().any(|part| name.contains(part.as_str())))
        .collect();
    let mut out = std::io::stdout();
    if list {
        for (name, _) in chosen {
            // A closed pipe is the reader's choice, here and below.
            let _ = writeln!(out, "{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let why_not = why_no_lab();
    let (mut passed, mut failed, mut left_out) = (0_usize, Vec::new(), Vec::new());
    for (name, test) in chosen {
        let start = clock::now();
        let result = match &why_not {
            Some(reason) => Ok(Ok(Outcome::LeftOut(reason.clone()))),
            None => catch_unwind(AssertUnwindSafe(test)),
        };
        let seconds = start.elapsed().as_secs_f64();
        let line = match result {
            Ok(Ok(Outcome::Passed)) => {
                passed += 1;
                "ok".to_owned()
            }
            Ok(Ok(Outcome::Measured(what))) => {
                passed += 1;
                format!("ok: {what}")
            }
            Ok(Ok(Outcome::LeftOut(reason))) => {
                left_out.push((name, reason.clone()));
                format!("left out: {reason}")
            }
            Ok(Err(e)) => {
                failed.push(name);
                format!("FAILED: {e:#}")
            }
            Err(_) => {
                failed.push(name);
                "FAILED: panicked".to_owned()
            }
        };
        let _ = writeln!(out, "test {name} ... {line} ({seconds:.2} s)");
    }
    for (name, reason) in &left_out {
        let _ = writeln!(out, "left out: {name}: {reason}");
    }
    let _ = writeln!(
        out,
        "{passed} passed, {} failed, {} left out{}",
        failed.len(),
        left_out.len(),
        if failed.is_empty() { String::new() } else { format!("; failed: {failed:?}") }
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
