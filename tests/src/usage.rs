//! What a process uses: processor time and memory, and the time of BPF programs, as `/proc` tells them.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::clock;

/// Ticks of `/proc/PID/stat` in a second: `USER_HZ`, the same on all architectures but Alpha.
const USER_HZ: f64 = 100.0;

/// Processor time and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time so far, in seconds.
    pub cpu_seconds: f64,
    /// The most memory that was resident at once (`VmHWM`), in KiB.
    pub peak_kib: u64,
}

/// What a process and its living descendants use.
///
/// # Errors
/// It is gone.
pub fn of(pid: u32) -> Result<Usage> {
    let mut usage = Usage { cpu_seconds: cpu_seconds(pid)?, peak_kib: peak_kib(pid).unwrap_or(0) };
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
        // One that ended in between is counted no more.
        if let Ok(of_child) = of(child) {
            usage.cpu_seconds += of_child.cpu_seconds;
            usage.peak_kib += of_child.peak_kib;
        }
    }
    Ok(usage)
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    cpu_of_stat(&text).with_context(|| format!("{path} is not as proc(5) says: {text}"))
}

/// `utime`, `stime`, `cutime` and `cstime`, fields 14 to 17 of proc(5): its own, and that of the children that it waited
/// for. The name in field 2 may hold anything, parentheses too.
fn cpu_of_stat(text: &str) -> Option<f64> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()? + ticks()? + ticks()?) / USER_HZ)
}

/// What is resident of a process now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it (`VmRSS`), in KiB: files that it maps and rings, too, and these twice.
    pub resident_kib: u64,
    /// What it allocated (`RssAnon`), in KiB.
    pub anonymous_kib: u64,
}

/// The memory of a process, without its descendants'.
///
/// # Errors
/// It is gone.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let field = |name| kib_of_status(&text, name).with_context(|| format!("no {name} in {path}"));
    Ok(Memory { resident_kib: field("VmRSS:")?, anonymous_kib: field("RssAnon:")? })
}

fn peak_kib(pid: u32) -> Option<u64> {
    kib_of_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:")
}

fn kib_of_status(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What one run of a command took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    /// From its start to its end, in seconds.
    pub wall_seconds: f64,
    /// What it used.
    pub usage: Usage,
}

/// Runs a command to its end with nothing to read; what it prints is thrown away.
///
/// # Errors
/// It cannot be started, takes longer than `limit`, or leaves with another status than those of `fine`.
pub fn measure(command: &mut Command, fine: &[i32], limit: Duration) -> Result<Run> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = clock::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let (ended, mut usage) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch_memory(child.id(), limit));
        let ended = wait_without_reaping(&child);
        let wall_seconds = start.elapsed().as_secs_f64();
        (ended.map(|()| wall_seconds), watcher.join().unwrap_or_default())
    });
    // A process that ended keeps its times until it is waited for.
    usage.cpu_seconds = cpu_seconds(child.id())?;
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    if !status.code().is_some_and(|code| fine.contains(&code)) {
        bail!("{name} ended with {status} (it is killed after {limit:?})");
    }
    Ok(Run { wall_seconds: ended?, usage })
}

/// Looks at a process's memory until it has none any more; kills it after `limit`.
fn watch_memory(pid: u32, limit: Duration) -> Usage {
    let (start, mut usage) = (clock::now(), Usage::default());
    while let Some(peak_kib) = peak_kib(pid) {
        usage.peak_kib = peak_kib;
        if start.elapsed() > limit
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            // It may just have ended.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    usage
}

fn wait_without_reaping(child: &Child) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no such pid")?;
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        .map(drop)
        .context("cannot wait for a process")
}

/// Runs of BPF programs and the time they took, as the kernel counts while `kernel.bpf_stats_enabled` is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramTime {
    /// Runs.
    pub runs: u64,
    /// Nanoseconds of all of them.
    pub nanos: u64,
}

/// Programs that a process holds, added up by their type (`enum bpf_prog_type`).
///
/// # Errors
/// The process is gone, or its files cannot be looked at.
pub fn programs(pid: u32) -> Result<BTreeMap<u32, ProgramTime>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let files = fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?;
    let mut programs: BTreeMap<u32, (u32, ProgramTime)> = BTreeMap::new();
    for file in files.flatten() {
        // A file may be closed in between.
        let Ok(text) = fs::read_to_string(file.path()) else { continue };
        if let Some((id, kind, time)) = program_of_fdinfo(&text) {
            programs.insert(id, (kind, time));
        }
    }
    let mut sums: BTreeMap<u32, ProgramTime> = BTreeMap::new();
    for (kind, time) in programs.into_values() {
        let sum = sums.entry(kind).or_default();
        sum.runs += time.runs;
        sum.nanos += time.nanos;
    }
    Ok(sums)
}

/// Id, type and time, where the file is a BPF program.
fn program_of_fdinfo(text: &str) -> Option<(u32, u32, ProgramTime)> {
    let value = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let time = ProgramTime { runs: value("run_cnt:")?, nanos: value("run_time_ns:")? };
    let id = value("prog_id:")?;
    Some((u32::try_from(id).ok()?, u32::try_from(value("prog_type:")?).ok()?, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_a_name_that_holds_anything() {
        let text =
            "4242 (a) R 1 (b)) S 1 4242 4242 0 -1 4194560 1207 0 0 0 250 75 50 25 20 0 5 0 100 1000 200";
        assert_eq!(cpu_of_stat(text), Some(4.0));
        assert_eq!(cpu_of_stat("4242 (a) S 1"), None);
    }

    #[test]
    fn memory_is_read_by_its_label() {
        assert_eq!(kib_of_status("Name:\tx\nVmHWM:\t    9784 kB\nVmRSS:\t  8000 kB\n", "VmHWM:"), Some(9784));
        assert_eq!(kib_of_status("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn programs_are_told_from_other_files() {
        let program = "pos:\t0\nflags:\t02000002\nprog_type:\t3\nprog_jited:\t1\nprog_tag:\t00\nmemlock:\t4096\nprog_id:\t77\nrun_time_ns:\t5000\nrun_cnt:\t20\nrecursion_misses:\t0\n";
        assert_eq!(program_of_fdinfo(program), Some((77, 3, ProgramTime { runs: 20, nanos: 5000 })));
        let link = "pos:\t0\nlink_type:\ttcx\nlink_id:\t3\nprog_tag:\t00\nprog_id:\t77\nifindex:\t4\n";
        assert_eq!(program_of_fdinfo(link), None);
    }

    #[test]
    fn a_run_is_measured_to_its_end() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3"]);
        let run = measure(&mut shell, &[3], Duration::from_secs(60)).unwrap();
        assert!(run.wall_seconds > 0.0 && run.usage.peak_kib > 100, "{run:?}");
        assert!(measure(Command::new("sh").args(["-c", "exit 1"]), &[0], Duration::from_secs(60)).is_err());
        let killed = measure(Command::new("sleep").arg("60"), &[0], Duration::from_millis(50));
        assert!(killed.is_err());
    }
}
