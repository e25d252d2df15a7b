//! Kernel → wire → engine → sinks.

use crate::cli::options::{CheckOptions, ExitStatus, LiveOptions, ReportOptions, StreamOptions};
use anyhow::bail;

const NO_CAPTURE: &str = "cannot capture: this build has no live capture; give capture files to `dnspath report` or `dnspath stream`";

/// Shows the live screen.
///
/// # Errors
/// This build cannot capture.
pub fn tui(_live: LiveOptions) -> anyhow::Result<ExitStatus> {
    bail!(NO_CAPTURE)
}

/// Prints a line an event.
///
/// # Errors
/// This build cannot capture.
pub fn stream(_live: LiveOptions, _stream: StreamOptions) -> anyhow::Result<ExitStatus> {
    bail!(NO_CAPTURE)
}

/// Captures for a while and reports.
///
/// # Errors
/// This build cannot capture.
pub fn report(_live: LiveOptions, _report: ReportOptions) -> anyhow::Result<ExitStatus> {
    bail!(NO_CAPTURE)
}

/// Says what this node lets dnspath see.
///
/// # Errors
/// This build cannot capture.
pub fn check(_check: &CheckOptions) -> anyhow::Result<ExitStatus> {
    bail!(NO_CAPTURE)
}
