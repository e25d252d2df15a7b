//! Conntrack that is loaded while dnspath runs: without it nothing of it is seen, and that is said; then its function is
//! probed, and its clashes are told.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::wait_until;
use dnspath_tests::harness::Outcome;
use dnspath_tests::process::run as run_command;
use dnspath_tests::tracer::{Tracer, binary};
use serde_json::Value;

use crate::clashes;
use crate::stage::finish_quietly;

/// The modules of the virtual machine, in the order of their needs.
const ORDER: &str = "/modules/order";
const CONNTRACK: &str = "nf_conntrack";
const A_WHILE: Duration = Duration::from_secs(30);

/// A port that no other clash is made from.
const PORT: u16 = 40_023;

pub(crate) fn conntrack_is_loaded_late() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    if !Path::new(ORDER).exists() || !is_loaded() {
        let reason =
            "no virtual machine of `cargo xtask vm-test`, whose conntrack is a module that can be taken away";
        return Ok(Outcome::LeftOut(reason.to_owned()));
    }
    let outcome = unload(CONNTRACK).and_then(|()| watch_it_come());
    // The tests behind this one need it, however this one ended.
    load_all()?;
    outcome
}

fn watch_it_come() -> Result<Outcome> {
    ensure!(!is_loaded(), "{CONNTRACK} is still there");
    let directory = tempfile::tempdir().context("no directory")?;
    let arguments = ["stream", "-o", "json", "-i", "lo", "--unit", "drop", "--unit", "finding"];
    let tracer = Tracer::start(directory.path(), &arguments)?;
    let is_said = || tracer.log().is_ok_and(|log| log.contains("(DP902)") && log.contains("cannot probe"));
    ensure!(wait_until(A_WHILE, is_said), "not said that it is missing: {}", tracer.log()?);
    load_all()?;
    let probed = || tracer.log().is_ok_and(|log| log.contains("is there now and probed"));
    ensure!(wait_until(A_WHILE, probed), "not probed: {}", tracer.log()?);

    // Only the probes tell a clash that was resolved towards one server.
    let outcome = clashes::one_socket_is_resolved(PORT, "dns1");
    finish_quietly();
    if let Outcome::LeftOut(reason) = outcome? {
        return Ok(Outcome::LeftOut(reason));
    }
    let is_it = |line: &Value| {
        let client = line["original"]["src"].as_str().unwrap_or_default();
        line["fate"] == "clash_resolved" && client.ends_with(&format!(":{PORT}"))
    };
    let told = || tracer.lines().is_ok_and(|lines| lines.iter().any(is_it));
    ensure!(wait_until(A_WHILE, told), "the clash is not told: {:?}", tracer.lines());
    let told = tracer.finish()?;
    let whats: Vec<&str> = told
        .unit("finding")
        .filter(|finding| finding["code"] == "DP902")
        .filter_map(|finding| finding["subject"]["what"].as_str())
        .collect();
    for what in ["clashes", "conntrack"] {
        ensure!(whats.contains(&what), "{what} is not among what was not seen at the start: {whats:?}");
    }
    Ok(Outcome::Measured("said at the start, probed once it was there".to_owned()))
}

fn is_loaded() -> bool {
    Path::new("/sys/module").join(CONNTRACK).exists()
}

/// Takes a module away, and before it those that use it.
fn unload(module: &str) -> Result<()> {
    let modules = fs::read_to_string("/proc/modules").context("cannot read /proc/modules")?;
    // name, octets, uses, users
    let line = modules.lines().find(|line| line.split(' ').next() == Some(module));
    let Some(line) = line else { return Ok(()) };
    let users = line.split(' ').nth(3).unwrap_or_default();
    for user in users.split(',').filter(|user| !matches!(*user, "" | "-")) {
        unload(user)?;
    }
    run_command(Command::new("rmmod").arg(module), A_WHILE).map(drop)
}

/// Loads all modules that are not there.
fn load_all() -> Result<()> {
    for module in fs::read_to_string(ORDER).context("no order of modules")?.lines() {
        if !Path::new("/sys/module").join(module.replace('-', "_")).exists() {
            let file = format!("/modules/{module}.ko");
            run_command(Command::new("insmod").arg(file), A_WHILE)?;
        }
    }
    Ok(())
}
