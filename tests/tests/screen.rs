//! The screen in a real terminal: a lookup comes, can be opened, filtered, frozen; and the terminal is given back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::wait_until;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::packet::inject;
use dnspath_tests::process::output_of;
use dnspath_tests::requirements::find;
use dnspath_tests::screen::{Screen, TerminalState};
use dnspath_tests::storm::{Ends, mutations, storm};
use dnspath_tests::tracer::binary;
use dnspath_tests::{Client, Lab, LabOptions};
use rustix::process::{Pid, Signal, kill_process};

fn main() -> ExitCode {
    run(&[
        ("a_lookup_is_followed_on_80x24", || a_lookup_is_followed(80, 24)),
        ("a_lookup_is_followed_on_120x40", || a_lookup_is_followed(120, 40)),
        ("a_terminated_screen_gives_the_terminal_back", || ended_by(Signal::TERM)),
        ("an_interrupted_screen_gives_the_terminal_back", || ended_by(Signal::INT)),
        ("a_hung_up_screen_gives_the_terminal_back", || ended_by(Signal::HUP)),
        ("a_closed_terminal_ends_it", a_closed_terminal_ends_it),
        ("a_terminal_that_answers_nothing_is_no_error", a_terminal_that_answers_nothing),
        ("colours_are_left_out_where_asked_for", colours_are_left_out_where_asked_for),
        ("a_storm_and_every_size_leave_the_screen_working", a_storm_and_every_size),
    ])
}

fn why_not() -> Option<String> {
    if let Err(reason) = binary() {
        return Some(format!("{reason:#}"));
    }
    if find("tmux").is_none() {
        return Some("tmux is missing (package tmux)".to_owned());
    }
    Client::Glibc.available().err().map(|reason| format!("{reason:#}"))
}

/// Starts dnspath in the terminal; returns once it shows its empty list, with what the terminal was set to before.
fn open(screen: &Screen<'_>, environment: &str, arguments: &str) -> Result<TerminalState> {
    let before = screen.state()?;
    ensure!(before.flags.contains("alternate 0 cursor 1"), "an odd terminal: {}", before.flags);
    // The marker is not on the command's own line.
    screen.type_line(&format!(
        "clear; {environment} {} {arguments}; echo end''ed with $?",
        binary()?.display()
    ))?;
    screen.wait_for("the empty list", |text| text.contains("No DNS lookup so far."))?;
    Ok(before)
}

/// Checks that dnspath ended with `status`, and that the terminal is what it was.
fn given_back(screen: &Screen<'_>, before: &TerminalState, status: u8) -> Result<()> {
    let text = screen.wait_for("the shell's prompt", |text| text.contains("ended with "))?;
    ensure!(text.contains(&format!("ended with {status}\n")), "another status than {status}:\n{text}");
    ensure!(text.contains("coverage: frames="), "no coverage told:\n{text}");
    ensure!(!text.contains("Lookups") && !text.contains("panicked"), "the screen was left dirty:\n{text}");
    let after = screen.state()?;
    ensure!(after == *before, "the terminal was {before:?} and is {after:?}");
    screen.type_line("echo ec''ho is on")?;
    // What is typed is shown, and what it says.
    screen.wait_for("what is typed", |text| {
        text.contains("echo ec''ho is on") && text.contains("\necho is on")
    })?;
    Ok(())
}

