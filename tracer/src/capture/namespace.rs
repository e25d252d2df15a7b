//! One thread for each watched network namespace: it loads the kernel side, attaches it to the interfaces that are
//! there, follows those that come and go, and reads what was lost.
//!
//! The thread lives in the namespace, because interfaces are attached by their name there and rtnetlink tells of the
//! sockets' own namespace alone.

use super::{
    CaptureError, Hook, blind,
    counters::{self, Counted},
    drops::Baselines,
    links::{Interfaces, Link, ways_out},
    netns::Netns,
    notes::Notes,
    offsets::Kernel,
    program::{Facts, Program, with_causes},
};
use crate::model::{Conntrack, Direction, Vantage, VantageId, Vantages};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use dnspath_ebpf::LostKey;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::NetlinkPayload,
    packet_route::{RouteNetlinkMessage, link::LinkMessage},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{sync::Notify, time};

/// How often lost frames and log lines are read.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// How often all interfaces are listed anew, in case the kernel could not tell of one.
const RESYNC_EVERY: u32 = 8;
/// `tcm_parent` of a clsact qdisc: TC_H_CLSACT (TC_H_INGRESS) in both halves.
const TC_H_CLSACT: u32 = 0xffff_fff1;

/// What a namespace's thread needs to know.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) netns: Netns,
    /// The namespace's name in front of its interfaces: needed only where several are watched.
    pub(super) shown_as: Option<String>,
    pub(super) interfaces: Interfaces,
    pub(super) ports: Vec<u16>,
    pub(super) ring_octets: u32,
    /// Whether the beginnings of connections are captured.
    pub(super) connects: bool,
    pub(super) hook: Hook,
    pub(super) kernel: Arc<Kernel>,
    /// What the drop probe shares with the classifiers.
    pub(super) baselines: Option<Arc<Baselines>>,
    pub(super) vantages: Vantages,
    pub(super) notes: Notes,
}

impl Settings {
    /// The namespace's inode number.
    fn inode(&self) -> Option<u32> {
        self.netns.identity().and_then(|(_, inode)| u32::try_from(inode).ok())
    }
}

/// What the thread and the reader share.
#[derive(Default)]
pub(super) struct Shared {
    vantages: RwLock<HashMap<LostKey, VantageId>>,
    lost: Mutex<HashMap<LostKey, u64>>,
    conntrack: Mutex<Option<NamespaceCounters>>,
    attached: AtomicUsize,
    /// Packets of encrypted DNS that passed.
    encrypted: AtomicU64,
    stop: Notify,
    stopping: AtomicBool,
}

/// What conntrack counted in one namespace.
#[derive(Clone, Debug)]
pub(super) struct NamespaceCounters {
    pub(super) cpus: Vec<Conntrack>,
    /// Connections in the table, and how many it can hold.
    pub(super) table: (u64, u64),
}

impl Shared {
    /// What conntrack counted since the start; `None` where it cannot be read.
    pub(super) fn conntrack(&self) -> Option<NamespaceCounters> {
        self.conntrack.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn vantage(&self, key: LostKey) -> Option<VantageId> {
        self.vantages.read().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }

    /// Frames lost so far, by vantage.
    pub(super) fn lost(&self) -> Vec<(Option<VantageId>, u64)> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.iter().map(|(key, count)| (self.vantage(*key), *count)).collect()
    }

    /// Packets to or from the port of encrypted DNS so far.
    pub(super) fn encrypted(&self) -> u64 {
        self.encrypted.load(Ordering::Relaxed)
    }

    /// Tells the thread to detach everything and to end.
    pub(super) fn request_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.notify_one();
    }

    pub(super) fn attached(&self) -> usize {
        self.attached.load(Ordering::Relaxed)
    }
}

/// A watched namespace.
pub(super) struct Namespace {
    pub(super) ring: RingBuf<MapData>,
    pub(super) shared: Arc<Shared>,
    pub(super) facts: Facts,
    /// Its inode number.
    pub(super) inode: Option<u32>,
    pub(super) shown_as: Option<String>,
    /// An eBPF program of somebody else that was there at the start, and where.
    pub(super) foreign: Option<String>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Starts the thread and waits until every interface that is there is attached.
    pub(super) fn watch(settings: Settings) -> Result<Self, CaptureError> {
        let shared = Arc::new(Shared::default());
        let inode = settings.inode();
        let shown_as = settings.shown_as.clone();
        // Here and not in the thread: what loading takes (25 MB, for the kernel's types) is free for the caller again, and
        // would otherwise stay with an allocator's arena that nobody else uses.
        let loaded = Program::load(
            &settings.ports,
            settings.ring_octets,
            settings.connects,
            settings.hook,
            &settings.kernel,
            settings.baselines.as_deref().zip(inode),
        )?;
        let (report, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("dnspath-netns".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || Watcher::run(settings, loaded, shared, &report)
            })
            .map_err(|source| CaptureError::Thread { source })?;
        let gone = || CaptureError::Load { reason: "the thread that attaches ended early".into() };
        let Begun { ring, facts, foreign } = started.recv().map_err(|_| gone())??;
        Ok(Self { ring, shared, facts, inode, shown_as, foreign, thread: Some(thread) })
    }

