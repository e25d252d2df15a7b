//! Coded, evidenced statements about what is wrong: one file a finding, its rule in the file's module doc.

mod blind_spot;
mod capture_loss;
mod cause;
mod causes;
mod clash_resolved;
mod clash_rules;
mod connect_failed;
mod cost;
mod culprit;
mod empty_noerror;
mod forward_loop;
mod groups;
mod insert_failed;
mod iptables_rules;
mod late_answer;
mod lookup_failed;
mod losses;
mod lost_between_nodes;
mod lost_on_node;
mod ndots;
mod no_endpoints;
mod packet_dropped;
mod places;
#[cfg(test)]
mod places_testing;
mod pods;
mod reasons;
mod resolv_conf;
mod retry_gap;
mod search;
mod search_fan_out;
mod server_errors;
mod server_unanswered;
mod slow_server;
mod table_full;
#[cfg(test)]
pub(crate) mod testing;
mod truncated;
mod untranslated_reply;
mod ways;
mod wrong_mac;

pub use cause::{cause, dropped};
pub use causes::{Explained, Symptom};
pub use clash_rules::{KernelVersion, clash_rule};
pub use cost::Cost;
pub use pods::name_pods;
pub use reasons::{fate, what_happened};

use crate::model::{
    BlindSpot, Connect, Coverage, Hop, Lookup, Message, Misdirected, Observer, PacketDrop, Question,
    Resolver, RuleCount, Timestamp, VantageId, Vantages, Wanted,
};
use causes::Causes;
use culprit::{Culprit, Suspects, Witnesses};
use losses::{Loss, Losses};
use std::{fmt, net::IpAddr};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Costs time or load, or will break something.
    Warning,
    /// Somebody did not get an answer.
    Error,
}

impl Severity {
    /// The word of the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// The capture lost frames meanwhile, and the finding rests on something not seen.
    Inconclusive,
    /// One of several explanations.
    Low,
    /// The likely explanation.
    Medium,
    /// What the packets say.
    High,
}

impl Confidence {
    /// The word of the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inconclusive => "inconclusive",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One statement about what is wrong, with what a user needs to check it.
#[derive(Clone, PartialEq, Eq)]
pub struct Finding {
    /// `DPnnn`: stable.
    pub code: &'static str,
    /// The code in words: stable.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// Whom or what it is about: `client`, `name`, `server` and so on, in this order.
    pub subject: Vec<(&'static str, String)>,
    /// How often it happened; the rule's doc says what is counted.
    pub count: u64,
    /// What it cost the users, as far as the rule can know it.
    pub cost: Cost,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// What happened, in one sentence.
    pub summary: String,
    /// What to do about it.
    pub advice: String,
    /// Frames that show it, by number; a few of possibly many.
    pub evidence: Vec<Evidence>,
    /// What it explains of other codes: its `cost` and `severity` are at least theirs.
    pub symptoms: Vec<Symptom>,
    /// The finding that it is a symptom of; such a one is counted there.
    pub explained_by: Option<Explained>,
    /// It says that something was not there: a loss of frames may have made it.
    pub(crate) rests_on_absence: bool,
    /// Whom a finding about a cause blames.
    pub(crate) blames: Vec<Culprit>,
    /// Who may be to blame for this one, the surest first.
    pub(crate) suspects: Suspects,
}

/// A frame that shows a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Evidence {
    /// Its number in its file, or in the session.
    pub frame: u64,
    /// Where it was seen; with several files that tells which one.
    pub vantage: VantageId,
}

impl Evidence {
    /// The file it is in, as [`crate::model::Vantage::source`] counts; 0 where there is only one.
    #[must_use]
    pub fn source(self, vantages: &Vantages) -> u16 {
        vantages.lookup(self.vantage).map_or(0, |vantage| vantage.source)
    }
}

impl From<&Hop> for Evidence {
    fn from(hop: &Hop) -> Self {
        Self { frame: hop.frame, vantage: hop.vantage }
    }
}

/// `7`, or `7@2` at another than the first vantage.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vantage {
            VantageId(0) => write!(f, "{}", self.frame),
            VantageId(vantage) => write!(f, "{}@{vantage}", self.frame),
        }
    }
}

/// All that is told; not the suspects.
impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Finding");
        shown
            .field("code", &self.code)
            .field("name", &self.name)
            .field("severity", &self.severity)
            .field("confidence", &self.confidence)
            .field("subject", &self.subject)
            .field("count", &self.count)
            .field("cost", &self.cost)
            .field("first", &self.first)
            .field("last", &self.last)
            .field("summary", &self.summary)
            .field("advice", &self.advice)
            .field("evidence", &self.evidence);
        if !self.symptoms.is_empty() {
            shown.field("symptoms", &self.symptoms);
        }
        if let Some(explained) = &self.explained_by {
            shown.field("explained_by", explained);
        }
        shown.finish()
    }
}

