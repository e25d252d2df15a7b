//! What a session shows and counts: the filters of the command line as one type, for files and live alike.
//!
//! Every value of one option is an alternative, different options must all hold. A filter never changes what
//! the engine sees, only what is told: a lookup that matches is told whole.

use super::when::When;
use crate::model::{
    BlindSpot, Connect, DnsMessage, Eviction, Flow, Lookup, Message, Misdirected, Name, Observer, PacketDrop,
    PodName, Pods, Question, Rcode, Resolver, Rtype, RuleCount, Timestamp, Transmission, Wanted,
};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// An address, or all addresses under a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4-mapped IPv6 address is its IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let host = 32 - u32::from(self.prefix.min(32));
                (own.to_bits() ^ other.to_bits()).checked_shr(host).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let host = 128 - u32::from(self.prefix.min(128));
                (own.to_bits() ^ other.to_bits()).checked_shr(host).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither an IP address nor a CIDR prefix like 10.244.0.0/16");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|&p| p <= whole).ok_or_else(wrong)?,
            None => whole,
        };
        Ok(Self { address, prefix })
    }
}

/// A pattern for domain names; letters match in either case, a trailing dot is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameGlob(Glob);

impl FromStr for NameGlob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = if text == "." { text } else { text.strip_suffix('.').unwrap_or(text) };
        if pattern.is_empty() {
            return Err("the pattern is empty; write it like *.example.com".into());
        }
        GlobBuilder::new(pattern)
            .case_insensitive(true)
            .literal_separator(false)
            .backslash_escape(true)
            .build()
            .map(Self)
            .map_err(|error| format!("{} in {text:?}; write it like *.example.com", error.kind()))
    }
}

/// A pattern for pods or their namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodGlob(Glob);

impl FromStr for PodGlob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the pattern is empty; write it like web-*".into());
        }
        Glob::new(text)
            .map(Self)
            .map_err(|error| format!("{} in {text:?}; write it like web-*", error.kind()))
    }
}

/// Which pods' lookups are told: those in any of these namespaces, and with any of these names.
#[derive(Clone, Debug, Default)]
pub struct PodFilter {
    namespaces: Option<GlobSet>,
    names: Option<GlobSet>,
}

impl PodFilter {
    /// Joins the patterns; an empty list does not filter. A name's pattern with a slash is for `namespace/name`.
    ///
    /// # Errors
    /// When the patterns are too large to be compiled together.
    pub fn new(namespaces: &[PodGlob], names: &[PodGlob]) -> Result<Self, globset::Error> {
        let set = |globs: &[PodGlob]| glob_set(globs.iter().map(|glob| &glob.0));
        Ok(Self { namespaces: set(namespaces)?, names: set(names)? })
    }

    fn admits_all(&self) -> bool {
        self.namespaces.is_none() && self.names.is_none()
    }

    fn admits(&self, pod: &PodName) -> bool {
        let in_namespace = self.namespaces.as_ref().is_none_or(|set| set.is_match(&pod.namespace));
        let named = |set: &GlobSet| set.is_match(&pod.name) || set.is_match(pod.to_string());
        in_namespace && self.names.as_ref().is_none_or(named)
    }
}

/// One set of patterns; `None` where there is none.
fn glob_set<'a>(globs: impl ExactSizeIterator<Item = &'a Glob>) -> Result<Option<GlobSet>, globset::Error> {
    if globs.len() == 0 {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(glob.clone());
    }
    set.build().map(Some)
}

/// A window in time as the command line gave it, its ends perhaps relative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From here on.
    pub since: Option<When>,
    /// Up to here.
    pub until: Option<When>,
}

impl Times {
    /// Whether [`Self::resolve`] needs a reference.
    #[must_use]
    pub fn is_relative(&self) -> bool {
        self.since.is_some_and(When::is_relative) || self.until.is_some_and(When::is_relative)
    }

