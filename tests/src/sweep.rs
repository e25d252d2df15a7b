//! Taking labs down: the running one, and those whose owner is gone.
//!
//! Each lab has a watcher: a shell that waits for a pipe from the owner to close and then takes the lab down
//! (`teardown.sh`). Dropping the lab closes the pipe and waits; SIGKILL of the owner closes it too. Should the
//! watcher be killed as well, the next lab's start finds what is left by its name, which holds the owner's pid.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where labs keep their files: of this boot, root's alone.
pub(crate) const LABS: &str = "/run/dnspath-lab";
const NAMESPACES: &str = "/run/netns";
const TEARDOWN: &str = include_str!("teardown.sh");

/// Takes one lab down when told, or when its owner dies.
#[derive(Debug)]
pub(crate) struct Watcher(Child);

impl Watcher {
    pub(crate) fn start(prefix: &str, directory: &Path) -> Result<Self> {
        let child = teardown(prefix, directory)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start the shell that takes the lab down")?;
        Ok(Self(child))
    }

    /// The watcher's own pid.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Takes the lab down and waits for it.
    pub(crate) fn take_down(&mut self) {
        drop(self.0.stdin.take());
        // A watcher that was killed leaves the lab to the next sweep.
        let _ = self.0.wait();
    }
}

fn teardown(prefix: &str, directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", TEARDOWN, "teardown", prefix]).arg(directory);
    // Out of the terminal's foreground group: its Ctrl-C is for the owner.
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The prefix of lab number `number` of this process.
pub(crate) fn prefix(number: u32) -> String {
    format!("dp{}x{number}", std::process::id())
}

/// The directory of the lab with this prefix.
pub(crate) fn directory(prefix: &str) -> PathBuf {
    Path::new(LABS).join(prefix)
}

/// Takes down every lab whose owner is gone; returns their prefixes.
///
/// # Errors
/// `/run` cannot be read, or something could not be taken down.
pub fn sweep() -> Result<Vec<String>> {
    let mut stale = Vec::new();
    for prefix in prefixes()? {
        let directory = directory(&prefix);
        if owner_lives(&prefix, &directory) {
            continue;
        }
        let status = teardown(&prefix, &directory)
            .stdin(Stdio::null())
            .status()
            .context("cannot start the shell that takes stale labs down")?;
        if !status.success() {
            bail!("the stale lab {prefix} cannot be taken down: {status}");
        }
        stale.push(prefix);
    }
    Ok(stale)
}

/// The names of all namespaces of the lab with this prefix.
///
/// # Errors
/// `/run/netns` cannot be read.
pub fn namespaces_of(prefix: &str) -> Result<Vec<String>> {
    let head = format!("{prefix}-");
    Ok(entries(NAMESPACES)?.into_iter().filter(|name| name.starts_with(&head)).collect())
}

fn prefixes() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for name in entries(NAMESPACES)?.into_iter().chain(entries(LABS)?) {
        let prefix = name.split('-').next().unwrap_or_default();
        if owner_of(prefix).is_some() {
            found.insert(prefix.to_owned());
        }
    }
    Ok(found)
}

fn entries(directory: &str) -> Result<Vec<String>> {
    let listing = match fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("cannot list {directory}"))?,
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.with_context(|| format!("cannot list {directory}"))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// The pid in `dpPIDxNUMBER`.
fn owner_of(prefix: &str) -> Option<u32> {
    let (pid, number) = prefix.strip_prefix("dp")?.split_once('x')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Whether the process that made the lab still runs: the same pid, started at the same time.
fn owner_lives(prefix: &str, directory: &Path) -> bool {
    let Some(started) = owner_of(prefix).and_then(start_time) else { return false };
    match fs::read_to_string(directory.join("owner")) {
        Ok(recorded) => recorded == started,
        // Its owner is alive and has not come to writing the file yet.
        Err(_) => true,
    }
}

/// The start time of a process in clock ticks since boot: field 22 of `/proc/PID/stat`.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and parentheses: the fields are counted from its end.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

/// Writes down who owns the lab in `directory`; at once, for a sweep beside it would take a half-written word for another's.
pub(crate) fn record_owner(directory: &Path) -> Result<()> {
    let started = start_time(std::process::id()).context("cannot read our own start time in /proc")?;
    let written = directory.join("owner.new");
    fs::write(&written, started)
        .and_then(|()| fs::rename(&written, directory.join("owner")))
        .with_context(|| format!("cannot write in {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_lab_gives_are_taken_for_a_labs() {
        let names = ["dp12x0", "dp12x", "dpx1", "dp1x2y", "docker", "dp-1x0", "12x0"];
        let owners: Vec<_> = names.iter().map(|name| owner_of(name)).collect();
        assert_eq!(owners, [Some(12), None, None, None, None, None, None]);
    }

    #[test]
    fn a_process_is_known_by_its_start_time_too() {
        let directory = tempfile::tempdir().unwrap();
        let prefix = prefix(0);
        assert!(owner_lives(&prefix, directory.path()));
        record_owner(directory.path()).unwrap();
        assert!(owner_lives(&prefix, directory.path()));
        fs::write(directory.path().join("owner"), "1").unwrap();
        assert!(!owner_lives(&prefix, directory.path()));
    }
}
