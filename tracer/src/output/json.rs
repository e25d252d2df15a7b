//! The JSON shapes of events: borrowed views that serialise without building anything in between.

use crate::{
    findings::{Cost, Evidence, Explained, Finding, Symptom},
    model::{
        Hop, Message, MessageKind, PodName, Question, QuestionOutcome, Rcode, Retransmission, Transmission,
        TransmissionKind, Vantages,
    },
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{fmt, time::Duration};

/// A value as its text.
pub(super) struct Shown<T>(pub(super) T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Values as a list, made while it is written.
struct List<F>(F);

impl<F, I> Serialize for List<F>
where
    F: Fn() -> I,
    I: IntoIterator,
    I::Item: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whose an address is: `pod`, and for a Kubernetes pod its names by OpenTelemetry's conventions, with the container's
/// where only one can have asked.
fn pod_entries<M: SerializeMap>(
    map: &mut M,
    pod: Option<&PodName>,
    container: Option<&str>,
) -> Result<(), M::Error> {
    let Some(pod) = pod else { return Ok(()) };
    map.serialize_entry("pod", &Shown(pod))?;
    if !pod.namespace.is_empty() {
        map.serialize_entry("k8s.namespace.name", &pod.namespace)?;
        map.serialize_entry("k8s.pod.name", &pod.name)?;
    }
    container_entry(map, container)
}

fn container_entry<M: SerializeMap>(map: &mut M, container: Option<&str>) -> Result<(), M::Error> {
    if let Some(container) = container {
        map.serialize_entry("k8s.container.name", container)?;
    }
    Ok(())
}

/// Which service a server is: `service`, and its name by OpenTelemetry's conventions. Its namespace is within `service`:
/// `k8s.namespace.name` is the client's.
fn service_entries<M: SerializeMap>(map: &mut M, service: Option<&str>) -> Result<(), M::Error> {
    let Some(service) = service else { return Ok(()) };
    map.serialize_entry("service", service)?;
    if let Some((_, name)) = service.split_once('/') {
        map.serialize_entry("k8s.service.name", name)?;
    }
    Ok(())
}

/// One line of `--unit message`.
pub(super) struct MessageLine<'a> {
    pub(super) message: &'a Message,
    pub(super) pod: Option<&'a PodName>,
    /// `NAMESPACE/NAME` of what is asked.
    pub(super) service: Option<&'a str>,
    pub(super) vantages: &'a Vantages,
}

impl Serialize for MessageLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { message, pod, service, vantages } = *self;
        let dns = &message.dns;
        let response = dns.is_response();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("unit", "message")?;
        map.serialize_entry("time", &Shown(message.time))?;
        map.serialize_entry("qr", if response { "R" } else { "Q" })?;
        map.serialize_entry("id", &dns.id)?;
        map.serialize_entry("client", &Shown(message.client))?;
        map.serialize_entry("server", &Shown(message.server))?;
        service_entries(&mut map, service)?;
        pod_entries(&mut map, pod, None)?;
        map.serialize_entry("transport", &Shown(message.transport))?;
        if dns.has_question {
            map.serialize_entry("name", &Shown(&dns.name))?;
            map.serialize_entry("qtype", &Shown(dns.qtype))?;
        }
        match message.kind {
            MessageKind::Query(kind) => {
                map.serialize_entry("role", role(kind))?;
                if let TransmissionKind::Retransmission(retransmission) = kind {
                    map.serialize_entry("retransmission", &Resent::from(retransmission))?;
                }
            }
            MessageKind::Response { latency, since_first, late } => {
                map.serialize_entry("rcode", &Shown(dns.rcode))?;
                map.serialize_entry("latency_ns", &nanos(latency))?;
                map.serialize_entry("since_first_ns", &nanos(since_first))?;
                map.serialize_entry("late", &late)?;
                map.serialize_entry("unmatched", &false)?;
            }
            MessageKind::Unmatched => {
                map.serialize_entry("rcode", &Shown(dns.rcode))?;
                map.serialize_entry("unmatched", &true)?;
            }
        }
        if response {
            map.serialize_entry("aa", &dns.flags.authoritative())?;
            map.serialize_entry("tc", &dns.flags.truncated())?;
        }
        map.serialize_entry("rd", &dns.flags.recursion_desired())?;
        if response {
            map.serialize_entry("ra", &dns.flags.recursion_available())?;
            map.serialize_entry("num_answers", &dns.counts[1])?;
            map.serialize_entry("addresses", &List(|| dns.answer.addresses.iter().map(Shown)))?;
        }
        map.serialize_entry("size", &dns.size)?;
        if let Some(question) = message.question {
            map.serialize_entry("question", &question.0)?;
        }
        map.serialize_entry(
            "hops",
            &List(|| message.hops.iter().map(|hop| HopView::new(hop, message, vantages))),
        )?;
        map.end()
    }
}