    /// The window, with `reference` for now: the clock when live, the last frame's time with files.
    ///
    /// # Errors
    /// When it would end before it starts.
    pub fn resolve(&self, reference: Timestamp) -> Result<Window, WindowError> {
        let since = self.since.map(|when| when.resolve(reference));
        let until = self.until.map(|when| when.resolve(reference));
        match (since, until) {
            (Some(since), Some(until)) if until < since => Err(WindowError { since, until }),
            _ => Ok(Window { since, until }),
        }
    }
}

/// A window that ends before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot select from {since} to {until}: it ends before it starts; swap --since and --until")]
pub struct WindowError {
    since: Timestamp,
    until: Timestamp,
}

/// A window in time, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// From here on.
    pub since: Option<Timestamp>,
    /// Up to here.
    pub until: Option<Timestamp>,
}

impl Window {
    /// Its ends, those that are open taken from `span`.
    #[must_use]
    pub fn within(&self, span: (Timestamp, Timestamp)) -> (Timestamp, Timestamp) {
        (self.since.unwrap_or(span.0), self.until.unwrap_or(span.1))
    }

    /// Whether `time` is in it.
    #[must_use]
    pub fn contains(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since) && !self.is_over(time)
    }

    /// Whether `time` is behind it. What was known of the node before a window is true in it, and not what came later.
    #[must_use]
    pub fn is_over(&self, time: Timestamp) -> bool {
        self.until.is_some_and(|until| time > until)
    }
}

/// The filters.
#[derive(Clone, Debug)]
pub struct Selection {
    clients: Vec<Network>,
    servers: Vec<Network>,
    names: Option<GlobSet>,
    qtypes: Vec<Rtype>,
    rcodes: Vec<Rcode>,
    /// Whose clients are told.
    pub pod_filter: PodFilter,
    /// Who has which address, for [`Self::pod_filter`].
    pub pods: Pods,
    /// What is outside this window is not told: messages and drops by their time, questions and lookups by their start.
    pub window: Window,
}

impl Default for Selection {
    /// Everything.
    fn default() -> Self {
        Self {
            clients: Vec::new(),
            servers: Vec::new(),
            names: None,
            qtypes: Vec::new(),
            rcodes: Vec::new(),
            pod_filter: PodFilter::default(),
            pods: Pods::default(),
            window: Window::default(),
        }
    }
}

impl Selection {
    /// Joins the filters; an empty list does not filter.
    ///
    /// # Errors
    /// When the name patterns are too large to be compiled together.
    pub fn new(
        clients: Vec<Network>,
        servers: Vec<Network>,
        names: &[NameGlob],
        qtypes: Vec<Rtype>,
        rcodes: Vec<Rcode>,
    ) -> Result<Self, globset::Error> {
        let names = glob_set(names.iter().map(|name| &name.0))?;
        Ok(Self { clients, servers, names, qtypes, rcodes, ..Self::default() })
    }

    /// Whether nothing is filtered.
    pub(super) fn admits_all(&self) -> bool {
        self.clients.is_empty()
            && self.servers.is_empty()
            && self.names.is_none()
            && self.qtypes.is_empty()
            && self.rcodes.is_empty()
            && self.pod_filter.admits_all()
            && self.window == Window::default()
    }

    /// The same filters for the time before the window; `None` where it has no start.
    #[must_use]
    pub fn earlier(&self) -> Option<Self> {
        let until = Some(self.window.since?.minus_nanos(1));
        Some(Self { window: Window { since: None, until }, ..self.clone() })
    }

    /// Whether a message is told. A query has no response code: with `--rcode` only responses are.
    #[must_use]
    pub fn admits_message(&self, message: &Message) -> bool {
        self.window.contains(message.time)
            && self.admits_client(message.client.ip(), message.time)
            && (in_any(&self.servers, message.server.ip())
                || message.hops.iter().any(|hop| {
                    in_any(&self.servers, hop.source.ip()) || in_any(&self.servers, hop.destination.ip())
                }))
            && self.admits_name(&message.dns.name)
            && is_any(&self.qtypes, message.dns.qtype)
            && (self.rcodes.is_empty()
                || message.dns.is_response() && self.rcodes.contains(&message.dns.rcode))
    }

