//! CoreDNS forwards to its own address: the resolv.conf it was given names 127.0.0.53, where on the node
//! systemd-resolved listens, and in the pod CoreDNS itself. Its plugin `loop` ends it, kubelet starts it again.

use std::time::Duration;

use anyhow::ensure;

use super::{Needs, Played, Scenario};
use crate::client::Client;
use crate::lab::resolv_conf;
use crate::server::{Server, ServerKind, ServerOptions};

pub(super) const FORWARD_LOOP: Scenario = Scenario {
    code: Some("DP205"),
    arguments: &["--pod-loopback"],
    drops: true,
    needs: Needs { tools: &[], clients: &[Client::Glibc], coredns: true },
    prepare: |lab, pod| {
        let looping = lab.add_pod(SERVER)?;
        looping.namespace.set_resolv_conf("nameserver 127.0.0.53\n")?;
        let server = looping.ip4;
        lab.pod(pod)?.namespace.set_resolv_conf(&resolv_conf(&[server.into()]))
    },
    play: |lab, pod| {
        let looping = lab.pod(SERVER)?;
        let corefile_lines = ["loop", "forward . /etc/resolv.conf"].map(str::to_owned).to_vec();
        let options = ServerOptions { corefile_lines, ..ServerOptions::default() };
        for _ in 0..2 {
            let mut server = Server::spawn(SERVER, &looping.namespace, ServerKind::CoreDns, &options)?;
            server.process().wait(Duration::from_secs(20))?;
            ensure!(server.log()?.contains("Loop"), "it ended otherwise: {}", server.log()?);
            let answer = Client::Glibc.lookup(pod, "www.example.com.")?;
            ensure!(answer.error.is_some(), "somebody answered: {answer:?}");
        }
        Ok(Played::about([("server", looping.ip4.to_string())]))
    },
    ..Scenario::new("forward-loop", "CoreDNS forwards to itself, and its plugin loop ends it again and again")
};

const SERVER: &str = "loopdns";
