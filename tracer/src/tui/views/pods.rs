//! The pods: what their lookups came to, and how they resolve names.

use super::{Opened, list::Listed};
use crate::tui::{
    column::{Column, Kind, Value, Width, plain},
    pods::PodRow,
    snapshot::Snapshot,
    table::Record,
    theme::Tone,
};
use std::{borrow::Cow, sync::Arc};

const COLUMNS: &[Column<PodRow>] = &[
    Column::text(
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
    Column::count("lookups", "LOOKUPS", "lookups that ended", 7, 2, |row| Value::Count(row.lookups)),
    Column {
        tone: |row| if row.failed > 0 { Tone::Bad } else { Tone::Plain },
        ..Column::count("failed", "FAILED", "those that failed: failed>0", 6, 1, |row| {
            Value::Count(row.failed)
        })
    },
    Column::count("empty", "EMPTY", "those that were told there is no such name or address", 6, 7, |row| {
        Value::Count(row.empty)
    }),
    Column {
        tone: |row| if row.waited.is_zero() { Tone::Plain } else { Tone::Warn },
        kind: Kind::Span,
        ..Column::count("waited", "WAITED", "silent waits of its lookups, together: waited>5s", 7, 3, |row| {
            Value::Span(Some(row.waited).filter(|waited| !waited.is_zero()))
        })
    },
    Column::count("queries", "QUERIES", "query messages", 7, 6, |row| Value::Count(row.queries)),
    Column::count("wasted", "WASTED", "queries for search candidates in vain: wasted>100", 7, 5, |row| {
        Value::Count(row.wasted)
    }),
    Column::text("resolver", "RESOLVER", "which resolver asks: resolver=musl", Width::Fixed(11), 4, |row| {
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
    Column::text(
        "search",
        "SEARCH",
        "the search list of its resolv.conf",
        Width::Fill { min: 16, max: 60, weight: 2 },
        11,
        |row| Value::Text(Cow::Borrowed(or_dash(&row.search))),
    ),
    Column::text(
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

impl Listed for PodRow {
    const TITLE: &'static str = "Pods";
    const NOUN: &'static str = "pod";
    const PLAIN: &'static str = "pod";
    const ORDER: &'static str = "lookups";
    const NOTHING: &'static str = "No DNS lookup so far.";
    const BELOW: u16 = 1;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn lines(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Self>> {
        snapshot.pods.iter()
    }

    fn open(line: &Arc<Self>) -> Opened {
        match line.addresses.first() {
            _ if line.named => Opened::Lookups(format!("pod={}", line.who)),
            Some(address) => Opened::Lookups(format!("client={}", address.ip())),
            None => Opened::Gone("these are the clients beyond those that are counted one by one"),
        }
    }

    fn whole(&self, _room: u16) -> Vec<String> {
        let mut line = self.who.to_string();
        if self.named {
            let addresses: Vec<String> = self.addresses.iter().map(|a| a.ip().to_string()).collect();
            line.push_str(&format!(" · {}", addresses.join(" ")));
        }
        line.push_str(&match self.ndots {
            Some(ndots) => format!(
                " · asks {} · ndots {ndots} · search {}",
                or_dash(&self.nameserver),
                or_dash(&self.search)
            ),
            None => " · its resolv.conf is not known here".into(),
        });
        vec![line]
    }
}
