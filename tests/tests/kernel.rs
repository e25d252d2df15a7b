//! What dnspath must do on every kernel: hook packets, see each query and answer of a node's ordinary traffic once and
//! paired, read conntrack's tuples. `cargo xtask vm-test` runs this on Debian's kernels.
//!
//! Under emulation a lab takes ten seconds and dnspath five to attach, so all tests share one of each.

use std::net::{IpAddr, SocketAddr};
use std::process::{ExitCode, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::wait_until;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::output_of;
use dnspath_tests::query::{Qtype, ask, ask_over_tcp, query};
use dnspath_tests::requirements::kernel_has_tcx;
use dnspath_tests::topology::{UPSTREAM4, UPSTREAM6, VIP4, VIP6};
use dnspath_tests::tracer::{Tracer, binary};
use dnspath_tests::{Lab, LabOptions, Responder};
use serde_json::Value;

fn main() -> ExitCode {
    let code = run(&[
        ("check_tells_how_this_kernel_is_hooked", check),
        ("udp_to_the_service", || Path::new(VIP4, false, 0x1000).check()),
        ("udp_to_the_service_over_ipv6", || Path::new(VIP6, false, 0x1100).check()),
        ("tcp_to_the_service", || Path::new(VIP4, true, 0x1200).check()),
        ("tcp_to_the_service_over_ipv6", || Path::new(VIP6, true, 0x1300).check()),
        ("udp_masqueraded_to_the_upstream", || Path::new(UPSTREAM4, false, 0x1400).check()),
        ("udp_masqueraded_to_the_upstream_over_ipv6", || Path::new(UPSTREAM6, false, 0x1500).check()),
        ("nothing_was_lost_and_nothing_is_left", nothing_was_lost),
    ]);
    drop(STAGE.lock().unwrap_or_else(PoisonError::into_inner).take());
    code
}

/// What all tests share.
static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

/// A lab whose servers answer, and dnspath on its node. It goes in this order.
struct Stage {
    /// What `dnspath check -o json` said, before another dnspath was there: by clsact, the second of two takes away the
    /// filters of the first.
    checked: Output,
    tracer: Option<Tracer>,
    _servers: Vec<Responder>,
    lab: Lab,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::new(LabOptions { server: None, far_pods: Vec::new(), ..LabOptions::default() })?;
        let mut servers = vec![Responder::start(lab.upstream())?];
        for name in ["dns1", "dns2"] {
            servers.push(Responder::start(&lab.pod(name)?.namespace)?);
        }
        let mut check = lab.node().command(binary()?);
        let checked = output_of(check.args(["check", "-o", "json"]), "", Duration::from_secs(60))?;
        let tracer = Tracer::stream(lab.node(), &["--unit", "message"])?;
        Ok(Self { checked, tracer: Some(tracer), _servers: servers, lab })
    }

    /// Lines told so far that `wanted` takes; waits until there are `count` of them.
    fn told(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let tracer = self.tracer.as_ref().context("dnspath was ended by an earlier test")?;
        let mut lines = Vec::new();
        wait_until(Duration::from_secs(10), || {
            std::thread::sleep(Duration::from_millis(200));
            lines = tracer.lines().unwrap_or_default();
            lines.retain(&wanted);
            lines.len() >= count
        });
        Ok(lines)
    }
}

/// Runs a test on the stage, which the first one makes.
fn on_stage(test: impl FnOnce(&mut Stage) -> Result<Outcome>) -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if stage.is_none() {
        *stage = Some(Stage::new()?);
    }
    test(stage.as_mut().context("there is no stage")?)
}

fn check() -> Result<Outcome> {
    on_stage(|stage| {
        let text = String::from_utf8_lossy(&stage.checked.stdout).into_owned();
        let told: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        ensure!(stage.checked.status.code() == Some(0), "it ended with {}: {text}", stage.checked.status);
        let hook = if kernel_has_tcx()? { "tcx" } else { "clsact" };
        let facts: Vec<_> = told["checks"].as_array().into_iter().flatten().collect();
        let fact = |name: &str| {
            facts.iter().find(|fact| fact["name"] == name).with_context(|| format!("no {name}: {text}"))
        };
        let attached = fact("attachment")?["found"].as_str().unwrap_or_default();
        ensure!(attached.contains(hook), "attached, but not by {hook}: {attached}");
        for name in ["type information", "capabilities", "attachment", "translation"] {
            ensure!(fact(name)?["status"] == "ok", "{}", fact(name)?);
        }
        Ok(Outcome::Measured(attached.to_owned()))
    })
}

/// One way from a pod to a server, and how many queries go there.
struct Path {
    server: IpAddr,
    tcp: bool,
    /// The first of the queries' ids.
    id: u16,
}

const QUERIES: u16 = 10;

impl Path {
    fn new(server: impl Into<IpAddr>, tcp: bool, id: u16) -> Self {
        Self { server: server.into(), tcp, id }
    }

    fn masqueraded(&self) -> bool {
        self.server == IpAddr::from(UPSTREAM4) || self.server == IpAddr::from(UPSTREAM6)
    }

    /// Asks, and looks whether each query and each answer was told once, paired, with the hops of its way.
    fn check(&self) -> Result<Outcome> {
        on_stage(|stage| {
            self.ask_all(&stage.lab)?;
            let ids = u64::from(self.id)..u64::from(self.id + QUERIES);
            let expected = 2 * usize::from(QUERIES);
            let told =
                stage.told(expected, |line| line["id"].as_u64().is_some_and(|id| ids.contains(&id)))?;
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

fn nothing_was_lost() -> Result<Outcome> {
    on_stage(|stage| {
        let told = stage.tracer.take().context("dnspath was ended by an earlier test")?.finish()?;
        for what in ["lost", "truncated", "malformed", "evicted"] {
            // What is not told did not happen.
            let count = told.coverage.get(what).copied().unwrap_or(0);
            ensure!(count == 0, "{what}={count}");
        }
        let node = stage.lab.node();
        let (qdiscs, hooked) = (node.run("tc", &["qdisc", "show"])?, node.run("bpftool", &["net", "show"])?);
        ensure!(!qdiscs.contains("clsact"), "a qdisc is left: {qdiscs}");
        ensure!(!hooked.contains("dnspath"), "a program is left: {hooked}");
        Ok(Outcome::Measured(format!("{} frames", told.covered("frames")?)))
    })
}
