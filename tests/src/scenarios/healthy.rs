//! Real resolvers ask for names that are there, and get them.

use anyhow::ensure;

use super::{Needs, Played, Scenario};
use crate::client::Client;

pub(super) const HEALTHY: Scenario = Scenario {
    needs: Needs { tools: &[], clients: CLIENTS, coredns: false },
    play: |lab, pod| {
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
    ..Scenario::new("healthy", "real resolvers ask, and are answered")
};

const CLIENTS: &[Client] = &[Client::Glibc, Client::Musl];
/// Asked as they are, found by the first suffix, found by the second as service names are.
const NAMES: [&str; 4] = ["payments.shop.svc.cluster.local.", "www.example.com.", "web", "payments.shop"];
