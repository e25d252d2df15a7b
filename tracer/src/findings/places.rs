//! Where hops were seen, in words: the vantages behind their ids, without a lock for each.

use crate::model::{Direction, InterfaceKind, Vantage, VantageId, Vantages};
use std::{collections::HashMap, sync::Arc};

/// The vantages of a session as far as they were needed.
#[derive(Debug, Default)]
pub(super) struct Places {
    vantages: Vantages,
    known: Vec<Arc<Vantage>>,
    /// For each of them, the first one of its interface: both directions have the same.
    interfaces: Vec<usize>,
    several_sources: bool,
}

impl Places {
    /// With the table of the hops' vantages.
    pub(super) fn new(vantages: Vantages) -> Self {
        Self { vantages, ..Self::default() }
    }

    /// Sees to it that this vantage is known.
    #[inline]
    pub(super) fn learn(&mut self, id: VantageId) {
        if usize::from(id.0) >= self.known.len() {
            self.read();
        }
    }

    #[cold]
    fn read(&mut self) {
        self.known = self.vantages.all();
        let mut first = HashMap::new();
        let of = |it: &'_ Arc<Vantage>| (it.interface.clone(), it.ifindex, it.netns.clone(), it.source);
        let number = |(index, it)| *first.entry(of(it)).or_insert(index);
        self.interfaces = self.known.iter().enumerate().map(number).collect();
        self.several_sources = self.known.iter().any(|vantage| vantage.source > 0);
    }

    /// What is known of a vantage; `None` for one of another table.
    pub(super) fn at(&self, id: VantageId) -> Option<&Vantage> {
        self.known.get(usize::from(id.0)).map(|vantage| &**vantage)
    }

    /// Whether frames come from several files.
    pub(super) const fn has_several_sources(&self) -> bool {
        self.several_sources
    }

    /// The file it belongs to.
    pub(super) fn source(&self, id: VantageId) -> u16 {
        self.at(id).map_or(0, |vantage| vantage.source)
    }

    /// Whether both are of one interface, whatever the direction.
    pub(super) fn is_same_interface(&self, one: VantageId, other: VantageId) -> bool {
        if one == other {
            return true;
        }
        let interface = |id: VantageId| self.interfaces.get(usize::from(id.0));
        interface(one).is_some() && interface(one) == interface(other)
    }

    /// Whether what is seen there is on its way out of the node: to another node.
    pub(super) fn leaves_node(&self, id: VantageId) -> bool {
        self.at(id).is_some_and(|it| {
            it.direction == Direction::Egress
                && matches!(it.kind, InterfaceKind::Uplink | InterfaceKind::Tunnel)
        })
    }

    /// Whether what is seen there is given to a pod.
    pub(super) fn enters_pod(&self, id: VantageId) -> bool {
        self.at(id).is_some_and(|it| it.direction == Direction::Egress && it.kind == InterfaceKind::Veth)
    }

    /// Whether what is seen there comes from a pod.
    pub(super) fn comes_from_pod(&self, id: VantageId) -> bool {
        self.at(id).is_some_and(|it| it.direction == Direction::Ingress && it.kind == InterfaceKind::Veth)
    }

    /// The vantage as it is named elsewhere: `veth-web ingress`.
    pub(super) fn name(&self, id: VantageId) -> String {
        self.at(id).map_or_else(|| "its capture".into(), ToString::to_string)
    }

    /// What a message does there: `leaving uplink eth0`.
    pub(super) fn passing(&self, id: VantageId) -> String {
        let Some(vantage) = self.at(id) else { return "at its capture".into() };
        let what = match (vantage.direction, vantage.kind) {
            (Direction::Egress, InterfaceKind::Veth) => "entering the pod at",
            (Direction::Ingress, InterfaceKind::Veth) => "leaving the pod at",
            (Direction::Egress, InterfaceKind::Uplink) => "leaving uplink",
            (Direction::Ingress, InterfaceKind::Uplink) => "arriving at uplink",
            (Direction::Egress, InterfaceKind::Tunnel) => "leaving tunnel",
            (Direction::Ingress, InterfaceKind::Tunnel) => "arriving at tunnel",
            (Direction::Egress, _) => "leaving",
            (Direction::Ingress, _) => "arriving at",
            (Direction::Unknown, _) => "at",
        };
        let netns = vantage.netns.as_ref().map_or(String::new(), |netns| format!("{netns}/"));
        format!("{what} {netns}{}", vantage.interface)
    }
}
