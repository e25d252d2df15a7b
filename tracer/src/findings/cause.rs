//! Why one lookup failed or waited, in a few words for its line.

use crate::model::{
    Lookup, LookupResult, Question, Retransmission, RetransmissionKind, Step, Transmission, TransmissionKind,
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
    let ended_by_empty = |step: &&Step| lookup.suspicious_names.contains(&step.name);
    match lookup.result {
        LookupResult::Timeout => Some(match too_late(lookup) {
            Some(took) => format!("{} answered too late, after {}", servers(last), human(took)),
            None => format!("no answer from {}", servers(last)),
        }),
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

/// The longest time a late answer took, where answers came but all of the last step's too late.
pub(super) fn too_late(lookup: &Lookup) -> Option<Duration> {
    let questions = &lookup.steps.last()?.questions;
    if questions.iter().any(|question| question.answer().is_some()) {
        return None;
    }
    questions
        .iter()
        .flat_map(Question::replies)
        .filter(|(_, answer)| answer.late)
        .map(|(sent, answer)| answer.time.since(sent.time))
        .max()
}

/// The longest wait of a lookup that went on.
fn waited(lookup: &Lookup) -> Option<String> {
    let questions = || lookup.steps.iter().flat_map(|step| &step.questions);
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
