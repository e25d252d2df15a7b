//! `dnspath race`: what it prints of clashes that are provoked is what the kernel counts; and the pairs it sends itself.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::conntrack::{counted_per_cpu, occupy, send_query};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::{bound_command, output_of};
use dnspath_tests::refusal::{self, Refusal};
use dnspath_tests::requirements::find;
use dnspath_tests::topology::VIP4;
use dnspath_tests::tracer::{Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions, Namespace, ServerKind};
use serde_json::{Value, json};

fn main() -> ExitCode {
    run(&[
        ("every_drop_with_its_tuples_and_the_lookup_it_hit", in_json),
        ("the_same_for_people", in_text),
        ("a_hundred_pairs_of_its_own", provoked),
        ("what_cannot_be_done_is_said", usage),
    ])
}

/// Further queries that are refused, of nobody who waits.
const REFUSED: u16 = 5;
const NAME: &str = "payments.shop.svc.cluster.local";

/// What every test needs; `Err` says why there is none.
fn ready(tools: &[&str]) -> Result<(), String> {
    binary().map_err(|reason| format!("{reason:#}"))?;
    match tools.iter().find(|tool| find(tool).is_none()) {
        Some(tool) => Err(format!("{tool} is missing")),
        None => Ok(()),
    }
}

fn lab() -> Result<Lab> {
    Lab::new(LabOptions {
        server: Some(ServerKind::Fast),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    })
}

fn watch(namespace: &Namespace, format: &str) -> Result<Tracer> {
    Tracer::start(namespace.files(), &["race", "--netns", namespace.name(), "-o", format])
}

