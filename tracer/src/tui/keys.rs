//! Every key, declared once: the tables below handle the keys and write the help.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::fmt;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Back,
    Bottom,
    Down,
    Faster,
    Filter,
    Freeze,
    GoTo,
    Help,
    NextFinding,
    NextView,
    Open,
    PageDown,
    PageUp,
    Pause,
    PreviousFinding,
    PreviousView,
    Questions,
    Quit,
    Reverse,
    Save,
    /// So many seconds on, or back.
    Skip(i32),
    Slower,
    Sort,
    Top,
    Up,
    View(usize),
}

/// What a key does while a filter or a time is typed; any other character is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    Clear,
    Delete,
    DeleteWord,
    Done,
    Empty,
    Quit,
}

/// One key, with or without ctrl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    code: KeyCode,
    ctrl: bool,
}

/// What some keys do, and the words of the help.
#[derive(Debug)]
pub(super) struct Binding<C: 'static> {
    pub(super) keys: &'static [Key],
    pub(super) command: C,
    pub(super) about: &'static str,
}

const fn char(c: char) -> Key {
    Key { code: KeyCode::Char(c), ctrl: false }
}

const fn ctrl(c: char) -> Key {
    Key { code: KeyCode::Char(c), ctrl: true }
}

const fn code(code: KeyCode) -> Key {
    Key { code, ctrl: false }
}

const DIGITS: &[Key] =
    &[char('1'), char('2'), char('3'), char('4'), char('5'), char('6'), char('7'), char('8'), char('9')];

/// The keys of every view.
pub(super) const KEYS: &[Binding<Command>] = &[
    Binding { keys: &[code(KeyCode::Enter)], command: Command::Open, about: "open the line; again to close" },
    Binding { keys: &[char('/')], command: Command::Filter, about: "filter" },
    Binding { keys: &[code(KeyCode::Esc)], command: Command::Back, about: "close, or clear the filter" },
    Binding { keys: &[char('s')], command: Command::Sort, about: "sort by the next column" },
    Binding { keys: &[char('r')], command: Command::Reverse, about: "reverse the order" },
    Binding {
        keys: &[char('a')],
        command: Command::Questions,
        about: "all: also questions of no lookup (PTR, SRV, HINFO)",
    },
    Binding { keys: &[char('j'), code(KeyCode::Down)], command: Command::Down, about: "down" },
    Binding { keys: &[char('k'), code(KeyCode::Up)], command: Command::Up, about: "up" },
    Binding {
        keys: &[code(KeyCode::PageDown), ctrl('d')],
        command: Command::PageDown,
        about: "one page down",
    },
    Binding { keys: &[code(KeyCode::PageUp), ctrl('u')], command: Command::PageUp, about: "one page up" },
    Binding { keys: &[char('g'), code(KeyCode::Home)], command: Command::Top, about: "first line" },
    Binding {
        keys: &[char('G'), code(KeyCode::End)],
        command: Command::Bottom,
        about: "last line; new ones are followed",
    },
    Binding { keys: &[code(KeyCode::Tab)], command: Command::NextView, about: "next view" },
    Binding { keys: &[code(KeyCode::BackTab)], command: Command::PreviousView, about: "previous view" },
    Binding { keys: DIGITS, command: Command::View(0), about: "the view of that number" },
    Binding { keys: &[char('?')], command: Command::Help, about: "this help" },
    Binding { keys: &[char('q'), ctrl('c')], command: Command::Quit, about: "quit" },
];

/// The further keys of a live session.
pub(super) const LIVE_KEYS: &[Binding<Command>] = &[
    Binding { keys: &[char(' '), ctrl('f')], command: Command::Freeze, about: "freeze the screen, or go on" },
    Binding {
        keys: &[ctrl('s')],
        command: Command::Save,
        about: "save the last minutes' packets as a pcapng file",
    },
];

/// The further keys of a replay.
pub(super) const REPLAY_KEYS: &[Binding<Command>] = &[
    Binding { keys: &[char(' '), ctrl('f')], command: Command::Pause, about: "pause, or go on" },
    Binding { keys: &[char('n')], command: Command::NextFinding, about: "on to the next finding" },
    Binding { keys: &[char('N')], command: Command::PreviousFinding, about: "back to the previous finding" },
    Binding { keys: &[code(KeyCode::Right)], command: Command::Skip(10), about: "on by 10 s" },
    Binding { keys: &[code(KeyCode::Left)], command: Command::Skip(-10), about: "back by 10 s" },
    Binding { keys: &[char('>')], command: Command::Skip(60), about: "on by a minute" },
    Binding { keys: &[char('<')], command: Command::Skip(-60), about: "back by a minute" },
    Binding { keys: &[char('t')], command: Command::GoTo, about: "to a time: 12:03:10, +30s, -5m" },
    Binding { keys: &[char('+'), char('=')], command: Command::Faster, about: "faster, up to max" },
    Binding { keys: &[char('-')], command: Command::Slower, about: "slower, down to a tenth" },
];

