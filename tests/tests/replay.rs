//! Files on the screen, files that grow, and the flight recorder's file of a live session.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::wait_until;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::load::Load;
use dnspath_tests::process::{Process, bound_command, output_of};
use dnspath_tests::report::{LiveReport, report_json, same};
use dnspath_tests::requirements::find;
use dnspath_tests::screen::Screen;
use dnspath_tests::topology::VIP4;
use dnspath_tests::tracer::binary;
use dnspath_tests::{Client, Lab, LabOptions, ServerKind};
use rustix::process::Signal;

fn main() -> ExitCode {
    run(&[
        ("a_file_is_replayed_paused_and_searched", a_file_is_replayed),
        ("standard_input_is_replayed_once", standard_input_is_replayed_once),
        ("a_growing_file_is_streamed_until_a_signal", a_growing_file_is_streamed),
        ("ctrl_s_saves_what_the_live_report_says", ctrl_s_saves),
        ("ctrl_s_saves_into_a_directory_of_somebody_else", ctrl_s_saves_elsewhere),
        ("a_full_flight_recorder_keeps_to_its_budget", a_full_flight_recorder),
    ])
}

const LIMIT: Duration = Duration::from_secs(20);

fn why_not() -> Option<String> {
    if let Err(reason) = binary() {
        return Some(format!("{reason:#}"));
    }
    find("tmux").is_none().then(|| "tmux is missing (package tmux)".to_owned())
}

/// Every AAAA lost: glibc waits 5 s and 5 s again.
fn capture() -> PathBuf {
    corpus("dropallaaaa-glibc236")
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("corpus/resolvers/{name}.pcap"))
}

/// What the header says of the time since the first frame, in seconds.
fn elapsed(text: &str) -> Option<u64> {
    let line = text.lines().nth(1)?;
    let (minutes, seconds) =
        line.split_whitespace().find_map(|word| word.strip_prefix('+'))?.split_once(':')?;
    Some(minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?)
}

fn a_file_is_replayed() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let screen = Screen::start(lab.node(), 120, 40)?;
    // Three minutes of silence are between them.
    let files = [capture(), corpus("sticky-glibc236")];
    let line = format!(
        "clear; {} replay --speed 1 {} {}; echo end''ed with $?",
        binary()?.display(),
        files[0].display(),
        files[1].display()
    );
    screen.type_line(&line)?;
    screen.wait_for("the replay", |text| text.contains("▶ 1×") && text.contains("dropallaaaa"))?;
    screen.press(&["Space"])?;
    let paused = elapsed(&screen.wait_for("the pause", |text| text.contains("PAUSED 1×"))?);
    sleep(Duration::from_millis(1_500));
    let still = elapsed(&screen.text()?);
    ensure!(paused.is_some() && paused == still, "paused at {paused:?}, then at {still:?}");
    screen.press(&["n"])?;
    let found = screen.wait_for("a finding", |text| text.contains(" DP") && text.contains("PAUSED"))?;
    let at = elapsed(&found).context("no position")?;
    ensure!((10..60).contains(&at), "waits of 5 and 5 s were found after {at} s:\n{found}");
    ensure!(found.lines().any(|line| line.starts_with('▸') && line.contains(" web ")), "no lookup:\n{found}");
    screen.press(&["t"])?;
    screen.type_line("-4s")?;
    screen.wait_for("4 s before", |text| elapsed(text) == Some(at - 4))?;
    screen.press(&["t"])?;
    screen.type_line("yesterday")?;
    screen.wait_for("what is wrong", |text| text.contains("\"yesterday\" is no time"))?;
    screen.press(&["Left"])?;
    screen.wait_for("10 s before", |text| elapsed(text) == Some(at - 14))?;
    screen.press(&["t"])?;
    screen.type_line("11:28:02")?;
    screen
        .wait_for("the start", |text| elapsed(text) == Some(0) && text.contains("No DNS lookup so far."))?;
    screen.press(&["N"])?;
    screen.wait_for("no finding", |text| text.contains("no finding was met before"))?;
    screen.press(&["+", "+", "+", "+", "+", "+", "Space"])?;
    let end = screen.wait_for("the end", |text| text.contains("end of file"))?;
    let lookups = report_json(&[], &files)?["lookups"].as_array().map_or(0, Vec::len);
    let counted = format!("{lookups} lookups");
    ensure!(end.contains(&counted), "the report has {counted}:\n{end}");
    screen.press(&["Right"])?;
    screen.wait_for("that there is no more", |text| text.contains("this is the end"))?;
    screen.press(&["?"])?;
    screen.wait_for("the help", |text| text.contains("Keys of a replay"))?;
    screen.press(&["?", "q"])?;
    screen.wait_for("the end of the program", |text| text.contains("ended with 0"))?;
    Ok(Outcome::Measured(format!("a finding after {at} s; {counted}")))
}

