//! What of this node bears on DNS, for `dnspath check`: looked at from inside a watched network namespace.

use super::{
    links::{Watched, enter},
    roots::{Roots, read_made},
    rules::Rules,
    services::{Found, Proxy},
};
use crate::model::Check;
use serde::Deserialize;
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

/// Where CNI's configuration is; the first by name is used.
const CNI: &str = "/etc/cni/net.d";
const CNI_MAX: u64 = 1 << 20;
/// A number, or a table of a line a CPU.
const SYSCTL_MAX: u64 = 1 << 20;
/// How full a connection table may be, in percent.
const NEARLY_FULL: u64 = 90;
/// How long the cluster's DNS may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at a namespace; with `probe` the cluster's DNS is asked.
#[must_use]
pub fn check(watched: &Watched, roots: &Roots, probe: bool) -> Vec<Check> {
    std::thread::scope(|scope| {
        // A thread of its own: entering a namespace is for good, and a process started here is in it too.
        let looked = scope.spawn(|| {
            if let Err(error) = enter(watched) {
                let hint = "CAP_SYS_ADMIN enters other namespaces; `ip netns` lists those with a name";
                return vec![Check::limited("node", format!("cannot enter {}: {error}", watched.name), hint)];
            }
            let rules = Rules::list();
            let proxy = Proxy::look(rules.as_ref().ok());
            let mut checks = vec![cni(roots), kube_proxy(&proxy, rules.is_ok())];
            checks.extend(bridge(proxy.translates()));
            checks.push(conntrack());
            checks.push(rule_count(&rules));
            checks.extend(cluster_dns(&proxy, probe));
            checks
        });
        looked.join().unwrap_or_default()
    })
}

fn cni(roots: &Roots) -> Check {
    #[derive(Deserialize)]
    struct Network {
        name: String,
        #[serde(default)]
        plugins: Vec<Plugin>,
        #[serde(default, rename = "type")]
        kind: Option<String>,
    }
    #[derive(Deserialize)]
    struct Plugin {
        #[serde(rename = "type")]
        kind: String,
    }
    let is_network = |name: &String| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    let Some(file) = roots.list(CNI, 256).into_iter().find(is_network) else {
        return Check::fine("CNI", format!("none in {CNI}"));
    };
    let path = format!("{CNI}/{file}");
    let network =
        roots.read(&path, CNI_MAX).ok().and_then(|json| serde_json::from_slice::<Network>(&json).ok());
    match network {
        Some(Network { name, plugins, kind }) => {
            let kinds: Vec<String> =
                kind.into_iter().chain(plugins.into_iter().map(|plugin| plugin.kind)).collect();
            Check::fine("CNI", format!("{name}: {} ({path})", kinds.join(", ")))
        }
        None => {
            Check::wrong("CNI", format!("{path} cannot be read"), "new pods get no network: restore the file")
        }
    }
}

fn kube_proxy(proxy: &Proxy, has_rules: bool) -> Check {
    const NAME: &str = "kube-proxy";
    let Proxy { modes, services, broken, unread } = proxy;
    let mut found = format!(
        "{}: {} service addresses, {} endpoints",
        modes.join(" and "),
        services.len(),
        proxy.endpoints()
    );
    if *broken > 0 {
        found.push_str(&format!(", {broken} entries that cannot be read"));
    }
    match (modes.first(), unread) {
        (Some(&"IPVS"), _) => Check::limited(
            NAME,
            found,
            "translation by IPVS is seen by its result alone: which backend was chosen is told by the packets, and \
             services have no names",
        ),
        (Some(_), _) if *broken > 0 => Check::limited(
            NAME,
            found,
            "services made of these are shown by address; this kube-proxy may be newer",
        ),
        (Some(_), _) => Check::fine(NAME, found),
        (None, _) if !has_rules => {
            Check::limited(NAME, "the rules cannot be read", "install iptables where dnspath runs")
        }
        (None, Some(error)) => Check::limited(
            NAME,
            format!("neither iptables nor IPVS; nftables cannot be listed: {error}"),
            "install nft where dnspath runs",
        ),
        (None, None) => Check::fine(NAME, "none: neither iptables, nftables nor IPVS has services of it"),
    }
}

