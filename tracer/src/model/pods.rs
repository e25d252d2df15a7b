//! Who has which address.

use super::{News, Services, Timestamp, containers::Containers};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

/// A pod, as Kubernetes names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// `k8s.namespace.name`; empty for what is no pod: a plain network namespace, the node.
    pub namespace: String,
    /// `k8s.pod.name`, or what else it is called.
    pub name: String,
}

impl PodName {
    /// Whether both parts can be shown anywhere: graphic ASCII, at most 253 characters (RFC 1123).
    fn is_plain(&self) -> bool {
        !self.name.is_empty() && is_plain(&self.namespace) && is_plain(&self.name)
    }
}

fn is_plain(part: &str) -> bool {
    part.len() <= 253 && part.bytes().all(|b| b.is_ascii_graphic())
}

/// `namespace/name`, or the name alone.
impl PodName {
    /// Appends what [`fmt::Display`] shows.
    pub fn append_to(&self, text: &mut String) {
        if !self.namespace.is_empty() {
            text.push_str(&self.namespace);
            text.push('/');
        }
        text.push_str(&self.name);
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// The names of addresses: a handle on one shared table, cheap to clone. Filled by `node` live, and by a recording's
/// name-resolution blocks when files are read.
///
/// An address that is used again keeps its last few owners, each with the time that it had the address, so that what
/// happened before the change carries the earlier name, and what nobody is known to have sent carries none. The table is
/// bounded: past 65,536 addresses those whose owner is gone make room; where there are none,
/// new ones are not entered, and counted.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    table: Arc<RwLock<Table>>,
    services: Services,
}

#[derive(Debug, Default)]
struct Table {
    owners: HashMap<IpAddr, Vec<Owner>, foldhash::fast::RandomState>,
    containers: Containers,
    /// The last changes in the order they came, for who passes them on.
    log: VecDeque<News>,
    /// Changes that are no longer in the log.
    forgotten: u64,
    refused: u64,
}

/// Who had an address.
#[derive(Debug)]
struct Owner {
    name: Arc<PodName>,
    /// From when on; [`Timestamp::EPOCH`] where it always had it, or nobody knows since when.
    since: Timestamp,
    /// When it was gone; `None`: it is there.
    until: Option<Timestamp>,
}

impl Owner {
    fn had_it(&self, time: Timestamp) -> bool {
        self.since <= time && self.until.is_none_or(|until| time <= until)
    }
}

const MOST_ADDRESSES: usize = 65_536;
/// Owners of one address that are remembered.
const MOST_OWNERS: usize = 4;
/// Changes that are kept for who passes them on.
const MOST_CHANGES: usize = 2 * MOST_ADDRESSES;

impl Pods {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The services beside the pods: who knows the ones knows the others.
    #[must_use]
    pub const fn services(&self) -> &Services {
        &self.services
    }

    /// Whose address this is, or was last.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Option<Arc<PodName>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.owners.get(&address)?.last().map(|owner| Arc::clone(&owner.name))
    }

