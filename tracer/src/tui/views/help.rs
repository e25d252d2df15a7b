//! The help, made from the key tables and the columns of the view it is about.

use super::scrolled;
use crate::tui::{
    keys::{self, Command, KEYS, TYPING_KEYS},
    text,
    theme::{Theme, Tone},
};
use ratatui::{Frame, layout::Rect, widgets::Clear};

/// The overlay.
#[derive(Debug)]
pub(in crate::tui) struct Help {
    lines: Vec<Line>,
    top: usize,
    page: usize,
}

#[derive(Debug)]
enum Line {
    Head(String),
    Entry(String, String),
    Blank,
}

impl Help {
    /// Help for the view of that title with these filter fields, live or in a replay; `notes` are the session's
    /// warnings.
    pub(in crate::tui) fn new(
        view: &str,
        fields: Vec<(&'static str, &'static str)>,
        notes: &[String],
        replay: bool,
    ) -> Self {
        let mut lines = Vec::new();
        if !notes.is_empty() {
            lines.push(Line::Head("Warnings".into()));
            lines.extend(notes.iter().map(|n| Line::Entry("!".into(), text::escape(n).into_owned())));
            lines.push(Line::Blank);
        }
        let head = if replay { "Keys of a replay" } else { "Keys of a live session" };
        lines.push(Line::Head(head.into()));
        lines.extend(keys::further_keys(replay).iter().map(|b| Line::Entry(b.keys_text(), b.about.into())));
        lines.extend([Line::Blank, Line::Head("Keys".into())]);
        lines.extend(KEYS.iter().map(|b| Line::Entry(b.keys_text(), b.about.into())));
        let head =
            if replay { "Keys while a filter or a time is typed" } else { "Keys while a filter is typed" };
        lines.extend([Line::Blank, Line::Head(head.into())]);
        lines.extend(TYPING_KEYS.iter().map(|b| Line::Entry(b.keys_text(), b.about.into())));
        lines.extend([Line::Blank, Line::Head(format!("Filter of {view}: all terms must hold, ! negates"))]);
        lines.extend(fields.into_iter().map(|(key, about)| Line::Entry(key.into(), about.into())));
        Self { lines, top: 0, page: 1 }
    }

    pub(in crate::tui) fn update(&mut self, command: Command) {
        self.top = scrolled(command, self.top, self.page, self.lines.len());
    }

    pub(in crate::tui) fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, theme: Theme) {
        frame.render_widget(Clear, area);
        let buffer = frame.buffer_mut();
        let area = area.intersection(buffer.area);
        self.page = usize::from(area.height).max(1);
        self.top = self.top.min(self.lines.len().saturating_sub(self.page));
        let keys_width = if area.width < 60 { 12 } else { 16 };
        let room = area.width.saturating_sub(2);
        for (line, y) in self.lines.iter().skip(self.top).zip(area.y..area.bottom()) {
            let x = area.x.saturating_add(1);
            match line {
                Line::Blank => {}
                Line::Head(head) => text::put(buffer, x, y, head, room, theme.style(Tone::Head)),
                Line::Entry(keys, about) => {
                    text::put(buffer, x.saturating_add(1), y, keys, keys_width, theme.style(Tone::Plain));
                    let rest = room.saturating_sub(keys_width + 3);
                    let at = x.saturating_add(keys_width + 3);
                    text::put(buffer, at, y, about, rest, theme.style(Tone::Plain));
                }
            }
        }
    }

    /// How much of it is above and below the screen, in words.
    pub(in crate::tui) fn place(&self) -> String {
        let end = (self.top + self.page).min(self.lines.len());
        if end - self.top == self.lines.len() {
            return "help".into();
        }
        format!("help, lines {}–{end} of {}", self.top + 1, self.lines.len())
    }
}
