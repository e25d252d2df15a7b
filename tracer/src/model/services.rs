//! Which service is at an address, and which backends it has.

use super::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

/// The port that DNS is asked at: where one address is of several services, a name without a port means this one's.
const DNS: u16 = 53;

/// A service's address as kube-proxy has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where clients send to.
    pub address: SocketAddr,
    /// `NAMESPACE/NAME:PORT`, `NAMESPACE/NAME` where its port has no name; empty where nothing here tells (IPVS).
    pub name: String,
    /// What packets to it are sent on to.
    pub backends: BTreeSet<SocketAddr>,
}

impl Service {
    /// Backends of one service that are remembered.
    pub const MOST_BACKENDS: usize = 256;

    /// `NAMESPACE/NAME`, if it has a name that can be shown anywhere: graphic ASCII, each part at most 253 characters.
    #[must_use]
    pub fn shown(&self) -> Option<&str> {
        let name = self.name.split(':').next()?;
        let (namespace, of_service) = name.split_once('/')?;
        let plain = |part: &str| {
            !part.is_empty() && part.len() <= 253 && part.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        };
        (plain(namespace) && plain(of_service)).then_some(name)
    }
}

/// The services of addresses: a handle on one shared table, cheap to clone. kube-proxy's rules tell names and backends,
/// the packets' translations tell backends where no rule could be read.
///
/// The name stays when a service is gone: what is sent to its address still means it. An address that another service
/// gets keeps its last names with their times. The table is bounded; what finds no room has no name.
#[derive(Clone, Debug, Default)]
pub struct Services {
    table: Arc<RwLock<BTreeMap<SocketAddr, Entry>>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// `NAMESPACE/NAME`, each from this time on; the first one from the beginning.
    names: Vec<(Timestamp, Arc<str>)>,
    told: BTreeSet<SocketAddr>,
    seen: BTreeSet<SocketAddr>,
}

impl Services {
    /// Service addresses that are remembered.
    pub const MOST: usize = 16_384;
    /// Names of one address that are remembered.
    const MOST_NAMES: usize = 4;

    /// Tells of a service as it was found at `time`.
    pub fn tell(&self, service: &Service, time: Timestamp) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entry(&mut table, service.address) else { return };
        entry.told = service.backends.iter().take(Service::MOST_BACKENDS).copied().collect();
        let Some(name) = service.shown() else { return };
        if entry.names.last().is_none_or(|(_, last)| &**last != name) {
            entry.names.push((time, name.into()));
            if entry.names.len() > Self::MOST_NAMES {
                entry.names.remove(0);
            }
        }
    }

    /// Tells that what was sent to `asked` was sent on to `backend`.
    pub fn saw(&self, asked: SocketAddr, backend: SocketAddr) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entry(&mut table, asked)
            && entry.seen.len() < Service::MOST_BACKENDS
        {
            entry.seen.insert(backend);
        }
    }

    /// The `NAMESPACE/NAME` of the service that was at this address and port at `time`. At an unknown port, or without one,
    /// the service of the address: that of its port 53, else the one of all its ports; `None` where several share it.
    #[must_use]
    pub fn name_at(&self, address: IpAddr, port: Option<u16>, time: Timestamp) -> Option<Arc<str>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let at = |port| table.get(&SocketAddr::new(address, port))?.name_at(time);
        if let Some(name) = port.and_then(at).or_else(|| at(DNS)) {
            return Some(name);
        }
        let mut names = ports(&table, address).filter_map(|entry| entry.name_at(time));
        let first = names.next()?;
        names.all(|name| name == first).then_some(first)
    }

    /// The backends of a service's address, over its port 53 where it has one, else over all its ports: those that rules
    /// tell and those that packets were seen to be sent on to.
    #[must_use]
    pub fn backends(&self, address: IpAddr) -> BTreeSet<SocketAddr> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let of_entry = |entry: &Entry| entry.told.union(&entry.seen).copied().collect::<BTreeSet<_>>();
        match table.get(&SocketAddr::new(address, DNS)) {
            Some(entry) => of_entry(entry),
            None => ports(&table, address).flat_map(of_entry).collect(),
        }
    }
}

impl Entry {
    fn name_at(&self, time: Timestamp) -> Option<Arc<str>> {
        let since = self.names.iter().rev().find(|(since, _)| *since <= time);
        since.or(self.names.first()).map(|(_, name)| Arc::clone(name))
    }
}

/// The entry of an address; `None` where it is new and there is no room.
fn entry(table: &mut BTreeMap<SocketAddr, Entry>, address: SocketAddr) -> Option<&mut Entry> {
    if table.len() >= Services::MOST && !table.contains_key(&address) {
        return None;
    }
    Some(table.entry(address).or_default())
}

