//! `dnspath stream` against tcpdump at the client's own interface: the same messages, each once, paired the same
//! way, with the same latencies.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::capture::{Capture, read_messages};
use dnspath_tests::comparison::compare;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::lab::resolv_conf;
use dnspath_tests::query::Qtype;
use dnspath_tests::topology::{Site, UPSTREAM4, VIP4, VIP6};
use dnspath_tests::tracer::{Told, Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions, Pod, QueryFilter};

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

    /// The first AAAA query of many: one lookup alone would leave the median to two samples.
    fn losing_an_aaaa(self) -> Self {
        Self { names: &["payments.shop.svc.cluster.local."], lose_an_aaaa: true, ..self }
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
            lab.start_cluster_server("dns3")?;
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
        let latency = compare(&wire, &told.lines, &[pod.ip4.into(), pod.ip6.into()])?;
        if self.lose_an_aaaa {
            answered_was_the_second(&told, pod)?;
        }
        let loss = told.covered("lost")?;
        ensure!(loss == 0, "{loss} frames lost");
        if pod.site == Site::Node {
            ensure!(wire.len() >= 2 * answers.len(), "only {} messages on the wire", wire.len());
        }
        Ok(Outcome::Measured(format!("{} messages, latencies {latency}", wire.len())))
    }
}

/// The first AAAA query never reached a server: its answer is the answer to the second, and tells both latencies.
fn answered_was_the_second(told: &Told, pod: &Pod) -> Result<()> {
    let answer = told
        .unit("message")
        .find(|line| {
            let client = line["client"].as_str().and_then(|client| client.parse::<SocketAddr>().ok());
            line["qr"] == "R"
                && line["qtype"] == "AAAA"
                && client.is_some_and(|client| client.ip() == pod.ip4)
        })
        .context("no AAAA answer told")?;
    let nanoseconds = |key: &str| answer[key].as_u64().with_context(|| format!("no {key}: {answer}"));
    let (latency, since_first) = (nanoseconds("latency_ns")?, nanoseconds("since_first_ns")?);
    ensure!(
        latency < 1_000_000_000 && since_first > 2_000_000_000,
        "not told from the second query: {answer}"
    );
    Ok(())
}
