//! What is learnt of the node beside capture, and what cannot be seen on it.

use super::{clock, known::Known};
use crate::{
    capture::{Capture, Netns, Notes, PodNamespace},
    model::{BlindSpot, InterfaceKind, Pods, Resolver, Vantage, Vantages},
    node,
};
use anyhow::Context as _;
use std::sync::{Arc, mpsc};

/// Follows who is who beside capture. Without it pods are shown by address.
pub(super) fn watch_node(
    namespaces: &[Netns],
    pods: &Pods,
    resolvers: mpsc::SyncSender<Resolver>,
    notes: &Notes,
) -> Option<node::Watch> {
    let for_notes = notes.clone();
    let settings = node::Settings {
        watched: namespaces.iter().map(watched).collect(),
        roots: node::Roots::find(),
        pods: pods.clone(),
        resolvers,
        note: Box::new(move |note| for_notes.add(note)),
        now: clock::wall_now,
    };
    node::Watch::start(settings)
        .map_err(|error| notes.add(&format!("cannot follow the pods: {error}: they are shown by address")))
        .ok()
}

/// Counts the packet rules of these namespaces beside capture.
pub(super) fn count_rules(namespaces: &[Netns], notes: &Notes) -> Option<node::Counting> {
    let for_notes = notes.clone();
    let namespaces = namespaces.iter().map(watched).collect();
    node::Counting::start(namespaces, move |note| for_notes.add(note), clock::wall_now)
        .map_err(|error| notes.add(&format!("packet rules are not counted (DP502): {error}")))
        .ok()
}

/// Passes on what was counted, and the services found.
pub(super) fn heed_rules(counting: Option<&node::Counting>, known: &mut Known) {
    for counted in counting.into_iter().flat_map(node::Counting::fresh) {
        known.tell_counted(counted);
    }
}

/// Watches `lo` inside every pod that watched interfaces lead to.
pub(super) fn watch_loopbacks(capture: &mut Capture, node: Option<&node::Watch>) -> anyhow::Result<()> {
    let node =
        node.context("cannot watch the loopbacks of pods (--pod-loopback): the pods cannot be followed")?;
    let neighbourhood = node.neighbourhood();
    // By its address findings and screens know the pod. One that has none yet is waited for.
    let of_pod = |inside: node::Inside| {
        let shown_as = inside.address?.to_string();
        Some(PodNamespace { inode: inside.inode, path: inside.path, shown_as })
    };
    capture.watch_loopbacks(move || neighbourhood.all().into_iter().filter_map(of_pod).collect())?;
    Ok(())
}

/// What cannot be seen here, as far as it is known at the start.
pub(super) fn blind_spots(capture: &Capture, namespaces: &[Netns], vantages: &Vantages) -> Vec<BlindSpot> {
    let roots = node::Roots::find();
    let mut spots = capture.blind_spots();
    for netns in namespaces {
        let shown_as = netns.name().filter(|_| namespaces.len() > 1);
        let is_watched = |vantage: &Arc<Vantage>| {
            vantage.kind == InterfaceKind::Loopback && vantage.netns.as_deref() == shown_as
        };
        spots.extend(node::blind_spots(&watched(netns), &roots, vantages.all().iter().any(is_watched)));
    }
    spots
}

/// What a note of a blind spot begins with.
pub(super) const NOT_SEEN: &str = "not seen here (DP902)";

/// Tells the user and the session what cannot be seen, once.
pub(super) fn tell_blind(spot: BlindSpot, known: &mut Known, notes: &Notes) {
    let note = format!("{NOT_SEEN}: {} ({})", spot.unseen, spot.found);
    if known.tell_blind(spot) {
        notes.add(&note);
    }
}

/// Tells that there is DNS that cannot be read, once there is.
pub(super) fn note_encrypted(capture: &Capture, known: &mut Known, notes: &Notes) {
    if capture.encrypted() > 0 {
        tell_blind(BlindSpot::encrypted_dns(), known, notes);
    }
}

/// A namespace as `node` is told of it.
pub(super) fn watched(netns: &Netns) -> node::Watched {
    match netns {
        Netns::Own => node::Watched { name: node_name(), path: None },
        Netns::Other { shown, path } => node::Watched { name: shown.clone(), path: Some(path.clone()) },
    }
}

/// The namespaces to watch: those named, each once, else the own one.
pub(super) fn namespaces(named: &[String]) -> Vec<Netns> {
    if named.is_empty() {
        return vec![Netns::Own];
    }
    let mut known = Vec::new();
    let mut all: Vec<Netns> = named.iter().map(|name| Netns::from_argument(name)).collect();
    // One that is watched twice would tell each frame twice.
    all.retain(|netns| {
        let identity = netns.identity();
        let is_new = identity.is_none() || !known.contains(&identity);
        known.push(identity);
        is_new
    });
    all
}

pub(super) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