    /// Whose address this was at `time`; `None` where nobody is known to have had it then.
    #[must_use]
    pub fn name_at(&self, address: IpAddr, time: Timestamp) -> Option<Arc<PodName>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let owner = table.owners.get(&address)?.iter().find(|owner| owner.had_it(time))?;
        Some(Arc::clone(&owner.name))
    }

    /// Tells whose address this is from `since` on ([`Timestamp::EPOCH`]: nobody knows since when), and not before the
    /// last owner was gone. What is no name (empty, white space, control characters) is refused, and counted.
    pub fn tell(&self, address: IpAddr, name: PodName, since: Timestamp) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        if !name.is_plain() {
            table.refused += 1;
            return;
        }
        if table.owners.len() >= MOST_ADDRESSES && !table.owners.contains_key(&address) {
            table.owners.retain(|_, owners| owners.last().is_some_and(|owner| owner.until.is_none()));
            if table.owners.len() >= MOST_ADDRESSES {
                table.refused += 1;
                return;
            }
        }
        let owners = table.owners.entry(address).or_default();
        let (name, mut since) = (Arc::new(name), since);
        match owners.last_mut() {
            Some(Owner { until: Some(until), .. }) => since = since.max(*until),
            Some(last) if last.name == name => return,
            Some(last) if last.since < since => last.until = Some(since),
            Some(_) => {
                owners.pop();
            }
            None => {}
        }
        owners.push(Owner { name: Arc::clone(&name), since, until: None });
        if owners.len() > MOST_OWNERS {
            owners.remove(0);
        }
        table.note(News::Named(address, name, since));
    }

    /// Tells that the last owner of this address was gone by `time`; the earliest time told counts.
    pub fn end(&self, address: IpAddr, time: Timestamp) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let last = table.owners.get_mut(&address).and_then(|owners| owners.last_mut());
        if let Some(last) = last.filter(|last| last.until.is_none_or(|until| time < until)) {
            last.until = Some(time);
            table.note(News::Gone(address, time));
        }
    }

    /// Which container of its pod asked from this address at `time`: `k8s.container.name`. `None` where several could,
    /// or nobody knows.
    #[must_use]
    pub fn container_at(&self, address: IpAddr, time: Timestamp) -> Option<Arc<str>> {
        self.asking_at(address, time)?.1
    }

    /// [`Self::name_at`], and [`Self::container_at`] with it.
    #[must_use]
    pub fn asking_at(&self, address: IpAddr, time: Timestamp) -> Option<(Arc<PodName>, Option<Arc<str>>)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let owner = table.owners.get(&address)?.iter().find(|owner| owner.had_it(time))?;
        Some((Arc::clone(&owner.name), table.containers.at(&owner.name, time)))
    }

    /// Tells that only this container of a pod can ask from `since` on; `None` where several can, or nobody knows. What
    /// was told of later times is replaced. What is no name is refused, and counted.
    pub fn tell_container(&self, pod: &Arc<PodName>, container: Option<&str>, since: Timestamp) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let is_name = container.is_none_or(|name| !name.is_empty() && is_plain(name));
        let container: Option<Arc<str>> = container.map(Into::into);
        if is_name && pod.is_plain() && table.containers.tell(pod, since, container.clone()) {
            table.note(News::Container(Arc::clone(pod), container, since));
        } else {
            table.refused += 1;
        }
    }

    /// [`Self::tell`], [`Self::end`], [`Self::tell_container`] or [`Services::tell`], as another table tells it; what is of
    /// resolvers is none of its business.
    pub fn heed(&self, news: &News) {
        match news {
            News::Named(address, name, since) => self.tell(*address, PodName::clone(name), *since),
            News::Gone(address, time) => self.end(*address, *time),
            News::Service(service, time) => self.services.tell(service, *time),
            News::Container(pod, name, since) => self.tell_container(pod, name.as_deref(), *since),
            News::Blind(..) | News::Resolver(..) | News::Rules(..) => {}
        }
    }

    /// What changed since `seen` changes were seen, in order, and moves `seen` on. Who begins with 0, or was away for
    /// too long, is told how it came to be what it is.
    #[must_use]
    pub fn news(&self, seen: &mut u64) -> Vec<News> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let from = seen.checked_sub(table.forgotten).and_then(|from| usize::try_from(from).ok());
        *seen = table.forgotten + table.log.len() as u64;
        match from {
            Some(from) => table.log.iter().skip(from).cloned().collect(),
            None => table.all(),
        }
    }

    /// Addresses that found no room, and names that are none.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.table.read().unwrap_or_else(PoisonError::into_inner).refused
    }
}

impl Table {
    fn note(&mut self, news: News) {
        if self.log.len() >= MOST_CHANGES {
            self.log.pop_front();
            self.forgotten += 1;
        }
        self.log.push_back(news);
    }

