//! Scenarios: incidents of the field, and what looks like them and is none, played in a lab by real clients against
//! real servers.
//!
//! One file a scenario; the look-alikes, which are short, are together. A scenario uses one client pod and things of
//! its own, so that several can be played in one lab at once.

pub mod all_at_once;
mod connect_fails;
mod conntrack_race;
mod cross_node_drop;
mod empty_noerror;
pub mod expect;
mod forward_loop;
mod healthy;
mod look_alikes;
mod no_endpoints;
mod search_fan_out;
pub mod session;
mod stale_arp;

use std::any::Any;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::client::Client;
use crate::lab::{Lab, LabOptions, Pod};
use crate::requirements::find as find_program;
use crate::server::{ServerKind, ServerOptions};
use crate::toolbox;
use crate::tracer::binary;

/// The client pod of a scenario that has a lab for itself.
pub const POD: &str = "web";

/// What happens, and what a report has to say of it.
#[derive(Debug)]
pub struct Scenario {
    /// Its name, for `--scenario`.
    pub name: &'static str,
    /// What happens, in one line.
    pub about: &'static str,
    /// The code of the report's first finding; `None`: the report names no incident.
    pub code: Option<&'static str>,
    /// What dnspath is told besides the namespace of the node.
    pub arguments: &'static [&'static str],
    /// Whether the kernel drops DNS packets. Drops are told wherever on the machine they are, so no other session may
    /// watch meanwhile.
    pub drops: bool,
    /// What it needs of the machine.
    pub needs: Needs,
    /// The lab, where it has one for itself.
    pub lab: fn() -> Result<Lab>,
    /// What is there before it begins; the client pod is there already.
    pub prepare: fn(&mut Lab, &str) -> Result<()>,
    /// What happens, and what is known of it then.
    pub play: fn(&Lab, &Pod) -> Result<Played>,
}

/// What a scenario needs of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Programs.
    pub tools: &'static [&'static str],
    /// Resolvers.
    pub clients: &'static [Client],
    /// CoreDNS itself; no other server does.
    pub coredns: bool,
}

/// What the first finding must say.
#[derive(Debug, Default)]
pub struct Played {
    /// Fields of its subject.
    pub subject: Vec<(&'static str, String)>,
    /// Seconds that a client waited.
    pub waited: Option<f64>,
    /// What the lookup that it befell says of it.
    pub cause: Option<&'static str>,
    /// A recording made elsewhere, and the code that heads the report on both.
    pub elsewhere: Option<(PathBuf, &'static str)>,
    /// What has to be there until the session has ended.
    pub kept: Vec<Box<dyn Any + Send>>,
}

impl Played {
    fn about(subject: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self { subject: subject.into_iter().collect(), ..Self::default() }
    }
}

/// The codes of incidents: none of them may be told of a healthy node or of a look-alike.
pub const INCIDENTS: [&str; 12] = [
    "DP101", "DP103", "DP201", "DP202", "DP205", "DP301", "DP302", "DP401", "DP402", "DP403", "DP501",
    "DP601",
];

/// All of them.
pub const ALL: [Scenario; 19] = [
    healthy::HEALTHY,
    search_fan_out::SEARCH_FAN_OUT,
    empty_noerror::EMPTY_NOERROR,
    conntrack_race::GLIBC,
    conntrack_race::MUSL,
    stale_arp::OF_A_CLIENT,
    stale_arp::OF_A_SERVER,
    no_endpoints::NO_ENDPOINTS,
    cross_node_drop::CROSS_NODE_DROP,
    forward_loop::FORWARD_LOOP,
    connect_fails::CONNECT_FAILS,
    look_alikes::NO_IPV6_ADDRESS,
    look_alikes::SLOW_ANSWER,
    look_alikes::FIREWALL,
    look_alikes::CLOSED_EARLY,
    look_alikes::SLOW_BACKEND,
    look_alikes::NO_SUCH_NAME,
    look_alikes::HINFO,
    look_alikes::REFUSED_PORT,
];

/// A scenario by its name.
///
/// # Errors
/// There is none of that name.
pub fn find(name: &str) -> Result<&'static Scenario> {
    const SCENARIOS: &[Scenario] = &ALL;
    SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .with_context(|| format!("there is no scenario {name}; `cargo xtask demo --list` names them"))
}

impl Scenario {
    /// What most of them have in common.
    const fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            code: None,
            arguments: &[],
            drops: false,
            needs: Needs { tools: &[], clients: &[Client::Glibc], coredns: false },
            lab,
            prepare: |_, _| Ok(()),
            play: |_, _| Ok(Played::default()),
        }
    }

    /// Why it cannot be played here.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let missing = self.needs.tools.iter().find(|tool| find_program(tool).is_none());
        if let Some(tool) = missing {
            return Some(format!("{tool} is missing"));
        }
        if self.needs.coredns && !toolbox::has_coredns() {
            return Some("there is no CoreDNS, nor Go to build it".to_owned());
        }
        let of_clients = self.needs.clients.iter().find_map(|client| client.available().err());
        of_clients.or_else(|| binary().err()).map(|reason| format!("{reason:#}"))
    }

    /// Lets it happen, in the lab that [`Scenario::stage`] made.
    ///
    /// # Errors
    /// It did not happen as it should.
    pub fn happen(&self, lab: &Lab) -> Result<Played> {
        (self.play)(lab, lab.pod(POD)?).with_context(|| format!("{} did not happen", self.name))
    }

    /// A lab for it alone, in which everything is ready.
    ///
    /// # Errors
    /// A step fails.
    pub fn stage(&self) -> Result<Lab> {
        let mut lab = (self.lab)()?;
        (self.prepare)(&mut lab, POD).with_context(|| format!("cannot prepare {}", self.name))?;
        Ok(lab)
    }
}

/// A node with the client, another pod and one DNS server.
fn lab() -> Result<Lab> {
    Lab::new(LabOptions {
        server: Some(ServerKind::preferred()),
        pods: vec![POD.to_owned(), "db".to_owned()],
        far_pods: Vec::new(),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    })
}

/// A CoreDNS in a pod of its own that does below these names what their lines say, and refuses all else; gives the pod's
/// address.
fn add_coredns(lab: &mut Lab, pod: &str, below: &[(&str, &str)]) -> Result<Ipv4Addr> {
    let below = below.iter().map(|(name, lines)| ((*name).to_owned(), (*lines).to_owned())).collect();
    let address = lab.add_pod(pod)?.ip4;
    lab.start_server(pod, ServerKind::CoreDns, &ServerOptions { below, ..ServerOptions::default() })?;
    Ok(address)
}
