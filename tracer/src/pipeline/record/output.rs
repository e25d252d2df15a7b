//! Where a recording goes: one file, the newest few of a rotation, or stdout; plain or zstd; on a thread of its own.
//!
//! Rule: the reading thread never waits for a disk while there is room for what it gives: [`QUEUE`] pieces. Beyond
//! that it waits, and what is lost meanwhile is lost in the ring, where it is counted.

use crate::cli::options::RecordOptions;
use anyhow::{Context, bail};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
};

/// Pieces (of 256 KiB) that wait for the disk: 8 MiB, a fifth of a second at 250,000 packets a second.
const QUEUE: usize = 32;
/// zstd's fastest ordinary level: a third of the size of DNS traffic, at some 400 MB/s.
const ZSTD_LEVEL: i32 = 1;

/// A place to record to, opened but not written yet.
pub(super) struct Output {
    options: RecordOptions,
    target: Target,
}

/// Hands pieces over to the thread that writes them.
pub(super) struct Handoff {
    jobs: Option<SyncSender<Job>>,
    free: Receiver<Vec<u8>>,
    /// Files begun, as asked for here; the thread may be behind.
    files: u32,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the writing thread tells.
#[derive(Default)]
struct Shared {
    /// Octets in the file that is being written.
    octets: AtomicU64,
    /// Octets of the files before it.
    octets_before: AtomicU64,
    /// Files begun after the first.
    rotations: AtomicU32,
    has_failed: AtomicBool,
    failure: Mutex<Option<anyhow::Error>>,
}

enum Job {
    /// Whole blocks.
    Write(Vec<u8>),
    /// What was written so far is to be readable.
    Flush,
    /// What follows belongs into the next file.
    Rotate,
}

enum Target {
    Plain(Sink),
    Zstd(Box<zstd::stream::write::Encoder<'static, Sink>>),
}

/// What octets end up in, and how many did.
struct Sink {
    to: To,
    octets: u64,
}

enum To {
    File(File, PathBuf),
    /// A device or a pipe with a name.
    Stream(File, PathBuf),
    Stdout,
}

impl Output {
    /// Opens it.
    ///
    /// # Errors
    /// When it is there already, cannot be written, or is a terminal.
    pub(super) fn open(options: &RecordOptions) -> anyhow::Result<Self> {
        Ok(Self { options: options.clone(), target: open(options, 1)? })
    }

    /// Starts the thread that writes. It keeps the privileges that the calling thread has now for files alone.
    pub(super) fn start(self) -> anyhow::Result<Handoff> {
        let (jobs, todo) = mpsc::sync_channel(QUEUE);
        let (give_back, free) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("dnspath-writer".into())
            .spawn(move || {
                // Refused where there was none to keep: then a file that cannot be opened says so.
                let _ = crate::capture::drop_all_but_files();
                self.run(&todo, &give_back, &writing);
            })
            .context("cannot start the writing thread")?;
        Ok(Handoff { jobs: Some(jobs), free, files: 1, shared, thread: Some(thread) })
    }

    fn run(mut self, todo: &Receiver<Job>, give_back: &Sender<Vec<u8>>, shared: &Shared) {
        let mut kept = VecDeque::from([1_u32]);
        while let Ok(job) = todo.recv() {
            if shared.has_failed.load(Ordering::Relaxed) {
                continue;
            }
            let done = match job {
                Job::Write(mut piece) => {
                    let written = self.target.write(&piece);
                    piece.clear();
                    // The other side may be gone already.
                    let _ = give_back.send(piece);
                    written
                }
                Job::Flush => self.target.flush(),
                Job::Rotate => self.rotate(&mut kept, shared),
            };
            shared.octets.store(self.target.sink().octets, Ordering::Relaxed);
            if let Err(error) = done {
                shared.fail(error);
            }
        }
        if !shared.has_failed.load(Ordering::Relaxed) {
            match self.target.finish() {
                Ok(octets) => shared.octets.store(octets, Ordering::Relaxed),
                Err(error) => shared.fail(error),
            }
        }
    }

    fn rotate(&mut self, kept: &mut VecDeque<u32>, shared: &Shared) -> anyhow::Result<()> {
        let number = kept.back().map_or(1, |last| last + 1);
        let next = open(&self.options, number)?;
        let finished = std::mem::replace(&mut self.target, next).finish()?;
        shared.octets_before.fetch_add(finished, Ordering::Relaxed);
        shared.octets.store(0, Ordering::Relaxed);
        shared.rotations.fetch_add(1, Ordering::Release);
        kept.push_back(number);
        while kept.len() > self.options.files as usize
            && let Some(oldest) = kept.pop_front()
        {
            let path = file_name(&self.options, oldest);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| {
                        format!("cannot remove {}, the oldest of the rotation", path.display())
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Handoff {
    /// Octets in the file that is being written, as far as they got there.
    pub(super) fn octets(&self) -> u64 {
        let is_behind = self.shared.rotations.load(Ordering::Acquire) + 1 < self.files;
        if is_behind { 0 } else { self.shared.octets.load(Ordering::Relaxed) }
    }

    /// Octets of all files so far.
    pub(super) fn all_octets(&self) -> u64 {
        self.shared.octets_before.load(Ordering::Relaxed) + self.shared.octets.load(Ordering::Relaxed)
    }

    /// What comes next belongs into the next file.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        self.files += 1;
        self.send(Job::Rotate)
    }

    /// Waits until everything is written; gives how many octets that were.
    ///
    /// # Errors
    /// What kept the thread from writing.
    pub(super) fn finish(mut self) -> anyhow::Result<u64> {
        self.join();
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or_else(|| Ok(self.all_octets()), Err)
    }

    fn join(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::WriteZero);
        if self.shared.has_failed.load(Ordering::Relaxed) {
            return Err(gone());
        }
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())
    }
}

impl Write for Handoff {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut piece = self.free.try_recv().unwrap_or_default();
        piece.extend_from_slice(bytes);
        self.send(Job::Write(piece))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send(Job::Flush)
    }
}

impl Drop for Handoff {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn fail(&self, error: anyhow::Error) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.has_failed.store(true, Ordering::Relaxed);
    }
}

impl Target {
    fn write(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        let written = match self {
            Self::Plain(sink) => sink.write_whole(piece),
            Self::Zstd(encoder) => encoder.write_all(piece),
        };
        written.with_context(|| self.sink().cannot_write())
    }

