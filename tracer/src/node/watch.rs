//! The thread that follows who is who.
//!
//! It lives beside capture, in a thread of its own with the privileges it was started with: each look at the node joins
//! the kernel's view (`links`) with what the node's files say (`naming`), and tells the result (`census`). It looks when
//! the kernel told of an interface, again and less and less often while something there has no name yet (a pod's
//! network is made before its first process), and every five seconds.

use super::{
    addresses,
    arrivals::{Arrivals, Waiting},
    census::{Census, Claim, Nearness},
    containers::Asking,
    links::{self, Links, Listener, News, Peers, Tenants, Told, Watched},
    naming::{Look, Namer, Naming},
    processes::netns_of,
    resolvers,
    roots::{Roots, read_made},
    runtimes::Container,
};
use crate::model::{PodName, Pods, Resolver, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io,
    net::IpAddr,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{sync::Notify, time};

/// News that come together are one look.
const TOGETHER: Duration = Duration::from_millis(30);
/// News that wait to be heeded; more wait in the kernel.
const NEWS_WAITING: usize = 4_096;
/// How often everything is looked at anew.
const RESYNC: Duration = Duration::from_secs(5);
/// The least time between two looks at what is still coming.
const SOON: Duration = Duration::from_millis(50);
/// A namespace's addresses are still being set while it is younger than this.
const YOUNG: Duration = Duration::from_secs(3);
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

/// How those are known that watched interfaces lead to, as of the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kubernetes pods by their name.
    pub pods: usize,
    /// Others by a name: containers of no pod, named network namespaces.
    pub others: usize,
    /// Those that two sources name differently: shown by address.
    pub ambiguous: usize,
    /// Those that no source names: shown by address.
    pub unknown: usize,
}

/// The network namespace of one whom a watched interface leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its inode number.
    pub inode: u64,
    /// A file that refers to it.
    pub path: PathBuf,
    /// The first of its addresses, where it has one yet.
    pub address: Option<IpAddr>,
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

/// What an interface of a watched namespace leads to.
#[derive(Debug, Default)]
struct Neighbour {
    links: BTreeSet<u32>,
    naming: Naming,
    addresses: BTreeSet<IpAddr>,
    inode: u64,
    /// A file that refers to its namespace, as it was when it was found.
    path: PathBuf,
    born: Timestamp,
}

/// A pod that no watched interface leads to.
struct Elsewhere {
    inode: u64,
    naming: Naming,
    addresses: BTreeSet<IpAddr>,
}

/// A neighbour's key: which watched namespace, and its number there.
type Key = (usize, i32);

