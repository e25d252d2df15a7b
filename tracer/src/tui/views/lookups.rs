//! The live list: one line a lookup and, when asked for, one a question that belongs to none.

use super::{LadderScreen, Opened, View, fields_of};
use crate::{
    model::LookupResult,
    tui::{
        column::{Column, Kind, Value, Width, plain},
        filter::FilterError,
        keys::Command,
        row::Row,
        snapshot::Snapshot,
        table::{Record, Table},
        text,
        theme::{Theme, Tone},
    },
};
use ratatui::{Frame, layout::Rect};
use std::{borrow::Cow, sync::Arc, time::Duration};

const RESULTS: &[&str] =
    &["ok", "nxdomain", "nodata", "servfail", "refused", "timeout", "unreachable", "truncated", "incomplete"];

/// A lookup that took longer stands out.
const SLOW: Duration = Duration::from_millis(200);

const COLUMNS: &[Column<Row>] = &[
    Column {
        key: "start",
        title: "START",
        about: "time of the first query, UTC: start>12:00:03",
        width: Width::Either { short: 8, long: 12 },
        priority: 3,
        kind: Kind::Clock,
        value: |row| Value::Clock(row.start),
        tone: |_| Tone::Dim,
    },
    Column {
        key: "pod",
        title: "CLIENT",
        about: "the client's pod, or its address: pod~web*",
        width: Width::Fill { min: 11, max: 24, weight: 1 },
        priority: 4,
        kind: Kind::Text,
        value: |row| Value::Text(Cow::Borrowed(&row.who)),
        tone: plain,
    },
    Column {
        key: "name",
        title: "NAME",
        about: "the name asked for; text without a key looks here",
        width: Width::Fill { min: 14, max: 44, weight: 2 },
        priority: 0,
        kind: Kind::Text,
        value: |row| Value::Text(Cow::Borrowed(&row.name)),
        tone: plain,
    },
    Column {
        key: "type",
        title: "TYPE",
        about: "the record types asked for: type=AAAA",
        width: Width::Fixed(6),
        priority: 7,
        kind: Kind::Word(&[]),
        value: |row| Value::Words(Cow::Borrowed(&row.types)),
        tone: |_| Tone::Dim,
    },
    Column {
        key: "result",
        title: "RESULT",
        about: "ok nxdomain nodata servfail refused timeout unreachable …",
        width: Width::Fixed(11),
        priority: 1,
        kind: Kind::Word(RESULTS),
        value: |row| Value::Words(Cow::Borrowed(row.result.as_str())),
        tone: |row| match row.result {
            LookupResult::Ok => Tone::Plain,
            LookupResult::Nxdomain | LookupResult::Nodata | LookupResult::Incomplete => Tone::Warn,
            _ => Tone::Bad,
        },
    },
    Column {
        key: "took",
        title: "TOOK",
        about: "first query to last answer that counted: took>1s",
        width: Width::Fixed(7),
        priority: 2,
        kind: Kind::Span,
        value: |row| Value::Span(row.took),
        tone: |row| if row.took >= Some(SLOW) { Tone::Warn } else { Tone::Plain },
    },
    Column {
        key: "queries",
        title: "QUERIES",
        about: "query messages on the wire: queries>=8",
        width: Width::Fixed(7),
        priority: 6,
        kind: Kind::Count,
        value: |row| Value::Count(u64::from(row.queries)),
        tone: plain,
    },
    Column {
        key: "what",
        title: "WHAT HAPPENED",
        about: "what was unusual, or the answer: what~unanswered",
        width: Width::Fill { min: 20, max: 90, weight: 4 },
        priority: 5,
        kind: Kind::Text,
        value: |row| Value::Text(Cow::Borrowed(&row.story)),
        tone: plain,
    },
    filter_only(
        "client",
        "the client's address: client=10.1.2.3, client=10.1.0.0/16",
        Kind::Address,
        |row| Value::Addresses(Cow::Borrowed(std::slice::from_ref(&row.client))),
    ),
    filter_only("server", "an address asked, or behind it: server=10.96.0.10", Kind::Address, |row| {
        Value::Addresses(Cow::Borrowed(&row.servers))
    }),
    filter_only("wasted", "queries that found nothing, for search names: wasted>0", Kind::Count, |row| {
        Value::Count(u64::from(row.wasted))
    }),
    filter_only("resent", "queries sent again: resent>0", Kind::Count, |row| {
        Value::Count(u64::from(row.retransmissions))
    }),
    filter_only("waited", "silence between queries: waited>=2.5s", Kind::Span, |row| {
        Value::Span(Some(row.waited))
    }),
    filter_only("family", "the resolver: family=musl", Kind::Word(&[]), |row| {
        Value::Words(Cow::Borrowed(row.family))
    }),
];

