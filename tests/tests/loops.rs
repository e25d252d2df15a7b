//! A server that forwards to itself, addresses that do not accept, and what cannot be seen: told live as from the recording
//! of the same session, each beside what looks like it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::wait_until;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::{Process, bound_command};
use dnspath_tests::query::{Qtype, ask, query};
use dnspath_tests::report::{LiveReport, of_code, report, report_json};
use dnspath_tests::topology::UPSTREAM4;
use dnspath_tests::tracer::{Tracer, binary};
use dnspath_tests::{Lab, LabOptions, Namespace, Pod, Responder, toolbox};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[("a_forward_loop_and_addresses_that_do_not_accept", session)])
}

/// Ports of [`UPSTREAM4`]: somebody listens, the node rejects, the node drops, nobody listens.
const ACCEPTED: u16 = 8080;
const REJECTED: u16 = 8081;
const DROPPED: u16 = 8082;
const CLOSED: u16 = 8083;
/// What a server asks that asks itself: the stub resolver of a node's resolv.conf, and its own service.
const ASKS: [&str; 2] = ["127.0.0.53", "10.96.0.10"];
/// HINFO (RFC 1035 section 3.2.2).
const HINFO: u8 = 13;

fn session() -> Result<Outcome> {
    if let Err(reason) = binary().and_then(|_| toolbox::coredns()) {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let lab = Lab::new(LabOptions {
        server: None,
        far_pods: Vec::new(),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    })?;
    somebody_elses_program(lab.node())?;
    let directory = lab.node().files();
    let file = directory.join("session.pcapng");
    let path = file.to_str().context("a path that is not UTF-8")?;
    let live = LiveReport::start(directory, &["--netns", lab.node().name(), "--pod-loopback", "-w", path])?;

    let _upstream = Responder::start(lab.upstream())?;
    let _healthy = healthy(&lab.pod("dns2")?.namespace)?;
    dig_hinfo(&lab)?;
    for by in ASKS {
        forward_to_itself(&lab.pod("dns1")?.namespace, by)?;
    }
    connect(&lab)?;
    ask_encrypted(lab.pod("web")?)?;
    // What happened last has to be told yet.
    sleep(Duration::from_millis(300));

    let told = live.finish()?;
    let printed = fs::read_to_string(directory.join("report.json")).context("no live report")?;
    let (_, again) = report(&["-o", "json", "--lookups"], &[&file])?;
    ensure!(printed == again, "the recording's report is another:\n{printed}\n{again}");
    the_loop_is_told(&lab, &told)?;
    connects_are_told(&lab, &told)?;
    are_told_as_not_seen(&told, &["ebpf-routing", "encrypted-dns"])?;
    let without = report_json(&["--no-connect"], &[&file])?;
    ensure!(of_code(&without, "DP601").is_empty(), "told with --no-connect: {without}");
    without_btf(&lab)?;
    let loops = of_code(&told, "DP205").first().and_then(|loop_| loop_["count"].as_u64()).unwrap_or(0);
    Ok(Outcome::Measured(format!("{loops} queries that came back")))
}

/// CoreDNS with these lines. Its first query is that of its loop plugin, as soon as it listens.
fn coredns(namespace: &Namespace, lines: &str) -> Result<Process> {
    // Pods are watched inside within a quarter of a second of being found.
    sleep(Duration::from_millis(500));
    let corefile = namespace.files().join("Corefile");
    fs::write(&corefile, format!(".:53 {{\n    errors\n    loop\n{lines}\n}}\n")).context("no Corefile")?;
    let mut command = namespace.command(toolbox::coredns()?);
    command.arg("-conf").arg(&corefile);
    Process::spawn("coredns", &mut command, &namespace.files().join("coredns.log"))
}

/// A server that has `lab.test`, and forwards to somebody who answers something else.
fn healthy(namespace: &Namespace) -> Result<Process> {
    let answer = format!("template IN A lab.test {{\n answer \"{{{{ .Name }}}} 60 IN A {UPSTREAM4}\"\n }}");
    let server = coredns(namespace, &format!("{answer}\n    forward . {UPSTREAM4}"))?;
    let listens = || server.log().is_ok_and(|log| log.contains("CoreDNS-"));
    ensure!(wait_until(Duration::from_secs(20), listens), "CoreDNS does not start: {}", server.log()?);
    Ok(server)
}

/// Asks as the loop plugin does, three times at once, from a client.
fn dig_hinfo(lab: &Lab) -> Result<()> {
    let (web, server) = (lab.pod("web")?, lab.pod("dns2")?);
    for id in 0..3 {
        let mut message = query(id, "4391264813.7752938123", Qtype::A);
        let qtype = message.len() - 3;
        message[qtype] = HINFO;
        let socket = web.namespace.udp_socket(web.ip4, 0)?;
        ask(&socket, (server.ip4, 53).into(), &message, Duration::from_millis(20))?;
    }
    Ok(())
}

/// CoreDNS that forwards to itself; its loop plugin ends it.
fn forward_to_itself(namespace: &Namespace, by: &str) -> Result<()> {
    let mut server = coredns(namespace, &format!("    forward . {by}"))?;
    let ended = server.wait(Duration::from_secs(20))?;
    let log = server.log()?;
    ensure!(!ended.success() && log.contains("Loop"), "it did not detect its loop: {log}");
    Ok(())
}

/// A program at a pod's interface that lets everything pass.
fn somebody_elses_program(node: &Namespace) -> Result<()> {
    node.script(
        "tc qdisc add dev veth-web clsact
         tc filter add dev veth-web ingress bpf bytecode '1,6 0 0 4294967295,'",
    )
    .map(drop)
}

/// One datagram to the port of DNS over QUIC.
fn ask_encrypted(pod: &Pod) -> Result<()> {
    let socket = pod.namespace.udp_socket(pod.ip4, 0)?;
    socket.send_to(&[0; 40], (UPSTREAM4, 853)).context("cannot send")?;
    // The count is read four times a second.
    sleep(Duration::from_millis(600));
    Ok(())
}

fn are_told_as_not_seen(report: &Value, expected: &[&str]) -> Result<()> {
    let told: Vec<&str> =
        of_code(report, "DP902").iter().filter_map(|finding| finding["subject"]["what"].as_str()).collect();
    let missing: Vec<_> = expected.iter().filter(|what| !told.contains(what)).collect();
    ensure!(missing.is_empty(), "{missing:?} not told, but {told:?}");
    ensure!(
        of_code(report, "DP902").iter().all(|finding| finding["severity"] == "info"),
        "more than information"
    );
    Ok(())
}

/// A kernel that does not tell its types: what cannot be seen is said, and packets are captured all the same.
fn without_btf(lab: &Lab) -> Result<()> {
    const HIDE: &str = "mount -t tmpfs tmpfs /sys/kernel/btf && exec \"$0\" \"$@\"";
    let mut command = bound_command("unshare");
    command.args(["--mount", "sh", "-c", HIDE]).arg(binary()?);
    let units = ["--unit", "message", "--unit", "finding"];
    let arguments = ["stream", "-o", "json", "--netns", lab.node().name()];
    let tracer = Tracer::start_by(command, lab.upstream().files(), &[&arguments[..], &units].concat())?;
    let web = lab.pod("web")?;
    let socket = web.namespace.udp_socket(web.ip4, 0)?;
    let message = query(0x0b7f, "web.lab.test", Qtype::A);
    let server = SocketAddr::from((lab.pod("dns2")?.ip4, 53));
    ensure!(ask(&socket, server, &message, Duration::from_secs(5))?.is_some(), "no answer");
    let is_it = |line: &Value| line["unit"] == "message" && line["id"] == 0x0b7f;
    let told = || tracer.lines().is_ok_and(|lines| lines.iter().filter(|line| is_it(line)).count() == 2);
    ensure!(wait_until(Duration::from_secs(10), told), "query and answer are not told: {}", tracer.log()?);
    let log = tracer.log()?;
    let told = tracer.finish()?;
    let findings: Vec<Value> = told.unit("finding").cloned().collect();
    are_told_as_not_seen(&serde_json::json!({ "findings": findings }), &["translation", "drops"])?;
    ensure!(log.contains("(DP902)") && log.contains("/sys/kernel/btf"), "not said at the start: {log}");
    Ok(())
}

fn connect(lab: &Lab) -> Result<()> {
    let web = lab.pod("web")?;
    let _listener = lab
        .upstream()
        .enter(|| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, ACCEPTED))))?
        .context("cannot listen")?;
    let rule = |port: u16, target: &str| {
        let port = port.to_string();
        let mut arguments = vec!["-w", "-I", "FORWARD", "-p", "tcp", "--dport", &port, "-j"];
        arguments.extend(target.split(' '));
        lab.node().run("iptables", &arguments)
    };
    rule(REJECTED, "REJECT --reject-with icmp-host-prohibited")?;
    rule(DROPPED, "DROP")?;
    let socket = web.namespace.udp_socket(web.ip4, 0)?;
    let answer = ask(
        &socket,
        (lab.pod("dns2")?.ip4, 53).into(),
        &query(7, "web.lab.test", Qtype::A),
        Duration::from_secs(5),
    )?;
    ensure!(answer.is_some(), "no answer");
    // Long enough for a second SYN, after one second.
    let limit = Duration::from_millis(1_800);
    let tried = |pod: &Pod, port: u16| {
        let server = SocketAddr::from((UPSTREAM4, port));
        pod.namespace.enter(|| TcpStream::connect_timeout(&server, limit).is_ok())
    };
    for (port, accepted) in [(ACCEPTED, true), (REJECTED, false), (CLOSED, false), (DROPPED, false)] {
        ensure!(tried(web, port)? == accepted, "port {port}");
    }
    // Who was answered nothing is nobody's business.
    ensure!(!tried(lab.pod("db")?, CLOSED)?, "accepted");
    Ok(())
}

