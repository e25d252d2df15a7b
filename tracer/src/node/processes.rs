//! Which processes are in which network namespace.

use super::roots::Roots;
use std::{collections::HashMap, fs, io};

/// Processes of one namespace that are looked at: a pod's have one owner, whichever is asked.
const MOST_OF_ONE: usize = 16;
/// Processes of a node that are looked at (the kernel's own limit is 4,194,304).
const MOST: usize = 131_072;

/// Processes by the inode of their network namespace.
#[derive(Debug, Default)]
pub(super) struct Processes {
    by_netns: HashMap<u64, Vec<u32>>,
    /// Processes whose namespace may not be looked at.
    pub(super) refused: u64,
}

impl Processes {
    /// Looks at every process; those of the namespaces `besides` are left out.
    #[must_use]
    pub(super) fn list(roots: &Roots, besides: &[u64]) -> Self {
        let mut found = Self::default();
        let Ok(entries) = fs::read_dir(roots.proc("")) else { return found };
        let mut pids: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).take(MOST).collect();
        pids.sort_unstable();
        for pid in pids {
            match netns_of(roots, pid) {
                Ok(inode) if besides.contains(&inode) => {}
                Ok(inode) => {
                    let of_netns = found.by_netns.entry(inode).or_default();
                    if of_netns.len() < MOST_OF_ONE {
                        of_netns.push(pid);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found.refused += 1,
                // Gone meanwhile, or a zombie.
                Err(_) => {}
            }
        }
        found
    }

    /// The namespaces, by inode.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = u64> {
        self.by_netns.keys().copied()
    }

    /// Whether [`Self::of`] has all of a namespace's processes.
    #[must_use]
    pub(super) fn are_all(&self, inode: u64) -> bool {
        self.of(inode).len() < MOST_OF_ONE
    }

    /// The processes in one of them, the oldest first as long as their numbers do not wrap.
    #[must_use]
    pub(super) fn of(&self, inode: u64) -> &[u32] {
        self.by_netns.get(&inode).map_or(&[], Vec::as_slice)
    }
}

/// The inode of a process's network namespace: its link reads `net:[4026532211]`.
///
/// # Errors
/// When the process is gone, or may not be looked at (CAP_SYS_PTRACE).
pub(super) fn netns_of(roots: &Roots, pid: u32) -> io::Result<u64> {
    let link = fs::read_link(roots.proc(&format!("{pid}/ns/net")))?;
    let inode = || link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok();
    inode().ok_or_else(|| io::Error::other("no network namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn processes_by_namespace() {
        let tree = tempfile::tempdir().unwrap();
        let process = |pid: &str, target: &str| {
            let ns = tree.path().join("proc").join(pid).join("ns");
            fs::create_dir_all(&ns).unwrap();
            symlink(target, ns.join("net")).unwrap();
        };
        process("1", "net:[4026531840]");
        process("300", "net:[4026532211]");
        process("40", "net:[4026532211]");
        process("50", "net:[4026532999]");
        process("60", "mnt:[4026532999]");
        process("sys", "net:[4026532211]");
        let processes = Processes::list(&Roots::at(tree.path()), &[4_026_531_840]);
        assert_eq!(processes.of(4_026_532_211), [40, 300]);
        assert_eq!(processes.of(4_026_531_840), [0_u32; 0]);
        assert_eq!(processes.namespaces().count(), 2);
    }
}