const fn filter_only(
    key: &'static str,
    about: &'static str,
    kind: Kind,
    value: fn(&Row) -> Value<'_>,
) -> Column<Row> {
    Column { key, title: "", about, width: Width::Hidden, priority: u8::MAX, kind, value, tone: plain }
}

impl Record for Row {
    fn key(&self) -> u64 {
        self.serial
    }
}

/// The list.
#[derive(Debug)]
pub(super) struct Lookups {
    table: Table<Row>,
    with_questions: bool,
    /// What the lines were arranged from; `None`: they must be arranged anew.
    arranged: Option<u64>,
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self { table: Table::new(COLUMNS, "name", true), with_questions: false, arranged: None }
    }
}

impl View for Lookups {
    fn title(&self) -> &'static str {
        "Lookups"
    }

    fn refresh(&mut self, snapshot: &Snapshot) {
        if self.arranged == Some(snapshot.generation) {
            return;
        }
        self.arranged = Some(snapshot.generation);
        let lanes = snapshot.lanes.iter().flatten();
        let mut rows: Vec<Arc<Row>> =
            lanes.filter(|r| r.is_lookup || self.with_questions).map(Arc::clone).collect();
        rows.sort_by_key(|r| r.serial);
        self.table.arrange(rows.into_iter());
    }

    fn update(&mut self, command: Command) {
        if command == Command::Questions {
            self.with_questions = !self.with_questions;
            self.arranged = None;
        } else if self.table.update(command) {
            self.arranged = None;
        }
    }

    fn open(&self) -> Opened {
        let Some(row) = self.table.selected() else { return Opened::Nothing };
        match row.ladder.upgrade() {
            Some(ladder) => Opened::Ladder(Box::new(LadderScreen::new(Arc::clone(row), ladder))),
            None => Opened::Gone("the messages of this lookup are no longer held"),
        }
    }

    fn set_filter(&mut self, text: &str) -> Result<(), FilterError> {
        self.table.set_filter(text)?;
        self.arranged = None;
        Ok(())
    }

    fn fields(&self) -> Vec<(&'static str, &'static str)> {
        fields_of(self.table.columns())
    }

    fn summary(&self, snapshot: &Snapshot) -> Vec<String> {
        let (shown, held) = self.table.counts();
        let noun = if self.with_questions { "line" } else { "lookup" };
        let mut parts = vec![if shown == held {
            text::counted(held as u64, noun)
        } else {
            format!("{} of {}", text::count(shown as u64), text::counted(held as u64, noun))
        }];
        let questions = snapshot.lanes[2].len();
        if questions > 0 && !self.with_questions {
            parts.push(format!("{} (a)", text::counted(questions as u64, "other question")));
        }
        for (sampled, sort) in snapshot.sampled.iter().zip(["unusual", "ordinary", "other"]) {
            if let Some(share) = sampled {
                let of = share.seen.div_ceil(share.kept.max(1));
                parts.push(format!("1 of {} {sort} shown", text::count(of)));
            }
        }
        parts.extend(self.table.order_text());
        parts
    }

    fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, theme: Theme) {
        // What the columns cut is whole on the line below the list.
        let whole = if area.height >= 12 { 1 } else { 0 };
        let list = Rect { height: area.height - whole, ..area };
        self.table.draw(frame, list, theme);
        if let Some(row) = self.table.selected().filter(|_| whole > 0) {
            let parts = [&*row.who, &row.name, row.result.as_str(), &row.story];
            let line = parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" · ");
            let room = area.width.saturating_sub(1);
            text::put(frame.buffer_mut(), area.x + 1, list.bottom(), &line, room, theme.style(Tone::Plain));
        }
        let (shown, held) = self.table.counts();
        if shown > 0 || area.height < 3 {
            return;
        }
        let (first, second) = match (held, snapshot.status.ended) {
            (0, false) => ("No DNS lookup so far.", "One line appears here when a lookup ends."),
            (0, true) => ("No DNS lookup in this file.", ""),
            _ => ("No lookup matches the filter.", "esc clears it."),
        };
        let buffer = frame.buffer_mut();
        let room = area.width.saturating_sub(1);
        text::put(buffer, area.x + 1, area.y + 2, first, room, theme.style(Tone::Plain));
        text::put(buffer, area.x + 1, area.y.saturating_add(3), second, room, theme.style(Tone::Dim));
    }
}
