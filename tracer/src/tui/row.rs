//! A line of the list: what stays of a lookup, or of a question that belongs to none, once it is told.

use super::text;
use crate::findings;
use crate::model::{Lookup, LookupResult, Question, QuestionOutcome, Rcode, Rtype, Timestamp, Vantages};
use crate::output::ladder::{Ladder, place};
use smallvec::SmallVec;
use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

/// Servers a line keeps to filter by.
const MAX_SERVERS: usize = 4;

/// One line of the list.
#[derive(Debug)]
pub(super) struct Row {
    /// Its number: later told, larger.
    pub(super) serial: u64,
    /// A lookup, or a question that belongs to none.
    pub(super) is_lookup: bool,
    /// Its first query message.
    pub(super) start: Timestamp,
    /// Who asked; port 0.
    pub(super) client: SocketAddr,
    /// The client's pod, or its address where no pod is known; escaped.
    pub(super) who: Box<str>,
    /// The name, escaped.
    pub(super) name: Box<str>,
    /// The types, joined by `+`.
    pub(super) types: Box<str>,
    /// How it ended.
    pub(super) result: LookupResult,
    /// From the first query to the last answer that counted, or to the last query; `None` for one query without
    /// an answer.
    pub(super) took: Option<Duration>,
    /// Query messages.
    pub(super) queries: u32,
    /// Those spent on search candidates that gave nothing.
    pub(super) wasted: u32,
    /// Further messages of questions already asked.
    pub(super) retransmissions: u32,
    /// Silent gaps of 0.2 s and more, together.
    pub(super) waited: Duration,
    /// Which resolver asked.
    pub(super) family: &'static str,
    /// The servers asked, and those behind them.
    pub(super) servers: Box<[SocketAddr]>,
    /// What happened, in words.
    pub(super) story: Box<str>,
    /// Its messages, while the feed has room for them.
    pub(super) ladder: Weak<Ladder>,
}

/// What a feed adds to a line.
pub(super) struct Setting<'a> {
    pub(super) serial: u64,
    pub(super) who: Box<str>,
    pub(super) vantages: &'a Vantages,
    pub(super) ladder: &'a Arc<Ladder>,
}

impl Row {
    pub(super) fn of_lookup(lookup: &Lookup, setting: Setting<'_>) -> Self {
        let questions = || lookup.steps.iter().flat_map(|s| &s.questions);
        Self {
            serial: setting.serial,
            is_lookup: true,
            start: lookup.start,
            client: SocketAddr::new(lookup.client, 0),
            who: setting.who,
            name: lookup.name.to_string().into(),
            types: types(questions()).into(),
            result: lookup.result,
            took: Some(lookup.duration).filter(|d| !d.is_zero()),
            queries: lookup.queries,
            wasted: lookup.wasted_search_queries.unwrap_or(0),
            retransmissions: u32::try_from(lookup.retransmissions.len()).unwrap_or(u32::MAX),
            waited: lookup.gaps.iter().sum(),
            family: lookup.family.as_str(),
            servers: servers(questions()),
            story: story_of_lookup(lookup, setting.vantages).into(),
            ladder: Arc::downgrade(setting.ladder),
        }
    }

    pub(super) fn of_question(question: &Question, setting: Setting<'_>) -> Self {
        let mut story = Story::default();
        story.of_questions(std::iter::once(question), setting.vantages);
        story.answer(question);
        Self {
            serial: setting.serial,
            is_lookup: false,
            start: question.first_asked(),
            client: SocketAddr::new(question.client, 0),
            who: setting.who,
            name: question.name.to_string().into(),
            types: question.qtype.to_string().into(),
            result: result_of(question),
            took: took(question),
            queries: u32::try_from(question.transmissions.len()).unwrap_or(u32::MAX),
            wasted: 0,
            retransmissions: u32::try_from(question.transmissions.len().saturating_sub(1))
                .unwrap_or(u32::MAX),
            waited: Duration::ZERO,
            family: "",
            servers: servers(std::iter::once(question)),
            story: story.text.into(),
            ladder: Arc::downgrade(setting.ladder),
        }
    }
}

/// The distinct types of the questions, in order, joined by `+`.
pub(super) fn types<'a>(questions: impl Iterator<Item = &'a Question>) -> String {
    let mut seen: SmallVec<[Rtype; 4]> = SmallVec::new();
    for question in questions {
        if !seen.contains(&question.qtype) {
            seen.push(question.qtype);
        }
    }
    seen.iter().map(Rtype::to_string).collect::<Vec<_>>().join("+")
}

fn servers<'a>(questions: impl Iterator<Item = &'a Question>) -> Box<[SocketAddr]> {
    let mut seen: SmallVec<[SocketAddr; MAX_SERVERS]> = SmallVec::new();
    let all = questions.flat_map(|q| &q.transmissions).flat_map(|t| [Some(t.server), t.backend]);
    for server in all.flatten() {
        if seen.len() < MAX_SERVERS && !seen.contains(&server) {
            seen.push(server);
        }
    }
    seen.into_vec().into()
}

