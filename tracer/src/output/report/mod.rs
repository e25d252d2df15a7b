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
    model::{Coverage, Pods, Timestamp, Vantages},
    stats::Stats,
};
use std::{net::IpAddr, sync::Arc};

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
    /// Who has which address.
    pub names: &'a Pods,
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

    /// The `NAMESPACE/NAME` of the service at an address, as it was at the window's end.
    fn service(&self, address: IpAddr) -> Option<Arc<str>> {
        let at = self.window.map_or(Timestamp::EPOCH, |(_, to)| to);
        self.names.services().name_at(address, None, at)
    }

    /// An address, and before it the name of the service that has it.
    fn server_name(&self, address: IpAddr) -> String {
        self.service(address).map_or_else(|| address.to_string(), |name| format!("{name} ({address})"))
    }

    /// The worst severity found.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

#[cfg(test)]
mod tests;
