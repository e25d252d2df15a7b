//! The kernel: packets that it dropped, clashes, and conntrack's counters.

use super::{Opened, list::Listed};
use crate::{
    model::Conntrack,
    tui::{
        column::{Column, Kind, Value, Width, plain},
        kernel::DropRow,
        snapshot::Snapshot,
        table::Record,
        text,
        theme::Tone,
    },
};
use std::{borrow::Cow, sync::Arc};

const COLUMNS: &[Column<DropRow>] = &[
    Column {
        key: "time",
        title: "TIME",
        about: "when: time>12:00:03",
        width: Width::Either { short: 8, long: 12 },
        priority: 1,
        kind: Kind::Clock,
        value: |row| Value::Clock(row.time),
        tone: plain,
    },
    Column {
        key: "fate",
        title: "FATE",
        about: "what became of it: fate=insert_failed",
        width: Width::Fixed(14),
        priority: 3,
        kind: Kind::Word(&["clash_resolved", "dropped", "insert_failed", "table_full"]),
        value: |row| Value::Words(Cow::Borrowed(row.fate.as_str())),
        tone: |row| if row.fate.is_loss() { Tone::Bad } else { Tone::Plain },
    },
    Column::text(
        "reason",
        "REASON",
        "the kernel's reason: reason~NEIGH*",
        Width::Fill { min: 14, max: 25, weight: 1 },
        2,
        |row| Value::Text(Cow::Borrowed(if row.reason.is_empty() { "–" } else { &row.reason })),
    ),
    Column::text(
        "place",
        "PLACE",
        "the kernel function",
        Width::Fill { min: 12, max: 24, weight: 1 },
        6,
        |row| Value::Text(Cow::Borrowed(&row.place)),
    ),
    Column {
        key: "cpu",
        title: "CPU",
        about: "the CPU it happened on: cpu=1",
        width: Width::Fixed(3),
        priority: 4,
        kind: Kind::Count,
        value: |row| Value::Count(u64::from(row.cpu)),
        tone: plain,
    },
    Column::text(
        "message",
        "MESSAGE",
        "type, id and name; text without a key looks here",
        Width::Fill { min: 16, max: 80, weight: 3 },
        0,
        |row| Value::Text(Cow::Borrowed(&row.message)),
    ),
    Column::text(
        "original",
        "ORIGINAL",
        "its connection as the client opened it",
        Width::Fixed(34),
        5,
        |row| Value::Text(Cow::Borrowed(&row.original)),
    ),
    Column::text("reply", "REPLY", "its connection as the server answers", Width::Fixed(34), 7, |row| {
        Value::Text(Cow::Borrowed(&row.reply))
    }),
    Column::text("at", "AT", "the device it was at", Width::Fill { min: 8, max: 16, weight: 1 }, 8, |row| {
        Value::Text(Cow::Borrowed(&row.at))
    }),
    Column {
        key: "client",
        title: "",
        about: "who asked: client=10.244.1.0/24",
        width: Width::Hidden,
        priority: 9,
        kind: Kind::Address,
        value: |row| Value::Addresses(Cow::Borrowed(row.asked.get(..1).unwrap_or_default())),
        tone: plain,
    },
    Column {
        key: "server",
        title: "",
        about: "who was asked: server=10.96.0.10",
        width: Width::Hidden,
        priority: 9,
        kind: Kind::Address,
        value: |row| Value::Addresses(Cow::Borrowed(row.asked.get(1..).unwrap_or_default())),
        tone: plain,
    },
];

impl Record for DropRow {
    fn key(&self) -> u64 {
        self.serial
    }
}

impl Listed for DropRow {
    const TITLE: &'static str = "Kernel";
    const NOUN: &'static str = "drop or clash";
    const PLAIN: &'static str = "message";
    const ORDER: &'static str = "";
    const NOTHING: &'static str = "No DNS packet is known to be dropped, and no clash.";

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    /// The newest on top.
    fn lines(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Self>> {
        snapshot.drops.iter().rev()
    }

    fn open(line: &Arc<Self>) -> Opened {
        Opened::Lookups(format!("client={}", line.asked[0].ip()))
    }

    fn head(snapshot: &Snapshot, width: u16) -> Option<(String, Tone)> {
        Some(counters(snapshot, width))
    }

    fn counted(snapshot: &Snapshot, shown: usize, held: usize) -> Vec<String> {
        let told = snapshot.drops_told;
        let all = match told {
            1 => "1 drop or clash".to_owned(),
            told => format!("{} drops and clashes", text::count(told)),
        };
        let (shown, held) = (shown as u64, held as u64);
        let mut parts = vec![if shown == told { all } else { format!("{} of {all}", text::count(shown)) }];
        if held < told {
            parts.push(format!("the newest {} kept", text::count(held)));
        }
        parts
    }
}

/// Conntrack's counters and how full its table is, in as many words as fit.
fn counters(snapshot: &Snapshot, width: u16) -> (String, Tone) {
    let Some(counted) = snapshot.status.coverage.conntrack else {
        return ("conntrack's counters are not known here".into(), Tone::Dim);
    };
    let Conntrack { insert_failed, drop, early_drop, entries, max, .. } = counted;
    let percent = (entries * 100).checked_div(max);
    let table = percent.map_or_else(String::new, |percent| format!("table {percent} %"));
    let whole = format!("table {} of {}", text::count(entries), text::count(max));
    let all = counted.counters().map(|(name, number)| format!("{name} {}", text::count(number)));
    let fits = |parts: &[String], table: &str| {
        let line = format!("conntrack  {}  {table}", parts.join("  "));
        (text::width(&line) < width).then_some(line)
    };
    let line = fits(&all, &whole)
        .or_else(|| (1..=all.len()).rev().find_map(|count| fits(all.get(..count)?, &table)))
        .unwrap_or_else(|| format!("{}  {table}", all[0]));
    let lost = insert_failed + drop + early_drop > 0 || percent.is_some_and(|percent| percent >= 90);
    (line, if lost { Tone::Warn } else { Tone::Plain })
}
