//! Which capabilities capture needs, which are missing, and giving them up.

use super::CaptureError;
use caps::{CapSet, Capability};
use std::fmt;

/// A capability that something needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Loading BPF programs (before Linux 5.8: CAP_SYS_ADMIN).
    Bpf,
    /// Attaching to interfaces.
    NetAdmin,
    /// Reading kernel memory from a BPF program (before Linux 5.8: CAP_SYS_ADMIN).
    Perfmon,
    /// Entering another network namespace.
    SysAdmin,
}

impl Privilege {
    const fn capability(self) -> Capability {
        match self {
            Self::Bpf => Capability::CAP_BPF,
            Self::NetAdmin => Capability::CAP_NET_ADMIN,
            Self::Perfmon => Capability::CAP_PERFMON,
            Self::SysAdmin => Capability::CAP_SYS_ADMIN,
        }
    }

    fn is_held(self) -> bool {
        let held = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
        // CAP_SYS_ADMIN stands for both on every kernel.
        let covered = matches!(self, Self::Bpf | Self::Perfmon) && held(Capability::CAP_SYS_ADMIN);
        covered || held(self.capability())
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.capability())
    }
}

/// Which of the needed capabilities this thread lacks.
#[must_use]
pub fn missing(other_namespaces: bool) -> Vec<Privilege> {
    let mut needed = vec![Privilege::Bpf, Privilege::Perfmon, Privilege::NetAdmin];
    if other_namespaces {
        needed.push(Privilege::SysAdmin);
    }
    needed.retain(|privilege| !privilege.is_held());
    needed
}

pub(super) fn require(other_namespaces: bool) -> Result<(), CaptureError> {
    let missing = missing(other_namespaces);
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => Ok(()),
        [one] => Err(CaptureError::Privileges { missing: format!("{one} is") }),
        [most @ .., last] => {
            Err(CaptureError::Privileges { missing: format!("{} and {last} are", most.join(", ")) })
        }
    }
}

/// Nice value of a thread that must not wait: what the ring cannot hold meanwhile is lost.
const AHEAD: i32 = -10;

/// Puts the calling thread ahead of ordinary ones, where it may be (CAP_SYS_NICE): a node in trouble has busy CPUs, and
/// whoever reads the ring waits for its turn among all that make the load. It works a few milliseconds at a time.
pub fn go_ahead() {
    // Without it there is loss, counted, only where CPUs are full.
    let _ = rustix::process::setpriority_process(None, AHEAD);
}

/// Undoes [`go_ahead`] for a thread that only shows things.
pub fn fall_back() {
    let _ = rustix::process::setpriority_process(None, 0);
}

/// Gives up every capability of the calling thread: whoever decodes packets needs none.
///
/// # Errors
/// When the kernel refuses, as a line to show.
pub fn drop_all() -> Result<(), String> {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(|error| format!("cannot drop privileges: {error}"))?;
    }
    Ok(())
}

/// Gives up every capability of the calling thread but the one that opens files of others: for whoever writes files
/// and sees no packet.
///
/// # Errors
/// When the kernel refuses, as a line to show.
pub fn drop_all_but_files() -> Result<(), String> {
    let told = |error: caps::errors::CapsError| format!("cannot drop privileges: {error}");
    let wanted = Capability::CAP_DAC_OVERRIDE;
    let is_held = caps::has_cap(None, CapSet::Permitted, wanted).map_err(told)?;
    let kept = if is_held { [wanted].into() } else { caps::CapsHashSet::new() };
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(told)?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(told)
}

/// Kernels before 5.11 charge BPF maps against RLIMIT_MEMLOCK.
pub(super) fn lift_memory_lock() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Refused without CAP_SYS_RESOURCE; where it mattered, making the ring fails and says so.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}
