//! Who is who, against a real containerd with runc and the CNI bridge: each pod asks for its own name, so that every
//! lookup says itself whose it is.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::client::Client;
use dnspath_tests::clock::{self, wait_until};
use dnspath_tests::containerd::{Containerd, GATEWAY, asking, cluster_resolv_conf, pod_name};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::output_of;
use dnspath_tests::report::{LiveReport, of_code, report as report_text};
use dnspath_tests::tracer::{Tracer, binary};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("a_pod_that_was_there_before_is_named", a_pod_that_was_there_before_is_named),
        ("it_runs_in_a_container_of_the_node", it_runs_in_a_container_of_the_node),
        ("lookups_carry_their_container", lookups_carry_their_container),
        ("two_hundred_pods_come_and_go", two_hundred_pods_come_and_go),
    ])
}

/// How the lookups of a session were named.
#[derive(Debug, Default)]
struct Named {
    right: usize,
    wrong: Vec<String>,
    /// Without a name, at least a second after the pod's first lookup.
    missing: Vec<String>,
    early: usize,
    pods: usize,
}

fn judge(lines: &[Value]) -> Result<Named> {
    let mut named = Named::default();
    let mut first: HashMap<String, f64> = HashMap::new();
    let mut lookups: Vec<(f64, String, Option<String>)> = Vec::new();
    for line in lines.iter().filter(|line| line["unit"] == "lookup") {
        let name = line["name"].as_str().context("a lookup without a name")?;
        // Without the suffix where the pod's search list is known.
        let pod = name.strip_suffix(".example").unwrap_or(name);
        if !pod.starts_with("pod-") {
            continue;
        }
        let start = seconds_of_day(line["start"].as_str().context("a lookup without a start")?)?;
        lookups.push((start, pod.to_owned(), line["pod"].as_str().map(str::to_owned)));
    }
    lookups.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (start, pod, told) in lookups {
        let since = start - *first.entry(pod.clone()).or_insert(start);
        match told {
            Some(told) if told == format!("shop/{pod}") => named.right += 1,
            Some(told) => named.wrong.push(format!("{pod} as {told}")),
            None if since >= 1.0 => named.missing.push(format!("{pod} after {since:.1} s")),
            None => named.early += 1,
        }
    }
    named.pods = first.len();
    Ok(named)
}

/// `…T12:00:03.412…Z`; a test does not last over midnight twice.
fn seconds_of_day(time: &str) -> Result<f64> {
    let clock = time.split_once('T').context("no time")?.1.trim_end_matches('Z');
    let mut seconds = 0.0;
    for part in clock.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>().context("no time")?;
    }
    Ok(seconds)
}

fn trace(node: &Containerd) -> Result<Tracer> {
    Tracer::start_by(node.command(binary()?), node.files(), &["stream", "-o", "json", "--hook", "clsact"])
}

/// CPU time so far, in ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
fn cpu_ticks(tracer: &mut Tracer) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", tracer.process().pid()))?;
    let after_name = stat.rsplit_once(')').context("no stat")?.1;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0));
    Ok(ticks.sum())
}

fn resident_kib(tracer: &mut Tracer) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tracer.process().pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("no VmRSS")
}

/// Emulated (`cargo xtask vm-test`) everything takes long.
fn is_emulated() -> bool {
    std::path::Path::new("/tests/list").is_file()
}

fn a_pod_that_was_there_before_is_named() -> Result<Outcome> {
    if let Some(reason) = Containerd::why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let node = Containerd::start()?;
    let resolv_conf = format!("nameserver {GATEWAY}\nsearch example\noptions ndots:5\n");
    node.run_pod_with(1, "sleep 600", &resolv_conf)?;
    // One type alone: by two, busybox is known after a while, which has no search list.
    let script = format!(
        "while :; do nslookup -type=a {}.example {GATEWAY}; sleep 0.5; done >/dev/null 2>&1",
        pod_name(1)
    );
    node.run_container(1, "app", &script)?;
    let _server = node.answer()?;
    let tracer = trace(&node)?;
    // By its search list and ndots alone `pod-001` is the name in `pod-001.example`.
    let is_searched = |line: &&Value| line["name"] == "pod-001";
    let is_of_app = |line: &&Value| line["k8s.container.name"] == "app";
    let count = |wanted: &dyn Fn(&&Value) -> bool| {
        tracer.lines().map_or(0, |lines| lines.iter().filter(wanted).count())
    };
    wait_until(Duration::from_secs(120), || count(&is_of_app) >= 5 && count(&is_searched) >= 1);
    let told = tracer.finish()?;
    let named = judge(&told.lines)?;
    ensure!(named.right >= 5 && named.wrong.is_empty(), "{named:?} {:?}", told.lines);
    let lookups: Vec<_> = told.unit("lookup").collect();
    for line in lookups.iter().skip(lookups.len() - 4) {
        ensure!(line["k8s.namespace.name"] == "shop" && line["k8s.pod.name"] == "pod-001", "{line}");
        ensure!(is_of_app(line), "{line}");
    }
    ensure!(lookups.iter().any(is_searched), "its resolv.conf is not known: {lookups:?}");
    ensure!(is_emulated() || named.missing.is_empty() && named.early == 0, "{named:?}");
    let cgroup = node.sh(&format!("cat /proc/{}/cgroup", node.pid_of_pod(1)?))?;
    let version = if cgroup.starts_with("0::/kubepods") { 2 } else { 1 };
    ensure!(!is_emulated() || version == 2, "{cgroup}");
    Ok(Outcome::Measured(format!("{} of {} lookups named, cgroup v{version}", named.right, lookups.len())))
}

