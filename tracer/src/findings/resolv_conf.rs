//! DP501 resolv-conf: a container's resolv.conf that makes lookups fail or cost more than they must.
//!
//! `count` is the containers. Fires for a pod when
//! - error: a nameserver is a loopback address, and the pod is itself a DNS server that others ask: it forwards to
//!   itself (the CoreDNS loop, by a node's 127.0.0.53 that is taken over). Or nobody in the pod listens there.
//! - error: a line has 255 octets or more and the container is linked with musl, which leaves it out; info, where it is
//!   linked with glibc, which reads it.
//! - warning: it searches the cluster's domains but asks none of the nameservers that most such pods ask.
//! - warning: the search list has more than six suffixes: every name that is not found costs two queries for each.
//! - its ndots does not fit the names really asked: see `ndots`.
//!
//! Looks alike and does not fire: a loopback nameserver with a server behind it in the same pod (a sidecar's cache);
//! Docker's 127.0.0.11 outside of Kubernetes; a link-local nameserver (NodeLocal DNSCache); a pod that takes the
//! node's resolv.conf as it is (`dnsPolicy: Default`), whose search list has no cluster domain.

use super::{
    Confidence, Finding, Severity,
    groups::{Code, Tally},
    ndots::Ndots,
};
use crate::{
    model::{Libc, Lookup, Question, Resolver, Timestamp},
    stats::Table,
};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

const CODE: Code = Code { code: "DP501", name: "resolv-conf" };
/// Suffixes that the older glibc took, and more than any cluster needs.
const MANY_SUFFIXES: usize = 6;
/// Containers that are remembered.
const MOST: usize = 8_192;
/// Servers that are remembered.
const MOST_SERVERS: usize = 1_024;
/// So many pods must agree on a nameserver before another one is odd.
const MAJORITY: usize = 3;

/// The rule's state: the resolvers as they are now.
#[derive(Debug, Default)]
pub(super) struct ResolvConf {
    resolvers: BTreeMap<(String, String), (Timestamp, Resolver)>,
    servers: Table<IpAddr, ()>,
    ndots: Ndots,
}

