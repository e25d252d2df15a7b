//! The ordinary traffic of a node: each query and each answer is told once, paired, with both ends of its way.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::Lab;
use dnspath_tests::harness::Outcome;
use dnspath_tests::query::{Qtype, ask, ask_over_tcp, query};
use dnspath_tests::topology::{UPSTREAM4, UPSTREAM6};
use serde_json::Value;

use crate::stage::on_stage;

/// One way from a pod to a server, and how many queries go there.
pub(crate) struct Path {
    server: IpAddr,
    tcp: bool,
    /// The first of the queries' ids.
    id: u16,
}

const QUERIES: u16 = 10;

impl Path {
    pub(crate) fn new(server: impl Into<IpAddr>, tcp: bool, id: u16) -> Self {
        Self { server: server.into(), tcp, id }
    }

    fn masqueraded(&self) -> bool {
        self.server == IpAddr::from(UPSTREAM4) || self.server == IpAddr::from(UPSTREAM6)
    }

    /// Asks, and looks whether each query and each answer was told once, paired, with the hops of its way.
    pub(crate) fn check(&self) -> Result<Outcome> {
        on_stage(|stage| {
            self.ask_all(&stage.lab)?;
            let ids = u64::from(self.id)..u64::from(self.id + QUERIES);
            let expected = 2 * usize::from(QUERIES);
            let told = stage.told(expected, |line| {
                line["unit"] == "message" && line["id"].as_u64().is_some_and(|id| ids.contains(&id))
            })?;
            ensure!(told.len() == expected, "{} messages told, not {expected}: {told:?}", told.len());
            let transport = if self.tcp { "TCP" } else { "UDP" };
            for line in &told {
                ensure!(
                    line["server"] == SocketAddr::new(self.server, 53).to_string(),
                    "another server: {line}"
                );
                ensure!(
                    line["transport"].as_str().is_some_and(|told| told.eq_ignore_ascii_case(transport)),
                    "not over {transport}: {line}"
                );
                let paired =
                    line["qr"] == "Q" || line["latency_ns"].as_u64().is_some_and(|latency| latency > 0);
                ensure!(paired && line["unmatched"] != true, "an answer without its query: {line}");
                self.check_hops(line)?;
            }
            let queries = told.iter().filter(|line| line["qr"] == "Q").count();
            ensure!(queries == usize::from(QUERIES), "{queries} queries among {}", told.len());
            Ok(Outcome::Measured(format!("{QUERIES} queries, {QUERIES} answers")))
        })
    }

    fn ask_all(&self, lab: &Lab) -> Result<()> {
        let pod = lab.pod("web")?;
        let server = SocketAddr::new(self.server, 53);
        let local = if self.server.is_ipv4() { IpAddr::from(pod.ip4) } else { IpAddr::from(pod.ip6) };
        for id in self.id..self.id + QUERIES {
            let message = query(id, &format!("q{id}.example.com"), Qtype::A);
            let limit = Duration::from_secs(5);
            if self.tcp {
                pod.namespace.enter(|| ask_over_tcp(server, &message, limit))??;
            } else {
                let socket = pod.namespace.udp_socket(local, 0)?;
                ask(&socket, server, &message, limit)?
                    .with_context(|| format!("no answer from {server} to query {id:#x}"))?;
            }
        }
        Ok(())
    }

    /// Both ends of the way are among a message's hops. Where it is translated in between, only conntrack's tuples
    /// join them.
    fn check_hops(&self, line: &Value) -> Result<()> {
        let hops: Vec<&str> =
            line["hops"].as_array().into_iter().flatten().filter_map(|hop| hop["vantage"].as_str()).collect();
        let passed = |interface: &str, direction: &str| {
            hops.iter().any(|hop| hop.contains(interface) && hop.ends_with(direction))
        };
        let (to_server, from_server) =
            if line["qr"] == "Q" { ("ingress", "egress") } else { ("egress", "ingress") };
        let far = if self.masqueraded() { "eth0" } else { "veth-dns" };
        ensure!(passed("veth-web", to_server) && passed(far, from_server), "seen at {hops:?} only: {line}");
        Ok(())
    }
}
