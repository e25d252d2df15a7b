//! A Kubernetes-shaped node out of network namespaces; the picture is in [`crate::topology`].

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::namespace::{NODE_SYSCTLS, Namespace, SETUP_LIMIT, SWITCH_SYSCTLS, ip_batch};
use crate::process::run_with_input;
use crate::server::{Server, ServerKind, ServerOptions};
use crate::service::{IpFamily, Service, rules};
use crate::sweep::{self, Watcher};
use crate::topology::{self, EMPTY_VIP4, EMPTY_VIP6, Site, UPSTREAM4, UPSTREAM6, VIP4, VIP6};

/// The search list and options that kubelet writes, with one suffix more from the node's own resolv.conf.
pub const SEARCH: &str =
    "search default.svc.cluster.local svc.cluster.local cluster.local corp.internal\noptions ndots:5\n";

static LABS_MADE: AtomicU32 = AtomicU32::new(0);

/// What a lab is made of.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// What answers DNS in the server pods and upstream; `None`: no server is started.
    pub server: Option<ServerKind>,
    /// Client pods on the node, besides the server pods. Names have at most 10 letters.
    pub pods: Vec<String>,
    /// Client pods on the other node.
    pub far_pods: Vec<String>,
    /// The server pods behind the DNS service: any of `dns1`, `dns2` (on the node), `dns3` (on the other).
    pub endpoints: Vec<String>,
    /// The pods' resolv.conf.
    pub resolv_conf: String,
    /// `net.bridge.bridge-nf-call-iptables` and its IPv6 sister on the node.
    pub bridge_nf: bool,
    /// Whether the nodes have kube-proxy's rules; without them they have no NAT chain either, and conntrack sees what
    /// a rule makes it look at.
    pub service_rules: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            server: Some(ServerKind::preferred()),
            pods: vec!["web".to_owned(), "db".to_owned()],
            far_pods: vec!["far".to_owned()],
            endpoints: vec!["dns1".to_owned(), "dns2".to_owned()],
            resolv_conf: resolv_conf(&[VIP4.into()]),
            bridge_nf: true,
            service_rules: true,
        }
    }
}

/// A resolv.conf as kubelet writes it, for these nameservers.
pub fn resolv_conf(nameservers: &[IpAddr]) -> String {
    let lines: String = nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    lines + SEARCH
}

/// A pod: its namespace and the host's end of its link.
#[derive(Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Which node it is on.
    pub site: Site,
    /// Its IPv4 address.
    pub ip4: Ipv4Addr,
    /// Its IPv6 address.
    pub ip6: Ipv6Addr,
    /// The interface on its node that leads to it.
    pub veth: String,
    /// Its namespace.
    pub namespace: Namespace,
}

impl Pod {
    /// The name of its network namespace.
    pub fn netns(&self) -> &str {
        self.namespace.name()
    }

    /// A command in the pod, with the pod's resolv.conf.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.namespace.command(program)
    }
}

/// The node and everything around it. Dropping it takes it all down; so does the end of this process, however it
/// ends.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    directory: PathBuf,
    servers: BTreeMap<String, Server>,
    pods: BTreeMap<String, Pod>,
    node: Namespace,
    node2: Namespace,
    fabric: Namespace,
    upstream: Namespace,
    services: Vec<Service>,
    resolv_conf: String,
    made: [u8; 2],
    service_rules: bool,
    watcher: Watcher,
}

impl Lab {
    /// Builds a lab, taking down first those that killed owners left.
    ///
    /// # Errors
    /// Not root, a tool is missing (see [`crate::requirements`]), or a step fails; nothing is left then either.
    pub fn new(options: LabOptions) -> Result<Self> {
        sweep::sweep()?;
        let prefix = sweep::prefix(LABS_MADE.fetch_add(1, Ordering::Relaxed));
        let directory = sweep::directory(&prefix);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {} (the lab needs root)", directory.display()))?;
        let mut watcher = Watcher::start(&prefix, &directory)?;
        match Self::build(&prefix, &directory, &options) {
            Ok(parts) => parts.into_lab(prefix, directory, watcher, options),
            Err(e) => {
                watcher.take_down();
                Err(e.context("the lab cannot be built"))
            }
        }
    }

