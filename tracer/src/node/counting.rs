//! Counts packet rules while a session lasts, and tells the services that kube-proxy made.
//!
//! A thread of its own lists them at the start, once a minute, and at the end. Listing 180,000 rules takes seconds, so it
//! has the lowest priority, rests twenty times as long as it took, and a session's end waits a moment at most. Rules
//! that cannot be listed, or not within the bounds of `rules`, are not counted further: a note says so.

use super::{
    links::{Watched, enter},
    rules::Rules,
    services::Proxy,
};
use crate::model::{RuleCount, Service, Timestamp};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
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

/// What was found in one namespace.
#[derive(Debug)]
pub struct Counted {
    /// Its rules; `None` where they cannot be listed.
    pub rules: Option<RuleCount>,
    /// The services that are new or have changed since the last time.
    pub services: Vec<Service>,
}

/// The running thread. It ends soon after this is dropped.
pub struct Counting {
    counts: mpsc::Receiver<Counted>,
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
    pub fn fresh(&self) -> impl Iterator<Item = Counted> {
        self.counts.try_iter()
    }

    /// Ends it: the last counts, as far as they are there within a moment.
    #[must_use]
    pub fn finish(mut self) -> Vec<Counted> {
        self.session = None;
        let mut last = Vec::new();
        // The thread ends after the last one, which ends this.
        while let Ok(count) = self.counts.recv_timeout(MOMENT) {
            last.push(count);
        }
        last
    }
}

/// A watched namespace, as it was the last time.
struct Place {
    watched: Watched,
    /// Its rules could be listed so far.
    counts: bool,
    told: HashMap<SocketAddr, Service>,
}

fn run(
    watched: Vec<Watched>,
    note: &impl Fn(&str),
    now: fn() -> Timestamp,
    tell: &mpsc::SyncSender<Counted>,
    end: &mpsc::Receiver<()>,
) {
    let mut places: Vec<Place> =
        watched.into_iter().map(|watched| Place { watched, counts: true, told: HashMap::new() }).collect();
    let mut is_last = false;
    loop {
        let started = now();
        places.retain_mut(|place| match place.look(note) {
            Ok(counted) => {
                let services = counted.services.clone();
                match tell.try_send(counted) {
                    Ok(()) => {
                        place.told.extend(services.into_iter().map(|service| (service.address, service)))
                    }
                    // One that finds no room is followed by others.
                    Err(mpsc::TrySendError::Full(_)) => {}
                    Err(mpsc::TrySendError::Disconnected(_)) => return false,
                }
                true
            }
            Err(error) => {
                note(&format!("the rules and services of {} are not read: {error}", place.watched.name));
                false
            }
        });
        if is_last || places.is_empty() {
            return;
        }
        let took = now().since(started);
        is_last = end.recv_timeout(EVERY.max(took * REST)) != Err(RecvTimeoutError::Timeout);
        if is_last && took > SHORT {
            return;
        }
    }
}

impl Place {
    /// Lists its rules and services; an error where it cannot be entered.
    fn look(&mut self, note: &impl Fn(&str)) -> io::Result<Counted> {
        let (watched, counts) = (&self.watched, self.counts);
        let (rules, proxy) = std::thread::scope(|scope| {
            // A thread of its own: entering a namespace is for good, and a process started here is in it too.
            let listed = scope.spawn(|| {
                enter(watched)?;
                let rules = counts.then(Rules::list);
                let proxy = Proxy::look(rules.as_ref().and_then(|rules| rules.as_ref().ok()));
                Ok((rules, proxy))
            });
            listed.join().unwrap_or_else(|_| Err(io::Error::other("the thread that lists them failed")))
        })?;
        let name = &self.watched.name;
        let rules = match rules {
            Some(Ok(rules)) => Some(rules.counted(name)),
            Some(Err(error)) => {
                note(&format!("the packet rules of {name} are not counted (DP502): {error}"));
                self.counts = false;
                None
            }
            None => None,
        };
        let mut services = proxy.told();
        services.retain(|service| self.told.get(&service.address) != Some(service));
        Ok(Counted { rules, services })
    }
}
