//! Network namespaces by name or path.

use super::CaptureError;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    collections::HashSet,
    fs::File,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

/// Where `ip netns` and the container runtimes' CNI keep named namespaces.
const NAMED: &str = "/run/netns";

/// A network namespace to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Netns {
    /// The one dnspath was started in.
    #[default]
    Own,
    /// Another one, and the words the user named it by.
    Other {
        /// As the user wrote it.
        shown: String,
        /// The file that refers to it.
        path: PathBuf,
    },
}

impl Netns {
    /// A word with a slash is a path (`/proc/PID/ns/net`), another one a name under `/run/netns`.
    #[must_use]
    pub fn from_argument(argument: &str) -> Self {
        let path = if argument.contains('/') { argument.into() } else { Path::new(NAMED).join(argument) };
        Self::Other { shown: argument.into(), path }
    }

    /// What it is called on the screen; `None` for the own one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Own => None,
            Self::Other { shown, .. } => Some(shown),
        }
    }

    /// What tells it from others, by whatever name: device and inode of its file. `None` where there is no such file.
    #[must_use]
    pub fn identity(&self) -> Option<(u64, u64)> {
        let path = match self {
            Self::Own => Path::new("/proc/self/ns/net"),
            Self::Other { path, .. } => path,
        };
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    }

    /// Moves the calling thread, and it alone, into the namespace.
    ///
    /// # Errors
    /// When there is no such namespace, or CAP_SYS_ADMIN is missing.
    pub fn enter(&self) -> Result<(), CaptureError> {
        let Self::Other { shown, path } = self else { return Ok(()) };
        let failed = |source| CaptureError::Netns { name: shown.clone(), source };
        let file = File::open(path).map_err(failed)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| failed(errno.into()))
    }
}

impl Netns {
    /// Calls `work` in a thread of its own that has entered the namespace; `None` where it cannot be entered.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Option<T> {
        std::thread::scope(|scope| {
            let inside =
                std::thread::Builder::new().spawn_scoped(scope, || self.enter().ok().map(|()| work()));
            inside.ok()?.join().ok()?
        })
    }
}

/// The namespaces that have a name below `/run/netns`.
pub(super) fn named() -> Vec<Netns> {
    let entries = std::fs::read_dir(NAMED).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(Netns::from_argument(entry.file_name().to_str()?))).collect()
}

/// What a namespace is called that has this inode number: its name below `/run/netns`, else as the kernel shows it.
pub(super) fn name_of(inode: u32) -> String {
    let is_it = |netns: &Netns| netns.identity().is_some_and(|(_, number)| number == u64::from(inode));
    let known = named().into_iter().find(is_it);
    known.and_then(|netns| netns.name().map(Into::into)).unwrap_or_else(|| format!("net:[{inode}]"))
}

/// Every namespace that a process is in: its inode number, and the directory in `/proc` of one such process.
pub(super) fn of_processes() -> Vec<(u64, PathBuf)> {
    let mut known = HashSet::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
    entries
        .filter(|entry| is_process(&entry.file_name()))
        .filter_map(|entry| {
            let inode = std::fs::metadata(entry.path().join("ns/net")).ok()?.ino();
            known.insert(inode).then(|| (inode, entry.path()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_name_and_a_slash_makes_a_path() {
        let path = |argument| match Netns::from_argument(argument) {
            Netns::Other { path, .. } => path,
            Netns::Own => PathBuf::new(),
        };
        assert_eq!(path("node"), Path::new("/run/netns/node"));
        assert_eq!(path("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
    }

    #[test]
    fn two_names_of_one_namespace_are_one() {
        let own = Netns::Own.identity();
        assert!(own.is_some());
        assert_eq!(Netns::from_argument("/proc/self/ns/net").identity(), own);
        assert_ne!(Netns::from_argument("/proc/self/ns/mnt").identity(), own);
        assert_eq!(Netns::from_argument("no-such-namespace").identity(), None);
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named_in_the_error() {
        let error = Netns::from_argument("no-such-namespace").enter().unwrap_err().to_string();
        assert!(error.contains("no-such-namespace"), "{error}");
    }
}
