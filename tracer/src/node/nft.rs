//! kube-proxy's rules in nftables mode, as `nft -j` prints its tables `ip kube-proxy` and `ip6 kube-proxy`
//! (libnftables-json(5)).
//!
//! A map `service-ips` leads from address, protocol and port to a chain of the service, whose rules lead to chains of
//! endpoints, one of whose rules is `dnat to 10.244.0.2:53`. Chains are named
//! `service-HASH-NAMESPACE/NAME/PROTOCOL/PORT`, shortened to end in `...` where that is too long. What has no endpoints is
//! in `no-endpoint-services` with its name as comment.

use super::{
    listing::list,
    services::{Found, Table},
};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

const PROGRAM: &str = "nft";
const TABLE: &str = "kube-proxy";
const FAMILIES: [&str; 2] = ["ip", "ip6"];
/// Octets of one table that are read; 50,000 endpoints have half of that.
const MOST_OCTETS: u64 = 64 << 20;
/// Chains that are remembered while a table is read.
const MOST_CHAINS: usize = 262_144;

/// What it made in one namespace.
#[derive(Debug, Default)]
pub(super) struct Nft {
    /// Whether it has a table here.
    pub(super) is_there: bool,
    pub(super) services: Table,
    /// Entries of its maps, and rules of its endpoints, that could not be read.
    pub(super) broken: u64,
}

impl Nft {
    /// Reads the tables of the calling thread's network namespace.
    ///
    /// # Errors
    /// When `nft` is not here, or fails.
    pub(super) fn list() -> io::Result<Self> {
        let mut nft = Self::default();
        // Asked for one by one: to list the names of all tables, nft reads all their rules, too.
        for family in FAMILIES {
            match list(PROGRAM, &["-j", "list", "table", family, TABLE], |listing| nft.read(listing)) {
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(nft)
    }

    /// Reads the listing of one table.
    fn read(&mut self, listing: impl Read) -> io::Result<()> {
        let mut table = OneTable::default();
        let mut json = serde_json::Deserializer::from_reader(listing.take(MOST_OCTETS));
        (&mut table).deserialize(&mut json)?;
        self.is_there = true;
        self.broken += table.broken;
        table.join(&mut self.services);
        Ok(())
    }
}

/// Whether nft says that there is no such table; what it printed then was nothing.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("No such file or directory")
}

/// What of one table matters, as it is read.
#[derive(Default)]
struct OneTable {
    services: Vec<(SocketAddr, Found, String)>,
    /// From a chain to those that its rules go on to.
    leads_to: HashMap<String, BTreeSet<String>>,
    endpoints: HashMap<String, SocketAddr>,
    broken: u64,
}

impl OneTable {
    fn item(&mut self, item: &Value) {
        if let Some(name @ ("service-ips" | "no-endpoint-services")) = item["map"]["name"].as_str() {
            for entry in item["map"]["elem"].as_array().into_iter().flatten() {
                match service(entry, name == "service-ips") {
                    Some(service) if self.services.len() < MOST_CHAINS => self.services.push(service),
                    _ => self.broken += 1,
                }
            }
        }
        let rule = &item["rule"];
        let Some(chain) = rule["chain"].as_str() else { return };
        if self.leads_to.len().max(self.endpoints.len()) >= MOST_CHAINS {
            self.broken += 1;
        } else if chain.starts_with("endpoint-") {
            for statement in rule["expr"].as_array().into_iter().flatten() {
                let dnat = &statement["dnat"];
                match (dnat.is_null(), socket(&dnat["addr"], &dnat["port"])) {
                    (true, _) => {}
                    (false, Some(endpoint)) => {
                        self.endpoints.insert(chain.to_owned(), endpoint);
                    }
                    (false, None) => self.broken += 1,
                }
            }
        } else if chain.starts_with("service-") || chain.starts_with("external-") {
            let mut targets = BTreeSet::new();
            goes_to(&rule["expr"], &mut targets);
            self.leads_to.entry(chain.to_owned()).or_default().append(&mut targets);
        }
    }

