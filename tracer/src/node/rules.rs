//! The node's packet rules, as `iptables-save` prints them: how many, how many of them twice, and which services
//! kube-proxy made of them.
//!
//! kube-proxy's chains name what they are for in comments: `-A KUBE-SERVICES -d 10.96.0.10/32 … --comment
//! "kube-system/kube-dns:dns cluster IP" … --dport 53 -j KUBE-SVC-…`, `-A KUBE-SEP-… -j DNAT --to-destination …`, and
//! in the filter table `… --comment "shop/web has no endpoints" … -j REJECT`.

use super::{
    listing::list,
    services::{Found, Table},
};
use crate::model::RuleCount;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher as _, RandomState},
    io::{self, BufRead},
    net::{IpAddr, SocketAddr},
};

/// Rules that are read; a node with 180,000 is in trouble already.
const MOST: u64 = 4_000_000;
/// The chains of kube-proxy's iptables mode; kubelet has some of its own, whatever the mode.
const KUBE_PROXY: [&str; 3] = ["KUBE-SERVICES", "KUBE-SVC-", "KUBE-SEP-"];

/// The chains of services' external addresses.
const EXTERNAL: &str = "KUBE-EXT-";

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
    pub(super) services: Table,
    /// Whether kube-proxy's chains are among them.
    pub(super) kube_proxy: bool,
    /// Where each service's packets go.
    chains: BTreeMap<SocketAddr, String>,
    backends: BTreeMap<String, BTreeSet<SocketAddr>>,
    jumps: BTreeMap<String, BTreeSet<String>>,
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
            list(program, &[], |listing| rules.parse(listing))?;
        }
        rules.join();
        Ok(rules)
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
        if !KUBE_PROXY.iter().any(|chain| rule.starts_with(chain)) && !rule.starts_with(EXTERNAL) {
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
            let is_service = jump.starts_with("KUBE-SVC-") || jump.starts_with(EXTERNAL) || jump == "REJECT";
            if is_service && let Some(name) = comment.split(' ').next() {
                let at = SocketAddr::new(address, port);
                let service = Found { name: name.into(), ..Found::unnamed(rule.contains(" -p udp ")) };
                if self.services.add(at, service) {
                    self.chains.insert(at, jump.into());
                }
            }
        } else if let Some(to) = after(" --to-destination ").and_then(|to| to.parse().ok()) {
            self.backends.entry(chain.into()).or_default().insert(to);
        } else if let Some(jump) =
            jump.filter(|jump| jump.starts_with("KUBE-SEP-") || jump.starts_with("KUBE-SVC-"))
        {
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
        let direct = |chain: &String| self.jumps.get(chain).into_iter().flatten();
        for (address, chain) in &self.chains {
            // An external address leads to the service's own chain.
            let endpoints = direct(chain).flat_map(|next| std::iter::once(next).chain(direct(next)));
            let all = endpoints.filter_map(|chain| self.backends.get(chain)).flatten();
            // Both families' chains may have one name.
            for backend in all.filter(|backend| backend.is_ipv4() == address.is_ipv4()) {
                self.services.add_backend(*address, *backend);
            }
        }
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
-A KUBE-SERVICES -d 192.0.2.7/32 -p udp -m comment --comment "kube-system/kube-dns:dns loadbalancer IP" -m udp --dport 53 -j KUBE-EXT-TCOU7JCQXEZGVUNU
-A KUBE-EXT-TCOU7JCQXEZGVUNU -m comment --comment "masquerade traffic for kube-system/kube-dns:dns external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-TCOU7JCQXEZGVUNU -j KUBE-SVC-TCOU7JCQXEZGVUNU
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
        assert_eq!((rules.count, rules.duplicates, rules.kube_proxy), (18, 2, true));
        assert_eq!(rules.worst, Some(("-t nat -A INPUT -s 10.0.0.1/32 -j DROP".into(), 3)));
        assert_eq!(
            rules.services.shown(),
            [
                "10.96.0.1:443 default/kubernetes:https : ",
                "10.96.0.10:53 udp kube-system/kube-dns:dns : 10.244.0.2:53 10.244.0.3:53",
                "10.96.0.99:53 udp kube-system/empty:dns : ",
                "192.0.2.7:53 udp kube-system/kube-dns:dns : 10.244.0.2:53 10.244.0.3:53",
            ]
        );
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

    #[test]
    fn what_kubelet_makes_is_not_kube_proxys() {
        let mut rules = Rules::default();
        rules
            .parse(
                &b"-A INPUT -j KUBE-FIREWALL\n-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP\n"[..],
            )
            .unwrap();
        assert!(!rules.kube_proxy);
    }
}
