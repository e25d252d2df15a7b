//! The thread that follows who is who.
//!
//! It lives beside capture, in a thread of its own with the privileges it was started with: each look at the node joins
//! the kernel's view (`links`) with what the node's files say (`naming`), and tells the result (`census`). It looks when
//! the kernel told of an interface, again and less and less often while something there has no name yet (a pod's
//! network is made before its first process), and every five seconds.

use super::{
    addresses,
    arrivals::{Arrivals, Waiting},
    containers::Asking,
    links::{self, Links, Listener, Watched},
    naming::{Look, Namer},
    processes::netns_of,
    resolvers::Resolvers,
    roots::{Roots, read_made},
    town::{Key, RESYNC, SOON, Town, soon},
};
use crate::model::{Pods, Resolver, Timestamp};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::IpAddr,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{sync::Notify, time};

pub use super::town::{Counts, Inside};

/// News that come together are one look.
const TOGETHER: Duration = Duration::from_millis(30);
/// How long the start waits for the first look.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// `/proc/PID/net/fib_trie` of a pod has a few dozen lines; a router's may be large.
const PROC_NET_MAX: u64 = 1 << 20;

/// What the thread needs.
pub struct Settings {
    /// The namespaces that capture watches.
    pub watched: Vec<Watched>,
    /// Where the node's files are.
    pub roots: Roots,
    /// Whom to tell.
    pub pods: Pods,
    /// Takes the resolvers of containers, each as it is found or changes.
    pub resolvers: mpsc::SyncSender<Resolver>,
    /// Takes what the user should know, once.
    pub note: Box<dyn Fn(&str) + Send>,
    /// The wall clock.
    pub now: fn() -> Timestamp,
}

/// A handle on those of the last look.
#[derive(Clone, Debug, Default)]
pub struct Neighbourhood(Arc<Mutex<Vec<Inside>>>);

impl Neighbourhood {
    /// Those that could be found.
    #[must_use]
    pub fn all(&self) -> Vec<Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The running thread; it ends when this is dropped.
pub struct Watch {
    counts: Arc<Mutex<Counts>>,
    neighbourhood: Neighbourhood,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    wanted: AtomicBool,
    notify: Notify,
}

impl Watch {
    /// Starts, and waits until the node was looked at once (or for two seconds).
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let counts = Arc::new(Mutex::new(Counts::default()));
        let neighbourhood = Neighbourhood::default();
        let (looked, first_look) = mpsc::channel();
        let thread = std::thread::Builder::new().name("dnspath-node".into()).spawn({
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            let neighbourhood = neighbourhood.clone();
            move || run(settings, (counts, neighbourhood), &stop, &looked)
        })?;
        // An error means that the thread ended: it has told why.
        let _ = first_look.recv_timeout(FIRST_LOOK);
        Ok(Self { counts, neighbourhood, stop, thread: Some(thread) })
    }

    /// The namespaces that watched interfaces lead to.
    #[must_use]
    pub fn neighbourhood(&self) -> Neighbourhood {
        self.neighbourhood.clone()
    }

    /// How the pods are known now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.wanted.store(true, Ordering::Relaxed);
        self.stop.notify.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

/// What the thread shows of its last look.
type Shown = (Arc<Mutex<Counts>>, Neighbourhood);

fn run(settings: Settings, shown: Shown, stop: &Stop, looked: &mpsc::Sender<()>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            (settings.note)(&format!("cannot follow the pods: {error}: they are shown by address"));
            return;
        }
    };
    runtime.block_on(async {
        if let Some(mut watcher) = Watcher::new(settings, shown) {
            watcher.watch(stop, looked).await;
        }
    });
}

struct Watcher {
    settings: Settings,
    counts: Arc<Mutex<Counts>>,
    neighbourhood: Neighbourhood,
    town: Arc<Mutex<Town>>,
    links: Vec<Links>,
    news: tokio::sync::mpsc::Receiver<()>,
    namer: Namer,
    asking: Asking,
    resolvers: Resolvers,
    /// Tells of containers that come and go; `None` where nothing can.
    arrivals: Option<Waiting>,
    /// A container came or went, or is just coming.
    arrived: bool,
    /// When the last container came whose first process may still be coming.
    newest: Option<Timestamp>,
    /// Inodes of the watched namespaces and of the node's own: nobody's.
    besides: Vec<u64>,
    looked_at_all: Timestamp,
    noted_blind: bool,
}

