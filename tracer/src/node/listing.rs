//! What a program of the node lists, read while it runs.

use std::{
    io::{self, BufReader, Read},
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Octets that are read.
const MOST_OCTETS: u64 = 1 << 30;
/// A pipe holds as much.
const BUFFER: usize = 64 << 10;
/// What of a complaint is read; it waits in its pipe meanwhile.
const MOST_OF_COMPLAINT: u64 = 4 << 10;
/// How long a listing may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What a program prints.
pub(super) type Listing = BufReader<io::Take<ChildStdout>>;

/// Runs a program in the calling thread's namespaces and reads what it lists.
///
/// # Errors
/// When it is not here (`NotFound`), fails or takes too long, or `read` fails; the error names the program and the first
/// line of its complaint, in English.
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
        .stderr(Stdio::piped())
        .env("LC_ALL", "C")
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
    let complaint = child.stderr.take().map(first_line).unwrap_or_default();
    drop(ended);
    let too_long = watchdog.join().unwrap_or(false);
    let status = child.wait().map_err(named)?;
    if too_long {
        return Err(named(io::Error::other(format!("not done after {} s", LIMIT.as_secs()))));
    }
    // One that ended by itself says why; one whose pipe was closed is killed by that.
    if status.code().is_none_or(|code| code == 0) {
        read.map_err(named)?;
    }
    if status.success() { Ok(()) } else { Err(named(io::Error::other(format!("{status}{complaint}")))) }
}

/// `: LINE`, escaped; nothing where there is none.
fn first_line(stderr: impl Read) -> String {
    let mut complaint = Vec::new();
    // What cannot be read is not told.
    let _ = stderr.take(MOST_OF_COMPLAINT).read_to_end(&mut complaint);
    let complaint = String::from_utf8_lossy(&complaint);
    let line = complaint.lines().next().unwrap_or_default().trim();
    if line.is_empty() { String::new() } else { format!(": {}", line.escape_debug()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(script: &str, read: impl FnOnce(Listing) -> io::Result<()>) -> String {
        list("sh", &["-c", script], read).map_or_else(|error| error.to_string(), |()| "fine".into())
    }

    fn all(mut listing: Listing) -> io::Result<()> {
        listing.read_to_end(&mut Vec::new()).map(drop)
    }

    #[test]
    fn what_kept_it_from_listing_is_told() {
        let refused = |_: Listing| Err(io::Error::other("no listing"));
        assert_eq!(listed("echo one", all), "fine");
        // Who reads no further may be gone before it writes: that must not end it.
        let failing = "trap '' PIPE; echo one 2>/dev/null; echo 'of two' >&2; exit 3";
        assert_eq!(listed(failing, refused), "sh: exit status: 3: of two");
        assert_eq!(listed("exit 1", refused), "sh: exit status: 1");
        assert_eq!(listed("echo one", refused), "sh: no listing");
        assert_eq!(listed("while :; do echo one; done", refused), "sh: no listing");
        assert_eq!(listed("kill -9 $$", all), "sh: signal: 9 (SIGKILL)");
        let missing = list("no-such-program", &[], all).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
