//! The lines of the pods view: what each client's lookups came to, and how it resolves names.

use super::text;
use crate::model::{Family, Lookup, Resolver, Timestamp};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Clients counted one by one; all further ones share a line.
const MOST: usize = 4_096;
/// Containers whose resolv.conf is kept.
const MOST_RESOLVERS: usize = 4_096;

/// What is counted of one client.
#[derive(Clone, Debug, Default)]
struct Counts {
    lookups: u64,
    failed: u64,
    empty: u64,
    queries: u64,
    wasted: u64,
    waited: Duration,
    family: Family,
    /// It asks for others: a server's own lookups.
    forwards: bool,
    last: Timestamp,
}

/// How a container resolves names, in words.
#[derive(Clone, Debug, Default)]
struct Setting {
    ndots: u32,
    search: Box<str>,
    nameserver: Box<str>,
}

/// Every client so far.
#[derive(Debug, Default)]
pub(super) struct Pods {
    places: HashMap<IpAddr, usize, foldhash::fast::RandomState>,
    all: Vec<(IpAddr, Counts)>,
    others: Counts,
    settings: HashMap<IpAddr, Arc<Setting>, foldhash::fast::RandomState>,
}

/// One line of the pods view: the clients of one pod, or one that has no name.
#[derive(Debug)]
pub(super) struct PodRow {
    /// Stays the same for the session.
    pub(super) key: u64,
    /// The pod, or the address; escaped.
    pub(super) who: Box<str>,
    /// Its addresses; port 0. Empty: all further clients.
    pub(super) addresses: Box<[SocketAddr]>,
    /// It has a name.
    pub(super) named: bool,
    pub(super) lookups: u64,
    pub(super) failed: u64,
    pub(super) empty: u64,
    pub(super) queries: u64,
    pub(super) wasted: u64,
    pub(super) waited: Duration,
    pub(super) family: &'static str,
    pub(super) forwards: bool,
    pub(super) ndots: Option<u64>,
    /// The search list; escaped.
    pub(super) search: Box<str>,
    /// Whom it asks; escaped.
    pub(super) nameserver: Box<str>,
}

impl Counts {
    fn add(&mut self, lookup: &Lookup) {
        self.lookups += 1;
        self.failed += u64::from(lookup.result.is_failure());
        self.empty += u64::from(lookup.answered_by.is_none() && !lookup.result.is_failure());
        self.queries += u64::from(lookup.queries);
        self.wasted += u64::from(lookup.wasted_search_queries.unwrap_or(0));
        self.waited += lookup.gaps.iter().sum::<Duration>();
        self.forwards |= lookup.forwarded;
        self.last = self.last.max(lookup.start);
        if lookup.family != Family::Unknown {
            self.family = lookup.family;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.lookups += other.lookups;
        self.failed += other.failed;
        self.empty += other.empty;
        self.queries += other.queries;
        self.wasted += other.wasted;
        self.waited += other.waited;
        self.forwards |= other.forwards;
        if other.family != Family::Unknown && (self.family == Family::Unknown || other.last > self.last) {
            self.family = other.family;
        }
        self.last = self.last.max(other.last);
    }
}

impl Pods {
    /// Counts a lookup for its client.
    pub(super) fn lookup(&mut self, lookup: &Lookup) {
        let place = match self.places.get(&lookup.client) {
            Some(place) => *place,
            None if self.all.len() < MOST => {
                self.places.insert(lookup.client, self.all.len());
                self.all.push((lookup.client, Counts::default()));
                self.all.len() - 1
            }
            None => return self.others.add(lookup),
        };
        if let Some((_, counts)) = self.all.get_mut(place) {
            counts.add(lookup);
        }
    }

    /// Takes over what a container's resolv.conf says.
    pub(super) fn resolver(&mut self, resolver: &Resolver) {
        let words = |all: Vec<String>| text::escape(&all.join(" ")).into_owned().into();
        let setting = Arc::new(Setting {
            ndots: resolver.ndots(),
            search: words(resolver.suffixes()),
            nameserver: words(resolver.nameservers().iter().map(IpAddr::to_string).collect()),
        });
        for address in &resolver.addresses {
            if self.settings.len() < MOST_RESOLVERS || self.settings.contains_key(address) {
                self.settings.insert(*address, Arc::clone(&setting));
            }
        }
    }

    /// All lines; those of one name are one. A line's key is the place of its first client, which stays.
    pub(super) fn rows(&self, name: impl Fn(IpAddr, Timestamp) -> Option<String>) -> Vec<Arc<PodRow>> {
        let mut rows: Vec<(Option<Box<str>>, Vec<IpAddr>, Counts)> = Vec::new();
        let mut known: HashMap<Box<str>, usize> = HashMap::new();
        for (address, counts) in &self.all {
            let who: Option<Box<str>> =
                name(*address, counts.last).map(|name| text::escape(&name).into_owned().into());
            let row = who.as_ref().and_then(|who| known.get(who)).and_then(|place| rows.get_mut(*place));
            match row {
                Some((_, addresses, all)) => {
                    addresses.push(*address);
                    all.merge(counts);
                }
                None => {
                    if let Some(who) = &who {
                        known.insert(who.clone(), rows.len());
                    }
                    rows.push((who, vec![*address], counts.clone()));
                }
            }
        }
        if self.others.lookups > 0 {
            rows.push((Some("all others".into()), Vec::new(), self.others.clone()));
        }
        rows.into_iter().map(|(who, addresses, counts)| Arc::new(self.row(who, &addresses, counts))).collect()
    }

    fn row(&self, who: Option<Box<str>>, addresses: &[IpAddr], counts: Counts) -> PodRow {
        let setting = addresses.iter().find_map(|address| self.settings.get(address)).map(|known| &**known);
        let nothing = Setting::default();
        let shown = setting.unwrap_or(&nothing);
        let place = addresses.first().and_then(|first| self.places.get(first));
        PodRow {
            key: place.map_or(u64::MAX, |place| *place as u64),
            named: who.is_some() && !addresses.is_empty(),
            who: who.unwrap_or_else(|| addresses.first().map_or_else(String::new, IpAddr::to_string).into()),
            addresses: addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect(),
            lookups: counts.lookups,
            failed: counts.failed,
            empty: counts.empty,
            queries: counts.queries,
            wasted: counts.wasted,
            waited: counts.waited,
            family: counts.family.as_str(),
            forwards: counts.forwards,
            ndots: setting.map(|setting| u64::from(setting.ndots)),
            search: shown.search.clone(),
            nameserver: shown.nameserver.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::direct;

    /// The cursor would move to another pod.
    #[test]
    fn a_line_keeps_its_key_when_two_before_it_become_one() {
        let mut pods = Pods::default();
        for last in 1..=3 {
            let mut one = direct("web", 1);
            one.client = IpAddr::from([10, 0, 0, last]);
            pods.lookup(&one);
        }
        let keys = |rows: Vec<Arc<PodRow>>| -> Vec<(String, u64)> {
            rows.iter().map(|row| (row.who.to_string(), row.key)).collect()
        };
        let before = keys(pods.rows(|_, _| None));
        let is_third = |address: IpAddr| address == IpAddr::from([10, 0, 0, 3]);
        let after = keys(pods.rows(|address, _| (!is_third(address)).then(|| "shop/web".into())));
        assert_eq!(after, [("shop/web".to_owned(), before[0].1), before[2].clone()]);
    }
}
