//! DP601 connect-failed: a name was answered, and its address does not accept the client's TCP connection. It is not DNS.
//!
//! Fires for a client, name, address and port where a connection that the client began within 10 s of the answer was met
//! with silence (the SYN was sent again, and nobody answered), with an ICMP unreachable, or with RST. `count` is such
//! connections. A warning: the lookup itself went well.
//!
//! - information: RST from a port that accepted another connection meanwhile. Somebody is there, and the port was closed
//!   for a while.
//!
//! Confidence is high where an answer says so, and medium with silence.
//!
//! Looks alike and does not fire: RST from an address that accepts connections to another port (the client's port is wrong);
//! a connection that is accepted at the second or third SYN; a client that gives up within a second (it tried another
//! address first); connections later than 10 s after the answer, or to addresses that no answer told.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    groups::{Code, Groups},
};
use crate::model::{Connect, ConnectOutcome, IcmpError, Name};
use smallvec::SmallVec;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

const CODE: Code = Code { code: "DP601", name: "connect-failed" };
/// Addresses that accepted something, and ports of each.
const MOST_ADDRESSES: usize = 4_096;
const MOST_PORTS: usize = 8;

type Key = (IpAddr, Name, SocketAddr, ConnectOutcome);

#[derive(Debug, Default)]
struct Detail {
    asked: u64,
    error: Option<IcmpError>,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct ConnectFailed {
    failed: Groups<Key, Detail>,
    accepted: HashMap<IpAddr, SmallVec<[u16; MOST_PORTS]>, foldhash::fast::RandomState>,
}

impl ConnectFailed {
    /// Takes an attempt that ended.
    pub(super) fn connect(&mut self, connect: &Connect) {
        let Connect { client, server, name, ended, asked, outcome, error, .. } = connect;
        if *outcome == ConnectOutcome::Accepted {
            if self.accepted.len() < MOST_ADDRESSES || self.accepted.contains_key(&server.ip()) {
                let ports = self.accepted.entry(server.ip()).or_default();
                if ports.len() < MOST_PORTS && !ports.contains(&server.port()) {
                    ports.push(server.port());
                }
            }
            return;
        }
        let frames = connect.frames.iter().map(|&(frame, vantage)| Evidence { frame, vantage });
        let key = (client.ip(), *name, *server, *outcome);
        if let Some(detail) = self.failed.add(key, 1, *ended, frames) {
            detail.asked += u64::from(*asked);
            detail.error = detail.error.or(*error);
        }
    }

    /// What is told; `None` where the client has the wrong port of an address that accepts connections.
    fn tell(
        &self,
        (client, name, server, outcome): &Key,
        count: u64,
        detail: &Detail,
    ) -> Option<(String, Told)> {
        let (address, port) = (server.ip(), server.port());
        let others = self.accepted.get(&address);
        let same_port = others.is_some_and(|ports| ports.contains(&port));
        let said = match (outcome, detail.error) {
            (ConnectOutcome::Refused, _) => format!("{address} refused its TCP connection to port {port}"),
            (_, Some(error)) if error.from == address => {
                format!("{address} cannot be reached at TCP port {port} ({})", icmp(&error))
            }
            (_, Some(error)) => {
                format!(
                    "{} says that {address} cannot be reached at TCP port {port} ({})",
                    error.from,
                    icmp(&error)
                )
            }
            _ => format!(
                "nobody answered its TCP connection to {address} port {port} (SYN sent {} times)",
                detail.asked
            ),
        };
        let times = if count == 1 { String::new() } else { format!(", {count} times") };
        let mut summary = format!("{client} was told {address} for {name}; {said}{times}");
        let told = match (outcome, same_port, others) {
            (_, true, _) => {
                summary.push_str("; other connections to that port were accepted");
                if *outcome == ConnectOutcome::Refused { Told::Closed } else { Told::Some }
            }
            (ConnectOutcome::Refused, false, Some(_)) => return None,
            _ => Told::Nobody,
        };
        Some((summary, told))
    }
}

/// What else is known of an address that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It accepted nothing.
    Nobody,
    /// It accepts others.
    Some,
    /// It refuses now and then.
    Closed,
}

/// What an ICMP unreachable says, as far as clients meet it (RFC 792, RFC 1812 section 5.2.7.1, RFC 4443).
fn icmp(error: &IcmpError) -> String {
    let words = match (error.v6, error.code) {
        (false, 0) | (true, 0) => "no route",
        (false, 1) | (true, 3) => "the host does not answer",
        (false, 3) | (true, 4) => "the port is closed, or a rule rejects",
        (false, 9 | 10 | 13) | (true, 1) => "a rule forbids it",
        _ => "unreachable",
    };
    format!("{words}: ICMP type {} code {}", error.kind, error.code)
}