impl Finding {
    /// How many it stands for: one, but for the last of a code, which tells all that are not told one by one.
    #[must_use]
    pub fn stands_for(&self) -> u64 {
        match self.subject.first() {
            Some((OTHERS, number)) => number.parse().unwrap_or(1),
            _ => 1,
        }
    }

    /// Those of its subjects that stay as they are while it goes on; others grow. Two findings of one code that have the
    /// same ones are about the same thing.
    pub(crate) fn identity(&self) -> impl Iterator<Item = &(&'static str, String)> {
        // Behind a client its pod comes when that is known.
        let is_pod = |place: usize, key: &str| place == 0 && key == "pod";
        let of_identity = move |(place, (key, _)): &(usize, &(&'static str, String))| {
            is_pod(*place, key) || IDENTIFYING.contains(key)
        };
        self.subject.iter().enumerate().filter(of_identity).map(|(_, subject)| subject)
    }
}

/// The keys of subjects that say what a finding is about, and not how far it has gone.
const IDENTIFYING: [&str; 21] = [
    "address",
    "cause",
    "client",
    "fault",
    "found",
    "from",
    "last_seen",
    "message",
    "messages",
    "name",
    "netns",
    "outcome",
    "place",
    "port",
    "rcode",
    "reason",
    "result",
    "server",
    "service",
    "suffix",
    "what",
];

/// The subject of a finding that stands for several.
const OTHERS: &str = "others";

/// One rule: it watches, and says what it found so far whenever it is asked. Its memory is bounded.
pub(crate) trait Rule {
    /// A DNS message.
    fn message(&mut self, _message: &Message) {}
    /// A question that ended.
    fn question(&mut self, _question: &Question) {}
    /// A lookup that ended.
    fn lookup(&mut self, _lookup: &Lookup) {}
    /// A drop, or a clash that was resolved.
    fn packet_drop(&mut self, _drop: &PacketDrop) {}
    /// A drop that took something away, told with its question.
    fn loss(&mut self, _loss: &Loss<'_>) {}
    /// What it found so far, the worst first.
    fn findings(&self) -> Vec<Finding>;
}

/// One of several files that are read together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Between when it was recorded, where it says so, by the clock of the first file.
    pub window: Option<(Timestamp, Timestamp)>,
    /// How its clock differs from the first file's is not known.
    pub clock_unknown: bool,
}

impl Source {
    /// Whether it has no frame and does not say when it was recorded.
    const fn is_timeless(&self) -> bool {
        self.window.is_none()
    }
}

/// Every rule. Tell it what the engine tells, then ask it.
#[derive(Debug, Default)]
pub struct Findings {
    search_fan_out: search_fan_out::SearchFanOut,
    retry_gap: retry_gap::RetryGap,
    empty_noerror: empty_noerror::EmptyNoerror,
    lookup_failed: lookup_failed::LookupFailed,
    late_answer: late_answer::LateAnswer,
    truncated: truncated::Truncated,
    server_errors: server_errors::ServerErrors,
    slow_server: slow_server::SlowServer,
    connect_failed: connect_failed::ConnectFailed,
    blind_spots: blind_spot::BlindSpots,
    iptables_rules: iptables_rules::IptablesRules,
    forward_loop: forward_loop::ForwardLoop,
    insert_failed: insert_failed::InsertFailed,
    table_full: table_full::TableFull,
    packet_dropped: packet_dropped::PacketDropped,
    clash_resolved: clash_resolved::ClashResolved,
    untranslated_reply: untranslated_reply::UntranslatedReply,
    wrong_mac: wrong_mac::WrongMac,
    losses: Losses,
    capture_loss: capture_loss::CaptureLoss,
    no_endpoints: no_endpoints::NoEndpoints,
    resolv_conf: resolv_conf::ResolvConf,
    ways: ways::Ways,
    sources: Vec<Source>,
}

impl Findings {
    /// Rules that know the places behind the hops' vantages.
    #[must_use]
    pub fn new(vantages: Vantages) -> Self {
        Self {
            blind_spots: blind_spot::BlindSpots::new(vantages.clone()),
            forward_loop: forward_loop::ForwardLoop::new(vantages.clone()),
            untranslated_reply: untranslated_reply::UntranslatedReply::new(vantages.clone()),
            ways: ways::Ways::new(vantages),
            ..Self::default()
        }
    }

    /// Says which files are read together, in the order that [`crate::model::Vantage::source`] counts.
    pub fn set_sources(&mut self, sources: Vec<Source>) {
        self.sources = sources;
    }

