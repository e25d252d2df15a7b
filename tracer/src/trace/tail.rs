//! Sources that go on: a file that still grows, and standard input whose writer takes its time. What is read on a thread
//! of its own is here, too.
//!
//! Rule: those that go on say `WouldBlock` where nothing is there yet. The decoders of gzip and zstd pass that on and can be read
//! again later, so a record that is not there to its end waits for its rest.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvError, TryRecvError, sync_channel},
    },
    thread,
};

/// Octets that a thread of its own reads in one go, and how many such pieces wait for their reader.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 8;

/// A growing file. Its end is never reached; that it was truncated, replaced or removed is an error.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    path: PathBuf,
    /// Octets read.
    read: u64,
}

impl Tail {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, path: path.to_owned(), read: 0 })
    }

    /// Why nothing more will come, where that is so.
    fn ended(&self) -> io::Result<&'static str> {
        let own = self.file.metadata()?;
        if own.is_file() && own.len() < self.read {
            return Ok("it was truncated while it was followed");
        }
        match self.path.metadata() {
            Ok(now) if (now.dev(), now.ino()) != (own.dev(), own.ino()) => {
                Ok("it was replaced by another file of that name while it was followed")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok("it was removed or renamed while it was followed")
            }
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Read for Tail {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut count = self.file.read(into)?;
        if count == 0 && !into.is_empty() {
            let why = self.ended()?;
            // What was written between the last look at the file and its replacement.
            count = self.file.read(into)?;
            if count == 0 {
                return Err(io::Error::other(why));
            }
        }
        self.read += count as u64;
        Ok(count)
    }
}

/// What is read on a thread of its own: standard input, so that who reads here need not wait, and compressed files, which
/// are decompressed there ahead of who reads here.
#[derive(Debug)]
pub(super) struct Pipe {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    /// Octets of the piece that were given.
    given: usize,
    waits: Arc<AtomicBool>,
}

impl Pipe {
    /// Starts reading, ahead by half a mebibyte at most. While `waits` is set, reading here waits for what is not there yet.
    pub(super) fn start(mut source: impl Read + Send + 'static, waits: Arc<AtomicBool>) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(PIECES);
        thread::Builder::new().name("dnspath-input".into()).spawn(move || {
            loop {
                let mut piece = vec![0; PIECE];
                let read = match source.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read,
                };
                let last = !matches!(read, Ok(1..));
                let sent = sender.send(read.map(|count| {
                    piece.truncate(count);
                    piece
                }));
                if last || sent.is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { pieces, piece: Vec::new(), given: 0, waits })
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.piece.len() {
            let next = if self.waits.load(Ordering::Relaxed) {
                self.pieces.recv().map_err(|RecvError| TryRecvError::Disconnected)
            } else {
                self.pieces.try_recv()
            };
            match next {
                Ok(piece) => (self.piece, self.given) = (piece?, 0),
                Err(TryRecvError::Empty) => return Err(io::ErrorKind::WouldBlock.into()),
                // The thread has ended: so has what it read.
                Err(TryRecvError::Disconnected) => return Ok(0),
            }
        }
        let count = self.piece.get(self.given..).unwrap_or_default().read(into)?;
        self.given += count;
        Ok(count)
    }
}
