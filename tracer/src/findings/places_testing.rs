//! Questions seen at places, for tests of what is read from messages' ways.

use super::{
    Finding, Findings, Source,
    testing::{Ask, at, messages},
};
use crate::model::{
    Coverage, Direction, Hop, InterfaceKind, Observer as _, Question, Vantage, VantageId, Vantages,
};
use smallvec::SmallVec;
use std::{net::SocketAddr, time::Duration};

/// The places of a test: `veth-web<` is what is received there, `eth0>` what is sent, `1:cni0<` one of the second file.
#[derive(Debug, Default)]
pub(crate) struct Town(pub(crate) Vantages);

impl Town {
    pub(crate) fn place(&self, text: &str) -> VantageId {
        let (source, text) = text.split_once(':').unwrap_or(("0", text));
        let direction = if text.ends_with('<') { Direction::Ingress } else { Direction::Egress };
        let interface = text.trim_end_matches(['<', '>']);
        let kind = match interface {
            it if it.starts_with("veth") => InterfaceKind::Veth,
            it if it.starts_with("cni") => InterfaceKind::Bridge,
            it if it.starts_with("eth") => InterfaceKind::Uplink,
            _ => InterfaceKind::Unknown,
        };
        let direction = if kind == InterfaceKind::Unknown { Direction::Unknown } else { direction };
        let source = source.parse().unwrap();
        self.0.intern(Vantage { interface: interface.into(), direction, kind, source, ..Vantage::default() })
    }

    /// Gives a question's last message its backend (none for an empty one), where it was seen, and where its answer was.
    pub(crate) fn seen(&self, asked: Ask, backend: &str, query: &str, answer: &str) -> Question {
        self.seen_again(asked.build(), backend, query, answer)
    }

    /// [`Self::seen`] for a question that is built already.
    pub(crate) fn seen_again(
        &self,
        mut question: Question,
        backend: &str,
        query: &str,
        answer: &str,
    ) -> Question {
        let sent = question.transmissions.last_mut().unwrap();
        sent.backend = (!backend.is_empty()).then(|| SocketAddr::new(backend.parse().unwrap(), 53));
        let far = sent.backend.unwrap_or(sent.server);
        let hops = |places: &str, first: Hop| -> SmallVec<[Hop; 2]> {
            let one = |(index, place)| {
                let (frame, time) =
                    (first.frame + index as u64, first.time + Duration::from_micros(index as u64));
                Hop { vantage: self.place(place), frame, time, ..first }
            };
            places.split_whitespace().enumerate().map(one).collect()
        };
        sent.hops = hops(query, sent.hops[0]);
        if let Some(last) = sent.hops.last_mut() {
            last.destination = far;
        }
        if let Some(given) = question.answers.last_mut() {
            given.hops = hops(answer, given.hops[0]);
        }
        question
    }

    /// What is found of these questions.
    pub(crate) fn found(&self, questions: &[Question]) -> Vec<Finding> {
        self.found_of(questions, &[])
    }

    /// What is found of these questions in these files.
    pub(crate) fn found_of(&self, questions: &[Question], sources: &[Source]) -> Vec<Finding> {
        self.with(questions, sources, &Coverage::default())
    }

    /// The same, with what the capture saw and lost.
    pub(crate) fn with(
        &self,
        questions: &[Question],
        sources: &[Source],
        coverage: &Coverage,
    ) -> Vec<Finding> {
        let mut findings = Findings::new(self.0.clone());
        for question in questions {
            messages(question).iter().for_each(|message| findings.message(message));
        }
        questions.iter().for_each(|question| findings.question(question));
        findings.set_sources(sources.to_vec());
        findings.ranked(coverage, (at(0), at(100_000)))
    }
}

/// The codes of findings with the first of their subject.
pub(crate) fn told(findings: &[Finding]) -> Vec<String> {
    let of = |it: &Finding| format!("{} {}", it.code, it.subject.first().map_or("", |(_, value)| value));
    findings.iter().map(of).collect()
}