fn it_runs_in_a_container_of_the_node() -> Result<Outcome> {
    if let Some(reason) = Containerd::why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let node = Containerd::start()?;
    node.run_pod(1, "sleep 600")?;
    node.run_container(1, "app", &asking(1))?;
    let _server = node.answer()?;
    for host in [Some("/"), None] {
        let mut command = node.command_in_container(&binary()?, host);
        command.args(["report", "-o", "json", "--lookups", "--hook", "clsact", "--duration", "4s"]);
        let output = output_of(&mut command, "", Duration::from_secs(60))?;
        let log = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("no report: {log}"))?;
        let lookups: Vec<_> = lookups_of(&report, "pod-001.example").collect();
        ensure!(lookups.len() >= 3, "{report:#} {log}");
        for lookup in &lookups {
            let (pod, container) = (&lookup["pod"], &lookup["k8s.container.name"]);
            match host {
                Some(_) => ensure!(pod == "shop/pod-001" && container == "app", "{lookup} {log}"),
                // Nothing there says whose the address is, so it is shown.
                None => ensure!(pod.is_null() && container.is_null(), "{lookup} {log}"),
            }
            let client = lookup["client"].as_str().unwrap_or_default();
            ensure!(client.parse::<std::net::IpAddr>().is_ok(), "{lookup} {log}");
        }
    }
    Ok(Outcome::Passed)
}

/// Asks for `CONTAINER.POD.example`, about three times a second.
fn asking_as(number: u32, container: &str, server: &str) -> String {
    let name = format!("{container}.{}.example", pod_name(number));
    format!("while :; do nslookup -type=a {name} {server}; sleep 0.3; done >/dev/null 2>&1")
}

/// The containers that lookups of a name were told to be of; `-`: nobody knows.
fn told_of(report: &Value, name: &str) -> Vec<String> {
    lookups_of(report, name)
        .map(|lookup| lookup["k8s.container.name"].as_str().unwrap_or("-").to_owned())
        .collect()
}

fn lookups_carry_their_container() -> Result<Outcome> {
    if let Some(reason) = Containerd::why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let musl = match Client::Musl.available() {
        Ok(musl) => musl,
        Err(error) => return Ok(Outcome::LeftOut(format!("{error:#}"))),
    };
    let node = Containerd::start()?;
    std::fs::copy(musl, node.files().join("rootfs/bin/lookup")).context("cannot copy the client")?;
    // 1: alone, by musl, for a name of the cluster as short as that; 2: two from the beginning; 3: a second one comes and
    // goes; 4: in the node's own network; 5: where that one asks.
    for number in [1, 2, 3, 5] {
        let resolv_conf = cluster_resolv_conf(GATEWAY).replace("ndots:5", "ndots:1");
        node.run_pod_with(number, "sleep 600", &resolv_conf)?;
    }
    let _servers = (node.answer_no_such_name()?, node.answer_no_such_name_in_pod(5)?);
    node.run_container(1, "app", "while :; do lookup web.shop; sleep 0.3; done >/dev/null 2>&1")?;
    for (number, container) in [(2, "app"), (2, "sidecar"), (3, "app")] {
        node.run_container(number, container, &asking_as(number, container, GATEWAY))?;
    }
    let server_of_host = node.address_of_pod(5)?;
    node.run_host_pod(4, &asking_as(4, "app", &server_of_host))?;
    let recording = node.files().join("containers.pcapng");
    let file = recording.to_str().context("a path that is no text")?;
    let live = LiveReport::start_by(
        node.command(binary()?),
        node.files(),
        &["--lookups", "--hook", "clsact", "-w", file],
    )?;
    // While each of these sleeps, every pod asks several times.
    let a_while = Duration::from_secs(3);
    std::thread::sleep(a_while);
    node.run_container(3, "late", &asking_as(3, "late", GATEWAY))?;
    std::thread::sleep(a_while);
    node.remove_container(3, "late")?;
    std::thread::sleep(a_while);
    let report = live.finish()?;
    let (_, replayed) = report_text(&["-o", "json", "--lookups"], &[&recording])?;
    let printed = std::fs::read_to_string(node.files().join("report.json"))?;
    ensure!(printed == replayed, "live: {printed}\nreplayed: {replayed}");

    let all = |name: &str, expected: &str| -> Result<usize> {
        let told = told_of(&report, name);
        ensure!(told.len() >= 5 && told.iter().all(|it| it == expected), "{name} by {expected}: {told:?}");
        Ok(told.len())
    };
    let alone = all("web.shop", "app")?;
    let unknown = all("app.pod-002.example", "-")? + all("sidecar.pod-002.example", "-")?;
    let late = told_of(&report, "late.pod-003.example");
    ensure!(late.len() >= 3 && late.iter().all(|it| it == "-"), "late: {late:?}");
    let told = told_of(&report, "app.pod-003.example");
    let mut spells = told.clone();
    spells.dedup();
    ensure!(spells == ["app", "-", "app"], "{told:?}");
    // The node itself has an address on the pods' bridge.
    let own: Vec<_> = lookups_of(&report, "app.pod-004.example").collect();
    ensure!(own.len() >= 5, "{} of the node's own network", own.len());
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    for lookup in &own {
        ensure!(lookup["client"] == GATEWAY && lookup["pod"] == hostname.trim(), "{lookup}");
        ensure!(lookup["k8s.container.name"].is_null(), "{lookup}");
    }
    short_names_are_told(&report)?;
    Ok(Outcome::Measured(format!(
        "{} lookups by one container, {} by one of two or more, {} by the node",
        alone + told.iter().filter(|it| *it != "-").count(),
        unknown + late.len() + told.iter().filter(|it| *it == "-").count(),
        own.len()
    )))
}

