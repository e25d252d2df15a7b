//! Real DNS servers: CoreDNS with zones and a forwarder, and Knot DNS where packets a second count.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::process::Process;
use crate::query;
use crate::toolbox;
use crate::topology::{NODE_LOCAL, VIP4};

/// Which program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// CoreDNS, built from its module: forwards, caches, and does what a cluster's does.
    CoreDns,
    /// Knot DNS: authoritative only, several times as fast.
    Fast,
}

impl ServerKind {
    /// CoreDNS where it is built or can be, else the fast server, which then has the outer zones itself.
    pub fn preferred() -> Self {
        if toolbox::has_coredns() { Self::CoreDns } else { Self::Fast }
    }
}

/// A zone: its origin and its records, in master-file form relative to the origin (RFC 1035 section 5).
#[derive(Clone, Debug)]
pub struct Zone {
    /// `.` or a name without its trailing dot.
    pub origin: String,
    /// Lines such as `www A 198.51.100.10`; SOA and NS records are added.
    pub records: Vec<String>,
}

impl Zone {
    /// An empty zone.
    pub fn new(origin: &str) -> Self {
        Self { origin: origin.to_owned(), records: Vec::new() }
    }

    /// Adds a record, a line such as `www A 198.51.100.10`.
    #[must_use]
    pub fn with(mut self, record: impl Into<String>) -> Self {
        self.records.push(record.into());
        self
    }

    fn absolute_origin(&self) -> String {
        format!("{}.", self.origin.trim_end_matches('.'))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "$ORIGIN {}\n$TTL 30\n@ SOA ns.lab.test. hostmaster.lab.test. 1 7200 1800 86400 30\n@ NS ns.lab.test.\n",
            self.absolute_origin()
        );
        for record in &self.records {
            text.push_str(record);
            text.push('\n');
        }
        text
    }
}

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Zones it has itself.
    pub zones: Vec<Zone>,
    /// Addresses to listen at; none: all.
    pub listen: Vec<IpAddr>,
    /// Where CoreDNS sends everything else; the fast server refuses it.
    pub forward: Vec<SocketAddr>,
    /// CoreDNS forwards over TCP whatever way it was asked.
    pub forward_over_tcp: bool,
    /// Names below these get an empty NOERROR from CoreDNS, whatever is asked.
    pub empty_below: Vec<String>,
    /// Further lines of CoreDNS's server block.
    pub corefile_lines: Vec<String>,
    /// What CoreDNS does below names: pairs of a name and the lines of its own server block.
    pub below: Vec<(String, String)>,
}

impl ServerOptions {
    /// What a cluster's DNS server does: `cluster.local`, and the rest to `forward`.
    pub fn cluster(forward: Vec<SocketAddr>) -> Self {
        Self {
            zones: vec![cluster_zone()],
            forward,
            corefile_lines: ["health", "ready", "cache 30", "loop", "reload"].map(str::to_owned).to_vec(),
            ..Self::default()
        }
    }

    /// What the resolver beyond the nodes does: a few zones, and NXDOMAIN for all else.
    pub fn internet() -> Self {
        Self { zones: internet_zones(), ..Self::default() }
    }

    /// What a node-local cache does: everything to the cluster's server, over TCP.
    pub fn node_local() -> Self {
        Self {
            listen: vec![NODE_LOCAL.into()],
            forward: vec![SocketAddr::from((VIP4, 53))],
            forward_over_tcp: true,
            corefile_lines: ["cache 30", "loop", "reload"].map(str::to_owned).to_vec(),
            ..Self::default()
        }
    }

    /// All zones at one server: what the fast one serves.
    pub fn everything() -> Self {
        let mut zones = internet_zones();
        zones.push(cluster_zone());
        Self { zones, ..Self::default() }
    }
}

/// Services of the cluster. `web.default` has no IPv6 address; `many.shop` does not fit into a UDP response.
pub fn cluster_zone() -> Zone {
    let zone = Zone::new("cluster.local")
        .with("kubernetes.default.svc A 10.96.0.1")
        .with("kube-dns.kube-system.svc A 10.96.0.10")
        .with("kube-dns.kube-system.svc AAAA fd00:96::a")
        .with("web.default.svc A 10.96.1.10")
        .with("payments.shop.svc A 10.96.1.20")
        .with("payments.shop.svc AAAA fd00:96::20");
    with_many(zone, "many.shop.svc")
}

/// `example.com`, `example.net` and the root. `v4only.example.com` has no IPv6 address; `many.example.com` does not
/// fit into a UDP response.
pub fn internet_zones() -> Vec<Zone> {
    let com = Zone::new("example.com")
        .with("www A 198.51.100.10")
        .with("www AAAA 2001:db8::10")
        .with("api A 198.51.100.20")
        .with("api AAAA 2001:db8::20")
        .with("v4only A 198.51.100.30")
        .with("alias CNAME www");
    let net = Zone::new("example.net").with("www A 198.51.100.40").with("www AAAA 2001:db8::40");
    vec![with_many(com, "many"), net, Zone::new(".")]
}