    /// Enters the services with the endpoints that their chains lead to, an external address's by way of the service's.
    fn join(self, services: &mut Table) {
        let mut shared: BTreeMap<&str, BTreeSet<SocketAddr>> = BTreeMap::new();
        for (address, found, chain) in &self.services {
            if !services.add(*address, found.clone()) {
                continue;
            }
            let endpoints = shared.entry(chain.as_str()).or_insert_with(|| self.endpoints_of(chain));
            endpoints.iter().for_each(|endpoint| services.add_backend(*address, *endpoint));
        }
    }

    fn endpoints_of(&self, chain: &str) -> BTreeSet<SocketAddr> {
        let direct = |chain: &str| self.leads_to.get(chain).into_iter().flatten();
        let all = direct(chain).flat_map(|next| std::iter::once(next).chain(direct(next)));
        all.filter_map(|chain| self.endpoints.get(chain)).copied().collect()
    }
}

/// An entry of a map of services: key and verdict.
fn service(entry: &Value, has_endpoints: bool) -> Option<(SocketAddr, Found, String)> {
    let [key, verdict] = entry.as_array()?.as_slice() else { return None };
    // With a comment or a counter the key is wrapped.
    let (key, comment) = match key.get("elem") {
        Some(wrapped) => (&wrapped["val"], wrapped["comment"].as_str()),
        None => (key, None),
    };
    let [address, protocol, port] = key["concat"].as_array()?.as_slice() else { return None };
    let chain = verdict["goto"]["target"].as_str().unwrap_or_default();
    if has_endpoints && chain.is_empty() {
        return None;
    }
    let udp = protocol == "udp" || protocol == 17;
    let name = comment.map(str::to_owned).or_else(|| name_of(chain)).unwrap_or_default();
    Some((socket(address, port)?, Found { name, ..Found::unnamed(udp) }, chain.to_owned()))
}

/// `NAMESPACE/NAME:PORT` of a chain's name; `None` where what is left of a shortened one does not tell.
fn name_of(chain: &str) -> Option<String> {
    let (_, after) = chain.split_once('-')?;
    let (_hash, full) = after.split_once('-')?;
    let mut parts = full.split('/');
    let (namespace, name, protocol) = (parts.next()?, parts.next()?, parts.next()?);
    if !matches!(protocol, "tcp" | "udp" | "sctp") || namespace.is_empty() || name.is_empty() {
        return None;
    }
    // A port's name has no dots (RFC 6335), so one in it says that it was cut.
    let port = parts.next().filter(|port| !port.is_empty() && !port.contains('.'));
    Some(port.map_or_else(|| format!("{namespace}/{name}"), |port| format!("{namespace}/{name}:{port}")))
}

/// The chains that statements go on to, in whichever map; JSON is read 128 levels deep at most.
fn goes_to(statements: &Value, targets: &mut BTreeSet<String>) {
    match statements {
        Value::Array(all) => all.iter().for_each(|one| goes_to(one, targets)),
        Value::Object(all) => {
            for (key, value) in all {
                match value["target"].as_str() {
                    Some(target) if key == "goto" || key == "jump" => {
                        let is_of_service = target.starts_with("endpoint-") || target.starts_with("service-");
                        targets.extend(is_of_service.then(|| target.to_owned()));
                    }
                    _ => goes_to(value, targets),
                }
            }
        }
        _ => {}
    }
}

fn socket(address: &Value, port: &Value) -> Option<SocketAddr> {
    let address: IpAddr = address.as_str()?.parse().ok()?;
    Some(SocketAddr::new(address, u16::try_from(port.as_u64()?).ok()?))
}

/// `{"nftables": [ITEM, …]}`, an item at a time: a table of tens of megabytes is never there as a whole.
impl<'de> DeserializeSeed<'de> for &mut OneTable {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut OneTable {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a listing of nftables")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "nftables" {
                map.next_value_seed(Items(&mut *self))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Items<'a>(&'a mut OneTable);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tables, chains, maps and rules")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element::<Value>()? {
            self.0.item(&item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
