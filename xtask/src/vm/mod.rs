//! `cargo xtask vm-test`: dnspath on the kernels that Debian has, each in a virtual machine of its own.
//!
//! The machine's file system is in memory: the lab's tools, the modules that its links and rules need, and the test
//! programs `kernel` and `exits` of the package `dnspath-tests`, which build the lab in there as they do anywhere.
//! Everything downloaded or made is below `target/vm`.

mod initramfs;
mod kernel;
mod machine;
mod newc;

use crate::{
    command::{binary, build_release, cargo, output, say, target},
    containerd, packages,
    test::Counts,
};
use anyhow::{Context, Result, bail};
use kernel::{Kernel, SERIES};
use machine::Run;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

/// What runs in each machine: a test program, and the parts of names that choose among its tests; none: all.
const TESTS: [(&str, &str); 2] = [("kernel", ""), ("exits", "killed")];

/// What runs on one of the kernels besides: a real containerd on cgroup v2.
const OF_CONTAINERD: (&str, &str) = ("node", "a_pod_that_was_there");
const CONTAINERD_ON: &str = "6.12";

/// The tests on a kernel.
fn tests_on(series: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    TESTS.into_iter().chain((series == CONTAINERD_ON).then_some(OF_CONTAINERD))
}

/// The lines of `/tests/list` on a kernel.
fn list_on(series: &str) -> String {
    tests_on(series).map(|(program, names)| format!("{program} {names}\n")).collect()
}

/// What this machine needs besides what the virtual one gets, and the Debian packages that have it.
const PROGRAMS: [(&str, &str); 6] = [
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// Machines that run at the same time. Each has two processors, which are idle for most of the time.
const AT_ONCE: usize = 2;

/// Which kernels.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only this series; repeatable [default: all]
    #[arg(long, value_parser = SERIES.map(|(series, _)| series))]
    kernel: Vec<String>,
}

/// What became of one kernel.
enum Outcome {
    /// Debian does not offer it any more, or it cannot be downloaded.
    LeftOut(anyhow::Error),
    /// It could not be booted at all.
    Failed(anyhow::Error),
    Ran(Kernel, Run),
}

struct Row {
    series: &'static str,
    outcome: Outcome,
}

/// `cargo xtask vm-test`: status 1 where a test failed or no kernel could be run.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(reason) = why_not()? {
        bail!("no virtual machines here: {reason}");
    }
    let counts = matrix(options)?;
    Ok(if counts.failed == 0 && counts.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why no kernel can be booted here, once what can be installed is installed.
pub(crate) fn why_not() -> Result<Option<String>> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Some("they are for x86-64".into()));
    }
    let programs: Vec<_> = PROGRAMS.iter().chain(&initramfs::PROGRAMS).copied().collect();
    packages::ensure_programs(&programs)?;
    let missing = packages::missing_programs(&programs);
    Ok((!missing.is_empty()).then(|| format!("these packages are missing: {}", missing.join(" "))))
}

