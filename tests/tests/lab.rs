//! The lab itself: what the other tests take for granted.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::capture::{Capture, pair, read_messages};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::lab::resolv_conf;
use dnspath_tests::query::{Qtype, ask, query};
use dnspath_tests::topology::{EMPTY_VIP4, EMPTY_VIP6, NODE_LOCAL, UPSTREAM4, UPSTREAM6, VIP4, VIP6};
use dnspath_tests::{
    Client, Lab, LabOptions, Namespace, QueryFilter, Server, ServerKind, ServerOptions, clock, sweep, traffic,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("every_resolver_resolves_a_service_name", every_resolver_resolves_a_service_name),
        ("both_backends_of_the_service_are_used", both_backends_of_the_service_are_used),
        ("a_service_without_endpoints_refuses", a_service_without_endpoints_refuses),
        ("a_dropped_aaaa_costs_glibc_five_seconds", a_dropped_aaaa_costs_glibc_five_seconds),
        ("every_path_through_the_node_works", every_path_through_the_node_works),
        ("a_node_local_server_answers", a_node_local_server_answers),
        ("the_fast_server_answers_the_same", the_fast_server_answers_the_same),
        ("traffic_is_a_mix_with_a_lost_query", traffic_is_a_mix_with_a_lost_query),
        ("endpoints_can_change_under_way", endpoints_can_change_under_way),
        ("a_pod_can_go_and_come", a_pod_can_go_and_come),
        ("resolvers_fall_back_to_tcp", resolvers_fall_back_to_tcp),
        ("a_capture_has_each_message_once", a_capture_has_each_message_once),
        ("nothing_is_left_of_a_dropped_lab", nothing_is_left_of_a_dropped_lab),
        ("a_killed_owner_leaves_nothing", a_killed_owner_leaves_nothing),
        ("a_killed_watcher_leaves_it_to_the_next_lab", a_killed_watcher_leaves_it_to_the_next_lab),
        ("a_terminated_owner_takes_the_lab_down_first", a_terminated_owner_takes_the_lab_down_first),
    ])
}

fn every_resolver_resolves_a_service_name() -> Result<Outcome> {
    let lab = Lab::new(LabOptions::default())?;
    let mut left_out = Vec::new();
    for client in Client::ALL {
        if let Err(e) = client.available() {
            left_out.push(format!("{client:?}: {e:#}"));
            continue;
        }
        // busybox searches only for names without a dot.
        let name =
            if client == Client::Busybox { "payments.shop.svc.cluster.local" } else { "payments.shop" };
        for pod in ["web", "far"] {
            let answer = client.lookup(lab.pod(pod)?, name)?;
            let expected: [IpAddr; 2] = ["10.96.1.20".parse()?, "fd00:96::20".parse()?];
            ensure!(
                expected.iter().all(|address| answer.addresses.contains(address)),
                "{client:?} in {pod}: {answer:?}"
            );
        }
        let answer = client.lookup(lab.pod("web")?, "www.example.com")?;
        ensure!(answer.addresses.len() == 2, "{client:?}: {answer:?}");
        let answer = client.lookup(lab.pod("web")?, "nothing.example.com")?;
        ensure!(answer.error.is_some(), "{client:?}: {answer:?}");
    }
    Ok(if left_out.is_empty() { Outcome::Passed } else { Outcome::LeftOut(left_out.join("; ")) })
}

/// Sends `count` queries from as many ports of `from` and returns how many were answered.
fn answered(from: &Namespace, server: impl Into<IpAddr>, count: u16) -> Result<usize> {
    let server = server.into();
    let any: IpAddr = if server.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
    let mut answered = 0;
    for id in 0..count {
        let socket = from.udp_socket(any, 0)?;
        let message = query(id, "payments.shop.svc.cluster.local", Qtype::A);
        let response = ask(&socket, SocketAddr::new(server, 53), &message, Duration::from_secs(1))?;
        answered += usize::from(response.is_some());
    }
    Ok(answered)
}

/// Packets that the rule with this comment's end saw, of all tables' `nat` chains.
fn packets(lab: &Lab, program: &str, target: &str) -> Result<u64> {
    let listing = lab.node().run(program, &["-w", "-t", "nat", "-vnxL"])?;
    let rule = format!("to:{target}");
    let counts = listing.lines().filter(|line| line.ends_with(&rule));
    counts
        .map(|line| {
            line.split_whitespace().next().unwrap_or_default().parse::<u64>().context(line.to_owned())
        })
        .sum()
}

