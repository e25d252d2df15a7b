//! What the lab needs of the machine, and the Debian package that has it.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Something that is not here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The command, file or right that is missing.
    pub what: String,
    /// The Debian package that has it, where one has.
    pub package: Option<String>,
    /// What cannot be done without it.
    pub needed_for: String,
    /// Whether there is no lab at all without it.
    pub essential: bool,
}

/// Command, package, purpose, essential.
const COMMANDS: [(&str, &str, &str, bool); 23] = [
    ("ip", "iproute2", "namespaces and links", true),
    ("iptables-restore", "iptables", "service rules", true),
    ("ip6tables-restore", "iptables", "service rules", true),
    ("nsenter", "util-linux", "running programs in pods", true),
    ("setpriv", "util-linux", "ending programs with the lab", true),
    ("go", "golang-go", "CoreDNS and the Go client", false),
    ("gcc", "gcc", "the glibc and c-ares clients", false),
    ("musl-gcc", "musl-tools", "the musl client", false),
    ("busybox", "busybox-static", "the busybox client", false),
    ("knotd", "knot", "the fast server", false),
    ("dnsperf", "dnsperf", "load", false),
    ("tcpdump", "tcpdump", "comparing with what is on the wire", false),
    ("tshark", "tshark", "comparing with what is on the wire", false),
    ("conntrack", "conntrack", "provoking conntrack clashes", false),
    ("iptables-legacy", "iptables", "rules of the old kind", false),
    ("nft", "nftables", "holding packets up before they are confirmed", false),
    ("getent", "libc-bin", "the lab's own checks", false),
    ("bpftool", "bpftool", "seeing that nothing stays behind", false),
    ("tmux", "tmux", "the screen in a real terminal", false),
    ("python3", "python3", "sending frames made by hand", false),
    ("dig", "bind9-dnsutils", "asking for HINFO", false),
    ("editcap", "wireshark-common", "changing and shifting recordings", false),
    ("ethtool", "ethtool", "segmentation settings of pods", false),
];

/// What is missing here; empty where everything is at hand.
pub fn requirements() -> Vec<Missing> {
    let mut missing: Vec<_> = COMMANDS
        .iter()
        .filter(|(command, ..)| find(command).is_none())
        .map(|(command, package, needed_for, essential)| Missing {
            what: (*command).to_owned(),
            package: Some((*package).to_owned()),
            needed_for: (*needed_for).to_owned(),
            essential: *essential,
        })
        .collect();
    if !["/usr/include", "/usr/local/include"]
        .iter()
        .any(|include| Path::new(include).join("ares.h").exists())
    {
        missing.push(Missing {
            what: "ares.h".to_owned(),
            package: Some("libc-ares-dev".to_owned()),
            needed_for: "the c-ares client".to_owned(),
            essential: false,
        });
    }
    let essential = |what: &str, needed_for: &str| Missing {
        what: what.to_owned(),
        package: None,
        needed_for: needed_for.to_owned(),
        essential: true,
    };
    if !rustix::process::geteuid().is_root() {
        missing.push(essential("root", "namespaces"));
    }
    if !Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        missing.push(essential("br_netfilter (modprobe br_netfilter)", "service rules on bridged packets"));
    }
    if !Path::new("/proc/sys/net/ipv6").exists() {
        missing.push(essential("IPv6 (ipv6.disable=0)", "IPv6 addresses of pods"));
    }
    missing
}

/// Why there can be no lab here; `None` where there can.
pub fn why_no_lab() -> Option<String> {
    let missing: Vec<_> = requirements().into_iter().filter(|one| one.essential).collect();
    (!missing.is_empty()).then(|| missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Whether the running kernel has tcx links: from 6.6 on.
///
/// # Errors
/// Its release cannot be read.
pub fn kernel_has_tcx() -> anyhow::Result<bool> {
    kernel_is_since((6, 6))
}

/// Whether the running kernel is of this release, major and minor number, or a later one.
///
/// # Errors
/// Its release cannot be read.
pub fn kernel_is_since(since: (u32, u32)) -> anyhow::Result<bool> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor) >= since),
        _ => anyhow::bail!("not a kernel release: {release}"),
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is missing, needed for {}", self.what, self.needed_for)?;
        if let Some(package) = &self.package {
            write!(f, " (package {package})")?;
        }
        Ok(())
    }
}

/// Where a command is: in `PATH`, or where administrators' programs are.
pub fn find(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(command))
        .find(|candidate| candidate.is_file())
}
