//! The text lines of events: fixed columns first, names of any length last.

use super::{
    json::{outcome, rcode, role},
    text::{TimeOfDay, escape, human},
};
use crate::{
    findings::{Finding, cause},
    model::{Lookup, LookupResult, Message, MessageKind, PodName, Question, TransmissionKind},
};
use std::{
    fmt,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
};

/// A client as a line shows it: its pod, or its address, padded.
pub(super) struct Client {
    shown: String,
    width: usize,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<1$}", self.shown, self.width)
    }
}

/// How wide the column of clients is: as the widest name so far, within bounds.
#[derive(Debug, Default)]
pub(super) struct ClientWidth {
    widest: usize,
}

impl ClientWidth {
    const ADDRESS: usize = "255.255.255.255".len();
    const PORT: usize = ":65535".len();
    const MOST: usize = 48;

    /// For lookups and questions.
    pub(super) fn client(&mut self, client: IpAddr, pod: Option<&PodName>) -> Client {
        let shown = match pod {
            Some(pod) => self.name(pod),
            None => client.to_string(),
        };
        Client { shown, width: self.widest.max(Self::ADDRESS) }
    }

    /// For messages: with its port.
    pub(super) fn message(&mut self, client: SocketAddr, pod: Option<&PodName>) -> Client {
        let shown = match pod {
            Some(pod) => format!("{}:{}", self.name(pod), client.port()),
            None => client.to_string(),
        };
        Client { shown, width: self.widest.max(Self::ADDRESS) + Self::PORT }
    }

    fn name(&mut self, pod: &PodName) -> String {
        let name = pod.to_string();
        self.widest = self.widest.max(name.len().min(Self::MOST));
        name
    }
}

/// `12:00:03.412  10.244.1.5       ok            1.90 ms  10 queries, 8 wasted  api.example.com`
pub(super) fn lookup(line: &mut impl Write, lookup: &Lookup, client: &Client) -> io::Result<()> {
    let took = human(lookup.duration);
    write!(line, "{}  {client}  {:<11} {took:>9}  ", TimeOfDay(lookup.start), lookup.result)?;
    let mut cost = format!("{} {}", lookup.queries, if lookup.queries == 1 { "query" } else { "queries" });
    if let Some(wasted) = lookup.wasted_search_queries.filter(|&wasted| wasted > 0) {
        cost.push_str(&format!(", {wasted} wasted"));
    }
    write!(line, "{cost:<21}  {}", lookup.name)?;
    match lookup.answered_by {
        Some(by) if by != lookup.name => write!(line, " -> {by}")?,
        _ => {}
    }
    match cause(lookup) {
        Some(cause) => writeln!(line, "  ({cause})"),
        None if lookup.result == LookupResult::Incomplete => writeln!(line, "  (still open)"),
        None => writeln!(line),
    }
}

/// `12:00:03.412  10.244.1.5       A      NXDOMAIN      0.21 ms  10.96.0.10       api.example.com`
pub(super) fn question(line: &mut impl Write, question: &Question, client: &Client) -> io::Result<()> {
    write!(line, "{}  {client}  {:<6} ", TimeOfDay(question.first_asked()), Padded(question.qtype))?;
    match rcode(question) {
        Some(rcode) => write!(line, "{:<11} ", Padded(rcode))?,
        None => write!(line, "{:<11} ", outcome(question.outcome))?,
    }
    match question.latency() {
        Some(latency) => write!(line, "{:>9}  ", human(latency))?,
        None => write!(line, "{:>9}  ", "-")?,
    }
    match question.transmissions.first() {
        Some(first) => write!(line, "{:<15}  ", Padded(first.server.ip()))?,
        None => write!(line, "{:<15}  ", "-")?,
    }
    write!(line, "{}", question.name)?;
    if question.answer().is_some_and(|answer| answer.empty_noerror) {
        write!(line, "  (empty)")?;
    }
    for transmission in &question.transmissions {
        if let TransmissionKind::Retransmission(resent) = transmission.kind {
            write!(line, "  (again after {}: {})", human(resent.gap), resent.kind)?;
        }
    }
    writeln!(line)
}

/// `12:00:03.412  Q  10.244.1.5:40001 > 10.96.0.10:53  udp 4f1a A  api.example.com`
pub(super) fn message(line: &mut impl Write, message: &Message, client: &Client) -> io::Result<()> {
    let dns = &message.dns;
    let (qr, arrow) = if dns.is_response() { ('R', '<') } else { ('Q', '>') };
    write!(
        line,
        "{}  {qr}  {client} {arrow} {:<18}  {} {:04x} {:<5}",
        TimeOfDay(message.time),
        Padded(message.server),
        message.transport,
        dns.id,
        Padded(dns.qtype)
    )?;
    if dns.is_response() {
        write!(line, " {:<8}", Padded(dns.rcode))?;
    } else {
        write!(line, " {:<8}", "")?;
    }
    write!(line, " {}", dns.name)?;
    match message.kind {
        MessageKind::Query(TransmissionKind::First) => {}
        MessageKind::Query(TransmissionKind::Retransmission(resent)) => {
            write!(line, "  (retransmission after {}: {})", human(resent.gap), resent.kind)?;
        }
        MessageKind::Query(kind) => write!(line, "  ({})", role(kind).replace('_', " "))?,
        MessageKind::Response { latency, since_first, late } => {
            write!(line, "  {}", human(latency))?;
            if since_first != latency {
                write!(line, " ({} since first asked)", human(since_first))?;
            }
            write!(line, "  {} {}", dns.counts[1], if dns.counts[1] == 1 { "record" } else { "records" })?;
            if dns.flags.truncated() {
                write!(line, "  (truncated)")?;
            }
            if late {
                write!(line, "  (late)")?;
            }
        }
        MessageKind::Unmatched => write!(line, "  (no query seen)")?,
    }
    if message.hops.len() > 1 {
        write!(line, "  {} hops", message.hops.len())?;
    }
    writeln!(line)
}

/// `12:00:03.412  warning  DP101 search-fan-out  ...`
pub(super) fn finding(line: &mut impl Write, finding: &Finding) -> io::Result<()> {
    writeln!(
        line,
        "{}  {:<7}  {} {}  {}",
        TimeOfDay(finding.last),
        finding.severity,
        finding.code,
        finding.name,
        escape(&finding.summary)
    )
}

/// A value that pads to the width asked, whether its own `Display` does so or not.
struct Padded<T>(T);

impl<T: fmt::Display> fmt::Display for Padded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(width) = f.width() else { return self.0.fmt(f) };
        let mut counted = Counted { to: f, written: 0 };
        fmt::Write::write_fmt(&mut counted, format_args!("{}", self.0))?;
        let missing = width.saturating_sub(counted.written);
        write!(f, "{:missing$}", "")
    }
}

struct Counted<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    written: usize,
}

impl fmt::Write for Counted<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.written += text.chars().count();
        self.to.write_str(text)
    }
}