    /// What was found so far, the worst first, and behind it what that explains; the same for the same events, whatever
    /// was asked before. `span` is the time that was looked at, for what is not tied to a packet.
    #[must_use]
    pub fn ranked(&self, coverage: &Coverage, span: (Timestamp, Timestamp)) -> Vec<Finding> {
        let mut causes = Causes::default();
        let doubted = |mut findings: Vec<Finding>| {
            self.capture_loss.doubt(&mut findings, coverage);
            findings
        };
        causes.extend(self.table_full.with_counters(coverage, span));
        for rule in self.rules() {
            causes.extend(doubted(rule.findings()));
        }
        causes.extend(doubted(self.of_ways()));
        // What a file says is no less true when frames were lost.
        causes.extend(self.resolv_conf.findings());
        let told = [self.retry_gap.told(&causes), self.lookup_failed.told(&causes)];
        causes.extend(doubted(told.concat()));
        causes.extend(self.iptables_rules.findings());
        causes.extend(self.blind_spots.findings());
        causes.extend(capture_loss::findings(coverage, span));
        causes.ranked()
    }

    /// What the ways of messages say, causes before what they explain.
    fn of_ways(&self) -> Vec<Finding> {
        let usual = lost_on_node::Usual::of(&self.ways);
        let mut findings = self.no_endpoints.findings();
        let mut others = lost_between_nodes::findings(&self.ways, &usual, &self.sources);
        others.extend(lost_on_node::findings(&self.ways, &usual));
        others.extend(server_unanswered::findings(&self.ways, &usual));
        others.retain(|finding| !no_endpoints::explain(&findings, finding));
        findings.extend(others);
        findings
    }

    /// Causes before what they explain.
    fn rules(&self) -> [&dyn Rule; 13] {
        [
            &self.connect_failed,
            &self.forward_loop,
            &self.insert_failed,
            &self.packet_dropped,
            &self.wrong_mac,
            &self.untranslated_reply,
            &self.slow_server,
            &self.server_errors,
            &self.late_answer,
            &self.empty_noerror,
            &self.truncated,
            &self.search_fan_out,
            &self.clash_resolved,
        ]
    }

    /// The drops told so far as losses are told to the rules about them.
    fn losses(&mut self, tell: impl FnOnce(&mut Losses, &mut dyn FnMut(&Loss<'_>))) {
        let Self { losses, insert_failed, table_full, packet_dropped, wrong_mac, no_endpoints, .. } = self;
        tell(losses, &mut |loss| {
            insert_failed.loss(loss);
            table_full.loss(loss);
            if !no_endpoints.rejects(loss.drop) {
                packet_dropped.loss(loss);
            }
            wrong_mac.loss(loss);
        });
    }
}

/// Each event goes to the rules that watch such events, named one by one: this is called for every message.
impl Observer for Findings {
    fn wants_messages(&self) -> Wanted {
        Wanted::Telling
    }
    fn message(&mut self, message: &Message) {
        self.ways.message(message);
        self.late_answer.message(message);
        self.server_errors.message(message);
        self.forward_loop.message(message);
    }
    fn question(&mut self, question: &Question) {
        self.server_errors.question(question);
        self.slow_server.question(question);
        self.ways.question(question);
        self.no_endpoints.question(question, &self.ways.places);
        self.untranslated_reply.question(question);
        self.losses(|losses, tell| losses.question(question, tell));
        self.resolv_conf.question(question);
    }
    fn resolver(&mut self, resolver: &Resolver, time: Timestamp) {
        self.resolv_conf.resolver(resolver, time);
        self.search_fan_out.resolver(resolver);
        self.blind_spots.resolver(resolver, time);
    }
    fn blind_spot(&mut self, spot: &BlindSpot, time: Timestamp) {
        self.blind_spots.tell(spot, time);
    }
    fn rules(&mut self, count: &RuleCount, time: Timestamp) {
        self.iptables_rules.rules(count, time);
    }
    fn packet_drop(&mut self, drop: &PacketDrop) {
        self.clash_resolved.packet_drop(drop);
        self.untranslated_reply.packet_drop(drop);
        self.losses(|losses, tell| losses.packet_drop(drop, tell));
    }
    fn misdirected(&mut self, frame: &Misdirected) {
        self.wrong_mac.misdirected(frame);
        self.ways.misdirected(frame);
    }
    fn lost(&mut self, from: Timestamp, until: Timestamp, frames: u64) {
        self.capture_loss.lost(from, until, frames);
    }
    fn resides(&mut self, address: IpAddr, source: u16) {
        self.ways.at_home(address, source);
    }
    fn connect(&mut self, connect: &Connect) {
        self.connect_failed.connect(connect);
    }
    /// What a server asked for others is not told: their own lookups say the same.
    fn lookup(&mut self, lookup: &Lookup) {
        if lookup.forwarded {
            return;
        }
        self.search_fan_out.lookup(lookup);
        self.resolv_conf.lookup(lookup);
        self.empty_noerror.lookup(lookup);
        self.truncated.lookup(lookup);
        self.slow_server.lookup(lookup);
        let Self { retry_gap, lookup_failed, wrong_mac, untranslated_reply, .. } = self;
        let witnesses = Witnesses { wrong_mac, untranslated_reply };
        retry_gap.lookup(lookup, witnesses);
        lookup_failed.lookup(lookup, witnesses);
    }
}
