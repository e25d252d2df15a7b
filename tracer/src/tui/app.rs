//! The state behind the screen: keys change it, drawing shows it. No terminal, no clock.

use super::{
    keys::{self, Command, Edit},
    snapshot::Snapshot,
    text,
    theme::{Theme, Tone},
    views::{self, FindingScreen, Help, LadderScreen, Opened, View},
};
use ratatui::{
    Frame,
    buffer::Buffer,
    crossterm::event::{KeyEvent, KeyEventKind},
    layout::Rect,
    widgets::{Clear, Widget},
};
use std::borrow::Cow;

/// Characters of a filter line.
const MAX_FILTER: usize = 256;
/// Columns beside the tabs for the session's state.
const STATE: u16 = 12;
/// Warnings shown on the screen; the help has all.
const MAX_NOTES: usize = 2;

/// What a key asks of the one who runs the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Pass this on to the session, and draw again.
    Ask(Request),
    /// Draw again.
    Draw,
    /// Leave.
    Quit,
}

/// What a key asks of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Replay faster.
    Faster,
    /// Go to the time that was typed.
    GoTo(String),
    /// Go on to the next finding.
    NextFinding,
    /// Pause the replay, or go on.
    Pause,
    /// Go back to the previous finding.
    PreviousFinding,
    /// Save what the flight recorder holds.
    Save,
    /// Go on by so many seconds, or back.
    Skip(i32),
    /// Replay slower.
    Slower,
}

/// The whole screen.
#[derive(Debug)]
pub struct App {
    theme: Theme,
    tabs: Vec<Tab>,
    current: usize,
    typing: bool,
    /// The time that is typed.
    time: Option<String>,
    frozen: bool,
    /// The session is a replay.
    replay: bool,
    finding: Option<Box<FindingScreen>>,
    ladder: Option<Box<LadderScreen>>,
    help: Option<Help>,
    message: Option<Cow<'static, str>>,
    /// The last thing said that was taken over.
    heard: u64,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Tab {
    view: Box<dyn View>,
    /// The filter line as typed.
    filter: String,
    error: Option<String>,
}

impl App {
    /// The first view, nothing filtered.
    #[must_use]
    pub fn new(theme: Theme) -> Self {
        let tabs = views::all().into_iter().map(|view| Tab { view, filter: String::new(), error: None });
        Self {
            theme,
            tabs: tabs.collect(),
            current: 0,
            typing: false,
            time: None,
            frozen: false,
            replay: false,
            finding: None,
            ladder: None,
            help: None,
            message: None,
            heard: 0,
            notes: Vec::new(),
        }
    }

    /// Whether the lines are to stay as they are.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Obeys a key.
    pub fn update(&mut self, event: KeyEvent) -> Action {
        if event.kind == KeyEventKind::Release {
            return Action::Draw;
        }
        self.message = None;
        if self.typing {
            return self.type_filter(event);
        }
        if self.time.is_some() {
            return self.type_time(event);
        }
        let Some(command) = keys::command(event, self.replay) else { return Action::Draw };
        if let Some(request) = request(command) {
            if matches!(request, Request::NextFinding | Request::PreviousFinding) {
                self.show_newest();
            }
            return Action::Ask(request);
        }
        match command {
            Command::Quit => return Action::Quit,
            Command::Freeze => self.frozen = !self.frozen,
            Command::GoTo => self.time = Some(String::new()),
            _ if self.help.is_some() => self.update_help(command),
            Command::Help => self.open_help(),
            _ if self.ladder.is_some() => self.update_ladder(command),
            _ if self.finding.is_some() => self.update_finding(command),
            Command::NextView => self.go_to((self.current + 1) % self.tabs.len().max(1)),
            Command::PreviousView => {
                self.go_to(self.current.checked_sub(1).unwrap_or(self.tabs.len().saturating_sub(1)));
            }
            Command::View(index) => self.go_to(index),
            Command::Filter => self.typing = true,
            Command::Back => self.edit_filter(String::clear),
            Command::Open => self.open(),
            other => {
                if let Some(tab) = self.tabs.get_mut(self.current) {
                    tab.view.update(other);
                }
            }
        }
        Action::Draw
    }

