//! What conntrack counts: `/proc/net/stat/nf_conntrack`, one line a CPU, columns by their names (they differ
//! between kernels), and how full its table is.

use crate::model::Conntrack;
use std::{fs, path::Path};

/// Where a thread sees the counters of the namespace it is in.
const OWN: &str = "/proc/thread-self/net/stat/nf_conntrack";
const ENTRIES: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// What each CPU counted, as the kernel shows it: 32 bits, which go round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuCounters {
    pub(super) insert_failed: u32,
    pub(super) clash_resolve: u32,
    pub(super) drop: u32,
    early_drop: u32,
    found: u32,
    invalid: u32,
}

impl CpuCounters {
    /// What was counted since `before`.
    fn since(self, before: Self) -> Conntrack {
        let grown = |now: u32, before: u32| u64::from(now.wrapping_sub(before));
        Conntrack {
            insert_failed: grown(self.insert_failed, before.insert_failed),
            clash_resolve: grown(self.clash_resolve, before.clash_resolve),
            drop: grown(self.drop, before.drop),
            early_drop: grown(self.early_drop, before.early_drop),
            found: grown(self.found, before.found),
            invalid: grown(self.invalid, before.invalid),
            entries: 0,
            max: 0,
        }
    }
}

/// Counters of every CPU; `None` where there are none or they cannot be read.
pub(super) fn read(path: &Path) -> Option<Vec<CpuCounters>> {
    parse(&fs::read_to_string(path).ok()?)
}

/// Those of the calling thread's namespace.
pub(super) fn read_own() -> Option<Vec<CpuCounters>> {
    read(Path::new(OWN))
}

/// `None` for a text without the columns that every kernel has.
fn parse(text: &str) -> Option<Vec<CpuCounters>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let column = |name| header.iter().position(|column| *column == name);
    let (insert_failed, drop) = (column("insert_failed")?, column("drop")?);
    // Shown since Linux 5.9, by this name.
    let (clash_resolve, early_drop) = (column("clashres"), column("early_drop"));
    let (found, invalid) = (column("found"), column("invalid"));
    let cpu = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let at = |index: usize| words.get(index).and_then(|word| u32::from_str_radix(word, 16).ok());
        let known = |index: Option<usize>| index.and_then(at).unwrap_or(0);
        Some(CpuCounters {
            insert_failed: at(insert_failed)?,
            drop: at(drop)?,
            clash_resolve: known(clash_resolve),
            early_drop: known(early_drop),
            found: known(found),
            invalid: known(invalid),
        })
    };
    lines.map(cpu).collect()
}

/// The counters of one namespace since they were first read.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Empty where there were none at the start: then they begin at 0.
    before: Vec<CpuCounters>,
}

impl Counted {
    /// Begins to count, in the namespace of the calling thread.
    pub(super) fn start() -> Self {
        Self { before: read_own().unwrap_or_default() }
    }

    /// What each CPU counted since; `None` where it cannot be read. The calling thread is in the namespace.
    pub(super) fn per_cpu(&self) -> Option<Vec<Conntrack>> {
        let before = |cpu: usize| self.before.get(cpu).copied().unwrap_or_default();
        let now = read_own()?;
        Some(now.iter().enumerate().map(|(cpu, counters)| counters.since(before(cpu))).collect())
    }
}

/// How many connections the table holds, and can hold; the calling thread is in the namespace.
pub(super) fn table_use() -> (u64, u64) {
    let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
    (number(ENTRIES).unwrap_or(0), number(MAX).unwrap_or(0))
}

/// Adds what another CPU or namespace counted.
pub(super) fn add(sum: &mut Conntrack, more: &Conntrack) {
    let Conntrack { insert_failed, clash_resolve, drop, early_drop, found, invalid, entries, max } = more;
    sum.insert_failed += insert_failed;
    sum.clash_resolve += clash_resolve;
    sum.drop += drop;
    sum.early_drop += early_drop;
    sum.found += found;
    sum.invalid += invalid;
    sum.entries += entries;
    // One limit for all namespaces.
    sum.max = sum.max.max(*max);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX_6_18: &str = "\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
0000000a  00000001 00000002 00000000 00000003 00000000 00000000 00000005 00000000 00000007 00000008 00000009 00000000 00000000 00000000 00000000 00000000
0000000a  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 ffffffff 00000000 00000000 00000000 00000000 00000000 00000000 00000000
";

    #[test]
    fn columns_go_by_their_names() {
        let cpus = parse(LINUX_6_18).unwrap();
        assert_eq!(cpus.len(), 2);
        let first = cpus[0];
        assert_eq!((first.insert_failed, first.drop, first.early_drop), (7, 8, 9));
        assert_eq!((first.clash_resolve, first.found, first.invalid), (1, 2, 3));
        let turned = "drop insert_failed\n1 2\n";
        assert_eq!(parse(turned).unwrap()[0].insert_failed, 2);
    }

    #[test]
    fn a_counter_goes_round() {
        let before = CpuCounters { insert_failed: u32::MAX, ..CpuCounters::default() };
        let now = CpuCounters { insert_failed: 1, ..CpuCounters::default() };
        assert_eq!(now.since(before).insert_failed, 2);
    }

    #[test]
    fn what_is_no_such_file_gives_nothing() {
        for text in ["", "entries found\n", "drop insert_failed\nx y\n", "drop insert_failed\n1\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
