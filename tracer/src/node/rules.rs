//! The node's packet rules, as `iptables-save` prints them: how many, how many of them twice, and which services
//! kube-proxy made of them.
//!
//! kube-proxy's chains name what they are for in comments: `-A KUBE-SERVICES -d 10.96.0.10/32 … --comment
//! "kube-system/kube-dns:dns cluster IP" … --dport 53 -j KUBE-SVC-…`, `-A KUBE-SEP-… -j DNAT --to-destination …`, and
//! in the filter table `… --comment "shop/web has no endpoints" … -j REJECT`.

use crate::model::RuleCount;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher as _, RandomState},
    io::{self, BufRead, BufReader, Read as _},
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Rules that are read; a node with 180,000 is in trouble already.
const MOST: u64 = 4_000_000;
/// Octets that are read.
const MOST_OCTETS: u64 = 1 << 30;
/// A pipe holds as much.
const BUFFER: usize = 64 << 10;
/// How long a listing may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Services that are remembered.
const MOST_SERVICES: usize = 65_536;

/// What the rules of one namespace are.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// How many there are.
    pub(super) count: u64,
    /// How many of them say what an earlier one of the same table says.
    pub(super) duplicates: u64,
    /// The rule that is there most often, and how often.
    pub(super) worst: Option<(String, u64)>,
    /// Services by their address.
    pub(super) services: BTreeMap<SocketAddr, Service>,
    /// Whether kube-proxy's chains are among them.
    pub(super) kube_proxy: bool,
    backends: BTreeMap<String, BTreeSet<SocketAddr>>,
    jumps: BTreeMap<String, BTreeSet<String>>,
}

/// A service address as kube-proxy has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Service {
    /// `NAMESPACE/NAME:PORT`.
    pub(super) name: String,
    /// Over UDP.
    pub(super) udp: bool,
    /// What packets to it are sent to; none: they are rejected.
    pub(super) backends: BTreeSet<SocketAddr>,
    chain: String,
}

impl Rules {
    /// Lists the rules of the calling thread's network namespace, both families'.
    ///
    /// # Errors
    /// When no program that lists them is here, or one fails.
    pub(super) fn list() -> io::Result<Self> {
        let mut programs = vec!["iptables-nft-save", "ip6tables-nft-save"];
        // Listing tables that are not there would make them, so these are asked only where there are some.
        let legacy = |names: &str| std::fs::read(names).is_ok_and(|names| !names.is_empty());
        if legacy("/proc/thread-self/net/ip_tables_names") {
            programs.push("iptables-legacy-save");
        }
        if legacy("/proc/thread-self/net/ip6_tables_names") {
            programs.push("ip6tables-legacy-save");
        }
        let mut rules = Self::default();
        for program in programs {
            rules.read(program)?;
        }
        rules.join();
        Ok(rules)
    }

