//! Making conntrack entries clash, without a race: packets are held before their entry into the table
//! (`__nf_conntrack_confirm`), then let go one after another.
//!
//! Behind the choice of both translations an nftables rule takes them. Not every kernel has such rules. Where a pod asks
//! a service whose server is on its own node, the packet also waits in the bridge's neighbour queue until the server's
//! MAC address is known: that is before its source is translated, so UDP's clashes are settled there by another port.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::wait_until;
use crate::lab::{Lab, Pod};
use crate::namespace::Namespace;

/// From here on what pods send to port 53 of `service` goes to `server`, whatever the service rules say; the last such
/// call for a service counts.
///
/// # Errors
/// A rule cannot be made.
pub fn translate(lab: &Lab, service: Ipv4Addr, server: Ipv4Addr) -> Result<()> {
    let rules: String = ["udp", "tcp"]
        .map(|protocol| {
            format!("iptables -w -t nat -I PREROUTING -d {service} -p {protocol} --dport 53 -j DNAT --to-destination {server}:53\n")
        })
        .concat();
    lab.node().script(&rules).map(drop)
}

/// Packets from pods to the DNS pods of the node, held in the bridge's neighbour queue since this was made.
#[derive(Debug)]
pub struct HeldByNeighbour<'a> {
    lab: &'a Lab,
}

const SERVERS: [&str; 2] = ["dns1", "dns2"];

impl<'a> HeldByNeighbour<'a> {
    /// From here on the servers do not tell their MAC addresses, and the node has forgotten them. The queue holds for
    /// half a minute.
    ///
    /// # Errors
    /// A command fails.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let mut forget = "echo 30 > /proc/sys/net/ipv4/neigh/cni0/mcast_solicit\n".to_owned();
        for name in SERVERS {
            let server = lab.pod(name)?;
            // "Do not reply for all local addresses" (ip-sysctl). Nor may it ask whether its own neighbours are still
            // there: whoever asks tells its address.
            server
                .namespace
                .script("echo 8 > /proc/sys/net/ipv4/conf/all/arp_ignore\nip neigh flush dev eth0\n")?;
            // Writing to a String cannot fail. A neighbour that is unknown anyway is fine.
            let _ = writeln!(forget, "ip neigh delete {} dev cni0 2> /dev/null || true", server.ip4);
        }
        lab.node().script(&forget)?;
        Ok(Self { lab })
    }

    /// Lets the packets go, in the order in which they came.
    ///
    /// # Errors
    /// A command fails.
    pub fn release(self) -> Result<()> {
        let mut known = String::new();
        for name in SERVERS {
            let server = self.lab.pod(name)?;
            let address = mac_address(server)?;
            // Writing to a String cannot fail.
            let _ =
                writeln!(known, "ip neigh replace {} lladdr {address} dev cni0 nud reachable", server.ip4);
        }
        self.lab.node().script(&known)?;
        for name in SERVERS {
            let server = self.lab.pod(name)?;
            server.namespace.script("echo 0 > /proc/sys/net/ipv4/conf/all/arp_ignore\n")?;
        }
        Ok(())
    }
}

fn mac_address(pod: &Pod) -> Result<String> {
    // The holder's /sys shows its own network.
    let path = format!("/proc/{}/root/sys/class/net/eth0/address", pod.namespace.pause_pid());
    Ok(fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?.trim().to_owned())
}

/// DNS queries over UDP that pass the node, held when both their addresses are chosen.
pub struct HeldBeforeEntry<'a> {
    node: &'a Namespace,
    queue: nfq::Queue,
    messages: Vec<nfq::Message>,
}

const QUEUE: u16 = 53;

impl<'a> HeldBeforeEntry<'a> {
    /// From here on queries are held; `None` where the kernel has no such rule.
    ///
    /// # Errors
    /// The queue cannot be opened.
    pub fn start(node: &'a Namespace) -> Result<Option<Self>> {
        let opened = node.enter(|| {
            let mut queue = nfq::Queue::open()?;
            queue.bind(QUEUE)?;
            queue.set_nonblocking(true);
            Ok::<_, std::io::Error>(queue)
        })?;
        // Source translation is at priority 100, the entry into the table behind all others.
        let rules = format!(
            "nft -f - << END
table ip dnspath-tests {{
  chain hold {{
    type filter hook postrouting priority 200;
    udp dport 53 queue num {QUEUE}
  }}
}}
END
"
        );
        if node.script(&rules).is_err() {
            return Ok(None);
        }
        Ok(Some(Self { node, queue: opened.context("cannot open a netfilter queue")?, messages: Vec::new() }))
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    /// None comes within 5 s.
    pub fn wait(&mut self) -> Result<()> {
        let mut got = None;
        if !wait_until(Duration::from_secs(5), || {
            got = self.queue.recv().ok();
            got.is_some()
        }) {
            bail!("no packet came into the netfilter queue");
        }
        self.messages.extend(got);
        Ok(())
    }

    /// Lets the packets go, in the order in which they came.
    ///
    /// # Errors
    /// The kernel takes no verdict, or the rule cannot be taken away.
    pub fn release(mut self) -> Result<()> {
        for mut message in self.messages.drain(..) {
            message.set_verdict(nfq::Verdict::Accept);
            self.queue.verdict(message).context("cannot give a verdict")?;
        }
        self.node.script("nft delete table ip dnspath-tests\n").map(drop)
    }
}