fn result_of(question: &Question) -> LookupResult {
    match question.outcome {
        QuestionOutcome::Unanswered => LookupResult::Timeout,
        QuestionOutcome::Unreachable => LookupResult::Unreachable,
        QuestionOutcome::Incomplete => LookupResult::Incomplete,
        QuestionOutcome::Answered(Rcode::NXDOMAIN) => LookupResult::Nxdomain,
        QuestionOutcome::Answered(Rcode::REFUSED) => LookupResult::Refused,
        QuestionOutcome::Answered(Rcode::NOERROR) => match question.answer() {
            Some(answer) if answer.truncated => LookupResult::Truncated,
            Some(answer) if answer.empty_noerror => LookupResult::Nodata,
            _ => LookupResult::Ok,
        },
        QuestionOutcome::Answered(_) => LookupResult::Servfail,
    }
}

fn took(question: &Question) -> Option<Duration> {
    let last = question.transmissions.last().map_or(Timestamp::EPOCH, |t| t.time);
    let waited = Some(last.since(question.first_asked()));
    question.latency().or(waited).filter(|d| !d.is_zero())
}

fn story_of_lookup(lookup: &Lookup, vantages: &Vantages) -> String {
    let mut story = Story::default();
    story.of_questions(lookup.steps.iter().flat_map(|s| &s.questions), vantages);
    if let Some(longest) = lookup.gaps.iter().max()
        && lookup.result == LookupResult::Ok
    {
        story.add(format_args!("waited {}", text::wait(*longest)));
    }
    if !lookup.suspicious_names.is_empty() {
        let ended = lookup.result == LookupResult::Nodata;
        let what = if ended { "empty NOERROR ended the search" } else { "empty NOERROR for a search name" };
        story.add(format_args!("{what}"));
    }
    if lookup.steps.len() > 1 {
        match lookup.wasted_search_queries {
            Some(wasted) => {
                story.add(format_args!("search ×{} ({wasted} wasted)", lookup.steps.len()));
            }
            None => story.add(format_args!("search ×{}", lookup.steps.len())),
        }
    }
    if story.text.is_empty()
        && let Some(question) = lookup.steps.last().and_then(|s| s.questions.first())
    {
        story.answer(question);
    }
    story.text
}

/// Phrases, the gravest first.
#[derive(Default)]
struct Story {
    text: String,
}

impl Story {
    fn add(&mut self, phrase: std::fmt::Arguments<'_>) {
        let comma = if self.text.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{comma}{phrase}");
    }

    fn of_questions<'a>(
        &mut self,
        questions: impl Iterator<Item = &'a Question> + Clone,
        vantages: &Vantages,
    ) {
        let sent = questions.clone().flat_map(|q| q.transmissions.iter().map(move |t| (q, t)));
        if let Some(dropped) = findings::dropped(questions.clone()) {
            self.add(format_args!("{dropped}"));
        }
        let silent = sent
            .clone()
            .filter(|(_, t)| t.answered_by.is_none() && t.unreachable.is_none() && t.dropped.is_none());
        // An open question is not an unanswered one.
        let silent = silent.filter(|(q, _)| q.outcome != QuestionOutcome::Incomplete);
        if let Some((question, message)) = silent.clone().next() {
            let (kind, times) = (question.qtype, silent.clone().count());
            let kind = if silent.clone().all(|(q, _)| q.qtype == kind) {
                kind.to_string()
            } else {
                "queries".into()
            };
            let times = if times > 1 { format!(" ×{times}") } else { String::new() };
            match message.hops.last() {
                Some(hop) if vantages.len() > 1 => self.add(format_args!(
                    "{kind} unanswered{times}, last seen {}",
                    place(vantages, hop.vantage)
                )),
                _ => self.add(format_args!("{kind} unanswered{times}")),
            }
        }
        let errors = sent.filter_map(|(_, t)| t.unreachable).count();
        if errors > 0 {
            self.add(format_args!("ICMP unreachable{}", times(errors)));
        }
        let answers = questions.clone().flat_map(|q| &q.answers);
        let failed = answers.clone().filter(|a| a.rcode == Rcode::SERVFAIL).count();
        if failed > 0 {
            self.add(format_args!("SERVFAIL{}", times(failed)));
        }
        let late = answers.clone().filter(|a| a.late).count();
        if late > 0 {
            self.add(format_args!("late answer{}", times(late)));
        }
        if answers.clone().any(|a| a.truncated) {
            self.add(format_args!("truncated"));
        }
    }

    /// What an ordinary question got.
    fn answer(&mut self, question: &Question) {
        let Some(answer) = question.answer().filter(|_| self.text.is_empty()) else { return };
        match answer.addresses.first() {
            Some(address) if answer.addresses.len() > 1 => {
                self.add(format_args!("{address} +{}", answer.addresses.len() - 1));
            }
            Some(address) => self.add(format_args!("{address}")),
            None if answer.answer_count > 0 => {
                self.add(format_args!("{}", text::counted(u64::from(answer.answer_count), "record")));
            }
            None => {}
        }
    }
}

fn times(count: usize) -> String {
    if count > 1 { format!(" ×{count}") } else { String::new() }
}
