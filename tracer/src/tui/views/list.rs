//! A view that is one list: what those of findings, servers, pods, drops and names have in common.

use super::{Opened, View};
use crate::tui::{
    column::Column,
    filter::FilterError,
    keys::Command,
    snapshot::Snapshot,
    table::{Record, Table},
    text,
    theme::{Theme, Tone},
};
use ratatui::{Frame, layout::Rect};
use std::{fmt, sync::Arc};

/// Screens of fewer lines show the list alone.
const ROOMY: u16 = 12;

/// A line of such a list, and how all of them are shown.
pub(super) trait Listed: Record + fmt::Debug + Sized {
    /// The tab's title.
    const TITLE: &'static str;
    /// What one line is about: `pod`.
    const NOUN: &'static str;
    /// The key of the column that plain text in a filter is looked for in.
    const PLAIN: &'static str;
    /// The key of the column that it is ordered by at first; empty: as the lines come.
    const ORDER: &'static str;
    /// What is said where there is no line.
    const NOTHING: &'static str;
    /// Lines below the list for what its columns cut.
    const BELOW: u16 = 0;

    fn columns() -> &'static [Column<Self>];
    /// All lines, filtered or not.
    fn lines(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Self>>;
    /// What enter on a line opens.
    fn open(line: &Arc<Self>) -> Opened;

    /// The line above the list, where there is one.
    fn head(_snapshot: &Snapshot, _width: u16) -> Option<(String, Tone)> {
        None
    }
    /// What the columns cut of a line, in lines of at most so many columns.
    fn whole(&self, _room: u16) -> Vec<String> {
        Vec::new()
    }
    /// How many lines are shown, of how many held, in words.
    fn counted(snapshot: &Snapshot, shown: usize, held: usize) -> Vec<String> {
        let all = text::counted(held as u64, Self::NOUN);
        let counted = if shown == held { all } else { format!("{shown} of {all}") };
        std::iter::once(counted).chain(Self::further(snapshot)).collect()
    }
    /// What is to be said beside how many they are.
    fn further(_snapshot: &Snapshot) -> Option<String> {
        None
    }
}

/// The list.
#[derive(Debug)]
pub(super) struct ListView<R: Listed> {
    table: Table<R>,
}

impl<R: Listed> ListView<R> {
    pub(super) fn new() -> Self {
        Self { table: Table::new(R::columns(), R::PLAIN, false).sorted_by(R::ORDER) }
    }
}

impl<R: Listed> View for ListView<R> {
    fn title(&self) -> &'static str {
        R::TITLE
    }

    fn refresh(&mut self, snapshot: &Snapshot) {
        self.table.arrange(R::lines(snapshot).map(Arc::clone));
    }

    fn update(&mut self, command: Command) {
        self.table.update(command);
    }

    fn open(&self) -> Opened {
        self.table.selected().map_or(Opened::Nothing, R::open)
    }

    fn set_filter(&mut self, text: &str) -> Result<(), FilterError> {
        self.table.set_filter(text)
    }

    fn fields(&self) -> Vec<(&'static str, &'static str)> {
        super::fields_of(self.table.columns())
    }

    fn summary(&self, snapshot: &Snapshot) -> Vec<String> {
        let (shown, held) = self.table.counts();
        R::counted(snapshot, shown, held).into_iter().chain(self.table.order_text()).collect()
    }

    fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, theme: Theme) {
        let (x, room) = (area.x + 1, area.width.saturating_sub(1));
        let head = R::head(snapshot, area.width);
        let above = u16::from(head.is_some());
        if let Some((line, tone)) = head {
            text::put(frame.buffer_mut(), x, area.y, &line, room, theme.style(tone));
        }
        let below = if area.height >= ROOMY { R::BELOW } else { 0 };
        let height = area.height.saturating_sub(above + below);
        let list = Rect { y: area.y + above, height, ..area };
        self.table.draw(frame, list, theme);
        let plain = theme.style(Tone::Plain);
        if let Some(line) = self.table.selected().filter(|_| below > 0) {
            for (whole, y) in line.whole(room).iter().zip(list.bottom()..area.bottom()) {
                text::put(frame.buffer_mut(), x, y, whole, room, plain);
            }
        }
        let (shown, held) = self.table.counts();
        if shown == 0 && list.height > 2 {
            let no_match = format!("No {} matches the filter.", R::NOUN);
            let what = if held == 0 { R::NOTHING } else { &no_match };
            text::put(frame.buffer_mut(), x, list.y + 2, what, room, plain);
        }
    }
}
