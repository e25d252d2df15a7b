//! The probes of dropped packets and conntrack clashes: one instance of them for the whole node, whatever namespaces
//! are watched, because they see all of it and a packet must be told once.
//!
//! A thread of its own loads and attaches them, attaches those of conntrack later where that is a module which is
//! not loaded yet, and reads what was lost.

use super::{
    counters::{self, CpuCounters},
    netns::{self, Netns},
    notes::Notes,
    offsets::Kernel,
    program::{globals_of_ports, with_causes},
    symbols::Symbols,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf},
    programs::{KProbe, RawTracePoint},
    util::nr_cpus,
};
use dnspath_ebpf::{Baseline, DROP, ENTERED, INSERT_FAILED};
use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dnspath-drops"));

/// How often the count of lost records is read, and a missing module looked for.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// The function that enters a connection into the table, or refuses it.
pub(super) const CONFIRM: &str = "__nf_conntrack_confirm";
/// The probes at its start and its return.
const CONFIRM_PROBES: [&str; 2] = ["dnspath_confirm", "dnspath_confirmed"];
/// Where the kernel has kprobes at all.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// What the classifiers share with the drop probe.
pub(super) type Baselines = PerCpuHashMap<MapData, u32, Baseline>;

/// By what a dropped packet is known to be one that conntrack refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClashMethod {
    /// Probes at `__nf_conntrack_confirm`, which tells its verdict.
    Confirm,
    /// The growth of conntrack's own counters when the packet is freed; and why not by the probes.
    Counters(String),
}

/// What could be found out about how this kernel drops packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropFacts {
    /// How clashes are told.
    pub method: ClashMethod,
    /// Reasons that the kernel has names for; 0 before Linux 5.17.
    pub reasons: usize,
    /// Whether the kernel shows the names of its functions.
    pub places: bool,
}

