//! The servers: what each address was asked, and what it answered.

use super::{Opened, View, fields_of};
use crate::{
    stats::Role,
    tui::{
        column::{Column, Kind, Value, Width},
        filter::FilterError,
        keys::Command,
        servers::ServerRow,
        snapshot::Snapshot,
        table::{Record, Table},
        text,
        theme::{Theme, Tone},
    },
};
use ratatui::{Frame, layout::Rect};
use std::{borrow::Cow, sync::Arc};

const fn plain(_: &ServerRow) -> Tone {
    Tone::Plain
}

const fn count(
    key: &'static str,
    title: &'static str,
    about: &'static str,
    width: u16,
    priority: u8,
    value: fn(&ServerRow) -> Value<'_>,
) -> Column<ServerRow> {
    Column { key, title, about, width: Width::Fixed(width), priority, kind: Kind::Count, value, tone: plain }
}

const COLUMNS: &[Column<ServerRow>] = &[
    Column {
        key: "server",
        title: "SERVER",
        about: "address and port: server=10.96.0.10; text without a key looks here",
        width: Width::Fill { min: 15, max: 47, weight: 1 },
        priority: 0,
        kind: Kind::Address,
        value: |row| match &row.server {
            Some(server) => Value::Addresses(Cow::Borrowed(std::slice::from_ref(server))),
            None => Value::Text("all others".into()),
        },
        tone: plain,
    },
    Column {
        key: "name",
        title: "NAME",
        about: "the service or the pod that has the address: name~kube-system/*",
        width: Width::Fill { min: 20, max: 60, weight: 2 },
        priority: 4,
        kind: Kind::Text,
        value: |row| Value::Text(row.name.as_deref().unwrap_or("–").into()),
        tone: plain,
    },
    Column {
        key: "role",
        title: "ROLE",
        about: "asked: clients send to it; backend: a service address led to it",
        width: Width::Fixed(7),
        priority: 6,
        kind: Kind::Word(&["asked", "backend"]),
        value: |row| {
            Value::Words(Cow::Borrowed(match row.role {
                Role::Asked => "asked",
                Role::Backend => "backend",
            }))
        },
        tone: |_| Tone::Dim,
    },
    count("queries", "QUERIES", "query messages to it: queries>100", 7, 2, |r| Value::Count(r.queries)),
    count("answered", "ANSWERED", "those that it answered", 8, 8, |r| Value::Count(r.answered)),
    Column {
        tone: |row| if row.unanswered > 0 { Tone::Bad } else { Tone::Plain },
        ..count("unanswered", "UNANSWERED", "those that it did not: unanswered>0", 10, 1, |r| {
            Value::Count(r.unanswered)
        })
    },
    count("resent", "RESENT", "queries that were sent again", 6, 5, |r| Value::Count(r.retransmissions)),
    count("noerror", "NOERROR", "answers NOERROR, empty ones too", 7, 10, |r| Value::Count(r.rcodes[0])),
    count("nxdomain", "NXDOMAIN", "answers NXDOMAIN", 8, 7, |r| Value::Count(r.rcodes[2])),
    Column {
        tone: |row| if row.rcodes[1] > 0 { Tone::Bad } else { Tone::Plain },
        ..count("servfail", "SERVFAIL", "answers SERVFAIL: servfail>0", 8, 6, |r| Value::Count(r.rcodes[1]))
    },
    count("refused", "REFUSED", "answers REFUSED", 7, 11, |r| Value::Count(r.rcodes[3])),
    count("other", "OTHER", "answers with any other code", 5, 12, |r| Value::Count(r.rcodes[4])),
    count("icmp", "ICMP", "queries that drew an ICMP error", 5, 9, |r| Value::Count(r.unreachable)),
    Column {
        kind: Kind::Span,
        ..count("p50", "P50", "half of its answers took at most this: p50>10ms", 7, 4, |r| Value::Span(r.p50))
    },
    Column {
        kind: Kind::Span,
        ..count("p99", "P99", "99 of 100 answers took at most this: p99>1s", 7, 3, |r| Value::Span(r.p99))
    },
];

impl Record for ServerRow {
    fn key(&self) -> u64 {
        self.key
    }
}

/// The table of servers.
#[derive(Debug)]
pub(super) struct ServersView {
    table: Table<ServerRow>,
}

impl ServersView {
    pub(super) fn new() -> Self {
        Self { table: Table::new(COLUMNS, "server", false).sorted_by("queries") }
    }
}

impl View for ServersView {
    fn title(&self) -> &'static str {
        "Servers"
    }

    fn refresh(&mut self, snapshot: &Snapshot) {
        self.table.arrange(snapshot.servers.iter().map(Arc::clone));
    }

    fn update(&mut self, command: Command) {
        self.table.update(command);
    }

    fn open(&self) -> Opened {
        match self.table.selected().and_then(|row| row.server) {
            Some(server) => Opened::Lookups(format!("server={server}")),
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
        let all = text::counted(held as u64, "server");
        let mut parts = vec![if shown == held { all } else { format!("{shown} of {all}") }];
        parts.extend(self.table.order_text());
        parts
    }

    fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, _: &Snapshot, theme: Theme) {
        self.table.draw(frame, area, theme);
        let (shown, held) = self.table.counts();
        if shown == 0 && area.height > 2 {
            let what =
                if held == 0 { "No question has ended so far." } else { "No server matches the filter." };
            let room = area.width.saturating_sub(1);
            text::put(frame.buffer_mut(), area.x + 1, area.y + 2, what, room, theme.style(Tone::Plain));
        }
    }
}
