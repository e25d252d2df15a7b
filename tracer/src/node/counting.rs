//! Counts packet rules while a session lasts.
//!
//! A thread of its own lists them at the start, once a minute, and at the end. Listing 180,000 rules takes seconds, so it
//! has the lowest priority, rests twenty times as long as it took, and a session's end waits a moment at most. Who cannot
//! list them, or not within the bounds of `rules`, is not counted further: a note says so.

use super::{
    links::{Watched, enter},
    rules::Rules,
};
use crate::model::{RuleCount, Timestamp};
use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

/// How often rules are counted at most.
const EVERY: Duration = Duration::from_secs(60);
/// Counting may take this part of the time.
const REST: u32 = 20;
/// What took longer is not done once more at the end.
const SHORT: Duration = Duration::from_millis(500);
/// How long the end of a session waits for the last count.
const MOMENT: Duration = Duration::from_secs(1);
/// Counts that wait to be heeded.
const WAITING: usize = 64;

/// The running thread. It ends soon after this is dropped.
pub struct Counting {
    counts: mpsc::Receiver<RuleCount>,
    /// Dropped: the session ends.
    session: Option<mpsc::Sender<()>>,
}

impl Counting {
    /// Starts to count the rules of these namespaces. `note` takes what the user should know; `now` is a clock.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        watched: Vec<Watched>,
        note: impl Fn(&str) + Send + 'static,
        now: fn() -> Timestamp,
    ) -> io::Result<Self> {
        let (tell, counts) = mpsc::sync_channel(WAITING);
        let (session, end) = mpsc::channel();
        std::thread::Builder::new().name("dnspath-rules".into()).spawn(move || {
            // Where it is refused, the counts come with more haste.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
            run(watched, &note, now, &tell, &end);
        })?;
        Ok(Self { counts, session: Some(session) })
    }

    /// What was counted since the last time.
    pub fn fresh(&self) -> impl Iterator<Item = RuleCount> {
        self.counts.try_iter()
    }

    /// Ends it: the last counts, as far as they are there within a moment.
    #[must_use]
    pub fn finish(mut self) -> Vec<RuleCount> {
        self.session = None;
        let mut last = Vec::new();
        // The thread ends after the last one, which ends this.
        while let Ok(count) = self.counts.recv_timeout(MOMENT) {
            last.push(count);
        }
        last
    }
}

fn run(
    mut watched: Vec<Watched>,
    note: &impl Fn(&str),
    now: fn() -> Timestamp,
    tell: &mpsc::SyncSender<RuleCount>,
    end: &mpsc::Receiver<()>,
) {
    let mut is_last = false;
    loop {
        let started = now();
        watched.retain(|watched| match count(watched) {
            // One that finds no room is followed by others.
            Ok(count) => !matches!(tell.try_send(count), Err(mpsc::TrySendError::Disconnected(_))),
            Err(error) => {
                note(&format!("the packet rules of {} are not counted (DP502): {error}", watched.name));
                false
            }
        });
        if is_last || watched.is_empty() {
            return;
        }
        let took = now().since(started);
        is_last = end.recv_timeout(EVERY.max(took * REST)) != Err(RecvTimeoutError::Timeout);
        if is_last && took > SHORT {
            return;
        }
    }
}

fn count(watched: &Watched) -> io::Result<RuleCount> {
    std::thread::scope(|scope| {
        // A thread of its own: entering a namespace is for good, and a process started here is in it too.
        let listed = scope.spawn(|| {
            enter(watched)?;
            Ok(Rules::list()?.counted(&watched.name))
        });
        listed.join().unwrap_or_else(|_| Err(io::Error::other("the thread that lists them failed")))
    })
}
