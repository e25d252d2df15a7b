//! Files → wire → engine → sinks.

use crate::cli::options::{ExitStatus, FileOptions, ReportOptions, StreamOptions};
use anyhow::bail;
use std::io::Write;

const NO_FILES: &str = "cannot read capture files: this build has no reader; use a later build";

/// Prints a line an event of capture files.
///
/// # Errors
/// This build cannot read files.
pub fn stream(_files: FileOptions, _stream: &StreamOptions, _to: impl Write) -> anyhow::Result<ExitStatus> {
    bail!(NO_FILES)
}

/// Reports what is wrong in capture files.
///
/// # Errors
/// This build cannot read files.
pub fn report(_files: FileOptions, _report: &ReportOptions, _to: impl Write) -> anyhow::Result<ExitStatus> {
    bail!(NO_FILES)
}
