//! Things worth a line to the user while capture runs: bounded, each told once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Notes kept; older ones go.
const MOST: usize = 64;

/// A handle on the notes of a session; also takes the log lines of the kernel side.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    notes: VecDeque<String>,
    /// How many of `notes`, from the end, were not taken yet.
    fresh: usize,
}

impl Notes {
    /// Adds a line, unless it is among those kept.
    pub fn add(&self, line: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.notes.iter().any(|note| note == line) {
            return;
        }
        if kept.notes.len() == MOST {
            kept.notes.pop_front();
        }
        kept.notes.push_back(line.into());
        kept.fresh = (kept.fresh + 1).min(MOST);
    }

    /// The lines added since this was last called.
    #[must_use]
    pub fn take_fresh(&self) -> Vec<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = kept.notes.len() - kept.fresh;
        kept.fresh = 0;
        kept.notes.iter().skip(skip).cloned().collect()
    }

    /// The newest line.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).notes.back().cloned()
    }
}

impl log::Log for Notes {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.add(&record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_told_once_and_memory_is_bounded() {
        let notes = Notes::default();
        notes.add("a");
        notes.add("a");
        notes.add("b");
        assert_eq!(notes.take_fresh(), ["a", "b"]);
        assert!(notes.take_fresh().is_empty());
        for number in 0..1_000 {
            notes.add(&number.to_string());
        }
        assert_eq!(notes.take_fresh().len(), MOST);
        assert_eq!(notes.last().as_deref(), Some("999"));
    }
}
