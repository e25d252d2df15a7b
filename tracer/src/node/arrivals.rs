//! Tells that something was made or removed in directories of the node (inotify(7)).

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};
use tokio::net::unix::pipe::Receiver;

/// Follows directories: their own entries, not those below.
#[derive(Debug)]
pub(super) struct Arrivals(OwnedFd);

impl Arrivals {
    /// Follows nothing yet.
    ///
    /// # Errors
    /// When the user has too many of these (`fs.inotify.max_user_instances`).
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?))
    }

    /// Follows this directory too, once.
    ///
    /// # Errors
    /// When it cannot be read, or the user follows too many (`fs.inotify.max_user_watches`).
    pub(super) fn follow(&self, directory: impl AsFd) -> io::Result<()> {
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
        let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        inotify::add_watch(&self.0, path, flags)?;
        Ok(())
    }

    /// For who waits: tells what this one tells.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(super) fn waiting(&self) -> io::Result<Waiting> {
        // It is read as a pipe is, and only waited for.
        Ok(Waiting(Receiver::from_owned_fd_unchecked(self.0.try_clone()?)?))
    }
}

/// Waits for changes.
#[derive(Debug)]
pub(super) struct Waiting(Receiver);

impl Waiting {
    /// Waits until something changed, and forgets what.
    pub(super) async fn changed(&self) {
        if self.0.readable().await.is_err() {
            // Nothing will ever be told.
            return std::future::pending().await;
        }
        let mut events = [0; 4_096];
        while self.0.try_read(&mut events).is_ok_and(|octets| octets > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Duration};

    #[tokio::test]
    async fn what_is_made_and_removed_is_told_and_what_is_written_is_not() {
        let tree = tempfile::tempdir().unwrap();
        let arrivals = Arrivals::new().unwrap();
        for _ in 0..2 {
            arrivals.follow(fs::File::open(tree.path()).unwrap()).unwrap();
        }
        let waiting = arrivals.waiting().unwrap();
        let told = async || tokio::time::timeout(Duration::from_millis(200), waiting.changed()).await.is_ok();
        assert!(!told().await);
        let bundle = tree.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        assert!(told().await && !told().await);
        fs::write(bundle.join("config.json"), "").unwrap();
        assert!(!told().await, "it is below");
        fs::remove_dir_all(&bundle).unwrap();
        assert!(told().await);
        arrivals.follow(fs::File::open("/dev/null").unwrap()).unwrap_err();
    }
}
