//! The resolver captures: what their index counts per message is what the decoder tells.

use super::Decoder;
use crate::{
    model::{Rcode, SightingBody, Transport, Vantages},
    trace::Reader,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/resolvers")
}

/// The totals of one capture that need no correlation.
fn count(file: &Path) -> BTreeMap<String, u64> {
    let vantages = Vantages::new();
    let mut reader = Reader::open(file, 0).unwrap();
    let mut decoder = Decoder::new(&[53]);
    let mut totals = BTreeMap::<String, u64>::new();
    while let Some(frame) = reader.next_frame(&vantages).unwrap() {
        decoder.decode(&frame, &vantages, &mut |sighting| {
            let mut add = |what: &str| *totals.entry(what.into()).or_default() += 1;
            match &sighting.body {
                SightingBody::Icmp(error) if error.is_port_unreachable() => {
                    let from_server = error.quoted.destination.port() == 53;
                    add(if from_server {
                        "icmp_port_unreachable_from_server"
                    } else {
                        "icmp_port_unreachable_from_client"
                    });
                }
                SightingBody::Icmp(_) => {}
                SightingBody::Dns(message) if message.is_response() => {
                    add("responses");
                    match message.rcode {
                        Rcode::NXDOMAIN => add("nxdomain_responses"),
                        Rcode::SERVFAIL => add("servfail_responses"),
                        Rcode::REFUSED => add("refused_responses"),
                        _ => {}
                    }
                    if message.flags.truncated() {
                        add("tc_responses");
                    }
                    if message.is_empty_noerror() {
                        add(&format!("empty_noerror.{}", message.qtype));
                    }
                }
                SightingBody::Dns(_) => {
                    add("queries");
                    add(match sighting.transport {
                        Transport::Udp => "udp_queries",
                        Transport::Tcp => "tcp_queries",
                    });
                }
            }
        });
    }
    assert!(!reader.cut());
    totals
}

/// The same totals as the index has them, without those that are zero.
fn expected(entry: &Value) -> BTreeMap<String, u64> {
    const COUNTED: [&str; 10] = [
        "icmp_port_unreachable_from_client",
        "icmp_port_unreachable_from_server",
        "nxdomain_responses",
        "queries",
        "refused_responses",
        "responses",
        "servfail_responses",
        "tc_responses",
        "tcp_queries",
        "udp_queries",
    ];
    let totals = &entry["totals"];
    let empty = totals["empty_noerror"].as_object().unwrap();
    COUNTED
        .iter()
        .map(|&what| (what.to_owned(), totals[what].as_u64().unwrap()))
        .chain(empty.iter().map(|(qtype, n)| (format!("empty_noerror.{qtype}"), n.as_u64().unwrap())))
        .filter(|(_, n)| *n > 0)
        .collect()
}

#[test]
fn every_capture_counts_as_its_index_says() {
    let index = std::fs::read_to_string(corpus().join("index.jsonl")).unwrap();
    let mut wrong = Vec::new();
    let mut files = 0;
    for line in index.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let name = entry["file"].as_str().unwrap();
        let (counted, expected) = (count(&corpus().join(name)), expected(&entry));
        if counted != expected {
            wrong.push(format!("{name}: counted {counted:?}, index {expected:?}"));
        }
        files += 1;
    }
    assert_eq!(files, 166);
    assert!(wrong.is_empty(), "{} of {files} captures differ:\n{}", wrong.len(), wrong.join("\n"));
}