    fn update_help(&mut self, command: Command) {
        match command {
            Command::Help | Command::Back | Command::Open => self.help = None,
            other => {
                if let Some(help) = &mut self.help {
                    help.update(other);
                }
            }
        }
    }

    fn update_ladder(&mut self, command: Command) {
        match command {
            Command::Open | Command::Back => self.ladder = None,
            Command::NextView | Command::PreviousView | Command::View(_) => {}
            other => {
                if let Some(ladder) = &mut self.ladder {
                    ladder.update(other);
                }
            }
        }
    }

    fn update_finding(&mut self, command: Command) {
        match command {
            Command::Open => {
                if let Some(opened) = self.finding.as_ref().map(|finding| finding.open()) {
                    self.show(opened);
                }
            }
            Command::Back => self.finding = None,
            Command::NextView | Command::PreviousView | Command::View(_) => {}
            other => {
                if let Some(finding) = &mut self.finding {
                    finding.update(other);
                }
            }
        }
    }

    fn open_help(&mut self) {
        if let Some(tab) = self.tabs.get(self.current) {
            self.help = Some(Help::new(tab.view.title(), tab.view.fields(), &self.notes, self.replay));
        }
    }

    fn go_to(&mut self, index: usize) {
        if index < self.tabs.len() {
            self.current = index;
        }
    }

    fn open(&mut self) {
        if let Some(opened) = self.tabs.get(self.current).map(|tab| tab.view.open()) {
            self.show(opened);
        }
    }

    fn show(&mut self, opened: Opened) {
        match opened {
            Opened::Nothing => {}
            Opened::Finding(finding) => self.finding = Some(finding),
            Opened::Gone(why) => self.message = Some(why.into()),
            Opened::Ladder(ladder) => self.ladder = Some(ladder),
            Opened::Lookups(filter) => {
                (self.current, self.finding) = (0, None);
                self.edit_filter(|line| *line = filter);
            }
        }
    }

    /// The first view, and in it the last line: what is told of a finding ends there.
    fn show_newest(&mut self) {
        (self.current, self.finding, self.ladder, self.help) = (0, None, None, None);
        if let Some(tab) = self.tabs.first_mut() {
            tab.view.update(Command::Bottom);
        }
    }

    fn type_time(&mut self, event: KeyEvent) -> Action {
        let Some(line) = &mut self.time else { return Action::Draw };
        match keys::edit(event) {
            Some(Edit::Quit) => return Action::Quit,
            Some(Edit::Done) => {
                let line = self.time.take().unwrap_or_default();
                return if line.trim().is_empty() { Action::Draw } else { Action::Ask(Request::GoTo(line)) };
            }
            Some(Edit::Clear) => self.time = None,
            Some(edit) => edit_line(line, edit),
            None => {
                if let Some(c) =
                    keys::typed(event).filter(|c| text::is_harmless(*c) && line.len() < MAX_FILTER)
                {
                    line.push(c);
                }
            }
        }
        Action::Draw
    }

    fn type_filter(&mut self, event: KeyEvent) -> Action {
        match keys::edit(event) {
            Some(Edit::Quit) => return Action::Quit,
            Some(Edit::Done) => {
                self.typing = self.tabs.get(self.current).is_some_and(|tab| tab.error.is_some());
            }
            Some(Edit::Clear) => {
                self.typing = false;
                self.edit_filter(String::clear);
            }
            Some(edit) => self.edit_filter(|line| edit_line(line, edit)),
            None => {
                if let Some(c) = keys::typed(event).filter(|c| text::is_harmless(*c)) {
                    self.edit_filter(|line| {
                        if line.len() < MAX_FILTER {
                            line.push(c);
                        }
                    });
                }
            }
        }
        Action::Draw
    }

    /// Changes the filter line; what is understood takes effect at once.
    fn edit_filter(&mut self, change: impl FnOnce(&mut String)) {
        let Some(tab) = self.tabs.get_mut(self.current) else { return };
        change(&mut tab.filter);
        tab.error = tab.view.set_filter(&tab.filter).err().map(|e| text::escape(&e.to_string()).into_owned());
    }