    /// The owners of all addresses, by address.
    fn all(&self) -> Vec<News> {
        let mut addresses: Vec<_> = self.owners.iter().collect();
        addresses.sort_by_key(|(address, _)| **address);
        let of_owner = |address: IpAddr, owner: &Owner| {
            let gone = owner.until.map(|until| News::Gone(address, until));
            std::iter::once(News::Named(address, Arc::clone(&owner.name), owner.since)).chain(gone)
        };
        let of_address = |(address, owners): (&IpAddr, &Vec<Owner>)| -> Vec<News> {
            owners.iter().flat_map(|owner| of_owner(*address, owner)).collect()
        };
        let mut all: Vec<News> = addresses.into_iter().flat_map(of_address).collect();
        all.extend(self.containers.all());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_used_again_by_another_pod() {
        let pods = Pods::new();
        let address = IpAddr::from([10, 0, 0, 1]);
        let pod = |name: &str| PodName { namespace: "shop".into(), name: name.into() };
        for name in ["web-1", "web-1", "web-2"] {
            pods.tell(address, pod(name), Timestamp::EPOCH);
        }
        assert_eq!(pods.name(address).unwrap().to_string(), "shop/web-2");
        let (mut seen, mut later) = (0, 1);
        assert_eq!(pods.news(&mut seen).len(), 2);
        assert_eq!(pods.news(&mut later), [News::Named(address, Arc::new(pod("web-2")), Timestamp::EPOCH)]);
        assert_eq!((pods.news(&mut seen), seen, later), (vec![], 2, 2));
    }

    #[test]
    fn the_dead_keep_their_time_and_the_next_owner_has_what_follows() {
        let pods = Pods::new();
        let address = IpAddr::from([10, 0, 0, 1]);
        let pod = |name: &str| PodName { namespace: "shop".into(), name: name.into() };
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let name_at = |seconds| pods.name_at(address, at(seconds)).map(|name| name.name.clone());
        pods.tell(address, pod("a"), Timestamp::EPOCH);
        pods.end(address, at(10));
        pods.end(address, at(12));
        assert_eq!((name_at(10).as_deref(), name_at(11)), (Some("a"), None));
        assert_eq!(pods.name(address).as_deref(), Some(&pod("a")));
        pods.tell(address, pod("b"), Timestamp::EPOCH);
        assert_eq!((name_at(10).as_deref(), name_at(11).as_deref()), (Some("a"), Some("b")));
        for number in 0..100_u64 {
            pods.end(address, at(20 + number));
            pods.tell(address, pod(&number.to_string()), Timestamp::EPOCH);
        }
        assert_eq!(pods.table.read().unwrap().owners[&address].len(), MOST_OWNERS);
        assert_eq!(name_at(500).as_deref(), Some("99"));
    }

    #[test]
    fn nobody_has_what_was_sent_before_its_owner_came_or_between_two() {
        let pods = Pods::new();
        let address = IpAddr::from([10, 0, 0, 1]);
        let pod = |name: &str| PodName { namespace: "shop".into(), name: name.into() };
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let names = |pods: &Pods| {
            let name =
                |second| pods.name_at(address, at(second)).map_or("-".into(), |name| name.name.clone());
            (0..10).map(name).collect::<String>()
        };
        pods.tell(address, pod("a"), at(2));
        assert_eq!(names(&pods), "--aaaaaaaa");
        pods.end(address, at(5));
        // It was there for a shorter time than was told first.
        pods.end(address, at(4));
        pods.end(address, at(6));
        assert_eq!(names(&pods), "--aaa-----");
        pods.tell(address, pod("b"), at(7));
        assert_eq!(names(&pods), "--aaa--bbb");
        // The one before is over with the next, where nobody told of its end.
        pods.tell(address, pod("c"), at(8));
        assert_eq!(names(&pods), "--aaa--bbc");
        let other = Pods::new();
        pods.news(&mut 0).iter().for_each(|news| other.heed(news));
        assert_eq!(names(&other), names(&pods));
        let late = Pods::new();
        pods.table.read().unwrap().all().iter().for_each(|news| late.heed(news));
        assert_eq!(names(&late), names(&pods));
    }

    #[test]
    fn who_heeds_the_news_of_another_table_becomes_its_like() {
        let (pods, other, late) = (Pods::new(), Pods::new(), Pods::new());
        let address = |number: u8| IpAddr::from([10, 0, 0, number]);
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let (mut seen, mut seen_late) = (0, 0);
        let end = MOST_CHANGES as u64 / 2 + 10;
        for second in 0..end {
            let name = PodName { namespace: "shop".into(), name: second.to_string() };
            pods.tell(address((second % 5) as u8), name, at(second));
            pods.end(address((second % 5) as u8), at(second));
            pods.news(&mut seen).iter().for_each(|news| other.heed(news));
        }
        let all = pods.news(&mut seen_late);
        assert!(all.len() <= 5 * 2 * MOST_OWNERS, "{} told of five addresses", all.len());
        all.iter().for_each(|news| late.heed(news));
        assert_eq!((seen, pods.news(&mut seen_late).len()), (seen_late, 0));
        for second in [end - 30, end - 12, end - 1, end + 1] {
            for number in 0..6 {
                let name = pods.name_at(address(number), at(second));
                assert_eq!(other.name_at(address(number), at(second)), name);
                assert_eq!(late.name_at(address(number), at(second)), name);
            }
        }
    }

    #[test]
    fn which_container_asks_is_known_by_time() {
        let (pods, other) = (Pods::new(), Pods::new());
        let address = IpAddr::from([10, 0, 0, 1]);
        let pod = Arc::new(PodName { namespace: "shop".into(), name: "web".into() });
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let asked = |pods: &Pods| {
            [4, 5, 14, 15, 24, 25]
                .map(|time| pods.container_at(address, at(time)).map_or("-".into(), |it| it.to_string()))
        };
        pods.tell_container(&pod, Some("setup"), at(5));
        assert_eq!(asked(&pods), ["-"; 6], "nobody has the address");
        pods.tell(address, PodName::clone(&pod), Timestamp::EPOCH);
        assert_eq!(asked(&pods), ["-", "setup", "setup", "setup", "setup", "setup"]);
        pods.tell_container(&pod, Some("app"), at(25));
        assert_eq!(asked(&pods), ["-", "setup", "setup", "setup", "setup", "app"]);
        // There was a second one before that was known.
        pods.tell_container(&pod, None, at(15));
        assert_eq!(asked(&pods), ["-", "setup", "setup", "-", "-", "-"]);
        pods.tell_container(&pod, Some("app"), at(25));
        for bad in ["", "a\x1b", "a b"] {
            pods.tell_container(&pod, Some(bad), at(1));
        }
        assert_eq!(
            (asked(&pods), pods.refused()),
            (["-", "setup", "setup", "-", "-", "app"].map(Into::into), 3)
        );
        for news in pods.table.read().unwrap().all() {
            other.heed(&news);
        }
        assert_eq!(asked(&other), asked(&pods));
        for second in 0..100 {
            pods.tell_container(&pod, Some("app"), at(100 + second));
        }
        let told = pods.table.read().unwrap().all();
        assert!(told.len() < 10, "{told:?}");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let pods = Pods::new();
        let address = IpAddr::from([10, 0, 0, 1]);
        for (namespace, name) in
            [("", ""), ("shop", "a\x1b[2J"), ("a b", "c"), ("", "\u{202e}"), ("", &"x".repeat(254))]
        {
            pods.tell(address, PodName { namespace: namespace.into(), name: name.into() }, Timestamp::EPOCH);
        }
        assert_eq!((pods.name(address), pods.refused()), (None, 5));
    }

    #[test]
    fn the_dead_make_room_and_the_living_do_not() {
        let pods = Pods::new();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let pod = || PodName { namespace: String::new(), name: "x".into() };
        let most = MOST_ADDRESSES as u32;
        for number in 0..=most {
            pods.tell(address(number), pod(), Timestamp::EPOCH);
        }
        assert_eq!((pods.refused(), pods.name(address(most))), (1, None));
        for number in 0..100 {
            pods.end(address(number), Timestamp::EPOCH);
        }
        pods.tell(address(most), pod(), Timestamp::EPOCH);
        assert!(pods.name(address(most)).is_some());
        assert_eq!((pods.refused(), pods.name(address(0))), (1, None));
    }
}
