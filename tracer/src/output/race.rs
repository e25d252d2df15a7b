//! What `dnspath race` says before its events and after them.

use super::stream::Format;
use crate::{
    findings::{KernelVersion, clash_rule},
    model::{Conntrack, Fate, PacketDrop, Transport},
};
use serde::Serialize;
use std::fmt::Write;

/// What came of pairs that were sent to provoke a race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provoked {
    /// Queries that were sent, two a pair.
    pub sent: u32,
    /// Queries that the kernel refused to send at once (EPERM: it dropped them on their way out).
    pub refused: u32,
    /// Queries that got an answer.
    pub answered: u32,
    /// The CPUs they were sent on.
    pub cpus: (usize, usize),
}

impl Provoked {
    /// Queries without an answer.
    #[must_use]
    pub const fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.answered)
    }
}

/// What is counted while events are printed.
#[derive(Debug)]
pub struct RaceSummary {
    release: String,
    version: Option<KernelVersion>,
    counts: Counts,
    conntrack: Option<Vec<Conntrack>>,
    provoked: Option<Provoked>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Counts {
    insert_failed: u64,
    clash_resolved: u64,
    table_full: u64,
    dropped: u64,
    lookups_hit: u64,
}

impl RaceSummary {
    /// Nothing has happened yet on this kernel.
    #[must_use]
    pub const fn new(version: Option<KernelVersion>, release: String) -> Self {
        Self {
            release,
            version,
            counts: Counts { insert_failed: 0, clash_resolved: 0, table_full: 0, dropped: 0, lookups_hit: 0 },
            conntrack: None,
            provoked: None,
        }
    }

    /// Counts an event that is reported.
    pub const fn packet_drop(&mut self, drop: &PacketDrop) {
        let count = match drop.fate {
            Fate::ClashResolved => &mut self.counts.clash_resolved,
            Fate::Dropped => &mut self.counts.dropped,
            Fate::InsertFailed => &mut self.counts.insert_failed,
            Fate::TableFull => &mut self.counts.table_full,
        };
        *count += 1;
    }

    /// Counts a lookup that lost a packet.
    pub const fn lookup_hit(&mut self) {
        self.counts.lookups_hit += 1;
    }

    /// Takes what conntrack counted, CPU by CPU.
    pub fn counted(&mut self, per_cpu: Option<Vec<Conntrack>>) {
        self.conntrack = per_cpu;
    }

    /// Takes what came of the pairs that were sent.
    pub const fn provoked(&mut self, provoked: Provoked) {
        self.provoked = Some(provoked);
    }

    /// Whether a packet was lost.
    #[must_use]
    pub fn lost_any(&self) -> bool {
        let Counts { insert_failed, table_full, dropped, .. } = self.counts;
        insert_failed + table_full + dropped > 0 || self.provoked.is_some_and(|provoked| provoked.lost() > 0)
    }

    /// What comes before the events: what this kernel does with a clash. Nothing in JSON.
    #[must_use]
    pub fn head(&self, format: Format) -> String {
        match (format, self.version) {
            (Format::Json, _) => String::new(),
            (Format::Text, None) => format!("Linux {}\n", self.release),
            (Format::Text, Some(version)) => {
                let rule = |transport| clash_rule(version, transport);
                format!("Linux {} {}.\nIt {}.\n\n", self.release, rule(Transport::Udp), rule(Transport::Tcp))
            }
        }
    }