fn standard_input_is_replayed_once() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let screen = Screen::start(lab.node(), 80, 24)?;
    // The writer is not done: the screen must work meanwhile.
    let line = format!(
        "clear; (cat {}; sleep 60) | {} replay -; echo end''ed with $?",
        corpus("repeat5-glibc236").display(),
        binary()?.display()
    );
    screen.type_line(&line)?;
    screen.wait_for("the lookup", |text| text.contains("standard input") && text.contains("5 lookups"))?;
    screen.press(&["Left"])?;
    screen.wait_for("why not", |text| text.contains("cannot go back: standard input is read once"))?;
    screen.press(&["q"])?;
    Ok(Outcome::Passed)
}

fn a_growing_file_is_streamed() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let directory = tempfile::tempdir()?;
    let (whole, file) = (fs::read(capture())?, directory.path().join("growing.pcap"));
    let (out, log) = (directory.path().join("out"), directory.path().join("log"));
    File::create(&file)?;
    let mut command = bound_command(binary()?);
    command.args(["stream", "--follow", "--unit", "message"]).arg(&file);
    let mut process =
        Process::spawn_with_stdout("dnspath stream", &mut command, File::create(&out)?.into(), &log)?;
    let lines = || fs::read_to_string(&out).map_or(0, |text| text.lines().count());
    ensure!(
        wait_until(LIMIT, || process.log().is_ok_and(|log| log.contains("waiting for"))),
        "it does not wait"
    );
    let mut growing = OpenOptions::new().append(true).open(&file)?;
    // In the middle of a record.
    growing.write_all(&whole[..whole.len() / 2 + 7])?;
    ensure!(wait_until(LIMIT, || lines() > 0), "nothing was told: {}", process.log()?);
    let before = lines();
    growing.write_all(&whole[whole.len() / 2 + 7..])?;
    let mut all = bound_command(binary()?);
    all.args(["stream", "--unit", "message"]).arg(capture());
    let all = output_of(&mut all, "", LIMIT)?.stdout;
    let expected = String::from_utf8_lossy(&all).lines().count();
    ensure!(wait_until(LIMIT, || lines() == expected), "{} of {expected} lines", lines());
    ensure!(before < expected, "all came before the file was whole");
    let status = process.stop(Signal::INT, LIMIT)?;
    ensure!(status.code() == Some(0), "it ended with {status}: {}", process.log()?);
    ensure!(fs::read(&out)? == all, "followed, it says something else");
    Ok(Outcome::Measured(format!("{before} of {expected} messages before the file was whole")))
}

/// Presses ctrl-s; the file's path, and what the screen says of it.
fn saved(screen: &Screen<'_>, directory: &Path) -> Result<(PathBuf, String)> {
    screen.press(&["C-s"])?;
    let is_there = |text: &str| text.contains("saved dnspath-");
    // A debug build takes its time for half a million packets.
    wait_until(Duration::from_secs(60), || screen.text().is_ok_and(|text| is_there(&text)));
    let text = screen.wait_for("what was saved", is_there)?;
    let said = text.lines().last().unwrap_or_default().trim();
    let said = said.split("  ").next().unwrap_or(said).to_owned();
    let name = said.split_whitespace().nth(1).context("no name")?.trim_end_matches(':').to_owned();
    Ok((directory.join(name), said))
}

fn ctrl_s_saves() -> Result<Outcome> {
    if let Some(reason) = why_not().or_else(|| Client::Glibc.available().err().map(|e| format!("{e:#}"))) {
        return Ok(Outcome::LeftOut(reason));
    }
    if find("tshark").is_none() {
        return Ok(Outcome::LeftOut("tshark is missing (package tshark)".to_owned()));
    }
    let lab = Lab::new(LabOptions::default())?;
    // When it begins, the server asks by itself: for loops (HINFO), and whether its upstream is well (NS).
    sleep(Duration::from_secs(4));
    let directory = tempfile::tempdir()?;
    let screen = Screen::start(lab.node(), 120, 40)?;
    let line =
        format!("cd {}; clear; {}; echo end''ed with $?", directory.path().display(), binary()?.display());
    screen.type_line(&line)?;
    screen.wait_for("the empty list", |text| text.contains("No DNS lookup so far."))?;
    screen.press(&["C-s"])?;
    screen.wait_for("that there is nothing", |text| text.contains("no packet to save so far"))?;
    let beside = tempfile::tempdir()?;
    let live = LiveReport::start(beside.path(), &["--netns", lab.node().name()])?;
    for name in ["payments.shop", "www.example.com.", "nothing.example.com."] {
        Client::Glibc.lookup(lab.pod("web")?, name)?;
    }
    screen.wait_for("the last lookup", |text| text.contains("nothing.example.com"))?;
    // What the clients' resolvers still wait for is over.
    sleep(Duration::from_secs(2));
    let (file, said) = saved(&screen, directory.path())?;
    let live = live.finish()?;
    let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "its permissions are {mode:o}");
    same(&live, &report_json(&[], &[&file])?)?;
    let mut tshark = Command::new("tshark");
    tshark.args(["-T", "fields", "-e", "frame.number", "-r"]).arg(&file);
    let output = output_of(&mut tshark, "", LIMIT)?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let frames = String::from_utf8_lossy(&output.stdout).lines().count();
    ensure!(said.contains(&format!(" {frames} packets")), "tshark reads {frames}, and it says {said:?}");
    let (second, _) = {
        screen.press(&["j"])?;
        screen.wait_for("another line", |text| !text.contains("saved dnspath-"))?;
        saved(&screen, directory.path())?
    };
    ensure!(
        second != file && fs::read(&file)?.len() as u64 == fs::metadata(&file)?.size(),
        "it was overwritten"
    );
    screen.press(&["q"])?;
    screen.wait_for("the end of the program", |text| text.contains("ended with 0"))?;
    Ok(Outcome::Measured(said))
}

