//! `dnspath stream` against tcpdump at the client's own interface: the same messages, each once, paired the same
//! way, with the same latencies.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dnspath_tests::capture::{Capture, MessageKey, WireMessage, pair, read_messages};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::lab::resolv_conf;
use dnspath_tests::query::Qtype;
use dnspath_tests::topology::{Site, UPSTREAM4, VIP4, VIP6};
use dnspath_tests::tracer::{Told, Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions, QueryFilter, ServerKind, ServerOptions};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("glibc_to_the_service", || Case::new(Client::Glibc).check()),
        ("musl_to_the_service", || Case::new(Client::Musl).check()),
        ("go_to_the_service", || Case::new(Client::Go).check()),
        ("c_ares_to_the_service", || Case::new(Client::CAres).check()),
        ("glibc_to_a_backend", || Case::new(Client::Glibc).asking("dns1").check()),
        ("musl_to_a_backend", || Case::new(Client::Musl).asking("dns1").check()),
        ("glibc_to_the_service_on_the_other_node", || Case::new(Client::Glibc).behind("dns3").check()),
        ("musl_to_a_backend_on_the_other_node", || Case::new(Client::Musl).asking("dns3").check()),
        ("glibc_on_the_other_node", || Case::new(Client::Glibc).from("far").check()),
        ("glibc_to_the_upstream", || Case::new(Client::Glibc).asking("upstream").check()),
        ("glibc_over_ipv6", || Case::new(Client::Glibc).asking("vip6").check()),
        ("musl_over_ipv6", || Case::new(Client::Musl).asking("vip6").check()),
        ("glibc_over_tcp", || Case::new(Client::Glibc).with("options use-vc\n").check()),
        ("go_over_tcp", || Case::new(Client::Go).with("options use-vc\n").check()),
        ("glibc_falls_back_to_tcp", || Case::new(Client::Glibc).names(&["many.example.com."], 5).check()),
        ("glibc_searches_four_suffixes", || Case::new(Client::Glibc).names(&["api.example.com"], 10).check()),
        ("musl_searches_four_suffixes", || Case::new(Client::Musl).names(&["api.example.com"], 10).check()),
        ("glibc_asks_again_for_a_lost_aaaa", || Case::new(Client::Glibc).losing_an_aaaa().check()),
        ("musl_asks_again_for_a_lost_aaaa", || Case::new(Client::Musl).losing_an_aaaa().check()),
    ])
}

/// Names that are answered without a search, 20 rounds of them by default.
const PLAIN: &[&str] = &["payments.shop.svc.cluster.local.", "www.example.com.", "nothing.example.com."];

/// One way through the lab.
struct Case {
    client: Client,
    pod: &'static str,
    server: &'static str,
    endpoints: Vec<String>,
    options: &'static str,
    names: &'static [&'static str],
    rounds: usize,
    lose_an_aaaa: bool,
}

impl Case {
    fn new(client: Client) -> Self {
        Self {
            client,
            pod: "web",
            server: "vip4",
            endpoints: vec!["dns1".to_owned(), "dns2".to_owned()],
            options: "",
            names: PLAIN,
            rounds: 20,
            lose_an_aaaa: false,
        }
    }

    fn from(self, pod: &'static str) -> Self {
        Self { pod, ..self }
    }

    fn asking(self, server: &'static str) -> Self {
        Self { server, ..self }
    }

    fn behind(self, endpoint: &str) -> Self {
        Self { endpoints: vec![endpoint.to_owned()], ..self }
    }

    fn with(self, options: &'static str) -> Self {
        Self { options, ..self }
    }

