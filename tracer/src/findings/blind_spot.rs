//! DP902 blind-spot: what cannot be seen here. Told at the start of a session, and with every report on it.
//!
//! Fires for each thing that capture, the node or the packets told of: a kernel without BTF, drop probe, drop reasons,
//! kprobes, or conntrack; IPVS; eBPF programs of others that may redirect packets; encrypted DNS; and loopbacks that are not
//! watched while somebody asks a nameserver there (a pod whose resolv.conf names a loopback address that a server of the
//! pod's own listens at, unless `--pod-loopback` watches it). Information; `count` is how often it was told.
//!
//! Looks alike and does not fire: a loopback nameserver where nobody listens (DP501); a loopback that is watched.

use super::{
    Confidence, Finding, Severity,
    groups::{Code, Groups, Tally},
};
use crate::model::{BlindSpot, InterfaceKind, PodName, Resolver, Timestamp, Vantages};
use std::{collections::BTreeMap, net::IpAddr};

const CODE: Code = Code { code: "DP902", name: "blind-spot" };
/// Different ones that are kept; there are about a dozen.
const MOST: usize = 64;
/// Addresses of one pod.
const MOST_ADDRESSES: usize = 64;

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct BlindSpots {
    vantages: Vantages,
    told: BTreeMap<BlindSpot, Tally>,
    /// Pods with a nameserver of their own on their loopback.
    inside: Groups<PodName, Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    nameserver: Option<IpAddr>,
    addresses: Vec<IpAddr>,
}

impl BlindSpots {
    /// With the table of vantages, which tells what loopbacks are watched.
    pub(super) fn new(vantages: Vantages) -> Self {
        Self { vantages, ..Self::default() }
    }

    /// Takes what somebody found.
    pub(super) fn tell(&mut self, spot: &BlindSpot, time: Timestamp) {
        if let Some(tally) = self.told.get_mut(spot) {
            tally.add(1, time, []);
        } else if self.told.len() < MOST {
            let mut tally = Tally::default();
            tally.add(1, time, []);
            self.told.insert(spot.clone(), tally);
        }
    }

    /// Takes a container's resolver.
    pub(super) fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        let loopback = resolver.nameservers().into_iter().find(IpAddr::is_loopback);
        if let Some(nameserver) = loopback.filter(|_| resolver.has_server)
            && let Some(inside) = self.inside.add(resolver.pod.clone(), 1, time, [])
        {
            inside.nameserver = Some(nameserver);
            inside.addresses = resolver.addresses.iter().copied().take(MOST_ADDRESSES).collect();
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let told = self.told.iter().map(|(spot, tally)| finding(spot, tally));
        // A pod's namespace is called by one of the pod's addresses.
        let watched: Vec<IpAddr> = self
            .vantages
            .all()
            .iter()
            .filter(|vantage| vantage.kind == InterfaceKind::Loopback)
            .filter_map(|vantage| vantage.netns.as_ref()?.parse().ok())
            .collect();
        let inside = self.inside.findings(|pod, group| {
            let Inside { nameserver, addresses } = &group.detail;
            if addresses.iter().any(|address| watched.contains(address)) {
                return None;
            }
            let found = format!("{pod} asks a nameserver of its own at {}", (*nameserver)?);
            let spot = BlindSpot::new(
                "loopback",
                found,
                "what it asks there, which passes its loopback alone",
                "--pod-loopback watches it.",
            );
            Some(finding(&spot, &group.tally))
        });
        told.chain(inside).collect()
    }
}

fn finding(spot: &BlindSpot, tally: &Tally) -> Finding {
    let mut finding = tally.finding(CODE, Severity::Info, Confidence::High);
    finding.subject = vec![("what", spot.what.clone()), ("found", spot.found.clone())];
    finding.summary = format!("{}; not seen: {}", spot.found, spot.unseen);
    finding.advice.clone_from(&spot.advice);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        findings::testing::{CLIENT, at},
        model::{Direction, Vantage},
    };

    #[test]
    fn each_is_told_once() {
        let mut rule = BlindSpots::default();
        let btf = BlindSpot::new("translation", "no BTF", "hops are joined by content", "another kernel");
        for millis in [0, 5, 9] {
            rule.tell(&btf, at(millis));
            rule.tell(&BlindSpot::encrypted_dns(), at(millis));
        }
        insta::assert_debug_snapshot!(rule.findings());
        for number in 0..1_000 {
            rule.tell(&BlindSpot::new("x", number.to_string(), "", ""), at(0));
        }
        assert_eq!(rule.findings().len(), MOST);
    }

    fn told(nameserver: &str, has_server: bool, watched: bool) -> Vec<String> {
        let vantages = Vantages::new();
        if watched {
            vantages.intern(Vantage {
                interface: "lo".into(),
                direction: Direction::Ingress,
                kind: InterfaceKind::Loopback,
                netns: Some(CLIENT.into()),
                ..Vantage::default()
            });
        }
        let mut rule = BlindSpots::new(vantages);
        let resolver = Resolver {
            pod: PodName { namespace: "shop".into(), name: "web-1".into() },
            addresses: vec![CLIENT.parse().unwrap()],
            resolv_conf: format!("nameserver {nameserver}\n"),
            has_server,
            ..Resolver::default()
        };
        rule.resolver(&resolver, at(0));
        rule.findings().into_iter().map(|finding| finding.summary).collect()
    }

    #[test]
    fn a_cache_in_the_pod_that_is_not_watched() {
        assert_eq!(
            told("127.0.0.1", true, false),
            [
                "shop/web-1 asks a nameserver of its own at 127.0.0.1; not seen: what it asks there, which passes its \
              loopback alone"
            ]
        );
    }

    #[test]
    fn does_not_fire_for_watched_loopbacks_or_where_nobody_listens() {
        assert!(told("127.0.0.1", true, true).is_empty(), "watched");
        assert!(told("127.0.0.1", false, false).is_empty(), "nobody listens: DP501");
        assert!(told("10.96.0.10", true, false).is_empty(), "asks the cluster's");
    }
}
