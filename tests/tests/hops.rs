//! Where messages are lost, told by the hops and backends they were seen at: one session of two nodes, recorded on both,
//! the second one's clock 3 s ahead. First all is well; then, one beside the other,
//!
//! - something between the nodes eats what is sent to `dns3`, one of the service's two backends;
//! - a service has no endpoints;
//! - a nameserver has nobody who listens;
//! - a program on the first node eats what one pod sends to `dns1`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use dnspath_tests::harness::{Outcome, Shared, run};
use dnspath_tests::lab::Pod;
use dnspath_tests::process::{bound_command, output_of};
use dnspath_tests::report::{report, report_json};
use dnspath_tests::requirements::find;
use dnspath_tests::topology::{EMPTY_VIP4, VIP4};
use dnspath_tests::tracer::{Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions, Namespace, ServerKind};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("one_nodes_recording_names_each_loss_and_where", one_node),
        ("both_nodes_recordings_say_what_arrived_though_their_clocks_differ", both_nodes),
        ("of_the_time_when_all_was_well_nothing_is_said", while_all_was_well),
    ])
}

const NAME: &str = "payments.shop.svc.cluster.local.";
/// Lookups of a service's clients: enough that both backends are chosen several times, almost certainly.
const LOOKUPS: usize = 24;
/// Lookups of those that ask one server.
const FEW: usize = 5;

struct Session {
    /// Kept for its files.
    _directory: tempfile::TempDir,
    near: PathBuf,
    /// The other node's, as its clock has it.
    far: PathBuf,
    /// The same, 3 s ahead.
    far_ahead: PathBuf,
    /// When the incidents began, RFC 3339.
    until: String,
    dns1: IpAddr,
    dns2: IpAddr,
    dns3: IpAddr,
}

/// The session, made once for all tests; `Err` is the reason why it is left out.
fn session() -> Result<Result<&'static Session, String>> {
    static SESSION: Shared<Session> = Shared::new();
    SESSION.get(make)
}

fn make() -> Result<Result<Session, String>> {
    if let Err(reason) = binary() {
        return Ok(Err(format!("{reason:#}")));
    }
    if let Some(tool) = ["knotd", "editcap", "date"].iter().find(|tool| find(tool).is_none()) {
        return Ok(Err(format!("{tool} is missing")));
    }
    if let Err(reason) = Client::Glibc.available() {
        return Ok(Err(format!("{reason:#}")));
    }
    let lab = Lab::new(LabOptions {
        server: Some(ServerKind::Fast),
        pods: ["web", "db", "none", "dead"].map(str::to_owned).to_vec(),
        endpoints: vec!["dns1".to_owned(), "dns3".to_owned()],
        ..LabOptions::default()
    })?;
    let address = |pod: &str| lab.pod(pod).map(|pod| IpAddr::from(pod.ip4));
    let (dns1, dns2, dns3) = (address("dns1")?, address("dns2")?, address("dns3")?);
    for (pod, server) in [
        ("web", VIP4.into()),
        ("far", VIP4.into()),
        ("db", dns1),
        ("none", EMPTY_VIP4.into()),
        ("dead", dns2),
    ] {
        let text = format!("nameserver {server}\noptions timeout:1 attempts:1\n");
        lab.pod(pod)?.namespace.set_resolv_conf(&text)?;
    }
    let directory = tempfile::tempdir().context("no directory")?;
    let near = directory.path().join("near.pcapng");
    let far = directory.path().join("far.pcapng");
    let recorders = [(lab.node(), &near), (lab.node2(), &far)].map(|(node, file)| recorder(node, file));
    for _ in 0..LOOKUPS / 2 {
        for pod in ["web", "far", "db"] {
            let answer = Client::Glibc.lookup(lab.pod(pod)?, NAME)?;
            ensure!(answer.error.is_none(), "all is well, but {pod} got {answer:?}");
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let now =
        output_of(bound_command("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]), "", Duration::from_secs(5))?;
    let until = String::from_utf8(now.stdout).context("no date")?.trim().to_owned();
    let rule = |of: &str| format!("iptables -w -I FORWARD {of} -p udp --dport 53 -j NFQUEUE --queue-num");
    let fabric =
        "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables\n".to_owned() + &rule(&format!("-d {dns3}"));
    let db = lab.pod("db")?;
    let eating = (eat(lab.fabric(), &fabric)?, eat(lab.node(), &rule(&format!("-s {} -d {dns1}", db.ip4)))?);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (lab, over) = (&lab, &over);
        // The other node has something to see as long as there is something to lose.
        let far = scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                ask(lab.pod("far")?, 1)?;
                std::thread::sleep(Duration::from_millis(200));
            }
            anyhow::Ok(())
        });
        let clients = [("web", LOOKUPS), ("db", FEW), ("none", FEW), ("dead", FEW)];
        let all = clients.map(|(pod, times)| scope.spawn(move || ask(lab.pod(pod)?, times)));
        let all = all.map(|one| one.join().unwrap_or_else(|_| Err(anyhow!("a client panicked"))));
        over.store(true, Ordering::Relaxed);
        all.into_iter().collect::<Result<()>>()?;
        far.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))
    })?;
    std::thread::sleep(Duration::from_millis(300));
    for recorder in recorders {
        recorder?.finish_with_text()?;
    }
    drop(eating);
    let far_ahead = directory.path().join("far-ahead.pcapng");
    run_program(bound_command("editcap").args(["-t", "3"]).arg(&far).arg(&far_ahead))?;
    Ok(Ok(Session { _directory: directory, near, far, far_ahead, until, dns1, dns2, dns3 }))
}