    /// Draws everything for the size the frame has.
    pub fn draw(&mut self, frame: &mut Frame<'_>, snapshot: &Snapshot) {
        self.notes.clone_from(&snapshot.status.notes);
        self.replay = snapshot.status.playback.is_some();
        if let Some(said) = snapshot.status.said.news(&mut self.heard) {
            self.message = Some(text::escape(said).into_owned().into());
        }
        let area = frame.area();
        let Some(tab) = self.tabs.get_mut(self.current) else { return };
        tab.view.refresh(snapshot);
        let small = area.height < 14;
        let shown = if small { 0 } else { snapshot.status.notes.len().min(MAX_NOTES) };
        let mut top = area.y;
        let mut line = || {
            let line = Rect { y: top, height: 1, ..area }.intersection(area);
            top = top.saturating_add(1);
            line
        };
        super::header::draw(frame.buffer_mut(), line(), snapshot, self.theme);
        self.draw_tabs(frame.buffer_mut(), line(), snapshot);
        for index in 0..shown {
            self.draw_note(frame.buffer_mut(), line(), index, shown);
        }
        let body = Rect { y: top, height: area.bottom().saturating_sub(top + 1), ..area };
        let foot = Rect { y: area.bottom().saturating_sub(1), height: 1, ..area };
        let theme = self.theme;
        if let Some(help) = &mut self.help {
            help.draw(frame, body, theme);
        } else if let Some(ladder) = &mut self.ladder {
            ladder.draw(frame, body, &snapshot.vantages, theme);
        } else if let Some(finding) = &mut self.finding {
            finding.draw(frame, body, snapshot, theme);
        } else if let Some(tab) = self.tabs.get_mut(self.current) {
            tab.view.draw(frame, body, snapshot, theme);
        }
        // On a screen of three lines or less the header is worth more than the last line.
        if foot.y >= top {
            self.draw_foot(frame.buffer_mut(), foot, snapshot);
        }
    }

    fn draw_tabs(&self, buffer: &mut Buffer, area: Rect, snapshot: &Snapshot) {
        let mut x = area.x;
        let titles = self.tabs.iter().map(|tab| text::width(tab.view.title()).saturating_add(4));
        // On a narrow screen the others are told by their numbers.
        let narrow = titles.sum::<u16>() + STATE > area.width;
        for (index, tab) in self.tabs.iter().enumerate() {
            let current = index == self.current;
            let (sign, style) =
                if current { ("▸", self.theme.selected()) } else { (" ", self.theme.style(Tone::Plain)) };
            let title = match narrow && !current {
                true => format!("{sign}{} ", index + 1),
                false => format!("{sign}{} {} ", index + 1, tab.view.title()),
            };
            let width = text::width(&title);
            text::put(buffer, x, area.y, &title, area.right().saturating_sub(x), style);
            x = x.saturating_add(width);
        }
        super::header::draw_state(
            buffer,
            Rect { x, width: area.right().saturating_sub(x), ..area },
            snapshot,
            self.frozen,
            self.theme,
        );
    }

    fn draw_note(&self, buffer: &mut Buffer, area: Rect, index: usize, shown: usize) {
        let more = self.notes.len() - shown;
        let Some(note) = self.notes.get(index) else { return };
        let more = if index + 1 == shown && more > 0 { format!(" (+{more}: ?)") } else { String::new() };
        let room = area.width.saturating_sub(1);
        let note = format!("! {}", text::escape(note));
        let left = room.saturating_sub(text::width(&more));
        text::put(buffer, area.x + 1, area.y, &note, left, self.theme.style(Tone::Warn));
        let x = area.x.saturating_add(1).saturating_add(text::width(&note).min(left));
        text::put(buffer, x, area.y, &more, area.right().saturating_sub(x), self.theme.style(Tone::Warn));
    }

