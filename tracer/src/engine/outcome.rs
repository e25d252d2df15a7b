//! How questions and lookups ended, as the client saw it: late answers do not count.

use super::search;
use crate::model::{
    Answer, Family, Lookup, LookupResult, Name, Question, QuestionId, QuestionOutcome, Rcode, Retransmission,
    RetransmissionKind, Rtype, Step, Timestamp, Transmission, TransmissionKind, Transport,
};
use smallvec::SmallVec;
use std::time::Duration;

/// Silence that a user notices.
const GAP: Duration = Duration::from_millis(200);

/// How a question ended. `cut_off`: the session ended, or room was short.
pub(super) fn of_question(question: &Question, cut_off: bool) -> QuestionOutcome {
    if let Some(answer) = deciding_answer(question) {
        return QuestionOutcome::Answered(answer.rcode);
    }
    let Some(last) = question.transmissions.last() else { return QuestionOutcome::Incomplete };
    if last.unreachable.is_some() {
        QuestionOutcome::Unreachable
    } else if cut_off && !question.transmissions.iter().any(|t| is_retransmission(t).is_some()) {
        QuestionOutcome::Incomplete
    } else {
        QuestionOutcome::Unanswered
    }
}

/// The first NOERROR or NXDOMAIN that is whole, else the last of the others. An answer from another address than
/// the one asked counts only where the client asked no further: it may not have been translated back.
fn deciding_answer(question: &Question) -> Option<&Answer> {
    let asked_again = question.transmissions.len() > 1;
    let from_server = |a: &Answer| question.transmissions.iter().any(|t| t.server == a.from);
    let in_time = || question.answers.iter().filter(|a| a.counts() && (!asked_again || from_server(a)));
    in_time()
        .find(|a| !a.truncated && matches!(a.rcode, Rcode::NOERROR | Rcode::NXDOMAIN))
        .or_else(|| in_time().next_back())
}

const fn is_retransmission(transmission: &Transmission) -> Option<Retransmission> {
    match transmission.kind {
        TransmissionKind::Retransmission(retransmission) => Some(retransmission),
        _ => None,
    }
}

/// Fills in what follows from a lookup's steps. `base`: octets of the asked name in the first candidate;
/// `positive`: the questions that got an address.
pub(super) fn fill(lookup: &mut Lookup, base: usize, positive: &[QuestionId], cut_off: bool) {
    match lookup.steps.first() {
        Some(first) => lookup.name.copy_first_labels(&first.name, base),
        None => lookup.name = Name::ROOT,
    }
    let truncated_will_do =
        lookup.family == Family::Musl && transmissions(&lookup.steps).all(|t| t.transport != Transport::Tcp);
    let answers = |q: &Question| positive.contains(&q.id) || (truncated_will_do && has_truncated_address(q));
    let answering = lookup.steps.iter().find(|s| s.questions.iter().any(answers));
    let accepted = answering.filter(|step| !musl_refuses(step, lookup.family));
    copy_name(&mut lookup.answered_by, accepted.map(|step| &step.name));
    lookup.result = match (accepted, lookup.steps.last()) {
        (Some(_), _) => LookupResult::Ok,
        (None, Some(last)) => failure(last, &lookup.steps, lookup.family, cut_off),
        (None, None) => LookupResult::Incomplete,
    };
    let queries = |s: &Step| s.questions.iter().map(|q| q.transmissions.len()).sum::<usize>();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    lookup.queries = count(lookup.steps.iter().map(queries).sum());
    lookup.wasted_search_queries = lookup
        .answered_by
        .map(|answered_by| count(lookup.steps.iter().filter(|s| s.name != answered_by).map(queries).sum()));
    fill_times(lookup);
    fill_retransmissions(lookup);
    fill_suspicious(lookup);
}

/// Whether a lookup of one candidate cannot be the beginning of a search: its resolver never searches, or would
/// have gone on.
pub(super) fn asked_as_is(lookup: &Lookup, positive: bool) -> bool {
    let never =
        matches!(lookup.family, Family::Haproxy | Family::Nginx | Family::Dnsmasq | Family::BusyboxNslookup);
    let goes_on = matches!(lookup.family, Family::Glibc | Family::Go)
        && transmissions(&lookup.steps).all(|t| t.unreachable.is_none());
    lookup.steps.len() == 1 && (never || (goes_on && !positive))
}

