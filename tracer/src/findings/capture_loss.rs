//! DP901 capture-loss: what dnspath itself did not see.
//!
//! Fires when the capture lost frames (`frames`), when the engine had to let go of something for want of room
//! (`evicted`): warnings; and when messages were cut by the capture's frame length (`cut`): information.
//! `count` is how many. Findings that rest on something not seen (DP102, DP104, DP106, DP201, DP202, DP402, DP403, DP601)
//! and overlap a loss of frames are marked inconclusive: by the times between which a counter grew.
//!
//! Looks alike and does not fire: frames that are no DNS or malformed; those were seen.

use super::{
    Confidence, Finding, Severity,
    groups::{Code, Tally},
};
use crate::model::{Coverage, Timestamp};
use std::time::Duration;

const CODE: Code = Code { code: "DP901", name: "capture-loss" };
/// Losses that are told apart; of more, the last one lasts on.
const MOST: usize = 1_024;
/// The counters are read that much later than frames are lost.
const READ: Duration = Duration::from_secs(2);
/// So long after a message was sent something may still be missing of what belongs to it: resolvers give up by then.
const AWAITED: Duration = Duration::from_secs(30);

/// When frames were lost.
#[derive(Debug, Default)]
pub(super) struct CaptureLoss {
    times: Vec<(Timestamp, Timestamp)>,
    /// How many these are.
    placed: u64,
}

impl CaptureLoss {
    /// Takes a loss of `frames` somewhere between these times.
    pub(super) fn lost(&mut self, from: Timestamp, until: Timestamp, frames: u64) {
        self.placed = self.placed.saturating_add(frames);
        let from = from - READ;
        let full = self.times.len() >= MOST;
        match self.times.last_mut() {
            Some((_, end)) if from <= *end || full => *end = until.max(*end),
            _ => self.times.push((from, until)),
        }
    }

    /// Marks findings that a loss of frames may have made: those that rest on absence, and overlap it. Of what was lost at
    /// an unknown time, any time may be the one.
    pub(super) fn doubt(&self, findings: &mut [Finding], coverage: &Coverage) {
        let unplaced = coverage.lost > self.placed;
        for finding in findings.iter_mut().filter(|finding| finding.rests_on_absence) {
            let until = finding.last + AWAITED;
            if unplaced || self.times.iter().any(|(from, end)| *from <= until && finding.first <= *end) {
                finding.confidence = Confidence::Inconclusive;
            }
        }
    }
}

/// What was lost over `span`, as findings.
pub(super) fn findings(coverage: &Coverage, span: (Timestamp, Timestamp)) -> Vec<Finding> {
    let all = [
        (
            coverage.lost,
            Severity::Warning,
            "frames",
            "frames were lost by the capture",
            "Numbers in this report are too low, and what rests on missing packets is marked inconclusive. Capture \
          fewer interfaces, or with a larger buffer.",
        ),
        (
            coverage.evicted,
            Severity::Warning,
            "evicted",
            "open questions, lookups or streams were dropped for want of room",
            "More was open at once than dnspath keeps: select fewer clients or servers.",
        ),
        (
            coverage.truncated,
            Severity::Info,
            "cut",
            "frames were cut by the capture's frame length",
            "Capture whole frames (tcpdump -s 0) to see whole answers.",
        ),
    ];
    all.into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, severity, what, words, advice)| {
            let mut tally = Tally::default();
            tally.add(count, span.0, []);
            tally.last = span.1;
            let mut finding = tally.finding(CODE, severity, Confidence::High);
            finding.subject = vec![("what", what.into())];
            finding.summary = format!("{count} {words}; {} frames were seen", coverage.frames);
            finding.advice = advice.into();
            finding
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::at;

    #[test]
    fn fires_for_each_kind_of_loss() {
        let coverage = Coverage { frames: 1_000, lost: 12, evicted: 3, truncated: 5, ..Coverage::default() };
        insta::assert_debug_snapshot!(findings(&coverage, (at(0), at(60_000))));
    }

    #[test]
    fn does_not_fire_for_what_was_seen_but_not_understood() {
        let coverage = Coverage { frames: 1_000, malformed: 50, ..Coverage::default() };
        assert_eq!(findings(&coverage, (at(0), at(1))), []);
    }

    #[test]
    fn a_finding_is_in_doubt_where_frames_were_lost_meanwhile_or_nobody_knows_when() {
        let mut absent = crate::findings::testing::finding("DP102");
        (absent.first, absent.last, absent.rests_on_absence) = (at(100_000), at(110_000), true);
        let coverage = |lost| Coverage { lost, ..Coverage::default() };
        let cases = [
            (None, 0, Confidence::High),
            (None, 3, Confidence::Inconclusive),
            (Some((105_000, 106_000)), 3, Confidence::Inconclusive),
            (Some((120_000, 121_000)), 3, Confidence::Inconclusive),
            (Some((10_000, 99_000)), 3, Confidence::High),
            (Some((150_000, 151_000)), 3, Confidence::High),
            (Some((150_000, 151_000)), 4, Confidence::Inconclusive),
        ];
        for (lost, counted, expected) in cases {
            let mut loss = CaptureLoss::default();
            if let Some((from, until)) = lost {
                loss.lost(at(from), at(until), 3);
            }
            let mut findings = [absent.clone(), Finding { rests_on_absence: false, ..absent.clone() }];
            loss.doubt(&mut findings, &coverage(counted));
            assert_eq!(
                findings.map(|it| it.confidence),
                [expected, Confidence::High],
                "{lost:?} of {counted}"
            );
        }
    }

    #[test]
    fn losses_without_end_take_no_memory() {
        let mut loss = CaptureLoss::default();
        for minute in 0..5_000 {
            loss.lost(at(minute * 60_000), at(minute * 60_000 + 1_000), 1);
        }
        assert_eq!((loss.times.len(), loss.placed), (MOST, 5_000));
    }
}