fn number(path: &str) -> Option<u64> {
    String::from_utf8(read_made(Path::new(path), SYSCTL_MAX).ok()?).ok()?.trim().parse().ok()
}

/// `None` where there are no bridges.
fn bridge(by_netfilter: bool) -> Option<Check> {
    match number("/proc/sys/net/bridge/bridge-nf-call-iptables") {
        Some(0) if by_netfilter => Some(Check::wrong(
            "bridge netfilter",
            "bridge-nf-call-iptables is 0, and services are made by packet rules",
            "a pod that asks a service gets the answer from a backend on its own bridge untranslated, and drops it \
             (DP206): sysctl -w net.bridge.bridge-nf-call-iptables=1",
        )),
        Some(value) => Some(Check::fine("bridge netfilter", format!("bridge-nf-call-iptables is {value}"))),
        None => None,
    }
}

fn conntrack() -> Check {
    let (Some(entries), Some(max)) = (
        number("/proc/sys/net/netfilter/nf_conntrack_count"),
        number("/proc/sys/net/netfilter/nf_conntrack_max"),
    ) else {
        return Check::fine("conntrack", "not in use");
    };
    let table =
        read_made(Path::new("/proc/thread-self/net/stat/nf_conntrack"), SYSCTL_MAX).unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    let counters = counters(&table);
    let counted: Vec<String> = counters
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let counted = if counted.is_empty() {
        "nothing lost".into()
    } else {
        format!("since the start {}", counted.join(", "))
    };
    let found = format!("{entries} of {max} connections; {counted}");
    if max > 0 && entries.saturating_mul(100) >= max.saturating_mul(NEARLY_FULL) {
        let hint = "when the table is full, packets of new connections are dropped, DNS first (DP302): raise \
                    net.netfilter.nf_conntrack_max, or look who opens so many";
        return Check::wrong("conntrack", found, hint);
    }
    Check::fine("conntrack", found)
}

/// What cost packets, all CPUs together: a line of names, then a line of hexadecimal numbers for each CPU.
fn counters(table: &str) -> Vec<(&str, u64)> {
    const TELLING: [&str; 4] = ["insert_failed", "drop", "early_drop", "clash_resolve"];
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let mut sums = vec![0_u64; names.len()];
    for line in lines {
        for (sum, number) in sums.iter_mut().zip(line.split_ascii_whitespace()) {
            *sum = sum.saturating_add(u64::from_str_radix(number, 16).unwrap_or(0));
        }
    }
    names.into_iter().zip(sums).filter(|(name, _)| TELLING.contains(name)).collect()
}

fn rule_count(rules: &io::Result<Rules>) -> Check {
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => {
            return Check::limited(
                "rules",
                format!("cannot be listed: {error}"),
                "install iptables where dnspath runs: rules are counted by iptables-nft-save and iptables-legacy-save",
            );
        }
    };
    let counted = rules.counted("");
    match counted.advice() {
        Some(advice) => Check::wrong("rules", counted.shown(), &format!("DP502: {advice}")),
        None => Check::fine("rules", counted.shown()),
    }
}

fn cluster_dns(proxy: &Proxy, probe: bool) -> Vec<Check> {
    const NAME: &str = "cluster DNS";
    let dns = proxy.dns();
    let check = |(at, service): &(SocketAddr, &Found)| {
        let count = service.backends.len();
        let name = if service.name.is_empty() { "a service" } else { &service.name };
        let found = format!("{name} at {at}, {count} endpoint{}", if count == 1 { "" } else { "s" });
        if count == 0 {
            let hint = "DP202: every query to it is rejected; see that its pods run and are ready";
            return Check::wrong(NAME, found, hint);
        }
        if !probe {
            return Check::fine(NAME, format!("{found} (--probe asks it)"));
        }
        match ask(*at) {
            Ok(()) => Check::fine(NAME, format!("{found}; answers")),
            Err(error) => Check::wrong(
                NAME,
                format!("{found}; does not answer: {error}"),
                "see `dnspath report --duration 1m` for where its packets are lost",
            ),
        }
    };
    // IPv4 and IPv6 addresses of the service, and few others.
    dns.iter().take(8).map(check).collect()
}

