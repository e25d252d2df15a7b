//! `dnspath` under load: as many packets a second as this machine can make, and links that come and go.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::capture::Counter;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::load::{Load, LoadResult};
use dnspath_tests::report::LiveReport;
use dnspath_tests::requirements::kernel_has_tcx;
use dnspath_tests::scenarios::session::findings;
use dnspath_tests::topology::VIP4;
use dnspath_tests::tracer::{Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions, ServerKind, clock, usage};
use rustix::process::Signal;
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("the_lab_makes_load", the_lab_makes_load),
        ("nothing_is_lost_at_full_speed", nothing_is_lost_at_full_speed),
        ("a_healthy_node_at_full_speed_is_told_nothing", a_healthy_node_at_full_speed_is_told_nothing),
        ("every_frame_is_captured_or_counted_lost", every_frame_is_captured_or_counted_lost),
        ("a_stalled_reader_counts_what_it_loses", a_stalled_reader_counts_what_it_loses),
        ("nothing_is_missed_at_a_steady_rate", nothing_is_missed_at_a_steady_rate),
        ("250_links_are_attached_at_once", many_links_are_attached_at_once),
        ("links_come_and_go", links_come_and_go),
    ])
}

const LINKS: usize = 250;

fn fast_lab() -> Result<Lab> {
    Lab::new(LabOptions {
        server: Some(ServerKind::Fast),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    })
}

/// Each query and each response is two packets on the node: at the client's link and at the server's.
fn packets_a_second(result: &LoadResult) -> f64 {
    result.queries_per_second * 4.0
}

fn the_lab_makes_load() -> Result<Outcome> {
    let lab = fast_lab()?;
    let result = Load::full_speed(3).run(lab.pod("web")?, VIP4.into())?;
    ensure!(result.completed > 10_000 && result.lost * 100 < result.sent, "{result:?}");
    Ok(Outcome::Measured(format!(
        "{:.0} queries/s, {:.0} DNS packets/s at the node's links, {} lost",
        result.queries_per_second,
        packets_a_second(&result),
        result.lost
    )))
}

/// Why this machine's build cannot keep up with all that it can send.
fn why_not_at_full_speed() -> Option<String> {
    match binary() {
        Err(reason) => Some(format!("{reason:#}")),
        Ok(path) if path.components().any(|part| part.as_os_str() == "debug") => {
            Some(format!("{} is not a release build", path.display()))
        }
        Ok(_) => None,
    }
}

fn nothing_is_lost_at_full_speed() -> Result<Outcome> {
    if let Some(reason) = why_not_at_full_speed() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = fast_lab()?;
    let pod = lab.pod("web")?;
    let alone = Load::full_speed(4).run(pod, VIP4.into())?;
    let tracer = Tracer::stream(lab.node(), &["--unit", "finding"])?;
    let traced = Load::full_speed(4).run(pod, VIP4.into())?;
    std::thread::sleep(Duration::from_millis(500));
    let told = tracer.finish()?;
    let (lost, seen) = (told.covered("lost")?, told.covered("dns_messages")?);
    ensure!(lost == 0, "{lost} frames lost at {:.0} packets/s", packets_a_second(&traced));
    ensure!(seen >= 4 * traced.completed, "{seen} sightings of {} answered queries", traced.completed);
    Ok(Outcome::Measured(format!(
        "{:.0} packets/s traced, {:.2} of the untraced rate",
        packets_a_second(&traced),
        traced.queries_per_second / alone.queries_per_second
    )))
}

