//! CoreDNS is not ready, so that no endpoint is behind its service, and kube-proxy rejects what is sent there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Needs, Played, Scenario, add_coredns};
use crate::client::Client;
use crate::lab::{Lab, resolv_conf};
use crate::topology::EMPTY_VIP4;

pub(super) const NO_ENDPOINTS: Scenario = Scenario {
    code: Some("DP202"),
    drops: true,
    needs: Needs { tools: &[], clients: &[Client::Glibc, Client::Musl], coredns: true },
    prepare: |lab, pod| {
        // The plugin `erratic` is not ready as long as nobody asked it.
        let server = add_coredns(lab, "notready", &[("erratic.test", "erratic\n    ready")])?;
        let status = readiness(lab, server)?;
        ensure!(status.contains(" 503 "), "CoreDNS is ready: {status}");
        lab.pod(pod)?.namespace.set_resolv_conf(&resolv_conf(&[EMPTY_VIP4.into()]))
    },
    play: |_, pod| {
        for client in [Client::Glibc, Client::Musl] {
            let answer = client.lookup(pod, "payments.shop.svc.cluster.local.")?;
            ensure!(answer.error.is_some(), "somebody answered: {answer:?}");
        }
        Ok(Played::about([("server", EMPTY_VIP4.to_string())]))
    },
    ..Scenario::new(
        "no-endpoints",
        "CoreDNS is not ready: its service has no endpoint and rejects every query",
    )
};

/// What kubelet's readiness probe is told: the first line of the response.
fn readiness(lab: &Lab, server: Ipv4Addr) -> Result<String> {
    lab.node().enter(|| {
        let limit = Duration::from_secs(5);
        let address = SocketAddr::from((server, 8181));
        let mut stream = TcpStream::connect_timeout(&address, limit).context("no readiness endpoint")?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response.lines().next().unwrap_or_default().to_owned())
    })?
}