    /// What comes after the events.
    #[must_use]
    pub fn tail(&self, format: Format) -> String {
        match format {
            Format::Json => self.json(),
            Format::Text => self.text(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::from("\n");
        // Writing to a String cannot fail, here and below.
        if let Some(sent) = &self.provoked {
            let (first, second) = sent.cpus;
            let _ = writeln!(
                text,
                "Provoked: {} pairs on CPUs {first} and {second}: {} of {} queries answered, {} lost{}.",
                sent.sent / 2,
                sent.answered,
                sent.sent,
                sent.lost(),
                if sent.refused > 0 {
                    format!(" ({} refused at once: the kernel dropped them on their way out)", sent.refused)
                } else {
                    String::new()
                }
            );
        }
        let Counts { insert_failed, clash_resolved, table_full, dropped, lookups_hit } = self.counts;
        let _ = writeln!(
            text,
            "Reported: {insert_failed} dropped in a clash, {clash_resolved} clashes resolved, {table_full} dropped for \
             a full table, {dropped} dropped otherwise; {lookups_hit} lookups hit."
        );
        match &self.conntrack {
            None => text.push_str("Counted by the kernel: not known here; `dnspath check` says why.\n"),
            Some(cpus) => {
                text.push_str("Counted by the kernel, for all packets and not DNS alone:\n");
                text.push_str(
                    "     CPU  insert_failed  clash_resolve     drop  early_drop    found  invalid\n",
                );
                let total = cpus.iter().fold(Conntrack::default(), sum);
                let rows = cpus.iter().enumerate().map(|(cpu, counted)| (cpu.to_string(), counted));
                for (cpu, counted) in rows.chain([("all".to_owned(), &total)]) {
                    let Conntrack { insert_failed, clash_resolve, drop, early_drop, found, invalid, .. } =
                        counted;
                    let _ = writeln!(
                        text,
                        "    {cpu:>4}  {insert_failed:>13}  {clash_resolve:>13}  {drop:>7}  {early_drop:>10}  \
                         {found:>7}  {invalid:>7}"
                    );
                }
            }
        }
        text
    }

    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            event: &'static str,
            kernel: &'a str,
            udp_clashes: Option<&'static str>,
            tcp_clashes: Option<&'static str>,
            reported: Counts,
            conntrack: Option<Vec<Cpu>>,
            provoked: Option<Sent>,
        }
        #[derive(Serialize)]
        struct Cpu {
            cpu: usize,
            insert_failed: u64,
            clash_resolve: u64,
            drop: u64,
            early_drop: u64,
            found: u64,
            invalid: u64,
        }
        #[derive(Serialize)]
        struct Sent {
            pairs: u32,
            queries: u32,
            answered: u32,
            lost: u32,
            refused: u32,
            cpus: [usize; 2],
        }
        let rule = |transport| self.version.map(|version| clash_rule(version, transport));
        let cpu = |(cpu, counted): (usize, &Conntrack)| {
            let &Conntrack { insert_failed, clash_resolve, drop, early_drop, found, invalid, .. } = counted;
            Cpu { cpu, insert_failed, clash_resolve, drop, early_drop, found, invalid }
        };
        let line = Line {
            event: "summary",
            kernel: &self.release,
            udp_clashes: rule(Transport::Udp),
            tcp_clashes: rule(Transport::Tcp),
            reported: self.counts,
            conntrack: self.conntrack.as_ref().map(|cpus| cpus.iter().enumerate().map(cpu).collect()),
            provoked: self.provoked.map(|sent| Sent {
                pairs: sent.sent / 2,
                queries: sent.sent,
                answered: sent.answered,
                lost: sent.lost(),
                refused: sent.refused,
                cpus: [sent.cpus.0, sent.cpus.1],
            }),
        };
        // Numbers and strings: it cannot fail.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    }
}

fn sum(mut total: Conntrack, cpu: &Conntrack) -> Conntrack {
    total.insert_failed += cpu.insert_failed;
    total.clash_resolve += cpu.clash_resolve;
    total.drop += cpu.drop;
    total.early_drop += cpu.early_drop;
    total.found += cpu.found;
    total.invalid += cpu.invalid;
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> RaceSummary {
        let release = "6.18.5".to_owned();
        let mut summary = RaceSummary::new(KernelVersion::from_release(&release), release);
        let busy =
            Conntrack { insert_failed: 3, clash_resolve: 97, drop: 3, found: 12, ..Conntrack::default() };
        summary.counted(Some(vec![busy, Conntrack { invalid: 1, ..Conntrack::default() }]));
        summary.provoked(Provoked { sent: 200, refused: 0, answered: 197, cpus: (0, 1) });
        summary
    }

    #[test]
    fn what_is_said_before_and_after() {
        let summary = summary();
        insta::assert_snapshot!(summary.head(Format::Text) + &summary.tail(Format::Text));
        insta::assert_snapshot!(summary.tail(Format::Json));
    }

    #[test]
    fn a_lost_query_is_a_loss_even_where_no_drop_was_seen() {
        assert!(summary().lost_any());
        let release = "6.18.5".to_owned();
        assert!(!RaceSummary::new(KernelVersion::from_release(&release), release).lost_any());
    }
}
