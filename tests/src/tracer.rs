//! The program under test: `dnspath`, started in the lab, and what it streams.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::clock::wait_until;
use crate::namespace::Namespace;
use crate::process::{Process, bound_command};
use crate::toolbox::target_directory;

/// A running `dnspath`.
#[derive(Debug)]
pub struct Tracer {
    process: Process,
    output: PathBuf,
}

/// What `dnspath` told until its end.
#[derive(Debug)]
pub struct Told {
    /// Its lines, each as JSON.
    pub lines: Vec<Value>,
    /// What it says it saw, lost, truncated, evicted.
    pub coverage: BTreeMap<String, u64>,
}

impl Told {
    /// The lines of one unit.
    pub fn unit(&self, unit: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["unit"] == unit)
    }

    /// One number of the coverage.
    ///
    /// # Errors
    /// It is not among those told.
    pub fn covered(&self, what: &str) -> Result<u64> {
        self.coverage
            .get(what)
            .copied()
            .with_context(|| format!("no {what} in the coverage: {:?}", self.coverage))
    }
}

/// Reads `name=number` words.
fn counts(text: &str) -> BTreeMap<String, u64> {
    text.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?)))
        .collect()
}

fn json_lines(file: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).context("cannot read dnspath's output")?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}")))
        .collect()
}

/// The `dnspath` to test: `DNSPATH_BIN`, else the release build, else the debug build.
///
/// # Errors
/// There is none: what to run, in words.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DNSPATH_BIN") {
        return Ok(PathBuf::from(path));
    }
    let target = target_directory();
    ["release/dnspath", "debug/dnspath"]
        .map(|path| target.join(path))
        .into_iter()
        .find(|path| path.exists())
        .context("there is no dnspath binary: build it, or set DNSPATH_BIN")
}

impl Tracer {
    /// Starts `dnspath stream -o json` on the network namespace of `namespace`, with `arguments` besides, and
    /// returns once it has attached.
    ///
    /// # Errors
    /// There is no binary, or it does not get ready; the message has what it said.
    pub fn stream(namespace: &Namespace, arguments: &[&str]) -> Result<Self> {
        let mut all = vec!["stream", "-o", "json", "--netns", namespace.name()];
        all.extend(arguments);
        Self::start(namespace.files(), &all)
    }

    /// Starts `dnspath` with these arguments and `--ready-file`; its files go to `directory`.
    ///
    /// # Errors
    /// As [`Tracer::stream`].
    pub fn start(directory: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_by(bound_command(binary()?), directory, arguments)
    }

    /// As [`Tracer::start`], by a command that ends in the binary.
    ///
    /// # Errors
    /// As [`Tracer::stream`].
    pub fn start_by(mut command: Command, directory: &Path, arguments: &[&str]) -> Result<Self> {
        let (ready, output) = (directory.join("dnspath.ready"), directory.join("dnspath.out"));
        if ready.exists() {
            std::fs::remove_file(&ready).context("cannot remove the old ready file")?;
        }
        let stdout = std::fs::File::create(&output).context("cannot create dnspath's output file")?;
        command.args(arguments).arg("--ready-file").arg(&ready);
        let log = directory.join("dnspath.log");
        let mut process = Process::spawn_with_stdout("dnspath", &mut command, stdout.into(), &log)?;
        wait_until(Duration::from_secs(90), || ready.exists() || !process.is_running());
        if !ready.exists() {
            bail!("dnspath {} did not get ready: {}", arguments.join(" "), process.log()?.trim());
        }
        Ok(Self { process, output })
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it said on standard error so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// What it printed so far, each line as JSON.
    ///
    /// # Errors
    /// A line is not JSON.
    pub fn lines(&self) -> Result<Vec<Value>> {
        json_lines(&self.output)
    }

    /// Interrupts it, waits for its end, and returns what it told.
    ///
    /// # Errors
    /// It does not end within 10 s, ends with status 2, a line is not JSON, or it does not tell its coverage.
    pub fn finish(self) -> Result<Told> {
        let output = self.output.clone();
        let coverage = self.finish_with_text()?.1;
        Ok(Told { lines: json_lines(&output)?, coverage })
    }

    /// As [`Tracer::finish`], but gives all it printed as it is, and its coverage.
    ///
    /// # Errors
    /// It does not end within 10 s, ends with status 2, or does not tell its coverage.
    pub fn finish_with_text(mut self) -> Result<(Vec<u8>, BTreeMap<String, u64>)> {
        let status = self.process.stop(Signal::INT, Duration::from_secs(10))?;
        let log = self.log()?;
        if !matches!(status.code(), Some(0 | 1)) {
            bail!("dnspath ended with {status}: {}", log.trim());
        }
        let coverage = log
            .lines()
            .find_map(|line| line.split_once("coverage: "))
            .with_context(|| format!("dnspath told no coverage: {}", log.trim()))?;
        let text = std::fs::read(&self.output).context("cannot read dnspath's output")?;
        Ok((text, counts(coverage.1)))
    }
}
