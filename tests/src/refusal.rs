//! One query of a `getaddrinfo` that conntrack refuses to enter, for certain and once.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::client::{Client, LookupAnswer};
use crate::clock::wait_until;
use crate::conntrack::{counted, growth, occupy, track, vacate};
use crate::lab::{Lab, LabOptions, Pod};
use crate::namespace::Namespace;
use crate::server::ServerKind;

/// The one port that the client's sockets get.
const PORT: u16 = 40_000;

/// A lab for refusals: one server pod on the node, and no service.
///
/// # Errors
/// As [`Lab::new`].
pub fn lab() -> Result<Lab> {
    Lab::new(LabOptions {
        server: Some(ServerKind::Fast),
        endpoints: vec!["dns1".to_owned()],
        service_rules: false,
        // Knot DNS looks its own host's name up before it listens: let it be told at once that nobody is there.
        resolv_conf: "nameserver 127.0.0.1\n".to_owned(),
        ..LabOptions::default()
    })
}

/// A pod whose next query for A will be refused, while its AAAA passes: another connection has the tuple of the
/// replies, and AAAA is not tracked. Where addresses are translated that would step aside to another port: so in a lab with
/// service rules it is the server's namespace that refuses, else the node, as in the field.
#[derive(Debug)]
pub struct Refusal<'a> {
    pod: &'a Pod,
    at: &'a Namespace,
    client: SocketAddr,
    server: SocketAddr,
}

impl<'a> Refusal<'a> {
    /// Lets `pod` ask the pod `server`, from one port.
    ///
    /// # Errors
    /// There are no such pods, or a rule cannot be loaded.
    pub fn prepare(lab: &'a Lab, pod: &str, server: &str) -> Result<Self> {
        let (asking, asked) = (lab.pod(pod)?, lab.pod(server)?);
        let at = if lab.has_service_rules() { &asked.namespace } else { lab.node() };
        let server = SocketAddr::from((asked.ip4, 53));
        track(at)?;
        // The root label, type AAAA, class IN: how its question ends. Its answer has the tuple that is taken, too.
        let untracked = |chain: &str, port: &str| {
            format!(
                "iptables -w -t raw -A {chain} -p udp {port} 53 -m string --algo bm --from 40 \
                 --hex-string '|00001c0001|' -j CT --notrack\n"
            )
        };
        // In the server's namespace its answers come from within.
        let answers = if lab.has_service_rules() { "OUTPUT" } else { "PREROUTING" };
        at.script(&(untracked("PREROUTING", "--dport") + &untracked(answers, "--sport")))?;
        asking.namespace.set_resolv_conf(&format!("nameserver {}\n", server.ip()))?;
        let one_port = format!("echo '{PORT} {PORT}' > /proc/sys/net/ipv4/ip_local_port_range\n");
        asking.namespace.script(&one_port).context("cannot limit the pod's ports")?;
        Ok(Self { pod: asking, at, client: (asking.ip4, PORT).into(), server })
    }

    /// The client's socket.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// The server that is asked.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// A lookup whose first A query is refused; what stands in its way is gone when the client asks again.
    ///
    /// # Errors
    /// Nothing was refused, or the client cannot be run.
    pub fn lookup(&self, client: Client, name: &str) -> Result<LookupAnswer> {
        let before = counted(self.at)?;
        occupy(self.at, "udp", self.client, self.server)?;
        let refused = || counted(self.at).and_then(|after| growth(&before, &after, "insert_failed"));
        thread::scope(|scope| {
            let lookup = scope.spawn(|| client.lookup(self.pod, name));
            // Well before the shortest retry.
            let was_refused = wait_until(Duration::from_secs(2), || refused().is_ok_and(|count| count > 0));
            vacate(self.at, "udp", self.client)?;
            ensure!(was_refused, "the kernel refused no query");
            lookup.join().map_err(|_| anyhow!("the client's thread panicked"))?
        })
    }
}
