//! `dnspath stream` against a packet capture of the same interface: the same messages, each once, each response
//! paired with the same query, the same latencies.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::capture::{MessageKey, WireMessage};

/// What the latencies may differ by in the median, in nanoseconds: the two take their time at different hooks.
const MEDIAN_LIMIT: i128 = 50_000;
/// Far beyond any scheduling noise: it is the latency of another query.
const WORST_LIMIT: i128 = 100_000_000;

/// A message as dnspath tells it.
struct TracedMessage {
    key: MessageKey,
    response: bool,
    question: Option<u64>,
    latency_ns: Option<i128>,
    line: String,
}

fn traced(line: &Value) -> Result<TracedMessage> {
    let text = |key: &str| line[key].as_str().with_context(|| format!("no {key} in {line}"));
    let qtype = match text("qtype")? {
        "A" => 1,
        "AAAA" => 28,
        other => bail!("the lab asks no {other}: {line}"),
    };
    let transport = match text("transport")? {
        "udp" => "udp",
        "tcp" => "tcp",
        other => bail!("unknown transport {other}: {line}"),
    };
    let id = line["id"]
        .as_u64()
        .and_then(|id| u16::try_from(id).ok())
        .with_context(|| format!("no id in {line}"))?;
    let name = text("name")?.trim_end_matches('.').to_lowercase();
    Ok(TracedMessage {
        key: (text("client")?.parse()?, text("server")?.parse()?, transport, id, name, qtype),
        response: text("qr")? == "R",
        question: line["question"].as_u64(),
        latency_ns: line["latency_ns"].as_u64().map(i128::from),
        line: line.to_string(),
    })
}

/// A message's name on both sides: its key, its direction, and which of those equal in these it is.
type Identity = (MessageKey, bool, usize);

fn identities<'a>(messages: impl Iterator<Item = (&'a MessageKey, bool)>) -> Vec<Identity> {
    let mut seen: HashMap<(MessageKey, bool), usize> = HashMap::new();
    messages
        .map(|(key, response)| {
            let count = seen.entry((key.clone(), response)).or_default();
            *count += 1;
            (key.clone(), response, *count)
        })
        .collect()
}

/// Compares what tcpdump saw with what dnspath told of the same client, whose addresses are `client`; returns the
/// latencies' difference in words.
///
/// # Errors
/// What differs, with examples.
pub fn compare(wire: &[WireMessage], told: &[Value], client: &[IpAddr]) -> Result<String> {
    let mut ours = Vec::new();
    for line in told.iter().filter(|line| line["unit"] == "message") {
        let address: Option<SocketAddr> = line["client"].as_str().and_then(|address| address.parse().ok());
        // The same queries on their way from server to upstream, and the servers' own, are another client's.
        if address.is_some_and(|address| client.contains(&address.ip())) {
            ours.push(traced(line)?);
        }
    }
    let wire_keys: Vec<MessageKey> = wire.iter().map(WireMessage::key).collect();
    let wire_names = identities(wire_keys.iter().zip(wire).map(|(key, message)| (key, message.response)));
    let our_names = identities(ours.iter().map(|message| (&message.key, message.response)));
    same_set(&wire_names, &our_names)?;
    let by_name: HashMap<&Identity, &TracedMessage> = our_names.iter().zip(&ours).collect();
    let at = |index: usize| -> Result<&TracedMessage> {
        let name = wire_names.get(index).context("no such message")?;
        by_name.get(name).copied().with_context(|| format!("not told: {name:?}"))
    };
    let mut differences = Vec::new();
    let mut open: HashMap<&MessageKey, Vec<usize>> = HashMap::new();
    for (index, (message, key)) in wire.iter().zip(&wire_keys).enumerate() {
        let waiting = open.entry(key).or_default();
        if !message.response {
            waiting.push(index);
            continue;
        }
        let response = at(index)?;
        // From here alone nobody can say which of two equal queries was answered: any of them is right.
        let difference = |query: usize| {
            let sent = wire.get(query)?.time_ns;
            Some((response.latency_ns? - (i128::from(message.time_ns) - i128::from(sent))).abs())
        };
        let Some(place) =
            (0..waiting.len()).min_by_key(|place| waiting.get(*place).map(|query| difference(*query)))
        else {
            ensure!(response.latency_ns.is_none(), "paired with nothing: {}", response.line);
            continue;
        };
        let query = waiting.remove(place);
        let told_query = at(query)?;
        ensure!(
            response.question.is_some() && response.question == told_query.question,
            "not paired: {} with {}",
            response.line,
            told_query.line
        );
        differences.push(difference(query).with_context(|| format!("no latency: {}", response.line))?);
    }
    ensure!(!differences.is_empty(), "no answered query on the wire");
    differences.sort_unstable();
    let median = differences.get(differences.len() / 2).copied().unwrap_or_default();
    let worst = differences.last().copied().unwrap_or_default();
    ensure!(median < MEDIAN_LIMIT, "latencies differ by {median} ns in the median, {worst} ns at most");
    ensure!(worst < WORST_LIMIT, "a latency differs by {worst} ns");
    Ok(format!("differ by {:.1} µs in the median, {:.1} µs at most", micros(median), micros(worst)))
}

