//! Which container of a pod asks.

use super::{News, PodName, Timestamp};
use std::{collections::HashMap, sync::Arc};

/// Pods that are kept.
const MOST_PODS: usize = 65_536;
/// Spells of one pod that are kept: three for each restart of another container.
const MOST_SPELLS: usize = 8;

/// From when on only this container of a pod can ask; `None`: several can, or nobody knows.
type Spell = (Timestamp, Option<Arc<str>>);

/// The containers of pods, by time. What is told of a time replaces what was told of later ones.
#[derive(Debug, Default)]
pub(super) struct Containers {
    by_pod: HashMap<Arc<PodName>, Vec<Spell>, foldhash::fast::RandomState>,
}

impl Containers {
    /// Takes what was found; whether there was room for it.
    pub(super) fn tell(&mut self, pod: &Arc<PodName>, since: Timestamp, container: Option<Arc<str>>) -> bool {
        if self.by_pod.len() >= MOST_PODS && !self.by_pod.contains_key(pod) {
            // Pods that are gone are told to have none that asks.
            self.by_pod.retain(|_, spells| spells.last().is_some_and(|(_, container)| container.is_some()));
            if self.by_pod.len() >= MOST_PODS {
                return false;
            }
        }
        let spells = self.by_pod.entry(Arc::clone(pod)).or_default();
        spells.retain(|(begun, _)| *begun < since);
        spells.push((since, container));
        if spells.len() > MOST_SPELLS {
            spells.remove(0);
        }
        true
    }

    /// The container that asked for this pod at `time`.
    pub(super) fn at(&self, pod: &PodName, time: Timestamp) -> Option<Arc<str>> {
        let spells = self.by_pod.get(pod)?;
        spells.iter().rev().find(|(since, _)| *since <= time)?.1.clone()
    }

    /// How it came to be what it is, by pod.
    pub(super) fn all(&self) -> Vec<News> {
        let mut pods: Vec<_> = self.by_pod.iter().collect();
        pods.sort_unstable();
        let of_pod = |(pod, spells): (&Arc<PodName>, &Vec<Spell>)| -> Vec<News> {
            spells
                .iter()
                .map(|(since, name)| News::Container(Arc::clone(pod), name.clone(), *since))
                .collect()
        };
        pods.into_iter().flat_map(of_pod).collect()
    }
}
