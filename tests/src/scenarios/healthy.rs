//! Real resolvers ask for names that are there, and get them.

use anyhow::ensure;

use super::{Needs, Played, Scenario};
use crate::client::Client;
use crate::load::Load;

pub(super) const HEALTHY: Scenario = Scenario {
    needs: Needs { tools: &["dnsperf"], clients: CLIENTS, coredns: false },
    play: |lab, pod| {
        // Not more at once than the server's socket has room for: what overflows is no healthy node.
        let load = Load { rate: Some(1_000), outstanding: 100, ..Load::full_speed(3) };
        let load = load.run(lab.pod("db")?, lab.vip().into())?;
        ensure!(load.lost == 0, "the load lost queries: {load:?}");
        for pod in [pod, lab.pod("db")?] {
            for client in CLIENTS {
                for name in NAMES {
                    let answer = client.lookup(pod, name)?;
                    ensure!(answer.error.is_none(), "{client:?}: {answer:?}");
                }
            }
        }
        Ok(Played::default())
    },
    ..Scenario::new("healthy", "real resolvers ask, and are answered, under some load")
};

const CLIENTS: &[Client] = &[Client::Glibc, Client::Musl];
/// Asked as they are, found by the first suffix, found by the second as service names are.
const NAMES: [&str; 4] = ["payments.shop.svc.cluster.local.", "www.example.com.", "web", "payments.shop"];