impl Watcher {
    /// `None` where the kernel cannot be asked, which a note tells.
    fn new(settings: Settings, (counts, neighbourhood): Shown) -> Option<Self> {
        let mut besides: Vec<u64> = Vec::new();
        besides.extend(netns_of(&settings.roots, 1));
        besides.extend(netns_of(&Roots::at("/"), std::process::id()));
        let mut links = Vec::new();
        let (tell, news) = tokio::sync::mpsc::channel(1);
        let own = settings.watched.iter().map(Watched::as_pod);
        let town = Arc::new(Mutex::new(Town::new(settings.pods.clone(), own, (settings.now)())));
        let listener = Listener { tell, town: Arc::clone(&town), now: settings.now };
        for (place, watched) in settings.watched.iter().enumerate() {
            // Listening comes first: what is listed then may change, and that is told.
            let listening = links::listen(watched.clone(), place, listener.clone());
            match listening.and_then(|()| Links::connect(watched)) {
                Ok(connected) => links.push(connected),
                Err(error) => {
                    (settings.note)(&format!(
                        "cannot follow the pods' interfaces: {error}: pods are shown by address"
                    ));
                    return None;
                }
            }
            besides.extend(inode_of(watched));
        }
        besides.sort_unstable();
        besides.dedup();
        let mut namer = Namer::new(settings.roots.clone());
        let arrivals = Arrivals::new().and_then(|arrivals| Ok((arrivals.waiting()?, arrivals)));
        let arrivals = match arrivals {
            Ok((waiting, arrivals)) => {
                namer.follow(arrivals);
                Some(waiting)
            }
            Err(error) => {
                (settings.note)(&format!("cannot follow the containers of pods: {error}: they are not told"));
                None
            }
        };
        Some(Self {
            namer,
            asking: Asking::new(settings.pods.clone()),
            resolvers: Resolvers::new(settings.roots.clone(), settings.resolvers.clone()),
            arrivals,
            arrived: false,
            newest: None,
            looked_at_all: Timestamp::EPOCH,
            noted_blind: false,
            besides,
            counts,
            neighbourhood,
            town,
            links,
            news,
            settings,
        })
    }

    async fn watch(&mut self, stop: &Stop, looked: &mpsc::Sender<()>) {
        self.look().await;
        // The starter may have given up waiting.
        let _ = looked.send(());
        while !stop.wanted.load(Ordering::Relaxed) {
            let pause = self.pause();
            tokio::select! {
                Some(()) = self.news.recv() => time::sleep(TOGETHER).await,
                () = changed(self.arrivals.as_ref()) => {
                    time::sleep(TOGETHER).await;
                    self.arrived = true;
                }
                () = time::sleep(pause) => {}
                () = stop.notify.notified() => break,
            }
            self.look().await;
        }
    }

    fn town(&self) -> MutexGuard<'_, Town> {
        self.town.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the next look.
    fn pause(&self) -> Duration {
        if self.arrived {
            return SOON;
        }
        let now = (self.settings.now)();
        let pause = self.town().pause(now);
        self.newest.map_or(pause, |came| pause.min(soon(now.since(came))))
    }

    async fn look(&mut self) {
        let now = (self.settings.now)();
        // What is told from here on is for the next look.
        let _ = self.news.try_recv();
        let all = now.since(self.looked_at_all) >= RESYNC;
        if all {
            self.looked_at_all = now;
        }
        self.meet_all().await;
        let look = self.wants_files(all, now).then(|| self.namer.look(&self.besides, now));
        if let Some(look) = &look {
            self.town().inhabited(look);
            self.name(look, all, now).await;
            if all {
                self.look_elsewhere(look);
            } else {
                self.town().forget_elsewhere(look);
            }
            self.arrived = look.growing;
            self.newest = look.newest(now);
            let pods = self.town().pods();
            self.asking.look(&pods, (&mut self.namer, look), all, now);
        }
        self.ask_addresses(all, now).await;
        // What was learnt under a number is of who has it still: an interface that was there before and is there now
        // led to the same neighbour all the while.
        self.meet_all().await;
        if let Some(look) = &look {
            let residents = self.town().residents();
            self.resolvers.tell(&residents, (&mut self.namer, look), all, now);
        }
        let mut town = self.town();
        town.tell(all, (self.settings.now)());
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = town.count();
        *self.neighbourhood.0.lock().unwrap_or_else(PoisonError::into_inner) = town.inside();
    }

    /// Whether processes and the runtimes' files are to be looked at.
    fn wants_files(&self, all: bool, now: Timestamp) -> bool {
        let town = self.town();
        let is_unsettled = town.neighbours().any(|(_, neighbour)| neighbour.is_unsettled(all, now));
        all || self.arrived || self.newest.is_some() || is_unsettled || town.is_contested()
    }

    async fn meet_all(&mut self) {
        for watched in 0..self.links.len() {
            let asked = (self.settings.now)();
            match self.links[watched].peers().await {
                Ok(peers) => self.town().meet(watched, peers, asked),
                Err(error) => (self.settings.note)(&format!("cannot list the interfaces of pods: {error}")),
            }
        }
    }