/// One lookup that loses its A query, then some queries that nobody asks again.
fn provoke(lab: &Lab, refusal: &Refusal<'_>) -> Result<()> {
    let answer = refusal.lookup(Client::Glibc, &format!("{NAME}."))?;
    ensure!(answer.error.is_none(), "{answer:?}");
    let db = lab.pod("db")?;
    for number in 0..REFUSED {
        let client = (db.ip4, 5400 + number).into();
        occupy(lab.node(), "udp", client, refusal.server())?;
        send_query(&db.namespace, client, refusal.server(), 0x4000 + number, "refused.example.com")?;
    }
    // What happened last has to be told yet, and the counters be read.
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// How far each CPU's counter went.
fn growth_per_cpu(before: &[BTreeMap<String, u64>], after: &[BTreeMap<String, u64>], name: &str) -> Vec<u64> {
    let value = |counters: &BTreeMap<String, u64>| counters.get(name).copied().unwrap_or_default();
    before.iter().zip(after).map(|(before, after)| value(after) - value(before)).collect()
}

/// The summary's counters of conntrack, and the kernel's own.
fn same_counters(
    summary: &Value,
    before: &[BTreeMap<String, u64>],
    after: &[BTreeMap<String, u64>],
) -> Result<()> {
    let told = summary["conntrack"].as_array().with_context(|| format!("no counters: {summary}"))?;
    for name in ["insert_failed", "clash_resolve", "drop", "early_drop", "found", "invalid"] {
        let told: Vec<u64> = told.iter().filter_map(|cpu| cpu[name].as_u64()).collect();
        let counted = growth_per_cpu(before, after, name);
        ensure!(told == counted, "{name}: told {told:?}, the kernel counted {counted:?}");
    }
    Ok(())
}

fn in_json() -> Result<Outcome> {
    if let Err(reason) = ready(&["conntrack", "knotd", "gcc"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = refusal::lab()?;
    let (node, db) = (lab.node(), lab.pod("db")?);
    let refusal = Refusal::prepare(&lab, "web", "dns1")?;
    let before = counted_per_cpu(node)?;
    let tracer = watch(node, "json")?;
    provoke(&lab, &refusal)?;
    let after = counted_per_cpu(node)?;
    let told = tracer.finish()?;
    let drops: Vec<&Value> = told.unit("drop").collect();
    ensure!(drops.len() == 1 + usize::from(REFUSED), "{} drops: {drops:?}", drops.len());
    let server = refusal.server().to_string();
    let numbered = (0..REFUSED).map(|number| format!("{}:{}", db.ip4, 5400 + number));
    for (drop, client) in drops.iter().zip([refusal.client().to_string()].into_iter().chain(numbered)) {
        ensure!(drop["fate"] == "insert_failed", "{drop}");
        ensure!(drop["original"] == json!({"src": client, "dst": server}), "not of {client}: {drop}");
        ensure!(drop["reply"] == json!({"src": server, "dst": client}), "not of {client}: {drop}");
    }
    let lookups: Vec<&Value> = told.unit("lookup").collect();
    ensure!(lookups.len() == drops.len(), "{} lookups hit: {lookups:?}", lookups.len());
    let lookup = lookups[0];
    ensure!(lookup["answered_by"] == NAME && lookup["result"] == "ok", "{lookup}");
    let cause = lookup["cause"].as_str().unwrap_or_default();
    ensure!(cause.contains("A dropped: conntrack insert failed"), "{lookup}");
    let summary = told.lines.last().context("it printed nothing")?;
    let reported = &summary["reported"];
    let expected = json!({"insert_failed": 1 + REFUSED, "clash_resolved": 0, "table_full": 0, "dropped": 0, "lookups_hit": 1 + REFUSED});
    ensure!(*reported == expected, "{reported}");
    same_counters(summary, &before, &after)?;
    Ok(Outcome::Measured(format!("{} drops; {cause}", drops.len())))
}

fn in_text() -> Result<Outcome> {
    if let Err(reason) = ready(&["conntrack", "knotd", "gcc"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = refusal::lab()?;
    let refusal = Refusal::prepare(&lab, "web", "dns1")?;
    let tracer = watch(lab.node(), "text")?;
    provoke(&lab, &refusal)?;
    let text = String::from_utf8(tracer.finish_with_text()?.0).context("not UTF-8")?;
    let (client, server) = (refusal.client().to_string(), refusal.server().to_string());
    let refused: Vec<&str> =
        text.lines().filter(|line| line.contains("conntrack insert failed (cpu")).collect();
    let drop = refused.first().with_context(|| format!("no drop in:\n{text}"))?;
    for part in ["  x  ", &client, &server, &format!("A {NAME}"), &format!("reply {server} > {client}")] {
        ensure!(drop.contains(part), "no {part} in {drop}");
    }
    ensure!(text.starts_with("Linux "), "no rule of this kernel:\n{text}");
    let reported = format!("Reported: {} dropped in a clash", 1 + REFUSED);
    let hit = format!("lookups hit: {}.", 1 + REFUSED);
    for part in ["A dropped: conntrack insert failed", &reported, &hit, "Counted by the kernel"] {
        ensure!(text.contains(part), "no {part} in:\n{text}");
    }
    Ok(Outcome::Passed)
}

/// Two CPUs, one socket a pair, through the service's translation.
fn provoked() -> Result<Outcome> {
    if let Err(reason) = ready(&["conntrack", "knotd"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    if thread::available_parallelism()?.get() < 2 {
        return Ok(Outcome::LeftOut("there is one CPU: nothing can race".to_owned()));
    }
    let lab = lab()?;
    let (node, web) = (lab.node(), lab.pod("web")?);
    let run = |format: &str| -> Result<(Option<i32>, String, String)> {
        let mut command = node.command(binary()?);
        command.args(["race", "--provoke", &VIP4.to_string(), "--pairs", "100", "--netns", web.netns()]);
        let output = output_of(command.args(["-o", format]), "", Duration::from_secs(60))?;
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    };
    let before = counted_per_cpu(node)?;
    let (status, printed, said) = run("json")?;
    let after = counted_per_cpu(node)?;
    let summary: Value = serde_json::from_str(printed.lines().last().context("it printed nothing")?)
        .with_context(|| format!("not JSON: {printed}"))?;
    let sent = &summary["provoked"];
    ensure!(sent["pairs"] == 100 && sent["queries"] == 200 && sent["refused"] == 0, "{summary}\n{said}");
    let (failed, resolved): (u64, u64) = (
        growth_per_cpu(&before, &after, "insert_failed").iter().sum(),
        growth_per_cpu(&before, &after, "clash_resolve").iter().sum(),
    );
    let lost = sent["lost"].as_u64().context("no count of the lost")?;
    ensure!(lost == failed, "{lost} lost, the kernel refused {failed}: {summary}");
    ensure!(summary["reported"]["insert_failed"] == failed, "{summary}");
    ensure!(status == Some(i32::from(lost > 0)), "it ended with {status:?}: {summary}\n{said}");
    // The pod's own namespace is watched too, and has nothing to count.
    same_counters(&summary, &before, &after)?;
    let (_, text, _) = run("text")?;
    ensure!(text.contains("Provoked: 100 pairs on CPUs "), "{text}");
    Ok(Outcome::Measured(format!("200 sent, {} answered, {resolved} clashes resolved", sent["answered"])))
}

fn usage() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let cases: [(&[&str], &str); 6] = [
        (&["--pairs", "5"], "--provoke"),
        (&["--provoke", "nowhere"], "nowhere"),
        (&["--provoke", "127.0.0.1", "--pairs", "0"], "--pairs"),
        (&["--provoke", "127.0.0.1", "--pairs", "10001"], "--pairs"),
        (&["--provoke", "127.0.0.1", "--netns", "no-such-namespace"], "no-such-namespace"),
        (&["-o", "html"], "html"),
    ];
    for (arguments, named) in cases {
        let mut command = bound_command(binary()?);
        let output = output_of(command.arg("race").args(arguments), "", Duration::from_secs(20))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{arguments:?} ended with {}: {said}", output.status);
        ensure!(said.contains(named) && output.stdout.is_empty(), "{arguments:?}: {said}");
    }
    Ok(Outcome::Passed)
}
