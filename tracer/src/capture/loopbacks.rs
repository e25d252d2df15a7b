//! The loopbacks inside pods (`--pod-loopback`): what a server asks itself is seen nowhere else.
//!
//! A thread with the privileges capture was started with asks four times a second which pods there are, and watches `lo` in
//! the namespaces that are new. A thread that is in a namespace keeps it alive, so one whose pod is gone is left; the reader
//! then takes what is still in its ring.

use super::{
    Interfaces,
    namespace::{Namespace, Settings, Shared},
    netns::{self, Netns},
    notes::Notes,
};
use crate::model::VantageId;
use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread::JoinHandle,
    time::Duration,
};

/// How often the pods are asked for.
const PAUSE: Duration = Duration::from_millis(250);
/// Namespaces watched at the same time; each costs a thread and a ring.
const MOST: usize = 256;
/// Octets of a ring; a loopback has little to tell.
const RING_OCTETS: u32 = 1 << 20;

/// A pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNamespace {
    /// The namespace's inode number.
    pub inode: u64,
    /// A file that refers to it.
    pub path: PathBuf,
    /// What its loopback's vantages are called by: the pod's address, by which its name is known.
    pub shown_as: String,
}

enum Change {
    Watched(u64, Box<Namespace>),
    Left(u64),
}

/// A watched loopback, with its vantages as the reader knows them.
pub(super) type Reading = (Namespace, HashMap<u32, VantageId, foldhash::fast::RandomState>);

/// Those that are watched.
pub(super) struct Loopbacks {
    pub(super) reading: HashMap<u64, Reading>,
    /// Left, and read to their end in the next round.
    pub(super) leaving: Vec<Reading>,
    /// Frames lost in those that are gone.
    lost_before: u64,
    changes: Receiver<Change>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Loopbacks {
    /// Starts the thread; returns once the pods that are there are watched.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        settings: Settings,
        pods: impl Fn() -> Vec<PodNamespace> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (tell, changes) = mpsc::channel();
        let (looked, first_look) = mpsc::sync_channel(1);
        let (stop, stopped) = mpsc::channel();
        let follower = Follower { settings, tell, watched: HashMap::new() };
        let thread = std::thread::Builder::new()
            .name("dnspath-loopbacks".into())
            .spawn(move || follower.run(pods, &stopped, &looked))?;
        // An error means that the thread ended: then there is nothing to wait for.
        let _ = first_look.recv();
        let (reading, leaving) = (HashMap::new(), Vec::new());
        let mut all =
            Self { reading, leaving, lost_before: 0, changes, stop: Some(stop), thread: Some(thread) };
        all.heed();
        Ok(all)
    }

    /// Takes over what is newly watched, and lets go of what was left and read.
    pub(super) fn heed(&mut self) {
        self.lost_before += self.leaving.drain(..).map(|(namespace, _)| lost(&namespace)).sum::<u64>();
        for change in self.changes.try_iter() {
            match change {
                Change::Watched(inode, namespace) => {
                    self.leaving.extend(self.reading.insert(inode, (*namespace, HashMap::default())));
                }
                Change::Left(inode) => self.leaving.extend(self.reading.remove(&inode)),
            }
        }
    }

    /// Frames lost because a ring was full.
    pub(super) fn lost(&self) -> u64 {
        let all = self.reading.values().chain(&self.leaving);
        self.lost_before + all.map(|(namespace, _)| lost(namespace)).sum::<u64>()
    }

    /// Detaches all; what is in the rings can still be read.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
        self.heed();
        // Detaching takes a while each: all at the same time.
        self.reading.values().for_each(|(namespace, _)| namespace.shared.request_stop());
        self.reading.values_mut().for_each(|(namespace, _)| namespace.stop());
    }
}

impl Drop for Loopbacks {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lost(namespace: &Namespace) -> u64 {
    namespace.shared.lost().iter().map(|(_, count)| count).sum()
}

/// The thread's state.
struct Follower {
    settings: Settings,
    tell: Sender<Change>,
    watched: HashMap<u64, Followed>,
}

struct Followed {
    path: PathBuf,
    /// `None` where it could not be watched.
    shared: Option<Arc<Shared>>,
    /// It was told to stop in the round before.
    leaving: bool,
}

impl Follower {
    fn run(mut self, pods: impl Fn() -> Vec<PodNamespace>, stopped: &Receiver<()>, looked: &SyncSender<()>) {
        loop {
            self.follow(&pods());
            // Only the first one is waited for.
            let _ = looked.try_send(());
            if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn follow(&mut self, pods: &[PodNamespace]) {
        let Self { watched, tell, .. } = self;
        watched.retain(|inode, followed| {
            if followed.leaving {
                // The reader is gone only when all ends.
                let _ = tell.send(Change::Left(*inode));
                return false;
            }
            followed.leaving =
                !(pods.iter().any(|pod| pod.inode == *inode) && is_there(*inode, &mut followed.path));
            if let Some(shared) = followed.shared.as_ref().filter(|_| followed.leaving) {
                shared.request_stop();
            }
            true
        });
        for pod in pods {
            if self.watched.contains_key(&pod.inode) || !refers_to(&pod.path, pod.inode) {
                continue;
            }
            if self.watched.len() >= MOST {
                self.note(&format!("the loopbacks of {MOST} pods are watched; those of others are not"));
                return;
            }
            let shared = self.watch(pod);
            let path = pod.path.clone();
            self.watched.insert(pod.inode, Followed { path, shared, leaving: false });
        }
    }

    fn watch(&self, pod: &PodNamespace) -> Option<Arc<Shared>> {
        let shown = pod.path.display().to_string();
        let watched = Namespace::watch(Settings {
            netns: Netns::Other { shown, path: pod.path.clone() },
            shown_as: Some(pod.shown_as.clone()),
            interfaces: Interfaces::loopback(),
            ring_octets: RING_OCTETS.min(self.settings.ring_octets),
            ..self.settings.clone()
        });
        match watched {
            Ok(namespace) => {
                let shared = Arc::clone(&namespace.shared);
                // The reader is gone only when all ends.
                let _ = self.tell.send(Change::Watched(pod.inode, Box::new(namespace)));
                Some(shared)
            }
            // A pod that lived for a moment.
            Err(_) if !refers_to(&pod.path, pod.inode) => None,
            Err(error) => {
                self.note(&format!("cannot watch the loopback of {}: {error}", pod.shown_as));
                None
            }
        }
    }

    fn note(&self, note: &str) {
        let notes: &Notes = &self.settings.notes;
        notes.add(note);
    }
}

/// Whether the file still refers to the namespace: processes end, and their numbers are used again.
fn refers_to(path: &Path, inode: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == inode)
}

/// Whether somebody besides this process's own threads keeps the namespace; `path` becomes a file that refers to it.
fn is_there(inode: u64, path: &mut PathBuf) -> bool {
    if refers_to(path, inode) {
        return true;
    }
    let by_process = netns::of_processes().into_iter().find(|(of, _)| *of == inode);
    let by_process = by_process.map(|(_, directory)| directory.join("ns/net"));
    let by_name = || {
        let named = netns::named().into_iter();
        named.filter_map(|netns| match netns {
            Netns::Other { path, .. } => Some(path),
            Netns::Own => None,
        })
    };
    let found = by_process.into_iter().chain(by_name()).find(|path| refers_to(path, inode));
    found.is_some_and(|found| {
        *path = found;
        true
    })
}
