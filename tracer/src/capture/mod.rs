//! The kernel boundary: load, attach, follow links, read the ring, count what is lost.
//!
//! [`Capture::start`] makes one thread for each watched network namespace (`namespace`), which loads the kernel side
//! (`program`) and attaches it to every interface that carries pod or node traffic (`links`). [`Capture::drain`] hands
//! over what is in the rings. Dropping the capture detaches everything.
//!
//! Dropped packets and conntrack clashes come from probes that see the whole node (`drops`), so they are loaded once,
//! beside the namespaces' programs, and a kernel that refuses them is captured on all the same.

mod blind;
mod btf;
mod check;
mod clashes;
mod counters;
mod devices;
mod drops;
mod links;
mod loopbacks;
mod namespace;
mod netns;
mod notes;
mod offsets;
mod privileges;
mod program;
mod reasons;
mod record;
mod symbols;

pub use btf::{Btf, BtfError};
pub use check::check;
pub use drops::{ClashMethod, DropFacts};
pub use links::Interfaces;
pub use loopbacks::PodNamespace;
pub use netns::Netns;
pub use notes::Notes;
pub use privileges::{Privilege, drop_all, drop_all_but_files, fall_back, go_ahead, missing};
pub use program::Facts;

use crate::model::{
    Conntrack, DropMark, Fate, Frame, InterfaceKind, LinkType, Timestamp, VantageId, Vantages,
};
use clashes::Clashes;
use devices::Devices;
use dnspath_ebpf::{FATE_CLASH_RESOLVED, FATE_INSERT_FAILED, FATE_TABLE_FULL};
use drops::{CONFIRM, DropProbe};
use loopbacks::Loopbacks;
use namespace::{Namespace, Settings};
use offsets::Kernel;
use record::{DropRecord, Record};
use std::{collections::HashMap, io, sync::Arc};

/// Octets of a ring, twice that in resident memory: the kernel maps it two times in a row. A record has 160 octets in the
/// mean, so 8 MiB hold 52,000: 116 ms at 450,000 DNS packets a second, and the reader comes every 10.
pub const DEFAULT_RING_OCTETS: u32 = 8 << 20;
/// How many DNS ports can be watched at once.
pub const MAX_PORTS: usize = dnspath_ebpf::MAX_PORTS;

/// How packets are hooked.
///
/// Each attachment by tcx, and each detachment, takes a grace period of RCU under the kernel's RTNL lock (4 jiffies
/// here: 15 ms; `tcx_entry_sync`), so 250 interfaces take 8 s; by clsact they take a third of a second. What a killed
/// process leaves, until the next one starts, is the other side of the bargain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Hook {
    /// tcx for up to 32 interfaces where the kernel has it, else clsact.
    #[default]
    Auto,
    /// A clsact qdisc with a filter: any kernel.
    Clsact,
    /// A tcx link, from Linux 6.6: it is the process's own and goes with it.
    Tcx,
}

impl Hook {
    /// What this kernel has.
    fn of_kernel() -> Self {
        use aya::util::KernelVersion;
        let has_tcx = KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0));
        if has_tcx { Self::Tcx } else { Self::Clsact }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Clsact => "clsact",
            Self::Tcx => "tcx",
        }
    }
}

/// Why capture could not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Interfaces could not be listed.
    #[error("cannot list the interfaces: {source}")]
    Interfaces {
        /// Why.
        source: io::Error,
    },
    /// The kernel side was refused.
    #[error("cannot load the kernel side: {reason}; `dnspath check` tells what this kernel allows")]
    Load {
        /// Why.
        reason: String,
    },
    /// A namespace cannot be entered.
    #[error("cannot enter the network namespace {name:?}: {source}; `ip netns` lists those with a name")]
    Netns {
        /// As the user wrote it.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// An interface that is not there.
    #[error("cannot attach to {name:?}: there is no such interface here; there are: {here}")]
    NoSuchInterface {
        /// As the user wrote it.
        name: String,
        /// Those that are.
        here: String,
    },
    /// Interfaces are there, and each refused.
    #[error("cannot attach to any interface: {reason}; `dnspath check` tells what this node allows")]
    NothingAttached {
        /// What the last one said.
        reason: String,
    },
    /// Capabilities are missing.
    #[error(
        "cannot capture: {missing} missing; run as root, or give the binary what is missing (`setcap`), or a pod's securityContext"
    )]
    Privileges {
        /// Which ones, as a sentence's subject.
        missing: String,
    },
    /// A thread or its runtime could not be made.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

