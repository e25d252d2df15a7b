//! A server says of every name below a search suffix that it exists and has no address: musl's search ends there.

use anyhow::ensure;

use super::{Needs, Played, Scenario, add_coredns};
use crate::client::Client;
use crate::lab::resolv_conf;

pub(super) const EMPTY_NOERROR: Scenario = Scenario {
    code: Some("DP103"),
    needs: Needs { tools: &[], clients: &[Client::Musl], coredns: true },
    prepare: |lab, pod| {
        // As an upstream that has a wildcard for the node's own suffix.
        let empty = "template ANY ANY {
        rcode NOERROR
    }";
        let missing = empty.replace("NOERROR", "NXDOMAIN");
        let below = [
            (SUFFIX, empty),
            ("cluster.local", &missing),
            ("example.com", "erratic {\n        drop 0\n    }"),
        ];
        let server = add_coredns(lab, "emptydns", &below)?;
        lab.pod(pod)?.namespace.set_resolv_conf(&resolv_conf(&[server.into()]))
    },
    play: |_, pod| {
        let answer = Client::Musl.lookup(pod, "www.example.com")?;
        ensure!(answer.error.is_some(), "musl went on: {answer:?}");
        Ok(Played::about([("client", pod.ip4.to_string()), ("suffix", SUFFIX.to_owned())]))
    },
    ..Scenario::new("empty-noerror", "an empty NOERROR below a search suffix ends musl's search")
};

const SUFFIX: &str = "corp.internal";
