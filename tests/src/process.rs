//! Processes of the lab: each dies with the thread that started it, none outlives its handle.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::wait_until;

/// A command that the kernel kills when the calling thread ends (`PR_SET_PDEATHSIG`, which survives `execve`), so
/// that nothing is left even after SIGKILL. Start it from a thread that lives as long as the process should.
pub fn bound_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs a command to its end and returns what it wrote; it is killed after `limit`.
///
/// # Errors
/// The command cannot be started, takes longer than `limit`, or leaves with a status other than 0: the message
/// has the command and its standard error.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    run_with_input(command, "", limit)
}

/// [`run`], with `input` on standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &str, limit: Duration) -> Result<Output> {
    let output = output_of(command, input, limit)?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", line_of(command), output.status, complaint.trim());
    }
    Ok(output)
}

/// As [`run_with_input`], but any exit status is fine.
///
/// # Errors
/// The command cannot be started or takes longer than `limit`.
pub fn output_of(command: &mut Command, input: &str, limit: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", line_of(command)))?;
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let feeder = scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
        let stdout = scope.spawn(move || drain(stdout));
        let stderr = scope.spawn(move || drain(stderr));
        let status = wait(&mut child, limit);
        if status.is_none() {
            // Nobody to report to when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
        // A command that does not read its input closes the pipe early: its exit status says what matters.
        let _ = feeder.join();
        let broken = |_| anyhow!("the reader of {} panicked", line_of(command));
        let (stdout, stderr) = (stdout.join().map_err(broken)?, stderr.join().map_err(broken)?);
        let status =
            status.ok_or_else(|| anyhow!("{} still ran after {limit:?} and was killed", line_of(command)))?;
        Ok(Output { status, stdout, stderr })
    })
}

fn drain(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait_until(limit, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    status
}

/// The command as a person would type it, without the prefix that binds it to its thread.
pub fn line_of(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy())
        .collect();
    words.join(" ").replace("setpriv --pdeathsig KILL -- ", "")
}

/// A process that runs beside the test, its output in a log file. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; standard output and standard error go to the file `log`.
    ///
    /// # Errors
    /// The log cannot be made or the command cannot be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot create the log {}", log.display()))?;
        let err = out.try_clone().with_context(|| format!("cannot share the log {}", log.display()))?;
        command.stdout(out).stderr(err);
        Self::spawn_as_is(name, command, log)
    }

    /// As [`Process::spawn`], but standard output is the caller's business; only standard error goes to `log`.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn_with_stdout(name: &str, command: &mut Command, stdout: Stdio, log: &Path) -> Result<Self> {
        let err = File::create(log).with_context(|| format!("cannot create the log {}", log.display()))?;
        command.stdout(stdout).stderr(err);
        Self::spawn_as_is(name, command, log)
    }

    fn spawn_as_is(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", line_of(command)))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned() })
    }

    /// Its process id, in the test's own pid namespace.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pipe of its standard output, once, where one was asked for.
    pub(crate) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it wrote so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log)
            .with_context(|| format!("cannot read {}'s log {}", self.name, self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("no such pid")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {} (pid {})", self.name, self.pid()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait(&mut self.child, limit)
            .ok_or_else(|| anyhow!("{} (pid {}) still runs after {limit:?}", self.name, self.pid()))
    }

    /// Asks it to end with `signal` and waits; it is killed after `limit`.
    ///
    /// # Errors
    /// It did not end by itself; by then it is killed.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Ok(status);
        }
        self.signal(signal)?;
        let ended = self.wait(limit);
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    fn kill(&mut self) {
        // Fails only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
