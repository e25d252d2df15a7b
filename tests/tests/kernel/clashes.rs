//! Clashes of conntrack entries, made on purpose: each is told with both tuples and the query's id, dropped ones as
//! dropped and resolved ones as resolved, and as conntrack itself counts them.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::Pod;
use dnspath_tests::clash::{HeldBeforeEntry, HeldByNeighbour, translate};
use dnspath_tests::clock::wait_until;
use dnspath_tests::conntrack::{counted, growth};
use dnspath_tests::harness::Outcome;
use dnspath_tests::query::{Qtype, query};
use dnspath_tests::topology::{POD_CIDR4, Site, UPSTREAM4, VIP4};
use serde_json::Value;

use crate::stage::{Stage, on_stage};

/// A second address of the DNS service.
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);

/// One clash: what is to be told of it.
struct Clash {
    fate: &'static str,
    transport: &'static str,
    /// The connection that came second, as its client sees it.
    original: (SocketAddr, SocketAddr),
    /// Its other direction, where only one is possible.
    reply: Option<(SocketAddr, SocketAddr)>,
    /// The DNS id of its packet, where that has one.
    id: Option<u16>,
}

impl Clash {
    fn insert_failed(original: (SocketAddr, SocketAddr), reply: (SocketAddr, SocketAddr), id: u16) -> Self {
        Self { fate: "insert_failed", transport: "udp", original, reply: Some(reply), id: Some(id) }
    }

    /// Calls `provoke`, then looks whether this and nothing else is told of the connection, and what is counted.
    fn check(&self, stage: &Stage, provoke: impl FnOnce() -> Result<()>) -> Result<Outcome> {
        let node = stage.lab.node();
        let before = counted(node)?;
        provoke()?;
        let counter = if self.fate == "insert_failed" { "insert_failed" } else { "clash_resolve" };
        let grown = |name: &str| growth(&before, &counted(node)?, name);
        wait_until(Duration::from_secs(5), || grown(counter).is_ok_and(|count| count > 0));
        let (failed, resolved) = (grown("insert_failed")?, grown("clash_resolve")?);
        let (clashes, others) =
            if self.fate == "insert_failed" { (failed, resolved) } else { (resolved, failed) };
        // On a slow machine TCP sends its SYN more than once again.
        let as_provoked = if self.transport == "tcp" { clashes >= 1 } else { clashes == 1 };
        ensure!(as_provoked && others == 0, "insert_failed +{failed}, clash_resolve +{resolved}");

        let client = self.original.0.to_string();
        let of_client = |line: &Value| line["unit"] == "drop" && line["original"]["src"] == client;
        let told = stage.told(clashes as usize, of_client)?;
        ensure!(
            told.len() as u64 == clashes,
            "{} drops and clashes told, not {clashes}: {told:?}",
            told.len()
        );
        for line in &told {
            self.compare(line)?;
        }
        Ok(Outcome::Measured(format!("{counter} +{clashes}, each told as {}", self.fate)))
    }

    fn compare(&self, line: &Value) -> Result<()> {
        ensure!(line["fate"] == self.fate && line["transport"] == self.transport, "told: {line}");
        ensure!(line["original"]["dst"] == self.original.1.to_string(), "another original tuple: {line}");
        if let Some((source, destination)) = self.reply {
            let told = &line["reply"];
            ensure!(
                told["src"] == source.to_string() && told["dst"] == destination.to_string(),
                "another reply tuple than {source} > {destination}: {line}"
            );
        }
        ensure!(self.id.is_none_or(|id| line["id"] == id), "another id than {:?}: {line}", self.id);
        Ok(())
    }
}

fn dns(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((address, 53))
}

fn send(socket: &UdpSocket, server: Ipv4Addr, id: u16) -> Result<()> {
    let message = query(id, &format!("clash{id}.example.com"), Qtype::A);
    socket.send_to(&message, dns(server)).with_context(|| format!("cannot send to {server}"))?;
    Ok(())
}

fn no_queue() -> Outcome {
    Outcome::LeftOut(
        "no nftables rule that queues can be made here: nft or the kernel's nft_queue is missing".to_owned(),
    )
}

/// Both keep their source port, so both have one reply tuple.
pub(crate) fn two_pods_with_one_port() -> Result<Outcome> {
    on_stage(|stage| {
        const PORT: u16 = 40_004;
        let node = stage.lab.node();
        let Some(mut held) = HeldBeforeEntry::start(node)? else {
            return Ok(no_queue());
        };
        // The service rules masquerade to random ports.
        let keep_ports = format!("-s {POD_CIDR4} -d {UPSTREAM4} -p udp -j MASQUERADE");
        node.script(&format!("iptables -w -t nat -I POSTROUTING {keep_ports}\n"))?;
        let (first, second) = (stage.lab.pod("web")?, stage.lab.pod("db")?);
        let sockets =
            [first.namespace.udp_socket(first.ip4, PORT)?, second.namespace.udp_socket(second.ip4, PORT)?];
        let clash = Clash::insert_failed(
            (SocketAddr::from((second.ip4, PORT)), dns(UPSTREAM4)),
            (dns(UPSTREAM4), SocketAddr::from((Site::Node.ip4(), PORT))),
            0x42,
        );
        clash.check(stage, || {
            for (socket, id) in sockets.iter().zip([0x41, 0x42]) {
                send(socket, UPSTREAM4, id)?;
                held.wait()?;
            }
            held.release()
        })
    })
}

