//! Incidents of the field, made in the lab with real resolvers: `dnspath report` names what happened, live and from the
//! recording of the same session, and says nothing of a healthy node.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::client::LookupAnswer;
use dnspath_tests::conntrack::{counted, growth};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::load::Load;
use dnspath_tests::refusal::{self, Refusal};
use dnspath_tests::report::{LiveReport, report};
use dnspath_tests::requirements::find;
use dnspath_tests::topology::VIP4;
use dnspath_tests::tracer::binary;
use dnspath_tests::{Client, Lab, LabOptions, ServerKind};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("conntrack_race_costs_glibc_five_seconds", || conntrack_race(Client::Glibc, 5.0)),
        ("conntrack_race_costs_musl_half_of_them", || conntrack_race(Client::Musl, 2.5)),
        ("stale_arp_of_a_client_that_moved", || stale_arp(Moved::Client)),
        ("stale_arp_of_a_server_that_moved", || stale_arp(Moved::Server)),
        ("healthy_under_load", healthy),
    ])
}

/// What every test needs; `Err` says why there is none.
fn ready(tools: &[&str], clients: &[Client]) -> Result<(), String> {
    binary().map_err(|reason| format!("{reason:#}"))?;
    if let Some(tool) = tools.iter().find(|tool| find(tool).is_none()) {
        return Err(format!("{tool} is missing"));
    }
    clients.iter().try_for_each(|client| match client.available() {
        Ok(_) => Ok(()),
        Err(reason) => Err(format!("{reason:#}")),
    })
}

fn lab() -> Result<Lab> {
    Lab::new(LabOptions {
        server: Some(ServerKind::Fast),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    })
}

/// A report of one session: as it was printed live, as JSON, and as text from the recording.
struct Reported {
    json: Value,
    text: String,
}

/// What a live report and its recording say of what happens in `during`; that they are the same is checked here.
fn reported(lab: &Lab, during: impl FnOnce() -> Result<()>) -> Result<Reported> {
    let directory = tempfile::tempdir().context("no directory")?;
    let file = directory.path().join("session.pcapng");
    let path = file.to_str().context("a path that is not UTF-8")?;
    let live = LiveReport::start(directory.path(), &["--netns", lab.node().name(), "-w", path])?;
    during()?;
    // What happened last has to be told yet.
    thread::sleep(Duration::from_millis(300));
    let json = live.finish()?;
    let printed = fs::read_to_string(directory.path().join("report.json")).context("no live report")?;
    let again = read(&["-o", "json", "--lookups"], &file)?;
    for (one, other) in printed.lines().zip(again.lines()) {
        ensure!(one == other, "live {one}, from the recording {other}");
    }
    ensure!(printed == again, "one of the reports is longer");
    Ok(Reported { json, text: read(&[], &file)? })
}

fn read(arguments: &[&str], file: &Path) -> Result<String> {
    Ok(report(arguments, &[file])?.1)
}

impl Reported {
    /// The only finding of a code.
    fn finding(&self, code: &str) -> Result<&Value> {
        let all = self.findings();
        let mut of_code = all.iter().filter(|finding| finding["code"] == code);
        let first = of_code.next().with_context(|| format!("no {code} in {all:?}"))?;
        ensure!(of_code.next().is_none(), "more than one {code} in {all:?}");
        Ok(first)
    }

    fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().map_or(&[], Vec::as_slice)
    }
}

