//! Packages of the system that the lab and the tests use: installed where this is root on Debian, else named.

use crate::command::{is_root, on_path, output, run, say};
use anyhow::Result;
use dnspath_tests::requirements;
use std::process::{Command, Stdio};

/// Debian's Go is older than CoreDNS takes: whoever has a newer one has it from elsewhere, the others do without.
const NOT_FROM_DEBIAN: &str = "golang-go";

/// Installs what is missing, or names it.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() || !on_path("apt-get") {
        say(&format!("setup: the lab lacks these packages (Debian's names): {}", missing.join(" ")));
        say("setup: install them, or run this as root on Debian; what needs them is left out");
        return Ok(());
    }
    say(&format!("setup: installing {}", missing.join(" ")));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    };
    output(apt().arg("update"))?;
    run(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing).stdout(Stdio::null()))
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
