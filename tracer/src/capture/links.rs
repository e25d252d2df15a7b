//! What an interface is, as rtnetlink tells it, and whether it is to be watched.

use crate::model::InterfaceKind;
use globset::{Glob, GlobMatcher};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use std::collections::HashSet;

/// An interface, as far as capture cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: InterfaceKind,
    /// Frames start with an Ethernet header; else with an IP header.
    pub(super) ethernet: bool,
    /// A kind that carries pod or node traffic: watched when no name is given.
    pub(super) carries_traffic: bool,
}

impl Link {
    /// What it is on this node: a veth that leads out of it is the uplink.
    pub(super) fn kind_among(&self, ways_out: &HashSet<String>) -> InterfaceKind {
        match self.kind {
            InterfaceKind::Veth if ways_out.contains(&self.name) => InterfaceKind::Uplink,
            kind => kind,
        }
    }

    /// `None` for a message that names no interface.
    pub(super) fn from_message(message: &LinkMessage) -> Option<Self> {
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        let info = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(info) => info.iter().find_map(|entry| match entry {
                LinkInfo::Kind(kind) => Some(kind),
                _ => None,
            }),
            _ => None,
        });
        let layer = message.header.link_layer_type;
        let (kind, carries_traffic) = kind_of(info, layer);
        let kind = if kind == InterfaceKind::Veth && is_inner(&name) { InterfaceKind::Uplink } else { kind };
        Some(Self {
            index: message.header.index,
            name,
            kind,
            ethernet: matches!(layer, LinkLayerType::Ether | LinkLayerType::Loopback),
            carries_traffic,
        })
    }
}

