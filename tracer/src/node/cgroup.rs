//! The containers that a process is in, by its cgroup's path.
//!
//! Both cgroup versions and both drivers end a container's path in its id:
//!
//! | driver | path |
//! |---|---|
//! | cgroupfs | `/kubepods/burstable/pod<uid>/<id>`, `/docker/<id>`, `/<namespace>/<id>` (ctr), `/libpod_parent/libpod-<id>` |
//! | systemd | `…/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope`, `crio-<id>.scope`, `docker-<id>.scope`, `libpod-<id>.scope/container` |
//!
//! A path may name several: a container that runs containers itself.

use procfs_core::{FromBufRead as _, ProcessCGroups};

/// Containers named by one path at most; deeper nesting has no name here.
const MOST_NESTED: usize = 8;

/// The ids in a `/proc/PID/cgroup`, innermost first. Some may be no container: what knows them decides.
#[must_use]
pub(super) fn container_ids(cgroup: &[u8]) -> Vec<String> {
    let Ok(ProcessCGroups(hierarchies)) = ProcessCGroups::from_buf_read(cgroup) else { return Vec::new() };
    // Every hierarchy says the same, where it says something at all: the deepest knows the most.
    hierarchies.iter().map(|hierarchy| in_path(&hierarchy.pathname)).max_by_key(Vec::len).unwrap_or_default()
}

fn in_path(path: &str) -> Vec<String> {
    let mut ids: Vec<String> =
        path.rsplit('/').filter_map(of_component).take(MOST_NESTED).map(Into::into).collect();
    // ctr puts a container of any name below the name of its containerd namespace, right under the root.
    if ids.is_empty()
        && let ["", _, name] = path.split('/').collect::<Vec<_>>()[..]
        && is_safe(name)
        && !name.ends_with(".service")
        && !name.ends_with(".slice")
        && !name.ends_with(".scope")
    {
        ids.push(name.into());
    }
    ids
}

/// The id in one component: 64 hexadecimal digits, perhaps behind a runtime's prefix.
fn of_component(component: &str) -> Option<&str> {
    let id = component.strip_suffix(".scope").unwrap_or(component);
    // `cri-containerd-ID`, and with the systemd driver under cgroupfs `SLICE:cri-containerd:ID`.
    let (before, id) = id.rsplit_once([':', '-']).unwrap_or(("", id));
    // conmon is the container's monitor: it lives outside.
    let is_monitor = before.ends_with("conmon");
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) && !is_monitor).then_some(id)
}

/// Whether an id can be put into a path.
#[must_use]
pub(super) fn is_safe(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 128
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7c6f54b2a2b1f3b1f30e6a6fd6a3fb1c3dbe4d3a6e4e0d2e0b6f9a1f7f0a9e55";
    const INNER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn ids_of_every_driver_and_runtime() {
        let uid = "0f3e2b5a-9a7b-4f5c-8c31-1f6f1f0d0a11";
        let slice = "kubepods-burstable-pod0f3e2b5a_9a7b_4f5c_8c31_1f6f1f0d0a11.slice";
        let paths = [
            format!("0::/kubepods/burstable/pod{uid}/{ID}"),
            format!("0::/kubepods/pod{uid}/{ID}/init.scope"),
            format!("0::/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{ID}.scope"),
            format!("0::/kubepods.slice/kubepods-burstable.slice/{slice}/crio-{ID}.scope/container"),
            format!("0::/kubepods.slice/{slice}/docker-{ID}.scope"),
            format!("0::/system.slice/containerd.service/{slice}:cri-containerd:{ID}"),
            format!("0::/docker/{ID}"),
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("0::/machine.slice/libpod-{ID}.scope/container"),
            format!("0::/libpod_parent/libpod-{ID}"),
            format!("0::/../../{slice}/cri-containerd-{ID}.scope"),
            format!("12:pids:/\n11:memory:/kubepods/besteffort/pod{uid}/{ID}\n1:name=systemd:/\n0::/"),
        ];
        for path in paths {
            assert_eq!(container_ids(path.as_bytes()), [ID], "{path}");
        }
        let nested = format!("0::/docker/{ID}/kubelet/kubepods/pod{uid}/{INNER}");
        assert_eq!(container_ids(nested.as_bytes()), [INNER, ID]);
        assert_eq!(container_ids(b"4:pids:/default/web-1\n0::/"), ["web-1"]);
    }

    #[test]
    fn what_is_no_container_has_no_id() {
        let monitor = format!("0::/machine.slice/crio-conmon-{ID}.scope");
        let paths = [
            "0::/",
            "",
            "broken",
            "x:y",
            "0::/system.slice/sshd.service",
            "0::/user.slice/user-0.slice/session-1.scope",
            "0::/kubepods/burstable/pod0f3e2b5a-9a7b-4f5c-8c31-1f6f1f0d0a11",
            "0::/default/..",
            "0::/default/a b",
            &monitor,
        ];
        for path in paths {
            assert!(container_ids(path.as_bytes()).is_empty(), "{path}");
        }
    }

    #[test]
    fn an_id_that_leads_elsewhere_is_not_safe() {
        for id in ["", ".", "..", "../x", "a/b", ".hidden", "a\n", &"x".repeat(129)] {
            assert!(!is_safe(id), "{id:?}");
        }
        assert!(is_safe(ID) && is_safe("web-1_a.b"));
    }
}
