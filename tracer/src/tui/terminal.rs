//! The loop between a terminal, the keys and a feed.

use super::{App, Request, SharedFeed, Snapshot, Theme, app::Action};
use crate::model::Timestamp;
use ratatui::{
    DefaultTerminal,
    backend::{Backend as _, ClearType},
    crossterm::event::{self, Event, KeyEvent},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(100);
/// Keys taken between two drawings.
const MAX_BURST: usize = 256;

/// Why the screen was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The user quit.
    Quit,
    /// `stop` was set.
    Stopped,
}

/// Shows `feed` on the terminal until the user quits or `stop` is set; the screen is drawn on the calling thread, ten
/// times a second. `now` is the wall clock; a replay has its own. `ask` is told what keys ask of the session. The
/// terminal is given back on every way out, a panic included.
///
/// # Errors
/// When the terminal cannot be set up, read or written.
pub fn run(
    feed: &SharedFeed,
    stop: &AtomicBool,
    now: impl Fn() -> Timestamp,
    ask: impl FnMut(Request),
) -> io::Result<Exit> {
    // Also installs a panic hook that restores the terminal.
    let mut terminal = ratatui::try_init()?;
    let keys = Keys::start();
    let exit = keys.and_then(|keys| show(&mut terminal, &keys, feed, stop, now, ask));
    // tmux 3.3 moves what is left of a screen that was resized into the scrollback. (`Terminal::clear` would ask
    // the terminal where its cursor is, and not every terminal answers.)
    let cleared = terminal.backend_mut().clear_region(ClearType::All);
    ratatui::try_restore()?;
    cleared.and(exit)
}

fn show(
    terminal: &mut DefaultTerminal,
    keys: &Keys,
    feed: &SharedFeed,
    stop: &AtomicBool,
    now: impl Fn() -> Timestamp,
    mut ask: impl FnMut(Request),
) -> io::Result<Exit> {
    let mut app = App::new(Theme::from_env());
    let mut snapshot = Snapshot::default();
    while !stop.load(Ordering::Relaxed) {
        snapshot.refresh(&mut feed.lock(), app.is_frozen(), now());
        terminal.draw(|frame| app.draw(frame, &snapshot))?;
        let mut wait = FRAME;
        // A burst of keys (paste, auto-repeat) is taken in one go, and a key is answered at once.
        for _ in 0..MAX_BURST {
            let Some(key) = keys.next(wait)? else { break };
            wait = Duration::ZERO;
            match app.update(key) {
                Action::Ask(request) => ask(request),
                Action::Draw => {}
                Action::Quit => return Ok(Exit::Quit),
            }
        }
    }
    Ok(Exit::Stopped)
}

/// The keys, read on a thread of their own: crossterm 0.29 never returns from reading a terminal that was closed
/// (`UnixInternalEventSource::try_read` reads on at its end), and that must not keep the session from ending.
struct Keys {
    pressed: Receiver<io::Result<KeyEvent>>,
    done: Arc<AtomicBool>,
}

impl Keys {
    fn start() -> io::Result<Self> {
        let (sender, pressed) = sync_channel(MAX_BURST);
        let done = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&done);
        thread::Builder::new().name("dnspath-keys".into()).spawn(move || read_keys(&sender, &until))?;
        Ok(Self { pressed, done })
    }

    /// The next key, if one is pressed within `wait`.
    fn next(&self, wait: Duration) -> io::Result<Option<KeyEvent>> {
        match self.pressed.recv_timeout(wait) {
            Ok(key) => key.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("the terminal cannot be read any more"))
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        // What is typed from now on is the shell's. A thread that does not end is left to the end of the process.
        while self.pressed.recv_timeout(2 * FRAME).is_ok() {}
    }
}

fn read_keys(to: &SyncSender<io::Result<KeyEvent>>, done: &AtomicBool) {
    let next = || if event::poll(FRAME)? { event::read().map(Some) } else { Ok(None) };
    while !done.load(Ordering::Relaxed) {
        let sent = match next() {
            Ok(Some(Event::Key(key))) => to.send(Ok(key)),
            Ok(_) => Ok(()),
            Err(error) => to.send(Err(error)),
        };
        if sent.is_err() {
            return;
        }
    }
}
