//! Instructions of a program as valgrind's callgrind counts them: the same each time, whatever else runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{line_of, output_of, run};
use crate::requirements::find;
use crate::toolbox::target_directory;

/// What the decoder may take for a frame, in instructions: a tenth more than it took when this was last lowered.
pub const DECODE_BUDGET: f64 = 680.0;
/// What the engine may take for a message with two sightings, in instructions; as above.
pub const ENGINE_BUDGET: f64 = 4_120.0;

/// What `dnspath report` may take for a packet of a file, in instructions; as above. A profile that is out of date, or is
/// not heeded (`profile/README.md`), takes a fifth more.
pub const REPORT_BUDGET: f64 = 5_000.0;

/// Traffic of which 20 seconds are counted, after as many that fill the tables: questions without an answer are let
/// go after 12 seconds, so that by then as many go as come.
const TRAFFIC: [&str; 2] = ["--lookups-per-second", "100"];
const FRAMES_A_MESSAGE: f64 = 2.0;
const WARM_UP: u64 = 40_000;
const COUNTED: u64 = 40_000;
const LIMIT: Duration = Duration::from_secs(600);

/// Instructions of each part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instructions {
    /// Of the decoder, for a frame.
    pub decode: f64,
    /// Of the engine, for a message with two sightings.
    pub engine: f64,
    /// Of `dnspath report`, for a packet.
    pub report: f64,
}

/// Why it cannot be counted here.
pub fn why_not() -> Option<String> {
    if find("valgrind").is_none() {
        return Some("valgrind is not installed".to_owned());
    }
    if std::env::var_os("RUSTC_WRAPPER").is_some() {
        return Some("RUSTC_WRAPPER is set: the release build has no profile (profile/README.md)".to_owned());
    }
    [program(), dnspath()].into_iter().find(|program| !program.exists()).map(|program| {
        format!("there is no {}: `cargo xtask bench engine` builds it and counts", program.display())
    })
}

/// Counts what the decoder and the engine of the release build take in steady state.
///
/// # Errors
/// valgrind or the program is missing, or fails.
pub fn count() -> Result<Instructions> {
    let steady = |count: &dyn Fn(u64) -> Result<f64>| -> Result<f64> {
        Ok((count(WARM_UP + COUNTED)? - count(WARM_UP)?) / COUNTED as f64)
    };
    let pass = |pass| steady(&|messages| of_pass(pass, messages));
    let (frames, decode, engine) = (pass("frames")?, pass("decode")?, pass("engine")?);
    Ok(Instructions {
        decode: (decode - frames) / FRAMES_A_MESSAGE,
        engine: engine - decode,
        report: steady(&of_report)?,
    })
}

fn program() -> PathBuf {
    target_directory().join("release/dnspath-bench")
}

fn dnspath() -> PathBuf {
    target_directory().join("release/dnspath")
}

fn of_pass(pass: &str, messages: u64) -> Result<f64> {
    let mut command = Command::new(program());
    command.args(["engine", "--pass", pass, "--messages", &messages.to_string()]).args(TRAFFIC);
    instructions(&command)
}

fn of_report(packets: u64) -> Result<f64> {
    let directory = tempfile::tempdir().context("cannot make a directory for a capture")?;
    let capture = directory.path().join("traffic.pcap");
    let mut generate = Command::new(program());
    generate.args(["generate", "--packets", &packets.to_string(), "--write"]).arg(&capture).args(TRAFFIC);
    run(&mut generate, LIMIT)?;
    let mut command = Command::new(dnspath());
    command.arg("report").arg(&capture);
    instructions(&command)
}

fn instructions(counted: &Command) -> Result<f64> {
    let directory = tempfile::tempdir().context("cannot make a directory for callgrind")?;
    let out = directory.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(counted.get_program()).args(counted.get_args());
    let output = output_of(&mut command, "", LIMIT)?;
    // A report that found something ends with 1.
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "{}: {}: {}",
        line_of(&command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    read(&out)
}

fn read(file: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let count = of_text(&text).with_context(|| format!("{} has no summary", file.display()))?;
    ensure!(count > 0.0, "callgrind counted nothing");
    Ok(count)
}

/// The line `summary: N`, or `totals: N` (Callgrind Format Specification).
fn of_text(text: &str) -> Option<f64> {
    let labelled = |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok());
    labelled("summary:").or_else(|| labelled("totals:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_read_by_its_label() {
        assert_eq!(of_text("version: 1\nevents: Ir\nsummary: 1234\n\nfn=(1) x\n1 5\n"), Some(1234.0));
        assert_eq!(of_text("events: Ir\n1 5\ntotals: 99\n"), Some(99.0));
        assert_eq!(of_text("events: Ir\n"), None);
    }
}