    fn build(prefix: &str, directory: &Path, options: &LabOptions) -> Result<Infrastructure> {
        sweep::record_owner(directory)?;
        let names = ["node", "node2", "fabric", "upstream"];
        let all: String = names.iter().map(|name| format!("netns add {prefix}-{name}\n")).collect();
        ip_batch(None, &all)?;
        let start = |name: &str, sysctls: &str| {
            Namespace::start(&format!("{prefix}-{name}"), directory, &options.resolv_conf, sysctls)
        };
        let mut parts = Infrastructure {
            node: start("node", NODE_SYSCTLS)?,
            node2: start("node2", NODE_SYSCTLS)?,
            fabric: start("fabric", SWITCH_SYSCTLS)?,
            upstream: start("upstream", "")?,
        };
        for namespace in [&mut parts.node, &mut parts.node2, &mut parts.fabric, &mut parts.upstream] {
            namespace.wait_ready()?;
        }
        ip_batch(None, &topology::fabric_links(prefix))?;
        ip_batch(Some(parts.fabric.name()), &topology::fabric_batch())?;
        ip_batch(Some(parts.node.name()), &topology::node_batch(Site::Node))?;
        ip_batch(Some(parts.node2.name()), &topology::node_batch(Site::Node2))?;
        ip_batch(Some(parts.upstream.name()), &topology::upstream_batch())?;
        for (namespace, port) in
            [(&parts.node, "node"), (&parts.node2, "node2"), (&parts.upstream, "upstream")]
        {
            namespace.wait_link_up("eth0")?;
            parts.fabric.wait_link_up(port)?;
        }
        Ok(parts)
    }

    /// The name of the node's network namespace: the one to trace in.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The other node.
    pub fn node2(&self) -> &Namespace {
        &self.node2
    }

    /// The switch between the nodes and the upstream.
    pub fn fabric(&self) -> &Namespace {
        &self.fabric
    }

    /// Where the resolver beyond the nodes runs.
    pub fn upstream(&self) -> &Namespace {
        &self.upstream
    }

    /// The namespace of a node.
    pub fn site(&self, site: Site) -> &Namespace {
        match site {
            Site::Node => &self.node,
            Site::Node2 => &self.node2,
        }
    }

    /// Whether the nodes translate service addresses.
    pub fn has_service_rules(&self) -> bool {
        self.service_rules
    }

    /// The address of the cluster DNS service.
    pub fn vip(&self) -> Ipv4Addr {
        VIP4
    }

    /// The IPv6 address of the cluster DNS service.
    pub fn vip6(&self) -> Ipv6Addr {
        VIP6
    }

    /// What all names of this lab's namespaces begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where the lab's files and logs are; goes with the lab.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pid of the process that takes the lab down when this one is killed.
    pub fn watcher_pid(&self) -> u32 {
        self.watcher.pid()
    }

