//! The findings, the worst first; enter shows one whole, enter again the lookup that shows it.

use super::{LadderScreen, Opened, list::Listed, scrolled};
use crate::{
    findings::{Confidence, Severity},
    tui::{
        column::{Column, Kind, Value, Width, plain},
        found::FindingRow,
        keys::Command,
        row::Row,
        snapshot::Snapshot,
        table::Record,
        text,
        theme::{Theme, Tone},
    },
};
use ratatui::{Frame, layout::Rect, widgets::Clear};
use std::{borrow::Cow, sync::Arc};

const fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Error => Tone::Bad,
        Severity::Warning => Tone::Warn,
        Severity::Info => Tone::Plain,
    }
}

const COLUMNS: &[Column<FindingRow>] = &[
    Column {
        tone: |_| Tone::Dim,
        ..Column::count("rank", "#", "its place: what cost the users most is first", 3, 9, |row| {
            Value::Count(row.rank)
        })
    },
    Column {
        key: "severity",
        title: "SEVERITY",
        about: "error, warning or info: severity=error",
        width: Width::Fixed(8),
        priority: 3,
        kind: Kind::Word(&["error", "info", "warning"]),
        value: |row| Value::Words(Cow::Borrowed(row.severity.as_str())),
        tone: |row| tone(row.severity),
    },
    Column {
        tone: |row| tone(row.severity),
        ..Column::text("code", "CODE", "its code: code=DP301", Width::Fixed(5), 1, |row| {
            Value::Text(Cow::Borrowed(row.code))
        })
    },
    Column::text("kind", "FINDING", "the code in words: kind~conntrack*", Width::Fixed(23), 6, |row| {
        Value::Text(Cow::Borrowed(row.name))
    }),
    Column::count("count", "COUNT", "how often it happened: count>10", 6, 5, |row| Value::Count(row.count)),
    Column {
        tone: |row| if row.cost.failed > 0 { Tone::Bad } else { Tone::Plain },
        ..Column::count("failed", "FAILED", "lookups that failed by it: failed>0", 6, 2, |row| {
            Value::Count(row.cost.failed)
        })
    },
    Column {
        key: "waited",
        title: "WAITED",
        about: "what lookups waited for nothing by it, together: waited>5s",
        width: Width::Fixed(7),
        priority: 2,
        kind: Kind::Span,
        value: |row| Value::Span(Some(row.cost.waited).filter(|waited| !waited.is_zero())),
        tone: plain,
    },
    Column {
        key: "last",
        title: "LAST",
        about: "when it happened last: last>12:00:03",
        width: Width::Fixed(8),
        priority: 7,
        kind: Kind::Clock,
        value: |row| Value::Clock(row.last),
        tone: plain,
    },
    Column {
        key: "what",
        title: "WHAT HAPPENED",
        about: "in words; text without a key looks here",
        width: Width::Fill { min: 20, max: 400, weight: 1 },
        priority: 0,
        kind: Kind::Text,
        value: |row| Value::Text(Cow::Borrowed(&row.summary)),
        tone: plain,
    },
    Column {
        key: "about",
        title: "",
        about: "the clients and servers it is about: about=10.244.1.0/24",
        width: Width::Hidden,
        priority: 10,
        kind: Kind::Address,
        value: |row| Value::Addresses(Cow::Borrowed(&row.about)),
        tone: plain,
    },
];

impl Record for FindingRow {
    fn key(&self) -> u64 {
        self.key
    }
}

impl Listed for FindingRow {
    const TITLE: &'static str = "Findings";
    const NOUN: &'static str = "finding";
    const PLAIN: &'static str = "what";
    const ORDER: &'static str = "";
    const NOTHING: &'static str = "Nothing wrong found so far.";
    const BELOW: u16 = 3;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn lines(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Self>> {
        snapshot.findings.iter()
    }

    fn open(line: &Arc<Self>) -> Opened {
        Opened::Finding(Box::new(FindingScreen::new(Arc::clone(line))))
    }

    fn whole(&self, room: u16) -> Vec<String> {
        wrapped(&self.summary, room.saturating_sub(1))
    }

    fn further(snapshot: &Snapshot) -> Option<String> {
        let errors = snapshot.findings.iter().filter(|row| row.severity == Severity::Error).count();
        (errors > 0).then(|| text::counted(errors as u64, "error"))
    }
}

/// One finding, whole.
#[derive(Debug)]
pub(in crate::tui) struct FindingScreen {
    row: Arc<FindingRow>,
    /// The lookup that shows it, where its messages are held.
    lookup: Option<Arc<Row>>,
    top: usize,
    page: usize,
    lines: usize,
}

impl FindingScreen {
    fn new(row: Arc<FindingRow>) -> Self {
        Self { row, lookup: None, top: 0, page: 1, lines: 1 }
    }

