//! Everything CI runs, with one closing line of counts.

use crate::{
    command::{build_release, cargo, is_root, say},
    containerd, packages, vm,
};
use anyhow::{Context, Result};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, ExitCode, Stdio},
};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out the end-to-end tests in the lab
    #[arg(long)]
    no_lab: bool,

    /// Leave out the tests on Debian's kernels in virtual machines
    #[arg(long)]
    no_vm: bool,
}

/// Test results, added up over all runners.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut counts = Counts::default();
    step(&mut counts, "format", cargo().args(["fmt", "--all", "--check"]))?;
    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]);
    step(&mut counts, "lints", &mut clippy)?;
    let mut unit = cargo();
    unit.args(["test", "--locked"]);
    for package in ["dnspath", "dnspath-ebpf", "dnspath-bench", "xtask"] {
        unit.args(["--package", package]);
    }
    tests(&mut counts, "unit, scenario and documentation tests", &mut unit)?;
    let mut documentation = cargo();
    documentation
        .args([
            "doc",
            "--locked",
            "--no-deps",
            "--quiet",
            "--package",
            "dnspath",
            "--package",
            "dnspath-ebpf",
        ])
        .env("RUSTDOCFLAGS", "--deny warnings");
    step(&mut counts, "documentation", &mut documentation)?;
    if options.no_lab {
        say("left out: end-to-end tests in the lab (--no-lab)");
        counts.skipped += 1;
    } else if !is_root() {
        say("left out: end-to-end tests in the lab, which need root for network namespaces and eBPF");
        counts.skipped += 1;
    } else {
        packages::ensure()?;
        build_release(&["dnspath", "dnspath-tests", "dnspath-bench"])?;
        let mut lab = cargo();
        lab.args(["test", "--locked", "--package", "dnspath-tests", "--no-fail-fast"]);
        lab.envs(containerd::ensure().map(|folder| (containerd::VARIABLE, folder)));
        tests(&mut counts, "end-to-end tests in the lab", &mut lab)?;
    }
    on_other_kernels(&mut counts, options)?;
    let Counts { passed, failed, skipped } = counts;
    // CI reads this line.
    writeln!(std::io::stdout(), "{passed} passed, {failed} failed, {skipped} skipped")?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kernel matrix, where it can be had.
fn on_other_kernels(counts: &mut Counts, options: &Options) -> Result<()> {
    let reason = if options.no_vm { Some("--no-vm".to_owned()) } else { vm::why_not()? };
    if let Some(reason) = reason {
        say(&format!("left out: tests on Debian's kernels in virtual machines ({reason})"));
        counts.skipped += 1;
        return Ok(());
    }
    say("== tests on Debian's kernels in virtual machines");
    let of_all = vm::matrix(&vm::Options::default())?;
    counts.passed += of_all.passed;
    counts.failed += of_all.failed;
    counts.skipped += of_all.skipped;
    Ok(())
}

/// One check that passes or fails as a whole.
fn step(counts: &mut Counts, what: &str, command: &mut Command) -> Result<()> {
    say(&format!("== {what}"));
    let status = command.status().with_context(|| format!("cannot start the step: {what}"))?;
    if status.success() {
        counts.passed += 1;
    } else {
        say(&format!("FAILED: {what}"));
        counts.failed += 1;
    }
    Ok(())
}

/// A run of test binaries, whose result lines are shown and added up.
fn tests(counts: &mut Counts, what: &str, command: &mut Command) -> Result<()> {
    say(&format!("== {what}"));
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start the tests: {what}"))?;
    let before = counts.failed;
    let stdout = child.stdout.take().context("the tests have no stdout")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read the tests' output")?;
        counts.add(&line);
        if !line.ends_with("... ok") && !line.trim().is_empty() {
            say(&line);
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for the tests: {what}"))?;
    // A runner that died before its result line counts as one failure.
    if !status.success() && counts.failed == before {
        say(&format!("FAILED: {what}"));
        counts.failed += 1;
    }
    Ok(())
}

impl Counts {
    /// Adds a result line: cargo's `test result: ok. 3 passed; 0 failed; 1 ignored`, or the lab's
    /// `3 passed, 0 failed, 1 left out`.
    pub(crate) fn add(&mut self, line: &str) {
        let summary =
            line.strip_prefix("test result:").or_else(|| line.contains(" passed, ").then_some(line));
        let Some(summary) = summary else { return };
        let words: Vec<&str> = summary.split([' ', ';', ',', '.']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let [number, what] = pair else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match *what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" | "skipped" | "left" => self.skipped += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_result_lines_are_added() {
        let mut counts = Counts::default();
        counts.add(
            "test result: ok. 30 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.3s",
        );
        counts.add("5 passed, 2 failed, 1 left out");
        counts.add("test some::thing ... ok");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (35, 3, 3));
    }
}
