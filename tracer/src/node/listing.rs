//! What a program of the node lists, read while it runs.

use std::{
    io::{self, BufReader, Read as _},
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Octets that are read.
const MOST_OCTETS: u64 = 1 << 30;
/// A pipe holds as much.
const BUFFER: usize = 64 << 10;
/// How long a listing may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What a program prints.
pub(super) type Listing = BufReader<io::Take<ChildStdout>>;

/// Runs a program in the calling thread's namespaces and reads what it lists.
///
/// # Errors
/// When it is not here, fails or takes too long, or `read` fails; the error names the program.
pub(super) fn list(
    program: &str,
    arguments: &[&str],
    read: impl FnOnce(Listing) -> io::Result<()>,
) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{program}: {error}"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(named)?;
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, end) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let too_long = end.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
        if too_long {
            // It is not waited for yet, so the number is still its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        too_long
    });
    let read = child
        .stdout
        .take()
        .map_or(Ok(()), |stdout| read(BufReader::with_capacity(BUFFER, stdout.take(MOST_OCTETS))));
    drop(ended);
    let too_long = watchdog.join().unwrap_or(false);
    let status = child.wait().map_err(named)?;
    read.map_err(named)?;
    if too_long {
        return Err(named(io::Error::other(format!("not done after {} s", LIMIT.as_secs()))));
    }
    if status.success() { Ok(()) } else { Err(named(io::Error::other(status.to_string()))) }
}