struct Watcher {
    settings: Settings,
    counts: Arc<Mutex<Counts>>,
    neighbourhood: Neighbourhood,
    links: Vec<Links>,
    news: tokio::sync::mpsc::Receiver<Told>,
    tenants: Tenants,
    namer: Namer,
    census: Census,
    asking: Asking,
    /// Tells of containers that come and go; `None` where nothing can.
    arrivals: Option<Waiting>,
    /// A container came or went, or is just coming.
    arrived: bool,
    neighbours: HashMap<Key, Neighbour>,
    elsewhere: Vec<Elsewhere>,
    /// The resolvers told, by pod and container.
    told: HashMap<(String, String), Resolver>,
    /// Inodes of the watched namespaces and of the node's own: nobody's.
    besides: Vec<u64>,
    own: Vec<BTreeSet<IpAddr>>,
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
        let (tell, news) = tokio::sync::mpsc::channel(NEWS_WAITING);
        let tenants = Tenants::default();
        let listener =
            Listener { tell, pods: settings.pods.clone(), tenants: Arc::clone(&tenants), now: settings.now };
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
            arrivals,
            arrived: false,
            census: Census::new(settings.pods.clone()),
            neighbours: HashMap::new(),
            elsewhere: Vec::new(),
            told: HashMap::new(),
            own: vec![BTreeSet::new(); links.len()],
            looked_at_all: Timestamp::EPOCH,
            noted_blind: false,
            besides,
            counts,
            neighbourhood,
            links,
            news,
            tenants,
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
                Some(told) = self.news.recv() => {
                    let mut changed = self.heed(told);
                    if changed {
                        time::sleep(TOGETHER).await;
                    }
                    changed |= self.heed_waiting();
                    if changed {
                        self.look().await;
                    }
                }
                () = changed(self.arrivals.as_ref()) => {
                    time::sleep(TOGETHER).await;
                    self.arrived = true;
                    self.heed_waiting();
                    self.look().await;
                }
                () = time::sleep(pause) => self.look().await,
                () = stop.notify.notified() => break,
            }
        }
    }

    /// Takes the news that have come meanwhile; whether there is something to look at.
    fn heed_waiting(&mut self) -> bool {
        let mut changed = false;
        while let Ok(told) = self.news.try_recv() {
            changed |= self.heed(told);
        }
        changed
    }

    fn heed(&mut self, (watched, news, time): Told) -> bool {
        match news {
            News::Gone(index) => self.gone(watched, index, time),
            News::Changed => return true,
        }
        false
    }

    /// Until the next look: the youngest that has no name yet is looked for soon.
    fn pause(&self) -> Duration {
        if self.arrived {
            return SOON;
        }
        let now = (self.settings.now)();
        let nameless =
            |neighbour: &&Neighbour| neighbour.naming.name().is_none() || neighbour.addresses.is_empty();
        let youngest =
            self.neighbours.values().filter(nameless).map(|neighbour| now.since(neighbour.born)).min();
        youngest.map_or(RESYNC, |age| (age / 4).clamp(SOON, RESYNC))
    }

    /// An interface is gone, and with its last one the neighbour.
    fn gone(&mut self, watched: usize, index: u32, now: Timestamp) {
        let (census, elsewhere) = (&mut self.census, &mut self.elsewhere);
        self.neighbours.retain(|key, neighbour| {
            let was_last = key.0 == watched && neighbour.links.remove(&index) && neighbour.links.is_empty();
            if was_last {
                census.gone(&neighbour.addresses, now);
                elsewhere.retain(|pod| pod.addresses.is_disjoint(&neighbour.addresses));
            }
            !was_last
        });
    }

    async fn look(&mut self) {
        let now = (self.settings.now)();
        let all = now.since(self.looked_at_all) >= RESYNC;
        if all {
            self.looked_at_all = now;
        }
        self.meet_all(now).await;
        let nameless =
            |neighbour: &Neighbour| neighbour.naming.name().is_none() || all && !neighbour.naming.is_pod();
        let wanted = all || self.arrived || self.neighbours.values().any(nameless);
        let look = wanted.then(|| self.namer.look(&self.besides, now));
        if let Some(look) = &look {
            self.name(look, nameless).await;
            if all {
                self.look_elsewhere(look);
            } else {
                self.forget_elsewhere(look);
            }
            self.look_into_pods(look, all, now);
        }
        self.ask_addresses(all, now).await;
        // What was learnt under a number is of who has it still: an interface that was there before and is there now
        // led to the same neighbour all the while.
        self.heed_waiting();
        self.meet_all((self.settings.now)()).await;
        if let Some(look) = &look {
            self.tell_resolvers(look, all, now);
        }
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.count();
        *self.neighbourhood.0.lock().unwrap_or_else(PoisonError::into_inner) = self.inside();
        let own = self
            .settings
            .watched
            .iter()
            .zip(&self.own)
            .map(|(watched, addresses)| (watched.as_pod(), addresses));
        let own: Vec<_> = own.collect();
        let attached = self.neighbours.values().map(|neighbour| Claim {
            name: neighbour.naming.name(),
            addresses: &neighbour.addresses,
            nearness: Nearness::Attached,
        });
        let node = own.iter().map(|(name, addresses)| Claim {
            name: Some(name),
            addresses,
            nearness: Nearness::Node,
        });
        let elsewhere = self.elsewhere.iter().map(|pod| Claim {
            name: pod.naming.name(),
            addresses: &pod.addresses,
            nearness: Nearness::Elsewhere,
        });
        self.census.take(attached.chain(node).chain(elsewhere), (self.settings.now)());
        let only_one = |(key, neighbour): (&Key, &Neighbour)| {
            let index = neighbour.links.first().filter(|_| neighbour.links.len() == 1)?;
            Some(((key.0, *index), neighbour.addresses.clone()))
        };
        let tenants = self.neighbours.iter().filter_map(only_one).collect();
        *self.tenants.lock().unwrap_or_else(PoisonError::into_inner) = tenants;
    }

    fn inside(&self) -> Vec<Inside> {
        let found = self.neighbours.values().filter(|neighbour| neighbour.inode != 0);
        let inside = |neighbour: &Neighbour| Inside {
            inode: neighbour.inode,
            path: neighbour.path.clone(),
            address: neighbour.addresses.first().copied(),
        };
        found.map(inside).collect()
    }

    fn count(&self) -> Counts {
        let mut counts = Counts::default();
        for neighbour in self.neighbours.values() {
            match &neighbour.naming {
                Naming::Named(name) if !name.namespace.is_empty() => counts.pods += 1,
                Naming::Named(_) => counts.others += 1,
                Naming::Ambiguous => counts.ambiguous += 1,
                Naming::Unknown => counts.unknown += 1,
            }
        }
        counts
    }

    async fn meet_all(&mut self, now: Timestamp) {
        for watched in 0..self.links.len() {
            match self.links[watched].peers().await {
                Ok(peers) => self.meet(watched, peers, now),
                Err(error) => (self.settings.note)(&format!("cannot list the interfaces of pods: {error}")),
            }
        }
    }

    /// Compares the interfaces with those known. An index is not used again, so a neighbour with another interface is
    /// another neighbour, even where it has the number of one that is gone.
    fn meet(&mut self, watched: usize, peers: Peers, now: Timestamp) {
        self.neighbours.retain(|key, neighbour| {
            key.0 != watched || peers.get(&key.1).is_some_and(|links| !links.is_disjoint(&neighbour.links))
        });
        for (number, links) in peers {
            let neighbour = self
                .neighbours
                .entry((watched, number))
                .or_insert_with(|| Neighbour { born: now, ..Neighbour::default() });
            neighbour.links = links;
        }
    }

    /// Finds the namespaces of nameless neighbours, and names them.
    async fn name(&mut self, look: &Look, nameless: impl Fn(&Neighbour) -> bool) {
        let settled: BTreeSet<u64> = self
            .neighbours
            .values()
            .filter(|neighbour| !nameless(neighbour))
            .map(|neighbour| neighbour.inode)
            .collect();
        let mut opened = 0_u64;
        let candidates: BTreeSet<u64> =
            look.processes.namespaces().chain(look.named.keys().copied()).collect();
        for inode in candidates.difference(&settled).copied() {
            let Some((file, path)) = self.open(inode, look) else { continue };
            opened += 1;
            for watched in 0..self.links.len() {
                let Some(number) = self.links[watched].number_of(file.as_fd()).await else { continue };
                if let Some(neighbour) = self.neighbours.get_mut(&(watched, number))
                    && nameless(neighbour)
                {
                    neighbour.inode = inode;
                    neighbour.path.clone_from(&path);
                    neighbour.naming = self.namer.name(inode, look);
                }
            }
        }
        let blind = opened == 0 && settled.is_empty() && !self.neighbours.is_empty();
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
        for (&(watched, number), neighbour) in &mut self.neighbours {
            let young = now.since(neighbour.born) < YOUNG;
            if (all || young || neighbour.addresses.is_empty())
                && let Ok(addresses) = self.links[watched].addresses(Some(number)).await
            {
                neighbour.addresses = addresses;
            }
        }
        if all {
            for (links, own) in self.links.iter().zip(&mut self.own) {
                if let Ok(addresses) = links.addresses(None).await {
                    *own = addresses;
                }
            }
        }
    }

    /// The namespaces that watched interfaces lead to.
    fn attached(&self) -> BTreeSet<u64> {
        self.neighbours.values().map(|neighbour| neighbour.inode).collect()
    }

    /// Pods that no watched interface leads to.
    fn look_elsewhere(&mut self, look: &Look) {
        self.elsewhere.clear();
        let attached = self.attached();
        for inode in look.processes.namespaces().filter(|inode| !attached.contains(inode)) {
            let naming = self.namer.name(inode, look);
            if !naming.is_pod() {
                continue;
            }
            let of_process = look.processes.of(inode).iter().find_map(|&pid| {
                let addresses = self.addresses_of_process(pid);
                // The number may be another process's by now.
                netns_of(&self.settings.roots, pid).is_ok_and(|now| now == inode).then_some(addresses)
            });
            self.elsewhere.push(Elsewhere { inode, naming, addresses: of_process.unwrap_or_default() });
        }
    }

    /// Leaves out whom an interface leads to by now (a pod that was being made at the last look at all) and who is gone:
    /// another may have the address before the next such look.
    fn forget_elsewhere(&mut self, look: &Look) {
        let attached = self.attached();
        let there: BTreeSet<u64> = look.processes.namespaces().collect();
        self.elsewhere.retain(|pod| !attached.contains(&pod.inode) && there.contains(&pod.inode));
    }

    /// Which containers of pods can ask.
    fn look_into_pods(&mut self, look: &Look, all: bool, now: Timestamp) {
        self.arrived = look.growing;
        let attached = self.neighbours.values().map(|neighbour| (&neighbour.naming, neighbour.inode));
        let elsewhere = self.elsewhere.iter().map(|pod| (&pod.naming, pod.inode));
        let named = |(naming, inode): (&Naming, u64)| Some((naming.name()?.clone(), inode));
        let pods: BTreeMap<PodName, u64> =
            attached.chain(elsewhere).filter(|(naming, _)| naming.is_pod()).filter_map(named).collect();
        self.asking.look(&pods, (&mut self.namer, look), all, now);
    }

    /// Reads how the containers of pods resolve: of young ones at each look, of all now and then.
    fn tell_resolvers(&mut self, look: &Look, all: bool, now: Timestamp) {
        let mut seen = HashMap::new();
        for neighbour in self.neighbours.values() {
            if !all && now.since(neighbour.born) >= RESYNC || neighbour.naming.name().is_none() {
                continue;
            }
            let mut containers = self.namer.containers(neighbour.inode, look);
            // A sandbox resolves nothing; where there is nothing else, it has its pod's file.
            if containers.iter().any(|(_, container)| !container.sandbox) {
                containers.retain(|(_, container)| !container.sandbox);
            }
            let read = |(pid, container): (u32, Container)| {
                let read = resolvers::of_process(&self.settings.roots, pid)?;
                // The number may be another process's by now.
                netns_of(&self.settings.roots, pid).ok().filter(|inode| *inode == neighbour.inode)?;
                let addresses = neighbour.addresses.iter().copied().collect();
                Some(Resolver { pod: container.pod, container: container.name, addresses, ..read })
            };
            let mut resolvers: Vec<Resolver> = containers.into_iter().filter_map(read).collect();
            let agree = resolvers.windows(2).all(|two| two[0].text() == two[1].text());
            for resolver in &mut resolvers {
                resolver.agrees = agree;
            }
            seen.extend(resolvers.into_iter().map(|it| ((it.pod.to_string(), it.container.clone()), it)));
        }
        for (key, resolver) in &seen {
            // What finds no room now is told at the next look.
            if self.told.get(key) != Some(resolver)
                && self.settings.resolvers.try_send(resolver.clone()).is_ok()
            {
                self.told.insert(key.clone(), resolver.clone());
            }
        }
        if all {
            self.told.retain(|key, _| seen.contains_key(key));
        }
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