fn the_loop_is_told(lab: &Lab, told: &Value) -> Result<()> {
    let loops = of_code(told, "DP205");
    ensure!(loops.len() == ASKS.len(), "not {} loops: {loops:?}", ASKS.len());
    let server = IpAddr::from(lab.pod("dns1")?.ip4).to_string();
    for asks in ASKS {
        let of_it = loops.iter().find(|found| found["subject"]["asks"] == asks);
        let found = of_it.with_context(|| format!("not told by way of {asks}: {loops:?}"))?;
        ensure!(found["subject"]["server"] == server, "not of {server}: {found}");
        ensure!(found["severity"] == "error" && found["confidence"] == "high", "{found}");
        ensure!(found["count"].as_u64() >= Some(2), "{found}");
    }
    ensure!(told["findings"][0]["code"] == "DP205", "another finding is before it: {}", told["findings"][0]);
    Ok(())
}

fn connects_are_told(lab: &Lab, told: &Value) -> Result<()> {
    let found = of_code(told, "DP601");
    // The address accepts at another port: who asks for the closed one has the wrong port, not a wrong address.
    let expected = [(DROPPED, "silent", "warning"), (REJECTED, "unreachable", "warning")];
    ensure!(found.len() == expected.len(), "{} told: {found:?}", found.len());
    let client = IpAddr::from(lab.pod("web")?.ip4).to_string();
    for (port, outcome, severity) in expected {
        let shown = port.to_string();
        let of_port = found.iter().find(|it| it["subject"]["port"].as_str() == Some(&shown));
        let it = of_port.with_context(|| format!("port {port} is not told: {found:?}"))?;
        ensure!(it["subject"]["outcome"] == outcome && it["severity"] == severity, "{it}");
        ensure!(it["subject"]["client"] == client && it["subject"]["name"] == "web.lab.test", "{it}");
    }
    Ok(())
}
