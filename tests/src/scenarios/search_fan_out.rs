//! ndots:5 and a search list of four: a name outside the cluster takes ten queries, of which two are answered.

use anyhow::ensure;

use super::{Needs, Played, Scenario};
use crate::client::Client;

pub(super) const SEARCH_FAN_OUT: Scenario = Scenario {
    code: Some("DP101"),
    needs: Needs { tools: &[], clients: &[Client::Glibc, Client::Musl], coredns: false },
    play: |_, pod| {
        for client in [Client::Glibc, Client::Musl] {
            for _ in 0..3 {
                let answer = client.lookup(pod, NAME)?;
                ensure!(answer.error.is_none(), "{answer:?}");
            }
        }
        Ok(Played::about([("client", pod.ip4.to_string()), ("name", NAME.to_owned())]))
    },
    ..Scenario::new(
        "search-fan-out",
        "ndots:5 turns one lookup of a name outside the cluster into ten queries",
    )
};

const NAME: &str = "api.example.com";
