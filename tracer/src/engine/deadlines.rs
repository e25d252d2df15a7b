//! When nothing can continue a lookup any more.
//!
//! Whatever happens to a lookup sets its timer to a little after the hop window. When that fires its deadline is
//! worked out from what its questions have come to: with an address it goes at once; after other answers it
//! waits for a next candidate; a failed or unanswered question waits for its retry.

use super::{
    Ended, Engine,
    questions::{COPY_WINDOW, REACTION, Standing},
    records::Role,
    table::{NONE, Place},
};
use crate::model::Observer;

const MILLISECOND: u64 = 1_000_000;
/// A lookup with all its answers is open this long: the next candidate may come.
const QUIET: u64 = 300 * MILLISECOND;
/// One that has its address is open only until the hops of its last message have come.
const QUIET_DONE: u64 = 10 * MILLISECOND;
/// A lookup with a failed or truncated question: musl asks again after 2.5 s, others after 5 s.
const QUIET_FAILED: u64 = 5_500 * MILLISECOND;
/// A copy's answer, where another server's came.
const QUIET_COPY: u64 = 2_000 * MILLISECOND;
/// No lookup is open longer.
const LONGEST_LOOKUP: u64 = 300_000 * MILLISECOND;

/// A question younger than this when the session ends may yet be answered; no resolver gives up sooner.
const IN_FLIGHT: u64 = 2_000 * MILLISECOND;

impl Engine {
    /// Whether a lookup that ends is cut off while an answer may be under way.
    pub(super) fn is_cut_off(&self, lookup: Place, ended: Ended) -> bool {
        match ended {
            Ended::Quiet => false,
            Ended::Evicted => true,
            // Where nobody has answered anything, nothing is under way.
            Ended::Session => {
                self.counters.responses > 0
                    && self.now.saturating_sub(self.lookups.at(lookup).last_sent) < IN_FLIGHT
            }
        }
    }

    /// Something happened to a lookup: looks at it again when it has been quiet.
    pub(super) fn touch(&mut self, lookup: Place) {
        let soon = self.config.hop_window_nanos().saturating_add(2 * QUIET_DONE);
        self.wheel.set(&mut self.lookups, lookup, self.now.saturating_add(soon));
    }

    /// Joins the drops whose time has come, each between what is due before and after it, and ends the lookups that
    /// nothing can continue.
    pub(super) fn run_timers(&mut self, out: &mut impl Observer) {
        while self.drops.next_due <= self.now {
            let now = std::mem::replace(&mut self.now, self.drops.next_due);
            self.fire_timers(out);
            self.join_next_drop(out);
            self.now = now;
        }
        self.fire_timers(out);
    }

    fn fire_timers(&mut self, out: &mut impl Observer) {
        let now = self.now;
        if !self.wheel.may_fire(now) {
            self.tell_messages(now, out);
            return;
        }
        let mut fired = std::mem::take(&mut self.fired);
        while let Some(slot_end) = self.wheel.fire(&mut self.lookups, now, &mut fired) {
            fired.sort_unstable_by_key(|&lookup| self.lookups.at(lookup).number);
            for lookup in fired.drain(..) {
                let due = self.due(lookup);
                if due < slot_end {
                    // No later ones, so that the order does not depend on how far this call reaches.
                    self.tell_messages(slot_end, out);
                    self.end_lookup(lookup, Ended::Quiet, out);
                } else {
                    self.wheel.set(&mut self.lookups, lookup, due);
                }
            }
        }
        self.fired = fired;
        self.tell_messages(now, out);
    }

    /// When nothing can continue a lookup any more.
    fn due(&self, lookup: Place) -> u64 {
        let record = self.lookups.at(lookup);
        let hops = self.config.hop_window_nanos().saturating_add(QUIET_DONE);
        let quiet = if record.positive { hops.max(REACTION) } else { hops.max(QUIET) };
        let mut due = record.last_answer.max(record.last_sent).saturating_add(quiet);
        let mut question = record.first_question;
        while question != NONE {
            due = due.max(self.question_due(question, quiet));
            question = self.questions.at(question).next;
        }
        due.min(record.started.saturating_add(LONGEST_LOOKUP))
    }

    fn question_due(&self, question: Place, quiet: u64) -> u64 {
        let record = self.questions.at(question);
        let longest = self.config.unanswered_nanos();
        let last = self.messages.at(record.last).time;
        let standing = self.standing(question, u64::MAX);
        let mut due = match standing {
            Standing::Final(_) if self.untranslated(question) => last.saturating_add(longest),
            Standing::Final(time) => time.saturating_add(quiet),
            Standing::Failed(_, time) => time.max(last).saturating_add(QUIET_FAILED),
            Standing::Truncated | Standing::Unreachable(_) => last.saturating_add(QUIET_FAILED),
            Standing::Waiting => last.saturating_add(self.patience(question)),
        };
        if let Standing::Final(_) = standing {
            let mut place = record.last;
            while place != NONE {
                let message = self.messages.at(place);
                if message.peer == NONE && record.messages > 1 {
                    let wait = if self.has_copy(place) { QUIET_COPY.min(longest) } else { longest };
                    due = due.max(message.time.saturating_add(wait));
                }
                place = message.previous;
            }
        }
        due
    }

    /// Whether a query message went to several servers at once.
    pub(super) fn has_copy(&self, place: Place) -> bool {
        let message = self.messages.at(place);
        let next = self.messages.at(message.next);
        message.role == Role::ParallelCopy
            || (next.role == Role::ParallelCopy && next.time.saturating_sub(message.time) <= COPY_WINDOW)
    }

    /// How long a retry may still come: two and a half times the longest gap so far, for resolvers double it.
    fn patience(&self, question: Place) -> u64 {
        let mut place = self.questions.at(question).last;
        let mut longest = 0;
        while place != NONE {
            let message = self.messages.at(place);
            if message.previous != NONE {
                longest = longest.max(message.time.saturating_sub(self.messages.at(message.previous).time));
            }
            place = message.previous;
        }
        let least = self.config.unanswered_nanos();
        (longest * 5 / 2).clamp(least, least.max(45_000 * MILLISECOND))
    }
}