fn both_backends_of_the_service_are_used() -> Result<Outcome> {
    let lab = Lab::new(LabOptions::default())?;
    for (vip, program) in [(IpAddr::from(VIP4), "iptables"), (IpAddr::from(VIP6), "ip6tables")] {
        let got = answered(&lab.pod("web")?.namespace, vip, 40)?;
        ensure!(got == 40, "{got} of 40 queries to {vip} answered");
        for name in ["dns1", "dns2"] {
            let pod = lab.pod(name)?;
            let address = if vip.is_ipv4() { pod.ip4.into() } else { IpAddr::from(pod.ip6) };
            let seen = packets(&lab, program, &SocketAddr::new(address, 53).to_string())?;
            // One of two at random, 40 times: below 5 is one in 10 million.
            ensure!(seen >= 5, "{name} got {seen} of 40 flows to {vip}");
        }
    }
    Ok(Outcome::Passed)
}

fn a_service_without_endpoints_refuses() -> Result<Outcome> {
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    for vip in [IpAddr::from(EMPTY_VIP4), IpAddr::from(EMPTY_VIP6)] {
        let error = answered(&lab.pod("web")?.namespace, vip, 1).err().context("no error")?;
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        ensure!(kind == Some(std::io::ErrorKind::ConnectionRefused), "{vip}: {error:#}");
    }
    Ok(Outcome::Passed)
}

fn a_dropped_aaaa_costs_glibc_five_seconds() -> Result<Outcome> {
    let lab = Lab::new(LabOptions::default())?;
    let pod = lab.pod("web")?;
    let filter = QueryFilter { qtype: Some(Qtype::Aaaa), first: Some(1) };
    let drop = lab.drop_queries(pod, filter)?;
    let answer = Client::Glibc.lookup(pod, "payments.shop.svc.cluster.local.")?;
    let took = answer.took.as_secs_f64();
    ensure!(answer.addresses.len() == 2 && (4.9..5.5).contains(&took), "{answer:?}");
    ensure!(drop.hits()? == 1, "{} queries dropped", drop.hits()?);
    std::mem::drop(drop);
    let answer = Client::Glibc.lookup(pod, "payments.shop.svc.cluster.local.")?;
    ensure!(answer.took < Duration::from_secs(1), "the rule is still there: {answer:?}");
    Ok(Outcome::Passed)
}

fn every_path_through_the_node_works() -> Result<Outcome> {
    let mut lab = Lab::new(LabOptions::default())?;
    lab.start_cluster_server("dns3")?;
    let mut paths: Vec<(&str, &Namespace, IpAddr)> = Vec::new();
    let (web, far, dns1, dns3) = (lab.pod("web")?, lab.pod("far")?, lab.pod("dns1")?, lab.pod("dns3")?);
    for vip in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
        paths.push(("pod to service", &web.namespace, vip));
        paths.push(("pod of the other node to service", &far.namespace, vip));
        paths.push(("host process to service", lab.node(), vip));
        paths.push(("server to its own service", &dns1.namespace, vip));
    }
    for server in [IpAddr::from(dns1.ip4), dns1.ip6.into(), dns3.ip4.into(), dns3.ip6.into()] {
        paths.push(("pod to pod", &web.namespace, server));
    }
    paths.push(("pod to upstream", &web.namespace, UPSTREAM4.into()));
    paths.push(("pod to upstream", &web.namespace, UPSTREAM6.into()));
    for (what, from, server) in paths {
        let got = answered(from, server, 8)?;
        ensure!(got == 8, "{what}: {got} of 8 queries to {server} answered");
    }
    Ok(Outcome::Passed)
}

fn a_node_local_server_answers() -> Result<Outcome> {
    if ServerKind::preferred() != ServerKind::CoreDns {
        return Ok(Outcome::LeftOut("CoreDNS is missing (package golang-go)".to_owned()));
    }
    let lab = Lab::new(LabOptions::default())?;
    let _cache = Server::start("nodelocal", lab.node(), ServerKind::CoreDns, &ServerOptions::node_local())?;
    let pod = lab.pod("web")?;
    pod.namespace.set_resolv_conf(&resolv_conf(&[NODE_LOCAL.into()]))?;
    for name in ["payments.shop", "api.example.com"] {
        let answer = Client::Glibc.lookup(pod, name)?;
        ensure!(answer.addresses.len() == 2, "{answer:?}");
    }
    Ok(Outcome::Passed)
}

