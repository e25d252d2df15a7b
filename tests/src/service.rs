//! kube-proxy's work: the iptables rules of services, in the shape that its iptables mode writes.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::topology::{NODE_LOCAL, POD_CIDR4, POD_CIDR6};

/// A DNS service: one address a family, the pods behind it.
#[derive(Clone, Debug)]
pub struct Service {
    /// `NAMESPACE/NAME`, as in the rules' comments.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its endpoints, IPv4 and IPv6. None of a family: what is sent to the address of that family is rejected.
    pub endpoints: Vec<IpAddr>,
}

/// Which program the rules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn host_bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn socket(self, address: &IpAddr) -> String {
        match self {
            Self::V4 => format!("{address}:53"),
            Self::V6 => format!("[{address}]:53"),
        }
    }

    /// The name of its `iptables-restore`.
    pub(crate) fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }
}

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];

/// The whole rule set of a node, as input for `iptables-restore`; it replaces what was there.
pub(crate) fn rules(family: IpFamily, services: &[Service]) -> String {
    let pods = match family {
        IpFamily::V4 => POD_CIDR4,
        IpFamily::V6 => POD_CIDR6,
    };
    let mut nat = Table::new();
    let mut filter = Table::new();
    for chain in ["KUBE-SERVICES", "KUBE-MARK-MASQ", "KUBE-POSTROUTING"] {
        nat.chain(chain);
    }
    let portal = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    nat.rule(&format!("PREROUTING {portal}"));
    nat.rule(&format!("OUTPUT {portal}"));
    nat.rule("POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING");
    nat.rule(&format!(
        "POSTROUTING -s {pods} ! -d {pods} -m comment --comment \"pods beyond the cluster\" -j MASQUERADE"
    ));
    nat.rule("KUBE-MARK-MASQ -j MARK --or-mark 0x4000");
    nat.rule("KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN");
    nat.rule("KUBE-POSTROUTING -j MARK --xor-mark 0x4000");
    nat.rule(
        "KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
    );
    for chain in ["KUBE-SERVICES", "KUBE-FORWARD"] {
        filter.chain(chain);
    }
    for chain in ["FORWARD", "OUTPUT"] {
        filter.rule(&format!(
            "{chain} -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"
        ));
    }
    filter.rule("FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD");
    filter.rule("KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP");
    filter.rule("KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT");
    filter.rule("KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    for (number, service) in services.iter().enumerate() {
        for address in service.addresses.iter().filter(|address| family.has(address)) {
            for protocol in PROTOCOLS {
                add_service(&mut nat, &mut filter, family, (number, service), (address, protocol), pods);
            }
        }
    }
    // A node-local server is reached without conntrack.
    let mut raw = Table::new();
    if family == IpFamily::V4 {
        for protocol in PROTOCOLS {
            raw.rule(&format!("PREROUTING -d {NODE_LOCAL} -p {protocol} --dport 53 -j CT --notrack"));
            raw.rule(&format!("OUTPUT -d {NODE_LOCAL} -p {protocol} --dport 53 -j CT --notrack"));
            raw.rule(&format!("OUTPUT -s {NODE_LOCAL} -p {protocol} --sport 53 -j CT --notrack"));
        }
    }
    format!("{}{}{}", raw.text("raw"), nat.text("nat"), filter.text("filter"))
}

fn add_service(
    nat: &mut Table,
    filter: &mut Table,
    family: IpFamily,
    (number, service): (usize, &Service),
    (address, protocol): (&IpAddr, &str),
    pods: &str,
) {
    let port_name = if protocol == "udp" { "dns" } else { "dns-tcp" };
    let name = format!("{}:{port_name}", service.name);
    let bits = family.host_bits();
    let to_service = format!("-d {address}/{bits} -p {protocol} -m {protocol} --dport 53");
    let endpoints: Vec<_> = service.endpoints.iter().filter(|endpoint| family.has(endpoint)).collect();
    if endpoints.is_empty() {
        let reject = match family {
            IpFamily::V4 => "icmp-port-unreachable",
            IpFamily::V6 => "icmp6-port-unreachable",
        };
        filter.rule(&format!(
            "KUBE-SERVICES {to_service} -m comment --comment \"{name} has no endpoints\" -j REJECT --reject-with {reject}"
        ));
        return;
    }
    let svc = format!("KUBE-SVC-{number}{}", protocol.to_uppercase());
    nat.chain(&svc);
    nat.rule(&format!("KUBE-SERVICES {to_service} -m comment --comment \"{name} cluster IP\" -j {svc}"));
    nat.rule(&format!(
        "{svc} ! -s {pods} {to_service} -m comment --comment \"{name} cluster IP\" -j KUBE-MARK-MASQ"
    ));
    for (place, endpoint) in endpoints.iter().enumerate() {
        let sep = format!("KUBE-SEP-{number}{}{place}", protocol.to_uppercase());
        let target = family.socket(endpoint);
        let left = endpoints.len() - place;
        let chance = if left > 1 {
            format!(" -m statistic --mode random --probability {:.11}", 1.0 / left as f64)
        } else {
            String::new()
        };
        nat.chain(&sep);
        nat.rule(&format!("{svc} -m comment --comment \"{name} -> {target}\"{chance} -j {sep}"));
        nat.rule(&format!("{sep} -s {endpoint}/{bits} -m comment --comment \"{name}\" -j KUBE-MARK-MASQ"));
        nat.rule(&format!(
            "{sep} -p {protocol} -m comment --comment \"{name}\" -m {protocol} -j DNAT --to-destination {target}"
        ));
    }
}

/// One table of a rule set: its own chains first, then the rules in their order.
struct Table {
    chains: String,
    rules: String,
}

impl Table {
    fn new() -> Self {
        Self { chains: String::new(), rules: String::new() }
    }

    fn chain(&mut self, name: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.chains, ":{name} - [0:0]");
    }

    fn rule(&mut self, rule: &str) {
        let _ = writeln!(self.rules, "-A {rule}");
    }

    fn text(&self, table: &str) -> String {
        format!("*{table}\n{}{}COMMIT\n", self.chains, self.rules)
    }
}
