//! Reading the node's files: bounded, and never out of the tree they belong to.
//!
//! A container can make its own `/etc/resolv.conf` a link to anywhere, a FIFO or a file without end. So a file is
//! opened below its root directory with every link resolved inside (openat2(2), RESOLVE_IN_ROOT), without waiting, and
//! read only where it is a regular file of a bearable size.

use crate::model::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Where a container has the node's file system mounted by custom.
const MOUNTED_NODE: &str = "/host";

/// The node's file system and its `/proc`: its own ones, or where a container has them mounted.
#[derive(Clone, Debug)]
pub struct Roots {
    root: PathBuf,
    proc: PathBuf,
}

impl Roots {
    /// The node's tree at `root`, with `proc` in it.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { proc: root.join("proc"), root }
    }

    /// `/host` where the node's processes are shown there, else `/`.
    #[must_use]
    pub fn find() -> Self {
        let mounted = Path::new(MOUNTED_NODE);
        Self::at(if mounted.join("proc/1/cgroup").exists() { mounted } else { Path::new("/") })
    }

    /// A path below the node's `/proc`.
    #[must_use]
    pub(super) fn proc(&self, below: &str) -> PathBuf {
        self.proc.join(below)
    }

    /// The file of a named network namespace, by its name.
    #[must_use]
    pub(super) fn of_named(&self, name: &str) -> PathBuf {
        self.root.join("run/netns").join(name)
    }

    /// The whole of a file of the node, by its path there.
    ///
    /// # Errors
    /// When it cannot be opened, is not a regular file, or is larger than `most` octets.
    pub(super) fn read(&self, path: &str, most: u64) -> io::Result<Vec<u8>> {
        let root = directory(&self.root)?;
        read_below(root.as_fd(), path, most)
    }

    /// The names in a directory of the node, sorted, at most `most` of them; none where it cannot be read.
    #[must_use]
    pub(super) fn list(&self, path: &str, most: usize) -> Vec<String> {
        let listed = || -> io::Result<Vec<String>> {
            let root = directory(&self.root)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = openat2(root, relative(path), flags, Mode::empty(), RESOLVE)?;
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(opened)? {
                let entry = entry?;
                if let Ok(name) = entry.file_name().to_str()
                    && !matches!(name, "." | "..")
                {
                    names.push(name.to_owned());
                }
                if names.len() == most {
                    break;
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        listed().unwrap_or_default()
    }

    /// Opens a directory of the node, to follow what is made in it.
    ///
    /// # Errors
    /// When there is none, or it cannot be reached.
    pub(super) fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(directory(&self.root)?, relative(path), flags, Mode::empty(), RESOLVE)?)
    }

    /// When a file or a directory of the node was last written; `None` where that cannot be told.
    #[must_use]
    pub(super) fn written(&self, path: &str) -> Option<Timestamp> {
        let stat = rustix::fs::fstat(self.place(path).ok()?).ok()?;
        let seconds = u64::try_from(stat.st_mtime).ok()?.checked_mul(1_000_000_000)?;
        Some(Timestamp::from_nanos(seconds.checked_add(stat.st_mtime_nsec)?))
    }

    /// Opens a file of the node as a mere place (O_PATH).
    ///
    /// # Errors
    /// When there is no such file, or it cannot be reached.
    pub(super) fn place(&self, path: &str) -> io::Result<OwnedFd> {
        let root = directory(&self.root)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(openat2(root, relative(path), flags, Mode::empty(), RESOLVE)?)
    }
}

const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

fn relative(path: &str) -> &str {
    let relative = path.trim_start_matches('/');
    if relative.is_empty() { "." } else { relative }
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The whole of the file at `path` below the directory `root`, as a process sees it whose root that is.
fn read_below(root: impl AsFd, path: &str, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    read_regular(openat2(root, relative(path), flags, Mode::empty(), RESOLVE)?.into(), most)
}

/// The whole of a file that another process's root directory (`/proc/PID/root`) holds.
///
/// # Errors
/// As [`Roots::read`].
pub(super) fn read_in_root_of(process: &Path, path: &str, most: u64) -> io::Result<Vec<u8>> {
    read_below(directory(&process.join("root"))?, path, most)
}

/// The whole of a file that the kernel makes, below `/proc`.
///
/// # Errors
/// As [`Roots::read`].
pub(super) fn read_made(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    read_regular(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::empty())?.into(), most)
}

fn read_regular(file: File, most: u64) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("larger than {most} octets")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn links_stay_inside_and_only_regular_files_of_bearable_size_are_read() {
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join(name);
        fs::create_dir_all(at("etc")).unwrap();
        fs::write(at("etc/real"), "inside").unwrap();
        symlink("/etc/real", at("etc/absolute")).unwrap();
        symlink("../../../../etc/hostname", at("etc/outside")).unwrap();
        symlink("/proc/self/environ", at("etc/magic")).unwrap();
        rustix::fs::mknodat(CWD, at("etc/fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::write(at("etc/large"), vec![b'x'; 11]).unwrap();
        let roots = Roots::at(tree.path());
        let read = |name: &str| roots.read(name, 10).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(read("/etc/real").unwrap(), "inside");
        assert_eq!(read("/etc/absolute").unwrap(), "inside");
        for name in ["/etc/outside", "/etc/magic", "/etc/fifo", "/etc/large", "/etc", "/", "/etc/none"] {
            assert!(read(name).is_err(), "{name}");
        }
        assert_eq!(roots.list("/etc", 99), ["absolute", "fifo", "large", "magic", "outside", "real"]);
        assert_eq!(roots.list("/etc", 2).len(), 2);
        assert!(roots.list("/none", 99).is_empty());
    }
}
