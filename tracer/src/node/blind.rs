//! What of this node hides DNS from capture.

use super::{
    ipvs::Ipvs,
    links::{Watched, enter},
    roots::{Roots, read_made},
};
use crate::model::{BlindSpot, Resolver};
use std::{net::IpAddr, path::Path};

/// A table of routes.
const TABLE_MAX: u64 = 1 << 20;
/// Where kubelets and NodeLocal DNSCache agree to have the node-local cache, by Kubernetes and by kubespray.
const NODE_LOCAL: [&str; 2] = ["169.254.20.10", "169.254.25.10"];

/// Looks from inside a watched namespace; `loopback_watched` says that its `lo` is no blind spot.
#[must_use]
pub fn blind_spots(watched: &Watched, roots: &Roots, loopback_watched: bool) -> Vec<BlindSpot> {
    std::thread::scope(|scope| {
        // A thread of its own: entering a namespace is for good.
        let looked = scope.spawn(|| {
            if enter(watched).is_err() {
                return Vec::new();
            }
            let mut spots = Vec::new();
            spots.extend(Ipvs::list().is_in_use().then(ipvs));
            spots.extend(if loopback_watched { None } else { stub(watched, roots) });
            spots
        });
        looked.join().unwrap_or_default()
    })
}

/// The address of a node-local cache, where a `/proc/net/fib_trie` has one.
fn node_local(routes: &str) -> Option<IpAddr> {
    let has = |address: &&&str| routes.lines().any(|line| line.trim_start() == format!("|-- {address}"));
    NODE_LOCAL.iter().find(has).and_then(|address| address.parse().ok())
}

fn ipvs() -> BlindSpot {
    BlindSpot::new(
        "ipvs",
        "IPVS balances services here",
        "which backend was chosen, where not both sides of it are watched",
        "kube-proxy's modes nftables and iptables choose by conntrack, which is read.",
    )
}

/// A nameserver that the node's own programs ask over its loopback.
fn stub(watched: &Watched, roots: &Roots) -> Option<BlindSpot> {
    let routes = read_made(Path::new("/proc/thread-self/net/fib_trie"), TABLE_MAX).unwrap_or_default();
    let node_local = node_local(&String::from_utf8_lossy(&routes));
    let in_file = || {
        let text = roots.read("/etc/resolv.conf", TABLE_MAX).ok()?;
        let resolv_conf = String::from_utf8_lossy(&text).into_owned();
        let nameservers = Resolver { resolv_conf, ..Resolver::default() }.nameservers();
        nameservers.into_iter().find(IpAddr::is_loopback)
    };
    // The file is that of the namespace that dnspath is in.
    let address = node_local.or_else(|| watched.path.is_none().then(in_file)?)?;
    Some(BlindSpot::new(
        "loopback",
        format!("{} asks a nameserver of its own at {address}", watched.name),
        "what its own programs ask there, which passes its loopback alone",
        "-i lo watches it; with -i name the other interfaces, too.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_local_cache_has_its_address_on_the_node() {
        let routes = "Local:\n  +-- 0.0.0.0/0 3 0 5\n        |-- 169.254.20.10\n           /32 host LOCAL\n";
        assert_eq!(node_local(routes), "169.254.20.10".parse().ok());
        assert_eq!(node_local("        |-- 169.254.20.101\n        |-- 169.254.169.254\n"), None);
    }
}