/// What to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which interfaces.
    pub interfaces: Interfaces,
    /// In which namespaces; at least one.
    pub namespaces: Vec<Netns>,
    /// DNS ports, at most [`MAX_PORTS`].
    pub ports: Vec<u16>,
    /// Octets of each ring: a power of two, at least a page.
    pub ring_octets: u32,
    /// Whether the beginnings of TCP connections other than DNS are captured: at pods' interfaces and uplinks.
    pub connects: bool,
    /// How packets are hooked.
    pub hook: Hook,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interfaces: Interfaces::default(),
            namespaces: vec![Netns::Own],
            ports: vec![53],
            ring_octets: DEFAULT_RING_OCTETS,
            connects: true,
            hook: Hook::Auto,
        }
    }
}

/// A running capture.
pub struct Capture {
    namespaces: Vec<Namespace>,
    vantages_seen: Vec<HashMap<u32, VantageId, foldhash::fast::RandomState>>,
    /// Inside pods, where that is wanted.
    loopbacks: Option<Loopbacks>,
    /// What a namespace's thread is given.
    settings: Settings,
    /// Or why there are none.
    drops: Result<DropProbe, String>,
    /// Devices that packets were dropped at, by namespace and index.
    devices: Devices,
    /// Resolved clashes that frames showed, where no probe of conntrack's tells them.
    clashes: Clashes,
    clashes_by_frames: bool,
    wall_minus_monotonic: u64,
    begin: Timestamp,
    frames: u64,
    broken_records: u64,
}

impl Capture {
    /// Loads and attaches; returns once every interface that is there is attached.
    ///
    /// `wall_minus_monotonic` is what is added, in nanoseconds, to CLOCK_MONOTONIC to give a [`Timestamp`].
    ///
    /// # Errors
    /// When a namespace cannot be entered, the kernel refuses the program, or no interface can be attached.
    pub fn start(
        options: &Options,
        wall_minus_monotonic: u64,
        vantages: &Vantages,
        notes: &Notes,
    ) -> Result<Self, CaptureError> {
        privileges::require(options.namespaces.iter().any(|netns| *netns != Netns::Own))?;
        privileges::lift_memory_lock();
        let kernel = Arc::new(Kernel::read());
        let drops = DropProbe::start(&options.ports, &options.namespaces, &kernel, notes);
        let settings = Settings {
            netns: Netns::Own,
            shown_as: None,
            interfaces: options.interfaces.clone(),
            ports: options.ports.clone(),
            ring_octets: options.ring_octets,
            connects: options.connects,
            hook: options.hook,
            kernel,
            baselines: drops.as_ref().ok().map(|probe| Arc::clone(&probe.baselines)),
            vantages: vantages.clone(),
            notes: notes.clone(),
        };
        let watch = |netns: &Netns| {
            Namespace::watch(Settings {
                netns: netns.clone(),
                shown_as: netns.name().filter(|_| options.namespaces.len() > 1).map(Into::into),
                ..settings.clone()
            })
        };
        let namespaces = options.namespaces.iter().map(watch).collect::<Result<Vec<_>, _>>()?;
        let vantages_seen = vec![HashMap::default(); namespaces.len()];
        let clashes_by_frames = drops.as_ref().is_ok_and(|probe| probe.facts.method != ClashMethod::Confirm);
        let devices = Devices::new(vantages);
        Ok(Self {
            namespaces,
            vantages_seen,
            loopbacks: None,
            settings,
            drops,
            devices,
            clashes: Clashes::new(vantages),
            clashes_by_frames,
            wall_minus_monotonic,
            begin: Timestamp::EPOCH,
            frames: 0,
            broken_records: 0,
        })
    }

    /// What was captured before this time is passed over: while one interface after the other is attached, a message
    /// would be seen by some of them, and lie outside of the window that the session speaks of.
    /// Drops and clashes are told all the same: the counters they are compared with began before, too.
    pub const fn begin(&mut self, begin: Timestamp) {
        self.begin = begin;
    }

