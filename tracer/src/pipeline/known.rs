//! What is known of the node, passed on between frames.
//!
//! Rule: a session sees names and resolvers change only here, on the thread that reads frames, and a recording has them
//! at the same place. So the session on the recording knows at each frame what the live one knew.

use crate::{
    model::{BlindSpot, News, Pods, Resolver, RuleCount, Service, Services, Timestamp},
    node::Counted,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, mpsc},
};

/// Resolvers that wait to be passed on: what finds no room is told at the next look.
const RESOLVERS_WAITING: usize = 1_024;
/// Resolvers that are kept for files that begin later.
const MOST_RESOLVERS: usize = 4_096;

/// Rules as they were at this time.
type CountedAt = (Arc<RuleCount>, Timestamp);

/// What a session was told of the node.
pub(super) struct Known {
    /// The names that the session knows.
    pods: Pods,
    /// Filled by who follows the node, on a thread of its own.
    found: Pods,
    /// Changes of `found` that were passed on.
    seen: u64,
    waiting: mpsc::Receiver<Resolver>,
    /// What cannot be seen, as far as it was passed on, and what is still to be.
    blind: Vec<(Arc<BlindSpot>, Timestamp)>,
    blind_waiting: Vec<Arc<BlindSpot>>,
    /// Of each namespace the first and the last count that was passed on, and what is still to be.
    rules: BTreeMap<String, Vec<CountedAt>>,
    rules_waiting: Vec<Arc<RuleCount>>,
    /// By address, as they were found last, and what is still to be passed on.
    services: BTreeMap<SocketAddr, (Arc<Service>, Timestamp)>,
    services_waiting: Vec<Arc<Service>>,
    /// By pod and container, as they were read last.
    resolvers: BTreeMap<(String, String), (Arc<Resolver>, Timestamp)>,
}

impl Known {
    /// Knows nothing yet; names will be told to `pods`. Gives what who follows the node is to tell.
    pub(super) fn new(pods: Pods) -> (Self, Pods, mpsc::SyncSender<Resolver>) {
        let (sender, waiting) = mpsc::sync_channel(RESOLVERS_WAITING);
        let found = Pods::new();
        let known = Self {
            pods,
            found: found.clone(),
            seen: 0,
            waiting,
            blind: Vec::new(),
            blind_waiting: Vec::new(),
            rules: BTreeMap::new(),
            rules_waiting: Vec::new(),
            services: BTreeMap::new(),
            services_waiting: Vec::new(),
            resolvers: BTreeMap::new(),
        };
        (known, found, sender)
    }

    /// Takes something that cannot be seen. Whether it is new.
    pub(super) fn tell_blind(&mut self, spot: BlindSpot) -> bool {
        let mut all = self.blind.iter().map(|(known, _)| known).chain(&self.blind_waiting);
        let is_new = !all.any(|known| **known == spot);
        if is_new {
            self.blind_waiting.push(Arc::new(spot));
        }
        is_new
    }

    /// Takes what was counted, and services that are new or have changed.
    pub(super) fn tell_counted(&mut self, counted: Counted) {
        self.rules_waiting.extend(counted.rules.map(Arc::new));
        self.services_waiting.extend(counted.services.into_iter().map(Arc::new));
    }

    /// What was found since the last time; it is for the session, and for the recording, at this place. Resolvers,
    /// blind spots, counts of rules and services are of `time`.
    pub(super) fn fresh(&mut self, time: Timestamp) -> Vec<News> {
        let mut fresh = self.found.news(&mut self.seen);
        for resolver in self.waiting.try_iter() {
            let resolver = Arc::new(resolver);
            let key = (resolver.pod.to_string(), resolver.container.clone());
            if self.resolvers.len() >= MOST_RESOLVERS && !self.resolvers.contains_key(&key) {
                // Most likely of a pod that is gone.
                let oldest =
                    self.resolvers.iter().min_by_key(|(_, (_, read))| *read).map(|(key, _)| key.clone());
                oldest.and_then(|oldest| self.resolvers.remove(&oldest));
            }
            self.resolvers.insert(key, (Arc::clone(&resolver), time));
            fresh.push(News::Resolver(resolver, time));
        }
        for spot in self.blind_waiting.drain(..) {
            self.blind.push((Arc::clone(&spot), time));
            fresh.push(News::Blind(spot, time));
        }
        for count in self.rules_waiting.drain(..) {
            let counts = self.rules.entry(count.netns.clone()).or_default();
            counts.truncate(1);
            counts.push((Arc::clone(&count), time));
            fresh.push(News::Rules(count, time));
        }
        for service in self.services_waiting.drain(..) {
            let known = self.services.get(&service.address);
            // Several namespaces tell of the same cluster.
            let is_new = known.is_none_or(|(known, _)| *known != service);
            if is_new && (known.is_some() || self.services.len() < Services::MOST) {
                self.services.insert(service.address, (Arc::clone(&service), time));
                fresh.push(News::Service(service, time));
            }
        }
        fresh.iter().for_each(|news| self.pods.heed(news));
        fresh
    }

    /// Everything that was passed on, for a file that begins now.
    pub(super) fn all(&self) -> Vec<News> {
        let mut all = self.pods.news(&mut 0);
        let resolvers = self.resolvers.values();
        all.extend(resolvers.map(|(resolver, time)| News::Resolver(Arc::clone(resolver), *time)));
        all.extend(self.blind.iter().map(|(spot, time)| News::Blind(Arc::clone(spot), *time)));
        let rules = self.rules.values().flatten();
        all.extend(rules.map(|(count, time)| News::Rules(Arc::clone(count), *time)));
        let services = self.services.values();
        all.extend(services.map(|(service, time)| News::Service(Arc::clone(service), *time)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PodName;

    /// On a node whose pods come and go for days, a file that begins later has those that are there.
    #[test]
    fn the_newest_resolvers_are_kept() {
        let (mut known, _found, sender) = Known::new(Pods::new());
        let of_pod = |number: usize| Resolver {
            pod: PodName { namespace: "shop".into(), name: format!("web-{number}") },
            ..Resolver::default()
        };
        for number in 0..MOST_RESOLVERS + 10 {
            sender.send(of_pod(number)).unwrap();
            known.fresh(Timestamp::from_nanos(number as u64));
        }
        let told = known.all();
        let has = |number| {
            let name = of_pod(number).pod;
            told.iter().any(|news| matches!(news, News::Resolver(resolver, _) if resolver.pod == name))
        };
        assert_eq!(told.len(), MOST_RESOLVERS);
        assert_eq!([has(0), has(9), has(10), has(MOST_RESOLVERS + 9)], [false, false, true, true]);
    }
}
