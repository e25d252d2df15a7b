//! What the container runtimes wrote down of their containers: whose a container is, by its id.
//!
//! | runtime | file |
//! |---|---|
//! | containerd (k3s, RKE2, MicroK8s, k0s by their own paths) | `…/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json`, the OCI bundle: annotations `io.kubernetes.cri.sandbox-name`, `…-namespace` |
//! | CRI-O | `…/overlay-containers/ID/userdata/config.json`: annotations `io.kubernetes.pod.name`, `…namespace` |
//! | podman | the same bundle without these, its name in `…/overlay-containers/containers.json` |
//! | Docker, dockershim, cri-dockerd | `/var/lib/docker/containers/ID/config.v2.json`: labels `io.kubernetes.pod.name`, `…namespace` |
//!
//! A bundle is written before the container's first process starts.

use super::{arrivals::Arrivals, cgroup, roots::Roots};
use crate::model::{PodName, Timestamp};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};

/// Where containerd keeps the bundles of running containers, below its state directory.
const CONTAINERD_STATES: [&str; 4] = [
    "/run/containerd",
    // k3s and RKE2.
    "/run/k3s/containerd",
    "/run/k0s/containerd",
    // MicroK8s.
    "/var/snap/microk8s/common/run/containerd",
];
/// The runtimes of containerd's shims: the second one is that of containerd 1.x's first shim.
const CONTAINERD_TASKS: [&str; 2] = ["io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux"];
/// Where CRI-O and podman keep theirs: the running directory is gone after a restart of the node, the other is not.
const STORAGE_RUN: &str = "/run/containers/storage/overlay-containers";
const STORAGE_LIB: &str = "/var/lib/containers/storage/overlay-containers";
const DOCKER: &str = "/var/lib/docker/containers";

/// An OCI bundle of many mounts and a seccomp profile has 100 KiB.
const BUNDLE_MAX: u64 = 2 << 20;
/// podman's list of all containers.
const LIST_MAX: u64 = 8 << 20;
/// containerd's namespaces: `k8s.io`, `moby`, `default`.
const NAMESPACES_MAX: usize = 32;
/// Kubernetes names are at most 253 characters long (RFC 1123); Docker's names are shorter.
const NAME_MAX: usize = 253;
/// Containers of one runtime that are listed; a node has hundreds.
const CONTAINERS_MAX: usize = 16_384;
/// A bundle's directory of this age has its file, or will have none.
const BEING_WRITTEN: Duration = Duration::from_secs(3);

/// A container's first process is mostly there by then.
const YOUNG: Duration = Duration::from_secs(3);

/// Whose a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    /// Its pod, or its own name where it belongs to none.
    pub(super) pod: PodName,
    /// `k8s.container.name`; empty for a sandbox and for what is no pod's.
    pub(super) name: String,
    /// It owns the pod's network namespace: the sandbox ("pause").
    pub(super) sandbox: bool,
    /// When its bundle was written, or where a runtime writes it again later, when it says that it was made: before its
    /// first process started. `None` where nothing says so.
    pub(super) made: Option<Timestamp>,
}

impl Container {
    /// Whether it was made lately.
    #[must_use]
    pub(super) fn is_young(&self, now: Timestamp) -> bool {
        self.made.is_some_and(|made| now.since(made) < YOUNG)
    }
}

/// Containers by their id, as the runtimes' files have them. What was read is remembered while it is asked for.
#[derive(Debug)]
pub(super) struct Runtimes {
    roots: Roots,
    known: HashMap<String, (u64, Option<Container>)>,
    round: u64,
    /// Follows the directories that are listed.
    arrivals: Option<Arrivals>,
}

/// The containers that the runtimes have.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Those of pods, without sandboxes, by pod.
    pub(super) by_pod: HashMap<PodName, Vec<Container>>,
    /// A bundle is being written: it is worth looking again soon.
    pub(super) growing: bool,
}

impl Runtimes {
    /// Nothing is read yet.
    #[must_use]
    pub(super) fn new(roots: Roots) -> Self {
        Self { roots, known: HashMap::new(), round: 0, arrivals: None }
    }

    /// Has the directories followed that are listed: [`Self::list`] lists no others.
    pub(super) fn follow(&mut self, arrivals: Arrivals) {
        self.arrivals = Some(arrivals);
    }