    /// Whether a question is told.
    #[must_use]
    pub fn admits_question(&self, question: &Question) -> bool {
        self.window.contains(question.first_asked())
            && self.admits_client(question.client, question.first_asked())
            && self.admits_name(&question.name)
            && self.admits_traffic(question)
    }

    /// Whether a lookup is told: by its own name or a candidate's, by any of its questions.
    #[must_use]
    pub fn admits_lookup(&self, lookup: &Lookup) -> bool {
        self.window.contains(lookup.start)
            && self.admits_client(lookup.client, lookup.start)
            && (self.admits_name(&lookup.name)
                || lookup.steps.iter().any(|step| self.admits_name(&step.name)))
            && lookup.steps.iter().flat_map(|step| &step.questions).any(|q| self.admits_traffic(q))
    }

    /// Who has no name is in no namespace.
    fn admits_client(&self, client: IpAddr, time: Timestamp) -> bool {
        in_any(&self.clients, client)
            && (self.pod_filter.admits_all()
                || self.pods.name_at(client, time).is_some_and(|pod| self.pod_filter.admits(&pod)))
    }

    /// Whether a drop is told. What could not be read of it matches no filter about it.
    #[must_use]
    pub fn admits_drop(&self, drop: &PacketDrop) -> bool {
        let backend = drop.connection.map(|connection| connection.reply.source.ip());
        self.window.contains(drop.time)
            && self.admits_packet(
                drop.time,
                drop.asked(),
                backend,
                drop.dns.as_ref().filter(|dns| dns.has_question),
            )
    }

    /// Whether a frame that was sent to a wrong MAC address is told.
    #[must_use]
    pub fn admits_misdirected(&self, frame: &Misdirected) -> bool {
        let asked = if frame.dns.is_response() { frame.flow.reversed() } else { frame.flow };
        self.window.contains(frame.time) && self.admits_packet(frame.time, asked, None, Some(&frame.dns))
    }

    /// Whether an attempt to connect is told. It has no server, type or code of DNS: filters on these leave it out.
    #[must_use]
    pub fn admits_connect(&self, connect: &Connect) -> bool {
        self.window.contains(connect.time)
            && self.admits_client(connect.client.ip(), connect.time)
            && self.admits_name(&connect.name)
            && self.servers.is_empty()
            && self.qtypes.is_empty()
            && self.rcodes.is_empty()
    }

    fn admits_packet(
        &self,
        time: Timestamp,
        asked: Flow,
        backend: Option<IpAddr>,
        dns: Option<&DnsMessage>,
    ) -> bool {
        self.admits_client(asked.source.ip(), time)
            && (in_any(&self.servers, asked.destination.ip())
                || backend.is_some_and(|backend| in_any(&self.servers, backend)))
            && (self.names.is_none() || dns.is_some_and(|dns| self.admits_name(&dns.name)))
            && (self.qtypes.is_empty() || dns.is_some_and(|dns| self.qtypes.contains(&dns.qtype)))
            && (self.rcodes.is_empty()
                || dns.is_some_and(|dns| dns.is_response() && self.rcodes.contains(&dns.rcode)))
    }

    fn admits_traffic(&self, question: &Question) -> bool {
        is_any(&self.qtypes, question.qtype)
            && (self.servers.is_empty() || question.transmissions.iter().any(|t| self.admits_server(t)))
            && (self.rcodes.is_empty() || question.answers.iter().any(|a| self.rcodes.contains(&a.rcode)))
    }

