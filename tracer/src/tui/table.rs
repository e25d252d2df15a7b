//! A list under a cursor: filtered, sorted, scrolled, with the columns that fit.

use super::{
    column::{self, Column, Width},
    filter::{Filter, FilterError},
    keys::Command,
    text,
    theme::{Theme, Tone},
};
use ratatui::{Frame, layout::Rect};
use std::sync::Arc;

/// Columns between two cells; one on a screen narrower than `WIDE`.
const GAP: u16 = 2;
const WIDE: u16 = 100;

/// What a table's lines are made from.
pub(super) trait Record: 'static {
    /// Tells the lines of one session apart; stays the same while a line is shown.
    fn key(&self) -> u64;
}

/// A list and where the user is in it.
#[derive(Debug)]
pub(super) struct Table<R: Record> {
    columns: &'static [Column<R>],
    /// The column that plain text in a filter is looked for in.
    plain: &'static str,
    filter: Filter,
    /// `None`: the order of the source.
    sort: Option<usize>,
    reversed: bool,
    lines: Vec<Arc<R>>,
    /// Lines before the filter.
    held: usize,
    selected: Option<u64>,
    /// The cursor's line when the lines were last arranged.
    cursor: usize,
    /// The cursor stays on the last line as new ones come.
    follow: bool,
    top: usize,
    /// Lines that the last drawing had room for.
    page: usize,
}

impl<R: Record> Table<R> {
    pub(super) fn new(columns: &'static [Column<R>], plain: &'static str, follow: bool) -> Self {
        Self {
            columns,
            plain,
            filter: Filter::default(),
            sort: None,
            reversed: false,
            lines: Vec::new(),
            held: 0,
            selected: None,
            cursor: 0,
            follow,
            top: 0,
            page: 1,
        }
    }

    /// Starts with an order of its own.
    pub(super) fn sorted_by(mut self, key: &str) -> Self {
        self.sort = self.columns.iter().position(|c| c.key == key);
        self
    }

    pub(super) fn set_filter(&mut self, text: &str) -> Result<(), FilterError> {
        self.filter = Filter::parse(text, self.columns, self.plain)?;
        Ok(())
    }

    /// Lines shown, and lines there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.lines.len(), self.held)
    }

    pub(super) fn columns(&self) -> &'static [Column<R>] {
        self.columns
    }

    pub(super) fn selected(&self) -> Option<&Arc<R>> {
        self.lines.get(self.cursor)
    }

    /// Takes the lines over: filters, sorts, and finds the cursor's line again.
    pub(super) fn arrange(&mut self, all: impl Iterator<Item = Arc<R>>) {
        self.lines.clear();
        self.held = 0;
        for line in all {
            self.held += 1;
            if self.filter.is_empty() || self.filter.matches(&*line, self.columns) {
                self.lines.push(line);
            }
        }
        if let Some(column) = self.sort.and_then(|index| self.columns.get(index)) {
            let descending = column.kind.sorts_descending() != self.reversed;
            self.lines.sort_by(|a, b| {
                let order = (column.value)(a).order(&(column.value)(b));
                if descending { order.reverse() } else { order }
            });
        } else if self.reversed {
            self.lines.reverse();
        }
        let known = self.selected.and_then(|key| self.lines.iter().position(|l| l.key() == key));
        match known {
            _ if self.follow => self.cursor = self.lines.len().saturating_sub(1),
            Some(index) => {
                // The screen stands still around the cursor's line; from the first line on it shows what comes.
                if self.top > 0 {
                    self.top = (self.top + index).saturating_sub(self.cursor);
                }
                self.cursor = index;
            }
            None => self.cursor = self.cursor.min(self.lines.len().saturating_sub(1)),
        }
        self.selected = self.lines.get(self.cursor).map(|l| l.key());
    }

    /// Moves or sorts; whether the lines must be arranged anew.
    pub(super) fn update(&mut self, command: Command) -> bool {
        let last = self.lines.len().saturating_sub(1);
        let to = match command {
            Command::Up => self.cursor.saturating_sub(1),
            Command::Down => self.cursor.saturating_add(1),
            Command::PageUp => self.cursor.saturating_sub(self.page),
            Command::PageDown => self.cursor.saturating_add(self.page),
            Command::Top => 0,
            Command::Bottom => last,
            Command::Sort => {
                self.sort = self.next_sort();
                self.reversed = false;
                self.begin_order();
                return true;
            }
            Command::Reverse => {
                self.reversed = !self.reversed;
                self.begin_order();
                return true;
            }
            _ => return false,
        };
        self.cursor = to.min(last);
        self.selected = self.lines.get(self.cursor).map(|l| l.key());
        self.follow = self.in_order_of_arrival() && self.cursor == last;
        false
    }

    fn in_order_of_arrival(&self) -> bool {
        self.sort.is_none() && !self.reversed
    }

    fn begin_order(&mut self) {
        self.follow = self.in_order_of_arrival();
        self.selected = None;
        self.cursor = 0;
        self.top = 0;
    }

    fn next_sort(&self) -> Option<usize> {
        let from = self.sort.map_or(0, |index| index + 1);
        (from..self.columns.len()).find(|&i| self.columns[i].width != Width::Hidden)
    }

    /// What the lines are ordered by, in words.
    pub(super) fn order_text(&self) -> Option<String> {
        let column = self.sort.and_then(|index| self.columns.get(index));
        match column {
            Some(column) => {
                let descending = column.kind.sorts_descending() != self.reversed;
                Some(format!("by {} {}", column.title.to_lowercase(), if descending { "▼" } else { "▲" }))
            }
            None if self.reversed => Some("newest first".into()),
            None => None,
        }
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, theme: Theme) {
        let buffer = frame.buffer_mut();
        let area = area.intersection(buffer.area);
        if area.is_empty() {
            return;
        }
        // The first column on the screen is the cursor's.
        let gap = if area.width < WIDE { 1 } else { GAP };
        let cells = column::fit(self.columns, area.width.saturating_sub(1), gap);
        let mut x = area.x.saturating_add(1);
        for &(index, width) in &cells {
            let column = &self.columns[index];
            let title_style = theme.style(Tone::Dim);
            let right = matches!(column.kind, column::Kind::Count | column::Kind::Span);
            let write = if right { text::put_right } else { text::put };
            write(buffer, x, area.y, column.title, width, title_style);
            x = x.saturating_add(width).saturating_add(gap);
        }
        self.page = usize::from(area.height.saturating_sub(1)).max(1);
        self.scroll();
        let shown = self.lines.iter().enumerate().skip(self.top).take(self.page);
        for ((index, line), y) in shown.zip(area.y.saturating_add(1)..area.bottom()) {
            let mut x = area.x.saturating_add(1);
            for &(cell, width) in &cells {
                let column = &self.columns[cell];
                let value = (column.value)(line);
                let write = if value.is_right() { text::put_right } else { text::put };
                write(buffer, x, y, &value.show_in(width), width, theme.style((column.tone)(line)));
                x = x.saturating_add(width).saturating_add(gap);
            }
            if index == self.cursor {
                text::put(buffer, area.x, y, "▸", 1, theme.style(Tone::Head));
                buffer.set_style(Rect::new(area.x, y, area.width, 1), theme.selected());
            }
        }
    }

    fn scroll(&mut self) {
        self.top = self.top.min(self.lines.len().saturating_sub(self.page));
        self.top = self.top.min(self.cursor).max((self.cursor + 1).saturating_sub(self.page));
    }
}