/// One of a socket's two queries is dropped, because its connection cannot be entered; the client waits, asks again,
/// and is answered.
fn conntrack_race(client: Client, gap: f64) -> Result<Outcome> {
    const NAME: &str = "payments.shop.svc.cluster.local";
    if let Err(reason) = ready(&["conntrack", "knotd"], &[client]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = refusal::lab()?;
    let (node, web) = (lab.node(), lab.pod("web")?);
    let refusal = Refusal::prepare(&lab, "web", "dns1")?;
    let before = counted(node)?;
    let mut answer = None;
    let reported = reported(&lab, || {
        answer = Some(refusal.lookup(client, &format!("{NAME}."))?);
        Ok(())
    })?;
    let answer: LookupAnswer = answer.context("no answer")?;
    let took = answer.took.as_secs_f64();
    ensure!(answer.addresses.len() == 2 && (gap - 0.1..gap + 0.5).contains(&took), "{answer:?}");
    let refused = growth(&before, &counted(node)?, "insert_failed")?;
    ensure!(refused == 1, "the kernel refused {refused}");

    let (from, to) = (refusal.client().to_string(), refusal.server().to_string());
    let dropped = reported.finding("DP301")?;
    let subject = &dropped["subject"];
    ensure!(dropped["count"] == 1 && dropped["severity"] == "warning", "{dropped}");
    ensure!(subject["client"] == web.ip4.to_string().as_str(), "{dropped}");
    ensure!(subject["queries"] == format!("A {NAME}").as_str(), "not the query: {dropped}");
    ensure!(subject["original"] == format!("{from} > {to}").as_str(), "{dropped}");
    ensure!(subject["reply"] == format!("{to} > {from}").as_str(), "{dropped}");
    let waited: f64 = subject["waited_s"].as_str().context("no wait")?.parse()?;
    ensure!((waited - gap).abs() < 0.1, "{waited} s in place of {gap}: {dropped}");

    let retry = reported.finding("DP102")?;
    ensure!(retry["subject"]["cause"] == "conntrack-insert-failed", "{retry}");
    ensure!(retry["subject"]["names"] == NAME && retry["confidence"] == "high", "{retry}");
    let seconds = format!("waited {gap:.1}");
    ensure!(retry["summary"].as_str().is_some_and(|said| said.contains(&seconds)), "not {seconds}: {retry}");

    let lookups = reported.json["lookups"].as_array().context("no lookups")?;
    let [lookup] = &lookups[..] else { anyhow::bail!("not one lookup: {lookups:?}") };
    let cause = lookup["cause"].as_str().unwrap_or_default();
    ensure!(cause.contains("A dropped: conntrack insert failed"), "its cause: {lookup}");
    // In the text pods stand for their addresses.
    let port = format!(":{}", refusal.client().port());
    for part in ["DP301", "DP102", NAME, &port, "conntrack insert failed"] {
        ensure!(reported.text.contains(part), "no {part} in the text:\n{}", reported.text);
    }
    Ok(Outcome::Measured(format!("{took:.3} s, {waited} s of them reported; {cause}")))
}

/// Whose MAC address changed.
#[derive(Clone, Copy)]
enum Moved {
    Client,
    Server,
}

/// A pod has another MAC address than before, and a neighbour entry does not follow: the server's, of a client; the
/// node's, of a server.
fn stale_arp(moved: Moved) -> Result<Outcome> {
    const NAME: &str = "payments.shop.svc.cluster.local.";
    if let Err(reason) = ready(&["knotd"], &[Client::Glibc]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = lab()?;
    let (node, web, dns1) = (lab.node(), lab.pod("web")?, lab.pod("dns1")?);
    let (pod, holder, device) = match moved {
        Moved::Client => (web, &dns1.namespace, "eth0"),
        Moved::Server => (dns1, node, "cni0"),
    };
    web.namespace.set_resolv_conf(&format!("nameserver {VIP4}\noptions timeout:1 attempts:2\n"))?;
    let old = mac_of(pod)?;
    let own = "02:00:00:00:aa:01";
    let reported = reported(&lab, || {
        let fine = Client::Glibc.lookup(web, NAME)?;
        ensure!(fine.error.is_none(), "before it moved: {fine:?}");
        let address = pod.ip4.to_string();
        holder
            .run("ip", &["neigh", "replace", &address, "lladdr", &old, "nud", "permanent", "dev", device])?;
        pod.namespace.run("ip", &["link", "set", "eth0", "address", own])?;
        let failed = Client::Glibc.lookup(web, NAME)?;
        ensure!(failed.error.is_some(), "it arrived all the same: {failed:?}");
        Ok(())
    })?;
    let finding = reported.finding("DP401")?;
    ensure!(finding["severity"] == "error", "{finding}");
    ensure!(finding["subject"]["address"] == pod.ip4.to_string().as_str(), "{finding}");
    ensure!(finding["count"].as_u64() >= Some(2), "{finding}");
    for part in ["DP401", &pod.ip4.to_string()] {
        ensure!(reported.text.contains(part), "no {part} in the text:\n{}", reported.text);
    }
    Ok(Outcome::Measured(finding["summary"].as_str().unwrap_or_default().to_owned()))
}

fn mac_of(pod: &dnspath_tests::lab::Pod) -> Result<String> {
    Ok(pod.namespace.run("cat", &["/sys/class/net/eth0/address"])?.trim().to_owned())
}

/// Load without a loss: nothing may be said.
fn healthy() -> Result<Outcome> {
    /// What a debug build on a busy machine can follow, in queries a second; `load` has the test at full speed.
    const RATE: u32 = 10_000;
    if let Err(reason) = ready(&["dnsperf", "knotd"], &[Client::Glibc, Client::Musl]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = lab()?;
    let web = lab.pod("web")?;
    let live = LiveReport::start(lab.node().files(), &["--netns", lab.node().name()])?;
    // Not more at once than the server's socket has room for: what overflows is no healthy node.
    let load = Load { rate: Some(RATE), outstanding: 100, ..Load::full_speed(5) };
    let load = load.run(lab.pod("db")?, IpAddr::from(VIP4))?;
    for client in [Client::Glibc, Client::Musl] {
        let answer = client.lookup(web, "payments.shop.svc.cluster.local.")?;
        ensure!(answer.error.is_none(), "{answer:?}");
    }
    thread::sleep(Duration::from_millis(300));
    let json = live.finish()?;
    ensure!(load.lost == 0, "the load lost queries: {load:?}");
    let lost = &json["coverage"]["lost"];
    ensure!(*lost == 0, "{lost} records were lost");
    let findings = json["findings"].as_array().context("no findings")?;
    let loud = |finding: &&Value| {
        let code = finding["code"].as_str().unwrap_or_default();
        finding["severity"] != "info" || ["DP2", "DP3", "DP4"].iter().any(|kind| code.starts_with(kind))
    };
    if let Some(finding) = findings.iter().find(loud) {
        anyhow::bail!("said of a healthy node: {finding}");
    }
    Ok(Outcome::Measured(format!("{} queries, {:.0}/s", load.sent, load.queries_per_second)))
}