    /// Detaches everything and ends the thread.
    pub(super) fn stop(&mut self) {
        self.shared.request_stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a thread tells when it has started.
struct Begun {
    ring: RingBuf<MapData>,
    facts: Facts,
    foreign: Option<String>,
}

type Started = Result<Begun, CaptureError>;

/// The thread's state.
struct Watcher {
    settings: Settings,
    shared: Arc<Shared>,
    program: Program,
    counted: Counted,
    ways_out: HashSet<String>,
    logger: Option<EbpfLogger<Notes>>,
}

impl Watcher {
    fn run(
        settings: Settings,
        (mut program, facts): (Program, Facts),
        shared: Arc<Shared>,
        report: &mpsc::Sender<Started>,
    ) {
        let started = settings.netns.enter().and_then(|()| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|source| CaptureError::Thread { source })
        });
        let runtime = match started {
            Ok(runtime) => runtime,
            Err(error) => {
                // The receiver is gone only when the whole start was given up.
                let _ = report.send(Err(error));
                return;
            }
        };
        let logger = EbpfLogger::init_with_logger(program.ebpf_mut(), settings.notes.clone()).ok();
        let counted = Counted::start();
        let mut watcher = Self { settings, shared, program, counted, ways_out: HashSet::new(), logger };
        runtime.block_on(watcher.watch(facts, report));
    }

    async fn watch(&mut self, mut facts: Facts, report: &mpsc::Sender<Started>) {
        let (connection, handle, mut news) = match new_multicast_connection(&[MulticastGroup::Link]) {
            Ok(opened) => opened,
            Err(source) => {
                let _ = report.send(Err(CaptureError::Interfaces { source }));
                return;
            }
        };
        tokio::spawn(connection);
        let there = self.wanted(&handle).await;
        let named = there.iter().map(|link| (link.index, link.name.as_str()));
        let foreign = blind::foreign_program(&handle, named).await;
        self.program.prepare(&there, &mut facts);
        let start = match self.sync(&handle).await {
            Ok(links) => self.require_interfaces(&links).and_then(|()| self.program.take_ring()),
            Err(error) => Err(error),
        };
        let failed = start.is_err();
        self.publish();
        let _ = report.send(start.map(|ring| Begun { ring, facts, foreign }));
        let mut housekeeping = time::interval(HOUSEKEEPING);
        let mut ticks = 0_u32;
        while !failed && !self.shared.stopping.load(Ordering::Relaxed) {
            tokio::select! {
                message = news.next() => match message {
                    Some((message, _)) => self.heed(message.payload, &handle).await,
                    None => {
                        self.settings.notes.add("the kernel's news of interfaces ended: new pods are found by listing");
                        time::sleep(HOUSEKEEPING).await;
                    }
                },
                _ = housekeeping.tick() => {
                    ticks += 1;
                    self.publish();
                    if ticks.is_multiple_of(RESYNC_EVERY) && let Err(error) = self.sync(&handle).await {
                        self.settings.notes.add(&error.to_string());
                    }
                }
                () = self.shared.stop.notified() => {}
            }
        }
        self.program.detach_all();
        self.publish();
        remove_empty_qdiscs(&handle, self.program.own_qdiscs()).await;
    }