/// Whether a veth is called as the end inside a container is (`eth0`, CNI's default for `CNI_IFNAME`): seen from in
/// there, as in a node that is a container itself, it is the way out.
fn is_inner(name: &str) -> bool {
    name.strip_prefix("eth")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The kind, and whether it is watched when no name is given.
fn kind_of(info: Option<&InfoKind>, layer: LinkLayerType) -> (InterfaceKind, bool) {
    match (info, layer) {
        (_, LinkLayerType::Loopback) => (InterfaceKind::Loopback, false),
        (Some(InfoKind::Veth | InfoKind::Netkit), _) => (InterfaceKind::Veth, true),
        (Some(InfoKind::Bridge), _) => (InterfaceKind::Bridge, true),
        (
            Some(
                InfoKind::Vxlan
                | InfoKind::Geneve
                | InfoKind::Wireguard
                | InfoKind::IpIp
                | InfoKind::Ip6Tnl
                | InfoKind::SitTun
                | InfoKind::GreTun
                | InfoKind::GreTun6
                | InfoKind::GreTap
                | InfoKind::GreTap6
                | InfoKind::Tun,
            ),
            _,
        ) => {
            // The fallback devices sit0, gre0 and the like carry nothing; watching them costs nothing either.
            (InterfaceKind::Tunnel, true)
        }
        // No kind: hardware, or what the hypervisor shows as hardware.
        (
            None
            | Some(InfoKind::Bond | InfoKind::Team | InfoKind::Vlan | InfoKind::MacVlan | InfoKind::IpVlan),
            LinkLayerType::Ether | LinkLayerType::None | LinkLayerType::Rawip,
        ) => (InterfaceKind::Uplink, true),
        _ => (InterfaceKind::Unknown, false),
    }
}

/// The interfaces that default routes lead through, of the calling thread's namespace: by them a node that is a container
/// itself (kind) tells its uplink from its pods' veths.
pub(super) fn ways_out() -> HashSet<String> {
    // Without IPv6 there is no such file, and no such route.
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    default_routes(&read("route"), &read("ipv6_route"))
}

/// From the kernel's tables (`fib_route_seq_show`, `ipv6_route_native_seq_show`).
fn default_routes(ipv4: &str, ipv6: &str) -> HashSet<String> {
    let fields = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let of_ipv4 = ipv4.lines().skip(1).map(fields).filter_map(|fields| match &fields[..] {
        [interface, to, _, _, _, _, _, mask, ..] if to == "00000000" && mask == "00000000" => {
            Some(interface.clone())
        }
        _ => None,
    });
    let of_ipv6 = ipv6.lines().map(fields).filter_map(|fields| match &fields[..] {
        [to, length, .., interface] if length == "00" && to.bytes().all(|digit| digit == b'0') => {
            Some(interface.clone())
        }
        _ => None,
    });
    of_ipv4.chain(of_ipv6).collect()
}

/// Which interfaces to watch: names and glob patterns, or all that carry pod or node traffic.
#[derive(Clone, Debug, Default)]
pub struct Interfaces {
    names: Vec<(String, GlobMatcher)>,
}

impl Interfaces {
    /// From what the user gave; empty means automatic.
    ///
    /// # Errors
    /// The first pattern that is no glob.
    pub fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let matcher = |pattern: &String| Ok((pattern.clone(), Glob::new(pattern)?.compile_matcher()));
        Ok(Self { names: patterns.iter().map(matcher).collect::<Result<_, globset::Error>>()? })
    }

    /// The loopback alone.
    pub(super) fn loopback() -> Self {
        // A plain word is a pattern.
        Self::new(&["lo".into()]).unwrap_or_default()
    }

    pub(super) fn wants(&self, link: &Link) -> bool {
        if self.names.is_empty() {
            return link.carries_traffic;
        }
        self.names.iter().any(|(_, glob)| glob.is_match(&link.name))
    }

    /// The first plain name or pattern that none of `links` matches.
    pub(super) fn unmatched<'a>(&'a self, links: &[Link]) -> Option<&'a str> {
        let (name, _) =
            self.names.iter().find(|(_, glob)| !links.iter().any(|link| glob.is_match(&link.name)))?;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, info: Option<InfoKind>, layer: LinkLayerType) -> Link {
        let mut message = LinkMessage::default();
        message.header.index = 4;
        message.header.link_layer_type = layer;
        message.attributes.push(LinkAttribute::IfName(name.into()));
        if let Some(kind) = info {
            message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        }
        Link::from_message(&message).unwrap()
    }

    #[test]
    fn automatic_takes_veths_bridges_tunnels_and_uplinks() {
        let automatic = Interfaces::default();
        let cases = [
            (link("veth1", Some(InfoKind::Veth), LinkLayerType::Ether), InterfaceKind::Veth, true),
            (link("cni0", Some(InfoKind::Bridge), LinkLayerType::Ether), InterfaceKind::Bridge, true),
            (link("eth0", None, LinkLayerType::Ether), InterfaceKind::Uplink, true),
            (link("eth0", Some(InfoKind::Veth), LinkLayerType::Ether), InterfaceKind::Uplink, true),
            (link("ether", Some(InfoKind::Veth), LinkLayerType::Ether), InterfaceKind::Veth, true),
            (link("bond0", Some(InfoKind::Bond), LinkLayerType::Ether), InterfaceKind::Uplink, true),
            (link("wg0", Some(InfoKind::Wireguard), LinkLayerType::None), InterfaceKind::Tunnel, true),
            (link("lo", None, LinkLayerType::Loopback), InterfaceKind::Loopback, false),
            (link("dummy0", Some(InfoKind::Dummy), LinkLayerType::Ether), InterfaceKind::Unknown, false),
        ];
        for (link, kind, watched) in cases {
            assert_eq!((link.kind, automatic.wants(&link)), (kind, watched), "{}", link.name);
        }
    }

    #[test]
    fn names_and_patterns_take_just_what_they_name() {
        let lo = link("lo", None, LinkLayerType::Loopback);
        let veth = link("veth12", Some(InfoKind::Veth), LinkLayerType::Ether);
        let chosen = Interfaces::new(&["lo".into(), "veth*".into(), "eth9".into()]).unwrap();
        assert!(chosen.wants(&lo) && chosen.wants(&veth));
        assert_eq!(chosen.unmatched(&[lo, veth]), Some("eth9"));
        assert!(Interfaces::new(&["[".into()]).is_err());
    }

    #[test]
    fn a_link_without_ethernet_starts_with_ip() {
        assert!(!link("wg0", Some(InfoKind::Wireguard), LinkLayerType::None).ethernet);
        assert!(link("lo", None, LinkLayerType::Loopback).ethernet);
    }

    #[test]
    fn a_veth_with_a_default_route_is_the_uplink() {
        let ipv4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t3532A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            cni0\t0001F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            veth1\t00000000\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n";
        let (any, some) = ("0".repeat(32), format!("fd00{}", "0".repeat(28)));
        let ipv6 = format!(
            "{some} 40 {any} 00 {any} 00000100 00000001 00000000 00000001 cni0\n\
             {any} 00 {any} 00 {any} 00000400 00000001 00000000 00000003 eth1\n"
        );
        let ways_out = default_routes(ipv4, &ipv6);
        assert_eq!(ways_out, ["eth0", "eth1"].map(str::to_owned).into());
        let veth = |name| link(name, Some(InfoKind::Veth), LinkLayerType::Ether);
        assert_eq!(veth("eth0").kind_among(&ways_out), InterfaceKind::Uplink);
        assert_eq!(veth("veth1").kind_among(&ways_out), InterfaceKind::Veth);
        assert_eq!(default_routes("", "nonsense\n00"), HashSet::new());
    }
}