    /// What was written is in the hands of the kernel: a process that is killed takes nothing with it. It is not on
    /// the disk by then, which a node that loses its power shows.
    fn flush(&mut self) -> anyhow::Result<()> {
        let flushed = match self {
            Self::Plain(_) => Ok(()),
            Self::Zstd(encoder) => encoder.flush(),
        };
        flushed.with_context(|| self.sink().cannot_write())
    }

    fn finish(self) -> anyhow::Result<u64> {
        let what = self.sink().cannot_write();
        let finished = match self {
            Self::Plain(sink) => Ok(sink),
            Self::Zstd(encoder) => encoder.finish(),
        };
        finished.and_then(Sink::finish).context(what)
    }

    fn sink(&self) -> &Sink {
        match self {
            Self::Plain(sink) => sink,
            Self::Zstd(encoder) => encoder.get_ref(),
        }
    }
}

impl Sink {
    /// Writes whole blocks. Where that fails in the middle, the file ends before them: nothing of it is damaged.
    fn write_whole(&mut self, blocks: &[u8]) -> io::Result<()> {
        let before = self.octets;
        let written = self.write_all(blocks);
        if written.is_err()
            && let To::File(file, _) = &self.to
            // Else the file ends inside a block, which readers tell and take.
            && file.set_len(before).is_ok()
        {
            self.octets = before;
        }
        written
    }

    /// Ends it; gives how many octets it has.
    fn finish(self) -> io::Result<u64> {
        match self.to {
            // Some file systems tell of a full disk only now.
            To::File(file, _) => file.sync_all()?,
            To::Stream(..) => {}
            To::Stdout => io::stdout().flush()?,
        }
        Ok(self.octets)
    }

    fn cannot_write(&self) -> String {
        match &self.to {
            To::File(_, path) => {
                format!(
                    "cannot write {}: what is in it stays readable; make room, or record elsewhere",
                    path.display()
                )
            }
            To::Stream(_, path) => format!("cannot write to {}", path.display()),
            To::Stdout => "cannot write the recording to stdout".into(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::File(file, _) | To::Stream(file, _) => file.write(bytes),
            To::Stdout => io::stdout().write(bytes),
        }?;
        self.octets += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.to {
            To::File(..) | To::Stream(..) => Ok(()),
            To::Stdout => io::stdout().flush(),
        }
    }
}

fn open(options: &RecordOptions, number: u32) -> anyhow::Result<Target> {
    let to = if options.path.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            bail!("cannot record to a terminal; name a file with -w, or send stdout to one or to a program");
        }
        To::Stdout
    } else {
        let path = file_name(options, number);
        let cannot = || format!("cannot record to {}: give a path that can be written", path.display());
        let is_stream = fs::metadata(&path).is_ok_and(|there| !there.is_file() && !there.is_dir());
        let mut how = OpenOptions::new();
        how.write(true);
        if is_stream {
            To::Stream(how.open(&path).with_context(cannot)?, path)
        } else {
            if options.force {
                how.create(true).truncate(true)
            } else {
                how.create_new(true)
            };
            match how.open(&path) {
                Ok(file) => To::File(file, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
                    "cannot record to {}: it is there already; give another name, or --force to replace it",
                    path.display()
                ),
                Err(error) => return Err(error).with_context(cannot),
            }
        }
    };
    let sink = Sink { to, octets: 0 };
    Ok(if options.is_compressed() {
        let encoder = zstd::stream::write::Encoder::new(sink, ZSTD_LEVEL).context("cannot compress")?;
        Target::Zstd(Box::new(encoder))
    } else {
        Target::Plain(sink)
    })
}

/// `trace.pcapng.zst`, or in a rotation `trace-00001.pcapng.zst`.
pub(super) fn file_name(options: &RecordOptions, number: u32) -> PathBuf {
    let path: &Path = &options.path;
    let Some(name) = path.file_name().filter(|_| options.files > 1) else { return path.to_path_buf() };
    let name = name.to_string_lossy();
    // A name may begin with a dot.
    let stem = name.get(1..).and_then(|rest| rest.find('.')).map_or(name.len(), |dot| dot + 1);
    let (stem, extension) = name.split_at_checked(stem).unwrap_or((&name, ""));
    path.with_file_name(format!("{stem}-{number:05}{extension}"))
}
