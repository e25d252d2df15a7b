//! The views behind the tabs. To add one: a file with a [`list::Listed`] or a [`View`], and a line in [`all`].

mod findings;
mod help;
mod kernel;
mod ladder;
mod list;
mod lookups;
mod names;
mod pods;
mod servers;

pub(super) use findings::FindingScreen;
pub(super) use help::Help;
pub(super) use ladder::LadderScreen;

use super::{
    column::Column, filter::FilterError, found::FindingRow, kernel::DropRow, keys::Command, names::NameRow,
    pods::PodRow, servers::ServerRow, snapshot::Snapshot, theme::Theme,
};
use list::ListView;
use ratatui::{Frame, layout::Rect};

/// Every view, in the order of the tabs.
pub(super) fn all() -> Vec<Box<dyn View>> {
    vec![
        Box::new(lookups::Lookups::new()),
        Box::new(ListView::<FindingRow>::new()),
        Box::new(ListView::<ServerRow>::new()),
        Box::new(ListView::<PodRow>::new()),
        Box::new(ListView::<DropRow>::new()),
        Box::new(ListView::<NameRow>::new()),
    ]
}

/// One tab.
pub(super) trait View: std::fmt::Debug {
    /// The tab's title.
    fn title(&self) -> &'static str;
    /// Takes over what there is to show; called before each drawing.
    fn refresh(&mut self, snapshot: &Snapshot);
    /// Obeys a command that moves, sorts or chooses.
    fn update(&mut self, command: Command);
    /// What enter opens.
    fn open(&self) -> Opened;
    /// Filters by a line that a user typed; the old filter stays when the new one is not understood.
    fn set_filter(&mut self, text: &str) -> Result<(), FilterError>;
    /// What a filter can be about, and in what words: for the help.
    fn fields(&self) -> Vec<(&'static str, &'static str)>;
    /// What is shown, in words: for the last line.
    fn summary(&self, snapshot: &Snapshot) -> Vec<String>;
    /// Draws it.
    fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, theme: Theme);
}

/// What enter on a line does.
#[derive(Debug)]
pub(super) enum Opened {
    /// A finding, whole.
    Finding(Box<FindingScreen>),
    /// There is no line.
    Nothing,
    /// A lookup's messages.
    Ladder(Box<LadderScreen>),
    /// The first view, filtered.
    Lookups(String),
    /// Why there is nothing to open.
    Gone(&'static str),
}

fn fields_of<R>(columns: &'static [Column<R>]) -> Vec<(&'static str, &'static str)> {
    columns.iter().map(|c| (c.key, c.about)).collect()
}

/// The first of `lines` lines on a screen of `page` of them, when it was `top` before the command.
fn scrolled(command: Command, top: usize, page: usize, lines: usize) -> usize {
    let last = lines.saturating_sub(page);
    let to = match command {
        Command::Up => top.saturating_sub(1),
        Command::Down => top + 1,
        Command::PageUp => top.saturating_sub(page),
        Command::PageDown => top + page,
        Command::Top => 0,
        Command::Bottom => last,
        _ => top,
    };
    to.min(last)
}
