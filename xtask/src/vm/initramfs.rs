//! The first file system of the virtual machine: a shell, the lab's tools with their libraries, and the programs under
//! test, all as they are on this machine.

use super::newc::Archive;
use crate::command::output;
use anyhow::{Context, Result, bail};
use dnspath_tests::requirements::find;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const INIT: &str = include_str!("init.sh");

/// A program of the virtual machine and the Debian package that has it.
pub(super) const PROGRAMS: [(&str, &str); 13] = [
    ("bpftool", "bpftool"),
    ("busybox", "busybox-static"),
    ("conntrack", "conntrack"),
    ("dash", "dash"),
    ("ip", "iproute2"),
    ("ip6tables-restore", "iptables"),
    ("iptables", "iptables"),
    ("iptables-restore", "iptables"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("tc", "iproute2"),
    ("unshare", "util-linux"),
];

/// What the scripts of the lab and of `init.sh` call besides.
const APPLETS: &str =
    "cat cp cut dmesg find grep insmod kill ls mkdir mount rm rmmod sed seq sleep stty xargs";

/// The archive with everything but the kernel's modules. `tests` are the programs under test, under the names they get
/// in `/tests`; `list` are the lines of `/tests/list`.
pub(super) fn archive(tests: &[(&str, PathBuf)], list: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tests", "tmp"] {
        archive.folder(folder);
    }
    archive.link("sbin", "bin");
    archive.link("bin/sh", "dash");
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/tmp:/bin/sh\n");
    archive.file("etc/resolv.conf", 0o644, b"");
    archive.file("tests/list", 0o644, list.as_bytes());
    for applet in APPLETS.split_whitespace() {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    let mut libraries = BTreeSet::new();
    for (name, _) in PROGRAMS {
        let path = find(name).with_context(|| format!("{name} is missing"))?;
        libraries.extend(libraries_of(&path)?);
        add(&mut archive, &format!("bin/{name}"), &path)?;
    }
    for extension in netfilter_extensions(&libraries)? {
        libraries.insert(extension);
    }
    for (name, path) in tests {
        libraries.extend(libraries_of(path)?);
        add(&mut archive, &format!("tests/{name}"), path)?;
    }
    let mut folders = BTreeSet::new();
    for library in &libraries {
        // Each stays where programs look for it.
        for folder in library.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let folder = inside(folder);
            if !folder.is_empty() && folders.insert(folder.clone()) {
                archive.folder(&folder);
            }
        }
        add(&mut archive, &inside(library), library)?;
    }
    Ok(archive.finish())
}

/// An archive to be laid over the other: containerd below `/tests/containerd`, and another `/tests/list`.
pub(super) fn with_containerd(programs: &[(String, PathBuf)], list: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file("tests/list", 0o644, list.as_bytes());
    let mut files = BTreeSet::new();
    for (place, path) in programs {
        files.insert((format!("tests/containerd/{place}"), path.clone()));
        // What it is linked with stays where the loader looks for it.
        files.extend(libraries_of(path)?.into_iter().map(|library| (inside(&library), library)));
    }
    let mut folders = BTreeSet::new();
    for (place, path) in &files {
        for folder in Path::new(place).ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let folder = inside(folder);
            if !folder.is_empty() && folders.insert(folder.clone()) {
                archive.folder(&folder);
            }
        }
        add(&mut archive, place, path)?;
    }
    Ok(archive.finish())
}

fn inside(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

fn add(archive: &mut Archive, name: &str, path: &Path) -> Result<()> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    archive.file(name, 0o755, &content);
    Ok(())
}

/// The libraries that a program is linked with, and the loader.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    // Its status tells a static program, which has none.
    let Ok(listing) = output(Command::new("ldd").arg(program)) else { return Ok(Vec::new()) };
    if listing.contains("not found") {
        bail!("{} lacks a library: {}", program.display(), listing.trim());
    }
    Ok(listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// What iptables loads for each match and target: a folder beside its library.
fn netfilter_extensions(libraries: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>> {
    let beside = libraries
        .iter()
        .find(|path| path.to_string_lossy().contains("libxtables.so"))
        .and_then(|path| fs::canonicalize(path).ok())
        .context("iptables is not linked with libxtables")?;
    let folder = beside.with_file_name("xtables");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect())
}

/// A copy of a program without its symbols, which are most of it.
pub(super) fn stripped(program: &Path, into: &Path) -> Result<PathBuf> {
    let copy = into.join(program.file_name().unwrap_or_default());
    output(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    Ok(copy)
}
