//! What looks like an incident and is none. Each says which.

use std::net::{Ipv4Addr, TcpListener};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::connect_fails::connects;
use super::{Needs, Played, Scenario, add_coredns};
use crate::client::Client;
use crate::drops::QueryFilter;
use crate::lab::{Lab, resolv_conf};
use crate::process::output_of;
use crate::query::Qtype;

/// Like empty-noerror: NODATA, but where it is due.
pub(super) const NO_IPV6_ADDRESS: Scenario = Scenario {
    needs: Needs { tools: &[], clients: &[Client::Glibc, Client::Musl], coredns: false },
    play: |_, pod| {
        for client in [Client::Glibc, Client::Musl] {
            for name in ["v4only.example.com.", "web"] {
                let answer = client.lookup(pod, name)?;
                ensure!(answer.addresses.len() == 1, "{answer:?}");
            }
        }
        Ok(Played::default())
    },
    ..Scenario::new("no-ipv6-address", "a name has no AAAA record: an empty NOERROR that is right")
};

/// Like conntrack-race: glibc asks again after 5 s because one of its two queries has no answer, but that comes late.
pub(super) const SLOW_ANSWER: Scenario = Scenario {
    needs: COREDNS,
    prepare: |lab, pod| slow_server(lab, pod, "delay 1000 5500ms"),
    play: |_, pod| {
        let answer = Client::Glibc.lookup(pod, "www.slow.test.")?;
        let took = answer.took.as_secs_f64();
        ensure!(answer.error.is_none() && (4.9..9.0).contains(&took), "{answer:?}");
        // The late answer.
        sleep(Duration::from_secs(1));
        Ok(Played::default())
    },
    ..Scenario::new("slow-answer", "a server takes 5.5 s for one of glibc's two queries: no race")
};

/// Like conntrack-race: one of two queries is dropped, but by a rule.
pub(super) const FIREWALL: Scenario = Scenario {
    drops: true,
    play: |lab, pod| {
        let rule = lab.drop_queries(pod, QueryFilter { qtype: Some(Qtype::Aaaa), first: Some(1) })?;
        let answer = Client::Glibc.lookup(pod, "payments.shop.svc.cluster.local.")?;
        ensure!(answer.error.is_none() && answer.took >= Duration::from_secs(4), "{answer:?}");
        ensure!(rule.hits()? == 1, "the rule dropped {}", rule.hits()?);
        Ok(Played::default())
    },
    ..Scenario::new("firewall", "an iptables rule drops one of glibc's two queries: no race")
};

/// Like no-endpoints and a server that does not answer: ICMP port unreachable, but the client's.
pub(super) const CLOSED_EARLY: Scenario = Scenario {
    drops: true,
    needs: COREDNS,
    prepare: |lab, pod| slow_server(lab, pod, "delay 1 600ms"),
    play: |_, pod| {
        for number in 0..3 {
            let name = format!("www{number}.slow.test.");
            let client = Client::Glibc.available()?;
            let mut command = pod.command("timeout");
            command.args(["-s", "KILL", "0.2"]).arg(client).arg(name);
            ensure!(
                !output_of(&mut command, "", Duration::from_secs(10))?.status.success(),
                "it was answered"
            );
            sleep(Duration::from_secs(1));
        }
        Ok(Played::default())
    },
    ..Scenario::new("closed-early", "clients end before a slow server answers")
};

/// Like cross-node-drop: one backend differs from its sibling, but it answers.
pub(super) const SLOW_BACKEND: Scenario = Scenario {
    needs: COREDNS,
    prepare: |lab, pod| {
        add_erratic(lab, "slowdns", "delay 1 700ms")?;
        add_erratic(lab, "quickdns", "drop 0")?;
        lab.set_service("kube-system/one-is-slow", SERVICE, &["slowdns", "quickdns"])?;
        lab.pod(pod)?.namespace.set_resolv_conf(&resolv_conf(&[SERVICE.into()]))
    },
    play: |_, pod| {
        for _ in 0..12 {
            let answer = Client::Glibc.lookup(pod, "www.slow.test.")?;
            ensure!(answer.error.is_none(), "{answer:?}");
        }
        Ok(Played::default())
    },
    ..Scenario::new("slow-backend", "one of a service's two backends is slow, and answers")
};

/// Like search-fan-out: a whole search list of NXDOMAIN, but there is nothing to find.
pub(super) const NO_SUCH_NAME: Scenario = Scenario {
    needs: Needs { tools: &[], clients: &[Client::Glibc, Client::Musl], coredns: false },
    play: |_, pod| {
        for client in [Client::Glibc, Client::Musl] {
            for name in ["nothing.example.com.", "nothing.example.com", "nothing"] {
                let answer = client.lookup(pod, name)?;
                ensure!(answer.error.is_some(), "{answer:?}");
            }
        }
        Ok(Played::default())
    },
    ..Scenario::new("no-such-name", "a name that does not exist is asked for")
};

/// Like forward-loop: HINFO queries, even for names such as CoreDNS's plugin makes, but by a person.
pub(super) const HINFO: Scenario = Scenario {
    needs: Needs { tools: &["dig"], clients: &[], coredns: false },
    play: |_, pod| {
        for name in ["www.example.com", "4027136415.5577006791."] {
            for _ in 0..3 {
                pod.namespace.run("dig", &["+tries=1", "+time=3", "HINFO", name])?;
            }
        }
        Ok(Played::default())
    },
    ..Scenario::new("hinfo", "somebody asks for HINFO with dig")
};

/// Like connect-fails: the address that was answered refuses a connection, but it takes others.
pub(super) const REFUSED_PORT: Scenario = Scenario {
    prepare: |lab, _| {
        let server = lab.pod("db")?.ip4;
        let rule = format!(
            "iptables -w -t nat -A PREROUTING -d {PAYMENTS} -p tcp -j DNAT --to-destination {server}\n"
        );
        lab.node().script(&rule).map(drop)
    },
    play: |lab, pod| {
        let server = lab.pod("db")?;
        let listener = server.namespace.enter(|| TcpListener::bind((server.ip4, 8080)))?;
        let _listener = listener.context("cannot listen")?;
        for _ in 0..3 {
            let answer = Client::Glibc.lookup(pod, "payments.shop.svc.cluster.local.")?;
            ensure!(answer.addresses.contains(&PAYMENTS.into()), "{answer:?}");
            ensure!(connects(pod, PAYMENTS, 8080)?, "{PAYMENTS} does not accept connections");
        }
        ensure!(!connects(pod, PAYMENTS, 8081)?, "somebody listens at port 8081");
        Ok(Played::default())
    },
    ..Scenario::new("refused-port", "one port of a service that accepts connections refuses one")
};

/// The address of `payments.shop`.
const PAYMENTS: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 20);
/// A service with backends of its own.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 97);
const COREDNS: Needs = Needs { tools: &[], clients: &[Client::Glibc], coredns: true };

/// A CoreDNS that takes its time for names below `slow.test`, and a pod that asks it.
fn slow_server(lab: &mut Lab, pod: &str, how: &str) -> Result<()> {
    let server = add_erratic(lab, "slowdns", how)?;
    lab.pod(pod)?.namespace.set_resolv_conf(&resolv_conf(&[server.into()]))
}

/// A CoreDNS with the plugin that answers erratically: its first query and every so many later, for `delay`.
fn add_erratic(lab: &mut Lab, pod: &str, how: &str) -> Result<Ipv4Addr> {
    add_coredns(lab, pod, &[("slow.test", &format!("erratic {{\n        {how}\n    }}"))])
}