    fn read(&mut self, program: &str) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{program}: {error}"));
        let mut child = Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(named)?;
        let pid = rustix::process::Pid::from_child(&child);
        let (ended, end) = mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let too_long = end.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
            if too_long {
                // It is not waited for yet, so the number is still its own.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            too_long
        });
        let read = child
            .stdout
            .take()
            .map_or(Ok(()), |stdout| self.parse(BufReader::with_capacity(BUFFER, stdout.take(MOST_OCTETS))));
        drop(ended);
        let too_long = watchdog.join().unwrap_or(false);
        let status = child.wait().map_err(named)?;
        read.map_err(named)?;
        if too_long {
            return Err(named(io::Error::other(format!("not done after {} s", LIMIT.as_secs()))));
        }
        if status.success() { Ok(()) } else { Err(named(io::Error::other(status.to_string()))) }
    }

    /// Reads a listing.
    pub(super) fn parse(&mut self, listing: impl BufRead) -> io::Result<()> {
        let hasher = RandomState::new();
        let mut seen: HashMap<u64, u32> = HashMap::new();
        let mut table = String::new();
        for line in listing.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if let Some(rule) = line.strip_prefix("-A ") {
                self.count += 1;
                if self.count > MOST {
                    return Err(io::Error::other(format!("more than {MOST} rules")));
                }
                let times = seen.entry(hasher.hash_one((&table, rule))).or_default();
                *times += 1;
                if *times > 1 {
                    self.duplicates += 1;
                    if self.worst.as_ref().is_none_or(|(_, most)| u64::from(*times) > *most) {
                        self.worst = Some((format!("-t {table} -A {rule}"), u64::from(*times)));
                    }
                }
                self.rule(rule);
            }
        }
        Ok(())
    }

    /// Takes from a rule what it says of services.
    fn rule(&mut self, rule: &str) {
        if !rule.starts_with("KUBE-") || self.services.len() >= MOST_SERVICES {
            return;
        }
        self.kube_proxy = true;
        let chain = rule.split(' ').next().unwrap_or_default();
        let after = |option: &str| {
            let (_, rest) = rule.split_once(option)?;
            rest.split(' ').next()
        };
        let jump = after(" -j ");
        if chain == "KUBE-SERVICES" {
            let Some((_, comment)) = rule.split_once("--comment \"") else { return };
            let comment = comment.split('"').next().unwrap_or_default();
            let address = after(" -d ").and_then(|to| to.split('/').next()?.parse::<IpAddr>().ok());
            let port = after(" --dport ").and_then(|port| port.parse().ok());
            let (Some(address), Some(port), Some(jump)) = (address, port, jump) else { return };
            let is_service =
                jump.starts_with("KUBE-SVC-") || jump.starts_with("KUBE-EXT-") || jump == "REJECT";
            if is_service && let Some(name) = comment.split(' ').next() {
                let service = Service {
                    name: name.into(),
                    udp: rule.contains(" -p udp "),
                    backends: BTreeSet::new(),
                    chain: jump.into(),
                };
                // TCP and UDP share an address: UDP is what DNS asks first.
                let known =
                    self.services.entry(SocketAddr::new(address, port)).or_insert_with(|| service.clone());
                if service.udp {
                    *known = service;
                }
            }
        } else if let Some(to) = after(" --to-destination ").and_then(|to| to.parse().ok()) {
            self.backends.entry(chain.into()).or_default().insert(to);
        } else if let Some(jump) = jump.filter(|jump| jump.starts_with("KUBE-SEP-")) {
            self.jumps.entry(chain.into()).or_default().insert(jump.into());
        }
    }

    /// How many there are, in the namespace that is called so.
    pub(super) fn counted(&self, netns: &str) -> RuleCount {
        RuleCount {
            netns: netns.into(),
            rules: self.count,
            duplicates: self.duplicates,
            worst: self.worst.clone(),
        }
    }

    /// Finds each service's backends.
    pub(super) fn join(&mut self) {
        for (address, service) in &mut self.services {
            let endpoints = self.jumps.get(&service.chain).into_iter().flatten();
            let all = endpoints.filter_map(|chain| self.backends.get(chain)).flatten().copied();
            // Both families' chains may have one name.
            service.backends = all.filter(|backend| backend.is_ipv4() == address.is_ipv4()).collect();
        }
    }

    /// The cluster's DNS: the service `kube-dns`, as CoreDNS's is called too; else every service on port 53.
    pub(super) fn dns(&self) -> Vec<(SocketAddr, &Service)> {
        let on_port = self.services.iter().filter(|(at, _)| at.port() == 53);
        let mut dns: Vec<_> = on_port.map(|(at, service)| (*at, service)).collect();
        let is_known = |service: &Service| service.name.starts_with("kube-system/kube-dns:");
        if dns.iter().any(|(_, service)| is_known(service)) {
            dns.retain(|(_, service)| is_known(service));
        }
        dns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = r#"# Generated by iptables-save
*filter
:INPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -j KUBE-SERVICES
-A INPUT -s 10.0.0.1/32 -j DROP
-A KUBE-SERVICES -d 10.96.0.99/32 -p udp -m comment --comment "kube-system/empty:dns has no endpoints" -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A INPUT -s 10.0.0.1/32 -j DROP
-A INPUT -s 10.0.0.1/32 -j DROP
-A INPUT -s 10.0.0.1/32 -j DROP
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "kube-system/kube-dns:dns cluster IP" -m udp --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "kube-system/kube-dns:dns-tcp cluster IP" -m tcp --dport 53 -j KUBE-SVC-ERIFXISQEP7F7OF4
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SVC-TCOU7JCQXEZGVUNU ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-MARK-MASQ
-A KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment "kube-system/kube-dns:dns -> 10.244.0.2:53" -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
-A KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment "kube-system/kube-dns:dns -> 10.244.0.3:53" -j KUBE-SEP-B
-A KUBE-SEP-A -p udp -m udp -j DNAT --to-destination 10.244.0.2:53
-A KUBE-SEP-B -p udp -m udp -j DNAT --to-destination 10.244.0.3:53
COMMIT
"#;

    #[test]
    fn counts_duplicates_and_services() {
        let mut rules = Rules::default();
        rules.parse(LISTING.as_bytes()).unwrap();
        rules.join();
        assert_eq!((rules.count, rules.duplicates, rules.kube_proxy), (15, 2, true));
        assert_eq!(rules.worst, Some(("-t nat -A INPUT -s 10.0.0.1/32 -j DROP".into(), 3)));
        let dns: Vec<String> = rules
            .dns()
            .iter()
            .map(|(at, service)| format!("{at} {} {:?}", service.name, service.backends))
            .collect();
        assert_eq!(dns, ["10.96.0.10:53 kube-system/kube-dns:dns {10.244.0.2:53, 10.244.0.3:53}"]);
        assert_eq!(rules.services.len(), 3);
    }

    #[test]
    fn many_rules_are_read_and_what_is_none_is_passed_over() {
        let mut rules = Rules::default();
        let many: String = (0..180_000)
            .map(|n| format!("-A KUBE-SERVICES -d 10.{}.{}.1/32 -j X\n", n / 250, n % 250))
            .collect();
        rules.parse(many.as_bytes()).unwrap();
        assert_eq!((rules.count, rules.duplicates), (180_000, 0));
        rules.parse(&b"\xff\xfe\n-A KUBE-SERVICES -d x --comment \"\n*\n-A"[..]).unwrap();
        assert_eq!(rules.count, 180_001);
        assert!(rules.services.is_empty());
    }
}