fn a_lookup_is_followed(columns: u16, lines: u16) -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions::default())?;
    let web = lab.pod("web")?;
    let screen = Screen::start(lab.node(), columns, lines)?;
    let recording = lab.node().files().join("screen.pcapng");
    let before = open(&screen, "", &format!("-w {}", recording.display()))?;
    screen.wait_for("the header", |text| {
        ["dnspath", " q/s", " lost 0", "● rec "].iter().all(|words| text.contains(words))
            && (columns < 100 || text.contains("veths"))
    })?;
    let answer = Client::Glibc.lookup(web, "payments.shop")?;
    ensure!(answer.error.is_none(), "the lookup failed: {answer:?}");
    let is_row = |line: &str| line.contains("payments.shop") && line.contains(" ok ");
    screen.wait_for("the lookup", |text| text.lines().any(is_row))?;
    screen.press(&["Enter"])?;
    let ladder = screen.wait_for("the ladder", |text| {
        text.contains("payments.shop.svc.cluster.local") && text.contains("AAAA")
    })?;
    for words in ["payments.shop", "glibc", "NOERROR", "10.96.1.20", "NXDOMAIN"] {
        ensure!(ladder.contains(words), "no {words} in the ladder:\n{ladder}");
    }
    let hops = ladder.matches('●').count();
    ensure!(hops >= 4, "only {hops} hops in the ladder:\n{ladder}");
    ensure!(ladder.contains("veth-web"), "no pod's interface in the ladder:\n{ladder}");
    screen.press(&["Escape"])?;
    screen.wait_for("the list", |text| text.contains("NAME") && text.lines().any(is_row))?;
    screen.press(&["/"])?;
    screen.type_line("nothing")?;
    screen.wait_for("an empty list", |text| text.contains("No lookup matches the filter."))?;
    Client::Glibc.lookup(web, "nothing.example.com.")?;
    let filtered = screen.wait_for("the lookup that matches", |text| text.contains("nothing.example.com"))?;
    ensure!(!filtered.lines().any(is_row), "the filter lets others through:\n{filtered}");
    ensure!(filtered.contains("nxdomain"), "no result:\n{filtered}");
    screen.press(&["Escape"])?;
    screen
        .wait_for("both lookups", |text| text.lines().any(is_row) && text.contains("nothing.example.com"))?;
    screen.press(&["Space"])?;
    screen.wait_for("the word frozen", |text| text.contains("FROZEN"))?;
    Client::Glibc.lookup(web, "www.example.com.")?;
    sleep(Duration::from_secs(1));
    let frozen = screen.text()?;
    ensure!(!frozen.contains("www.example.com"), "a frozen screen goes on:\n{frozen}");
    screen.press(&["Space"])?;
    screen.wait_for("what came meanwhile", |text| {
        text.contains("www.example.com") && !text.contains("FROZEN")
    })?;
    screen.press(&["3"])?;
    let servers =
        screen.wait_for("the servers", |text| text.contains("▸3 Servers") && text.contains("10.96.0.10"))?;
    ensure!(servers.contains("ANSWERED"), "no counts of the servers:\n{servers}");
    screen.press(&["6"])?;
    screen.wait_for("the names", |text| text.contains("▸6 Names") && text.contains("payments.shop"))?;
    screen.press(&["?"])?;
    screen.wait_for("the help", |text| text.contains("next view"))?;
    screen.press(&["?"])?;
    screen.wait_for("the names again", |text| text.contains("FAN-OUT"))?;
    screen.press(&["q"])?;
    given_back(&screen, &before, 0)?;
    Ok(Outcome::Measured(format!("{hops} hops in the ladder")))
}

fn ended_by(signal: Signal) -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let screen = Screen::start(lab.node(), 80, 24)?;
    let before = open(&screen, "", "")?;
    let pid = i32::try_from(screen.program()?).ok().and_then(Pid::from_raw).context("no such pid")?;
    kill_process(pid, signal).context("cannot send the signal")?;
    given_back(&screen, &before, 0)?;
    Ok(Outcome::Passed)
}

fn a_closed_terminal_ends_it() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let screen = Screen::start(lab.node(), 80, 24)?;
    open(&screen, "", "")?;
    let directory = PathBuf::from(format!("/proc/{}", screen.program()?));
    ensure!(directory.exists(), "it does not run");
    drop(screen);
    ensure!(wait_until(Duration::from_secs(10), || !directory.exists()), "it runs without a terminal");
    Ok(Outcome::Passed)
}

