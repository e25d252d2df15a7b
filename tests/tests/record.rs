//! `dnspath record`, and `-w` beside a live report: what is in the file is what was seen, whoever reads it and
//! however the recording ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::lab::resolv_conf;
use dnspath_tests::load::Load;
use dnspath_tests::process::{bound_command, output_of};
use dnspath_tests::query::Qtype;
use dnspath_tests::report::{LiveReport, report, report_json};
use dnspath_tests::topology::{EMPTY_VIP4, UPSTREAM4, VIP4, VIP6};
use dnspath_tests::tracer::{Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions, QueryFilter, ServerKind, clock};
use rustix::process::Signal;
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("the_report_on_a_recording_is_the_live_report", the_same_report),
        ("tshark_editcap_capinfos_and_mergecap_take_a_recording", other_programs),
        ("tshark_shows_names_and_drops_of_the_kept_recording", kept),
        ("what_cannot_be_written_is_said_and_the_rest_is_readable", what_cannot_be_written),
        ("a_rotation_keeps_the_newest_files", rotation),
        ("stdout_and_zstd_hold_the_same", stdout_and_zstd),
        ("a_killed_recorder_leaves_all_but_the_last_second", killed),
        ("nothing_is_lost_at_full_speed", full_speed),
    ])
}

/// Programs end within this time, even on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Pods, whom they ask, and with what; their resolvers wait for what is rejected, lost or not there.
fn talk(lab: &Lab) -> Result<()> {
    let servers =
        [("web", VIP4.into()), ("db", VIP6.into()), ("up", UPSTREAM4.into()), ("none", EMPTY_VIP4.into())];
    for (name, server) in servers {
        let options = "options timeout:1 attempts:1\n";
        lab.pod(name)?.namespace.set_resolv_conf(&(resolv_conf(&[server]) + options))?;
    }
    let lost = lab.drop_queries(lab.pod("db")?, QueryFilter { qtype: Some(Qtype::Aaaa), first: Some(1) })?;
    for (name, client) in [("web", Client::Glibc), ("db", Client::Glibc), ("up", Client::Musl)] {
        for asked in ["api.example.com", "payments.shop", "nothing.example.com.", "many.example.com."] {
            client.lookup(lab.pod(name)?, asked)?;
        }
    }
    drop(lost);
    // Rejected, so that it fails; what it says is not what is tested here.
    let _ = Client::Glibc.lookup(lab.pod("none")?, "www.example.com.");
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

fn lab() -> Result<Lab> {
    let pods = ["web", "db", "up", "none"].map(str::to_owned).to_vec();
    Lab::new(LabOptions { pods, ..LabOptions::default() })
}

fn fast_lab() -> Result<Lab> {
    Lab::new(LabOptions {
        server: Some(ServerKind::Fast),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    })
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// Records `talk` beside a live report: the recording, and the report as it was printed.
fn recorded(lab: &Lab, directory: &Path) -> Result<(PathBuf, String)> {
    let file = directory.join("session.pcapng");
    let live = LiveReport::start(directory, &["--netns", lab.node().name(), "-w", text(&file)?])?;
    talk(lab)?;
    live.finish()?;
    Ok((file, fs::read_to_string(directory.join("report.json")).context("cannot read the live report")?))
}

fn the_same_report() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let (lab, directory) = (lab()?, tempfile::tempdir().context("no directory")?);
    let (file, live) = recorded(&lab, directory.path())?;
    let (_, read) = report(&["-o", "json", "--lookups"], &[&file])?;
    for (one, other) in live.lines().zip(read.lines()) {
        ensure!(one == other, "live {one}, from the file {other}");
    }
    ensure!(live == read, "one of the reports is longer");
    let said: Value = serde_json::from_str(&live).context("the report is not JSON")?;
    let (frames, lookups) = (&said["coverage"]["frames"], said["lookups"].as_array().map_or(0, Vec::len));
    ensure!(frames.as_u64() > Some(200) && lookups > 15, "a report of little: {live}");
    let pods = ["web", "db", "up"].map(|name| lab.pod(name).map(|pod| pod.namespace.name().to_owned()));
    for pod in pods {
        let pod = pod?;
        ensure!(live.contains(&format!("\"pod\":\"{pod}\"")), "{pod} is not named: {live}");
        let shown = run_on("tshark", &["-r", text(&file)?, "-N", "n"])?;
        ensure!(shown.contains(&pod), "tshark does not show {pod}: {shown}");
    }
    services_are_named(&lab, &said)?;
    let shown = run_on("tshark", &["-r", text(&file)?, "-N", "n"])?;
    ensure!(shown.contains("kube-system/kube-dns"), "tshark does not show the service: {shown}");
    Ok(Outcome::Measured(format!("{} octets on {frames} frames, {lookups} lookups", live.len())))
}

/// Names come from the rules' comments, backends from the rules and the packets.
fn services_are_named(lab: &Lab, said: &Value) -> Result<()> {
    let servers = said["servers"].as_array().context("no servers")?;
    let of = |address: &str| servers.iter().find(|server| server["server"] == address);
    let dns = of(&VIP4.to_string()).context("nobody asked the service")?;
    ensure!(
        dns["service"] == "kube-system/kube-dns" && dns["k8s.service.name"] == "kube-dns",
        "the service is not named: {dns}"
    );
    for name in ["dns1", "dns2"] {
        let backend = Value::from(format!("{}:53", lab.pod(name)?.ip4));
        ensure!(dns["backends"].as_array().is_some_and(|all| all.contains(&backend)), "no {backend}: {dns}");
    }
    let rejected =
        said["findings"].as_array().into_iter().flatten().find(|finding| finding["code"] == "DP202");
    let rejected = rejected.context("nobody was rejected")?;
    ensure!(
        rejected["subject"]["service_name"] == "kube-system/dns-without-endpoints",
        "who rejects is not named: {rejected}"
    );
    Ok(())
}

/// What a program prints on a file; it must succeed and not complain.
fn run_on(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = output_of(&mut command, "", LIMIT)?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let complaint = complaints.lines().find(|line| !line.is_empty() && !line.contains("Running as user"));
    ensure!(output.status.success() && complaint.is_none(), "{program} {arguments:?}: {complaints}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn other_programs() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let (lab, directory) = (lab()?, tempfile::tempdir().context("no directory")?);
    let (file, _) = recorded(&lab, directory.path())?;
    let frames = report_json(&[], &[&file])?["coverage"]["frames"].as_u64().context("no coverage")?;
    let fields = ["-r", text(&file)?, "-T", "fields", "-e", "frame.number", "-e", "frame.interface_name"];
    let listed = run_on("tshark", &fields)?;
    ensure!(listed.lines().count() as u64 == frames, "{} packets of {frames}", listed.lines().count());
    ensure!(listed.contains("veth-web") && listed.contains("eth0"), "interfaces are not named: {listed}");
    let wrong =
        run_on("tshark", &["-r", text(&file)?, "-Y", "_ws.malformed || _ws.expert.severity >= 8388608"])?;
    ensure!(wrong.is_empty(), "tshark finds errors: {wrong}");
    let translated =
        run_on("tshark", &["-r", text(&file)?, "-Y", "frame.comment contains \"dnspath: nat \""])?;
    ensure!(!translated.is_empty(), "no comment on a translated packet");
    let facts = run_on("capinfos", &[text(&file)?])?;
    for fact in ["nanoseconds", "dnspath: source netns", "clock 20", "dnspath 0."] {
        ensure!(facts.contains(fact), "no {fact:?} among the facts: {facts}");
    }
    let (cut, merged) = (directory.path().join("cut.pcapng"), directory.path().join("merged.pcapng"));
    run_on("editcap", &["-r", text(&file)?, text(&cut)?, "1-20"])?;
    ensure!(report_json(&[], &[&cut])?["coverage"]["frames"] == 20, "editcap's file has no 20 frames");
    run_on("mergecap", &["-w", text(&merged)?, text(&file)?, text(&cut)?])?;
    let both = report_json(&[], &[&merged])?["coverage"]["frames"].as_u64();
    ensure!(both == Some(frames + 20), "{both:?} frames in mergecap's file, not {frames} + 20");
    let twice = directory.path().join("twice.pcapng");
    fs::write(&twice, fs::read(&file)?.repeat(2)).context("cannot write a file twice as long")?;
    let both = report_json(&[], &[&twice])?["coverage"]["frames"].as_u64();
    ensure!(both == Some(2 * frames), "{both:?} frames in two files behind each other, not 2 × {frames}");
    Ok(Outcome::Measured(format!("{frames} packets")))
}

/// Has pods' names and a drop, which not every kernel can be made to show.
fn kept() -> Result<Outcome> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/recordings/dnspath-0.1.0.pcapng");
    let shown = run_on("tshark", &["-r", text(&file)?, "-N", "n"])?;
    for name in ["shop/web-7c9f", "kube-system/coredns-x"] {
        ensure!(shown.contains(name), "no {name}: {shown}");
    }
    let dropped = run_on("tshark", &["-r", text(&file)?, "-Y", "frame.comment contains \"insert_failed\""])?;
    ensure!(dropped.lines().count() == 1 && dropped.contains("AAAA"), "not the dropped query: {dropped}");
    Ok(Outcome::Passed)
}

/// Runs `dnspath record` to its end: exit status and what it said.
fn record(lab: &Lab, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = bound_command(binary()?);
    command.args(["record", "--netns", lab.node().name()]).args(arguments);
    let output = output_of(&mut command, "", LIMIT)?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn what_cannot_be_written() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let (lab, directory) = (fast_lab()?, tempfile::tempdir().context("no directory")?);
    let there = directory.path().join("there.pcapng");
    fs::write(&there, "precious").context("cannot write")?;
    let (status, said) = record(&lab, &["-w", text(&there)?])?;
    ensure!(status == Some(2) && said.contains("it is there already"), "{status:?}: {said}");
    ensure!(fs::read_to_string(&there)? == "precious", "the file was touched");
    let (status, said) = record(&lab, &["-w", text(&there)?, "--force", "--duration", "500ms"])?;
    ensure!(status == Some(0) && said.contains("coverage: frames="), "{status:?}: {said}");
    report(&[], &[&there])?;
    let (status, said) = record(&lab, &["-w", text(&directory.path().join("no/such/folder"))?])?;
    ensure!(status == Some(2) && said.contains("give a path that can be written"), "{status:?}: {said}");

    let mount = directory.path().join("small");
    fs::create_dir(&mount).context("cannot make a mount point")?;
    let small = SmallDisk::mount(&mount)?;
    let file = mount.join("full.pcapng");
    let tracer = Tracer::start(
        directory.path(),
        &["record", "--netns", lab.node().name(), "-w", text(&file)?, "--duration", "30s"],
    );
    let mut tracer = tracer?;
    Load::full_speed(3).run(lab.pod("web")?, VIP4.into())?;
    let status = tracer.process().wait(Duration::from_secs(40))?;
    let said = tracer.log()?;
    ensure!(status.code() == Some(2), "{status}: {said}");
    ensure!(said.contains("cannot write") && said.contains("No space left on device"), "{said}");
    let read = report_json(&[], &[&file])?;
    ensure!(read["coverage"]["frames"].as_u64() > Some(1_000), "little is readable: {}", read["coverage"]);
    run_on("capinfos", &[text(&file)?])?;
    run_on("mount", &["-o", "remount,ro", text(&mount)?])?;
    let (status, refused) = record(&lab, &["-w", text(&mount.join("more.pcapng"))?])?;
    ensure!(status == Some(2) && refused.contains("Read-only file system"), "{status:?}: {refused}");
    drop(small);
    Ok(Outcome::Measured(said.trim().to_owned()))
}

/// A file system of 2 MiB, taken away again.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self> {
        run_on("mount", &["-t", "tmpfs", "-o", "size=2m", "tmpfs", text(at)?])?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nobody to tell; the directory then cannot be removed, which is seen.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn rotation() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let (lab, directory) = (fast_lab()?, tempfile::tempdir().context("no directory")?);
    let file = directory.path().join("ring.pcapng.zst");
    let arguments = ["record", "--netns", lab.node().name(), "-w", text(&file)?];
    let tracer = Tracer::start(
        directory.path(),
        &[&arguments[..], &["--max-size", "100kB", "--files", "3"]].concat(),
    )?;
    let load = Load { rate: Some(4_000), ..Load::full_speed(4) };
    load.run(lab.pod("web")?, VIP4.into())?;
    tracer.finish_with_text()?;
    let mut kept: Vec<PathBuf> = fs::read_dir(directory.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains("ring-"))
        .collect();
    kept.sort();
    ensure!(kept.len() == 3, "{kept:?}");
    ensure!(!kept[0].ends_with("ring-00001.pcapng.zst"), "nothing was removed: {kept:?}");
    let mut frames = 0;
    for file in &kept {
        let size = fs::metadata(file)?.len();
        ensure!(size < 400_000, "{} has {size} octets", file.display());
        frames += report_json(&[], &[file])?["coverage"]["frames"].as_u64().context("no coverage")?;
    }
    let all = report_json(&[], &kept)?;
    ensure!(all["coverage"]["frames"] == frames, "{} of {frames}", all["coverage"]);
    Ok(Outcome::Measured(format!("{frames} frames in the newest 3 files")))
}

