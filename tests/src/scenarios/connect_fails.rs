//! The name resolves, and the address it has leads nowhere: a rule of kube-proxy's was left behind when the pod went.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Played, Scenario};
use crate::client::Client;
use crate::lab::Pod;

pub(super) const CONNECT_FAILS: Scenario = Scenario {
    code: Some("DP601"),
    prepare: |lab, _| {
        // Nobody has this pod address any more: the node asks for its MAC address in vain.
        let leaked = format!(
            "iptables -w -t nat -A PREROUTING -d {SERVICE} -p tcp --dport 80 -j DNAT --to-destination 10.244.1.250:80\n"
        );
        lab.node().script(&leaked).map(drop)
    },
    play: |_, pod| {
        for _ in 0..3 {
            let answer = Client::Glibc.lookup(pod, &format!("{NAME}."))?;
            ensure!(answer.addresses == [SERVICE], "{answer:?}");
            ensure!(!connects(pod, SERVICE, 80)?, "{SERVICE} accepts connections");
        }
        Ok(Played::about([
            ("client", pod.ip4.to_string()),
            ("name", NAME.to_owned()),
            ("address", SERVICE.to_string()),
        ]))
    },
    ..Scenario::new("connect-fails", "the name resolves, and the address does not answer: it is not DNS")
};

const NAME: &str = "web.default.svc.cluster.local";
/// Its address.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 10);

/// Whether a TCP connection from a pod is accepted.
pub(super) fn connects(pod: &Pod, address: Ipv4Addr, port: u16) -> Result<bool> {
    let target = SocketAddr::from((address, port));
    pod.namespace.enter(|| TcpStream::connect_timeout(&target, Duration::from_secs(4)).is_ok())
}