fn micros(nanoseconds: i128) -> f64 {
    nanoseconds as f64 / 1000.0
}

fn same_set(wire: &[Identity], ours: &[Identity]) -> Result<()> {
    let mut complaint = String::new();
    for (what, these, those) in [("not told", wire, ours), ("told, not on the wire", ours, wire)] {
        let rest: HashSet<&Identity> = those.iter().collect();
        let odd: Vec<_> = these.iter().filter(|name| !rest.contains(name)).collect();
        if !odd.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(
                complaint,
                "{} {what}, such as {:?}; ",
                odd.len(),
                odd.iter().take(3).collect::<Vec<_>>()
            );
        }
    }
    ensure!(
        complaint.is_empty(),
        "of {} messages on the wire and {} told: {complaint}",
        wire.len(),
        ours.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CLIENT: &str = "10.0.0.1:4000";
    const SERVER: &str = "10.0.0.2:53";

    fn wire() -> Vec<WireMessage> {
        [(0, false), (1_000_000, true), (5_000_000_000, false), (5_002_000_000, true)]
            .into_iter()
            .map(|(time_ns, response)| WireMessage {
                frame: 1,
                time_ns,
                response,
                id: 7,
                client: CLIENT.parse().unwrap(),
                server: SERVER.parse().unwrap(),
                transport: "udp",
                name: "a.test".to_owned(),
                qtype: 28,
            })
            .collect()
    }

    fn line(qr: &str, question: u64, latency_ns: Option<u64>) -> Value {
        json!({"unit": "message", "qr": qr, "id": 7, "client": CLIENT, "server": SERVER, "transport": "udp",
            "name": "A.test.", "qtype": "AAAA", "question": question, "latency_ns": latency_ns})
    }

    fn told() -> Vec<Value> {
        vec![
            line("Q", 1, None),
            line("R", 1, Some(1_010_000)),
            line("Q", 2, None),
            line("R", 2, Some(2_010_000)),
        ]
    }

    fn verdict(told: &[Value]) -> Result<String> {
        compare(&wire(), told, &["10.0.0.1".parse().unwrap()])
    }

    #[test]
    fn what_is_the_same_passes_and_other_clients_do_not_matter() {
        let mut told = told();
        let mut other = line("Q", 9, None);
        other["client"] = json!("10.0.0.2:4000");
        told.push(other);
        assert_eq!(verdict(&told).unwrap(), "differ by 10.0 µs in the median, 10.0 µs at most");
    }

    #[test]
    fn each_difference_is_found() {
        type Change = fn(&mut Vec<Value>);
        let changes: [(&str, Change); 6] = [
            ("not told", |told| drop(told.remove(3))),
            ("not on the wire", |told| told.push(line("R", 2, None))),
            ("not on the wire", |told| told[0]["id"] = json!(8)),
            ("not paired", |told| told[3]["question"] = json!(1)),
            ("latencies differ", |told| told[1]["latency_ns"] = json!(9_000_000)),
            ("no latency", |told| told[1]["latency_ns"] = Value::Null),
        ];
        for (complaint, change) in changes {
            let mut told = told();
            change(&mut told);
            let error = verdict(&told).unwrap_err().to_string();
            assert!(error.contains(complaint), "{complaint}: {error}");
        }
    }
}
