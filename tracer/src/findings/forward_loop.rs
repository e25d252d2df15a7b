//! DP205 forward-loop: a server's own queries come back to it, because what it forwards to is itself (127.0.0.53 of the
//! node's resolv.conf, or its own service), or another server that forwards to it.
//!
//! A query comes back when a server sends it to itself, or when its receiver has sent the same question on and that is
//! what arrives. Answers end such a chain, and so does a second. Fires for the address that was asked, when so many of one
//! question are on their way at the same time:
//!
//! - three of a probe over the loopback, two elsewhere. CoreDNS's loop plugin asks itself `HINFO <number>.<number>.` at its
//!   start (once over its loopback, which `--pod-loopback` shows), forwards it like any question, and ends the server when
//!   it has come back twice.
//! - 20 of any other question: a server without that plugin asks itself hundreds of times until its clients give up.
//!
//! An error; `count` is the queries that arrived there. Confidence is high with a probe, else medium.
//!
//! Looks alike and does not fire: HINFO asked with dig; the one probe of a healthy server, and its repetition every three
//! seconds where the upstream is silent; a pod whose programs ask a cache of its own on the loopback; a server that asks
//! its own service and is answered.

use super::{
    Confidence, Culprit, Evidence, Finding, Rule, Severity,
    groups::{Code, Groups},
};
use crate::model::{Hop, Message, Name, Rcode, Rtype, Timestamp, Vantages};
use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const CODE: Code = Code { code: "DP205", name: "forward-loop" };
/// Probes on their way at the same time, by whether they are on a loopback: the first one there is the plugin's own.
const PROBES: [usize; 2] = [2, 3];
/// Other questions: more than a program's threads ask a cache of their own at once.
const QUESTIONS: usize = 20;
/// What has no answer after this time ended without one.
const LIFETIME: Duration = Duration::from_secs(1);
/// Questions that are followed at the same time, and queries of each.
const MOST_QUESTIONS: usize = 2_048;
const MOST_QUERIES: usize = 128;
/// Servers named for one loop.
const MOST_NAMED: usize = 4;

/// Who sends or receives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Node {
    /// By its own address.
    At(IpAddr),
    /// Somebody on a loopback: all in one network namespace, or in one file.
    Inside(Option<String>, u16),
}

impl Node {
    const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::At(address) => Some(*address),
            Self::Inside(..) => None,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Inside(Some(netns), _) => write!(f, "the server in {netns}"),
            Self::Inside(None, _) => f.write_str("the server"),
        }
    }
}

/// A query on its way that a server sent.
#[derive(Debug)]
struct Sent {
    time: Timestamp,
    client: SocketAddr,
    from: Node,
    to: Node,
    /// It came back.
    back: bool,
    frame: Evidence,
}

#[derive(Debug, Default)]
struct Detail {
    nodes: Vec<Node>,
    question: Option<(Name, Rtype)>,
    probe: bool,
    servfail: u64,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct ForwardLoop {
    vantages: Vantages,
    on_their_way: HashMap<(Name, Rtype), Vec<Sent>, foldhash::fast::RandomState>,
    /// When questions without an answer were let go.
    swept: Timestamp,
    loops: Groups<(IpAddr, Option<Node>), Detail>,
    /// The servers in [`Self::loops`].
    looping: Vec<Node>,
}

impl ForwardLoop {
    /// With the table of the hops' vantages, which tells namespaces.
    pub(super) fn new(vantages: Vantages) -> Self {
        Self { vantages, ..Self::default() }
    }

    fn query(&mut self, message: &Message) {
        let (Some(first), Some(last)) = (message.hops.first(), message.hops.last()) else { return };
        let (client, server) = (message.client.ip(), last.destination.ip());
        let (from, to) = (self.node(client, first), self.node(server, last));
        let key = (message.dns.name, message.dns.qtype);
        if self.on_their_way.len() >= MOST_QUESTIONS && !self.on_their_way.contains_key(&key) {
            // Not at each query, when a silent upstream keeps it full.
            if message.time.since(self.swept) < LIFETIME / 4 {
                return;
            }
            self.swept = message.time;
            self.on_their_way.retain(|_, sent| sent.last().is_some_and(|it| is_alive(it, message.time)));
            if self.on_their_way.len() >= MOST_QUESTIONS {
                return;
            }
        }
        let probe = is_probe(&message.dns.name, message.dns.qtype);
        let sent = self.on_their_way.entry(key).or_default();
        sent.retain(|it| is_alive(it, message.time));
        let passed_on = || probe && sent.iter().any(|it| it.from == to);
        let back = from == to || passed_on() || leads(sent, &to, &from);
        let this = Sent {
            time: message.time,
            client: message.client,
            from,
            to: to.clone(),
            back,
            frame: Evidence::from(first),
        };
        let before: Vec<&Sent> = sent.iter().filter(|it| it.back).collect();
        let least = if probe { PROBES[usize::from(client.is_loopback())] } else { QUESTIONS };
        if back && before.len() + 1 >= least {
            // Those that were too few to tell are told with the one that is enough.
            let told = if before.len() + 1 == least { &before[..] } else { &[] };
            let asked = message.server.ip();
            let place = asked.is_loopback().then_some(to);
            for it in told.iter().copied().chain([&this]) {
                let Some(detail) = self.loops.add((asked, place.clone()), 1, it.time, [it.frame]) else {
                    break;
                };
                if detail.question.is_none() || probe && !detail.probe {
                    (detail.question, detail.probe) = (Some(key), probe);
                }
                if detail.nodes.len() < MOST_NAMED && !detail.nodes.contains(&it.to) {
                    detail.nodes.push(it.to.clone());
                    self.looping.push(it.to.clone());
                }
            }
        }
        if sent.len() < MOST_QUERIES {
            sent.push(this);
        }
    }