    /// Finds the namespaces of neighbours whose name is not settled, and names them.
    async fn name(&mut self, look: &Look, all: bool, now: Timestamp) {
        let (mut settled, mut unsettled) = (BTreeSet::new(), BTreeSet::new());
        for (key, neighbour) in self.town().neighbours() {
            if neighbour.is_unsettled(all, now) {
                unsettled.insert(key);
            } else {
                settled.insert(neighbour.inode);
            }
        }
        let mut opened = 0_u64;
        let candidates: BTreeSet<u64> =
            look.processes.namespaces().chain(look.named.keys().copied()).collect();
        for inode in candidates.difference(&settled).copied() {
            let Some((file, path)) = self.open(inode, look) else { continue };
            opened += 1;
            for watched in 0..self.links.len() {
                let Some(number) = self.links[watched].number_of(file.as_fd()).await else { continue };
                let key: Key = (watched, number);
                if unsettled.contains(&key) {
                    let naming = self.namer.name(inode, look);
                    self.town().found(key, inode, &path, naming);
                }
            }
        }
        let blind = opened == 0 && settled.is_empty() && !unsettled.is_empty();
        if blind && !self.noted_blind {
            self.noted_blind = true;
            (self.settings.note)(why_blind(look));
        }
    }

    /// The file of a namespace, by one of its processes or its name; checked, since numbers are used again.
    fn open(&self, inode: u64, look: &Look) -> Option<(File, PathBuf)> {
        use std::os::unix::fs::MetadataExt as _;
        let roots = &self.settings.roots;
        let by_process = look.processes.of(inode).iter().map(|pid| roots.proc(&format!("{pid}/ns/net")));
        let by_name = look.named.get(&inode).map(|name| roots.of_named(name));
        by_process
            .chain(by_name)
            .filter_map(|path| Some((File::open(&path).ok()?, path)))
            .find(|(file, _)| file.metadata().is_ok_and(|metadata| metadata.ino() == inode))
    }

    /// Asks for the addresses of those whose addresses may have changed.
    async fn ask_addresses(&mut self, all: bool, now: Timestamp) {
        let keys = self.town().to_be_asked(all, now);
        for (watched, number) in keys {
            let asked = (self.settings.now)();
            if let Ok(addresses) = self.links[watched].addresses(Some(number)).await {
                self.town().addressed((watched, number), addresses, asked);
            }
        }
        for watched in (0..self.links.len()).filter(|_| all) {
            if let Ok(addresses) = self.links[watched].addresses(None).await {
                self.town().own(watched, addresses);
            }
        }
    }

    /// Pods that no watched interface leads to.
    fn look_elsewhere(&mut self, look: &Look) {
        let attached = self.town().attached();
        let mut found = Vec::new();
        for inode in look.processes.namespaces().filter(|inode| !attached.contains(inode)) {
            let naming = self.namer.name(inode, look);
            if naming.is_pod() {
                found.push((inode, naming, self.addresses_inside(inode, look)));
            }
        }
        self.town().elsewhere(found);
    }

    /// The addresses of a namespace, by one of its processes.
    fn addresses_inside(&self, inode: u64, look: &Look) -> BTreeSet<IpAddr> {
        let of_process = |&pid: &u32| {
            let addresses = self.addresses_of_process(pid);
            // The number may be another process's by now.
            netns_of(&self.settings.roots, pid).is_ok_and(|now| now == inode).then_some(addresses)
        };
        look.processes.of(inode).iter().find_map(of_process).unwrap_or_default()
    }

    fn addresses_of_process(&self, pid: u32) -> BTreeSet<IpAddr> {
        let read = |file: &str| {
            let path = self.settings.roots.proc(&format!("{pid}/net/{file}"));
            String::from_utf8_lossy(&read_made(&path, PROC_NET_MAX).unwrap_or_default()).into_owned()
        };
        let mut all = addresses::of_fib_trie(&read("fib_trie"));
        all.extend(addresses::of_if_inet6(&read("if_inet6")));
        all
    }
}

/// Waits until containers came or went.
async fn changed(arrivals: Option<&Waiting>) {
    match arrivals {
        Some(arrivals) => arrivals.changed().await,
        None => std::future::pending().await,
    }
}

/// Why no neighbour's namespace could be opened.
fn why_blind(look: &Look) -> &'static str {
    if look.processes.refused > 0 {
        "pods are shown by address: CAP_SYS_PTRACE is missing, which finds their processes"
    } else {
        "pods are shown by address: their processes are not visible here; run on the node, or with hostPID in a pod"
    }
}

fn inode_of(watched: &Watched) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(watched.path.as_ref()?).ok().map(|metadata| metadata.ino())
}