fn ctrl_s_saves_elsewhere() -> Result<Outcome> {
    if let Some(reason) = why_not().or_else(|| Client::Glibc.available().err().map(|e| format!("{e:#}"))) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions::default())?;
    // As with sudo in a user's home.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    chown(directory.path(), Some(65_534), Some(65_534))?;
    let screen = Screen::start(lab.node(), 120, 40)?;
    let line = format!("cd {}; {}; echo end''ed with $?", directory.path().display(), binary()?.display());
    screen.type_line(&line)?;
    screen.wait_for("the empty list", |text| text.contains("No DNS lookup so far."))?;
    Client::Glibc.lookup(lab.pod("web")?, "www.example.com.")?;
    screen.wait_for("the lookup", |text| text.contains("www.example.com"))?;
    let (file, said) = saved(&screen, directory.path())?;
    let report = report_json(&["--client", &lab.pod("web")?.ip4.to_string()], &[&file])?;
    ensure!(report["totals"]["lookups"] == 1, "another number of lookups in {said}");
    screen.press(&["q"])?;
    Ok(Outcome::Measured(said))
}

/// Frames that fill 64 MiB: the smallest take a hundred octets.
const FILLS: u64 = 1_200_000;

/// Resident memory of the screen's program in KiB: as it starts, and after [`FILLS`] frames; what ctrl-s says then.
fn resident(size: &str, directory: &Path) -> Result<(u64, u64, Option<String>)> {
    let lab = Lab::new(LabOptions {
        server: Some(ServerKind::Fast),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    })?;
    let screen = Screen::start(lab.node(), 120, 40)?;
    let line = format!("cd {}; {} --flight-recorder {size}", directory.display(), binary()?.display());
    screen.type_line(&line)?;
    screen.wait_for("the empty list", |text| text.contains("No DNS lookup so far."))?;
    let now = || -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", screen.program()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.split_whitespace().next().unwrap_or_default().parse().context("VmRSS is no number")
    };
    let empty = now()?;
    let mut frames = 0;
    for _ in 0..20 {
        if frames < FILLS {
            // What a debug build can follow.
            let load = Load { rate: Some(10_000), ..Load::full_speed(3) };
            frames += 4 * load.run(lab.pod("web")?, VIP4.into())?.completed;
        }
    }
    ensure!(frames >= FILLS, "this machine makes too little load: {frames} packets in a minute");
    let full = now()?;
    screen.press(&["C-s"])?;
    if size == "0" {
        screen.wait_for("that there is none", |text| text.contains("--flight-recorder is 0"))?;
        return Ok((empty, full, None));
    }
    let (file, said) = saved(&screen, directory)?;
    let report = report_json(&[], &[&file])?;
    let frames = &report["coverage"]["frames"];
    ensure!(said.contains(&format!(" {frames} packets")), "{frames} frames in the file, and {said:?}");
    Ok((empty, full, Some(said)))
}

fn a_full_flight_recorder() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let directory = tempfile::tempdir()?;
    let (_, without, _) = resident("0", directory.path())?;
    let (empty, full, said) = resident("64MiB", directory.path())?;
    let told = format!(
        "resident {} MiB empty, {} MiB full, {} MiB after the same load without; {}",
        empty / 1_024,
        full / 1_024,
        without / 1_024,
        said.unwrap_or_default()
    );
    ensure!(full < without + (64 + 6) * 1_024, "{told}");
    Ok(Outcome::Measured(told))
}
