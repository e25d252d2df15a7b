//! The one place of this crate that reads a clock: the lab waits for real processes.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Now.
#[expect(clippy::disallowed_methods, reason = "the lab waits for processes: it has no other source of time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Calls `done` every 2 ms until it says true; false when `limit` passed first.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        sleep(Duration::from_millis(2));
    }
}