/// A name is larger than what is used of most.
fn copy_name(to: &mut Option<Name>, name: Option<&Name>) {
    match (to.as_mut(), name) {
        (Some(to), Some(name)) => to.copy_wire(name.as_wire()),
        _ => *to = name.copied(),
    }
}

/// musl before 1.2.4 has no TCP: it takes the addresses that are in a truncated answer.
fn has_truncated_address(question: &Question) -> bool {
    deciding_answer(question)
        .is_some_and(|a| a.truncated && a.rcode == Rcode::NOERROR && !a.addresses.is_empty())
}

/// musl from 1.2.1 wants both answers to be NOERROR.
fn musl_refuses(step: &Step, family: Family) -> bool {
    family == Family::Musl
        && step
            .questions
            .iter()
            .filter(|q| q.qtype.is_address())
            .any(|q| !matches!(of_question(q, false), QuestionOutcome::Answered(Rcode::NOERROR)))
}

fn failure(last: &Step, steps: &[Step], family: Family, cut_off: bool) -> LookupResult {
    let result = last.questions.iter().map(|q| failure_of(q, cut_off)).max_by_key(|r| weight(*r));
    let result = result.unwrap_or(LookupResult::Incomplete);
    // glibc and c-ares remember what the candidates before the last one had.
    let remembers =
        matches!(family, Family::Glibc | Family::CAres | Family::CAresBefore120 | Family::CAresFrom120);
    if result == LookupResult::Nxdomain && remembers {
        let earlier =
            |wanted| steps.iter().any(|s| s.questions.iter().any(|q| failure_of(q, false) == wanted));
        if earlier(LookupResult::Nodata) {
            return LookupResult::Nodata;
        }
        if family == Family::Glibc && earlier(LookupResult::Servfail) {
            return LookupResult::Servfail;
        }
    }
    result
}

fn failure_of(question: &Question, cut_off: bool) -> LookupResult {
    match of_question(question, cut_off) {
        QuestionOutcome::Unanswered => LookupResult::Timeout,
        QuestionOutcome::Unreachable => LookupResult::Unreachable,
        QuestionOutcome::Incomplete => LookupResult::Incomplete,
        QuestionOutcome::Answered(Rcode::NXDOMAIN) => LookupResult::Nxdomain,
        QuestionOutcome::Answered(Rcode::REFUSED) => LookupResult::Refused,
        QuestionOutcome::Answered(Rcode::NOERROR) => match deciding_answer(question) {
            Some(answer) if answer.truncated => LookupResult::Truncated,
            _ => LookupResult::Nodata,
        },
        QuestionOutcome::Answered(_) => LookupResult::Servfail,
    }
}

/// Which of two questions of a step decides: the heavier.
const fn weight(result: LookupResult) -> u8 {
    match result {
        LookupResult::Incomplete => 8,
        LookupResult::Timeout => 7,
        LookupResult::Unreachable => 6,
        LookupResult::Servfail => 5,
        LookupResult::Refused => 4,
        LookupResult::Nxdomain => 3,
        LookupResult::Nodata => 2,
        LookupResult::Truncated => 1,
        LookupResult::Ok => 0,
    }
}

fn questions(steps: &[Step]) -> impl Iterator<Item = &Question> {
    steps.iter().flat_map(|s| &s.questions)
}

fn transmissions(steps: &[Step]) -> impl Iterator<Item = &Transmission> {
    questions(steps).flat_map(|q| &q.transmissions)
}

fn fill_times(lookup: &mut Lookup) {
    let mut span: Option<(Timestamp, Timestamp)> = None;
    for sent in transmissions(&lookup.steps).map(|t| t.time) {
        let (first, last) = span.unwrap_or((sent, sent));
        span = Some((first.min(sent), last.max(sent)));
    }
    let (start, last_sent) = span.unwrap_or_default();
    lookup.start = start;
    lookup.gaps.clear();
    if last_sent.since(start) >= GAP {
        let mut sent: SmallVec<[Timestamp; 32]> = transmissions(&lookup.steps).map(|t| t.time).collect();
        sent.sort_unstable();
        let gaps = sent.windows(2).filter_map(|pair| match pair {
            [before, after] => Some(after.since(*before)),
            _ => None,
        });
        lookup.gaps.extend(gaps.filter(|gap| *gap >= GAP));
    }
    let answers = lookup.steps.iter().flat_map(|s| &s.questions).flat_map(|q| &q.answers);
    let end = answers.filter(|a| a.counts()).map(|a| a.time).max().unwrap_or(last_sent);
    lookup.duration = end.since(start);
}