impl ResolvConf {
    /// Takes what was read of a container at `time`, in place of what was read before.
    pub(super) fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        let key = (resolver.pod.to_string(), resolver.container.clone());
        if self.resolvers.len() < MOST || self.resolvers.contains_key(&key) {
            self.resolvers.insert(key, (time, resolver.clone()));
        }
    }

    /// Who answers questions is a server.
    pub(super) fn question(&mut self, question: &Question) {
        for sent in question.transmissions.iter().filter(|sent| sent.answered_by.is_some()) {
            let server = sent.backend.unwrap_or(sent.server).ip();
            self.servers.entry(server, MOST_SERVERS);
        }
    }

    /// What a client asked is held against its ndots.
    pub(super) fn lookup(&mut self, lookup: &Lookup) {
        self.ndots.lookup(lookup);
    }

    /// What is wrong now, the same fault of a pod's containers told once.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let usual = self.usual();
        let mut findings: BTreeMap<(String, String), (Tally, Fault)> = BTreeMap::new();
        for (time, resolver) in self.resolvers.values() {
            for fault in self.faults(resolver, &usual) {
                let key = (resolver.pod.to_string(), fault.what.clone());
                findings.entry(key).or_insert_with(|| (Tally::default(), fault)).0.add(1, *time, []);
            }
        }
        let finding = |((pod, _), (tally, fault)): ((String, String), (Tally, Fault))| {
            let mut finding = tally.finding(CODE, fault.severity, Confidence::High);
            finding.subject =
                vec![("pod", pod.clone()), ("file", "/etc/resolv.conf".into()), ("fault", fault.kind.into())];
            finding.summary = format!("the resolv.conf of {pod} {}", fault.what);
            finding.advice = fault.advice.into();
            finding
        };
        let mut by_time: Vec<&(Timestamp, Resolver)> = self.resolvers.values().collect();
        by_time.sort_by_key(|(time, _)| *time);
        let resolvers: Vec<&Resolver> = by_time.into_iter().map(|(_, resolver)| resolver).collect();
        let mut findings: Vec<Finding> = findings.into_iter().map(finding).collect();
        findings.extend(self.ndots.findings(CODE, &resolvers));
        findings
    }

    /// The nameservers that most pods with the cluster's search list ask.
    fn usual(&self) -> Vec<IpAddr> {
        let mut votes: HashMap<IpAddr, usize> = HashMap::new();
        let cluster = self.resolvers.values().filter(|(_, resolver)| searches_cluster(resolver));
        let mut voters = 0;
        for (_, resolver) in cluster {
            voters += 1;
            for server in resolver.nameservers().into_iter().filter(|server| !server.is_loopback()) {
                *votes.entry(server).or_default() += 1;
            }
        }
        let usual = votes.into_iter().filter(|(_, count)| *count >= MAJORITY && *count * 2 > voters);
        usual.map(|(server, _)| server).collect()
    }

    fn faults(&self, resolver: &Resolver, usual: &[IpAddr]) -> Vec<Fault> {
        let mut faults = Vec::new();
        let nameservers = resolver.nameservers();
        let is_pod = !resolver.pod.namespace.is_empty();
        let is_server = resolver.addresses.iter().any(|address| self.servers.get(address).is_some());
        if let Some(loopback) = nameservers.iter().find(|server| server.is_loopback()) {
            if is_server && resolver.has_server {
                faults.push(Fault {
                    kind: "loop",
                    severity: Severity::Error,
                    what: format!("sends the server's own queries to {loopback}, which is the server itself"),
                    advice: "It took over the node's file, where a stub resolver listens on loopback: let the kubelet use \
                             /run/systemd/resolve/resolv.conf (--resolv-conf), or name the upstream in the Corefile's \
                             forward.",
                });
            } else if is_pod && !resolver.has_server {
                faults.push(Fault {
                    kind: "loopback",
                    severity: Severity::Error,
                    what: format!("has the nameserver {loopback}, and nobody in the pod listens on port 53"),
                    advice: "It took over the node's file, where a stub resolver listens on loopback: let the kubelet use \
                             /run/systemd/resolve/resolv.conf (--resolv-conf), or set the pod's dnsPolicy to \
                             ClusterFirst.",
                });
            }
        }
        if let Some(length) = resolver.overlong_line() {
            let ignored = resolver.libc == Libc::Musl;
            faults.push(Fault {
                kind: "overlong-line",
                severity: if ignored { Severity::Error } else { Severity::Info },
                what: match resolver.libc {
                    Libc::Musl => format!("has a line of {length} octets: musl leaves out lines of 255 and more"),
                    Libc::Glibc | Libc::Unknown => {
                        format!("has a line of {length} octets, which a container linked with musl would leave out")
                    }
                },
                advice: "Shorten the search list: fewer search domains on the node or in dnsConfig, or full names with a \
                         dot at their end.",
            });
        }
        let asks_usual = nameservers.iter().any(|server| usual.contains(server) || is_near(*server));
        if searches_cluster(resolver) && !usual.is_empty() && !asks_usual {
            let list = |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            faults.push(Fault {
                kind: "nameserver",
                severity: Severity::Warning,
                what: format!(
                    "searches the cluster's domains at {}; the other pods ask {}",
                    if nameservers.is_empty() { "no nameserver at all".into() } else { list(&nameservers) },
                    list(usual)
                ),
                advice: "Compare the pod's dnsPolicy and dnsConfig with the cluster's DNS service; a pod of an old \
                         service address must be made anew.",
            });
        }
        let suffixes = resolver.suffixes().len();
        if suffixes > MANY_SUFFIXES {
            faults.push(Fault {
                kind: "suffixes",
                severity: Severity::Warning,
                what: format!("has {suffixes} search suffixes: a name that is not found costs up to {} queries", 2 * suffixes + 2),
                advice: "Take suffixes away (the node's own search line is added to the cluster's three), or lower ndots.",
            });
        }
        faults
    }
}

struct Fault {
    kind: &'static str,
    severity: Severity,
    what: String,
    advice: &'static str,
}