fn stdout_and_zstd() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let (lab, directory) = (fast_lab()?, tempfile::tempdir().context("no directory")?);
    let mut seen = Vec::new();
    for target in ["-".to_owned(), text(&directory.path().join("x.pcapng.zst"))?.to_owned()] {
        let tracer =
            Tracer::start(directory.path(), &["record", "--netns", lab.node().name(), "-w", &target])?;
        let load = Load { rate: Some(500), ..Load::full_speed(1) };
        let result = load.run(lab.pod("web")?, VIP4.into())?;
        std::thread::sleep(Duration::from_millis(300));
        let (stdout, coverage) = tracer.finish_with_text()?;
        let file = if target == "-" { directory.path().join("out.pcapng") } else { PathBuf::from(&target) };
        if target == "-" {
            fs::write(&file, stdout).context("cannot keep what was on stdout")?;
        }
        let read = report_json(&[], &[&file])?;
        ensure!(read["coverage"]["frames"] == coverage["frames"], "{} of {coverage:?}", read["coverage"]);
        let queries = read["totals"]["queries"].as_u64();
        ensure!(queries >= Some(result.sent), "{queries:?} queries of {}", result.sent);
        seen.push(fs::metadata(&file)?.len() * 1_000 / coverage["frames"].max(1));
    }
    ensure!(seen[1] * 2 < seen[0], "zstd does not halve it: {seen:?} octets for 1,000 frames");
    Ok(Outcome::Measured(format!("{seen:?} octets for 1,000 frames, plain and compressed")))
}

