//! Whose a network namespace is: joined from its processes' cgroups, the runtimes' files, CNI's results and its own
//! name. Where two sources disagree, nobody is told.

use super::{
    arrivals::Arrivals,
    cgroup::container_ids,
    cni::Results,
    processes::{Processes, netns_of},
    roots::{Roots, read_made},
    runtimes::{Container, Runtimes},
};
use crate::model::{PodName, Timestamp};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
};

/// Where `ip netns` and the runtimes keep the files of named namespaces.
const NAMED: &str = "/run/netns";
/// Named namespaces that are looked at.
const MOST_NAMED: usize = 16_384;
/// A line for each hierarchy.
const CGROUP_MAX: u64 = 64 << 10;

/// What is known of a namespace's owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Naming {
    /// This one.
    Named(PodName),
    /// This one, by a process that need not be its own: no sandbox and no result of CNI say so. While a pod is made, a
    /// plugin in there may be another pod's.
    Guessed(PodName),
    /// Sources disagree.
    Ambiguous,
    /// No source says anything.
    #[default]
    Unknown,
}

impl Naming {
    /// The name, where there is one.
    #[must_use]
    pub(super) fn name(&self) -> Option<&PodName> {
        match self {
            Self::Named(name) | Self::Guessed(name) => Some(name),
            Self::Ambiguous | Self::Unknown => None,
        }
    }

    /// Whether it is a Kubernetes pod.
    #[must_use]
    pub(super) fn is_pod(&self) -> bool {
        self.name().is_some_and(|name| !name.namespace.is_empty())
    }
}

/// Names namespaces.
#[derive(Debug)]
pub(super) struct Namer {
    roots: Roots,
    runtimes: Runtimes,
    results: Results,
}

/// What one look at the node shows.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Processes by namespace.
    pub(super) processes: Processes,
    /// Names of named namespaces, by inode.
    pub(super) named: BTreeMap<u64, String>,
    cni: HashMap<u64, PodName>,
    /// The containers that the runtimes have, without sandboxes, by pod.
    pub(super) containers: HashMap<PodName, Vec<Container>>,
    /// It is worth looking again soon.
    pub(super) growing: bool,
}

impl Look {
    /// Whether all processes of a namespace are known.
    #[must_use]
    pub(super) fn is_whole(&self, inode: u64) -> bool {
        self.processes.are_all(inode)
    }

    /// Whether a container of this pod was made lately: its first process may still be coming.
    #[must_use]
    pub(super) fn has_young(&self, pod: &PodName, now: Timestamp) -> bool {
        self.containers.get(pod).into_iter().flatten().any(|container| container.is_young(now))
    }

    /// When the last container of a pod was made, if that was lately.
    #[must_use]
    pub(super) fn newest(&self, now: Timestamp) -> Option<Timestamp> {
        let young = self.containers.values().flatten().filter(|container| container.is_young(now));
        young.filter_map(|container| container.made).max()
    }
}

impl Namer {
    /// Reads nothing yet.
    #[must_use]
    pub(super) fn new(roots: Roots) -> Self {
        Self { runtimes: Runtimes::new(roots.clone()), results: Results::new(roots.clone()), roots }
    }

    /// Follows the runtimes' directories: without that, no look lists containers.
    pub(super) fn follow(&mut self, arrivals: Arrivals) {
        self.runtimes.follow(arrivals);
    }

    /// Looks around; the namespaces `besides` are nobody's.
    pub(super) fn look(&mut self, besides: &[u64], now: Timestamp) -> Look {
        self.runtimes.next_round();
        let listed = self.runtimes.list(now);
        let mut look = Look {
            processes: Processes::list(&self.roots, besides),
            named: named(&self.roots),
            cni: self.results.by_netns(),
            containers: listed.by_pod,
            growing: listed.growing,
        };
        look.named.retain(|inode, _| !besides.contains(inode));
        look
    }

    /// Whose the namespace of this inode is.
    pub(super) fn name(&mut self, inode: u64, look: &Look) -> Naming {
        let containers = self.containers(inode, look);
        let pods = |wanted: fn(&Container) -> bool| {
            let mut pods: Vec<&PodName> = containers
                .iter()
                .filter(|(_, container)| wanted(container))
                .map(|(_, container)| &container.pod)
                .collect();
            pods.sort_unstable();
            pods.dedup();
            pods
        };
        // Who owns the namespace goes first; then who is of a pod; what else is in it may be a visitor.
        let by_container = [
            pods(|container| container.sandbox),
            pods(|container| !container.pod.namespace.is_empty()),
            pods(|_| true),
        ]
        .into_iter()
        .find(|pods| !pods.is_empty());
        let has_sandbox = containers.iter().any(|(_, container)| container.sandbox);
        match (by_container.as_deref(), look.cni.get(&inode)) {
            (Some([pod]), None) if has_sandbox || pod.namespace.is_empty() => Naming::Named((*pod).clone()),
            (Some([pod]), None) => Naming::Guessed((*pod).clone()),
            (Some([pod]), Some(cni)) if *pod == cni || pod.namespace.is_empty() => Naming::Named(cni.clone()),
            (None, Some(cni)) => Naming::Named(cni.clone()),
            (Some(_), _) => Naming::Ambiguous,
            (None, None) => match look.named.get(&inode) {
                Some(name) if !is_made_up(name) => {
                    Naming::Named(PodName { namespace: String::new(), name: name.clone() })
                }
                _ => Naming::Unknown,
            },
        }
    }

    /// The containers whose processes are in a namespace, each once, with one of its processes.
    pub(super) fn containers(&mut self, inode: u64, look: &Look) -> Vec<(u32, Container)> {
        let mut containers: Vec<(u32, Container)> = Vec::new();
        for &pid in look.processes.of(inode) {
            let Ok(cgroup) = read_made(&self.roots.proc(&format!("{pid}/cgroup")), CGROUP_MAX) else {
                continue;
            };
            let found = container_ids(&cgroup).iter().find_map(|id| self.runtimes.container(id));
            // The number may be another process's by now.
            if let Some(container) = found
                && netns_of(&self.roots, pid).is_ok_and(|now| now == inode)
                && !containers.iter().any(|(_, known)| *known == container)
            {
                containers.push((pid, container));
            }
        }
        containers
    }
}

/// The named namespaces, by inode: of those under several names, the first by the alphabet.
fn named(roots: &Roots) -> BTreeMap<u64, String> {
    let mut named = BTreeMap::new();
    let nsfs = fs::metadata("/proc/self/ns/net").map(|own| own.dev()).ok();
    for name in roots.list(NAMED, MOST_NAMED) {
        let Ok(place) = roots.place(&format!("{NAMED}/{name}")) else { continue };
        // A file nothing is mounted on is a namespace that is still being made, or a left-over.
        if let Ok(file) = rustix::fs::fstat(place)
            && Some(file.st_dev) == nsfs
        {
            named.entry(file.st_ino).or_insert(name);
        }
    }
    named
}

/// Names that runtimes make up: `cni-UUID` (containerd), `netns-UUID` (podman), a bare UUID (CRI-O).
fn is_made_up(name: &str) -> bool {
    let rest = name.strip_prefix("cni-").or_else(|| name.strip_prefix("netns-")).unwrap_or(name);
    let lengths: Vec<usize> = rest.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && rest.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
