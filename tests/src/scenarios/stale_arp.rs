//! A pod has another MAC address than before, and a neighbour entry does not follow: the server's, of a client; the
//! node's, of a server.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{Played, Scenario};
use crate::client::Client;
use crate::lab::{Lab, Pod};
use crate::namespace::Namespace;

pub(super) const OF_A_CLIENT: Scenario = Scenario {
    code: Some("DP401"),
    drops: true,
    prepare: |lab, pod| impatient(lab, pod, lab.vip()),
    play: |lab, pod| play(pod, pod, &lab.pod("dns1")?.namespace, "eth0"),
    ..Scenario::new("stale-arp", "answers go to the MAC address that a client had before it moved")
};

pub(super) const OF_A_SERVER: Scenario = Scenario {
    code: Some("DP401"),
    drops: true,
    prepare: |lab, pod| {
        lab.add_pod(SERVER)?;
        lab.start_cluster_server(SERVER)?;
        // Through the node: its neighbour entry is what the client's queries need.
        lab.set_service("kube-system/dns-that-moves", SERVICE, &[SERVER])?;
        impatient(lab, pod, SERVICE)
    },
    play: |lab, pod| play(pod, lab.pod(SERVER)?, lab.node(), "cni0"),
    ..Scenario::new("stale-arp-of-server", "queries go to the MAC address that a server had before it moved")
};

const SERVER: &str = "movingdns";
/// A service with that server behind it.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 96);

/// A resolver that does not wait long for what does not come.
fn impatient(lab: &Lab, pod: &str, server: Ipv4Addr) -> Result<()> {
    let conf = format!("nameserver {server}\noptions timeout:1 attempts:2\n");
    lab.pod(pod)?.namespace.set_resolv_conf(&conf)
}

fn play(client: &Pod, moved: &Pod, holder: &Namespace, device: &str) -> Result<Played> {
    const NAME: &str = "payments.shop.svc.cluster.local.";
    let fine = Client::Glibc.lookup(client, NAME)?;
    ensure!(fine.error.is_none(), "before it moved: {fine:?}");
    let address = moved.ip4.to_string();
    let old = moved.namespace.run("cat", &["/sys/class/net/eth0/address"])?;
    let entry = ["neigh", "replace", &address, "lladdr", old.trim(), "nud", "permanent", "dev", device];
    holder.run("ip", &entry)?;
    moved.namespace.run("ip", &["link", "set", "eth0", "address", "02:00:00:00:aa:01"])?;
    let failed = Client::Glibc.lookup(client, NAME)?;
    ensure!(failed.error.is_some(), "it arrived all the same: {failed:?}");
    Ok(Played::about([("address", address)]))
}