    /// A pod by its name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).with_context(|| format!("the lab has no pod {name}"))
    }

    /// All pods, servers included, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// A server by the name of its pod, or `upstream`.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn server(&mut self, name: &str) -> Result<&mut Server> {
        self.servers.get_mut(name).with_context(|| format!("the lab has no server {name}"))
    }

    /// Adds a pod to the node.
    ///
    /// # Errors
    /// The name is taken or too long, the node is full, or a step fails.
    pub fn add_pod(&mut self, name: &str) -> Result<&Pod> {
        self.add_pods(Site::Node, &[name.to_owned()])?;
        self.pod(name)
    }

    /// Adds several pods at once.
    ///
    /// # Errors
    /// As [`Lab::add_pod`].
    pub fn add_pods(&mut self, site: Site, names: &[String]) -> Result<()> {
        let node = self.site(site).name().to_owned();
        let (mut spaces, mut links, mut ports) = (String::new(), String::new(), String::new());
        for name in names {
            if name.is_empty() || name.len() > 10 || name.contains(|c: char| !c.is_ascii_alphanumeric()) {
                bail!("a pod's name has 1 to 10 ASCII letters and digits, not {name:?}");
            }
            if self.pods.contains_key(name) {
                bail!("the lab already has a pod {name}");
            }
            let (space, veth) = (format!("{}-{name}", self.prefix), format!("veth-{name}"));
            spaces.push_str(&format!("netns add {space}\n"));
            links.push_str(&topology::pod_link(&node, &space, &veth));
            ports.push_str(&topology::pod_port(&veth));
        }
        ip_batch(None, &spaces)?;
        let mut pods = Vec::new();
        for name in names {
            let host = self.next_host(site)?;
            let space = format!("{}-{name}", self.prefix);
            pods.push((
                host,
                Pod {
                    name: name.clone(),
                    site,
                    ip4: site.pod_ip4(host),
                    ip6: site.pod_ip6(host),
                    veth: format!("veth-{name}"),
                    namespace: Namespace::start(&space, &self.directory, &self.resolv_conf, "")?,
                },
            ));
        }
        for (_, pod) in &mut pods {
            pod.namespace.wait_ready()?;
        }
        ip_batch(None, &links)?;
        ip_batch(Some(&node), &ports)?;
        for (host, pod) in pods {
            ip_batch(Some(pod.netns()), &topology::pod_batch(site, host))?;
            pod.namespace.wait_link_up("eth0")?;
            self.site(site).wait_link_up(&pod.veth)?;
            self.pods.insert(pod.name.clone(), pod);
        }
        Ok(())
    }

    fn next_host(&mut self, site: Site) -> Result<u8> {
        let [first, second] = &mut self.made;
        let made = if site == Site::Node { first } else { second };
        // .0 is the network, .1 the bridge, .255 the broadcast address.
        *made = made.checked_add(1).filter(|host| *host < 255).context("the node has no pod address left")?;
        Ok(*made)
    }

    /// Removes a pod: its processes, then its namespace and with it its link. Its address is not given again.
    ///
    /// # Errors
    /// There is no such pod, or it cannot be deleted.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        self.servers.remove(name);
        let pod = self.pods.remove(name).with_context(|| format!("the lab has no pod {name}"))?;
        let space = pod.netns().to_owned();
        // The link goes at once, even where a process still holds the namespace.
        ip_batch(Some(self.site(pod.site).name()), &format!("link delete {}\n", pod.veth))?;
        drop(pod);
        ip_batch(None, &format!("netns delete {space}\n"))
    }

    /// Changes which pods are behind the DNS service, on both nodes; none: the service rejects.
    ///
    /// # Errors
    /// There is no such pod, or the rules cannot be loaded.
    pub fn set_endpoints(&mut self, pods: &[&str]) -> Result<()> {
        let mut endpoints = Vec::new();
        for name in pods {
            let pod = self.pod(name)?;
            endpoints.extend([IpAddr::from(pod.ip4), IpAddr::from(pod.ip6)]);
        }
        if let Some(service) = self.services.first_mut() {
            service.endpoints = endpoints;
        }
        self.load_rules()
    }

    /// Adds an IPv4 service, or changes which pods are behind it, on both nodes.
    ///
    /// # Errors
    /// There is no such pod, or the rules cannot be loaded.
    pub fn set_service(&mut self, name: &str, address: Ipv4Addr, pods: &[&str]) -> Result<()> {
        let endpoints =
            pods.iter().map(|name| Ok(self.pod(name)?.ip4.into())).collect::<Result<Vec<IpAddr>>>()?;
        self.services.retain(|service| service.name != name);
        let addresses = vec![address.into()];
        self.services.push(Service { name: name.to_owned(), addresses, endpoints });
        self.load_rules()
    }

    fn load_rules(&self) -> Result<()> {
        if !self.service_rules {
            return Ok(());
        }
        for node in [&self.node, &self.node2] {
            for family in [IpFamily::V4, IpFamily::V6] {
                let text = rules(family, &self.services);
                run_with_input(&mut node.command(family.restore()), &text, SETUP_LIMIT)
                    .with_context(|| format!("cannot load the service rules of {}", node.name()))?;
            }
        }
        Ok(())
    }

    /// Starts one more of the cluster's DNS servers, in a pod that has none.
    ///
    /// # Errors
    /// As [`Lab::start_server`].
    pub fn start_cluster_server(&mut self, name: &str) -> Result<()> {
        let kind = ServerKind::preferred();
        self.start_server(name, kind, &cluster_options(kind))
    }

    /// Starts a server in a pod, or with the name `upstream` beyond the nodes, and waits until it answers.
    ///
    /// # Errors
    /// There is no such pod, or the server does not start.
    pub fn start_server(&mut self, name: &str, kind: ServerKind, options: &ServerOptions) -> Result<()> {
        let namespace = if name == "upstream" { &self.upstream } else { &self.pod(name)?.namespace };
        let server = Server::start(name, namespace, kind, options)?;
        self.servers.insert(name.to_owned(), server);
        Ok(())
    }
}

