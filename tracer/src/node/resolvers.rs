//! What a container's resolver reads: its resolv.conf, its environment, and which libc it is linked with.

use super::{
    naming::{Look, Namer},
    processes::netns_of,
    roots::{Roots, read_in_root_of, read_made},
    runtimes::Container,
    town::{RESYNC, Resident},
};
use crate::model::{Libc, Resolver, Timestamp};
use std::{collections::HashMap, sync::mpsc};

/// A resolv.conf is a page of text.
const RESOLV_CONF_MAX: u64 = 64 << 10;
/// The kernel lets arguments and environment have a quarter of the stack: 2 MiB by default.
const ENVIRON_MAX: u64 = 2 << 20;
/// A line a mapping; a large Java process has thousands.
const MAPS_MAX: u64 = 4 << 20;
/// A line a socket.
const SOCKETS_MAX: u64 = 1 << 20;

/// Tells the resolvers of containers, each as it is found or changes.
pub(super) struct Resolvers {
    roots: Roots,
    to: mpsc::SyncSender<Resolver>,
    /// By pod and container.
    told: HashMap<(String, String), Resolver>,
}

impl Resolvers {
    /// Tells `to`.
    #[must_use]
    pub(super) fn new(roots: Roots, to: mpsc::SyncSender<Resolver>) -> Self {
        Self { roots, to, told: HashMap::new() }
    }

    /// Reads how the containers of neighbours resolve: where the neighbour or one of its containers is young at each look,
    /// of all now and then.
    pub(super) fn tell(
        &mut self,
        neighbours: &[Resident],
        (namer, look): (&mut Namer, &Look),
        all: bool,
        now: Timestamp,
    ) {
        let mut seen = HashMap::new();
        for neighbour in neighbours {
            let is_young = now.since(neighbour.born) < RESYNC || look.has_young(&neighbour.name, now);
            if all || is_young {
                let resolvers = self.of(neighbour, namer.containers(neighbour.inode, look));
                seen.extend(resolvers.into_iter().map(|it| ((it.pod.to_string(), it.container.clone()), it)));
            }
        }
        for (key, resolver) in &seen {
            // What finds no room now is told at the next look.
            if self.told.get(key) != Some(resolver) && self.to.try_send(resolver.clone()).is_ok() {
                self.told.insert(key.clone(), resolver.clone());
            }
        }
        if all {
            self.told.retain(|key, _| seen.contains_key(key));
        }
    }

    /// Those of one neighbour's containers.
    fn of(&self, neighbour: &Resident, mut containers: Vec<(u32, Container)>) -> Vec<Resolver> {
        // What another pod does in there, it does by that one's files.
        containers
            .retain(|(_, container)| container.pod.namespace.is_empty() || container.pod == neighbour.name);
        // A sandbox resolves nothing; where there is nothing else, it has its pod's file.
        if containers.iter().any(|(_, container)| !container.sandbox) {
            containers.retain(|(_, container)| !container.sandbox);
        }
        let read = |(pid, container): (u32, Container)| {
            let read = of_process(&self.roots, pid)?;
            // The number may be another process's by now.
            netns_of(&self.roots, pid).ok().filter(|inode| *inode == neighbour.inode)?;
            let addresses = neighbour.addresses.clone();
            Some(Resolver { pod: container.pod, container: container.name, addresses, ..read })
        };
        let mut resolvers: Vec<Resolver> = containers.into_iter().filter_map(read).collect();
        let agree = resolvers.windows(2).all(|two| two[0].text() == two[1].text());
        for resolver in &mut resolvers {
            resolver.agrees = agree;
        }
        resolvers
    }
}

/// Reads it by one of the container's processes; who and where it is, is still to be filled in. `None` where it has no
/// resolv.conf that can be read.
fn of_process(roots: &Roots, pid: u32) -> Option<Resolver> {
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
