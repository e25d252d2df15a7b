//! How a container is set up to resolve names.

use super::PodName;
use std::{fmt, net::IpAddr};

/// The C library that a container's programs are linked with: it decides how resolv.conf is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Libc {
    /// GNU's.
    Glibc,
    /// musl: Alpine.
    Musl,
    /// Neither: linked statically, as Go's programs, or not to be seen.
    #[default]
    Unknown,
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
            Self::Unknown => "unknown",
        })
    }
}

/// A container's resolv.conf, and what bears on how it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Its pod, or what it is called itself.
    pub pod: PodName,
    /// `k8s.container.name`; empty for what is no pod's.
    pub container: String,
    /// The addresses it asks from.
    pub addresses: Vec<IpAddr>,
    /// The text of its `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// What `LOCALDOMAIN` and `RES_OPTIONS` add, as lines of resolv.conf; glibc reads them.
    pub environment: String,
    /// How the text is read.
    pub libc: Libc,
    /// All containers of its pod read the same lines.
    pub agrees: bool,
    /// Somebody in its network namespace has UDP port 53: a nameserver of its own.
    pub has_server: bool,
}

impl Resolver {
    /// The lines as its libc takes them, the environment's last: they count.
    #[must_use]
    pub fn text(&self) -> String {
        match self.libc {
            Libc::Musl => self.lines_read().collect::<Vec<_>>().join("\n"),
            Libc::Glibc | Libc::Unknown => format!("{}\n{}", self.resolv_conf, self.environment),
        }
    }

    /// Where it sends queries: the `nameserver` lines that are addresses.
    #[must_use]
    pub fn nameservers(&self) -> Vec<IpAddr> {
        let of_line = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.split('%').next()?.parse().ok())?
        };
        self.lines_read().filter_map(of_line).collect()
    }

    /// The suffixes of its `search` or `domain` line.
    #[must_use]
    pub fn suffixes(&self) -> Vec<String> {
        let text = self.text();
        let last = text.lines().rev().find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            matches!(words.next(), Some("search" | "domain")).then(|| words.map(Into::into).collect())
        });
        last.unwrap_or_default()
    }

    /// Names with fewer dots get the suffixes first: the last `options ndots`, 1 where there is none, 15 at most.
    #[must_use]
    pub fn ndots(&self) -> u32 {
        let text = self.text();
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("options")).then_some(words)
        });
        let mut set = lines.flatten().filter_map(|option| option.strip_prefix("ndots:")?.parse::<u32>().ok());
        set.next_back().unwrap_or(1).min(15)
    }

    /// The longest line that musl does not read, in octets.
    #[must_use]
    pub fn overlong_line(&self) -> Option<usize> {
        self.resolv_conf.lines().map(str::len).filter(|&length| length >= MUSL_LINE).max()
    }

    fn lines_read(&self) -> impl Iterator<Item = &str> {
        let musl = self.libc == Libc::Musl;
        self.resolv_conf.lines().filter(move |line| !musl || line.len() < MUSL_LINE)
    }
}

/// musl reads lines into 256 octets, with the end of the line and a zero, and leaves out what does not fit
/// (`__get_resolv_conf`, src/network/resolvconf.c).
const MUSL_LINE: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(libc: Libc) -> Resolver {
        let long = "x".repeat(100);
        Resolver {
            libc,
            resolv_conf: format!(
                "# by hand\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver x\nsearch a.example {long} {long} {long}\n"
            ),
            environment: "search b.example\noptions ndots:2\n".into(),
            ..Resolver::default()
        }
    }

    #[test]
    fn each_libc_reads_its_own_way() {
        let glibc = resolver(Libc::Glibc);
        assert_eq!(glibc.suffixes(), ["b.example"]);
        assert_eq!(glibc.nameservers().len(), 2);
        let musl = resolver(Libc::Musl);
        assert!(musl.suffixes().is_empty());
        assert_eq!(musl.overlong_line(), Some(319));
        assert_eq!(Resolver::default().overlong_line(), None);
    }

    #[test]
    fn ndots_is_the_last_one_set() {
        let mut glibc = resolver(Libc::Glibc);
        for (resolv_conf, environment, expected) in [
            ("search a\n", "", 1),
            ("options ndots:5 edns0\n", "", 5),
            ("options ndots:5\noptions use-vc ndots:2\n", "", 2),
            ("options ndots:5\n", "options ndots:3", 3),
            ("options ndots:99\noptions ndots:x\n", "", 15),
        ] {
            (glibc.resolv_conf, glibc.environment) = (resolv_conf.into(), environment.into());
            assert_eq!(glibc.ndots(), expected, "{resolv_conf:?} {environment:?}");
        }
    }
}
