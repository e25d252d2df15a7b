//! The kernel side: loading it, and attaching it to interfaces of the calling thread's namespace.

use super::{CaptureError, Hook, drops::Baselines, links::Link, offsets::Kernel};
use aya::{
    Ebpf, EbpfLoader,
    maps::{ArrayOfMaps, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, SchedClassifierLinkId, TcAttachOptions, TcError},
    },
    util::nr_cpus,
};
use dnspath_ebpf::{CONNECTS_PASSED_OVER, COUNTS, ENCRYPTED_SEEN, LOST_ELSEWHERE, LostKey, MAX_PORTS};
use rustix::io::Errno;
use std::{
    collections::HashMap,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dnspath-kernel"));

/// Program names, by whether frames have an Ethernet header: ingress, egress. They are also the names of the filters
/// that clsact keeps, by which what a killed dnspath left behind is found.
const ETHERNET: [&str; 2] = ["dnspath_eth_in", "dnspath_eth_out"];
const RAW_IP: [&str; 2] = ["dnspath_ip_in", "dnspath_ip_out"];
const DIRECTIONS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// Bound, in a network namespace, by the one dnspath that uses clsact there: it goes with its process, so whoever can bind it
/// knows that filters found there are leftovers of one that was killed.
const CLSACT_IS_MINE: &[u8] = b"dnspath-clsact";

/// The loaded kernel side, and what it is attached to.
pub(super) struct Program {
    ebpf: Ebpf,
    hook: Hook,
    /// [`CLSACT_IS_MINE`], once it was asked for and no other dnspath has it.
    clsact: Option<UnixDatagram>,
    attached: HashMap<u32, Attached>,
    /// Interfaces whose clsact qdisc is this tool's own.
    own_qdiscs: Vec<u32>,
}

struct Attached {
    programs: [&'static str; 2],
    links: Vec<(usize, SchedClassifierLinkId)>,
}

/// What could be found out about this kernel.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// How packets are hooked: `tcx` or `clsact`.
    pub hook: &'static str,
    /// tcx would have been used for fewer interfaces.
    pub too_many_for_tcx: bool,
    /// Why the kernel's translation of addresses cannot be read, where it cannot.
    pub no_nat: Option<String>,
}

/// Interfaces that are there at the start, up to which tcx is used where the choice is left open: they take a second.
pub(super) const MOST_BY_TCX: usize = 32;
/// The part of the ring that beginnings of connections may fill; the rest is for DNS.
const CONNECTS_SHARE: u32 = 4;
/// What the loader sets for kernels that do not tell the offsets of translation.
const NO_TRANSLATION: [(&str, u32); 2] = [("SKB_NFCT", u32::MAX), ("CT_TUPLE", 0)];

impl Program {
    /// Loads the kernel side. With the drop probe's baselines comes the inode number of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses: the error says what to do.
    pub(super) fn load(
        ports: &[u16],
        ring_octets: u32,
        connects: bool,
        hook: Hook,
        kernel: &Kernel,
        baselines: Option<(&Baselines, u32)>,
    ) -> Result<(Self, Facts), CaptureError> {
        let (mut offsets, no_nat) = match &kernel.translation {
            Ok(offsets) => (offsets.clone(), None),
            Err(reason) => (NO_TRANSLATION.to_vec(), Some(reason.clone())),
        };
        // Whoever has baselines could read the counters' offsets, too.
        let counters = baselines.and(kernel.counters.as_ref().ok());
        let netns = baselines.filter(|_| counters.is_some()).map_or(0, |(_, netns)| netns);
        offsets.push(("NETNS", netns));
        offsets.push(("CONNECT_ROOM", if connects { ring_octets / CONNECTS_SHARE } else { 0 }));
        offsets.extend(counters.into_iter().flatten());
        let all_ports = globals_of_ports(ports);
        let mut loader = EbpfLoader::new();
        loader
            // It was read for relocations, of which there are none: given back before more is allocated.
            .btf(None)
            .override_global("PORTS", all_ports.as_slice(), true)
            .map_max_entries("FRAMES", ring_octets);
        for (name, offset) in &offsets {
            loader.override_global(name, offset, true);
        }
        let mut ebpf =
            loader.load(OBJECT).map_err(|error| CaptureError::Load { reason: with_causes(&error) })?;
        if let Some((baselines, _)) = baselines {
            share_baselines(&mut ebpf, baselines)?;
        }
        for name in ETHERNET.iter().chain(&RAW_IP) {
            classifier(&mut ebpf, name)?
                .load()
                .map_err(|error| CaptureError::Load { reason: format!("{name}: {}", with_causes(&error)) })?;
        }
        make_lost_entry(&mut ebpf)?;
        Ok((
            Self { ebpf, hook, clsact: None, attached: HashMap::new(), own_qdiscs: Vec::new() },
            Facts { no_nat, ..Facts::default() },
        ))
    }

    /// Chooses the hook where that was left open, and takes away what a killed dnspath left at `links`, those that are there
    /// now. The calling thread is in their namespace.
    pub(super) fn prepare(&mut self, links: &[Link], facts: &mut Facts) {
        let address = SocketAddr::from_abstract_name(CLSACT_IS_MINE);
        self.clsact = address.and_then(|address| UnixDatagram::bind_addr(&address)).ok();
        if self.hook == Hook::Auto {
            self.hook = Hook::of_kernel();
            // Beside one that uses it, slowly is better: the two would share the qdiscs.
            if self.hook == Hook::Tcx && links.len() > MOST_BY_TCX && self.clsact.is_some() {
                self.hook = Hook::Clsact;
                facts.too_many_for_tcx = true;
            }
        }
        facts.hook = self.hook.as_str();
        if self.hook == Hook::Tcx && self.clsact.take().is_some() {
            let left = links.iter().filter(|link| take_leftovers(&link.name));
            self.own_qdiscs.extend(left.map(|link| link.index));
        }
    }

    /// The ring of frames; it can be taken once.
    pub(super) fn take_ring(&mut self) -> Result<RingBuf<MapData>, CaptureError> {
        let missing = || CaptureError::Load { reason: "the object holds no map FRAMES".into() };
        RingBuf::try_from(self.ebpf.take_map("FRAMES").ok_or_else(missing)?).map_err(|error| {
            CaptureError::Load { reason: format!("cannot map the ring: {}", with_causes(&error)) }
        })
    }

    /// For the log lines of the kernel side.
    pub(super) const fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Frames lost so far, by vantage, over all CPUs.
    pub(super) fn lost(&self) -> HashMap<LostKey, u64> {
        let Some(map) = self.ebpf.map("LOST") else { return HashMap::new() };
        let Ok(map) = PerCpuHashMap::<_, LostKey, u64>::try_from(map) else { return HashMap::new() };
        map.iter().filter_map(Result::ok).map(|(key, counts)| (key, counts.iter().sum())).collect()
    }

    /// What the kernel side saw and did not copy, over all CPUs, by `CONNECTS_PASSED_OVER` and `ENCRYPTED_SEEN`.
    pub(super) fn counts(&self) -> [u64; COUNTS as usize] {
        let Some(map) = self.ebpf.map("COUNTS") else { return Default::default() };
        let Ok(map) = PerCpuArray::<_, u64>::try_from(map) else { return Default::default() };
        let count = |index: u32| map.get(&index, 0).map_or(0, |counts| counts.iter().sum());
        [count(CONNECTS_PASSED_OVER), count(ENCRYPTED_SEEN)]
    }

    pub(super) fn is_attached(&self, index: u32) -> bool {
        self.attached.contains_key(&index)
    }

    pub(super) fn attached_indexes(&self) -> Vec<u32> {
        self.attached.keys().copied().collect()
    }

    /// Attaches both directions.
    ///
    /// # Errors
    /// When the kernel refuses either; nothing stays attached then.
    pub(super) fn attach(&mut self, link: &Link) -> Result<(), ProgramError> {
        let programs = if link.ethernet { ETHERNET } else { RAW_IP };
        if self.hook == Hook::Clsact {
            let is_new = make_clsact(&link.name)?;
            let has_leftovers = self.clsact.is_some() && !is_new && take_leftovers(&link.name);
            if is_new || has_leftovers {
                self.own_qdiscs.push(link.index);
            }
        }
        let mut attached = Attached { programs, links: Vec::with_capacity(2) };
        for (direction, name) in programs.iter().enumerate() {
            let options = match self.hook {
                Hook::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
                Hook::Auto | Hook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
            };
            let result = classifier(&mut self.ebpf, name)
                .map_err(|_| ProgramError::NotLoaded)
                .and_then(|program| program.attach_with_options(&link.name, DIRECTIONS[direction], options));
            match result {
                Ok(id) => attached.links.push((direction, id)),
                Err(error) => {
                    self.release(attached);
                    return Err(error);
                }
            }
        }
        self.attached.insert(link.index, attached);
        Ok(())
    }

    /// Detaches an interface; one that is gone already is only forgotten.
    pub(super) fn detach(&mut self, index: u32) {
        if let Some(attached) = self.attached.remove(&index) {
            self.release(attached);
        }
    }

    /// Detaches everything.
    pub(super) fn detach_all(&mut self) {
        for (_, attached) in std::mem::take(&mut self.attached) {
            self.release(attached);
        }
    }

    fn release(&mut self, attached: Attached) {
        for (direction, id) in attached.links {
            if let Ok(program) = classifier(&mut self.ebpf, attached.programs[direction]) {
                // Fails where the interface went away with its filters: then there is nothing to detach.
                let _ = program.detach(id);
            }
        }
    }

    /// Interfaces whose clsact qdisc this tool made, in this run or in one that was killed.
    pub(super) fn own_qdiscs(&self) -> &[u32] {
        &self.own_qdiscs
    }
}

/// Gives the classifiers the drop probe's table.
fn share_baselines(ebpf: &mut Ebpf, baselines: &Baselines) -> Result<(), CaptureError> {
    let failed =
        |reason: String| CaptureError::Load { reason: format!("cannot set the map BASELINES: {reason}") };
    let map = ebpf.map_mut("BASELINES").ok_or_else(|| failed("the object holds none".into()))?;
    ArrayOfMaps::<_, Baselines>::try_from(map)
        .and_then(|mut outer| outer.set(0, baselines, 0))
        .map_err(|error| failed(with_causes(&error)))
}

/// The ports as the kernel side has them.
pub(super) fn globals_of_ports(ports: &[u16]) -> [u16; MAX_PORTS] {
    let mut all = [0; MAX_PORTS];
    // 0 ends them there.
    for (place, port) in all.iter_mut().zip(ports.iter().filter(|port| **port != 0)) {
        *place = *port;
    }
    all
}

/// Makes the entry that counts losses of interfaces which the table has no room for.
fn make_lost_entry(ebpf: &mut Ebpf) -> Result<(), CaptureError> {
    let failed =
        |reason: String| CaptureError::Load { reason: format!("cannot prepare the map LOST: {reason}") };
    let cpus = nr_cpus().map_err(|(path, error)| failed(format!("{path}: {error}")))?;
    let zeros = PerCpuValues::try_from(vec![0_u64; cpus]).map_err(|error| failed(error.to_string()))?;
    let map = ebpf.map_mut("LOST").ok_or_else(|| failed("the object holds none".into()))?;
    PerCpuHashMap::<_, LostKey, u64>::try_from(map)
        .and_then(|mut lost| lost.insert(LOST_ELSEWHERE, zeros, 0))
        .map_err(|error| failed(with_causes(&error)))
}

/// Makes the qdisc where there is none, and tells whether it did.
fn make_clsact(interface: &str) -> Result<bool, ProgramError> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => Ok(true),
        Err(TcError::AlreadyAttached) => Ok(false),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes away the filters that a killed dnspath left, and tells whether there were any.
fn take_leftovers(interface: &str) -> bool {
    let mut any = false;
    for (direction, names) in DIRECTIONS.iter().zip([[ETHERNET[0], RAW_IP[0]], [ETHERNET[1], RAW_IP[1]]]) {
        for name in names {
            // An error means that there is no such filter: the ordinary case.
            any |= tc::qdisc_detach_program(interface, *direction, name).is_ok();
        }
    }
    any
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, CaptureError> {
    let missing = || CaptureError::Load { reason: format!("the object holds no classifier {name}") };
    ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
}

/// An error with all that caused it, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    // A verifier log can run to megabytes; its end says what was refused.
    let lines: Vec<&str> = line.lines().collect();
    let skipped = lines.len().saturating_sub(8);
    lines[skipped..].join(" | ")
}