    fn admits_server(&self, transmission: &Transmission) -> bool {
        in_any(&self.servers, transmission.server.ip())
            || transmission.backend.is_some_and(|backend| in_any(&self.servers, backend.ip()))
    }

    fn admits_name(&self, name: &Name) -> bool {
        self.names.as_ref().is_none_or(|names| names.is_match(name.to_string()))
    }
}

fn in_any(networks: &[Network], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(address))
}

fn is_any<T: PartialEq>(wanted: &[T], value: T) -> bool {
    wanted.is_empty() || wanted.contains(&value)
}

/// Passes on what the selection admits.
#[derive(Debug)]
pub struct Selected<'a, O> {
    selection: &'a Selection,
    /// It admits all there is: asked once, and not for each message.
    all: bool,
    /// Translations that the services were told of.
    translations: HashSet<(SocketAddr, SocketAddr), foldhash::fast::RandomState>,
    /// Who is told.
    pub observer: O,
}

/// Translations, each of which is told once; a cluster's DNS has a few.
const MOST_TRANSLATIONS: usize = 4_096;

impl<'a, O: Observer> Selected<'a, O> {
    /// Tells `observer` what `selection` admits.
    pub fn new(selection: &'a Selection, observer: O) -> Self {
        Self { selection, all: selection.admits_all(), translations: HashSet::default(), observer }
    }

    /// Which backends a service has is learnt from what is filtered out, too.
    fn learn_backends(&mut self, question: &Question) {
        for sent in &question.transmissions {
            let Some(backend) = sent.backend.filter(|backend| *backend != sent.server) else { continue };
            let translation = (sent.server, backend);
            if self.translations.contains(&translation) || self.translations.len() >= MOST_TRANSLATIONS {
                continue;
            }
            self.translations.insert(translation);
            self.selection.pods.services().saw(sent.server, backend);
        }
    }
}

impl<O: Observer> Observer for Selected<'_, O> {
    fn wants_messages(&self) -> Wanted {
        self.observer.wants_messages()
    }
    fn message(&mut self, message: &Message) {
        if self.all || self.selection.admits_message(message) {
            self.observer.message(message);
        }
    }
    fn question(&mut self, question: &Question) {
        self.learn_backends(question);
        if self.all || self.selection.admits_question(question) {
            self.observer.question(question);
        }
    }
    fn lookup(&mut self, lookup: &Lookup) {
        if self.all || self.selection.admits_lookup(lookup) {
            self.observer.lookup(lookup);
        }
    }
    fn packet_drop(&mut self, drop: &PacketDrop) {
        if self.selection.admits_drop(drop) {
            self.observer.packet_drop(drop);
        }
    }
    fn misdirected(&mut self, frame: &Misdirected) {
        if self.selection.admits_misdirected(frame) {
            self.observer.misdirected(frame);
        }
    }
    fn connect(&mut self, connect: &Connect) {
        if self.selection.admits_connect(connect) {
            self.observer.connect(connect);
        }
    }
    fn blind_spot(&mut self, spot: &BlindSpot, time: Timestamp) {
        if !self.selection.window.is_over(time) {
            self.observer.blind_spot(spot, time);
        }
    }
    fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        let admits = &self.selection.pod_filter;
        if !self.selection.window.is_over(time) && (admits.admits_all() || admits.admits(&resolver.pod)) {
            self.observer.resolver(resolver, time);
        }
    }
    fn lost(&mut self, from: Timestamp, until: Timestamp, frames: u64) {
        self.observer.lost(from, until, frames);
    }
    fn rules(&mut self, count: &RuleCount, time: Timestamp) {
        if !self.selection.window.is_over(time) {
            self.observer.rules(count, time);
        }
    }
    fn resides(&mut self, address: IpAddr, source: u16) {
        self.observer.resides(address, source);
    }
    fn evicted(&mut self, eviction: Eviction) {
        self.observer.evicted(eviction);
    }
}

#[cfg(test)]
mod tests;