/// The server's answers to both would look the same.
pub(crate) fn one_socket_to_two_services() -> Result<Outcome> {
    on_stage(|stage| {
        const PORT: u16 = 40_005;
        let (web, server) = (stage.lab.pod("web")?, stage.lab.pod("dns1")?.ip4);
        translate(&stage.lab, VIP4, server)?;
        translate(&stage.lab, OTHER_VIP, server)?;
        let socket = web.namespace.udp_socket(web.ip4, PORT)?;
        let client = SocketAddr::from((web.ip4, PORT));
        let clash = Clash::insert_failed((client, dns(OTHER_VIP)), (dns(server), client), 0x52);
        let Some(mut held) = HeldBeforeEntry::start(stage.lab.node())? else {
            return Ok(no_queue());
        };
        clash.check(stage, || {
            for (service, id) in [(VIP4, 0x51), (OTHER_VIP, 0x52)] {
                send(&socket, service, id)?;
                held.wait()?;
            }
            held.release()
        })
    })
}

/// An entry made by hand while the query waits.
pub(crate) fn an_entry_that_has_the_reply() -> Result<Outcome> {
    on_stage(|stage| {
        const PORT: u16 = 40_010;
        let (web, server) = (stage.lab.pod("web")?, stage.lab.pod("dns1")?.ip4);
        translate(&stage.lab, VIP4, server)?;
        let socket = web.namespace.udp_socket(web.ip4, PORT)?;
        let client = SocketAddr::from((web.ip4, PORT));
        let clash = Clash::insert_failed((client, dns(VIP4)), (dns(server), client), 0x65);
        let Some(mut held) = HeldBeforeEntry::start(stage.lab.node())? else {
            return Ok(no_queue());
        };
        clash.check(stage, || {
            send(&socket, VIP4, 0x65)?;
            held.wait()?;
            let entry = format!(
                "conntrack -I -p udp -s {} -d {OTHER_VIP} --sport {PORT} --dport 53 --dst-nat {server} -t 30\n",
                web.ip4
            );
            stage.lab.node().script(&entry)?;
            held.release()
        })
    })
}

/// TCP clashes are never resolved.
pub(crate) fn a_syn_and_its_retransmission() -> Result<Outcome> {
    on_stage(|stage| {
        let (web, server) = (stage.lab.pod("web")?, stage.lab.pod("dns1")?.ip4);
        translate(&stage.lab, VIP4, server)?;
        let held = HeldByNeighbour::start(&stage.lab)?;
        let limit = Duration::from_secs(20);
        std::thread::scope(|scope| {
            // Returns once the held SYN is through.
            let connecting =
                scope.spawn(move || web.namespace.enter(|| TcpStream::connect_timeout(&dns(VIP4), limit)));
            let port = syn_sent_from(web)?;
            // The SYN goes out again after a second, and the time after that after two more.
            sleep(Duration::from_millis(1500));
            let client = SocketAddr::from((web.ip4, port));
            let clash = Clash {
                fate: "insert_failed",
                transport: "tcp",
                original: (client, dns(VIP4)),
                reply: Some((dns(server), client)),
                id: None,
            };
            let outcome = clash.check(stage, || held.release());
            let connected = connecting.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
            ensure!(connected.is_ok(), "the first SYN did not come through: {connected:?}");
            outcome
        })
    })
}

/// The port of the pod's socket that is connecting: state 02 in `/proc/net/tcp`.
fn syn_sent_from(pod: &Pod) -> Result<u16> {
    let mut port = None;
    wait_until(Duration::from_secs(5), || {
        let sockets = pod.namespace.run("cat", &["/proc/self/net/tcp"]).unwrap_or_default();
        let connecting = sockets.lines().find(|line| line.split_whitespace().nth(3) == Some("02"));
        let local = connecting.and_then(|line| line.split_whitespace().nth(1)?.split(':').nth(1));
        port = local.and_then(|hex| u16::from_str_radix(hex, 16).ok());
        port.is_some()
    });
    port.context("no socket is connecting")
}

/// The classic race of A and AAAA. With one server both connections are the same, with two the kernel
/// (from 5.10 on) lets the loser's answer through as well.
pub(crate) fn one_socket_is_resolved(port: u16, second_server: &str) -> Result<Outcome> {
    if second_server == "dns1" && !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        let reason = "without kprobes a clash of two equal connections leaves no trace to tell it by";
        return Ok(Outcome::LeftOut(reason.to_owned()));
    }
    on_stage(|stage| {
        let web = stage.lab.pod("web")?;
        let client = SocketAddr::from((web.ip4, port));
        let socket = web.namespace.udp_socket(web.ip4, port)?;
        let clash = Clash {
            fate: "clash_resolved",
            transport: "udp",
            original: (client, dns(VIP4)),
            reply: None,
            id: Some(0x72),
        };
        clash.check(stage, || {
            // A netfilter queue would settle it: `nf_conntrack_update` gives the second packet the first one's entry.
            let held = HeldByNeighbour::start(&stage.lab)?;
            for (server, id) in [("dns1", 0x71), (second_server, 0x72)] {
                translate(&stage.lab, VIP4, stage.lab.pod(server)?.ip4)?;
                send(&socket, VIP4, id)?;
            }
            // A softirq of another CPU may still be at it.
            sleep(Duration::from_millis(100));
            held.release()
        })
    })
}
