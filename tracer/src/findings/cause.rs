//! Why one lookup failed or waited, in a few words for its line.

use super::losses::wait;
use super::reasons::what_happened;
use crate::model::{
    Answer, Lookup, LookupResult, PacketDrop, Question, Retransmission, RetransmissionKind, Step,
    Transmission, TransmissionKind, Transport,
};
use crate::output::text::human;
use std::{fmt::Write, net::SocketAddr, time::Duration};

/// Waits below this are not worth a word.
const NOTICEABLE: Duration = Duration::from_millis(200);
/// A single answer slower than this is named as the cause.
const SLOW: Duration = Duration::from_secs(1);

/// Why `lookup` failed or took long, where its packets say; `None` for an ordinary one.
#[must_use]
pub fn cause(lookup: &Lookup) -> Option<String> {
    let last = lookup.steps.last()?;
    if matches!(lookup.result, LookupResult::Timeout | LookupResult::Truncated)
        && let Some(dropped) = dropped(last.questions.iter().filter(|question| question.answer().is_none()))
    {
        return Some(dropped);
    }
    let ended_by_empty = |step: &&Step| lookup.suspicious_names.contains(&step.name);
    match lookup.result {
        LookupResult::Timeout => {
            let servers = servers(last);
            Some(match silence(last, lookup) {
                Silence::TooLate(took) => format!("{servers} answered too late, after {}", human(took)),
                Silence::OneType => format!("no answer to {} {} from {servers}", unanswered(last), last.name),
                Silence::OneName => {
                    format!("no answer for {} from {servers}, which answered other names", last.name)
                }
                Silence::Whole => format!("no answer from {servers}"),
            })
        }
        LookupResult::Unreachable => Some(format!("ICMP unreachable for {}", servers(last))),
        LookupResult::Servfail => Some(format!("SERVFAIL from {}", servers(last))),
        LookupResult::Refused => Some(format!("REFUSED by {}", servers(last))),
        LookupResult::Truncated => {
            Some(format!("truncated answer from {}, and none over TCP", servers(last)))
        }
        LookupResult::Nodata => Some(match Some(last).filter(ended_by_empty) {
            Some(step) => format!("empty NOERROR for {} ended the search", step.name),
            None => format!("{} has no record of the type asked", last.name),
        }),
        LookupResult::Nxdomain => Some(match lookup.steps.len() {
            1 => format!("{} does not exist", last.name),
            several => format!("none of {several} candidates exists"),
        }),
        LookupResult::Ok | LookupResult::Incomplete => waited(lookup),
    }
}

/// What a lookup that timed out got no answer to in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Answers came, the last after this time, but too late.
    TooLate(Duration),
    /// One type of the last candidate; the other was answered.
    OneType,
    /// The last candidate; others were answered.
    OneName,
    /// Everything.
    Whole,
}

/// Where the silence was that ended `lookup` at its step `last`.
pub(super) fn silence(last: &Step, lookup: &Lookup) -> Silence {
    let answered = |question: &Question| !question.answers.is_empty();
    if last.questions.iter().all(answered) {
        let took = |(sent, answer): (&Transmission, &Answer)| answer.time.since(sent.time);
        return Silence::TooLate(
            last.questions.iter().flat_map(Question::replies).map(took).max().unwrap_or_default(),
        );
    }
    if last.questions.iter().any(answered) {
        Silence::OneType
    } else if lookup.steps.iter().flat_map(|step| &step.questions).any(answered) {
        Silence::OneName
    } else {
        Silence::Whole
    }
}

fn unanswered(step: &Step) -> String {
    let silent = step.questions.iter().filter(|question| question.answers.is_empty());
    silent.map(|question| question.qtype.to_string()).collect::<Vec<_>>().join(" and ")
}

/// The drop of these questions' messages that cost most: `AAAA dropped: conntrack insert failed (cpu 1)`.
#[must_use]
pub fn dropped<'a>(questions: impl Iterator<Item = &'a Question>) -> Option<String> {
    let is_hit = |question: &&Question| {
        question.transmissions.iter().any(|sent| sent.dropped.is_some())
            || question.answers.iter().any(|answer| answer.dropped.is_some())
    };
    questions
        .filter(is_hit)
        .flat_map(|question| drops(question).map(move |(drop, wait)| (question, drop, wait)))
        .max_by_key(|(.., wait)| *wait)
        .map(|(question, drop, _)| {
            let what = match drop {
                drop if drop.is_response() => format!("answer to {}", question.qtype),
                drop if drop.transport == Transport::Tcp && drop.dns.is_none() => {
                    format!("TCP connection for {}", question.qtype)
                }
                _ => question.qtype.to_string(),
            };
            format!("{what} dropped: {}", what_happened(drop))
        })
}