/// The word of a query message's role.
pub(super) fn role(kind: TransmissionKind) -> &'static str {
    match kind {
        TransmissionKind::First => "first",
        TransmissionKind::ParallelCopy => "parallel_copy",
        TransmissionKind::Retransmission(_) => "retransmission",
        TransmissionKind::TcpFallback => "tcp_fallback",
    }
}

#[derive(Serialize)]
struct HopView {
    #[serde(skip_serializing_if = "Option::is_none")]
    vantage: Option<Shown<std::sync::Arc<crate::model::Vantage>>>,
    offset_ns: u64,
    src: Shown<std::net::SocketAddr>,
    dst: Shown<std::net::SocketAddr>,
    frame: u64,
}

impl HopView {
    fn new(hop: &Hop, message: &Message, vantages: &Vantages) -> Self {
        let start = message.hops.first().map_or(hop.time, |first| first.time);
        Self {
            vantage: vantages.lookup(hop.vantage).map(Shown),
            offset_ns: nanos(hop.time.since(start)),
            src: Shown(hop.source),
            dst: Shown(hop.destination),
            frame: hop.frame,
        }
    }
}

#[derive(Serialize)]
struct Resent {
    gap_s: f64,
    kind: &'static str,
    same_id: bool,
    same_port: bool,
    server_changed: bool,
}

impl From<Retransmission> for Resent {
    fn from(retransmission: Retransmission) -> Self {
        Self {
            gap_s: retransmission.gap.as_secs_f64(),
            kind: retransmission.kind.as_str(),
            same_id: retransmission.same_id,
            same_port: retransmission.same_port,
            server_changed: retransmission.server_changed,
        }
    }
}

/// One line of `--unit question`.
pub(super) struct QuestionLine<'a> {
    pub(super) question: &'a Question,
    pub(super) pod: Option<&'a PodName>,
    /// `NAMESPACE/NAME` of whom it was asked first.
    pub(super) service: Option<&'a str>,
    pub(super) container: Option<&'a str>,
}

impl Serialize for QuestionLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { question, pod, container, service } = *self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("unit", "question")?;
        map.serialize_entry("time", &Shown(question.first_asked()))?;
        map.serialize_entry("client", &Shown(question.client))?;
        pod_entries(&mut map, pod, container)?;
        map.serialize_entry("name", &Shown(&question.name))?;
        map.serialize_entry("qtype", &Shown(question.qtype))?;
        if let Some(first) = question.transmissions.first() {
            map.serialize_entry("server", &Shown(first.server))?;
            service_entries(&mut map, service)?;
        }
        map.serialize_entry("outcome", outcome(question.outcome))?;
        if let Some(rcode) = rcode(question) {
            map.serialize_entry("rcode", &Shown(rcode))?;
        }
        if let Some(latency) = question.latency() {
            map.serialize_entry("latency_ns", &nanos(latency))?;
        }
        if let Some(latency) = question.server_latency() {
            map.serialize_entry("server_latency_ns", &nanos(latency))?;
        }
        map.serialize_entry("queries", &question.transmissions.len())?;
        map.serialize_entry("answers", &question.answers.len())?;
        map.serialize_entry("retransmissions", &List(|| question.transmissions.iter().filter_map(resent)))?;
        map.serialize_entry("question", &question.id.0)?;
        map.end()
    }
}

