//! What is wrong in a time window: text and a page for people, JSON for programs. The same events make the same octets.

mod baseline;
mod clocks;
mod html;
mod json;
mod lookups;
mod text;

pub use baseline::{Baseline, Known};
pub use clocks::ClockView;
pub use html::Page;
pub use lookups::LookupLog;

use crate::{
    findings::{Finding, Severity},
    model::{Coverage, Timestamp, Vantages},
    stats::Stats,
};

/// Everything a report says, gathered when the session has ended.
#[derive(Debug)]
pub struct Report<'a> {
    /// Where the frames came from: paths as given, or interfaces.
    pub sources: &'a [String],
    /// The time looked at: what was selected, or from the first to the last frame. `None`: no frame was seen.
    pub window: Option<(Timestamp, Timestamp)>,
    /// What was seen and what was not.
    pub coverage: Coverage,
    /// A source ended inside a record.
    pub cut: bool,
    /// How the clocks of several files differ.
    pub clocks: &'a [ClockView],
    /// What was counted.
    pub stats: &'a Stats,
    /// What is wrong, ranked, and behind it what that explains.
    pub findings: &'a [Finding],
    /// Where frames were seen: with several files, which one a frame number is of.
    pub vantages: &'a Vantages,
    /// The time before the window, where some of it was seen.
    pub baseline: Option<&'a Baseline<'a>>,
    /// Every lookup, where they are wanted.
    pub lookups: Option<&'a LookupLog>,
}

impl Report<'_> {
    /// The findings that nothing else explains.
    fn unexplained(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.explained_by.is_none())
    }

    /// The worst severity found.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

#[cfg(test)]
mod tests;
