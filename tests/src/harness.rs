//! A test runner that knows a third result: left out, with the reason. A machine without root or without a tool
//! says so in the summary rather than passing.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, anyhow};

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()));
    let chosen = tests.iter().filter(|(name, _)| chosen(name));
    if arguments.iter().any(|argument| argument == "--list") {
        return list(chosen.map(|(name, _)| *name));
    }
    let why_not = why_no_lab();
    let mut results = Results::default();
    for (name, test) in chosen {
        let start = clock::now();
        let result = match &why_not {
            Some(reason) => Ok(Outcome::LeftOut(reason.clone())),
            None => caught(test),
        };
        results.add(name, start.elapsed(), result);
    }
    results.end()
}

/// Prints names of tests, as Rust's own harness does.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> ExitCode {
    for name in names {
        say(&format!("{name}: test"));
    }
    ExitCode::SUCCESS
}

/// What a test gives; a panic is an error.
///
/// # Errors
/// The test's own.
pub fn caught(test: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    catch_unwind(AssertUnwindSafe(test)).unwrap_or_else(|_| Err(anyhow!("panicked")))
}

/// What several tests share, made by the first of them.
#[derive(Debug)]
pub struct Shared<T>(OnceLock<Result<Result<T, String>>>);

impl<T> Shared<T> {
    /// Nothing is made yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// What `make` gave the first time; the inner `Err` is the reason why it is left out.
    ///
    /// # Errors
    /// Making it failed.
    pub fn get(&self, make: impl FnOnce() -> Result<Result<T, String>>) -> Result<Result<&T, String>> {
        match self.0.get_or_init(make) {
            Ok(made) => Ok(made.as_ref().map_err(Clone::clone)),
            Err(e) => Err(anyhow!("what the tests share failed: {e:#}")),
        }
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn say(line: &str) {
    // A closed pipe is the reader's choice.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What became of the tests so far.
#[derive(Debug, Default)]
pub struct Results {
    passed: usize,
    failed: Vec<String>,
    left_out: Vec<String>,
}

impl Results {
    /// Counts a test and prints its line.
    pub fn add(&mut self, name: &str, took: Duration, result: Result<Outcome>) {
        let line = match result {
            Ok(Outcome::Passed) => {
                self.passed += 1;
                "ok".to_owned()
            }
            Ok(Outcome::Measured(what)) => {
                self.passed += 1;
                format!("ok: {what}")
            }
            Ok(Outcome::LeftOut(reason)) => {
                self.left_out.push(format!("{name}: {reason}"));
                format!("left out: {reason}")
            }
            Err(e) => {
                self.failed.push(name.to_owned());
                format!("FAILED: {e:#}")
            }
        };
        say(&format!("test {name} ... {line} ({:.2} s)", took.as_secs_f64()));
    }

    /// Prints what was left out, and the sums.
    #[must_use]
    pub fn end(self) -> ExitCode {
        let Self { passed, failed, left_out } = self;
        for one in &left_out {
            say(&format!("left out: {one}"));
        }
        let names = if failed.is_empty() { String::new() } else { format!("; failed: {failed:?}") };
        say(&format!("{passed} passed, {} failed, {} left out{names}", failed.len(), left_out.len()));
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
