//! Which container of a pod asks: said where no other one can have asked.
//!
//! A pod's containers have one network namespace and one address, so a packet does not show which of them sent it. But
//! a container's bundle is written before its first process starts. Rule: where the runtimes have one container of a pod
//! beside its sandbox, that one asks, from the time of its bundle on; with a second one nobody is named, from the time of
//! the second one's bundle on. The one of several that is left is named from the look on that shows it.
//!
//! Runtimes keep bundles of containers that have ended (CRI-O): such a one does not count where the namespace has none of
//! its processes and the bundle is older than a start takes. Another pod's container in the namespace counts as one more.

use super::{
    naming::{Look, Namer},
    runtimes::Container,
};
use crate::model::{PodName, Pods, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// By then a container that was made has been started.
const STARTED: Duration = Duration::from_secs(60);

/// What was told so far.
#[derive(Debug)]
pub(super) struct Asking {
    pods: Pods,
    known: HashMap<Arc<PodName>, Known>,
}

#[derive(Debug, Default)]
struct Known {
    told: Option<String>,
    /// What the runtimes had at the last look.
    listed: Vec<Container>,
    /// Those that could ask then.
    before: BTreeSet<String>,
}

/// Containers that can ask, by name, with the time of their bundles where there is one.
type Present = BTreeMap<String, Option<Timestamp>>;

impl Asking {
    /// Tells `pods`.
    #[must_use]
    pub(super) fn new(pods: Pods) -> Self {
        Self { pods, known: HashMap::new() }
    }

    /// Takes the pods that are there at `now`, each with the inode of its namespace; the others are gone. Those whose
    /// bundles are the same as before are looked at where all are.
    pub(super) fn look(
        &mut self,
        pods: &BTreeMap<PodName, u64>,
        (namer, look): (&mut Namer, &Look),
        all: bool,
        now: Timestamp,
    ) {
        let Self { pods: tell, known } = self;
        known.retain(|pod, known| {
            let stays = pods.contains_key(&**pod);
            if !stays && known.told.is_some() {
                tell.tell_container(pod, None, now);
            }
            stays
        });
        for (pod, &inode) in pods {
            let listed = look.containers.get(pod).map_or(&[][..], Vec::as_slice);
            let same = |known: &Known| known.listed == listed;
            if all || !self.known.get(pod).is_some_and(same) {
                let present = present(pod, listed, namer.containers(inode, look), look.is_whole(inode), now);
                self.take(pod, listed, &present, now);
            }
        }
    }

    fn take(&mut self, pod: &PodName, listed: &[Container], present: &Present, now: Timestamp) {
        let pod = Arc::new(pod.clone());
        let Known { told, listed: known_as, before } = self.known.entry(Arc::clone(&pod)).or_default();
        known_as.clear();
        known_as.extend_from_slice(listed);
        let others = present.iter().filter(|(name, _)| told.as_ref() != Some(*name));
        // Without a time it may always have been there.
        let first = others.map(|(_, made)| made.unwrap_or(Timestamp::EPOCH)).min();
        if let Some(first) = first {
            if told.take().is_some() {
                self.pods.tell_container(&pod, None, first);
            }
            if present.len() == 1
                && let Some((only, made)) = present.iter().next()
                // Some runtimes do not write down what it is called.
                && !only.is_empty()
            {
                let since = made.filter(|_| before.is_empty()).unwrap_or(now);
                self.pods.tell_container(&pod, Some(only), since);
                *told = Some(only.clone());
            }
        }
        *before = present.keys().cloned().collect();
    }
}

/// Those of the containers `listed` for a pod that can ask, and what else is inside its namespace; `whole`: all of
/// these are known.
fn present(
    pod: &PodName,
    listed: &[Container],
    inside: Vec<(u32, Container)>,
    whole: bool,
    now: Timestamp,
) -> Present {
    let may_ask = |container: &&Container| {
        listed.iter().all(|other| other.name == container.name)
            || !whole
            || inside.iter().any(|(_, it)| it.pod == *pod && it.name == container.name)
            || container.made.is_none_or(|made| now.since(made) < STARTED)
    };
    let mut present = Present::new();
    for container in listed.iter().filter(may_ask) {
        let made = present.entry(container.name.clone()).or_insert(container.made);
        *made = (*made).min(container.made);
    }
    let visitors = inside.into_iter().filter(|(_, container)| container.pod != *pod && !container.sandbox);
    present.extend(visitors.map(|(_, visitor)| (visitor.pod.to_string(), visitor.made)));
    present
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn pod() -> PodName {
        PodName { namespace: "shop".into(), name: "web".into() }
    }

    fn container(name: &str, made: u64) -> Container {
        Container { pod: pod(), name: name.into(), sandbox: false, made: (made > 0).then(|| at(made)) }
    }

    /// What was told of each second after these looks: when, and which containers the runtimes had.
    fn told(looks: &[(u64, &[(&str, u64)])]) -> String {
        let pods = Pods::new();
        let address = std::net::IpAddr::from([10, 0, 0, 1]);
        pods.tell(address, pod(), Timestamp::EPOCH);
        let mut asking = Asking::new(pods.clone());
        for (time, listed) in looks {
            let listed: Vec<_> = listed.iter().map(|(name, made)| container(name, *made)).collect();
            let inside = listed.iter().map(|container| (1, container.clone())).collect();
            asking.take(&pod(), &listed, &present(&pod(), &listed, inside, true, at(*time)), at(*time));
        }
        let name =
            |second| pods.container_at(address, at(second)).map_or("-".into(), |name| name.to_string());
        (0..10).map(name).collect()
    }

    #[test]
    fn the_only_one_asks_from_its_beginning_on() {
        assert_eq!(told(&[(5, &[("a", 3)])]), "---aaaaaaa");
        assert_eq!(told(&[(5, &[("a", 3)]), (6, &[]), (8, &[("a", 7)])]), "---aaaaaaa");
        assert_eq!(told(&[(5, &[("a", 0)])]), "-----aaaaa", "a bundle without a time");
        assert_eq!(told(&[(5, &[])]), "----------");
        assert_eq!(told(&[(5, &[("", 3)]), (7, &[("a", 6)])]), "-------aaa", "one without a name");
    }

    #[test]
    fn one_behind_the_other() {
        assert_eq!(told(&[(2, &[("a", 1)]), (4, &[]), (8, &[("b", 6)])]), "-aaaaabbbb");
        // It may have been there with the first.
        assert_eq!(told(&[(2, &[("a", 1)]), (8, &[("b", 6)])]), "-aaaaa--bb");
    }

    #[test]
    fn of_two_nobody_is_told() {
        assert_eq!(told(&[(5, &[("a", 1), ("b", 2)])]), "----------");
        assert_eq!(told(&[(5, &[("a", 1)]), (7, &[("a", 1), ("b", 6)])]), "-aaaaa----");
        assert_eq!(told(&[(5, &[("a", 1)]), (7, &[("a", 1), ("b", 0)])]), "----------");
        assert_eq!(told(&[(5, &[("a", 1), ("b", 2)]), (8, &[("b", 2)])]), "--------bb");
    }

    #[test]
    fn what_has_ended_does_not_count_and_what_may_start_does() {
        let (app, setup) = (container("app", 500), container("setup", 400));
        let listed = [app.clone(), setup];
        let names = |inside: &[&Container], whole, now| {
            let inside = inside.iter().map(|&container| (1, container.clone())).collect();
            present(&pod(), &listed, inside, whole, at(now)).into_keys().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&[&app], true, 500), "app");
        assert_eq!(names(&[&app], true, 459), "app setup");
        assert_eq!(names(&[&app], false, 500), "app setup", "there are more processes than were looked at");
        let visitor = Container { pod: PodName { name: "visitor".into(), ..pod() }, ..container("x", 1) };
        assert_eq!(names(&[&app, &visitor], true, 500), "app shop/visitor");
    }
}