    async fn heed(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>, handle: &Handle) {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => self.appeared(&message),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
                self.vanished(message.header.index)
            }
            NetlinkPayload::Overrun(_) => {
                if let Err(error) = self.sync(handle).await {
                    self.settings.notes.add(&error.to_string());
                }
            }
            _ => {}
        }
    }

    /// The interfaces to watch that are there; none where they cannot be listed, which [`Self::sync`] tells.
    async fn wanted(&self, handle: &Handle) -> Vec<Link> {
        let messages: Vec<LinkMessage> =
            handle.link().get().execute().try_collect().await.unwrap_or_default();
        let links = messages.iter().filter_map(Link::from_message);
        links.filter(|link| self.settings.interfaces.wants(link)).collect()
    }

    /// Lists all interfaces, attaches the new ones, forgets those that are gone.
    async fn sync(&mut self, handle: &Handle) -> Result<Vec<Link>, CaptureError> {
        let failed =
            |error: rtnetlink::Error| CaptureError::Interfaces { source: std::io::Error::other(error) };
        let messages: Vec<LinkMessage> = handle.link().get().execute().try_collect().await.map_err(failed)?;
        let links: Vec<Link> = messages.iter().filter_map(Link::from_message).collect();
        for index in self.program.attached_indexes() {
            if !links.iter().any(|link| link.index == index) {
                self.vanished(index);
            }
        }
        self.ways_out = ways_out();
        for link in &links {
            self.attach(link);
        }
        Ok(links)
    }

    fn appeared(&mut self, message: &LinkMessage) {
        // Bridges announce their ports in messages of the family AF_BRIDGE, which lack the kind.
        if message.header.interface_family == rtnetlink::packet_route::AddressFamily::Unspec
            && let Some(link) = Link::from_message(message)
        {
            self.attach(&link);
        }
    }

    fn vanished(&mut self, index: u32) {
        self.program.detach(index);
        self.shared.attached.store(self.program.attached_indexes().len(), Ordering::Relaxed);
    }

    fn attach(&mut self, link: &Link) {
        if self.program.is_attached(link.index) || !self.settings.interfaces.wants(link) {
            return;
        }
        // Known before the first frame can come.
        for (direction, bit) in [(Direction::Ingress, 0), (Direction::Egress, 1)] {
            let id = self.settings.vantages.intern(Vantage {
                interface: link.name.clone(),
                ifindex: link.index,
                direction,
                kind: link.kind_among(&self.ways_out),
                netns: self.settings.shown_as.clone(),
                source: 0,
            });
            let mut vantages = self.shared.vantages.write().unwrap_or_else(PoisonError::into_inner);
            vantages.insert(link.index << 1 | bit, id);
        }
        match self.program.attach(link) {
            Ok(()) => self.shared.attached.store(self.program.attached_indexes().len(), Ordering::Relaxed),
            // A pod that lived for a moment: gone between its announcement and now.
            Err(_) if !interface_exists(link.index) => {}
            Err(error) => {
                self.settings.notes.add(&format!("cannot attach to {}: {}", link.name, with_causes(&error)));
            }
        }
    }

    fn require_interfaces(&self, links: &[Link]) -> Result<(), CaptureError> {
        let here = || links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(" ");
        if let Some(name) = self.settings.interfaces.unmatched(links) {
            return Err(CaptureError::NoSuchInterface { name: name.into(), here: here() });
        }
        if self.shared.attached() == 0 && links.iter().any(|link| self.settings.interfaces.wants(link)) {
            return Err(CaptureError::NothingAttached {
                reason: self.settings.notes.last().unwrap_or_default(),
            });
        }
        Ok(())
    }

    fn publish(&mut self) {
        *self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner) = self.program.lost();
        let [passed_over, encrypted] = self.program.counts();
        self.shared.encrypted.store(encrypted, Ordering::Relaxed);
        if passed_over > 0 {
            self.settings
                .notes
                .add("the ring was too full to follow how some connections begin: DP601 may miss them");
        }
        let now = self.counted.per_cpu().map(|cpus| NamespaceCounters { cpus, table: counters::table_use() });
        *self.shared.conntrack.lock().unwrap_or_else(PoisonError::into_inner) = now;
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

fn interface_exists(index: u32) -> bool {
    rustix::net::netdevice::index_to_name(
        match rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None) {
            Ok(socket) => socket,
            Err(_) => return false,
        },
        index,
    )
    .is_ok()
}

/// Takes away the clsact qdiscs this tool made, unless somebody has put a filter there since.
async fn remove_empty_qdiscs(handle: &Handle, indexes: &[u32]) {
    for &index in indexes {
        let Ok(index) = i32::try_from(index) else { continue };
        let mut filters = 0;
        for direction in [Direction::Ingress, Direction::Egress] {
            let mut all = handle.traffic_filter(index);
            let get = if direction == Direction::Ingress { all.get().ingress() } else { all.get().egress() };
            filters += get.execute().try_collect::<Vec<_>>().await.map_or(1, |found| found.len());
        }
        if filters == 0 {
            let mut qdiscs = handle.qdisc();
            let mut request = qdiscs.del(index);
            request.message_mut().header.parent = TC_H_CLSACT.into();
            // Fails where the interface is gone, and the qdisc with it.
            let _ = request.execute().await;
        }
    }
}
