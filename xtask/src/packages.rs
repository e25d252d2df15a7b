//! Packages of the system that the lab and the tests use: installed where this is root on Debian, else named.

use crate::command::{is_root, on_path, output, run, say};
use anyhow::Result;
use std::process::{Command, Stdio};

/// A program the lab or the tests run, and Debian's package that holds it.
const PROGRAMS: [(&str, &str); 17] = [
    ("bpftool", "bpftool"),
    ("busybox", "busybox-static"),
    ("capinfos", "wireshark-common"),
    ("conntrack", "conntrack"),
    ("dig", "bind9-dnsutils"),
    ("dnsperf", "dnsperf"),
    ("ethtool", "ethtool"),
    ("gcc", "gcc"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("knotd", "knot"),
    ("musl-gcc", "musl-tools"),
    ("nft", "nftables"),
    ("sysctl", "procps"),
    ("tcpdump", "tcpdump"),
    ("tmux", "tmux"),
    ("tshark", "tshark"),
];
/// Packages without a program of their own name, and the file that shows that they are there.
const LIBRARIES: [(&str, &str); 1] = [("/usr/include/ares.h", "libc-ares-dev")];

/// Installs what is missing, or names it. Returns what is missing still.
pub(crate) fn ensure() -> Result<Vec<&'static str>> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(missing);
    }
    if !is_root() || !on_path("apt-get") {
        say(&format!("setup: the lab lacks these packages (Debian's names): {}", missing.join(" ")));
        say("setup: install them, or run this as root on Debian; what needs them is left out");
        return Ok(missing);
    }
    say(&format!("setup: installing {}", missing.join(" ")));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    };
    output(apt().arg("update"))?;
    run(apt()
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing)
        .stdout(Stdio::null()))?;
    Ok(self::missing())
}

fn missing() -> Vec<&'static str> {
    let programs = PROGRAMS.iter().filter(|(program, _)| !on_path(program)).map(|&(_, package)| package);
    let libraries = LIBRARIES
        .iter()
        .filter(|(file, _)| !std::path::Path::new(file).exists())
        .map(|&(_, package)| package);
    programs.chain(libraries).collect()
}