fn recorder(node: &Namespace, file: &Path) -> Result<Tracer> {
    let path = file.to_str().context("a path that is not UTF-8")?;
    Tracer::start(node.files(), &["record", "--netns", node.name(), "-w", path])
}

fn run_program(command: &mut std::process::Command) -> Result<()> {
    let output = output_of(command, "", Duration::from_secs(20))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Looks up again and again; what comes of it is not what is tested here.
fn ask(pod: &Pod, times: usize) -> Result<()> {
    (0..times).try_for_each(|_| Client::Glibc.lookup(pod, NAME).map(drop))
}

/// Holds what a rule gives to a queue for good, so that no kernel tells of a drop: as a machine outside of the nodes
/// does, or a program with a hook of its own. Ends when what is returned is dropped.
fn eat(namespace: &Namespace, rule: &str) -> Result<nfq::Queue> {
    const QUEUE: u16 = 53;
    let opened = namespace.enter(|| {
        let mut queue = nfq::Queue::open()?;
        queue.bind(QUEUE)?;
        Ok::<_, std::io::Error>(queue)
    })?;
    namespace.script(&format!("{rule} {QUEUE}\n"))?;
    opened.context("cannot open a netfilter queue")
}

/// The findings about hops and backends.
fn found(report: &Value) -> Vec<&Value> {
    let about = |finding: &&Value| {
        finding["code"].as_str().is_some_and(|code| ["DP201", "DP202", "DP402", "DP403"].contains(&code))
    };
    report["findings"].as_array().into_iter().flatten().filter(about).collect()
}

/// The only finding of a code about a server.
fn the<'a>(report: &'a Value, code: &str, server: impl ToString) -> Result<&'a Value> {
    let server = server.to_string();
    let all = found(report);
    let mut of_it = all.iter().filter(|it| it["code"] == code && it["subject"]["server"] == server.as_str());
    let first = of_it.next().with_context(|| format!("no {code} of {server} in {all:?}"))?;
    ensure!(of_it.next().is_none(), "more than one {code} of {server} in {all:?}");
    Ok(first)
}

fn says(finding: &Value, parts: &[&str]) -> Result<()> {
    let summary = finding["summary"].as_str().unwrap_or_default();
    parts.iter().try_for_each(|part| {
        ensure!(summary.contains(part), "not {part:?}: {finding}");
        Ok(())
    })
}

macro_rules! session {
    () => {
        match session()? {
            Ok(session) => session,
            Err(reason) => return Ok(Outcome::LeftOut(reason)),
        }
    };
}

