//! The servers: what each address was asked, and what it answered.

use super::{Opened, list::Listed};
use crate::{
    stats::Role,
    tui::{
        column::{Column, Kind, Value, Width, plain},
        servers::ServerRow,
        snapshot::Snapshot,
        table::Record,
        theme::Tone,
    },
};
use std::{borrow::Cow, sync::Arc};

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
    Column::count("queries", "QUERIES", "query messages to it: queries>100", 7, 2, |r| {
        Value::Count(r.queries)
    }),
    Column::count("answered", "ANSWERED", "those that it answered", 8, 8, |r| Value::Count(r.answered)),
    Column {
        tone: |row| if row.unanswered > 0 { Tone::Bad } else { Tone::Plain },
        ..Column::count("unanswered", "UNANSWERED", "those that it did not: unanswered>0", 10, 1, |r| {
            Value::Count(r.unanswered)
        })
    },
    Column::count("resent", "RESENT", "queries that were sent again", 6, 5, |r| {
        Value::Count(r.retransmissions)
    }),
    Column::count("noerror", "NOERROR", "answers NOERROR, empty ones too", 7, 10, |r| {
        Value::Count(r.rcodes[0])
    }),
    Column::count("nxdomain", "NXDOMAIN", "answers NXDOMAIN", 8, 7, |r| Value::Count(r.rcodes[2])),
    Column {
        tone: |row| if row.rcodes[1] > 0 { Tone::Bad } else { Tone::Plain },
        ..Column::count("servfail", "SERVFAIL", "answers SERVFAIL: servfail>0", 8, 6, |r| {
            Value::Count(r.rcodes[1])
        })
    },
    Column::count("refused", "REFUSED", "answers REFUSED", 7, 11, |r| Value::Count(r.rcodes[3])),
    Column::count("other", "OTHER", "answers with any other code", 5, 12, |r| Value::Count(r.rcodes[4])),
    Column::count("icmp", "ICMP", "queries that drew an ICMP error", 5, 9, |r| Value::Count(r.unreachable)),
    Column {
        kind: Kind::Span,
        ..Column::count("p50", "P50", "half of its answers took at most this: p50>10ms", 7, 4, |r| {
            Value::Span(r.p50)
        })
    },
    Column {
        kind: Kind::Span,
        ..Column::count("p99", "P99", "99 of 100 answers took at most this: p99>1s", 7, 3, |r| {
            Value::Span(r.p99)
        })
    },
];

impl Record for ServerRow {
    fn key(&self) -> u64 {
        self.key
    }
}

impl Listed for ServerRow {
    const TITLE: &'static str = "Servers";
    const NOUN: &'static str = "server";
    const PLAIN: &'static str = "server";
    const ORDER: &'static str = "queries";
    const NOTHING: &'static str = "No question has ended so far.";

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn lines(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Self>> {
        snapshot.servers.iter()
    }

    fn open(line: &Arc<Self>) -> Opened {
        line.server.map_or(Opened::Nothing, |server| Opened::Lookups(format!("server={server}")))
    }
}
