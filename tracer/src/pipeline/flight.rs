//! Saving what the flight recorder holds, while the session goes on.
//!
//! The reading thread hands over handles and reads on; a thread that has no privilege puts the file together; a third
//! one, started before privileges were dropped, keeps the one to create files and sees no packet: as root by `sudo` in
//! somebody else's directory nothing could be created otherwise.

use crate::{
    capture,
    model::{News, Timestamp, Vantages},
    trace::{FlightRecorder, Held, Origin, Statistics, Writer},
    tui::SharedFeed,
};
use anyhow::Context as _;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// Files of one second that are told apart by a number.
const MOST_A_SECOND: u32 = 9;

/// A live session's flight recorder.
pub(super) struct Flight {
    pub(super) recorder: FlightRecorder,
    create: Sender<Create>,
    asked: Arc<AtomicBool>,
    saving: Arc<AtomicBool>,
    node: String,
    session: Session,
    feed: SharedFeed,
}

/// What a file says of its session.
#[derive(Clone)]
struct Session {
    origin: Origin,
    vantages: Vantages,
}

/// A file to be created: its name without `.pcapng`, and where to give it.
struct Create(String, Sender<io::Result<(File, String)>>);

impl Flight {
    /// Starts the thread that creates files; it keeps this one's access to directories.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start(
        octets: u64,
        node: &str,
        origin: Origin,
        vantages: Vantages,
        feed: SharedFeed,
    ) -> anyhow::Result<Self> {
        let (create, wanted) = channel();
        thread::Builder::new()
            .name("dnspath-files".into())
            .spawn(move || {
                // Refused where there was none to keep: then a file that cannot be created says so.
                let _ = capture::drop_all_but_files();
                create_files(&wanted);
            })
            .context("cannot start the thread of the flight recorder")?;
        Ok(Self {
            recorder: FlightRecorder::new(octets),
            create,
            asked: Arc::default(),
            saving: Arc::default(),
            node: node.to_owned(),
            session: Session { origin, vantages },
            feed,
        })
    }

    /// What is set to ask for a file.
    pub(super) fn ask(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Starts to save if somebody asked, `lost` being the frames that the session lost so far and `known` what it knows of
    /// the node; what comes of it is said on the screen.
    pub(super) fn save_if_asked(&mut self, now: Timestamp, lost: u64, known: impl FnOnce() -> Vec<News>) {
        if !self.asked.swap(false, Ordering::Relaxed) {
            return;
        }
        let feed = self.feed.clone();
        let say = |text: String| feed.lock().status_mut().say(text);
        if self.saving.swap(true, Ordering::Relaxed) {
            say("the last file is still being written".to_owned());
            return;
        }
        let held = self.recorder.hold();
        if held.frames() == 0 {
            self.saving.store(false, Ordering::Relaxed);
            say("no packet to save so far".to_owned());
            return;
        }
        let stem = format!("dnspath-{}-{}", file_part(&self.node), compact(now));
        let (create, saving, session) = (self.create.clone(), Arc::clone(&self.saving), self.session.clone());
        say(format!("saving {} packets", held.frames()));
        let known = known();
        let saver = thread::Builder::new().name("dnspath-save".into()).spawn({
            let (saving, feed) = (Arc::clone(&saving), feed.clone());
            move || {
                let told = save(held, &known, stem, &session, lost, &create);
                let text = told.unwrap_or_else(|error| format!("{error:#}"));
                feed.lock().status_mut().say(text);
                saving.store(false, Ordering::Relaxed);
            }
        });
        if let Err(error) = saver {
            saving.store(false, Ordering::Relaxed);
            feed.lock().status_mut().say(format!("cannot save: no thread can be started: {error}"));
        }
    }
}

fn create_files(wanted: &Receiver<Create>) {
    while let Ok(Create(stem, to)) = wanted.recv() {
        // Who asked may be gone.
        let _ = to.send(create_new(&stem));
    }
}

/// A new file in the current directory, for its owner alone.
fn create_new(stem: &str) -> io::Result<(File, String)> {
    let mut number = 1;
    loop {
        let more = if number > 1 { format!("-{number}") } else { String::new() };
        let name = format!("{stem}{more}.pcapng");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST_A_SECOND => {
                number += 1;
            }
            opened => return opened.map(|file| (file, name)),
        }
    }
}

/// Writes the file; what is to be said of it.
fn save(
    held: Held,
    known: &[News],
    stem: String,
    session: &Session,
    lost: u64,
    create: &Sender<Create>,
) -> anyhow::Result<String> {
    let directory =
        std::env::current_dir().map_or_else(|_| ".".to_owned(), |path| path.display().to_string());
    let cannot = || {
        format!("cannot save {stem}.pcapng in {directory}; start dnspath in a directory that it can write to")
    };
    let (to, created) = channel();
    let asked = create.send(Create(stem.clone(), to)).map_err(io::Error::other);
    let (file, name) = asked
        .and_then(|()| created.recv().map_err(io::Error::other))
        .and_then(|created| created)
        .with_context(cannot)?;
    let (first, last) = held.span().unwrap_or_default();
    let missed = held.missed();
    let write = || -> io::Result<(u64, u64)> {
        let mut writer = Writer::new(file, &session.origin)?;
        writer.news(None, known)?;
        held.write(&mut writer, &session.vantages)?;
        let statistics = Statistics {
            started: first,
            until: last,
            lost: vec![(None, lost + missed)],
            ended: true,
            ..Statistics::default()
        };
        writer.statistics(&statistics, &session.vantages)?;
        writer.flush()?;
        let (frames, octets) = (writer.frames(), writer.octets());
        writer.finish()?.flush()?;
        Ok((frames, octets))
    };
    let (frames, octets) = write()
        .with_context(|| format!("cannot write {name}: what is in it so far can be read; make room there"))?;
    let missing = if missed > 0 { format!(", {missed} missing") } else { String::new() };
    Ok(format!("saved {name}: {frames} packets{missing}, {}, {}", span(first, last), size(octets)))
}

fn span(first: Timestamp, last: Timestamp) -> String {
    let seconds = last.since(first).as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

fn size(octets: u64) -> String {
    match octets {
        0..100_000 => format!("{:.1} kB", octets as f64 / 1e3),
        _ => format!("{:.1} MB", octets as f64 / 1e6),
    }
}

/// A node's name as a part of a file's name.
fn file_part(node: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    node.chars().take(64).map(harmless).collect()
}

/// `20261121T150102Z`.
fn compact(time: Timestamp) -> String {
    let whole = time.to_string();
    let seconds = whole.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn names_are_harmless_and_times_compact() {
        assert_eq!(file_part("node-7.example/../x y"), "node-7.example_.._x_y");
        assert_eq!(compact(Timestamp::from_nanos(1_795_176_000_412_000_000)), "20261120T120000Z");
    }

    #[test]
    fn a_file_is_new_and_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let stem = directory.path().join("dnspath-x").display().to_string();
        for expected in ["", "-2", "-3"] {
            let (_, name) = create_new(&stem).unwrap();
            assert_eq!(name, format!("{stem}{expected}.pcapng"));
            assert_eq!(fs::metadata(&name).unwrap().permissions().mode() & 0o777, 0o600);
        }
        for _ in 0..6 {
            create_new(&stem).unwrap();
        }
        assert_eq!(create_new(&stem).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
