//! What a kernel does when two packets of one new connection reach conntrack at the same time.
//!
//! The rule is in `nf_ct_resolve_clash` (`net/netfilter/nf_conntrack_core.c`) and was widened over the years. A
//! distribution may have taken a change into an older version: what was counted says more than the version.

use crate::model::Transport;

/// A kernel's version, as far as the rule depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// 6 of 6.18.
    pub major: u32,
    /// 18 of 6.18.
    pub minor: u32,
}

impl KernelVersion {
    /// Reads the start of a release such as `6.18.5-cloud-amd64`; `None` where it does not start like that.
    #[must_use]
    pub fn from_release(release: &str) -> Option<Self> {
        let mut parts = release.split(['.', '-', '+', '_']);
        Some(Self { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }
}

/// What this version does with such a clash, as a sentence's end.
#[must_use]
pub fn clash_rule(version: KernelVersion, transport: Transport) -> &'static str {
    let since = |major, minor| version >= KernelVersion { major, minor };
    match transport {
        Transport::Tcp => "drops the second packet of every TCP clash",
        Transport::Udp if since(6, 12) => {
            "resolves UDP clashes to the same or another backend and those between the two directions; it still drops \
             where another client's connection holds the reply tuple (two pods masqueraded to one port)"
        }
        Transport::Udp if since(5, 10) => {
            "resolves UDP clashes to the same or another backend; it still drops where another client's connection \
             holds the reply tuple (two pods masqueraded to one port), or the first is about to go"
        }
        Transport::Udp if since(5, 5) => {
            "resolves UDP clashes to the same backend; those to another backend it drops or resolves, by what was \
             backported"
        }
        Transport::Udp if since(5, 0) => {
            "resolves UDP clashes to the same backend; where the two queries were given different backends, the \
             second is dropped"
        }
        Transport::Udp => "drops the second packet of every clash behind a service address (NAT)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_gives_its_version() {
        let version = |release| KernelVersion::from_release(release).map(|v| (v.major, v.minor));
        assert_eq!(version("6.18.5-cloud-amd64"), Some((6, 18)));
        assert_eq!(version("6.18+deb13-amd64"), Some((6, 18)));
        assert_eq!(version("4.15.0-213-generic"), Some((4, 15)));
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn newer_kernels_lose_less() {
        let rule = |major, minor| clash_rule(KernelVersion { major, minor }, Transport::Udp);
        assert!(rule(4, 15).contains("every clash"));
        assert!(rule(5, 4).contains("different backends"));
        assert_eq!(rule(5, 10), rule(6, 1));
        assert!(rule(6, 12).contains("two directions"));
        assert_eq!(rule(6, 12), rule(7, 2));
        assert!(clash_rule(KernelVersion { major: 6, minor: 18 }, Transport::Tcp).contains("every TCP"));
    }
}
