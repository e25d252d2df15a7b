//! The loop between a terminal, the keys and a feed.

use super::{App, SharedFeed, Snapshot, Theme, app::Action};
use crate::model::Timestamp;
use ratatui::{
    DefaultTerminal,
    backend::{Backend as _, ClearType},
    crossterm::event::{self, Event},
};
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(100);
/// Events taken between two drawings.
const MAX_BURST: u32 = 256;

/// Why the screen was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The user quit.
    Quit,
    /// `stop` was set.
    Stopped,
}

/// Shows `feed` on the terminal until the user quits or `stop` is set; keys are read and the screen is drawn
/// on the calling thread, ten times a second. `now` is the session's clock: the wall clock live, the records'
/// in a replay. The terminal is given back on every way out, a panic included.
///
/// # Errors
/// When the terminal cannot be set up, read or written.
pub fn run(feed: &SharedFeed, stop: &AtomicBool, now: impl Fn() -> Timestamp) -> io::Result<Exit> {
    // Also installs a panic hook that restores the terminal.
    let mut terminal = ratatui::try_init()?;
    let exit = show(&mut terminal, feed, stop, now);
    // tmux 3.3 moves what is left of a screen that was resized into the scrollback. (`Terminal::clear` would ask
    // the terminal where its cursor is, and not every terminal answers.)
    let cleared = terminal.backend_mut().clear_region(ClearType::All);
    ratatui::try_restore()?;
    cleared.and(exit)
}

fn show(
    terminal: &mut DefaultTerminal,
    feed: &SharedFeed,
    stop: &AtomicBool,
    now: impl Fn() -> Timestamp,
) -> io::Result<Exit> {
    let mut app = App::new(Theme::from_env());
    let mut snapshot = Snapshot::default();
    while !stop.load(Ordering::Relaxed) {
        snapshot.refresh(&mut feed.lock(), app.is_frozen(), now());
        terminal.draw(|frame| app.draw(frame, &snapshot))?;
        let mut wait = FRAME;
        // A burst of keys (paste, auto-repeat) is taken in one go, and a key is answered at once.
        for _ in 0..MAX_BURST {
            if !event::poll(wait)? {
                break;
            }
            wait = Duration::ZERO;
            if let Event::Key(key) = event::read()?
                && app.update(key) == Action::Quit
            {
                return Ok(Exit::Quit);
            }
        }
    }
    Ok(Exit::Stopped)
}
