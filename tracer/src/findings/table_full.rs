//! DP302 conntrack-table-full: DNS packets dropped, or connections evicted, because the connection table was full.
//!
//! Fires when a drop for a full table was reported (`count` is these; an error); else, from conntrack's counters alone,
//! when it dropped more packets than inserts failed while the table was nearly full, or evicted connections to make room
//! (`early_drop`): a warning, and `count` is what it counted.
//!
//! Looks alike and does not fire: a table that is nearly full and dropped nothing; drops whose inserts failed (DP301).

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    culprit::Culprit,
    groups::{Code, Tally},
    losses::Loss,
};
use crate::model::{Conntrack, Coverage, Fate, Timestamp};

const CODE: Code = Code { code: "DP302", name: "conntrack-table-full" };
/// The table is nearly full from this many hundredths on: the counters are read a moment later.
const NEARLY_FULL: u64 = 90;

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct TableFull(Tally);

impl Rule for TableFull {
    fn loss(&mut self, loss: &Loss<'_>) {
        if loss.drop.fate == Fate::TableFull {
            let frame = Evidence { frame: loss.drop.frame, vantage: loss.drop.vantage };
            self.0.add(1, loss.drop.time, [frame]);
            self.0.cost += loss.cost();
        }
    }

    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }
}

impl TableFull {
    /// What was reported, and what conntrack counted over `span`.
    pub(super) fn with_counters(&self, coverage: &Coverage, span: (Timestamp, Timestamp)) -> Option<Finding> {
        let counters = coverage.conntrack.unwrap_or_default();
        let nearly_full = counters.entries * 100 >= counters.max * NEARLY_FULL && counters.max > 0;
        let dropped = if nearly_full { counters.drop.saturating_sub(counters.insert_failed) } else { 0 };
        let mut said = Vec::new();
        let mut finding = if self.0.count > 0 {
            let packets = if self.0.count == 1 {
                "1 DNS packet".into()
            } else {
                format!("{} DNS packets", self.0.count)
            };
            said.push(format!("the kernel dropped {packets} because the connection table was full"));
            self.0.finding(CODE, Severity::Error, Confidence::High)
        } else if dropped + counters.early_drop > 0 {
            let mut tally = Tally::default();
            tally.add(dropped + counters.early_drop, span.0, []);
            tally.last = span.1;
            tally.finding(CODE, Severity::Warning, Confidence::Medium)
        } else {
            return None;
        };
        if dropped > 0 {
            said.push(format!("conntrack dropped {dropped} packets of any kind for want of room"));
        }
        if counters.early_drop > 0 {
            said.push(format!("conntrack evicted {} connections to make room", counters.early_drop));
        }
        if let Some(Conntrack { entries, max, .. }) = coverage.conntrack.filter(|c| c.max > 0) {
            said.push(format!("it holds {entries} of at most {max} now"));
            finding.subject.push(("entries", entries.to_string()));
            finding.subject.push(("max", max.to_string()));
        } else {
            finding.subject.push(("table", "nf_conntrack".into()));
        }
        finding.blames = vec![Culprit::TableFull];
        finding.summary = said.join("; ");
        finding.advice = "Raise net.netfilter.nf_conntrack_max (and the hash table's size with it), or find who opens so many \
                          connections: `conntrack -L | sort` by address; DNS over UDP keeps an entry for 30 s, so NodeLocal \
                          DNSCache and NOTRACK rules for it help."
            .into();
        Some(finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{at, drop_of};

    fn told(reported: u64, conntrack: Option<Conntrack>) -> Option<Finding> {
        let mut rule = TableFull::default();
        for number in 0..reported {
            let drop = drop_of(Fate::TableFull, at(number));
            rule.loss(&Loss { drop: &drop, question: None, wait: None });
        }
        rule.with_counters(&Coverage { conntrack, ..Coverage::default() }, (at(0), at(9_000)))
    }

    #[test]
    fn fires_for_reports_and_for_counters() {
        let full =
            Conntrack { drop: 40, insert_failed: 3, entries: 262_100, max: 262_144, ..Conntrack::default() };
        let evicted = Conntrack { early_drop: 5, entries: 100, max: 262_144, ..Conntrack::default() };
        insta::assert_debug_snapshot!([
            told(2, Some(full)),
            told(0, Some(full)),
            told(0, Some(evicted)),
            told(1, None)
        ]);
    }

    #[test]
    fn does_not_fire_for_a_full_table_that_dropped_nothing_or_drops_of_an_empty_one() {
        let calm = Conntrack { entries: 262_144, max: 262_144, ..Conntrack::default() };
        let clashes =
            Conntrack { drop: 7, insert_failed: 7, entries: 262_144, max: 262_144, ..Conntrack::default() };
        let elsewhere = Conntrack { drop: 7, entries: 10, max: 262_144, ..Conntrack::default() };
        for counters in [None, Some(calm), Some(clashes), Some(elsewhere), Some(Conntrack::default())] {
            assert_eq!(told(0, counters), None, "{counters:?}");
        }
    }
}