/// No rate limit, but no more in flight than every socket on the way has room for: what overflows is no healthy node.
fn a_healthy_node_at_full_speed_is_told_nothing() -> Result<Outcome> {
    if let Some(reason) = why_not_at_full_speed() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = fast_lab()?;
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let report = LiveReport::start_plain(directory.path(), &["--netns", lab.node().name()])?;
    let load = Load { outstanding: 100, ..Load::full_speed(4) }.run(lab.pod("web")?, VIP4.into())?;
    std::thread::sleep(Duration::from_millis(500));
    let (status, told) = report.finish_with_status()?;
    ensure!(load.lost == 0, "the node was not healthy: {load:?}");
    let coverage = &told["coverage"];
    let seen = coverage["dns_messages"].as_u64().context("no count of messages")?;
    ensure!(coverage["lost"] == 0, "records were lost: {coverage}");
    ensure!(seen >= 4 * load.completed, "{seen} sightings of {} answered queries", load.completed);
    // What this kernel does not show is said of every session.
    let wrong: Vec<&Value> = findings(&told).iter().filter(|finding| finding["code"] != "DP902").collect();
    ensure!(wrong.is_empty(), "told of a healthy node: {wrong:#?}");
    ensure!(status == 0, "status {status}, but nothing is told");
    Ok(Outcome::Measured(format!("nothing told at {:.0} queries/s", load.queries_per_second)))
}

fn every_frame_is_captured_or_counted_lost() -> Result<Outcome> {
    accounted_for(Duration::ZERO)
}

/// The ring holds a fraction of a second of this traffic; the reader sleeps through more.
fn a_stalled_reader_counts_what_it_loses() -> Result<Outcome> {
    accounted_for(Duration::from_secs(2))
}

/// Full speed on one link, with the reader stopped for `stall`: frames captured and frames lost must add up to what
/// tcpdump counts there.
fn accounted_for(stall: Duration) -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let lab = fast_lab()?;
    let pod = lab.pod("web")?;
    let mut tracer = Tracer::stream(lab.node(), &["--unit", "finding", "--unit", "drop", "-i", &pod.veth])?;
    let counter = Counter::start(lab.node(), &pod.veth)?;
    let result = std::thread::scope(|scope| {
        let load = scope.spawn(|| Load::full_speed(4).run(pod, VIP4.into()));
        if !stall.is_zero() {
            std::thread::sleep(Duration::from_secs(1));
            tracer.process().signal(Signal::STOP)?;
            std::thread::sleep(stall);
            tracer.process().signal(Signal::CONT)?;
        }
        load.join().map_err(|_| anyhow::anyhow!("dnsperf's thread failed"))?
    })?;
    let (counted, missed) = counter.stop()?;
    let told = tracer.finish()?;
    // What the kernel dropped is told beside the frames of the link: dnsperf closes its sockets on late answers.
    let drops = told.unit("drop").count() as u64;
    let (captured, lost) = (told.covered("frames")? - drops, told.covered("lost")?);
    ensure!(stall.is_zero() || lost > 0, "nothing was lost: the stall was too short to show anything");
    if missed > 0 {
        return Ok(Outcome::LeftOut(format!("tcpdump itself missed {missed} of {counted} packets")));
    }
    ensure!(captured + lost == counted, "{captured} captured + {lost} lost is not tcpdump's {counted}");
    Ok(Outcome::Measured(format!(
        "{captured} captured + {lost} lost = {counted} of tcpdump, {:.0} queries/s",
        result.queries_per_second
    )))
}

fn nothing_is_missed_at_a_steady_rate() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let lab = fast_lab()?;
    let tracer = Tracer::stream(lab.node(), &["--unit", "question"])?;
    let load = Load { rate: Some(2_000), ..Load::full_speed(3) };
    let result = load.run(lab.pod("web")?, VIP4.into())?;
    std::thread::sleep(Duration::from_millis(500));
    let told = tracer.finish()?;
    ensure!(told.covered("lost")? == 0, "frames lost: {:?}", told.coverage);
    let client = lab.pod("web")?.ip4.to_string();
    // dnsperf asks one name again and again, so that questions can join; their messages are what is counted.
    let count = |what: &str| -> u64 {
        told.unit("question")
            .filter(|line| line["client"] == client.as_str())
            .filter_map(|line| line[what].as_u64())
            .sum()
    };
    let (queries, answers) = (count("queries"), count("answers"));
    ensure!(queries == result.sent, "{queries} queries told of {} sent", result.sent);
    ensure!(answers == result.completed, "{answers} answers told of {} received", result.completed);
    Ok(Outcome::Measured(format!("{queries} queries, {answers} answers")))
}

