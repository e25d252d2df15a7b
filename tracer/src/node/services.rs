//! What kube-proxy made of the services, by whichever of its modes: by rules of iptables (`rules`), of nftables (`nft`),
//! or by IPVS (`ipvs`).

use super::{ipvs::Ipvs, nft::Nft, rules::Rules};
use crate::model::{Service, Services};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
};

/// Service addresses that are remembered.
const MOST: usize = 65_536;

/// A service as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// `NAMESPACE/NAME:PORT`; empty where nothing tells.
    pub(super) name: String,
    /// Over UDP.
    pub(super) udp: bool,
    /// What packets to it are sent to; none: they are rejected.
    pub(super) backends: BTreeSet<SocketAddr>,
}

impl Found {
    pub(super) fn unnamed(udp: bool) -> Self {
        Self { udp, ..Self::default() }
    }
}

/// Services by their address.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<SocketAddr, Found>);

impl Table {
    /// Enters a service, if there is room; whether that is what the table has now. TCP and UDP share an address: UDP is
    /// what DNS asks first.
    pub(super) fn add(&mut self, address: SocketAddr, service: Found) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&address) {
            return false;
        }
        let is_better = self.0.get(&address).is_none_or(|known| service.udp && !known.udp);
        if is_better {
            self.0.insert(address, service);
        }
        is_better
    }

    /// Adds a backend to a service that is there.
    pub(super) fn add_backend(&mut self, service: SocketAddr, backend: SocketAddr) {
        if let Some(found) = self.0.get_mut(&service)
            && found.backends.len() < Service::MOST_BACKENDS
        {
            found.backends.insert(backend);
        }
    }

    /// Takes those of another table whose addresses are new here, or that have backends where none are known here.
    fn merge(&mut self, other: &Self) {
        for (address, found) in &other.0 {
            if self
                .0
                .get(address)
                .is_some_and(|known| known.backends.is_empty() && !found.backends.is_empty())
            {
                self.0.remove(address);
            }
            if !self.0.contains_key(address) {
                self.add(*address, found.clone());
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> Vec<String> {
        let shown = |(address, found): (&SocketAddr, &Found)| {
            let backends: Vec<String> = found.backends.iter().map(ToString::to_string).collect();
            let words = [
                address.to_string(),
                if found.udp { "udp".into() } else { String::new() },
                found.name.clone(),
            ];
            let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
            format!("{} : {}", words.join(" "), backends.join(" "))
        };
        self.0.iter().map(shown).collect()
    }
}

/// kube-proxy's work in one namespace.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    /// The modes whose traces are here: one, or another one's left-overs beside it.
    pub(super) modes: Vec<&'static str>,
    /// All services.
    pub(super) services: Table,
    /// Entries of its tables that could not be read.
    pub(super) broken: u64,
    /// Why nftables could not be asked.
    pub(super) unread: Option<io::Error>,
}

impl Proxy {
    /// Looks at the calling thread's network namespace; its iptables rules were listed before, if they could be.
    pub(super) fn look(rules: Option<&Rules>) -> Self {
        let (nft, unread) = match Nft::list() {
            Ok(nft) => (nft, None),
            Err(error) => (Nft::default(), Some(error)),
        };
        Self::of(rules, &nft, &Ipvs::list(), unread)
    }

    fn of(rules: Option<&Rules>, nft: &Nft, ipvs: &Ipvs, unread: Option<io::Error>) -> Self {
        let mut proxy = Self { broken: nft.broken + ipvs.broken, unread, ..Self::default() };
        if ipvs.is_in_use() {
            proxy.modes.push("IPVS");
            proxy.services.merge(&ipvs.services);
        }
        if nft.is_there {
            proxy.modes.push("nftables");
            proxy.services.merge(&nft.services);
        }
        if let Some(rules) = rules {
            // In IPVS mode it has some rules of iptables beside.
            if rules.kube_proxy && !ipvs.is_in_use() {
                proxy.modes.push("iptables");
            }
            proxy.services.merge(&rules.services);
        }
        proxy
    }

    /// Whether packets reach backends by netfilter's translation.
    pub(super) fn translates(&self) -> bool {
        self.modes.iter().any(|mode| *mode != "IPVS")
    }

    /// Backends of all services.
    pub(super) fn endpoints(&self) -> usize {
        self.services.0.values().map(|service| service.backends.len()).sum()
    }

    /// The services for a session, those of DNS before all others where there are too many.
    pub(super) fn told(&self) -> Vec<Service> {
        let is_dns = |address: &SocketAddr| address.port() == 53;
        let all = &self.services.0;
        let first = all.iter().filter(|(address, _)| is_dns(address));
        let others = all.iter().filter(|(address, _)| !is_dns(address));
        let service = |(address, found): (&SocketAddr, &Found)| Service {
            address: *address,
            name: found.name.clone(),
            backends: found.backends.clone(),
        };
        first.chain(others).take(Services::MOST).map(service).collect()
    }

    /// The cluster's DNS: the service `kube-dns`, as CoreDNS's is called too; else every service on port 53.
    pub(super) fn dns(&self) -> Vec<(SocketAddr, &Found)> {
        let on_port = self.services.0.iter().filter(|(at, _)| at.port() == 53);
        let mut dns: Vec<_> = on_port.map(|(at, service)| (*at, service)).collect();
        let is_known = |service: &Found| {
            let name = service.name.strip_prefix("kube-system/kube-dns");
            name.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        if dns.iter().any(|(_, service)| is_known(service)) {
            dns.retain(|(_, service)| is_known(service));
        }
        dns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(services: &[(&str, &str, &[&str])]) -> Table {
        let mut table = Table::default();
        for (address, name, backends) in services {
            let address = address.parse().unwrap();
            table.add(address, Found { name: (*name).into(), ..Found::unnamed(true) });
            backends.iter().for_each(|backend| table.add_backend(address, backend.parse().unwrap()));
        }
        table
    }

    fn rules(listing: &str) -> Rules {
        let mut rules = Rules::default();
        rules.parse(listing.as_bytes()).unwrap();
        rules.join();
        rules
    }

    #[test]
    fn the_mode_is_told_by_what_is_there() {
        let rules = || rules("-A KUBE-SERVICES -m comment --comment \"nodeports\" -j KUBE-NODEPORTS\n");
        let nft = Nft { is_there: true, ..Nft::default() };
        let ipvs = Ipvs::parse("head\nhead\nhead\nUDP  0A60000A:0035 rr\n  -> 0AF40002:0035 Masq 1 0 0\n");
        let modes = |rules: Option<&Rules>, nft: &Nft, ipvs: &Ipvs| Proxy::of(rules, nft, ipvs, None).modes;
        let none = (Nft::default(), Ipvs::default());
        assert!(modes(None, &none.0, &none.1).is_empty());
        assert!(modes(Some(&Rules::default()), &none.0, &none.1).is_empty());
        assert_eq!(modes(Some(&rules()), &none.0, &none.1), ["iptables"]);
        assert_eq!(modes(Some(&rules()), &none.0, &ipvs), ["IPVS"], "it has a few rules beside");
        assert_eq!(modes(Some(&rules()), &nft, &none.1), ["nftables", "iptables"], "left over");
        assert_eq!(modes(None, &nft, &none.1), ["nftables"]);
        assert!(!Proxy::of(None, &none.0, &ipvs, None).translates());
        assert!(Proxy::of(None, &nft, &none.1, None).translates());
    }

    #[test]
    fn who_knows_backends_or_a_name_comes_before_who_does_not() {
        let nft = Nft {
            is_there: true,
            services: table(&[("10.96.0.10:53", "kube-system/kube-dns:dns", &["10.244.0.2:53"])]),
            ..Nft::default()
        };
        let rejected = |address: &str, name: &str| {
            let to = format!("-d {address}/32 -p udp -m udp --dport 53");
            format!("-A KUBE-SERVICES {to} -m comment --comment \"{name} has no endpoints\" -j REJECT\n")
        };
        let rules = rules(&(rejected("10.96.0.10", "old/dns:dns") + &rejected("10.96.0.11", "a/b:dns")));
        let proxy = Proxy::of(Some(&rules), &nft, &Ipvs::default(), None);
        assert_eq!(
            proxy.services.shown(),
            ["10.96.0.10:53 udp kube-system/kube-dns:dns : 10.244.0.2:53", "10.96.0.11:53 udp a/b:dns : "]
        );
        assert_eq!((proxy.endpoints(), proxy.dns().len(), proxy.told().len()), (1, 1, 2));
    }

    #[test]
    fn services_of_dns_are_told_before_all_others() {
        let mut table = Table::default();
        for number in 0..70_000_u32 {
            let port = if number == 60_000 { 53 } else { 80 };
            table.add(SocketAddr::from((number.to_be_bytes(), port)), Found::unnamed(false));
        }
        assert_eq!(table.len(), MOST);
        let proxy = Proxy { services: table, ..Proxy::default() };
        let told = proxy.told();
        assert_eq!((told.len(), told[0].address.port()), (Services::MOST, 53));
    }
}