fn lookups_of<'a>(report: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    report["lookups"].as_array().into_iter().flatten().filter(move |lookup| lookup["name"] == name)
}

/// musl, with ndots:1, asks for a service of the cluster by its short name.
fn short_names_are_told(report: &Value) -> Result<()> {
    let found = of_code(report, "DP501");
    ensure!(found.len() == 1, "one resolv.conf does not fit: {:#}", report["findings"]);
    let finding = found[0];
    let subject = &finding["subject"];
    ensure!(subject["pod"] == "shop/pod-001" && subject["fault"] == "ndots-low", "{finding:#}");
    let (summary, advice) = (finding["summary"].as_str(), finding["advice"].as_str());
    ensure!(
        summary.is_some_and(|it| it.contains("has ndots:1: musl asked web.shop only as it is")),
        "{finding:#}"
    );
    ensure!(
        advice
            .is_some_and(|it| it.contains("Set ndots above 1") && it.contains("web.shop.svc.cluster.local")),
        "{finding:#}"
    );
    Ok(())
}

/// Pods at a time, for each of those who make them.
const AT_A_TIME: usize = 5;
const MAKERS: u32 = 4;
const PODS: u32 = 200;

fn two_hundred_pods_come_and_go() -> Result<Outcome> {
    if let Some(reason) = Containerd::why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let node = Containerd::start()?;
    // The bridge, and with it the address that the server binds, comes with the first pod.
    node.run_pod(0, &asking(0))?;
    let _server = node.answer_no_such_name()?;
    let mut tracer = trace(&node)?;
    std::thread::sleep(Duration::from_secs(3));
    let before = resident_kib(&mut tracer)?;
    let started = clock::now();
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|maker| {
                let node = &node;
                scope.spawn(move || -> Result<()> {
                    let mut alive = std::collections::VecDeque::new();
                    for number in (1..=PODS).filter(|number| number % MAKERS == maker) {
                        node.run_pod(number, &asking(number))?;
                        alive.push_back(number);
                        if alive.len() > AT_A_TIME
                            && let Some(oldest) = alive.pop_front()
                        {
                            node.remove_pod(oldest)?;
                        }
                    }
                    std::thread::sleep(Duration::from_secs(2));
                    alive.into_iter().try_for_each(|number| node.remove_pod(number))
                })
            })
            .collect();
        makers
            .into_iter()
            .try_for_each(|maker| maker.join().map_err(|_| anyhow::anyhow!("a maker of pods panicked"))?)
    })?;
    let took = started.elapsed();
    std::thread::sleep(Duration::from_secs(2));
    let after = resident_kib(&mut tracer)?;
    let cpu = cpu_ticks(&mut tracer)?;
    let told = tracer.finish()?;
    let named = judge(&told.lines)?;
    let figures = format!(
        "{} pods, {} lookups named right, {} too early for a name, {:.0} s ({:.1} s of dnspath's CPU time), {} KiB more",
        named.pods,
        named.right,
        named.early,
        took.as_secs_f64(),
        cpu as f64 / 100.0,
        after.saturating_sub(before)
    );
    ensure!(named.wrong.is_empty(), "{figures}; wrong: {:?}", named.wrong);
    ensure!(named.missing.is_empty(), "{figures}; missing: {:?}", named.missing);
    ensure!(named.pods as u32 > PODS * 9 / 10, "{figures}: most pods should have asked");
    ensure!(after < before + 8 * 1024, "{figures}: from {before} to {after} KiB");
    Ok(Outcome::Measured(figures))
}
