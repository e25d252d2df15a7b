//! Coded, evidenced statements about what is wrong.

mod cause;
#[cfg(test)]
pub(crate) mod testing;

pub use cause::cause;

use crate::model::Timestamp;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Costs time or load, or will break something.
    Warning,
    /// Somebody did not get an answer.
    Error,
}

impl Severity {
    /// The word of the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// The capture lost frames meanwhile, and the finding rests on something not seen.
    Inconclusive,
    /// One of several explanations.
    Low,
    /// The likely explanation.
    Medium,
    /// What the packets say.
    High,
}

impl Confidence {
    /// The word of the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inconclusive => "inconclusive",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One statement about what is wrong, with what a user needs to check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `DPnnn`: stable.
    pub code: &'static str,
    /// The code in words: stable.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// Whom or what it is about: `client`, `name`, `server` and so on, in this order.
    pub subject: Vec<(&'static str, String)>,
    /// How often it happened; the rule's doc says what is counted.
    pub count: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// What happened, in one sentence.
    pub summary: String,
    /// What to do about it.
    pub advice: String,
    /// Numbers of frames that show it; a few of possibly many.
    pub evidence: Vec<u64>,
}