fn resent(transmission: &Transmission) -> Option<Resent> {
    match transmission.kind {
        TransmissionKind::Retransmission(retransmission) => Some(retransmission.into()),
        TransmissionKind::First | TransmissionKind::ParallelCopy | TransmissionKind::TcpFallback => None,
    }
}

/// The word of a question's outcome.
pub(super) fn outcome(outcome: QuestionOutcome) -> &'static str {
    match outcome {
        QuestionOutcome::Answered(_) => "answered",
        QuestionOutcome::Unanswered => "unanswered",
        QuestionOutcome::Unreachable => "unreachable",
        QuestionOutcome::Incomplete => "incomplete",
    }
}

/// The code a question was answered with.
pub(super) fn rcode(question: &Question) -> Option<Rcode> {
    match question.outcome {
        QuestionOutcome::Answered(rcode) => Some(rcode),
        QuestionOutcome::Unanswered | QuestionOutcome::Unreachable | QuestionOutcome::Incomplete => None,
    }
}

/// A finding: an entry of a report's `findings`, or behind its unit one line of `--unit finding`.
pub(super) struct FindingView<'a> {
    pub(super) finding: &'a Finding,
    pub(super) vantages: &'a Vantages,
    pub(super) line: bool,
}

impl Serialize for FindingView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let finding = self.finding;
        let mut map = serializer.serialize_map(None)?;
        if self.line {
            map.serialize_entry("unit", "finding")?;
        }
        map.serialize_entry("code", finding.code)?;
        map.serialize_entry("name", finding.name)?;
        map.serialize_entry("severity", finding.severity.as_str())?;
        map.serialize_entry("confidence", finding.confidence.as_str())?;
        map.serialize_entry("subject", &Subject(&finding.subject))?;
        map.serialize_entry("count", &finding.count)?;
        map.serialize_entry("cost", &CostView::from(finding.cost))?;
        map.serialize_entry("first", &Shown(finding.first))?;
        map.serialize_entry("last", &Shown(finding.last))?;
        map.serialize_entry("summary", &finding.summary)?;
        map.serialize_entry("advice", &finding.advice)?;
        map.serialize_entry("evidence", &List(|| finding.evidence.iter().map(|shown| shown.frame)))?;
        // Where several files are merged: of which one each number is, by its place in `sources`.
        if self.vantages.all().iter().any(|vantage| vantage.source > 0) {
            let source = |shown: &Evidence| shown.source(self.vantages);
            map.serialize_entry("evidence_sources", &List(|| finding.evidence.iter().map(source)))?;
        }
        let symptom = |symptom: &Symptom| SymptomView {
            code: symptom.code,
            name: symptom.name,
            count: symptom.count,
            cost: symptom.cost.into(),
        };
        map.serialize_entry("symptoms", &List(|| finding.symptoms.iter().map(symptom)))?;
        let explained =
            finding.explained_by.map(|Explained { code, place }| ExplainedView { code, finding: place });
        map.serialize_entry("explained_by", &explained)?;
        map.end()
    }
}

#[derive(Serialize)]
struct CostView {
    waited_s: f64,
    failed: u64,
}

impl From<Cost> for CostView {
    fn from(cost: Cost) -> Self {
        Self { waited_s: cost.waited.as_secs_f64(), failed: cost.failed }
    }
}

/// What a finding explains of another code.
#[derive(Serialize)]
struct SymptomView {
    code: &'static str,
    name: &'static str,
    count: u64,
    cost: CostView,
}

/// The finding that explains one: its code, and its place in the list of findings, from 0.
#[derive(Serialize)]
struct ExplainedView {
    code: &'static str,
    finding: usize,
}

struct Subject<'a>(&'a [(&'static str, String)]);

impl Serialize for Subject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
