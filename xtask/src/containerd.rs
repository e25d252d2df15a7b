//! A containerd to test against: Debian's packages of the running release, unpacked below `target`. Nothing is installed:
//! Debian's containerd and that of Docker's own packages exclude each other, and one that is installed is started.

use crate::{
    command::{say, target},
    debian::{Suite, codename},
};
use anyhow::{Context, Result};
use dnspath_tests::requirements::find;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the tests look for it; they use the machine's own without it.
pub(crate) const VARIABLE: &str = "DNSPATH_CONTAINERD";

/// containerd with its client, runc, and the CNI plugins.
const PACKAGES: [&str; 3] = ["containerd", "runc", "containernetworking-plugins"];

/// The programs of these that make a pod.
const PROGRAMS: [&str; 7] = [
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/sbin/runc",
    "usr/lib/cni/bridge",
    "usr/lib/cni/host-local",
    "usr/lib/cni/loopback",
];

/// The folder that it is unpacked in. `None` where the machine has its own, a folder is named already, or there is none to
/// be had, which is said: the tests that need one then count themselves as left out.
pub(crate) fn ensure() -> Option<PathBuf> {
    unpacked().unwrap_or_else(|error| {
        say(&format!("setup: no containerd to test against: {error:#}"));
        None
    })
}

/// What of it a virtual machine needs, each with its place below a folder that [`VARIABLE`] names there. `None` where
/// there is none to be had, which is said.
pub(crate) fn programs() -> Option<Vec<(String, PathBuf)>> {
    let root = ensure().or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    let place = |path: &str| match (&root, path.rsplit_once('/')) {
        (Some(root), _) => Some(root.join(path)).filter(|path| path.is_file()),
        (None, Some(("usr/bin" | "usr/sbin", program))) => find(program),
        // iproute2 has a `bridge` of its own.
        (None, _) => Some(Path::new("/").join(path)).filter(|path| path.is_file()),
    };
    PROGRAMS.iter().map(|path| Some(((*path).to_owned(), place(path)?))).collect()
}

/// Downloaded once.
fn unpacked() -> Result<Option<PathBuf>> {
    let is_here = ["containerd", "ctr", "runc"].iter().all(|program| find(program).is_some())
        && Path::new("/usr/lib/cni/bridge").is_file();
    if is_here || std::env::var_os(VARIABLE).is_some() {
        return Ok(None);
    }
    let folder = target().join("containerd");
    let (root, marker) = (folder.join("root"), folder.join("complete"));
    if marker.is_file() {
        return Ok(Some(root));
    }
    say("setup: getting Debian's containerd for the tests (it is unpacked, not installed)");
    let suite = Suite::fetch(&codename()?, &folder.join("apt"))?;
    for package in PACKAGES {
        suite.unpack(package, &root)?;
    }
    fs::write(&marker, "").with_context(|| format!("cannot write {}", marker.display()))?;
    Ok(Some(root))
}
