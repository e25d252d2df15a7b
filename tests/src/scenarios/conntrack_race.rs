//! One of a socket's two queries is dropped because its connection cannot be entered; the client waits, asks again, and
//! is answered.

use anyhow::{Result, ensure};

use super::{Needs, Played, Scenario};
use crate::client::Client;
use crate::lab::{Lab, Pod};
use crate::refusal::{self, Refusal};
use crate::server::{ServerKind, ServerOptions};

pub(super) const GLIBC: Scenario = Scenario {
    needs: Needs { tools: TOOLS, clients: &[Client::Glibc], coredns: false },
    play: |lab, pod| play(lab, pod, Client::Glibc, 5.0),
    ..Scenario::race("conntrack-race", "conntrack drops one of glibc's two queries: 5 s")
};

pub(super) const MUSL: Scenario = Scenario {
    needs: Needs { tools: TOOLS, clients: &[Client::Musl], coredns: false },
    play: |lab, pod| play(lab, pod, Client::Musl, 2.5),
    ..Scenario::race("conntrack-race-musl", "conntrack drops one of musl's two queries: 2.5 s")
};

const TOOLS: &[&str] = &["conntrack", "knotd"];
const NAME: &str = "payments.shop.svc.cluster.local";

impl Scenario {
    const fn race(name: &'static str, about: &'static str) -> Self {
        Self { code: Some("DP301"), drops: true, lab: refusal::lab, prepare, ..Self::new(name, about) }
    }
}

/// A server of its own, which nobody else's queries are refused for.
fn server_of(pod: &str) -> String {
    format!("{pod}dns")
}

fn prepare(lab: &mut Lab, pod: &str) -> Result<()> {
    let server = server_of(pod);
    lab.add_pod(&server)?;
    lab.start_server(&server, ServerKind::Fast, &ServerOptions::everything())
}

fn play(lab: &Lab, pod: &Pod, client: Client, gap: f64) -> Result<Played> {
    let refusal = Refusal::prepare(lab, &pod.name, &server_of(&pod.name))?;
    let answer = refusal.lookup(client, &format!("{NAME}."))?;
    let took = answer.took.as_secs_f64();
    ensure!(answer.addresses.len() == 2 && (gap - 0.1..gap + 1.5).contains(&took), "{answer:?}");
    let (from, to) = (refusal.client().to_string(), refusal.server().to_string());
    let subject = [
        ("client", pod.ip4.to_string()),
        ("queries", format!("A {NAME}")),
        ("original", format!("{from} > {to}")),
        ("reply", format!("{to} > {from}")),
    ];
    let cause = Some("A dropped: conntrack insert failed");
    Ok(Played { waited: Some(gap), cause, ..Played::about(subject) })
}
