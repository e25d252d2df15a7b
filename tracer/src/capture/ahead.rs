//! The turn of whoever reads the ring: what it cannot hold meanwhile is lost.
//!
//! A node in trouble has busy CPUs, and the reader waits for its turn among all that make the load. It works a few
//! milliseconds at a time. Everything here is tried: without it there is loss, counted, only where CPUs are full.

use std::{fs, path::PathBuf};

/// Nice value of a thread that must not wait, and of its terminal session.
const AHEAD: i32 = -10;
/// Where the kernel shares out time by sessions (sched(7), autogroup), a thread's nice value counts in its own session
/// alone: a screen in a terminal of its own lost a tenth of a full load.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// The terminal session's place before others, for as long as this is kept.
#[derive(Debug)]
pub struct Ahead {
    /// Where to undo it; `None` where nothing was done.
    session: Option<PathBuf>,
}

impl Ahead {
    /// Puts the calling thread and its session ahead of ordinary ones, where it may be (CAP_SYS_NICE).
    #[must_use]
    pub fn go() -> Self {
        let _ = rustix::process::setpriority_process(None, AHEAD);
        Self::of_session(AUTOGROUP.into())
    }

    /// A session that somebody gave another place keeps it.
    fn of_session(file: PathBuf) -> Self {
        let is_ordinary = fs::read_to_string(&file).is_ok_and(|line| line.trim_end().ends_with(" nice 0"));
        let is_ahead = is_ordinary && fs::write(&file, AHEAD.to_string()).is_ok();
        Self { session: is_ahead.then_some(file) }
    }

    /// Undoes it for a thread that only shows things.
    pub fn fall_back() {
        let _ = rustix::process::setpriority_process(None, 0);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            // An ordinary place is everybody's to take.
            let _ = fs::write(session, "0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_session_is_ahead_for_a_while_and_another_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("autogroup");
        let place = || fs::read_to_string(&file).unwrap();
        for (before, meanwhile, after) in [
            ("/autogroup-12 nice 0\n", "-10", "0"),
            ("/autogroup-12 nice -5\n", "/autogroup-12 nice -5\n", "/autogroup-12 nice -5\n"),
        ] {
            fs::write(&file, before).unwrap();
            let ahead = Ahead::of_session(file.clone());
            assert_eq!(place(), meanwhile);
            drop(ahead);
            assert_eq!(place(), after);
        }
        assert!(Ahead::of_session(folder.path().join("none")).session.is_none());
    }
}