/// Seconds since 1970, as `date` has it.
fn wall() -> Result<f64> {
    run_on("date", &["+%s.%N"])?.trim().parse().context("date prints no number")
}

fn killed() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let (lab, directory) = (fast_lab()?, tempfile::tempdir().context("no directory")?);
    let mut missing = Vec::new();
    for name in ["killed.pcapng", "killed.pcapng.zst"] {
        let file = directory.path().join(name);
        let arguments = ["record", "--netns", lab.node().name(), "-w", text(&file)?, "--max-size", "4GB"];
        let mut tracer = Tracer::start(directory.path(), &arguments)?;
        let pod = lab.pod("web")?;
        let killed_at = std::thread::scope(|scope| -> Result<f64> {
            let load = scope.spawn(|| Load::full_speed(4).run(pod, VIP4.into()));
            std::thread::sleep(Duration::from_millis(2_700));
            let now = wall()?;
            tracer.process().signal(Signal::KILL)?;
            load.join().map_err(|_| anyhow::anyhow!("dnsperf's thread failed"))??;
            Ok(now)
        })?;
        tracer.process().wait(Duration::from_secs(5))?;
        let read = report_json(&[], &[&file])?;
        let last = read["window"]["to"].as_str().context("no window")?.to_owned();
        let last: f64 = run_on("date", &["-d", &last, "+%s.%N"])?.trim().parse().context("no time")?;
        ensure!(killed_at - last < 1.0, "{name} ends {:.3} s before the kill", killed_at - last);
        ensure!(read["coverage"]["frames"].as_u64() > Some(10_000), "{}", read["coverage"]);
        missing.push(format!("{:.0} ms", (killed_at - last) * 1e3));
    }
    Ok(Outcome::Measured(format!("{missing:?} before the kill, plain and zstd")))
}