/// What was dropped of a question, and how long its client waited for it; endlessly where it did not ask again.
pub(super) fn drops(question: &Question) -> impl Iterator<Item = (&PacketDrop, Duration)> {
    let of_answer = |index: usize| {
        let index = u16::try_from(index).ok();
        question.transmissions.iter().find(move |sent| index.is_some() && sent.answered_by == index)
    };
    // A copy that lost the race to another server's answer took nothing away.
    let counted = question.answer().map(|answer| answer.time);
    let sent = question.transmissions.iter().filter_map(|sent| Some((sent, sent.dropped.as_deref()?)));
    let answers = question.answers.iter().enumerate().filter_map(move |(index, answer)| {
        let in_vain = answer.late || counted.is_some_and(|time| time <= answer.time);
        Some((of_answer(index)?, answer.dropped.as_deref().filter(|_| !in_vain)?))
    });
    sent.chain(answers).map(|(sent, drop)| (drop, wait(question, sent, drop).unwrap_or(Duration::MAX)))
}

/// The longest wait of a lookup that went on.
fn waited(lookup: &Lookup) -> Option<String> {
    let questions = || lookup.steps.iter().flat_map(|step| &step.questions);
    if let Some(dropped) = dropped(questions()) {
        return Some(dropped);
    }
    if lookup.duration < NOTICEABLE && lookup.retransmissions.is_empty() {
        return None;
    }
    let resent = questions()
        .flat_map(|question| question.transmissions.iter().map(move |t| (question, t)))
        .filter_map(|(question, t)| resend(t).map(|resend| (question, t, resend)))
        .max_by_key(|(_, _, resend)| (resend.gap, resend.kind == RetransmissionKind::Timeout))
        .filter(|(_, _, resend)| resend.gap >= NOTICEABLE);
    if let Some((question, transmission, resend)) = resent {
        let mut text = format!("{} {}", question.qtype, question.name);
        // Writing to a String cannot fail.
        let _ = match resend.kind {
            RetransmissionKind::AnsweredAgain => {
                write!(text, " asked again after {}: its twin was lost", human(resend.gap))
            }
            kind => write!(
                text,
                " sent again to {} after {} ({kind})",
                transmission.server.ip(),
                human(resend.gap)
            ),
        };
        return Some(text);
    }
    questions()
        .filter_map(|question| question.server_latency().map(|took| (question, took)))
        .max_by_key(|(_, took)| *took)
        .filter(|(_, took)| *took >= SLOW)
        .map(|(question, took)| {
            format!("{} took {} for {} {}", asked(question), human(took), question.qtype, question.name)
        })
}

fn resend(transmission: &Transmission) -> Option<Retransmission> {
    match transmission.kind {
        TransmissionKind::Retransmission(resend) => Some(resend),
        TransmissionKind::First | TransmissionKind::ParallelCopy | TransmissionKind::TcpFallback => None,
    }
}

fn asked(question: &Question) -> String {
    question.transmissions.last().map_or_else(|| "the server".into(), |t| t.server.ip().to_string())
}

/// The servers a step asked, in order, each once.
fn servers(step: &Step) -> String {
    let mut seen: Vec<SocketAddr> = Vec::new();
    for transmission in step.questions.iter().flat_map(|question| &question.transmissions) {
        if !seen.contains(&transmission.server) && seen.len() < 3 {
            seen.push(transmission.server);
        }
    }
    let shown: Vec<String> = seen.iter().map(|server| server.ip().to_string()).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        findings::testing::{ask, lookup},
        model::{Family, Rtype},
    };

    #[test]
    fn what_was_asked_again_after_the_address_had_come_is_named() {
        let address = || ask("web.example", Rtype::A, 0).address("192.0.2.1").build();
        let lost = ask("web.example", Rtype::AAAA, 0).again(5_000, RetransmissionKind::Timeout);
        let mut told = lookup("web.example", Family::Go, LookupResult::Ok, vec![address(), lost.build()]);
        // An answer ended it.
        told.duration = Duration::from_millis(1);
        let expected = "AAAA web.example sent again to 10.96.0.10 after 5.00 s (timeout)";
        assert_eq!(cause(&told).as_deref(), Some(expected));
        let quick = lookup("web.example", Family::Go, LookupResult::Ok, vec![address()]);
        assert_eq!(cause(&quick), None);
    }
}
