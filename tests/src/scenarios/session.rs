//! A session on the node of a lab: what its live report and its recording's say.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::report::{LiveReport, report};
use crate::toolbox::target_directory;

/// What happened last has to be told yet when it is over.
const AFTERMATH: Duration = Duration::from_millis(500);

/// A session that has ended.
#[derive(Debug)]
pub struct Session {
    /// The live report.
    pub json: Value,
    /// The recording.
    pub recording: PathBuf,
    directory: tempfile::TempDir,
}

impl Session {
    /// Watches the node of `lab` during `play`, with these arguments besides; gives what `play` gave, too.
    ///
    /// # Errors
    /// `play` fails, or dnspath does not run.
    pub fn of<T>(lab: &Lab, arguments: &[&str], play: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let directory = tempfile::tempdir().context("cannot make a directory for the session")?;
        let recording = directory.path().join("session.pcapng");
        let path = recording.to_str().context("a path that is not UTF-8")?;
        let all: Vec<&str> = ["--netns", lab.node().name(), "-w", path, "--max-size", "2GB"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let live = LiveReport::start(directory.path(), &all)?;
        let played = play()?;
        sleep(AFTERMATH);
        let json = live.finish()?;
        Ok((Self { json, recording, directory }, played))
    }

    /// Checks that the report on the recording is the same octets as the live one.
    ///
    /// # Errors
    /// The first line that differs.
    pub fn same_again(&self) -> Result<()> {
        let live = self.directory.path().join("report.json");
        let printed = fs::read_to_string(live).context("no live report")?;
        let again = report(&["-o", "json", "--lookups"], &[&self.recording])?.1;
        for (one, other) in printed.lines().zip(again.lines()) {
            ensure!(one == other, "live {one}, from the recording {other}");
        }
        ensure!(printed == again, "one of the reports is longer");
        Ok(())
    }

    /// Keeps the recording, for somebody to look at; gives its path.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn keep(&self, name: &str) -> Result<PathBuf> {
        let kept = target_directory().join("lab").join(format!("{name}.pcapng"));
        fs::copy(&self.recording, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
        Ok(kept)
    }

    /// The report on the recording for people.
    ///
    /// # Errors
    /// dnspath does not run.
    pub fn text(&self) -> Result<String> {
        Ok(report(&[], &[&self.recording])?.1)
    }

    /// The report on the recording and on another one, as JSON.
    ///
    /// # Errors
    /// dnspath does not run.
    pub fn with(&self, other: &Path) -> Result<Value> {
        let text = report(&["-o", "json", "--lookups"], &[self.recording.as_path(), other])?.1;
        serde_json::from_str(&text).context("the report is not JSON")
    }
}

/// A report's findings.
pub fn findings(report: &Value) -> &[Value] {
    report["findings"].as_array().map_or(&[], Vec::as_slice)
}

/// The codes of a report's findings, in their order.
pub fn codes(report: &Value) -> Vec<&str> {
    findings(report).iter().filter_map(|finding| finding["code"].as_str()).collect()
}