    /// Every container there is. Where directories cannot be followed, what comes into them would be missed: their
    /// containers are not listed.
    pub(super) fn list(&mut self, now: Timestamp) -> Listed {
        let mut listed = Listed::default();
        for directory in self.directories() {
            for id in self.followed(&directory).filter(|id| cgroup::is_safe(id)) {
                match self.container(&id) {
                    Some(container) if container.sandbox || container.pod.namespace.is_empty() => {}
                    Some(container) => {
                        listed.by_pod.entry(container.pod.clone()).or_default().push(container)
                    }
                    None => {
                        let begun = self.roots.written(&format!("{directory}/{id}"));
                        listed.growing |= begun.is_some_and(|begun| now.since(begun) < BEING_WRITTEN);
                    }
                }
            }
        }
        listed
    }

    /// Where the runtimes have a directory for each container.
    fn directories(&self) -> Vec<String> {
        let mut directories = [STORAGE_RUN, STORAGE_LIB, DOCKER].map(String::from).to_vec();
        for state in CONTAINERD_STATES {
            for tasks in self.followed(state).filter(|name| CONTAINERD_TASKS.contains(&name.as_str())) {
                let tasks = format!("{state}/{tasks}");
                let namespaces = self.followed(&tasks).filter(|name| name != "moby").take(NAMESPACES_MAX);
                directories.extend(namespaces.map(|namespace| format!("{tasks}/{namespace}")));
            }
        }
        directories
    }

    /// The names in a directory that is followed from now on.
    fn followed(&self, path: &str) -> impl Iterator<Item = String> + use<> {
        let followed = self.arrivals.as_ref().zip(self.roots.directory(path).ok());
        let names = match followed {
            Some((arrivals, directory)) if arrivals.follow(&directory).is_ok() => {
                self.roots.list(path, CONTAINERS_MAX)
            }
            _ => Vec::new(),
        };
        names.into_iter()
    }

    /// Forgets what nobody has asked for since this was last called.
    pub(super) fn next_round(&mut self) {
        let round = self.round;
        self.known.retain(|_, (asked, container)| *asked >= round && container.is_some());
        self.round += 1;
    }

    /// The container of this id; `None` where no runtime knows it, or what it wrote makes no sense.
    pub(super) fn container(&mut self, id: &str) -> Option<Container> {
        if !cgroup::is_safe(id) {
            return None;
        }
        let round = self.round;
        if let Some((asked, container)) = self.known.get_mut(id) {
            *asked = round;
            return container.clone();
        }
        let container = self.read(id);
        self.known.insert(id.into(), (round, container.clone()));
        container
    }

    fn read(&self, id: &str) -> Option<Container> {
        self.containerd(id).or_else(|| self.storage(id)).or_else(|| self.docker(id))
    }

    /// containerd knows Docker's containers too, but not their names.
    fn containerd(&self, id: &str) -> Option<Container> {
        for state in CONTAINERD_STATES {
            for tasks in CONTAINERD_TASKS {
                let tasks = format!("{state}/{tasks}");
                for namespace in self.roots.list(&tasks, NAMESPACES_MAX) {
                    let path = format!("{tasks}/{namespace}/{id}/config.json");
                    if namespace != "moby"
                        && let Ok(bundle) = self.roots.read(&path, BUNDLE_MAX)
                    {
                        let bundle_of = |sandbox: &str| {
                            let path = format!("{tasks}/{namespace}/{sandbox}/config.json");
                            self.roots.read(&path, BUNDLE_MAX).ok()
                        };
                        let container = of_containerd(&bundle, id, bundle_of)?;
                        return Some(Container { made: self.roots.written(&path), ..container });
                    }
                }
            }
        }
        None
    }

    fn storage(&self, id: &str) -> Option<Container> {
        [STORAGE_RUN, STORAGE_LIB].iter().find_map(|storage| {
            let path = format!("{storage}/{id}/userdata/config.json");
            let bundle = self.roots.read(&path, BUNDLE_MAX).ok()?;
            let of_crio = || Some(Container { made: self.roots.written(&path), ..of_crio(&bundle)? });
            of_crio().or_else(|| {
                let list = self.roots.read(&format!("{STORAGE_LIB}/containers.json"), LIST_MAX).ok()?;
                of_podman(&list, id)
            })
        })
    }