    fn draw_foot(&self, buffer: &mut Buffer, area: Rect, snapshot: &Snapshot) {
        let Some(tab) = self.tabs.get(self.current) else { return };
        let room = area.width.saturating_sub(1);
        let x = area.x.saturating_add(1);
        if let Some(time) = &self.time {
            draw_typed(buffer, area, "go to", time, "12:03:10  +30s  -5m  enter go  esc stay", self.theme);
            return;
        }
        if self.typing || tab.error.is_some() {
            self.draw_filter(buffer, area, tab);
            return;
        }
        let (left, hints) = if let Some(help) = &self.help {
            (vec![help.place()], ["j k scroll  esc close", "esc close", ""])
        } else if let Some(ladder) = &self.ladder {
            (vec![ladder.story().to_owned()], ["j k message  esc close  ? help", "esc close", ""])
        } else if let Some(finding) = &self.finding {
            (
                vec![finding.place()],
                ["enter its lookup  j k scroll  esc close", "enter lookup  esc close", "esc close"],
            )
        } else {
            let mut left = Vec::new();
            if !tab.filter.is_empty() {
                left.push(format!("/ {}", tab.filter));
            }
            left.extend(tab.view.summary(snapshot));
            let hints = if self.replay {
                [
                    "space pause  n finding  t time  / filter  ? help  q quit",
                    "space pause  ? help  q quit",
                    "? help",
                ]
            } else {
                ["enter open  / filter  s sort  ? help  q quit", "/ filter  ? help  q quit", "? help"]
            };
            (left, hints)
        };
        let left = self.message.as_deref().map_or_else(|| left.join(" · "), str::to_owned);
        text::put(buffer, x, area.y, &left, room, self.theme.style(Tone::Plain));
        let rest = room.saturating_sub(text::width(&left)).saturating_sub(3);
        if let Some(hints) = hints.into_iter().find(|hints| text::width(hints) <= rest) {
            let x = area.right().saturating_sub(text::width(hints)).saturating_sub(1);
            text::put(buffer, x, area.y, hints, text::width(hints), self.theme.style(Tone::Dim));
        }
    }

    fn draw_filter(&self, buffer: &mut Buffer, area: Rect, tab: &Tab) {
        if self.typing {
            draw_typed(buffer, area, "/", &tab.filter, "enter keep  esc clear", self.theme);
        } else {
            let line = format!("/ {}", tab.filter);
            let room = area.width.saturating_sub(1);
            text::put(buffer, area.x.saturating_add(1), area.y, &line, room, self.theme.style(Tone::Head));
        }
        let above = Rect { y: area.y.saturating_sub(1), ..area };
        if let Some(error) = tab.error.as_deref().filter(|_| above.y > 0) {
            Clear.render(above, buffer);
            let room = above.width.saturating_sub(1);
            text::put(buffer, above.x.saturating_add(1), above.y, error, room, self.theme.style(Tone::Bad));
        }
    }
}

/// What a command asks of the session, if it is one of those.
fn request(command: Command) -> Option<Request> {
    Some(match command {
        Command::Faster => Request::Faster,
        Command::NextFinding => Request::NextFinding,
        Command::Pause => Request::Pause,
        Command::PreviousFinding => Request::PreviousFinding,
        Command::Save => Request::Save,
        Command::Skip(seconds) => Request::Skip(seconds),
        Command::Slower => Request::Slower,
        _ => return None,
    })
}

fn edit_line(line: &mut String, edit: Edit) {
    match edit {
        Edit::Clear | Edit::Empty => line.clear(),
        Edit::Delete => {
            line.pop();
        }
        Edit::DeleteWord => line.truncate(line.trim_end().rfind(' ').map_or(0, |at| at + 1)),
        Edit::Done | Edit::Quit => {}
    }
}

/// A line that is typed, its sign before it, and what may be done with it where there is room.
fn draw_typed(buffer: &mut Buffer, area: Rect, sign: &str, typed: &str, hint: &str, theme: Theme) {
    // The end of a long line is the part that is typed.
    let room = usize::from(area.width.saturating_sub(text::width(sign) + 3)).max(1);
    let skip = typed.chars().count().saturating_sub(room);
    let end: String = typed.chars().skip(skip).collect();
    let line = format!("{sign} {end}▏");
    let x = area.x.saturating_add(1);
    text::put(buffer, x, area.y, &line, area.width.saturating_sub(1), theme.style(Tone::Head));
    let free = area.width.saturating_sub(1).saturating_sub(text::width(&line));
    if text::width(hint) + 2 <= free {
        let x = area.right().saturating_sub(text::width(hint) + 1);
        text::put(buffer, x, area.y, hint, free, theme.style(Tone::Dim));
    }
}