fn fill_retransmissions(lookup: &mut Lookup) {
    lookup.retransmissions.clear();
    let each_once = |step: &Step| {
        let is_asked_again = |(index, question): (usize, &Question)| {
            let earlier = step.questions.get(..index).unwrap_or_default();
            question.transmissions.len() > 1 || earlier.iter().any(|q| q.qtype == question.qtype)
        };
        !step.questions.iter().enumerate().any(is_asked_again)
    };
    if lookup.steps.iter().all(each_once) {
        return;
    }
    let mut all: SmallVec<[(Timestamp, Retransmission); 8]> = SmallVec::new();
    for step in &lookup.steps {
        for (index, question) in step.questions.iter().enumerate() {
            let again = question.transmissions.iter().filter_map(|t| Some((t.time, is_retransmission(t)?)));
            all.extend(again);
            let earlier = step.questions.get(..index).unwrap_or_default();
            if let Some(earlier) = earlier.iter().rfind(|q| q.qtype == question.qtype)
                && let Some((before, first)) =
                    earlier.transmissions.last().zip(question.transmissions.first())
            {
                all.push((first.time, repetition(earlier, before, first)));
            }
        }
    }
    all.sort_by_key(|&(time, _)| time);
    lookup.retransmissions.extend(all.into_iter().map(|(_, retransmission)| retransmission));
}

/// A question asked a second time in one lookup.
fn repetition(earlier: &Question, before: &Transmission, first: &Transmission) -> Retransmission {
    let kind = match of_question(earlier, false) {
        QuestionOutcome::Answered(Rcode::SERVFAIL) => RetransmissionKind::Servfail,
        QuestionOutcome::Answered(Rcode::REFUSED) => RetransmissionKind::Refused,
        QuestionOutcome::Answered(_) => RetransmissionKind::AnsweredAgain,
        QuestionOutcome::Unreachable => RetransmissionKind::Icmp,
        QuestionOutcome::Unanswered | QuestionOutcome::Incomplete => RetransmissionKind::Timeout,
    };
    Retransmission {
        gap: first.time.since(before.time),
        kind,
        same_id: earlier.transmissions.iter().any(|t| t.id == first.id),
        same_port: before.client.port() == first.client.port(),
        server_changed: before.server != first.server,
    }
}

/// Candidates with a suffix that got an empty NOERROR where NXDOMAIN was due: for every type asked, A among them,
/// and no empty non-terminal of the cluster's zone (`NAMESPACE.svc.DOMAIN`).
fn fill_suspicious(lookup: &mut Lookup) {
    lookup.suspicious_names.clear();
    if !questions(&lookup.steps).flat_map(|q| &q.answers).any(|a| a.empty_noerror) {
        return;
    }
    let sibling_missing =
        questions(&lookup.steps).any(|q| of_question(q, false) == QuestionOutcome::Answered(Rcode::NXDOMAIN));
    for step in &lookup.steps {
        if step.name == lookup.name || !is_empty(step) {
            continue;
        }
        let depth = search::cluster_depth(step.name.as_wire());
        let service_label = step.name.labels().any(|label| label.first() == Some(&b'_'));
        let no_terminal = depth.is_some_and(|depth| depth <= 1);
        let too_deep = depth.is_some_and(|depth| depth >= 4) && !service_label;
        let no_soa = step.questions.iter().flat_map(|q| &q.answers).any(|a| a.counts() && !a.authority_soa);
        let walked_on = lookup.steps.len() > 1 && (sibling_missing || lookup.answered_by.is_some());
        if !no_terminal && (walked_on || too_deep || no_soa || depth.is_none()) {
            lookup.suspicious_names.push(step.name);
        }
    }
}

/// An empty NOERROR for every type asked, A among them.
fn is_empty(step: &Step) -> bool {
    step.questions.iter().any(|q| q.qtype == Rtype::A)
        && step.questions.iter().all(|q| deciding_answer(q).is_some_and(|a| a.empty_noerror))
}