    fn docker(&self, id: &str) -> Option<Container> {
        let config = self.roots.read(&format!("{DOCKER}/{id}/config.v2.json"), BUNDLE_MAX).ok()?;
        let host = self.roots.read(&format!("{DOCKER}/{id}/hostconfig.json"), BUNDLE_MAX).ok();
        of_docker(&config, host.as_deref())
    }
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// From a containerd bundle; `bundle_of` reads another one. Containers of `ctr` and `nerdctl` carry no pod: their id is
/// their name.
fn of_containerd(bundle: &[u8], id: &str, bundle_of: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Container> {
    const PREFIX: &str = "io.kubernetes.cri.";
    let annotations = |bundle: &[u8]| Some(serde_json::from_slice::<Bundle>(bundle).ok()?.annotations);
    let own = annotations(bundle)?;
    if !own.keys().any(|key| key.starts_with(PREFIX)) {
        return alone(id);
    }
    let get = |key: &str| own.get(&format!("{PREFIX}{key}"));
    let pod_in = |annotations: &HashMap<String, String>| {
        let get = |key: &str| annotations.get(&format!("{PREFIX}{key}"));
        pod(get("sandbox-namespace")?, get("sandbox-name")?)
    };
    // Before 1.5 only the sandbox named the pod.
    let of_sandbox = || {
        let sandbox = get("sandbox-id").filter(|sandbox| *sandbox != id && cgroup::is_safe(sandbox))?;
        pod_in(&annotations(&bundle_of(sandbox)?)?)
    };
    Some(Container {
        pod: pod_in(&own).or_else(of_sandbox)?,
        name: get("container-name").filter(|name| is_name(name)).cloned().unwrap_or_default(),
        sandbox: get("container-type").is_some_and(|kind| kind == "sandbox"),
        made: None,
    })
}

/// From a CRI-O bundle; podman's have no such annotations.
fn of_crio(bundle: &[u8]) -> Option<Container> {
    let Bundle { annotations } = serde_json::from_slice(bundle).ok()?;
    let sandbox = annotations.get("io.kubernetes.cri-o.ContainerType").is_some_and(|kind| kind == "sandbox");
    let name = annotations.get("io.kubernetes.container.name").filter(|name| !sandbox && is_name(name));
    Some(Container {
        pod: pod(
            annotations.get("io.kubernetes.pod.namespace")?,
            annotations.get("io.kubernetes.pod.name")?,
        )?,
        name: name.cloned().unwrap_or_default(),
        sandbox,
        made: None,
    })
}

/// From the list of containers of containers/storage.
fn of_podman(list: &[u8], id: &str) -> Option<Container> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let entries: Vec<Entry> = serde_json::from_slice(list).ok()?;
    let name = entries.into_iter().find(|entry| entry.id == id)?.names.into_iter().next()?;
    alone(&name)
}

/// From Docker's own files of a container: what it is, and how it was placed on this node.
fn of_docker(config: &[u8], host: Option<&[u8]>) -> Option<Container> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Docker {
        name: String,
        config: Config,
        #[serde(default)]
        created: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        #[serde(default)]
        labels: Option<HashMap<String, String>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Host {
        network_mode: String,
    }
    let Docker { name, config, created } = serde_json::from_slice(config).ok()?;
    let labels = config.labels.unwrap_or_default();
    if let (Some(namespace), Some(pod_name)) =
        (labels.get("io.kubernetes.pod.namespace"), labels.get("io.kubernetes.pod.name"))
    {
        let sandbox = labels.get("io.kubernetes.docker.type").is_some_and(|kind| kind == "podsandbox");
        let name = labels.get("io.kubernetes.container.name").filter(|name| !sandbox && is_name(name));
        let made = || u64::try_from(created.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok();
        return Some(Container {
            pod: pod(namespace, pod_name)?,
            name: name.cloned().unwrap_or_default(),
            sandbox,
            made: made().map(Timestamp::from_nanos),
        });
    }
    // One that joined another's namespace says nothing about whose that is.
    let host: Host = serde_json::from_slice(host?).ok()?;
    if host.network_mode.starts_with("container:") {
        return None;
    }
    alone(name.strip_prefix('/').unwrap_or(&name))
}

/// What belongs to no pod.
fn alone(name: &str) -> Option<Container> {
    let pod = PodName { namespace: String::new(), name: name.into() };
    is_name(name).then_some(Container { pod, name: String::new(), sandbox: false, made: None })
}

/// A pod's name, if both parts are names.
#[must_use]
pub(super) fn pod(namespace: &str, name: &str) -> Option<PodName> {
    (is_name(namespace) && is_name(name)).then(|| PodName { namespace: namespace.into(), name: name.into() })
}

/// Names of Kubernetes and of the runtimes: letters, digits and a few signs.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