fn traffic_is_a_mix_with_a_lost_query() -> Result<Outcome> {
    let mut lab = Lab::new(LabOptions::default())?;
    let web = Capture::start(lab.node(), "veth-web")?;
    let db = Capture::start(lab.node(), "veth-db")?;
    traffic::run(&mut lab, &AtomicBool::new(false), Duration::from_secs(8))?;
    let (web, db) = (read_messages(&web.stop()?)?, read_messages(&db.stop()?)?);
    ensure!(web.len() > 40 && db.len() > 40, "{} and {} messages", web.len(), db.len());
    ensure!(web.iter().any(|message| message.transport == "tcp"), "nothing over TCP");
    let unanswered = db.iter().filter(|message| !message.response).count() - pair(&db).len();
    ensure!(unanswered >= 1, "no query was lost");
    ensure!(unanswered * 10 < db.len(), "{unanswered} of {} messages were lost", db.len());
    Ok(Outcome::Passed)
}

fn the_fast_server_answers_the_same() -> Result<Outcome> {
    let lab = Lab::new(LabOptions { server: Some(ServerKind::Fast), ..LabOptions::default() })?;
    for name in ["payments.shop", "api.example.com"] {
        let answer = Client::Glibc.lookup(lab.pod("web")?, name)?;
        ensure!(answer.addresses.len() == 2, "{answer:?}");
    }
    let answer = Client::Glibc.lookup(lab.pod("web")?, "nothing.example.com")?;
    ensure!(answer.error.is_some(), "{answer:?}");
    Ok(Outcome::Passed)
}

fn endpoints_can_change_under_way() -> Result<Outcome> {
    let mut lab = Lab::new(LabOptions::default())?;
    lab.set_endpoints(&[])?;
    let refused = answered(&lab.pod("web")?.namespace, VIP4, 1).is_err();
    ensure!(refused, "a service without endpoints answered");
    lab.set_endpoints(&["dns2"])?;
    ensure!(answered(&lab.pod("web")?.namespace, VIP4, 8)? == 8, "the service did not come back");
    ensure!(packets(&lab, "iptables", "10.244.1.3:53")? == 8, "not all went to dns2");
    Ok(Outcome::Passed)
}

fn a_pod_can_go_and_come() -> Result<Outcome> {
    let mut lab = Lab::new(LabOptions::default())?;
    for _ in 0..3 {
        let pod = lab.add_pod("batch")?;
        ensure!(answered(&pod.namespace, VIP4, 1)? == 1, "the new pod is not answered");
        lab.remove_pod("batch")?;
        ensure!(!lab.node().run("ip", &["-br", "link"])?.contains("veth-batch"), "its link is still there");
    }
    ensure!(lab.add_pod("web").is_err() && lab.add_pod("a-b").is_err() && lab.remove_pod("no").is_err());
    Ok(Outcome::Passed)
}

fn resolvers_fall_back_to_tcp() -> Result<Outcome> {
    let lab = Lab::new(LabOptions::default())?;
    for name in ["many.shop.svc.cluster.local.", "many.example.com."] {
        let answer = Client::Glibc.lookup(lab.pod("web")?, name)?;
        ensure!(answer.addresses.len() == 60, "{} addresses of {name}", answer.addresses.len());
    }
    Ok(Outcome::Passed)
}

fn a_capture_has_each_message_once() -> Result<Outcome> {
    let lab = Lab::new(LabOptions::default())?;
    let pod = lab.pod("web")?;
    let capture = Capture::start(lab.node(), &pod.veth)?;
    let answer = Client::Glibc.lookup(pod, "api.example.com")?;
    ensure!(answer.addresses.len() == 2, "{answer:?}");
    let messages = read_messages(&capture.stop()?)?;
    let queries = messages.iter().filter(|message| !message.response).count();
    ensure!(queries == 10 && messages.len() == 20, "{queries} queries of {} messages", messages.len());
    ensure!(pair(&messages).len() == 10, "not all responses pair");
    Ok(Outcome::Passed)
}

/// The processes in a lab's namespaces, as their directories in `/proc`.
fn processes_of(prefix: &str) -> Result<Vec<PathBuf>> {
    let mut inodes = Vec::new();
    for name in sweep::namespaces_of(prefix)? {
        inodes.push(std::fs::metadata(Path::new("/run/netns").join(&name)).context(name)?.ino());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot list /proc")? {
        let path = entry?.path();
        // Processes come and go meanwhile.
        if std::fs::metadata(path.join("ns/net")).is_ok_and(|namespace| inodes.contains(&namespace.ino())) {
            found.push(path);
        }
    }
    ensure!(found.len() >= inodes.len(), "{} processes in {} namespaces", found.len(), inodes.len());
    Ok(found)
}

