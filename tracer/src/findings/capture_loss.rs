//! DP901 capture-loss: what dnspath itself did not see.
//!
//! Fires when the capture lost frames (`frames`), when the engine had to let go of something for want of room
//! (`evicted`): warnings; and when messages were cut by the capture's frame length (`cut`): information.
//! `count` is how many. Findings that rest on something not seen (DP102, DP104, DP106, DP201, DP202, DP402, DP403,
//! DP601) and overlap a loss of frames are marked inconclusive.
//!
//! Looks alike and does not fire: frames that are no DNS or malformed; those were seen.

use super::{
    Confidence, Finding, Severity,
    groups::{Code, Tally},
};
use crate::model::{Coverage, Timestamp};

const CODE: Code = Code { code: "DP901", name: "capture-loss" };
/// Codes of findings that say something was not there.
const RESTS_ON_ABSENCE: [&str; 8] = ["DP102", "DP104", "DP106", "DP201", "DP202", "DP402", "DP403", "DP601"];

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

/// Marks findings that a loss of frames may have made. When frames were lost is not known: at any time.
pub(super) fn doubt(findings: &mut [Finding], coverage: &Coverage) {
    if coverage.lost == 0 {
        return;
    }
    // A drop that the kernel told of is no absence; neither is a refusal.
    let told = |finding: &Finding| {
        matches!(finding.code, "DP102" | "DP601") && finding.confidence == Confidence::High
    };
    let rests = |finding: &&mut Finding| RESTS_ON_ABSENCE.contains(&finding.code) && !told(finding);
    for finding in findings.iter_mut().filter(rests) {
        finding.confidence = Confidence::Inconclusive;
    }
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
}
