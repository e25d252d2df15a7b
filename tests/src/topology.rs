//! Where everything is: the addresses of the lab and the `ip` commands that make its links.
//!
//! ```text
//!                 fabric: a switch, 192.168.50.0/24, fd00:50::/64
//!        ┌──────────────────────┼──────────────────────┐
//!      eth0 .1                eth0 .2                eth0 .53
//!  node: kube-proxy       node2: kube-proxy        upstream: a resolver that has
//!   cni0 10.244.1.1        cni0 10.244.2.1          no route to the pods, so that
//!   ├ veth-dns1 .2         ├ veth-dns3 .2           the nodes must masquerade, and
//!   ├ veth-dns2 .3         └ veth-far  .3           their default gateway, which
//!   ├ veth-web  .4                                  leads nowhere
//!   ├ veth-db   .5
//!   └ nodelocaldns 169.254.25.10
//! ```

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The cluster DNS service, `kube-dns` in `kube-system`.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The cluster DNS service's IPv6 address.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0xa);
/// A DNS service that has no endpoint: kube-proxy rejects what is sent to it.
pub const EMPTY_VIP4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 99);
/// The IPv6 address of the service without endpoints.
pub const EMPTY_VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x99);
/// The resolver beyond the nodes.
pub const UPSTREAM4: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 53);
/// The IPv6 address of the resolver beyond the nodes.
pub const UPSTREAM6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, 0x53);
/// The node-local address, on the interface `nodelocaldns` of the node.
pub const NODE_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 25, 10);
/// All pods of all nodes.
pub const POD_CIDR4: &str = "10.244.0.0/16";
/// All pods of all nodes, IPv6.
pub const POD_CIDR6: &str = "fd00:244::/32";

/// One of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// The node under observation.
    Node,
    /// The other one.
    Node2,
}

impl Site {
    fn number(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Node2 => 2,
        }
    }

    /// The IPv4 address of its uplink.
    pub fn ip4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 50, self.number())
    }

    /// The IPv6 address of its uplink.
    pub fn ip6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, self.number().into())
    }

    /// The IPv4 address of host number `host` on its pod network; 1 is the bridge itself.
    pub fn pod_ip4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number(), host)
    }

    /// The IPv6 address of host number `host` on its pod network; 1 is the bridge itself.
    pub fn pod_ip6(self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x244, self.number().into(), 0, 0, 0, 0, host.into())
    }

    fn other(self) -> Self {
        match self {
            Self::Node => Self::Node2,
            Self::Node2 => Self::Node,
        }
    }
}

/// The switch and the links between it, the nodes and the upstream; run outside of all of them.
///
/// The switch comes first so that no port has the index of the interface at its other end: the kernel
/// (`linkwatch_urgent_event`) takes such a link for a stacked one and lets it wait up to a second for its carrier.
pub(crate) fn fabric_links(prefix: &str) -> String {
    let mut batch = format!("link add name switch0 netns {prefix}-fabric type bridge mcast_snooping 0\n");
    for peer in ["node", "node2", "upstream"] {
        // Writing to a String cannot fail.
        let _ = writeln!(
            batch,
            "link add name eth0 netns {prefix}-{peer} type veth peer name {peer} netns {prefix}-fabric"
        );
    }
    batch
}

/// What makes the fabric a switch.
pub(crate) fn fabric_batch() -> String {
    let mut batch = "link set lo up\n".to_owned();
    for port in ["node", "node2", "upstream"] {
        let _ = writeln!(batch, "link set {port} master switch0 up");
    }
    batch.push_str("link set switch0 up\n");
    batch
}

/// Addresses and routes of a node. The bridge has a MAC address of its own, as network plug-ins see to: else it would take
/// over the lowest one of its ports, and pods that know it would send to nobody when a pod is added.
pub(crate) fn node_batch(site: Site) -> String {
    let other = site.other();
    let mut batch = format!(
        "link set lo up
link add name cni0 address 0a:58:0a:f4:0{number}:01 type bridge mcast_snooping 0
addr add {bridge4}/24 dev cni0
addr add {bridge6}/64 dev cni0 nodad
link set cni0 up
addr add {ip4}/24 dev eth0
addr add {ip6}/64 dev eth0 nodad
link set eth0 up
route add {other_pods4}/24 via {other4}
route add {other_pods6}/64 via {other6}
route add default via {UPSTREAM4}
route add default via {UPSTREAM6}
",
        number = site.number(),
        bridge4 = site.pod_ip4(1),
        bridge6 = site.pod_ip6(1),
        ip4 = site.ip4(),
        ip6 = site.ip6(),
        other_pods4 = other.pod_ip4(0),
        other_pods6 = other.pod_ip6(0),
        other4 = other.ip4(),
        other6 = other.ip6(),
    );
    if site == Site::Node {
        // Real nodes have a dummy device here; not every kernel has those, and a veth serves as well.
        let _ = write!(
            batch,
            "link add name nodelocaldns type veth peer name nodelocal-peer
addr add {NODE_LOCAL}/32 dev nodelocaldns
link set nodelocaldns up
link set nodelocal-peer up
"
        );
    }
    batch
}

/// Addresses of the upstream: no route leads from it to the pods.
pub(crate) fn upstream_batch() -> String {
    format!(
        "link set lo up\naddr add {UPSTREAM4}/24 dev eth0\naddr add {UPSTREAM6}/64 dev eth0 nodad\nlink set eth0 up\n"
    )
}

/// The link of a pod, made outside of both namespaces.
pub(crate) fn pod_link(node: &str, pod: &str, veth: &str) -> String {
    format!("link add name {veth} netns {node} type veth peer name eth0 netns {pod}\n")
}

/// The node's side of a pod's link.
pub(crate) fn pod_port(veth: &str) -> String {
    format!("link set {veth} master cni0 up\nlink set {veth} type bridge_slave hairpin on\n")
}

/// The pod's side of its link.
pub(crate) fn pod_batch(site: Site, host: u8) -> String {
    format!(
        "link set lo up
addr add {}/24 dev eth0
addr add {}/64 dev eth0 nodad
link set eth0 up
route add default via {}
route add default via {}
",
        site.pod_ip4(host),
        site.pod_ip6(host),
        site.pod_ip4(1),
        site.pod_ip6(1),
    )
}