    fn names(self, names: &'static [&'static str], rounds: usize) -> Self {
        Self { names, rounds, ..self }
    }

    fn losing_an_aaaa(self) -> Self {
        Self { names: &["payments.shop.svc.cluster.local."], rounds: 1, lose_an_aaaa: true, ..self }
    }

    fn check(self) -> Result<Outcome> {
        if let Err(reason) = binary() {
            return Ok(Outcome::LeftOut(format!("{reason:#}")));
        }
        if let Err(reason) = self.client.available() {
            return Ok(Outcome::LeftOut(format!("{reason:#}")));
        }
        let mut lab = Lab::new(LabOptions { endpoints: self.endpoints.clone(), ..LabOptions::default() })?;
        if self.server == "dns3" {
            let cluster = ServerOptions::cluster(vec![SocketAddr::from((UPSTREAM4, 53))]);
            lab.start_server("dns3", ServerKind::CoreDns, &cluster)?;
        }
        let server: IpAddr = match self.server {
            "vip4" => VIP4.into(),
            "vip6" => VIP6.into(),
            "upstream" => UPSTREAM4.into(),
            pod => lab.pod(pod)?.ip4.into(),
        };
        let pod = lab.pod(self.pod)?;
        pod.namespace.set_resolv_conf(&(resolv_conf(&[server]) + self.options))?;
        let site = lab.site(pod.site);
        let tracer = Tracer::stream(site, &["--unit", "message", "--unit", "question"])?;
        let capture = Capture::start(site, &pod.veth)?;
        let lost = QueryFilter { qtype: Some(Qtype::Aaaa), first: Some(1) };
        let lost = if self.lose_an_aaaa { Some(lab.drop_queries(pod, lost)?) } else { None };
        let answers = self.client.lookup_all(pod, self.names, self.rounds)?;
        ensure!(answers.len() == self.names.len() * self.rounds, "{} lookups made", answers.len());
        if let Some(lost) = &lost {
            ensure!(lost.hits()? == 1, "{} queries dropped", lost.hits()?);
        }
        // The last message is told once its way is complete.
        std::thread::sleep(Duration::from_millis(300));
        let wire = read_messages(&capture.stop()?)?;
        let told = tracer.finish()?;
        let latency = compare(&wire, &told, &[pod.ip4.into(), pod.ip6.into()])?;
        let loss = told.covered("lost")?;
        ensure!(loss == 0, "{loss} frames lost");
        if pod.site == Site::Node {
            ensure!(wire.len() >= 2 * answers.len(), "only {} messages on the wire", wire.len());
        }
        Ok(Outcome::Measured(format!("{} messages, latencies {latency}", wire.len())))
    }
}

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

/// Compares what tcpdump saw with what dnspath told of the same client; returns the latencies' difference.
fn compare(wire: &[WireMessage], told: &Told, client: &[IpAddr]) -> Result<String> {
    let mut ours = Vec::new();
    for line in told.unit("message") {
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
    let pairs: BTreeMap<usize, usize> = pair(wire).into_iter().collect();
    let mut differences = Vec::new();
    for (response, query) in &pairs {
        let (told_response, told_query) = (at(*response)?, at(*query)?);
        ensure!(
            told_response.question.is_some() && told_response.question == told_query.question,
            "not paired: {} with {}",
            told_response.line,
            told_query.line
        );
        let (Some(sent), Some(received)) = (wire.get(*query), wire.get(*response)) else { continue };
        let on_wire = i128::from(received.time_ns) - i128::from(sent.time_ns);
        let latency =
            told_response.latency_ns.with_context(|| format!("no latency: {}", told_response.line))?;
        differences.push((latency - on_wire).abs());
    }
    ensure!(!differences.is_empty(), "no answered query on the wire");
    for (index, message) in wire.iter().enumerate().filter(|(_, message)| message.response) {
        ensure!(
            pairs.contains_key(&index) || at(index)?.latency_ns.is_none(),
            "paired with nothing: {message:?}"
        );
    }
    differences.sort_unstable();
    let median = differences.get(differences.len() / 2).copied().unwrap_or_default();
    let worst = differences.last().copied().unwrap_or_default();
    ensure!(median < 50_000, "latencies differ by {median} ns in the median, {worst} ns at most");
    // Far beyond any scheduling noise: it is the latency of another query.
    ensure!(worst < 100_000_000, "a latency differs by {worst} ns");
    Ok(format!("differ by {:.1} µs in the median, {:.1} µs at most", micros(median), micros(worst)))
}

fn micros(nanoseconds: i128) -> f64 {
    nanoseconds as f64 / 1000.0
}

fn same_set(wire: &[Identity], ours: &[Identity]) -> Result<()> {
    let mut complaint = String::new();
    for (what, these, those) in [("not told", wire, ours), ("told, not on the wire", ours, wire)] {
        let rest: std::collections::HashSet<&Identity> = those.iter().collect();
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