/// The running probes.
pub(super) struct DropProbe {
    pub(super) ring: RingBuf<MapData>,
    pub(super) baselines: Arc<Baselines>,
    pub(super) facts: DropFacts,
    pub(super) symbols: Symbols,
    lost: Arc<AtomicU64>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The probes as they are loaded, before their thread has them.
struct Loaded {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    baselines: Baselines,
    symbols: Symbols,
}

impl DropProbe {
    /// Loads and attaches; the error says why nothing of the kind can be seen here.
    pub(super) fn start(
        ports: &[u16],
        namespaces: &[Netns],
        kernel: &Kernel,
        notes: &Notes,
    ) -> Result<Self, String> {
        let Loaded { mut ebpf, ring, mut baselines, symbols } = load(ports, kernel)?;
        // In this order: growth after the baseline was taken is the probe's to claim.
        take_baselines(&mut baselines, namespaces)?;
        let program: &mut RawTracePoint = program(&mut ebpf, "dnspath_drop")?;
        program
            .attach("kfree_skb")
            .map_err(|error| format!("cannot attach to the tracepoint kfree_skb: {}", with_causes(&error)))?;
        let method = match probe_confirm(&mut ebpf) {
            Ok(()) => ClashMethod::Confirm,
            Err(reason) => ClashMethod::Counters(reason),
        };
        let facts = DropFacts {
            method: method.clone(),
            reasons: kernel.reasons.known(),
            places: !symbols.is_empty(),
        };
        let lost = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = mpsc::channel();
        let keeper = Keeper { ebpf, method, lost: Arc::clone(&lost), notes: notes.clone() };
        let thread = std::thread::Builder::new()
            .name("dnspath-drops".into())
            .spawn(move || keeper.run(&stopped))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            ring,
            baselines: Arc::new(baselines),
            facts,
            symbols,
            lost,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Records lost so far because the ring was full.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Detaches; what is in the ring can still be read.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

impl Drop for DropProbe {
    fn drop(&mut self) {
        self.stop();
    }
}

fn load(ports: &[u16], kernel: &Kernel) -> Result<Loaded, String> {
    let told = [&kernel.translation, &kernel.counters, &kernel.drops];
    let mut offsets = Vec::new();
    for some in told {
        offsets.extend(some.as_ref().map_err(Clone::clone)?);
    }
    let symbols = Symbols::of_kernel();
    let (rule, hook) = (symbols.code_of("nft_do_chain"), symbols.code_of("nf_hook_slow"));
    let all_ports = globals_of_ports(ports);
    let mut loader = EbpfLoader::new();
    loader
        .btf(None)
        .override_global("PORTS", all_ports.as_slice(), true)
        .override_global("RULE_CODE", rule.as_slice(), true)
        .override_global("HOOK_CODE", hook.as_slice(), true);
    for (name, offset) in &offsets {
        loader.override_global(name, offset, true);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| with_causes(&error))?;
    let program: &mut RawTracePoint = program(&mut ebpf, "dnspath_drop")?;
    program.load().map_err(|error| with_causes(&error))?;
    let missing = |name: &str| format!("the object holds no map {name}");
    let ring = RingBuf::try_from(ebpf.take_map("DROPS").ok_or_else(|| missing("DROPS"))?)
        .map_err(|error| with_causes(&error))?;
    let baselines = Baselines::try_from(ebpf.take_map("BASELINES").ok_or_else(|| missing("BASELINES"))?)
        .map_err(|error| with_causes(&error))?;
    Ok(Loaded { ebpf, ring, baselines, symbols })
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let missing = || format!("the object holds no program {name}");
    ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
}

/// Attaches at the start and the return of `__nf_conntrack_confirm`, or at neither.
fn probe_confirm(ebpf: &mut Ebpf) -> Result<(), String> {
    if !Path::new(KPROBES).exists() {
        return Err("this kernel has no kprobes".into());
    }
    for name in CONFIRM_PROBES {
        let probe: &mut KProbe = program(ebpf, name)?;
        if probe.fd().is_err() {
            probe.load().map_err(|error| format!("kprobes are refused: {}", with_causes(&error)))?;
        }
    }
    let mut links = Vec::new();
    for name in CONFIRM_PROBES {
        let probe: &mut KProbe = program(ebpf, name)?;
        match probe.attach(CONFIRM, 0) {
            Ok(link) => links.push((name, link)),
            Err(error) => {
                for (name, link) in links {
                    // It would see connections that nobody takes up: the table of them is bounded.
                    let _ = program::<KProbe>(ebpf, name).map(|probe| probe.detach(link));
                }
                return Err(format!("cannot probe {CONFIRM}: {}", with_causes(&error)));
            }
        }
    }
    let map = ebpf.map_mut("CONFIRM_PROBED").ok_or("the object holds no map CONFIRM_PROBED")?;
    Array::<_, u32>::try_from(map)
        .and_then(|mut probed| probed.set(0, 1, 0))
        .map_err(|error| with_causes(&error))
}

/// Tells the probe what every namespace of the node has counted so far.
fn take_baselines(baselines: &mut Baselines, namespaces: &[Netns]) -> Result<(), String> {
    let cpus = nr_cpus().map_err(|(path, error)| format!("{path}: {error}"))?;
    let mut take = |inode: u64, counted: Option<Vec<CpuCounters>>| {
        let (Some(counted), Ok(key)) = (counted, u32::try_from(inode)) else { return false };
        let mut entered = Baseline::default();
        entered[ENTERED] = 1;
        let mut values = vec![entered; cpus];
        for (value, counters) in values.iter_mut().zip(&counted) {
            value[INSERT_FAILED] = counters.insert_failed.into();
            value[DROP] = counters.drop.into();
        }
        // A full table costs the namespaces beyond it their first report.
        PerCpuValues::try_from(values).is_ok_and(|values| baselines.insert(key, values, 0).is_ok())
    };
    let mut known = HashSet::new();
    for (inode, directory) in netns::of_processes() {
        if take(inode, counters::read(&directory.join("net/stat/nf_conntrack"))) {
            known.insert(inode);
        }
    }
    for netns in netns::named().iter().chain(namespaces) {
        if let Some((_, inode)) = netns.identity()
            && known.insert(inode)
        {
            take(inode, netns.inside(counters::read_own).flatten());
        }
    }
    Ok(())
}

/// The thread's state.
struct Keeper {
    ebpf: Ebpf,
    method: ClashMethod,
    lost: Arc<AtomicU64>,
    notes: Notes,
}

impl Keeper {
    /// Until the other end of the channel is gone; dropping the programs detaches them.
    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        let has_kprobes = Path::new(KPROBES).exists();
        while stopped.recv_timeout(HOUSEKEEPING) == Err(RecvTimeoutError::Timeout) {
            self.publish();
            if has_kprobes && self.method != ClashMethod::Confirm && probe_confirm(&mut self.ebpf).is_ok() {
                self.method = ClashMethod::Confirm;
                self.notes.add(&format!("{CONFIRM} is there now and probed"));
            }
        }
        self.publish();
    }

    fn publish(&self) {
        let lost = self.ebpf.map("LOST").and_then(|map| PerCpuArray::<_, u64>::try_from(map).ok());
        if let Some(counts) = lost.and_then(|lost| lost.get(&0, 0).ok()) {
            self.lost.store(counts.iter().sum(), Ordering::Relaxed);
        }
    }
}
