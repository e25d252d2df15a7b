//! What `dnspath race` says before its events and after them.

use super::{stream::Format, text::TimeOfDay};
use crate::{
    findings::{KernelVersion, clash_rule},
    model::{Conntrack, Fate, PacketDrop, Timestamp, Transport},
};
use serde::{Serialize, Serializer, ser::SerializeMap};
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
                format!("Linux {} {}.\nIt {}.\n", self.release, rule(Transport::Udp), rule(Transport::Tcp))
            }
        }
    }

    /// What each CPU counted since `before`, where any did: `12:00:10.000  #  cpu 0: insert_failed +3, drop +3`.
    #[must_use]
    pub fn counted_since(
        &self,
        before: &[Conntrack],
        now: &[Conntrack],
        time: Timestamp,
        format: Format,
    ) -> Option<String> {
        #[derive(Serialize)]
        struct Line {
            event: &'static str,
            time: String,
            conntrack: Vec<Cpu>,
        }
        let grown = now.iter().enumerate().map(|(cpu, now)| {
            let before = before.get(cpu).copied().unwrap_or_default();
            Cpu { cpu, counted: now.since(&before) }
        });
        let grown: Vec<Cpu> =
            grown.filter(|cpu| cpu.counted.counters().iter().any(|(_, count)| *count > 0)).collect();
        if grown.is_empty() {
            return None;
        }
        let line = match format {
            Format::Json => {
                let line = Line { event: "counted", time: time.to_string(), conntrack: grown };
                // Numbers and strings: it cannot fail.
                serde_json::to_string(&line).unwrap_or_default()
            }
            Format::Text => {
                let cpus: Vec<String> = grown.iter().map(Cpu::text).collect();
                format!("{}  #  {}", TimeOfDay(time), cpus.join("; "))
            }
        };
        Some(line + "\n")
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
            "Reported: {insert_failed} dropped in a clash, {clash_resolved} resolved, {table_full} dropped for a full \
             table, {dropped} dropped otherwise; lookups hit: {lookups_hit}."
        );
        match &self.conntrack {
            None => text.push_str("Counted by the kernel: not known here; `dnspath check` says why.\n"),
            Some(cpus) => {
                text.push_str("Counted by the kernel, for all packets and not DNS alone:\n");
                text.push_str(
                    "     CPU  insert_failed  clash_resolve     drop  early_drop    found  invalid\n",
                );
                let total = cpus.iter().fold(Conntrack::default(), |total, cpu| total.plus(cpu));
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
                if total.clash_resolve > clash_resolved {
                    text.push_str(
                        "Resolved clashes are told one by one where the kernel has kprobes or the two went to different \
                         backends; the others are only counted.\n",
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
        struct Sent {
            pairs: u32,
            queries: u32,
            answered: u32,
            lost: u32,
            refused: u32,
            cpus: [usize; 2],
        }
        let rule = |transport| self.version.map(|version| clash_rule(version, transport));
        let cpu = |(cpu, counted): (usize, &Conntrack)| Cpu { cpu, counted: *counted };
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

/// What one CPU counted.
struct Cpu {
    cpu: usize,
    counted: Conntrack,
}

impl Cpu {
    /// `cpu 0: insert_failed +3, drop +3`.
    fn text(&self) -> String {
        let grown = self.counted.counters().into_iter().filter(|(_, count)| *count > 0);
        let grown: Vec<String> = grown.map(|(name, count)| format!("{name} +{count}")).collect();
        format!("cpu {}: {}", self.cpu, grown.join(", "))
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("cpu", &self.cpu)?;
        for (name, count) in self.counted.counters() {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
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
    fn what_was_counted_since_is_told_of_the_cpus_that_counted() {
        let before = [Conntrack { insert_failed: 2, ..Conntrack::default() }, Conntrack::default()];
        let mut now = before;
        let since = |now: &[Conntrack], format| {
            summary().counted_since(&before, now, Timestamp::from_nanos(1_500_000_000), format)
        };
        assert_eq!(since(&now, Format::Text), None);
        now[1] = Conntrack { insert_failed: 3, drop: 3, ..Conntrack::default() };
        let line = "00:00:01.500  #  cpu 1: insert_failed +3, drop +3\n";
        assert_eq!(since(&now, Format::Text).as_deref(), Some(line));
        let json = since(&now, Format::Json).unwrap();
        let cpu = r#""conntrack":[{"cpu":1,"insert_failed":3,"clash_resolve":0,"drop":3,"early_drop":0,"#;
        assert!(
            json.starts_with(r#"{"event":"counted","time":"1970-01-01T00:00:01.5"#) && json.contains(cpu),
            "{json}"
        );
    }

    #[test]
    fn a_lost_query_is_a_loss_even_where_no_drop_was_seen() {
        assert!(summary().lost_any());
        let release = "6.18.5".to_owned();
        assert!(!RaceSummary::new(KernelVersion::from_release(&release), release).lost_any());
    }
}