/// Runs the tests on each kernel and prints a table. A kernel that Debian does not offer any more, or that cannot be
/// downloaded, counts as one test left out.
pub(crate) fn matrix(options: &Options) -> Result<Counts> {
    let folder = target().join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let programs = programs(&folder)?;
    let programs: Vec<_> = programs.iter().map(|(name, path)| (name.as_str(), path.clone())).collect();
    let system = initramfs::archive(&programs, &list_on(""))?;
    let chosen: Vec<_> = SERIES
        .into_iter()
        .filter(|(series, _)| options.kernel.is_empty() || options.kernel.iter().any(|one| one == series))
        .collect();
    let (waiting, rows) = (Mutex::new(chosen.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().map(|mut waiting| waiting.next()).ok().flatten();
                    let Some((series, suite)) = next else { break };
                    let outcome = test(series, suite, &system);
                    if let Ok(mut rows) = rows.lock() {
                        rows.push(Row { series, outcome });
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_default();
    rows.sort_by_key(|row| SERIES.iter().position(|(series, _)| *series == row.series));
    Ok(report(&rows))
}

fn test(series: &str, suite: &str, system: &[u8]) -> Outcome {
    match Kernel::get(series, suite) {
        Err(error) => Outcome::LeftOut(error),
        Ok(kernel) => match boot(series, &kernel, system) {
            Err(error) => Outcome::Failed(error),
            Ok(run) => Outcome::Ran(kernel, run),
        },
    }
}

fn boot(series: &str, kernel: &Kernel, system: &[u8]) -> Result<Run> {
    let initramfs = kernel.folder.join("initramfs");
    let modules = kernel.modules()?;
    let mut archive = fs::read(&modules).with_context(|| format!("cannot read {}", modules.display()))?;
    archive.extend(system);
    if series == CONTAINERD_ON {
        let programs = containerd::programs().unwrap_or_default();
        archive.extend(initramfs::with_containerd(&programs, &list_on(series))?);
    }
    fs::write(&initramfs, archive).with_context(|| format!("cannot write {}", initramfs.display()))?;
    machine::run(kernel, &initramfs)
}

/// The programs under test, by the names they get in the machine: `DNSPATH_BIN` or the release build, and the tests.
fn programs(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let dnspath = match std::env::var_os("DNSPATH_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            build_release(&["dnspath"])?;
            binary("dnspath")
        }
    };
    let mut programs = vec![("dnspath".to_owned(), initramfs::stripped(&dnspath, folder)?)];
    let mut build = cargo();
    build.args(["test", "--locked", "--no-run", "--quiet", "--message-format", "json"]);
    build.args(["--package", "dnspath-tests"]);
    for (name, _) in tests_on(CONTAINERD_ON) {
        build.args(["--test", name]);
    }
    for message in output(&mut build)?.lines() {
        // Other lines are the compiler's own.
        let Ok(message) = serde_json::from_str::<Value>(message) else { continue };
        let target = &message["target"];
        if let (Some(path), Some(name)) = (message["executable"].as_str(), target["name"].as_str())
            && target["kind"][0] == "test"
        {
            programs.push((name.to_owned(), initramfs::stripped(Path::new(path), folder)?));
        }
    }
    Ok(programs)
}

/// Prints what did not go well, then a line for each kernel; the sum of all tests.
fn report(rows: &[Row]) -> Counts {
    let mut all = Counts::default();
    let mut table = vec![format!(
        "{:<7} {:<28} {:>6} {:>6} {:>8} {:>7}",
        "kernel", "release", "passed", "failed", "left out", "seconds"
    )];
    for Row { series, outcome } in rows {
        let counts = match outcome {
            Outcome::LeftOut(error) => {
                table.push(format!("{series:<7} left out: {error:#}"));
                Counts { skipped: 1, ..Counts::default() }
            }
            Outcome::Failed(error) => {
                table.push(format!("{series:<7} FAILED: {error:#}"));
                Counts { failed: 1, ..Counts::default() }
            }
            Outcome::Ran(kernel, run) => {
                let counts = judged(series, kernel, run);
                table.push(format!(
                    "{series:<7} {:<28} {:>6} {:>6} {:>8} {:>7.0}",
                    kernel.release,
                    counts.passed,
                    counts.failed,
                    counts.skipped,
                    run.took.as_secs_f64()
                ));
                counts
            }
        };
        all.passed += counts.passed;
        all.failed += counts.failed;
        all.skipped += counts.skipped;
    }
    for line in table {
        say(&line);
    }
    all
}

/// The tests of one run; what the kernel complained about, and a run that did not come to its end, are failures.
fn judged(series: &str, kernel: &Kernel, run: &Run) -> Counts {
    let mut counts = Counts::default();
    for line in run.said.lines() {
        counts.add(line);
        let complaint = line.starts_with("@@kernel");
        counts.failed += u64::from(complaint);
        let again = line.contains(" passed, ") || line.starts_with("left out:");
        let plain = line.contains("... ok") || again || line.starts_with("@@");
        if complaint || !plain && !line.trim().is_empty() {
            say(&format!("{series}: {line}"));
        }
    }
    if !run.complete {
        counts.failed += 1;
        let told = kernel.folder.join("output");
        say(&format!(
            "{series}: FAILED: the machine did not come to its end in {} boots; see {} and the console beside it",
            run.boots,
            told.display()
        ));
    }
    for (program, _) in tests_on(series) {
        let status = run.said.lines().find_map(|line| line.strip_prefix(&format!("@@status {program} ")));
        if run.complete && status != Some("0") && counts.failed == 0 {
            counts.failed += 1;
            say(&format!("{series}: FAILED: {program} ended with status {}", status.unwrap_or("unknown")));
        }
    }
    counts
}
