//! What a finding cost the users, by which findings are ranked.

use std::{fmt, ops::AddAssign, time::Duration};

/// A failed lookup weighs as much as this wait: glibc's whole patience, two tries of 5 s.
const FAILURE: Duration = Duration::from_secs(10);

/// Time that was waited for nothing, and lookups that failed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Waits of all lookups together: for answers that did not come, or came too late.
    pub waited: Duration,
    /// Lookups that ended without being told whether the name exists; NXDOMAIN is an answer.
    pub failed: u64,
}

impl Cost {
    /// Time alone.
    #[must_use]
    pub const fn waited(waited: Duration) -> Self {
        Self { waited, failed: 0 }
    }

    /// The cost as one number, to rank by.
    #[must_use]
    pub fn weight(self) -> Duration {
        let failed = u32::try_from(self.failed).unwrap_or(u32::MAX);
        self.waited.saturating_add(FAILURE.saturating_mul(failed))
    }

    /// The greater of both in either part: for two counts of the same lookups.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { waited: self.waited.max(other.waited), failed: self.failed.max(other.failed) }
    }

    /// Whether nothing is known to have been lost by it.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.waited.is_zero() && self.failed == 0
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.waited = self.waited.saturating_add(other.waited);
        self.failed = self.failed.saturating_add(other.failed);
    }
}

/// `5.003s`, `5.003s and 2 failed`.
impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.waited)?;
        match self.failed {
            0 => Ok(()),
            failed => write!(f, " and {failed} failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_lookup_weighs_more_than_a_wait_of_one_retry() {
        let failed = Cost { waited: Duration::ZERO, failed: 1 };
        assert!(failed.weight() > Cost::waited(Duration::from_secs(5)).weight());
        assert!(failed.weight() < Cost::waited(Duration::from_secs(11)).weight());
        let endless = Cost { waited: Duration::MAX, failed: u64::MAX };
        assert_eq!(endless.weight(), Duration::MAX);
    }
}
