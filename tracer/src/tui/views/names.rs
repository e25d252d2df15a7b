//! The names: which are asked most, how many queries a lookup of each takes, and how many of them in vain.

use super::{Opened, list::Listed};
use crate::tui::{
    column::{Column, Kind, Value, Width},
    names::NameRow,
    snapshot::Snapshot,
    table::Record,
    text,
    theme::Tone,
};
use std::{borrow::Cow, sync::Arc};

const COLUMNS: &[Column<NameRow>] = &[
    Column::text(
        "name",
        "NAME",
        "the name that was looked up, before any search; text without a key looks here",
        Width::Fill { min: 20, max: 120, weight: 1 },
        0,
        |row| Value::Text(Cow::Borrowed(&row.name)),
    ),
    Column::count("queries", "QUERIES", "query messages of its lookups: queries>100", 7, 1, |row| {
        Value::Count(row.queries)
    }),
    Column::count("lookups", "LOOKUPS", "lookups that ended", 7, 3, |row| Value::Count(row.lookups)),
    Column {
        tone: |row| if row.wasted_most() { Tone::Warn } else { Tone::Plain },
        ..Column::count("fanout", "FAN-OUT", "queries that a lookup takes: fanout>4", 7, 2, |row| {
            Value::Count(row.fan_out)
        })
    },
    Column {
        tone: |row| if row.wasted_most() { Tone::Warn } else { Tone::Plain },
        ..Column::count(
            "nxdomain",
            "NXDOMAIN %",
            "of a hundred answers, those NXDOMAIN: nxdomain>50",
            10,
            4,
            |row| Value::Count(row.nxdomain_percent),
        )
    },
    Column {
        tone: |row| if row.without > 0 { Tone::Bad } else { Tone::Plain },
        ..Column::count(
            "without",
            "NO ADDRESS",
            "lookups that ended without an address: without>0",
            10,
            5,
            |row| Value::Count(row.without),
        )
    },
    Column {
        kind: Kind::Span,
        ..Column::count("took", "TOOK", "how long a lookup of it takes, on average: took>1s", 7, 6, |row| {
            Value::Span(row.took)
        })
    },
];

impl Record for NameRow {
    fn key(&self) -> u64 {
        self.key
    }
}

impl Listed for NameRow {
    const TITLE: &'static str = "Names";
    const NOUN: &'static str = "name";
    const PLAIN: &'static str = "name";
    const ORDER: &'static str = "queries";
    const NOTHING: &'static str = "No DNS lookup so far.";
    const BELOW: u16 = 1;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn lines(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Self>> {
        snapshot.names.iter()
    }

    fn open(line: &Arc<Self>) -> Opened {
        Opened::Lookups(format!("name={}", line.name))
    }

    fn whole(&self, _room: u16) -> Vec<String> {
        vec![self.name.to_string()]
    }

    fn further(snapshot: &Snapshot) -> Option<String> {
        match snapshot.names_met {
            Some(met) if met > snapshot.names.len() => {
                Some(format!("the most asked of {}", text::count(met as u64)))
            }
            Some(_) => None,
            None => Some("the most asked of very many".into()),
        }
    }
}
