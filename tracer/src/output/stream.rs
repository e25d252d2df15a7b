//! One line an event.

use super::{
    drops,
    json::{FindingView, MessageLine, QuestionLine},
    lines::{self, ClientWidth},
    lookup_json::LookupJson,
};
use crate::{
    findings::Finding,
    model::{Lookup, Message, Observer, PacketDrop, PodName, Pods, Question, Timestamp, Vantages, Wanted},
};
use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Lines are written together once this many bytes are waiting.
const BATCH: usize = 64 * 1024;

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One line for people.
    Text,
}

/// What makes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Unit {
    /// A DNS packet that the kernel dropped, or a conntrack clash that it resolved.
    Drop,
    /// A finding, when it is first made.
    Finding,
    /// One getaddrinfo() call with its whole search.
    Lookup,
    /// One DNS message on the wire.
    Message,
    /// One (name, type) asked, with its retransmissions and answers.
    Question,
}

/// Prints one line an event to a writer, in batches; [`Self::flush`] writes what is waiting.
///
/// A write error ends the printing: it is told by the next [`Self::flush`], and [`Self::is_broken`] from then on.
#[derive(Debug)]
pub struct Stream<W> {
    to: W,
    format: Format,
    units: Vec<Unit>,
    vantages: Vantages,
    pods: Pods,
    width: ClientWidth,
    lookup_json: LookupJson,
    waiting: Vec<u8>,
    error: Option<io::Error>,
    broken: bool,
}

impl<W: Write> Stream<W> {
    /// Prints events of these units; `vantages` names the hops.
    pub fn new(to: W, format: Format, units: &[Unit], vantages: Vantages) -> Self {
        Self {
            to,
            format,
            units: units.to_vec(),
            vantages,
            pods: Pods::new(),
            width: ClientWidth::default(),
            lookup_json: LookupJson::default(),
            waiting: Vec::with_capacity(BATCH + BATCH / 4),
            error: None,
            broken: false,
        }
    }

    /// Clients are named by `pods`, as these were when the client asked.
    #[must_use]
    pub fn with_pods(mut self, pods: Pods) -> Self {
        self.pods = pods;
        self
    }

    fn pod(&self, client: IpAddr, time: Timestamp) -> Option<Arc<PodName>> {
        self.pods.name_at(client, time)
    }

    /// Its pod, and the container that asked.
    fn asking(&self, client: IpAddr, time: Timestamp) -> (Option<Arc<PodName>>, Option<Arc<str>>) {
        self.pods.asking_at(client, time).map_or((None, None), |(pod, container)| (Some(pod), container))
    }

    /// Which service a server is: for JSON alone.
    fn service(&self, server: SocketAddr, time: Timestamp) -> Option<Arc<str>> {
        let wanted = self.format == Format::Json;
        wanted.then(|| self.pods.services().name_at(server.ip(), Some(server.port()), time))?
    }

    /// Writes what is waiting. A live session calls it at least every 100 ms.
    ///
    /// # Errors
    /// When writing failed, now or before; each error is told once.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write_waiting();
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.broken { Ok(()) } else { self.to.flush() }
    }

    /// Whether writing has failed, so that there is no use going on.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// The places behind the hops' vantages.
    #[must_use]
    pub fn vantages(&self) -> &Vantages {
        &self.vantages
    }

    /// Whether events of this unit are printed.
    #[must_use]
    pub fn prints(&self, unit: Unit) -> bool {
        self.units.contains(&unit)
    }

    /// Prints a finding; the caller chooses when one is worth a line.
    pub fn finding(&mut self, finding: &Finding) {
        if self.prints(Unit::Finding) {
            let text = |line: &mut Vec<u8>| lines::finding(line, finding);
            let vantages = self.vantages.clone();
            self.line(&FindingView { finding, vantages: &vantages, line: true }, text);
        }
    }

    /// Prints a line that is no event of a unit, as it is.
    pub fn aside(&mut self, line: &str) {
        if !self.broken {
            self.waiting.extend_from_slice(line.as_bytes());
        }
    }

    fn line(&mut self, json: &impl serde::Serialize, text: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        self.write(|stream| match stream.format {
            Format::Json => serde_json::to_writer(&mut stream.waiting, json)
                .map_err(io::Error::from)
                .map(|()| stream.waiting.push(b'\n')),
            Format::Text => text(&mut stream.waiting),
        });
    }

    fn write(&mut self, append: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.broken {
            return;
        }
        if let Err(error) = append(self) {
            self.fail(error);
        } else if self.waiting.len() >= BATCH {
            self.write_waiting();
        }
    }

    fn write_waiting(&mut self) {
        if !self.broken
            && !self.waiting.is_empty()
            && let Err(error) = self.to.write_all(&self.waiting)
        {
            self.fail(error);
        }
        self.waiting.clear();
    }

    fn fail(&mut self, error: io::Error) {
        self.broken = true;
        self.error = Some(error);
    }
}

impl<W: Write> Observer for Stream<W> {
    fn wants_messages(&self) -> Wanted {
        match (self.prints(Unit::Message), self.prints(Unit::Question)) {
            (true, _) => Wanted::All,
            (false, true) => Wanted::Nothing,
            (false, false) => Wanted::Lookups,
        }
    }

    fn message(&mut self, message: &Message) {
        if self.prints(Unit::Message) {
            let vantages = self.vantages.clone();
            let pod = self.pod(message.client.ip(), message.time);
            let client = self.width.message(message.client, pod.as_deref());
            let service = self.service(message.server, message.time);
            let json = MessageLine {
                message,
                pod: pod.as_deref(),
                service: service.as_deref(),
                vantages: &vantages,
            };
            self.line(&json, |line| lines::message(line, message, &client));
        }
    }

    fn question(&mut self, question: &Question) {
        if self.prints(Unit::Question) {
            let (pod, container) = self.asking(question.client, question.first_asked());
            let client = self.width.client(question.client, pod.as_deref());
            let asked = question.transmissions.first();
            let service = asked.and_then(|first| self.service(first.server, question.first_asked()));
            let json = QuestionLine {
                question,
                pod: pod.as_deref(),
                container: container.as_deref(),
                service: service.as_deref(),
            };
            self.line(&json, |line| lines::question(line, question, &client));
        }
    }

    fn packet_drop(&mut self, drop: &PacketDrop) {
        if self.prints(Unit::Drop) {
            let vantages = self.vantages.clone();
            self.line(&drops::DropLine(drop, &vantages), |line| drops::line(line, drop));
        }
    }

    fn lookup(&mut self, lookup: &Lookup) {
        if self.prints(Unit::Lookup) {
            let (pod, container) = self.asking(lookup.client, lookup.start);
            let pod = pod.as_deref();
            self.write(|stream| match stream.format {
                Format::Json => {
                    let names = (pod, container.as_deref());
                    stream.lookup_json.append(&mut stream.waiting, lookup, names, true);
                    stream.waiting.push(b'\n');
                    Ok(())
                }
                Format::Text => {
                    let client = stream.width.client(lookup.client, pod);
                    lines::lookup(&mut stream.waiting, lookup, &client)
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
