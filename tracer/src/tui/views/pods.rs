//! The pods: what their lookups came to, and how they resolve names.

use super::{Opened, View, fields_of};
use crate::tui::{
    column::{Column, Kind, Value, Width},
    filter::FilterError,
    keys::Command,
    pods::PodRow,
    snapshot::Snapshot,
    table::{Record, Table},
    text,
    theme::{Theme, Tone},
};
use ratatui::{Frame, layout::Rect};
use std::{borrow::Cow, sync::Arc};

const fn plain(_: &PodRow) -> Tone {
    Tone::Plain
}

const fn count(
    key: &'static str,
    title: &'static str,
    about: &'static str,
    width: u16,
    priority: u8,
    value: fn(&PodRow) -> Value<'_>,
) -> Column<PodRow> {
    Column { key, title, about, width: Width::Fixed(width), priority, kind: Kind::Count, value, tone: plain }
}

const fn words(
    key: &'static str,
    title: &'static str,
    about: &'static str,
    width: Width,
    priority: u8,
    value: fn(&PodRow) -> Value<'_>,
) -> Column<PodRow> {
    Column { key, title, about, width, priority, kind: Kind::Text, value, tone: plain }
}

const COLUMNS: &[Column<PodRow>] = &[
    words(
        "pod",
        "POD",
        "the pod, or the address of a client without a name; text without a key looks here",
        Width::Fill { min: 14, max: 44, weight: 3 },
        0,
        |row| Value::Text(Cow::Borrowed(&row.who)),
    ),
    Column {
        key: "client",
        title: "",
        about: "its addresses: client=10.244.1.0/24",
        width: Width::Hidden,
        priority: 12,
        kind: Kind::Address,
        value: |row| Value::Addresses(Cow::Borrowed(&row.addresses)),
        tone: plain,
    },
    count("lookups", "LOOKUPS", "lookups that ended", 7, 2, |row| Value::Count(row.lookups)),
    Column {
        tone: |row| if row.failed > 0 { Tone::Bad } else { Tone::Plain },
        ..count("failed", "FAILED", "those that failed: failed>0", 6, 1, |row| Value::Count(row.failed))
    },
    count("empty", "EMPTY", "those that were told there is no such name or address", 6, 7, |row| {
        Value::Count(row.empty)
    }),
    Column {
        tone: |row| if row.waited.is_zero() { Tone::Plain } else { Tone::Warn },
        kind: Kind::Span,
        ..count("waited", "WAITED", "silent waits of its lookups, together: waited>5s", 7, 3, |row| {
            Value::Span(Some(row.waited).filter(|waited| !waited.is_zero()))
        })
    },
    count("queries", "QUERIES", "query messages", 7, 6, |row| Value::Count(row.queries)),
    count("wasted", "WASTED", "queries for search candidates in vain: wasted>100", 7, 5, |row| {
        Value::Count(row.wasted)
    }),
    words("resolver", "RESOLVER", "which resolver asks: resolver=musl", Width::Fixed(11), 4, |row| {
        Value::Text(Cow::Borrowed(if row.forwards { "(server)" } else { row.family }))
    }),
    Column {
        key: "ndots",
        title: "NDOTS",
        about: "ndots of its resolv.conf, where that could be read: ndots>1",
        width: Width::Fixed(5),
        priority: 8,
        kind: Kind::Text,
        value: |row| Value::Text(row.ndots.map_or(Cow::Borrowed("–"), |ndots| Cow::Owned(ndots.to_string()))),
        tone: plain,
    },
    words(
        "search",
        "SEARCH",
        "the search list of its resolv.conf",
        Width::Fill { min: 16, max: 60, weight: 2 },
        11,
        |row| Value::Text(Cow::Borrowed(or_dash(&row.search))),
    ),
    words(
        "nameserver",
        "NAMESERVER",
        "whom its resolv.conf asks: nameserver=10.96.0.10",
        Width::Fill { min: 10, max: 24, weight: 1 },
        10,
        |row| Value::Text(Cow::Borrowed(or_dash(&row.nameserver))),
    ),
];

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

impl Record for PodRow {
    fn key(&self) -> u64 {
        self.key
    }
}

/// The table of pods.
#[derive(Debug)]
pub(super) struct PodsView {
    table: Table<PodRow>,
}

impl PodsView {
    pub(super) fn new() -> Self {
        Self { table: Table::new(COLUMNS, "pod", false).sorted_by("lookups") }
    }
}

impl View for PodsView {
    fn title(&self) -> &'static str {
        "Pods"
    }

    fn refresh(&mut self, snapshot: &Snapshot) {
        self.table.arrange(snapshot.pods.iter().map(Arc::clone));
    }

    fn update(&mut self, command: Command) {
        self.table.update(command);
    }

    fn open(&self) -> Opened {
        match self.table.selected() {
            Some(row) if row.named => Opened::Lookups(format!("pod={}", row.who)),
            Some(row) => match row.addresses.first() {
                Some(address) => Opened::Lookups(format!("client={}", address.ip())),
                None => Opened::Gone("these are the clients beyond those that are counted one by one"),
            },
            None => Opened::Nothing,
        }
    }

    fn set_filter(&mut self, text: &str) -> Result<(), FilterError> {
        self.table.set_filter(text)
    }

    fn fields(&self) -> Vec<(&'static str, &'static str)> {
        fields_of(self.table.columns())
    }

    fn summary(&self, _: &Snapshot) -> Vec<String> {
        let (shown, held) = self.table.counts();
        let all = text::counted(held as u64, "pod");
        let mut parts = vec![if shown == held { all } else { format!("{shown} of {all}") }];
        parts.extend(self.table.order_text());
        parts
    }

    fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, _: &Snapshot, theme: Theme) {
        // What the columns cut is whole on the line below the list.
        let whole = if area.height >= 12 { 1 } else { 0 };
        let list = Rect { height: area.height - whole, ..area };
        self.table.draw(frame, list, theme);
        let room = area.width.saturating_sub(1);
        if let Some(row) = self.table.selected().filter(|_| whole > 0) {
            let mut line = row.who.to_string();
            if row.named {
                let addresses: Vec<String> = row.addresses.iter().map(|a| a.ip().to_string()).collect();
                line.push_str(&format!(" · {}", addresses.join(" ")));
            }
            if let Some(ndots) = row.ndots {
                line.push_str(&format!(
                    " · asks {} · ndots {ndots} · search {}",
                    or_dash(&row.nameserver),
                    or_dash(&row.search)
                ));
            } else {
                line.push_str(" · its resolv.conf is not known here");
            }
            text::put(frame.buffer_mut(), area.x + 1, list.bottom(), &line, room, theme.style(Tone::Plain));
        }
        let (shown, held) = self.table.counts();
        if shown == 0 && area.height > 2 {
            let what = if held == 0 { "No DNS lookup so far." } else { "No pod matches the filter." };
            text::put(frame.buffer_mut(), area.x + 1, area.y + 2, what, room, theme.style(Tone::Plain));
        }
    }
}