/// Whether a process still runs: one that has ended and was not waited for has no namespaces any more.
fn alive(process: &Path) -> bool {
    process.join("ns/net").exists()
}

fn nothing_is_left_of_a_dropped_lab() -> Result<Outcome> {
    let start = clock::now();
    let mut lab = Lab::new(LabOptions::default())?;
    let up = start.elapsed();
    lab.add_pod("extra")?;
    lab.remove_pod("extra")?;
    let (prefix, directory, watcher) =
        (lab.prefix().to_owned(), lab.directory().to_owned(), lab.watcher_pid());
    let processes = processes_of(&prefix)?;
    let start = clock::now();
    drop(lab);
    let down = start.elapsed();
    ensure!(sweep::namespaces_of(&prefix)?.is_empty(), "namespaces are left");
    ensure!(!processes.iter().any(|process| alive(process)), "processes are left");
    ensure!(!directory.exists() && !Path::new("/etc/netns").exists(), "files are left");
    ensure!(!Path::new(&format!("/proc/{watcher}")).exists(), "the watcher is left");
    ensure!(up < Duration::from_secs(10), "it took {up:?} to come up");
    Ok(Outcome::Measured(format!("up in {:.2} s, down in {:.2} s", up.as_secs_f64(), down.as_secs_f64())))
}

/// A `dnspath-lab up` of its own, with what it printed.
fn lab_process() -> Result<(Child, ChildStdin, Value)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dnspath-lab"))
        .arg("up")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dnspath-lab")?;
    let stdin = child.stdin.take().context("no standard input")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
    let facts: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line:?}"))?;
    Ok((child, stdin, facts))
}

/// What a lab of another process is, to be looked for after its end.
struct Traces {
    prefix: String,
    directory: PathBuf,
    processes: Vec<PathBuf>,
    watcher: Pid,
}

impl Traces {
    fn of(facts: &Value) -> Result<Self> {
        let text =
            |key: &str| facts[key].as_str().map(str::to_owned).with_context(|| format!("no {key}: {facts}"));
        let prefix = text("prefix")?;
        let watcher = facts["watcher"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        Ok(Self {
            processes: processes_of(&prefix)?,
            prefix,
            directory: PathBuf::from(text("directory")?),
            watcher: watcher.and_then(Pid::from_raw).context("no watcher")?,
        })
    }

    fn gone(&self) -> Result<bool> {
        Ok(sweep::namespaces_of(&self.prefix)?.is_empty()
            && !self.processes.iter().any(|process| alive(process))
            && !self.directory.exists())
    }
}

fn a_killed_owner_leaves_nothing() -> Result<Outcome> {
    let (mut child, _stdin, facts) = lab_process()?;
    let traces = Traces::of(&facts)?;
    child.kill()?;
    child.wait()?;
    let gone = clock::wait_until(Duration::from_secs(10), || traces.gone().unwrap_or(false));
    ensure!(gone, "something is left: {:?}", sweep::namespaces_of(&traces.prefix)?);
    Ok(Outcome::Passed)
}

fn a_killed_watcher_leaves_it_to_the_next_lab() -> Result<Outcome> {
    let (mut child, _stdin, facts) = lab_process()?;
    let traces = Traces::of(&facts)?;
    ensure!(!sweep::sweep()?.contains(&traces.prefix), "a living owner's lab was swept");
    kill_process(traces.watcher, Signal::KILL)?;
    child.kill()?;
    child.wait()?;
    ensure!(!sweep::namespaces_of(&traces.prefix)?.is_empty(), "there is nothing to sweep");
    let _next = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    ensure!(traces.gone()?, "something is left: {:?}", sweep::namespaces_of(&traces.prefix)?);
    Ok(Outcome::Passed)
}

fn a_terminated_owner_takes_the_lab_down_first() -> Result<Outcome> {
    for signal in [Some(Signal::TERM), Some(Signal::INT), None] {
        let (mut child, stdin, facts) = lab_process()?;
        let traces = Traces::of(&facts)?;
        match signal {
            Some(signal) => kill_process(Pid::from_child(&child), signal)?,
            None => drop(stdin),
        }
        let status = child.wait()?;
        ensure!(status.success() && traces.gone()?, "{signal:?}: {status}, or something is left");
    }
    Ok(Outcome::Passed)
}