/// `utime` and `stime` of `/proc/PID/stat` in seconds, and resident memory in KiB.
fn used(pid: u32) -> Result<(f64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("dnspath is gone")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        fields.get(11..13).unwrap_or_default().iter().filter_map(|f| f.parse::<u64>().ok()).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("dnspath is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let resident = line.split_whitespace().next().unwrap_or_default().parse().context("no number")?;
    // USER_HZ is 100 on every Linux.
    Ok((ticks as f64 / 100.0, resident))
}

fn full_speed() -> Result<Outcome> {
    match binary() {
        Err(reason) => return Ok(Outcome::LeftOut(format!("{reason:#}"))),
        Ok(path) if path.components().any(|part| part.as_os_str() == "debug") => {
            return Ok(Outcome::LeftOut(format!("{} is not a release build", path.display())));
        }
        Ok(_) => {}
    }
    let (lab, directory) = (fast_lab()?, tempfile::tempdir().context("no directory")?);
    let file = directory.path().join("load.pcapng");
    let arguments = ["record", "--netns", lab.node().name(), "-w", text(&file)?, "--max-size", "4GB"];
    let mut tracer = Tracer::start(directory.path(), &arguments)?;
    Load::full_speed(2).run(lab.pod("web")?, VIP4.into())?;
    let (_, before) = used(tracer.process().pid())?;
    let start = clock::now();
    let result = Load::full_speed(6).run(lab.pod("web")?, VIP4.into())?;
    let seconds = start.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(700));
    let (cpu, after) = used(tracer.process().pid())?;
    let (_, coverage) = tracer.finish_with_text()?;
    let (frames, lost) = (coverage["frames"], coverage["lost"]);
    ensure!(lost == 0, "{lost} frames lost of {frames}");
    ensure!(after < before + 8 * 1024, "memory grew from {before} KiB to {after} KiB");
    let in_file = run_on("capinfos", &["-c", "-M", "-T", "-r", text(&file)?])?;
    ensure!(in_file.trim().ends_with(&frames.to_string()), "{in_file} packets of {frames}");
    Ok(Outcome::Measured(format!(
        "{:.0} packets/s for {seconds:.0} s, {:.2} CPU s a million, memory {before} → {after} KiB",
        result.queries_per_second * 4.0,
        cpu / (frames as f64 / 1e6),
    )))
}