    fn response(&mut self, message: &Message) {
        // Nearly always: no server has asked anything.
        if !self.on_their_way.is_empty() {
            self.answered(message);
        }
        if message.dns.rcode == Rcode::SERVFAIL
            && !self.looping.is_empty()
            && let Some(hop) = message.hops.first()
        {
            let from = self.node(hop.source.ip(), hop);
            self.loops.each(|_, detail| detail.servfail += u64::from(detail.nodes.contains(&from)));
        }
    }

    fn answered(&mut self, message: &Message) {
        let key = (message.dns.name, message.dns.qtype);
        if let Some(sent) = self.on_their_way.get_mut(&key) {
            if let Some(place) = sent.iter().rposition(|it| it.client == message.client) {
                sent.remove(place);
            }
            if sent.is_empty() {
                self.on_their_way.remove(&key);
            }
        }
    }

    fn node(&self, address: IpAddr, hop: &Hop) -> Node {
        if !address.is_loopback() {
            return Node::At(address);
        }
        let Some(vantage) = self.vantages.lookup(hop.vantage) else { return Node::Inside(None, 0) };
        // A pod's namespace is called by the pod's address.
        let of_pod = vantage.netns.as_ref().and_then(|netns| netns.parse().ok());
        of_pod.map_or_else(|| Node::Inside(vantage.netns.clone(), vantage.source), Node::At)
    }
}

fn is_alive(sent: &Sent, now: Timestamp) -> bool {
    now.since(sent.time) < LIFETIME
}

/// Whether queries on their way lead from one to the other.
fn leads(sent: &[Sent], from: &Node, to: &Node) -> bool {
    let mut reached = vec![from];
    let mut looked_at = 0;
    while let Some(node) = reached.get(looked_at).copied() {
        looked_at += 1;
        for it in sent.iter().filter(|it| it.from == *node) {
            if it.to == *to {
                return true;
            }
            if !reached.contains(&&it.to) {
                reached.push(&it.to);
            }
        }
    }
    false
}

/// Whether this is a question of CoreDNS's loop plugin: two numbers before the zone (plugin/loop/setup.go).
pub(super) fn is_probe(name: &Name, qtype: Rtype) -> bool {
    let is_number = |label: &[u8]| label.len() <= 20 && label.iter().all(u8::is_ascii_digit);
    qtype == Rtype::HINFO && name.label_count() >= 2 && name.labels().take(2).all(is_number)
}

impl Rule for ForwardLoop {
    fn message(&mut self, message: &Message) {
        if message.dns.is_response() {
            if !self.on_their_way.is_empty() || !self.looping.is_empty() {
                self.response(message);
            }
        } else if message.by_server && message.dns.has_question {
            self.query(message);
        }
    }

    fn findings(&self) -> Vec<Finding> {
        self.loops.findings(|(asked, _), group| {
            let Detail { nodes, question, probe, servfail } = &group.detail;
            let (name, qtype) = (*question)?;
            let confidence = if *probe { Confidence::High } else { Confidence::Medium };
            let mut finding = group.tally.finding(CODE, Severity::Error, confidence);
            let addresses = nodes.iter().filter_map(Node::address).chain([*asked]);
            finding.blames = addresses.map(Culprit::Loop).collect();
            let nodes: Vec<String> = nodes.iter().map(Node::to_string).collect();
            let who = nodes.join(" and ");
            finding.subject = vec![("server", nodes.join(", ")), ("asks", asked.to_string())];
            let itself = if nodes.len() > 1 { "each other" } else { "itself" };
            finding.summary = format!(
                "{who} forwards to {itself} by way of {asked}: {qtype} {name}{} arrived {} times",
                if *probe { ", the probe of CoreDNS's loop plugin," } else { "" },
                finding.count
            );
            if *servfail > 0 {
                finding.summary.push_str(&format!("; meanwhile its clients got SERVFAIL ({servfail})"));
            }
            finding.advice = if asked.is_loopback() {
                "The server took over the node's resolv.conf, where a stub resolver listens on the loopback; in the pod that \
                 is the server itself. Let the kubelet use the file behind the stub (resolvConf: \
                 /run/systemd/resolve/resolv.conf), or name the upstreams in the Corefile (forward . ADDRESS)."
            } else {
                "The server's upstream leads back to it: name upstreams outside the cluster in the Corefile (forward . \
                 ADDRESS), and let the server's pod have dnsPolicy: Default, not ClusterFirst."
            }
            .into();
            Some(finding)
        })
    }
}

#[cfg(test)]
#[path = "forward_loop_tests.rs"]
mod tests;
