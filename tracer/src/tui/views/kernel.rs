//! The kernel: packets that it dropped, clashes, and conntrack's counters.

use super::{Opened, View, fields_of};
use crate::{
    model::Conntrack,
    tui::{
        column::{Column, Kind, Value, Width},
        filter::FilterError,
        kernel::DropRow,
        keys::Command,
        snapshot::Snapshot,
        table::{Record, Table},
        text,
        theme::{Theme, Tone},
    },
};
use ratatui::{Frame, layout::Rect};
use std::{borrow::Cow, sync::Arc};

const fn plain(_: &DropRow) -> Tone {
    Tone::Plain
}

const fn words(
    key: &'static str,
    title: &'static str,
    about: &'static str,
    width: Width,
    priority: u8,
    value: fn(&DropRow) -> Value<'_>,
) -> Column<DropRow> {
    Column { key, title, about, width, priority, kind: Kind::Text, value, tone: plain }
}

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
    words(
        "reason",
        "REASON",
        "the kernel's reason: reason~NEIGH*",
        Width::Fill { min: 14, max: 25, weight: 1 },
        2,
        |row| Value::Text(Cow::Borrowed(if row.reason.is_empty() { "–" } else { &row.reason })),
    ),
    words("place", "PLACE", "the kernel function", Width::Fill { min: 12, max: 24, weight: 1 }, 6, |row| {
        Value::Text(Cow::Borrowed(&row.place))
    }),
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
    words(
        "message",
        "MESSAGE",
        "type, id and name; text without a key looks here",
        Width::Fill { min: 16, max: 80, weight: 3 },
        0,
        |row| Value::Text(Cow::Borrowed(&row.message)),
    ),
    words("original", "ORIGINAL", "its connection as the client opened it", Width::Fixed(34), 5, |row| {
        Value::Text(Cow::Borrowed(&row.original))
    }),
    words("reply", "REPLY", "its connection as the server answers", Width::Fixed(34), 7, |row| {
        Value::Text(Cow::Borrowed(&row.reply))
    }),
    words("at", "AT", "the device it was at", Width::Fill { min: 8, max: 16, weight: 1 }, 8, |row| {
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

/// The table of drops and clashes, the newest on top.
#[derive(Debug)]
pub(super) struct KernelView {
    table: Table<DropRow>,
}

impl KernelView {
    pub(super) fn new() -> Self {
        Self { table: Table::new(COLUMNS, "message", false) }
    }
}

impl View for KernelView {
    fn title(&self) -> &'static str {
        "Kernel"
    }

    fn refresh(&mut self, snapshot: &Snapshot) {
        self.table.arrange(snapshot.drops.iter().rev().map(Arc::clone));
    }

    fn update(&mut self, command: Command) {
        self.table.update(command);
    }

    fn open(&self) -> Opened {
        match self.table.selected() {
            Some(row) => Opened::Lookups(format!("client={}", row.asked[0].ip())),
            None => Opened::Nothing,
        }
    }

    fn set_filter(&mut self, text: &str) -> Result<(), FilterError> {
        self.table.set_filter(text)
    }

    fn fields(&self) -> Vec<(&'static str, &'static str)> {
        fields_of(self.table.columns())
    }

    fn summary(&self, snapshot: &Snapshot) -> Vec<String> {
        let (shown, held) = self.table.counts();
        let all = match snapshot.drops_told {
            1 => "1 drop or clash".to_owned(),
            told => format!("{} drops and clashes", text::count(told)),
        };
        let mut parts = vec![if shown as u64 == snapshot.drops_told {
            all
        } else {
            format!("{} of {all}", text::count(shown as u64))
        }];
        if (held as u64) < snapshot.drops_told {
            parts.push(format!("the newest {} kept", text::count(held as u64)));
        }
        parts.extend(self.table.order_text());
        parts
    }

    fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, theme: Theme) {
        let (line, tone) = counters(snapshot, area.width);
        let room = area.width.saturating_sub(1);
        text::put(frame.buffer_mut(), area.x + 1, area.y, &line, room, theme.style(tone));
        let rest = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
        self.table.draw(frame, rest, theme);
        let (shown, held) = self.table.counts();
        if shown == 0 && rest.height > 2 {
            let what = if held == 0 {
                "No DNS packet is known to be dropped, and no clash."
            } else {
                "No drop or clash matches the filter."
            };
            text::put(frame.buffer_mut(), area.x + 1, rest.y + 2, what, room, theme.style(Tone::Plain));
        }
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