fn a_terminal_that_answers_nothing() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    if find("script").is_none() {
        return Ok(Outcome::LeftOut("script is missing (package bsdutils)".to_owned()));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    // script makes a terminal, and only notes what is written to it.
    let line = format!("stty rows 24 cols 80; {} live --duration 1s", binary()?.display());
    let mut command = lab.node().command("script");
    command.args(["-qec", &line, "/dev/null"]);
    let output = output_of(&mut command, "", Duration::from_secs(20))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(0), "it ended with {}: {text:?}", output.status);
    let (screen, after) = text.rsplit_once("\x1b[?1049l").context("the alternate screen was not left")?;
    ensure!(screen.contains("\x1b[?1049h") && screen.contains("Lookups"), "no screen: {screen:?}");
    ensure!(
        after.contains("\x1b[?25h") && after.contains("coverage: frames="),
        "behind the screen: {after:?}"
    );
    Ok(Outcome::Passed)
}

/// Whether there is a sequence that sets a colour (ECMA-48 SGR 30 to 49, 90 to 107).
fn has_colour(text: &str) -> bool {
    let sequences = text.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m'));
    let parameters = sequences.flat_map(|(sequence, _)| sequence.split([';', ':']));
    parameters
        .filter_map(|parameter| parameter.parse::<u8>().ok())
        // 39 and 49 take a colour back.
        .any(|parameter| matches!(parameter, 30..=38 | 40..=48 | 90..=107))
}

fn colours_are_left_out_where_asked_for() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions::default())?;
    let screen = Screen::start(lab.node(), 120, 40)?;
    for (environment, coloured) in
        [("", true), ("NO_COLOR=1", false), ("NO_COLOR=", true), ("TERM=dumb", false)]
    {
        let before = open(&screen, environment, "")?;
        // A lookup that fails stands out.
        Client::Glibc.lookup(lab.pod("web")?, "nothing.example.com.")?;
        screen.wait_for("the failed lookup", |text| text.contains("nxdomain"))?;
        let list = screen.text_with_colours()?;
        ensure!(has_colour(&list) == coloured, "{environment:?}: colours {}: {list:?}", !coloured);
        screen.press(&["Enter"])?;
        screen.wait_for("the ladder", |text| text.contains("NXDOMAIN"))?;
        let ladder = screen.text_with_colours()?;
        ensure!(coloured || !has_colour(&ladder), "{environment:?}: colours in the ladder: {ladder:?}");
        screen.press(&["q"])?;
        given_back(&screen, &before, 0).with_context(|| format!("with {environment:?}"))?;
    }
    Ok(Outcome::Passed)
}

fn a_storm_and_every_size() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    if find("python3").is_none() {
        return Ok(Outcome::LeftOut("python3 is missing".to_owned()));
    }
    let lab = Lab::new(LabOptions::default())?;
    let web = lab.pod("web")?;
    let cases = storm(Ends::of(&lab, "web")?);
    let frames: Vec<Vec<u8>> = cases.iter().flat_map(|case| case.frames.clone()).collect();
    let screen = Screen::start(lab.node(), 80, 24)?;
    let before = open(&screen, "", "")?;
    // Questions that belong to no lookup too.
    screen.press(&["a"])?;
    inject(web, &frames)?;
    inject(web, &mutations(&cases, 2_000, 0x5c4ee4))?;
    // Ladders of the strangest, at every size, one after another.
    for (columns, lines) in [(120, 40), (80, 24), (40, 10), (20, 5), (3, 2), (1, 1), (250, 70), (80, 24)] {
        screen.resize(columns, lines)?;
        for keys in [
            &["Up", "Up", "Enter"][..],
            &["j", "j", "Escape"],
            &["3", "s", "r", "Enter"],
            &["1", "Escape", "?"],
            &["?", "g"],
        ] {
            screen.press(keys)?;
            sleep(Duration::from_millis(120));
        }
    }
    Client::Glibc.lookup(web, "payments.shop")?;
    // Back to the list, whatever is open.
    screen.press(&["Escape", "Escape", "Escape", "1", "Escape", "/"])?;
    screen.type_line("payments.shop")?;
    let text = screen.wait_for("the lookup after the storm", |text| {
        text.lines().any(|line| line.contains("payments.shop") && line.contains(" ok "))
    })?;
    ensure!(text.lines().all(|line| line.chars().count() <= 80), "a line is too long:\n{text}");
    screen.press(&["q"])?;
    given_back(&screen, &before, 0)?;
    Ok(Outcome::Measured(format!("{} frames, 8 sizes", frames.len() + 2_000)))
}