impl Rule for ConnectFailed {
    fn findings(&self) -> Vec<Finding> {
        self.failed.findings(|key, group| {
            let (client, name, server, outcome) = key;
            let (summary, told) = self.tell(key, group.tally.count, &group.detail)?;
            let severity = if told == Told::Closed { Severity::Info } else { Severity::Warning };
            let silent = *outcome == ConnectOutcome::Silent;
            let confidence = if silent { Confidence::Medium } else { Confidence::High };
            let mut finding = group.tally.finding(CODE, severity, confidence);
            finding.rests_on_absence = silent;
            finding.subject = vec![
                ("client", client.to_string()),
                ("name", name.to_string()),
                ("address", server.ip().to_string()),
                ("port", server.port().to_string()),
                ("outcome", outcome.to_string()),
            ];
            finding.summary = summary;
            finding.advice = match (outcome, told) {
                (_, Told::Closed) => {
                    "The name was resolved, and the address is alive: see whether its program restarts."
                }
                (_, Told::Some) => {
                    "The name was resolved, and the address accepts others: look for a rule about this client (a \
                     NetworkPolicy, a security group), or a server that is overloaded."
                }
                (ConnectOutcome::Refused, Told::Nobody) => {
                    "The name was resolved: nothing listens on that port, or a rule rejects it. Look at the service's \
                     endpoints and targetPort, and whether the record is out of date."
                }
                (_, Told::Nobody) => {
                    "The name was resolved; packets to the address do not arrive, or their answers do not. Look at the \
                     rules of this node (`dnspath check` counts them and their duplicates), at routes, NetworkPolicies and \
                     security groups, and whether the record is out of date."
                }
            }
            .into();
            Some(finding)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        findings::testing::{CLIENT, at, name},
        model::{Flow, Transport, VantageId},
    };
    use smallvec::smallvec;

    fn connect(server: &str, outcome: ConnectOutcome, millis: u64) -> Connect {
        let client = SocketAddr::new(CLIENT.parse().unwrap(), 40_001);
        let server: SocketAddr = server.parse().unwrap();
        let error = IcmpError {
            from: "10.244.0.1".parse().unwrap(),
            to: client.ip(),
            kind: 3,
            code: 1,
            v6: false,
            quoted: Flow { source: client, destination: server },
            quoted_transport: Transport::Tcp,
            quoted_id: None,
        };
        Connect {
            client,
            server,
            name: name("api.example.com"),
            answered: at(millis),
            time: at(millis + 1),
            ended: at(millis + 3_001),
            asked: 3,
            outcome,
            error: (outcome == Unreachable).then_some(error),
            frames: smallvec![(millis * 10, VantageId(0)), (millis * 10 + 1, VantageId(1))],
        }
    }

    fn told(connects: &[Connect]) -> Vec<Finding> {
        let mut rule = ConnectFailed::default();
        connects.iter().for_each(|connect| rule.connect(connect));
        rule.findings()
    }

    const ADDRESS: &str = "203.0.113.10:443";
    use ConnectOutcome::{Accepted, Refused, Silent, Unreachable};

    #[test]
    fn fires_for_silence_errors_and_refusals() {
        insta::assert_debug_snapshot!([
            told(&[connect(ADDRESS, Silent, 1), connect(ADDRESS, Silent, 5_000)]),
            told(&[connect(ADDRESS, Unreachable, 1)]),
            told(&[connect(ADDRESS, Refused, 1)]),
        ]);
    }

    #[test]
    fn a_wrong_port_of_a_healthy_service_is_none_of_its_failures() {
        let others = [connect("203.0.113.10:80", Accepted, 1), connect(ADDRESS, Accepted, 1)];
        assert_eq!(told(&[others[0].clone(), connect(ADDRESS, Refused, 100)]), []);
        let findings = told(&[others[1].clone(), connect(ADDRESS, Refused, 100)]);
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Info), "{findings:?}");
        let silent = told(&[others[1].clone(), connect(ADDRESS, Silent, 100)]);
        assert_eq!(silent[0].severity, Severity::Warning, "others are accepted, this one is not");
    }

    #[test]
    fn does_not_fire_for_what_is_accepted() {
        assert_eq!(told(&[connect(ADDRESS, Accepted, 1)]), []);
    }
}
