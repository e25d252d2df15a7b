//! What CNI remembers of the networks it made: `/var/lib/cni/results`, a JSON file for each network of each pod.
//!
//! It is written when the network is ready, which is before the pod's first process starts. A file that outlived its pod
//! (the node was restarted) names a network namespace that is gone, and is never matched.

use super::{roots::Roots, runtimes::pod};
use crate::model::PodName;
use rustix::fs::fstat;
use serde::Deserialize;
use std::collections::HashMap;

/// libcni's default; every runtime keeps to it.
const RESULTS: &str = "/var/lib/cni/results";
/// A node has at most some hundred pods, each with a network or two.
const MOST: usize = 4_096;
/// The configuration of a network, in base64, and its result.
const RESULT_MAX: u64 = 256 << 10;

/// The cached results, read again as they change.
#[derive(Debug)]
pub(super) struct Results {
    roots: Roots,
    /// By file name, which carries the container's id.
    read: HashMap<String, Option<Network>>,
}

/// One pod's network.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Network {
    pod: PodName,
    /// The file of its network namespace.
    netns: String,
}

impl Results {
    /// Nothing is read yet.
    #[must_use]
    pub(super) fn new(roots: Roots) -> Self {
        Self { roots, read: HashMap::new() }
    }

    /// Pods by the inode of their network namespace, those for which two files disagree left out.
    pub(super) fn by_netns(&mut self) -> HashMap<u64, PodName> {
        let names = self.roots.list(RESULTS, MOST);
        self.read.retain(|name, network| network.is_some() && names.binary_search(name).is_ok());
        for name in names {
            let roots = &self.roots;
            self.read.entry(name).or_insert_with_key(|name| {
                of_result(&roots.read(&format!("{RESULTS}/{name}"), RESULT_MAX).ok()?)
            });
        }
        let mut pods: HashMap<u64, Option<PodName>> = HashMap::new();
        for Network { pod, netns } in self.read.values().flatten() {
            let Some(inode) = self.roots.place(netns).ok().and_then(|place| Some(fstat(place).ok()?.st_ino))
            else {
                continue;
            };
            let entry = pods.entry(inode).or_insert_with(|| Some(pod.clone()));
            if entry.as_ref() != Some(pod) {
                *entry = None;
            }
        }
        pods.into_iter().filter_map(|(inode, pod)| Some((inode, pod?))).collect()
    }
}

/// From one file (`cniCacheV1`): the arguments that the runtime gave, and where the plugin put the interface.
fn of_result(json: &[u8]) -> Option<Network> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Cached {
        cni_args: Vec<(String, String)>,
        result: Made,
    }
    #[derive(Deserialize)]
    struct Made {
        interfaces: Vec<Interface>,
    }
    #[derive(Deserialize)]
    struct Interface {
        /// Empty for an interface of the node.
        #[serde(default)]
        sandbox: String,
    }
    let Cached { cni_args, result } = serde_json::from_slice(json).ok()?;
    let argument = |key: &str| cni_args.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let netns =
        result.interfaces.into_iter().map(|interface| interface.sandbox).find(|path| !path.is_empty())?;
    Some(Network { pod: pod(argument("K8S_POD_NAMESPACE")?, argument("K8S_POD_NAME")?)?, netns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::MetadataExt as _};

    fn result(namespace: &str, name: &str, netns: &str) -> String {
        serde_json::json!({
            "kind": "cniCacheV1", "containerId": "7c6f54b2", "config": "e30=", "ifName": "eth0", "networkName": "cbr0",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", name],
                ["K8S_POD_INFRA_CONTAINER_ID", "7c6f54b2"]],
            "result": {"cniVersion": "1.0.0", "dns": {}, "ips": [{"address": "10.244.1.4/24", "interface": 2}],
                "interfaces": [{"mac": "8e:00", "name": "cni0"}, {"mac": "da:00", "name": "veth1"},
                    {"mac": "ea:00", "name": "eth0", "sandbox": netns}]}
        })
        .to_string()
    }

    #[test]
    fn a_result_names_the_pod_of_the_namespace_it_was_made_for() {
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join(name);
        fs::create_dir_all(at("var/lib/cni/results")).unwrap();
        fs::create_dir_all(at("run/netns")).unwrap();
        std::os::unix::fs::symlink("/run", at("var/run")).unwrap();
        let inode = |name: &str| {
            fs::write(at("run/netns").join(name), "").unwrap();
            at("run/netns").join(name).metadata().unwrap().ino()
        };
        let (one, two) = (inode("cni-1"), inode("cni-2"));
        let write = |file: &str, text: &str| fs::write(at("var/lib/cni/results").join(file), text).unwrap();
        write("cbr0-a-eth0", &result("shop", "web-1", "/var/run/netns/cni-1"));
        write("other-a-net1", &result("shop", "web-1", "/var/run/netns/cni-1"));
        write("cbr0-b-eth0", &result("shop", "web-2", "/var/run/netns/cni-2"));
        write("cbr0-c-eth0", &result("shop", "gone", "/var/run/netns/cni-3"));
        write("cbr0-d-eth0", &result("sh/op", "web-4", "/var/run/netns/cni-1"));
        write("cbr0-e-eth0", "{");
        let mut results = Results::new(Roots::at(tree.path()));
        let pods = results.by_netns();
        assert_eq!(pods.len(), 2);
        assert_eq!(
            (pods[&one].to_string(), pods[&two].to_string()),
            ("shop/web-1".into(), "shop/web-2".into())
        );
        // Two pods in one namespace: neither is told.
        write("cbr0-f-eth0", &result("shop", "web-9", "/var/run/netns/cni-2"));
        assert!(!results.by_netns().contains_key(&two));
        fs::remove_file(at("var/lib/cni/results/cbr0-f-eth0")).unwrap();
        assert_eq!(results.by_netns()[&two].name, "web-2");
        assert_eq!(results.read.values().flatten().count(), 4);
    }
}
