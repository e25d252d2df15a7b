//! What `dnspath check` says of one thing.

/// How one thing was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Capture works, but sees less.
    Limited,
    /// Something on this node will cost lookups, whoever watches.
    Wrong,
    /// No capture.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What: a word or two, stable.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub hint: String,
}

impl Check {
    /// As it should be.
    #[must_use]
    pub fn fine(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fine, found: found.into(), hint: String::new() }
    }

    /// Capture works, but sees less.
    #[must_use]
    pub fn limited(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self { name, verdict: Verdict::Limited, found: found.into(), hint: hint.into() }
    }

    /// Something on this node will cost lookups.
    #[must_use]
    pub fn wrong(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self { name, verdict: Verdict::Wrong, found: found.into(), hint: hint.into() }
    }

    /// No capture.
    #[must_use]
    pub fn missing(name: &'static str, found: impl Into<String>, hint: &str) -> Self {
        Self { name, verdict: Verdict::Missing, found: found.into(), hint: hint.into() }
    }
}
