//! A security group between the nodes eats DNS: of two backends the one on the other node never gets a query. Both nodes
//! record; the other node's clock is 3 s ahead.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Needs, Played, Scenario};
use crate::client::Client;
use crate::lab::{Lab, resolv_conf};
use crate::process::{bound_command, run};
use crate::topology::Site;
use crate::tracer::Tracer;

pub(super) const CROSS_NODE_DROP: Scenario = Scenario {
    code: Some("DP201"),
    needs: Needs { tools: &["editcap"], clients: &[Client::Glibc], coredns: false },
    prepare: |lab, pod| {
        lab.start_cluster_server("dns3")?;
        lab.add_pods(Site::Node2, &[FAR.to_owned()])?;
        let conf = resolv_conf(&[lab.pod("dns1")?.ip4.into()]);
        lab.pod(FAR)?.namespace.set_resolv_conf(&conf)?;
        lab.set_service("kube-system/dns-on-both-nodes", SERVICE, &["dns1", "dns3"])?;
        // Short waits: half the queries go to where no answer comes from, and so would further attempts.
        let conf = resolv_conf(&[SERVICE.into()]) + "options timeout:1 attempts:1\n";
        lab.pod(pod)?.namespace.set_resolv_conf(&conf)
    },
    play: |lab, pod| {
        let group = eat(lab, lab.pod("dns3")?.ip4)?;
        let directory = lab.node2().files();
        let (recording, shifted) = (directory.join("b.pcapng"), directory.join("b-shifted.pcapng"));
        let path = recording.to_str().context("a path that is not UTF-8")?;
        let arguments = ["record", "--netns", lab.node2().name(), "-w", path];
        let other = Tracer::start(directory, &arguments)?;
        // Both nodes see what a client there asks here: that shows how far their clocks are apart, and that the other one
        // recorded before and after.
        let seen_by_both = || {
            let answer = Client::Glibc.lookup(lab.pod(FAR)?, NAME)?;
            ensure!(answer.error.is_none(), "between the nodes nothing passes: {answer:?}");
            Ok(())
        };
        seen_by_both()?;
        let mut failed = 0;
        for _ in 0..MOST_LOOKUPS {
            failed += u32::from(Client::Glibc.lookup(pod, NAME)?.error.is_some());
            seen_by_both()?;
            if failed == FAILED {
                break;
            }
        }
        ensure!(failed == FAILED, "the rules chose the far backend {failed} times");
        other.finish_with_text()?;
        run(
            bound_command("editcap").args(["-t", "3"]).arg(&recording).arg(&shifted),
            Duration::from_secs(20),
        )?;
        let far = lab.pod("dns3")?.ip4.to_string();
        Ok(Played {
            elsewhere: Some((shifted, "DP403")),
            kept: vec![Box::new(group)],
            ..Played::about([("server", far), ("service", SERVICE.to_string())])
        })
    },
    ..Scenario::new(
        "cross-node-drop",
        "a security group eats DNS between two nodes: one backend never answers",
    )
};

/// A service with a backend on each node.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 98);
const NAME: &str = "payments.shop.svc.cluster.local.";
/// A client on the other node.
const FAR: &str = "farclient";
/// Lookups that the far backend gets: which of them is chance.
const FAILED: u32 = 5;
const MOST_LOOKUPS: usize = 60;

/// Lets no DNS query pass the fabric to this address. The packets are held and never let go, so that no kernel tells of a
/// drop: on a real network another machine eats them. It ends when what is returned is dropped.
fn eat(lab: &Lab, server: Ipv4Addr) -> Result<nfq::Queue> {
    const QUEUE: u16 = 53;
    let opened = lab.fabric().enter(|| {
        let mut queue = nfq::Queue::open()?;
        queue.bind(QUEUE)?;
        Ok::<_, std::io::Error>(queue)
    })?;
    let rules = format!(
        "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
iptables -w -A FORWARD -d {server} -p udp --dport 53 -j NFQUEUE --queue-num {QUEUE}
"
    );
    lab.fabric().script(&rules)?;
    opened.context("cannot open a netfilter queue")
}