fn ports(table: &BTreeMap<SocketAddr, Entry>, address: IpAddr) -> impl Iterator<Item = &Entry> {
    let all = SocketAddr::new(address, 0)..=SocketAddr::new(address, u16::MAX);
    table.range(all).map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(address: &str, name: &str, backends: &[&str]) -> Service {
        let backends = backends.iter().map(|backend| backend.parse().unwrap()).collect();
        Service { address: address.parse().unwrap(), name: name.into(), backends }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn name(services: &Services, address: &str, time: u64) -> String {
        let socket = address.parse::<SocketAddr>().ok();
        let ip = socket.map_or_else(|| address.parse().unwrap(), |socket| socket.ip());
        let found = services.name_at(ip, socket.map(|socket| socket.port()), at(time));
        found.map_or_else(String::new, |name| name.to_string())
    }

    #[test]
    fn a_service_is_named_by_its_address_and_its_times() {
        let services = Services::default();
        services.tell(&service("10.96.0.10:53", "kube-system/kube-dns:dns", &[]), at(5));
        services.tell(&service("10.96.0.10:9153", "kube-system/kube-dns:metrics", &[]), at(5));
        for (address, time) in [("10.96.0.10", 0), ("10.96.0.10:53", 9), ("10.96.0.10:80", 9)] {
            assert_eq!(name(&services, address, time), "kube-system/kube-dns");
        }
        assert_eq!(name(&services, "10.96.0.11", 0), "");
        services.tell(&service("10.96.0.10:53", "infra/dns", &[]), at(20));
        services.tell(&service("10.96.0.10:53", "", &[]), at(21));
        assert_eq!(name(&services, "10.96.0.10", 19), "kube-system/kube-dns");
        assert_eq!(name(&services, "10.96.0.10", 20), "infra/dns");
        for change in 0..20 {
            services.tell(&service("10.96.0.10:53", &format!("infra/dns-{change}"), &[]), at(30 + change));
        }
        assert_eq!(name(&services, "10.96.0.10", 100), "infra/dns-19");
    }

    #[test]
    fn an_address_that_services_share_is_named_by_its_port_alone() {
        let services = Services::default();
        services.tell(&service("192.0.2.1:80", "shop/web:http", &[]), at(1));
        services.tell(&service("192.0.2.1:443", "bank/web", &[]), at(1));
        assert_eq!(name(&services, "192.0.2.1", 1), "");
        assert_eq!(name(&services, "192.0.2.1:443", 1), "bank/web");
        services.tell(&service("192.0.2.1:53", "infra/dns:dns", &[]), at(1));
        assert_eq!(name(&services, "192.0.2.1", 1), "infra/dns");
    }

    #[test]
    fn backends_are_those_of_the_rules_and_those_seen() {
        let services = Services::default();
        let vip: SocketAddr = "[fd00::a]:53".parse().unwrap();
        services.saw(vip, "[fd00::3]:53".parse().unwrap());
        assert_eq!(name(&services, "fd00::a", 1), "", "what is seen has no name");
        services.tell(&service("[fd00::a]:53", "a/b", &["[fd00::2]:53"]), at(1));
        services.tell(&service("[fd00::a]:9153", "a/b", &["[fd00::2]:9153"]), at(1));
        let backends: Vec<String> = services.backends(vip.ip()).iter().map(ToString::to_string).collect();
        assert_eq!(backends, ["[fd00::2]:53", "[fd00::3]:53"]);
        for port in 1..2_000 {
            services.saw(vip, SocketAddr::new(vip.ip(), port));
        }
        assert!(services.backends(vip.ip()).len() <= 2 * Service::MOST_BACKENDS);
    }

    #[test]
    fn the_table_is_bounded_and_what_is_no_name_is_not_shown() {
        let services = Services::default();
        for number in 0..20_000_u32 {
            let vip = SocketAddr::from((number.to_be_bytes(), 53));
            services.tell(&Service { address: vip, name: "a/b".into(), backends: BTreeSet::new() }, at(1));
        }
        assert_eq!(services.table.read().unwrap().len(), Services::MOST);
        for (name, shown) in [
            ("a/b:c", Some("a/b")),
            ("a/b", Some("a/b")),
            ("", None),
            ("a", None),
            ("/b", None),
            ("a/", None),
            ("a/b/c", None),
            ("a/\u{1b}[2J", None),
            ("a b/c", None),
            ("a/\u{202e}", None),
        ] {
            assert_eq!(service("10.0.0.1:53", name, &[]).shown(), shown, "{name:?}");
        }
    }
}