    /// Watches the loopbacks of these pods too, as they come and go; returns once those that are there are watched. Call it
    /// from a thread that has its privileges.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn watch_loopbacks(
        &mut self,
        pods: impl Fn() -> Vec<PodNamespace> + Send + 'static,
    ) -> Result<(), CaptureError> {
        let started = Loopbacks::start(self.settings.clone(), pods);
        self.loopbacks = Some(started.map_err(|source| CaptureError::Thread { source })?);
        Ok(())
    }

    /// Hands over every frame that is in the rings now, ring after ring, and returns how many there were.
    ///
    /// Within one ring a packet's frames come in the order of its way. Between rings (several namespaces) the order
    /// is off by at most the time between two calls.
    pub fn drain(&mut self, mut each: impl FnMut(&Frame<'_>)) -> u64 {
        let before = self.frames;
        let inside = self.loopbacks.iter_mut().flat_map(|loopbacks| {
            loopbacks.heed();
            loopbacks.reading.values_mut().chain(&mut loopbacks.leaving)
        });
        let inside = inside.map(|(namespace, seen)| (namespace, seen));
        for (namespace, seen) in self.namespaces.iter_mut().zip(&mut self.vantages_seen).chain(inside) {
            // Bounded, so that a flood cannot keep the caller from its clock.
            for _ in 0..MOST_IN_ONE_DRAIN {
                let Some(item) = namespace.ring.next() else { break };
                let Some(record) = Record::parse(&item) else {
                    self.broken_records += 1;
                    continue;
                };
                let key = record.ifindex << 1 | u32::from(record.egress);
                let shared = &namespace.shared;
                let Some(vantage) = seen.get(&key).copied().or_else(|| {
                    let vantage = shared.vantage(key)?;
                    seen.insert(key, vantage);
                    Some(vantage)
                }) else {
                    self.broken_records += 1;
                    continue;
                };
                if record.connect && !tells_connects(&self.settings.vantages, vantage) {
                    continue;
                }
                let time = Timestamp::from_nanos(record.time.wrapping_add(self.wall_minus_monotonic));
                if time < self.begin {
                    continue;
                }
                self.frames += 1;
                let frame = Frame {
                    number: self.frames,
                    time,
                    vantage,
                    link: if record.raw_ip { LinkType::RawIp } else { LinkType::Ethernet },
                    original_len: record.frame_len,
                    bytes: record.frame,
                    segment_size: record.segment_size,
                    nat: record.nat,
                    drop: None,
                };
                each(&frame);
                if record.clash
                    && self.clashes_by_frames
                    && let Some(clash) = self.clashes.first_sight(&frame, record.cpu)
                {
                    self.frames += 1;
                    each(&Frame { number: self.frames, ..clash });
                }
            }
        }
        self.drain_drops(&mut each);
        self.frames - before
    }

    fn drain_drops(&mut self, each: &mut impl FnMut(&Frame<'_>)) {
        let Ok(probe) = &mut self.drops else { return };
        let names = &self.settings.kernel.reasons;
        for _ in 0..MOST_IN_ONE_DRAIN {
            let Some(item) = probe.ring.next() else { break };
            let Some(record) = DropRecord::parse(&item) else {
                self.broken_records += 1;
                continue;
            };
            let (reason, mut place) = (names.name(record.reason), probe.symbols.function_at(record.place));
            let fate = match record.fate {
                FATE_CLASH_RESOLVED => Fate::ClashResolved,
                FATE_INSERT_FAILED => Fate::InsertFailed,
                FATE_TABLE_FULL => Fate::TableFull,
                _ => Fate::Dropped,
            };
            match fate {
                Fate::Dropped if !reasons::is_loss(reason, place, record.is_tcp()) => continue,
                Fate::Dropped => {}
                // What refused the packet says more than what freed it.
                Fate::ClashResolved | Fate::InsertFailed => place = CONFIRM,
                Fate::TableFull => place = "nf_conntrack_in",
            }
            let vantage = self.devices.vantage(&record, &self.namespaces);
            // Only there the address that the frame was sent to matters; elsewhere the link header is one of before.
            let with_link = reasons::is_of_link(reason, place) && !record.link.is_empty();
            self.frames += 1;
            each(&Frame {
                number: self.frames,
                time: Timestamp::from_nanos(record.time.wrapping_add(self.wall_minus_monotonic)),
                vantage,
                link: if with_link { LinkType::Ethernet } else { LinkType::RawIp },
                original_len: record.original_len(with_link),
                bytes: record.captured(with_link),
                segment_size: 0,
                nat: record.connection,
                drop: Some(DropMark { fate, cpu: record.cpu, reason, place }),
            });
        }
    }

    /// Frames lost so far: those that found the ring full, and records that could not be read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let full: u64 = self.namespaces.iter().flat_map(|n| n.shared.lost()).map(|(_, count)| count).sum();
        let drops = self.drops.as_ref().map_or(0, DropProbe::lost);
        let inside = self.loopbacks.as_ref().map_or(0, Loopbacks::lost);
        full + drops + inside + self.broken_records
    }

    /// Frames lost because the ring was full, by vantage; `None` for an interface that was never named.
    #[must_use]
    pub fn lost_by_vantage(&self) -> Vec<(Option<VantageId>, u64)> {
        self.namespaces.iter().flat_map(|namespace| namespace.shared.lost()).collect()
    }

    /// Packets of encrypted DNS (port 853) that passed watched interfaces so far, each interface counted.
    #[must_use]
    pub fn encrypted(&self) -> u64 {
        self.namespaces.iter().map(|namespace| namespace.shared.encrypted()).sum()
    }

    /// How many interfaces are attached now.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.namespaces.iter().map(|namespace| namespace.shared.attached()).sum()
    }

    /// What was found out about this kernel.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.namespaces.first().map(|namespace| namespace.facts.clone()).unwrap_or_default()
    }

    /// How dropped packets and conntrack clashes are seen.
    ///
    /// # Errors
    /// Why they are not.
    pub fn drop_facts(&self) -> Result<&DropFacts, &str> {
        self.drops.as_ref().map(|probe| &probe.facts).map_err(String::as_str)
    }

    /// What conntrack counted in the watched namespaces since the start; `None` where none of them lets it be read.
    #[must_use]
    pub fn conntrack(&self) -> Option<Conntrack> {
        let mut sum = None;
        for counted in self.namespaces.iter().filter_map(|namespace| namespace.shared.conntrack()) {
            let sum = sum.get_or_insert_with(Conntrack::default);
            counted.cpus.iter().for_each(|cpu| counters::add(sum, cpu));
            let (entries, max) = counted.table;
            counters::add(sum, &Conntrack { entries, max, ..Conntrack::default() });
        }
        sum
    }

    /// The same by CPU, all watched namespaces together; how full the table is, is not told by CPU. Empty where it
    /// cannot be read.
    #[must_use]
    pub fn conntrack_per_cpu(&self) -> Vec<Conntrack> {
        let mut sums = Vec::new();
        for counted in self.namespaces.iter().filter_map(|namespace| namespace.shared.conntrack()) {
            sums.resize(sums.len().max(counted.cpus.len()), Conntrack::default());
            sums.iter_mut().zip(&counted.cpus).for_each(|(sum, cpu)| counters::add(sum, cpu));
        }
        sums
    }

    /// Detaches everything; what is in the rings can still be drained, and the counts are final.
    pub fn stop(&mut self) {
        if let Ok(probe) = &mut self.drops {
            probe.stop();
        }
        if let Some(loopbacks) = &mut self.loopbacks {
            loopbacks.stop();
        }
        for namespace in &mut self.namespaces {
            namespace.stop();
        }
    }
}

/// Whether the beginnings of connections are taken there: where clients are. In between they would be told again.
fn tells_connects(vantages: &Vantages, vantage: VantageId) -> bool {
    let kind = vantages.lookup(vantage).map(|vantage| vantage.kind);
    matches!(kind, Some(InterfaceKind::Veth | InterfaceKind::Uplink))
}

/// Frames taken from one ring before the next one has its turn.
const MOST_IN_ONE_DRAIN: usize = 65_536;
