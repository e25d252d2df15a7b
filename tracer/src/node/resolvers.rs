//! What a container's resolver reads: its resolv.conf, its environment, and which libc it is linked with.

use super::roots::{Roots, read_in_root_of, read_made};
use crate::model::{Libc, Resolver};

/// A resolv.conf is a page of text.
const RESOLV_CONF_MAX: u64 = 64 << 10;
/// The kernel lets arguments and environment have a quarter of the stack: 2 MiB by default.
const ENVIRON_MAX: u64 = 2 << 20;
/// A line a mapping; a large Java process has thousands.
const MAPS_MAX: u64 = 4 << 20;
/// A line a socket.
const SOCKETS_MAX: u64 = 1 << 20;

/// Reads it by one of the container's processes; who and where it is, is still to be filled in. `None` where it has no
/// resolv.conf that can be read.
pub(super) fn of_process(roots: &Roots, pid: u32) -> Option<Resolver> {
    let process = roots.proc(&pid.to_string());
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let resolv_conf = text(read_in_root_of(&process, "/etc/resolv.conf", RESOLV_CONF_MAX).ok()?);
    let made = |name: &str, most: u64| read_made(&process.join(name), most).unwrap_or_default();
    let sockets = |name: &str| has_port_53(&text(made(name, SOCKETS_MAX)));
    Some(Resolver {
        resolv_conf,
        environment: of_environ(&made("environ", ENVIRON_MAX)),
        libc: libc_of(&text(made("maps", MAPS_MAX))),
        has_server: sockets("net/udp") || sockets("net/udp6"),
        ..Resolver::default()
    })
}

/// `LOCALDOMAIN` and `RES_OPTIONS` as lines of resolv.conf (resolv.conf(5)).
fn of_environ(environ: &[u8]) -> String {
    let mut lines = String::new();
    for variable in environ.split(|&octet| octet == 0) {
        let variable = String::from_utf8_lossy(variable);
        let line = match variable.split_once('=') {
            Some(("LOCALDOMAIN", value)) => Some(("search", value)),
            Some(("RES_OPTIONS", value)) => Some(("options", value)),
            _ => None,
        };
        // A line break in it would be a line of its own.
        if let Some((keyword, value)) = line
            && !value.contains(['\n', '\r'])
        {
            lines.push_str(&format!("{keyword} {value}\n"));
        }
    }
    lines
}

/// By the loader or the library among a process's mappings.
fn libc_of(maps: &str) -> Libc {
    let files = || maps.lines().filter_map(|line| line.rsplit('/').next());
    if files().any(|file| file.starts_with("ld-musl-") || file.starts_with("libc.musl-")) {
        Libc::Musl
    } else if files().any(|file| file.starts_with("libc.so.6") || file.starts_with("libc-2.")) {
        Libc::Glibc
    } else {
        Libc::Unknown
    }
}

/// Whether a `/proc/PID/net/udp` has a socket bound to port 53: the second column is `ADDRESS:PORT`, hexadecimal.
fn has_port_53(sockets: &str) -> bool {
    sockets
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(1))
        .any(|local| local.ends_with(":0035"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_containers_resolver_is_read_from_its_own_root() {
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join("proc/40").join(name);
        fs::create_dir_all(at("root/etc")).unwrap();
        fs::create_dir_all(at("net")).unwrap();
        let roots = Roots::at(tree.path());
        assert_eq!(of_process(&roots, 40), None);
        fs::write(at("root/etc/resolv.conf"), "nameserver 10.96.0.10\n").unwrap();
        fs::write(
            at("environ"),
            "A=1\0RES_OPTIONS=ndots:2\0LOCALDOMAIN=a.example\0LOCALDOMAIN=x\nnameserver 1\0",
        )
        .unwrap();
        fs::write(at("maps"), "7f00-7f01 r-xp 0 fe:00 1  /lib/ld-musl-x86_64.so.1\n").unwrap();
        let read = of_process(&roots, 40).unwrap();
        assert_eq!(read.resolv_conf, "nameserver 10.96.0.10\n");
        assert_eq!(read.environment, "options ndots:2\nsearch a.example\n");
        assert_eq!((read.libc, read.has_server), (Libc::Musl, false));
        fs::write(at("net/udp6"), "  sl  local_address\n  0: 00000000:0035 00000000:0000 07\n").unwrap();
        assert!(of_process(&roots, 40).unwrap().has_server);
        // A link to the node's own file is not followed out of the container.
        fs::remove_file(at("root/etc/resolv.conf")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", at("root/etc/resolv.conf")).unwrap();
        assert_eq!(of_process(&roots, 40), None);
    }

    #[test]
    fn the_libc_is_among_the_mappings() {
        assert_eq!(libc_of("1-2 r-xp 0 fe:00 1 /usr/lib/x86_64-linux-gnu/libc.so.6\n"), Libc::Glibc);
        assert_eq!(libc_of("1-2 r-xp 0 fe:00 1 /app/server\n"), Libc::Unknown);
    }
}