/// Adds links number `from` to `to` to the node's bridge; what they lead to is in another namespace, as pods are.
fn add_links(lab: &Lab, from: usize, to: usize) -> Result<()> {
    let elsewhere = lab.upstream().name();
    let line = |number| {
        format!(
            "link add name veth{number} type veth peer name peer{number} netns {elsewhere}\nlink set veth{number} master cni0 up\n"
        )
    };
    ip_batch(lab, &(from..to).map(line).collect::<String>())
}

fn delete_links(lab: &Lab, from: usize, to: usize) -> Result<()> {
    ip_batch(lab, &(from..to).map(|number| format!("link delete veth{number}\n")).collect::<String>())
}

fn ip_batch(lab: &Lab, batch: &str) -> Result<()> {
    lab.node().script(&format!("ip -batch - <<'END'\n{batch}END\n")).map(drop)
}

/// tcx waits for an RCU grace period at each attachment, under RTNL, so many links are attached by clsact where the user does
/// not choose. The time has a bound in tcx's own, in the same run: whoever else holds RTNL is waited for as well.
fn many_links_are_attached_at_once() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    add_links(&lab, 0, LINKS)?;
    let attach = |hook: &str| -> Result<Duration> {
        let start = clock::now();
        let tracer = Tracer::stream(lab.node(), &["--unit", "message", "--hook", hook])?;
        let attached = start.elapsed();
        tracer.finish()?;
        Ok(attached)
    };
    let auto = attach("auto")?;
    let left = lab.node().script("tc qdisc show")?;
    ensure!(!left.contains("clsact"), "qdiscs are left behind: {left}");
    let told = format!("{LINKS} links in {:.2} s", auto.as_secs_f64());
    if !kernel_has_tcx()? {
        return Ok(Outcome::Measured(told));
    }
    let tcx = attach("tcx")?;
    ensure!(auto < Duration::from_secs(1) || auto * 2 < tcx, "{auto:?} by default, {tcx:?} by tcx");
    Ok(Outcome::Measured(format!("{told}, {:.2} s by tcx", tcx.as_secs_f64())))
}

fn links_come_and_go() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let mut lab = Lab::new(LabOptions::default())?;
    let mut tracer = Tracer::stream(lab.node(), &["--unit", "message"])?;
    let before = usage::memory(tracer.process().pid())?.resident_kib;
    for round in 0..3 {
        for batch in 0..5 {
            add_links(&lab, batch * LINKS / 5, (batch + 1) * LINKS / 5)?;
        }
        delete_links(&lab, 0, LINKS)?;
        ensure!(tracer.process().is_running(), "dnspath ended in round {round}: {}", tracer.log()?.trim());
    }
    lab.add_pod("late")?;
    // What a new pod may miss: the time until its link is attached.
    std::thread::sleep(Duration::from_secs(1));
    for pod in ["web", "late"] {
        let answer = Client::Glibc.lookup(lab.pod(pod)?, "payments.shop.svc.cluster.local.")?;
        ensure!(answer.addresses.len() == 2, "{answer:?}");
    }
    std::thread::sleep(Duration::from_millis(300));
    let after = usage::memory(tracer.process().pid())?.resident_kib;
    let told = tracer.finish()?;
    for pod in ["web", "late"] {
        let address = format!("{}:", lab.pod(pod)?.ip4);
        let messages = told
            .unit("message")
            .filter(|line| line["client"].as_str().is_some_and(|c| c.starts_with(&address)));
        let count = messages.count();
        ensure!(count == 4, "{count} messages of {pod} told, not 4");
    }
    ensure!(after < before + 32 * 1024, "memory grew from {before} KiB to {after} KiB");
    Ok(Outcome::Measured(format!("3 × {LINKS} links, memory {before} → {after} KiB")))
}
