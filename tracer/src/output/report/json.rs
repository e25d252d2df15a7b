//! The report as one JSON object, one line.

use super::Report;
use crate::{
    model::{Coverage, Rcode, Rtype, Timestamp},
    output::{
        drops::ConntrackView,
        json::{FindingView, Shown},
    },
    stats::{Histogram, ServerStats, Totals},
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

/// The version of this shape: raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

impl Report<'_> {
    /// Writes the report as JSON.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write_json(&self, to: &mut impl Write) -> io::Result<()> {
        let mut head = serde_json::to_vec(self)?;
        if let Some(lookups) = self.lookups {
            // The lookups are JSON already: they go in before the closing brace.
            head.pop();
            to.write_all(&head)?;
            to.write_all(b",\"lookups\":[")?;
            for (index, lookup) in lookups.by_start().enumerate() {
                to.write_all(if index == 0 { b"\n" } else { b",\n" })?;
                to.write_all(lookup)?;
            }
            to.write_all(b"\n]}\n")
        } else {
            head.push(b'\n');
            to.write_all(&head)
        }
    }
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &VERSION)?;
        map.serialize_entry("sources", self.sources)?;
        map.serialize_entry("window", &Window::from(self.window))?;
        map.serialize_entry("coverage", &CoverageView::new(self))?;
        if !self.clocks.is_empty() {
            map.serialize_entry("clocks", self.clocks)?;
        }
        map.serialize_entry("totals", &TotalsView(self.stats.totals()))?;
        map.serialize_entry("latency_s", &Latency::from(self.stats.latency()))?;
        map.serialize_entry("servers", &self.server_views())?;
        map.serialize_entry("baseline", &self.baseline.map(|before| self.changed(before)))?;
        let view = |finding| FindingView { finding, vantages: self.vantages, line: false };
        map.serialize_entry("findings", &self.findings.iter().map(view).collect::<Vec<FindingView<'_>>>())?;
        map.end()
    }
}

#[derive(Serialize)]
struct Window {
    from: Option<Shown<Timestamp>>,
    to: Option<Shown<Timestamp>>,
}

impl From<Option<(Timestamp, Timestamp)>> for Window {
    fn from(window: Option<(Timestamp, Timestamp)>) -> Self {
        Self { from: window.map(|(from, _)| Shown(from)), to: window.map(|(_, to)| Shown(to)) }
    }
}

#[derive(Serialize)]
struct CoverageView {
    frames: u64,
    dns_messages: u64,
    lost: u64,
    truncated: u64,
    malformed: u64,
    evicted: u64,
    /// A file ends inside a record: what followed is missing.
    cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    conntrack: Option<ConntrackView>,
}

impl CoverageView {
    fn new(report: &Report<'_>) -> Self {
        let Coverage { frames, dns_messages, lost, truncated, malformed, evicted, conntrack } =
            report.coverage;
        let conntrack = conntrack.map(|counted| ConntrackView::new(counted, report.stats.totals()));
        Self { frames, dns_messages, lost, truncated, malformed, evicted, cut: report.cut, conntrack }
    }
}

struct TotalsView<'a>(&'a Totals);

impl Serialize for TotalsView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let totals = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("lookups", &totals.lookups)?;
        map.serialize_entry("queries", &totals.queries)?;
        map.serialize_entry("udp_queries", &totals.udp_queries)?;
        map.serialize_entry("tcp_queries", &totals.tcp_queries)?;
        map.serialize_entry("responses", &totals.responses)?;
        map.serialize_entry("unanswered", &totals.unanswered)?;
        map.serialize_entry("retransmissions", &totals.retransmissions)?;
        map.serialize_entry("wasted_search_queries", &totals.wasted_search_queries)?;
        map.serialize_entry("empty_noerror", &EmptyNoerror(totals))?;
        map.serialize_entry("suspicious_empty_noerror", &totals.suspicious_empty_noerror)?;
        map.serialize_entry("nxdomain_responses", &totals.nxdomain_responses)?;
        map.serialize_entry("servfail_responses", &totals.servfail_responses)?;
        map.serialize_entry("refused_responses", &totals.refused_responses)?;
        map.serialize_entry("tc_responses", &totals.tc_responses)?;
        map.serialize_entry("late_responses", &totals.late_responses)?;
        map.serialize_entry("drops", &totals.drops)?;
        map.serialize_entry("clashes_resolved", &totals.clashes_resolved)?;
        let results: BTreeMap<&str, u64> =
            totals.results.iter().map(|(result, count)| (result.as_str(), *count)).collect();
        map.serialize_entry("results", &results)?;
        map.end()
    }
}

/// A and AAAA always, other types where they occurred, those not counted one by one as `OTHER`.
struct EmptyNoerror<'a>(&'a Totals);

impl Serialize for EmptyNoerror<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Totals { empty_noerror, empty_noerror_other, .. } = self.0;
        let mut map = serializer.serialize_map(None)?;
        for qtype in [Rtype::A, Rtype::AAAA] {
            map.serialize_entry(&Shown(qtype), &empty_noerror.get(&qtype).copied().unwrap_or(0))?;
        }
        for (qtype, count) in empty_noerror.iter().filter(|(qtype, _)| !qtype.is_address()) {
            map.serialize_entry(&Shown(qtype), count)?;
        }
        if *empty_noerror_other > 0 {
            map.serialize_entry("OTHER", empty_noerror_other)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

impl From<&Histogram> for Latency {
    fn from(latency: &Histogram) -> Self {
        Self {
            p50: seconds(latency.quantile(0.5)),
            p90: seconds(latency.quantile(0.9)),
            p99: seconds(latency.quantile(0.99)),
            max: seconds(latency.max()),
        }
    }
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

#[derive(Serialize)]
struct Server {
    server: String,
    /// `NAMESPACE/NAME`, and behind it the same by OpenTelemetry's conventions.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(rename = "k8s.namespace.name", skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(rename = "k8s.service.name", skip_serializing_if = "Option::is_none")]
    service_name: Option<String>,
    /// Of a service, by kube-proxy's rules and by what was seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backends: Vec<String>,
    queries: u64,
    answered: u64,
    unanswered: u64,
    rcodes: BTreeMap<String, u64>,
    p50_s: Option<f64>,
    p99_s: Option<f64>,
}

impl Report<'_> {
    /// The most asked first, and those not counted one by one last.
    fn server_views(&self) -> Vec<Server> {
        let servers = self.stats.servers();
        let known = servers.ranked().into_iter().map(|(address, stats)| {
            let service = self.service(address);
            let parts = service.as_deref().and_then(|name| name.split_once('/'));
            Server {
                service: service.as_deref().map(str::to_owned),
                namespace: parts.map(|(namespace, _)| namespace.to_owned()),
                service_name: parts.map(|(_, name)| name.to_owned()),
                backends: self.names.services().backends(address).iter().map(ToString::to_string).collect(),
                ..server(address.to_string(), stats)
            }
        });
        let others = servers.other().map(|other| server("(others)".into(), other));
        known.chain(others).collect()
    }
}

fn server(server: String, stats: &ServerStats) -> Server {
    Server {
        server,
        service: None,
        namespace: None,
        service_name: None,
        backends: Vec::new(),
        queries: stats.queries,
        answered: stats.answered,
        unanswered: stats.unanswered,
        rcodes: stats.rcodes.iter().map(|(rcode, count)| (Rcode::to_string(rcode), *count)).collect(),
        p50_s: seconds(stats.latency.quantile(0.5)),
        p99_s: seconds(stats.latency.quantile(0.99)),
    }
}
