//! A window that moves over a file's uncompressed octets.
//!
//! Rule: a record is parsed where it lies in the window, and the window does not grow with the file: it holds one
//! record of bounded size, and whatever one read gave beside it.

use super::tail::{Pipe, Tail};
use std::{
    fs::File,
    io::{self, BufReader, Chain, Cursor, Read},
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Octets of the window to start with: some hundred frames a read.
const WINDOW: usize = 256 * 1024;
/// The largest record that is read; Wireshark's own limit for a frame is 256 KiB.
pub(super) const MAX_RECORD: usize = 16 * 1024 * 1024;
/// Magic of gzip (RFC 1952 section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Magic of a zstd frame (RFC 8878 section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

type Raw = Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>;

/// The window.
pub(super) struct Input {
    read: Box<dyn Read + Send>,
    is_compressed: bool,
    window: Vec<u8>,
    /// What of the window holds octets not consumed yet.
    filled: Range<usize>,
    /// Octets consumed.
    offset: u64,
    ended: bool,
    /// A compressed file ended inside its stream.
    cut: bool,
    /// What was asked for last is not there yet.
    waiting: bool,
}

impl Input {
    /// Opens a file, or standard input for `-`; gzip and zstd are told by their magic.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let raw: Box<dyn Read + Send> =
            if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
        let mut input = Self::new(raw)?;
        if input.is_compressed {
            let decoder = std::mem::replace(&mut input.read, Box::new(io::empty()));
            input.read = Box::new(Pipe::start(decoder, Arc::new(AtomicBool::new(true)))?);
        }
        Ok(input)
    }

    /// Opens a file that still grows, or standard input for `-`, so that reading never waits for more: see
    /// [`Self::is_waiting`]. Opening standard input waits for its first octets.
    pub(super) fn follow(path: &Path) -> io::Result<Self> {
        if path.as_os_str() != "-" {
            return Self::new(Box::new(Tail::open(path)?));
        }
        let opening = Arc::new(AtomicBool::new(true));
        let mut input = Self::new(Box::new(Pipe::start(io::stdin(), Arc::clone(&opening))?))?;
        input.fill(1)?;
        opening.store(false, Ordering::Relaxed);
        Ok(input)
    }

    fn new(mut raw: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(ZSTD.len());
        raw.by_ref().take(ZSTD.len() as u64).read_to_end(&mut magic)?;
        let gzip = magic.starts_with(&GZIP);
        let zstd = magic.starts_with(&ZSTD);
        let whole: Raw = Cursor::new(magic).chain(raw);
        let read: Box<dyn Read + Send> = if gzip {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(WINDOW, whole)))
        } else if zstd {
            Box::new(zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(WINDOW, whole))?)
        } else {
            Box::new(whole)
        };
        Ok(Self {
            read,
            is_compressed: gzip || zstd,
            window: vec![0; WINDOW],
            filled: 0..0,
            offset: 0,
            ended: false,
            cut: false,
            waiting: false,
        })
    }

    /// Makes at least `need` octets available, `need` up to [`MAX_RECORD`]; `false` where the file ends before.
    #[inline]
    pub(super) fn fill(&mut self, need: usize) -> io::Result<bool> {
        if self.filled.len() >= need { Ok(true) } else { self.fill_slowly(need) }
    }

    #[cold]
    fn fill_slowly(&mut self, need: usize) -> io::Result<bool> {
        if need > self.window.len() - self.filled.start {
            self.window.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
            if need > self.window.len() {
                self.window.resize(need.min(MAX_RECORD), 0);
            }
        }
        self.waiting = false;
        while self.filled.len() < need && !self.ended {
            let Some(free) = self.window.get_mut(self.filled.end..).filter(|free| !free.is_empty()) else {
                break;
            };
            match self.read.read(free) {
                Ok(0) => self.ended = true,
                Ok(count) => self.filled.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.waiting = true;
                    break;
                }
                // A compressed file that was cut: what was decompressed before counts.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    (self.ended, self.cut) = (true, true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.filled.len() >= need)
    }

    /// What is available, from the first octet not consumed.
    #[inline]
    pub(super) fn available(&self) -> &[u8] {
        self.window.get(self.filled.clone()).unwrap_or_default()
    }

    /// Moves past `count` octets that are available.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.filled.len());
        self.filled.start += count;
        self.offset += count as u64;
    }

    /// Octets consumed so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether what was asked for last is not there yet, and may still come.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Whether the file ended inside a compressed stream.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("offset", &self.offset)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}