/// `dnsPolicy: ClusterFirst` searches `NAMESPACE.svc.DOMAIN` first.
fn searches_cluster(resolver: &Resolver) -> bool {
    resolver.suffixes().iter().any(|suffix| suffix.starts_with("svc.") || suffix.contains(".svc."))
}

/// In the pod itself, or on its node.
fn is_near(server: IpAddr) -> bool {
    match server {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{ask, at};
    use crate::model::{PodName, Rtype};

    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";

    fn resolver(name: &str, resolv_conf: &str) -> Resolver {
        Resolver {
            pod: PodName { namespace: "shop".into(), name: name.into() },
            addresses: vec!["10.244.1.9".parse().unwrap()],
            resolv_conf: resolv_conf.into(),
            ..Resolver::default()
        }
    }

    fn found(resolvers: &[Resolver], servers: &[&str]) -> Vec<String> {
        let mut rule = ResolvConf::default();
        for server in servers {
            rule.question(&ask("web", Rtype::A, 1).to(server).address("10.0.0.1").build());
        }
        for resolver in resolvers {
            rule.resolver(resolver, at(1));
        }
        let shown =
            |finding: &Finding| format!("{} {}: {}", finding.severity, finding.count, finding.summary);
        rule.findings().iter().map(shown).collect()
    }

    #[test]
    fn a_loopback_nameserver() {
        let stub = "nameserver 127.0.0.53\n";
        let lonely = found(&[resolver("web", stub)], &[]);
        assert_eq!(
            lonely,
            [
                "error 1: the resolv.conf of shop/web has the nameserver 127.0.0.53, and nobody in the pod listens on port 53"
            ]
        );
        let with_server = Resolver { has_server: true, ..resolver("coredns", stub) };
        let looped = found(std::slice::from_ref(&with_server), &["10.244.1.9"]);
        assert_eq!(
            looped,
            [
                "error 1: the resolv.conf of shop/coredns sends the server's own queries to 127.0.0.53, which is the server itself"
            ]
        );
        // A sidecar's cache, and Docker's own server.
        assert!(found(&[with_server], &["10.244.1.8"]).is_empty());
        let docker = Resolver {
            pod: PodName { namespace: String::new(), name: "kind-worker".into() },
            ..resolver("", "nameserver 127.0.0.11\n")
        };
        assert!(found(&[docker], &[]).is_empty());
    }

    #[test]
    fn an_overlong_line() {
        let text = format!("nameserver 10.96.0.10\nsearch {}\n", "long.example ".repeat(5).trim().repeat(5));
        let musl = Resolver { libc: Libc::Musl, ..resolver("alpine", &text) };
        let glibc = Resolver { libc: Libc::Glibc, ..resolver("debian", &text) };
        let told = found(&[musl, glibc], &[]).join("\n");
        assert!(
            told.contains("error 1: the resolv.conf of shop/alpine has a line of 327 octets: musl"),
            "{told}"
        );
        assert!(
            told.contains("info 1: the resolv.conf of shop/debian has a line of 327 octets, which"),
            "{told}"
        );
    }

    #[test]
    fn another_nameserver_than_the_others() {
        let mut all: Vec<Resolver> = (0..5).map(|n| resolver(&format!("web-{n}"), CLUSTER)).collect();
        assert!(found(&all, &[]).is_empty());
        all.push(resolver("old", &CLUSTER.replace("10.96.0.10", "10.0.0.10")));
        all.push(resolver("cached", &CLUSTER.replace("10.96.0.10", "169.254.20.10")));
        all.push(resolver("host", "nameserver 192.0.2.1\nsearch corp.example\n"));
        assert_eq!(
            found(&all, &[]),
            [
                "warning 1: the resolv.conf of shop/old searches the cluster's domains at 10.0.0.10; the other pods ask 10.96.0.10"
            ]
        );
    }

    #[test]
    fn too_many_suffixes() {
        let text = format!("nameserver 10.96.0.10\nsearch {}\n", "a.example ".repeat(7));
        let side = Resolver { container: "sidecar".into(), ..resolver("web", &text) };
        assert_eq!(
            found(&[resolver("web", &text), side], &[]),
            [
                "warning 2: the resolv.conf of shop/web has 7 search suffixes: a name that is not found costs up to 16 queries"
            ]
        );
    }
}