struct Infrastructure {
    node: Namespace,
    node2: Namespace,
    fabric: Namespace,
    upstream: Namespace,
}

impl Infrastructure {
    fn into_lab(
        self,
        prefix: String,
        directory: PathBuf,
        watcher: Watcher,
        options: LabOptions,
    ) -> Result<Lab> {
        let Self { node, node2, fabric, upstream } = self;
        let services = vec![
            Service {
                name: "kube-system/kube-dns".to_owned(),
                addresses: vec![VIP4.into(), VIP6.into()],
                endpoints: Vec::new(),
            },
            Service {
                name: "kube-system/dns-without-endpoints".to_owned(),
                addresses: vec![EMPTY_VIP4.into(), EMPTY_VIP6.into()],
                endpoints: Vec::new(),
            },
        ];
        // From here on a failure drops the lab, and that takes it down.
        let mut lab = Lab {
            prefix,
            directory,
            servers: BTreeMap::new(),
            pods: BTreeMap::new(),
            node,
            node2,
            fabric,
            upstream,
            services,
            resolv_conf: options.resolv_conf,
            made: [1, 1],
            service_rules: options.service_rules,
            watcher,
        };
        if !options.bridge_nf {
            lab.node.script(
                "echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables\necho 0 > /proc/sys/net/bridge/bridge-nf-call-ip6tables\n",
            )?;
        }
        let mut near = vec!["dns1".to_owned(), "dns2".to_owned()];
        near.extend(options.pods);
        let mut far = vec!["dns3".to_owned()];
        far.extend(options.far_pods);
        lab.add_pods(Site::Node, &near)?;
        lab.add_pods(Site::Node2, &far)?;
        let endpoints: Vec<&str> = options.endpoints.iter().map(String::as_str).collect();
        lab.set_endpoints(&endpoints)?;
        if let Some(kind) = options.server {
            lab.start_servers(kind, &options.endpoints)?;
        }
        Ok(lab)
    }
}

impl Lab {
    fn start_servers(&mut self, kind: ServerKind, pods: &[String]) -> Result<()> {
        let cluster = cluster_options(kind);
        let internet = ServerOptions::internet();
        // All are started before any is waited for.
        let mut servers =
            vec![("upstream".to_owned(), Server::spawn("upstream", &self.upstream, kind, &internet)?)];
        for name in pods {
            let pod = self.pod(name)?;
            servers.push((name.clone(), Server::spawn(name, &pod.namespace, kind, &cluster)?));
        }
        for (name, mut server) in servers {
            let namespace = if name == "upstream" { &self.upstream } else { &self.pod(&name)?.namespace };
            server.wait_ready(namespace)?;
            self.servers.insert(name, server);
        }
        Ok(())
    }
}

/// What a server pod of the cluster is set up to do.
fn cluster_options(kind: ServerKind) -> ServerOptions {
    match kind {
        ServerKind::CoreDns => ServerOptions::cluster(vec![SocketAddr::from((UPSTREAM4, 53))]),
        ServerKind::Fast => ServerOptions::everything(),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.watcher.take_down();
    }
}

/// The addresses at which the upstream answers.
pub fn upstream_addresses() -> [IpAddr; 2] {
    [UPSTREAM4.into(), UPSTREAM6.into()]
}