/// Asks for the root's nameservers: any server answers that, with something.
fn ask(server: SocketAddr) -> io::Result<()> {
    const QUERY: [u8; 17] = [0xd5, 0x9a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let any: IpAddr = if server.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&QUERY)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    if length >= 12 && answer[..2] == QUERY[..2] && answer[2] & 0x80 != 0 {
        return Ok(());
    }
    Err(io::Error::other("what came is no answer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Verdict;

    fn rules(listing: &str) -> io::Result<Rules> {
        let mut rules = Rules::default();
        rules.parse(listing.as_bytes())?;
        rules.join();
        Ok(rules)
    }

    #[test]
    fn planted_rules_are_named() {
        let same = "*nat\n".to_owned() + &"-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\n".repeat(20_000);
        let check = rule_count(&rules(&same));
        assert_eq!(check.verdict, Verdict::Wrong);
        assert!(
            check.found.contains("20000 rules, 19999 of them duplicates; 20000 times"),
            "{}",
            check.found
        );
        assert_eq!(rule_count(&rules("-A INPUT -j ACCEPT\n")).verdict, Verdict::Fine);
        assert_eq!(rule_count(&Err(io::Error::other("x"))).verdict, Verdict::Limited);
    }

    #[test]
    fn a_service_without_endpoints_is_named() {
        let listing = "-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment \"kube-system/kube-dns:dns has no endpoints\" -m udp --dport 53 -j REJECT\n";
        let rules = rules(listing).unwrap();
        let proxy = Proxy { services: rules.services, ..Proxy::default() };
        let checks = cluster_dns(&proxy, false);
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].verdict, Verdict::Wrong);
        assert_eq!(checks[0].found, "kube-system/kube-dns:dns at 10.96.0.10:53, 0 endpoints");
    }

    #[test]
    fn counters_of_all_cpus() {
        let table = "entries  found insert_failed drop early_drop clash_resolve\n0a 00 02 01 00 10\n0a 00 03 00 00 00\n";
        assert_eq!(
            counters(table),
            [("insert_failed", 5), ("drop", 1), ("early_drop", 0), ("clash_resolve", 16)]
        );
        assert!(counters("").is_empty());
    }

    #[test]
    fn the_mode_of_kube_proxy_is_told() {
        let told = |modes: &[&'static str], broken, unread: Option<io::Error>| {
            let check =
                kube_proxy(&Proxy { modes: modes.to_vec(), broken, unread, ..Proxy::default() }, true);
            (check.verdict, check.found)
        };
        let missing = || Some(io::Error::other("nft: not found"));
        assert_eq!(
            told(&["iptables"], 0, missing()),
            (Verdict::Fine, "iptables: 0 service addresses, 0 endpoints".into())
        );
        assert_eq!(told(&["nftables", "iptables"], 0, None).0, Verdict::Fine);
        assert_eq!(told(&["nftables"], 3, None).0, Verdict::Limited);
        assert_eq!(told(&["IPVS"], 0, None).0, Verdict::Limited);
        assert_eq!(told(&[], 0, None).0, Verdict::Fine);
        let (verdict, found) = told(&[], 0, missing());
        assert!(
            verdict == Verdict::Limited && found.ends_with("cannot be listed: nft: not found"),
            "{found}"
        );
        assert_eq!(kube_proxy(&Proxy::default(), false).verdict, Verdict::Limited);
    }
}
