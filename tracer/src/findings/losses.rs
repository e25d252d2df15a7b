//! Which drops were a loss: what the drop rules look at.
//!
//! Rule: a drop is held until its question is told. It was a loss if it took a message of the question away, or a bare
//! TCP segment, or if nobody saw its question. It was none if its message was answered all the same: then a copy of it
//! was dropped, as where a bridge floods or somebody captures in promiscuous mode.

use super::Cost;
use crate::model::{PacketDrop, Question, QuestionId, Transmission, TransmissionKind, Transport};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// Drops that wait for their question; of more, the oldest are taken for losses without one.
const MOST: usize = 4_096;

/// A drop that took something away.
#[derive(Debug)]
pub(crate) struct Loss<'a> {
    pub(super) drop: &'a PacketDrop,
    /// Its question, where somebody saw it asked.
    pub(super) question: Option<&'a Question>,
    /// What the client waited for it until it asked again.
    pub(super) wait: Option<Duration>,
}

impl Loss<'_> {
    /// The wait. Which lookups failed by it their own findings tell.
    pub(super) fn cost(&self) -> Cost {
        Cost::waited(self.wait.unwrap_or_default())
    }
}

/// The drops that wait.
#[derive(Debug, Default)]
pub(super) struct Losses {
    waiting: HashMap<QuestionId, Vec<PacketDrop>, foldhash::fast::RandomState>,
    order: VecDeque<QuestionId>,
    held: usize,
}

impl Losses {
    /// Takes a drop; tells those that nothing more is to be expected of.
    pub(super) fn packet_drop(&mut self, drop: &PacketDrop, mut tell: impl FnMut(&Loss<'_>)) {
        if !drop.fate.is_loss() {
            return;
        }
        let Some(question) = drop.question else {
            tell(&Loss { drop, question: None, wait: None });
            return;
        };
        let of_question = self.waiting.entry(question).or_default();
        if of_question.is_empty() {
            self.order.push_back(question);
        }
        of_question.push(drop.clone());
        self.held += 1;
        while self.held > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            for drop in self.take(oldest) {
                tell(&Loss { drop: &drop, question: None, wait: None });
            }
        }
    }

    /// A question ended: tells which of its drops were losses.
    pub(super) fn question(&mut self, question: &Question, mut tell: impl FnMut(&Loss<'_>)) {
        if self.held == 0 {
            return;
        }
        let drops = self.take(question.id);
        if !drops.is_empty() {
            self.order.retain(|id| *id != question.id);
        }
        for drop in drops {
            let took = |other: Option<&PacketDrop>| other.is_some_and(|other| other.frame == drop.frame);
            let sent = question.transmissions.iter().find(|sent| took(sent.dropped.as_deref()));
            let answer = question.answers.iter().position(|answer| took(answer.dropped.as_deref()));
            let asked = sent.or_else(|| {
                let index = answer.and_then(|index| u16::try_from(index).ok())?;
                question.transmissions.iter().find(|sent| sent.answered_by == Some(index))
            });
            let bare_segment = drop.transport == Transport::Tcp && drop.dns.is_none();
            if asked.is_some() || bare_segment {
                let wait = asked.and_then(|asked| wait(question, asked, &drop));
                tell(&Loss { drop: &drop, question: Some(question), wait });
            }
        }
    }

    fn take(&mut self, question: QuestionId) -> Vec<PacketDrop> {
        let drops = self.waiting.remove(&question).unwrap_or_default();
        self.held -= drops.len();
        drops
    }
}

/// From the message that was lost, or whose answer was, to the next one of its question; a SYN is lost before its message
/// is sent.
pub(super) fn wait(question: &Question, lost: &Transmission, drop: &PacketDrop) -> Option<Duration> {
    if lost.time > drop.time && drop.transport == Transport::Tcp && drop.dns.is_none() {
        return Some(lost.time.since(drop.time));
    }
    let again = |sent: &&Transmission| sent.time > lost.time && sent.kind != TransmissionKind::ParallelCopy;
    question.transmissions.iter().find(again).map(|next| next.time.since(lost.time))
}