fn one_node() -> Result<Outcome> {
    let session = session!();
    let json = report_json(&["--since", &session.until], &[&session.near])?;
    let (all, Session { dns1, dns2, dns3, .. }) = (found(&json), session);

    let eaten = the(&json, "DP201", dns3)?;
    ensure!(eaten["severity"] == "error" && eaten["confidence"] == "high", "{eaten}");
    ensure!(eaten["subject"]["service"] == VIP4.to_string().as_str(), "{eaten}");
    says(eaten, &["answered 0 of", "last seen leaving uplink eth0 towards"])?;
    let refused = the(&json, "DP201", dns2)?;
    says(refused, &["answered 0 of", "were refused by", "ICMP port unreachable"])?;
    let nobody = the(&json, "DP202", EMPTY_VIP4)?;
    ensure!(nobody["severity"] == "error" && nobody["confidence"] == "high", "{nobody}");
    ensure!(nobody["count"].as_u64() >= Some(2 * FEW as u64), "not all of them: {nobody}");
    let lost = the(&json, "DP402", dns1)?;
    ensure!(lost["subject"]["last_seen"] == "veth-db ingress", "{lost}");
    says(lost, &["last seen leaving the pod at veth-db and never at", "veth-dns1 egress"])?;
    ensure!(all.len() == 4, "more than what happened: {all:?}");
    let ruled = json["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|finding| finding["code"] == "DP303" && finding["subject"]["reason"] == "NETFILTER_DROP");
    ensure!(ruled.is_none(), "a rejection is told twice: {ruled:?}");
    Ok(Outcome::Measured(eaten["summary"].as_str().unwrap_or_default().to_owned()))
}

fn both_nodes() -> Result<Outcome> {
    let session = session!();
    let (near, dns3) = (&session.near, session.dns3);
    let since = ["--since", &session.until];
    let json = report_json(&since, &[near, &session.far_ahead])?;
    let lost = the(&json, "DP403", dns3)?;
    ensure!(lost["subject"]["messages"] == "queries" && lost["confidence"] == "high", "{lost}");
    ensure!(lost["count"].as_u64() >= Some(3), "{lost}");
    says(lost, &[" sent, 0 arrived at ", "last seen leaving uplink eth0"])?;
    let clock = &json["clocks"][0];
    let (ahead, uncertain) = (clock["ahead_s"].as_f64(), clock["uncertain_s"].as_f64());
    ensure!(ahead.is_some_and(|ahead| (ahead - 3.0).abs() < 0.05), "not 3 s: {clock}");
    ensure!(uncertain.is_some_and(|uncertain| uncertain < 0.05), "{clock}");
    ensure!(clock["exchanges"].as_u64() >= Some(4), "{clock}");
    let text = report(&[], &[near, &session.far_ahead])?.1;
    ensure!(text.contains("ahead of that of"), "the text does not speak of the clock:\n{text}");
    // By one clock it is the same. (editcap leaves out until when the recording went on: fewer may be counted.)
    let same = report_json(&since, &[near, &session.far])?;
    ensure!(same["clocks"].is_null(), "one clock: {}", same["clocks"]);
    let codes = |report: &Value| -> Vec<String> {
        let told = |it: &&Value| format!("{} {}", it["code"], it["subject"]["server"]);
        let mut all: Vec<String> = found(report).iter().map(told).collect();
        all.sort();
        all
    };
    ensure!(codes(&json) == codes(&same), "{:?}\nby one clock {:?}", codes(&json), codes(&same));
    ensure!(json["totals"] == same["totals"], "{}\nby one clock {}", json["totals"], same["totals"]);
    Ok(Outcome::Measured(format!("{} s ahead; {}", ahead.unwrap_or_default(), lost["summary"])))
}

fn while_all_was_well() -> Result<Outcome> {
    let session = session!();
    for files in [vec![&session.near], vec![&session.near, &session.far_ahead]] {
        let json = report_json(&["--until", &session.until], &files)?;
        let all = found(&json);
        ensure!(all.is_empty(), "said of {} files: {all:?}", files.len());
        ensure!(json["totals"]["queries"].as_u64() >= Some(2 * LOOKUPS as u64), "{}", json["totals"]);
    }
    Ok(Outcome::Passed)
}
