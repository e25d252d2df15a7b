//! Deadlines of lookups: a wheel of slots. An entry leaves its slot when its lookup ends or its deadline moves,
//! so no timer outlives what it was set for.

use super::table::{NONE, Place};

const SLOTS: usize = 4096;
/// Nanoseconds of a slot: what a deadline may be missed by.
const WIDTH: u64 = 1 << 24;

/// An entry's neighbours in its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimerLinks {
    previous: Place,
    next: Place,
    slot: u16,
}

const UNSET: u16 = u16::MAX;

impl Default for TimerLinks {
    fn default() -> Self {
        Self { previous: NONE, next: NONE, slot: UNSET }
    }
}

/// Where the links of an entry are kept.
pub(super) trait Timed {
    fn timer(&mut self, place: Place) -> &mut TimerLinks;
}

/// The wheel: 4,096 slots of 16.8 ms, 68 s in all. Deadlines further off wait in the last slot.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Place>,
    occupied: Vec<u64>,
    /// Number of the first slot that has not fired.
    base: u64,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { slots: vec![NONE; SLOTS], occupied: vec![0; SLOTS / 64], base: 0 }
    }

    /// Sets the entry's only deadline.
    pub(super) fn set(&mut self, entries: &mut impl Timed, place: Place, deadline: u64) {
        let number = (deadline / WIDTH).clamp(self.base, self.base + SLOTS as u64 - 1);
        let slot = (number % SLOTS as u64) as u16;
        if entries.timer(place).slot == slot {
            return;
        }
        self.unset(entries, place);
        let Some(head) = self.slots.get_mut(usize::from(slot)) else { return };
        let next = std::mem::replace(head, place);
        *entries.timer(place) = TimerLinks { previous: NONE, next, slot };
        if next != NONE {
            entries.timer(next).previous = place;
        }
        self.mark(slot, true);
    }

    /// Takes the entry's deadline away.
    pub(super) fn unset(&mut self, entries: &mut impl Timed, place: Place) {
        let TimerLinks { previous, next, slot } = std::mem::take(entries.timer(place));
        if slot == UNSET {
            return;
        }
        if next != NONE {
            entries.timer(next).previous = previous;
        }
        if previous != NONE {
            entries.timer(previous).next = next;
        } else if let Some(head) = self.slots.get_mut(usize::from(slot)) {
            *head = next;
            if next == NONE {
                self.mark(slot, false);
            }
        }
    }

    fn mark(&mut self, slot: u16, on: bool) {
        if let Some(word) = self.occupied.get_mut(usize::from(slot) / 64) {
            let bit = 1 << (slot % 64);
            *word = if on { *word | bit } else { *word & !bit };
        }
    }

    /// Whether a slot ended before `now` that was not asked for yet.
    #[inline]
    pub(super) const fn may_fire(&self, now: u64) -> bool {
        self.base < now / WIDTH
    }

    /// Takes the earliest slot that ended before `now`: its entries, in no order, their deadlines unset. Gives
    /// its end: a deadline before that has passed, any other is to be set again. So deadlines pass in the order of
    /// slots, no matter how often the wheel is asked.
    pub(super) fn fire(&mut self, entries: &mut impl Timed, now: u64, fired: &mut Vec<Place>) -> Option<u64> {
        if !self.may_fire(now) {
            return None;
        }
        let number = self.next_occupied().filter(|&number| number < now / WIDTH);
        let Some(number) = number else {
            self.base = self.base.max(now / WIDTH);
            return None;
        };
        self.base = number + 1;
        let slot = (number % SLOTS as u64) as usize;
        while let Some(&place) = self.slots.get(slot).filter(|&&place| place != NONE) {
            self.unset(entries, place);
            fired.push(place);
        }
        Some(self.base * WIDTH)
    }

    /// When the earliest entry fires.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.next_occupied().map(|number| (number + 1) * WIDTH)
    }

    fn next_occupied(&self) -> Option<u64> {
        let first = (self.base % SLOTS as u64) as usize;
        for step in 0..=SLOTS / 64 {
            let word_index = (first / 64 + step) % (SLOTS / 64);
            let mut word = self.occupied.get(word_index).copied().unwrap_or(0);
            if step == 0 {
                word &= u64::MAX << (first % 64);
            } else if step == SLOTS / 64 {
                word &= !(u64::MAX << (first % 64));
            }
            if word != 0 {
                let slot = word_index * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - first) % SLOTS;
                return Some(self.base + ahead as u64);
            }
        }
        None
    }

    /// Starts again at another time; only when nothing is set.
    pub(super) fn restart(&mut self, now: u64) {
        self.base = now / WIDTH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Timed for Vec<TimerLinks> {
        fn timer(&mut self, place: Place) -> &mut TimerLinks {
            &mut self[place as usize]
        }
    }

    #[derive(Clone, Debug)]
    enum Action {
        Set(Place, u64),
        Unset(Place),
        Fire(u64),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            (0..8_u32, 0..100_000_000_000_u64).prop_map(|(p, t)| Action::Set(p, t)),
            (0..8_u32).prop_map(Action::Unset),
            (0..2_000_000_000_u64).prop_map(Action::Fire),
        ]
    }

    proptest! {
        /// Against a plain list of deadlines: nothing fires early within the wheel's reach, nothing is forgotten.
        #[test]
        fn fires_what_is_due_and_nothing_else(actions in proptest::collection::vec(action(), 0..60)) {
            let (mut wheel, mut entries) = (Wheel::new(), vec![TimerLinks::default(); 8]);
            let (mut due, mut now) = ([None; 8], 0);
            for action in actions {
                match action {
                    Action::Set(place, after) => {
                        wheel.set(&mut entries, place, now + after);
                        due[place as usize] = Some(now + after);
                    }
                    Action::Unset(place) => {
                        wheel.unset(&mut entries, place);
                        due[place as usize] = None;
                    }
                    Action::Fire(after) => {
                        now += after;
                        let mut fired = vec![];
                        let mut last_end = 0;
                        while let Some(end) = wheel.fire(&mut entries, now, &mut fired) {
                            prop_assert!(end > last_end && end <= now);
                            last_end = end;
                            for place in fired.drain(..) {
                                let deadline = due[place as usize].take().expect("it was set");
                                if deadline >= end {
                                    wheel.set(&mut entries, place, deadline);
                                    due[place as usize] = Some(deadline);
                                }
                            }
                        }
                        for deadline in due.iter().flatten() {
                            prop_assert!(deadline / WIDTH >= now / WIDTH, "forgotten: {deadline} at {now}");
                        }
                    }
                }
            }
        }
    }
}
