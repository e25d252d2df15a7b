//! Packages of the system that the lab and the tests use: installed where this is root on Debian, else named.

use crate::command::{is_root, on_path, output, run, say};
use anyhow::Result;
use dnspath_tests::{requirements, requirements::find};
use std::process::{Command, Stdio};

/// Debian's Go is older than CoreDNS takes: whoever has a newer one has it from elsewhere, the others do without.
const NOT_FROM_DEBIAN: &str = "golang-go";

/// Installs what the lab lacks, or names it.
pub(crate) fn ensure() -> Result<()> {
    install(&missing(), "the lab lacks")
}

/// Installs the packages of those programs that are not here, or names them.
pub(crate) fn ensure_programs(programs: &[(&str, &str)]) -> Result<()> {
    install(&missing_programs(programs), "the virtual machines lack")
}

/// As [`ensure_programs`], but one by one: a package that cannot be had is said, and left out.
pub(crate) fn ensure_each(programs: &[(&str, &str)], who_lacks: &str) {
    for package in missing_programs(programs) {
        if let Err(error) = install(std::slice::from_ref(&package), who_lacks) {
            say(&format!("setup: {package} cannot be installed; what needs it is left out ({error:#})"));
        }
    }
}

/// The packages of those programs that are not here.
pub(crate) fn missing_programs(programs: &[(&str, &str)]) -> Vec<String> {
    let mut packages: Vec<String> = programs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

fn install(packages: &[String], who_lacks: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !is_root() || !on_path("apt-get") {
        say(&format!("setup: {who_lacks} these packages (Debian's names): {names}"));
        say("setup: install them, or run this as root on Debian; what needs them is left out");
        return Ok(());
    }
    say(&format!("setup: installing {names}"));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    };
    output(apt().arg("update"))?;
    run(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages).stdout(Stdio::null()))
}

/// Packages whose program or file is not here.
fn missing() -> Vec<String> {
    let mut packages: Vec<String> =
        requirements().into_iter().filter_map(|missing| missing.package).collect();
    packages.retain(|package| package != NOT_FROM_DEBIAN);
    packages.sort();
    packages.dedup();
    packages
}