/// The keys while a filter or a time is typed.
pub(super) const TYPING_KEYS: &[Binding<Edit>] = &[
    Binding {
        keys: &[code(KeyCode::Enter)],
        command: Edit::Done,
        about: "done: keep the filter, go to the time",
    },
    Binding { keys: &[code(KeyCode::Esc)], command: Edit::Clear, about: "clear the filter, or type no time" },
    Binding {
        keys: &[code(KeyCode::Backspace), ctrl('h')],
        command: Edit::Delete,
        about: "delete a character",
    },
    Binding { keys: &[ctrl('w')], command: Edit::DeleteWord, about: "delete a word" },
    Binding { keys: &[ctrl('u')], command: Edit::Empty, about: "delete all" },
    Binding { keys: &[ctrl('c')], command: Edit::Quit, about: "quit" },
];

/// The further keys of a session.
pub(super) const fn further_keys(replay: bool) -> &'static [Binding<Command>] {
    if replay { REPLAY_KEYS } else { LIVE_KEYS }
}

/// What a key event asks for in a table; digits choose a view by their value.
pub(super) fn command(event: KeyEvent, replay: bool) -> Option<Command> {
    let (key, command) = find(KEYS, event).or_else(|| find(further_keys(replay), event))?;
    match (command, key.code) {
        (Command::View(_), KeyCode::Char(digit)) => {
            Some(Command::View(digit.to_digit(10)?.checked_sub(1)? as usize))
        }
        _ => Some(command),
    }
}

/// What a key event does to the line that is typed.
pub(super) fn edit(event: KeyEvent) -> Option<Edit> {
    find(TYPING_KEYS, event).map(|(_, edit)| edit)
}

/// The character that a key event types.
pub(super) fn typed(event: KeyEvent) -> Option<char> {
    match event.code {
        KeyCode::Char(c) if !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => Some(c),
        _ => None,
    }
}

fn find<C: Copy>(table: &[Binding<C>], event: KeyEvent) -> Option<(Key, C)> {
    if event.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    let pressed = Key { code: event.code, ctrl: event.modifiers.contains(KeyModifiers::CONTROL) };
    table.iter().find(|b| b.keys.contains(&pressed)).map(|b| (pressed, b.command))
}

impl<C> Binding<C> {
    /// The keys in words: `j ↓`, `space ctrl-f`, `1–9`.
    pub(super) fn keys_text(&self) -> String {
        if let [first, .., last] = self.keys
            && self.keys.len() > 3
        {
            return format!("{first}–{last}");
        }
        self.keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ctrl {
            f.write_str("ctrl-")?;
        }
        match self.code {
            KeyCode::Char(' ') => f.write_str("space"),
            KeyCode::Char(c) => write!(f, "{c}"),
            KeyCode::Down => f.write_str("↓"),
            KeyCode::Left => f.write_str("←"),
            KeyCode::Right => f.write_str("→"),
            KeyCode::Up => f.write_str("↑"),
            KeyCode::PageDown => f.write_str("PgDn"),
            KeyCode::PageUp => f.write_str("PgUp"),
            KeyCode::BackTab => f.write_str("shift-tab"),
            other => f.write_str(&other.to_string().to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unique<C>(tables: &[&[Binding<C>]]) {
        let keys: Vec<&Key> = tables.iter().copied().flatten().flat_map(|b| b.keys).collect();
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{key} is declared twice");
        }
    }

    #[test]
    fn no_key_means_two_things() {
        unique(&[KEYS, LIVE_KEYS]);
        unique(&[KEYS, REPLAY_KEYS]);
        unique(&[TYPING_KEYS]);
    }

    #[test]
    fn keys_are_found_with_the_modifiers_terminals_send() {
        let key = |c, modifiers| command(KeyEvent::new(KeyCode::Char(c), modifiers), false);
        assert_eq!(key('G', KeyModifiers::SHIFT), Some(Command::Bottom));
        assert_eq!(key('g', KeyModifiers::NONE), Some(Command::Top));
        assert_eq!(key('f', KeyModifiers::CONTROL), Some(Command::Freeze));
        assert_eq!(key('f', KeyModifiers::NONE), None);
        assert_eq!(key('q', KeyModifiers::ALT), None);
        assert_eq!(key('3', KeyModifiers::NONE), Some(Command::View(2)));
        assert_eq!(key('t', KeyModifiers::NONE), None);
        let space = KeyEvent::from(KeyCode::Char(' '));
        assert_eq!(
            (command(space, false), command(space, true)),
            (Some(Command::Freeze), Some(Command::Pause))
        );
    }

    #[test]
    fn keys_have_short_names() {
        let names: Vec<String> = KEYS.iter().chain(LIVE_KEYS).map(Binding::keys_text).collect();
        assert!(names.contains(&"space ctrl-f".to_owned()), "{names:?}");
        assert!(names.contains(&"1–9".to_owned()), "{names:?}");
        assert!(names.contains(&"shift-tab".to_owned()), "{names:?}");
    }
}