fn with_many(zone: Zone, name: &str) -> Zone {
    (1..=60).fold(zone, |zone, host| zone.with(format!("{name} A {}", Ipv4Addr::new(198, 51, 101, host))))
}

/// A running DNS server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    kind: ServerKind,
    probe: SocketAddr,
}

impl Server {
    /// Starts a server in `namespace`, at port 53 of all its addresses, and waits until it answers.
    ///
    /// # Errors
    /// The program is missing or does not start; the message has its log.
    pub fn start(
        name: &str,
        namespace: &Namespace,
        kind: ServerKind,
        options: &ServerOptions,
    ) -> Result<Self> {
        let mut server = Self::spawn(name, namespace, kind, options)?;
        server.wait_ready(namespace)?;
        Ok(server)
    }

    pub(crate) fn spawn(
        name: &str,
        namespace: &Namespace,
        kind: ServerKind,
        options: &ServerOptions,
    ) -> Result<Self> {
        let directory = namespace.files().join(format!("{name}.server"));
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        for zone in &options.zones {
            write(&zone_file(&directory, zone), &zone.text())?;
        }
        let mut command = match kind {
            ServerKind::CoreDns => coredns(namespace, &directory, options)?,
            ServerKind::Fast => knot(namespace, &directory, options)?,
        };
        let process = Process::spawn(name, &mut command, &directory.join("log"))?;
        let address = options.listen.first().copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
        Ok(Self { process, kind, probe: SocketAddr::new(address, 53) })
    }

    pub(crate) fn wait_ready(&mut self, namespace: &Namespace) -> Result<()> {
        query::wait_for_server(namespace, self.probe, "lab.test", Duration::from_secs(20))
            .with_context(|| format!("{:?} did not start: {}", self.kind, self.log().unwrap_or_default()))
    }

    /// Which program it is.
    pub fn kind(&self) -> ServerKind {
        self.kind
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it wrote.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }
}

fn zone_file(directory: &Path, zone: &Zone) -> PathBuf {
    directory.join(format!("{}.zone", zone.origin.trim_matches('.')))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn coredns(namespace: &Namespace, directory: &Path, options: &ServerOptions) -> Result<Command> {
    let corefile = directory.join("Corefile");
    write(&corefile, &corefile_text(directory, options))?;
    let mut command = namespace.command(toolbox::coredns()?);
    command.arg("-conf").arg(corefile);
    Ok(command)
}

fn corefile_text(directory: &Path, options: &ServerOptions) -> String {
    let mut text = ".:53 {\n    errors\n".to_owned();
    // Writing to a String cannot fail.
    for address in &options.listen {
        let _ = writeln!(text, "    bind {address}");
    }
    for suffix in &options.empty_below {
        let _ = writeln!(text, "    template ANY ANY {suffix} {{\n        rcode NOERROR\n    }}");
    }
    for zone in &options.zones {
        let _ =
            writeln!(text, "    file {} {}", zone_file(directory, zone).display(), zone.absolute_origin());
    }
    if !options.forward.is_empty() {
        let servers: Vec<_> = options.forward.iter().map(SocketAddr::to_string).collect();
        let over = if options.forward_over_tcp { " {\n        force_tcp\n    }" } else { "" };
        let _ = writeln!(text, "    forward . {}{over}", servers.join(" "));
    }
    for line in &options.corefile_lines {
        let _ = writeln!(text, "    {line}");
    }
    text.push_str("}\n");
    for (name, lines) in &options.below {
        let _ = writeln!(text, "{name}:53 {{\n    {lines}\n}}");
    }
    text
}

fn knot(namespace: &Namespace, directory: &Path, options: &ServerOptions) -> Result<Command> {
    let everywhere = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let listen = if options.listen.is_empty() { &everywhere[..] } else { &options.listen };
    let listen: Vec<_> = listen.iter().map(|address: &IpAddr| format!("{address}@53")).collect();
    let mut text = format!(
        "server:
    listen: [{1}]
    rundir: {0}
database:
    storage: {0}/db
log:
  - target: stderr
    any: warning
template:
  - id: default
    zonefile-sync: -1
    journal-content: none
zone:
",
        directory.display(),
        listen.join(", ")
    );
    for zone in &options.zones {
        let _ = writeln!(
            text,
            "  - domain: {}\n    file: {}",
            zone.absolute_origin(),
            zone_file(directory, zone).display()
        );
    }
    let config = directory.join("knot.conf");
    write(&config, &text)?;
    let mut command = namespace.command("knotd");
    command.arg("-c").arg(config);
    Ok(command)
}