    pub(in crate::tui) fn update(&mut self, command: Command) {
        self.top = scrolled(command, self.top, self.page, self.lines);
    }

    /// The lookup that shows it; else the lookups of its client.
    pub(in crate::tui) fn open(&self) -> Opened {
        let held = self.lookup.as_ref().and_then(|row| Some((row, row.ladder.upgrade()?)));
        match (held, self.row.client) {
            (Some((row, ladder)), _) => Opened::Ladder(Box::new(LadderScreen::new(Arc::clone(row), ladder))),
            (None, Some(client)) => Opened::Lookups(format!("client={client}")),
            (None, None) => Opened::Gone("no lookup that shows it is held"),
        }
    }

    /// What is shown, in words: for the last line.
    pub(in crate::tui) fn place(&self) -> String {
        format!("{} {}", self.row.code, self.row.name)
    }

    pub(in crate::tui) fn draw(
        &mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        snapshot: &Snapshot,
        theme: Theme,
    ) {
        frame.render_widget(Clear, area);
        // It goes on while it is shown.
        if let Some(now) = snapshot.findings.iter().find(|row| row.key == self.row.key) {
            self.row = Arc::clone(now);
        }
        if self.lookup.as_ref().is_none_or(|row| row.ladder.strong_count() == 0) {
            self.lookup = self.find(snapshot);
        }
        let lines = self.lines(area.width.saturating_sub(2));
        self.lines = lines.len();
        self.page = usize::from(area.height).max(1);
        self.top = self.top.min(self.lines.saturating_sub(self.page));
        for ((line, tone), y) in lines.iter().skip(self.top).zip(area.y..area.bottom()) {
            let room = area.width.saturating_sub(2);
            text::put(frame.buffer_mut(), area.x.saturating_add(1), y, line, room, theme.style(*tone));
        }
    }

    fn find(&self, snapshot: &Snapshot) -> Option<Arc<Row>> {
        let shows = |row: &&Arc<Row>| {
            self.row.client.is_none_or(|client| row.client.ip() == client)
                && row.ladder.upgrade().is_some_and(|ladder| ladder.shows(&self.row.evidence))
        };
        snapshot.lanes.iter().flatten().find(shows).map(Arc::clone)
    }

    fn lines(&self, width: u16) -> Vec<(String, Tone)> {
        let row = &self.row;
        let mut lines = vec![(format!("{} {} {}", row.severity, row.code, row.name), tone(row.severity))];
        let mut say = |label: &str, words: &str, tone: Tone| {
            if words.is_empty() {
                return;
            }
            lines.push((String::new(), Tone::Plain));
            let label = if label.is_empty() { String::new() } else { format!("{label}: ") };
            lines.extend(wrapped(&format!("{label}{words}"), width).into_iter().map(|line| (line, tone)));
        };
        say("", &row.summary, Tone::Plain);
        if row.confidence == Confidence::Inconclusive {
            say("", "Inconclusive: the capture lost frames meanwhile.", Tone::Warn);
        }
        say("cost", &row.costs(), Tone::Plain);
        say("explains", &row.explains, Tone::Plain);
        say("do", &row.advice, Tone::Plain);
        let (first, last) = (text::clock(row.first), text::clock(row.last));
        let times = if first == last { format!("at {first}") } else { format!("from {first} to {last}") };
        let frames: Vec<String> = row.evidence.iter().map(|shown| shown.frame.to_string()).collect();
        let frames = if frames.is_empty() { String::new() } else { format!(", frames {}", frames.join(" ")) };
        let counted = text::counted(row.count, "time");
        say("seen", &format!("{counted}, {times}{frames}; confidence {}", row.confidence), Tone::Dim);
        match (&self.lookup, row.client) {
            (Some(lookup), _) => {
                let what = format!(
                    "{} {} of {}: {}",
                    text::clock(lookup.start),
                    lookup.name,
                    lookup.who,
                    lookup.result
                );
                say("enter", &format!("its lookup, {what}"), Tone::Head);
            }
            (None, Some(client)) => say("enter", &format!("the lookups of {client}"), Tone::Head),
            (None, None) => {}
        }
        lines
    }
}

/// Words on lines of at most `width` columns.
fn wrapped(words: &str, width: u16) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in words.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        if !line.is_empty() && text::width(line) + 1 + text::width(word) > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
