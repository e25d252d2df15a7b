//! Frames out of one capture file.

use super::{
    TraceError,
    input::{Input, MAX_RECORD},
    pcap,
};
use crate::model::{Frame, Timestamp, Vantage, VantageId, Vantages};
use std::path::Path;

/// A frame as its file describes it, before its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Captured octets.
    pub(super) len: usize,
    /// Octets on the wire.
    pub(super) original_len: u32,
    /// When.
    pub(super) time: Timestamp,
}

/// Reads frames from a pcap file, one after the other, in memory that does not grow with the file.
#[derive(Debug)]
pub struct Reader {
    file: String,
    source: u16,
    input: Input,
    header: pcap::Header,
    vantage: Option<VantageId>,
    /// Octets of the record that the last frame was made of.
    behind: usize,
    frames: u64,
    cut: bool,
}

impl Reader {
    /// Opens a file, or standard input for `-`. `source` is its number among the files of a session.
    ///
    /// # Errors
    /// When it cannot be opened or is no capture file.
    pub fn open(path: &Path, source: u16) -> Result<Self, TraceError> {
        let file = if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() };
        let opened = Input::open(path);
        let mut input = opened.map_err(|source| TraceError::Open { file: file.clone(), source })?;
        let whole = input.fill(pcap::FILE_HEADER_LEN);
        let whole = whole.map_err(|source| TraceError::Read { file: file.clone(), offset: 0, source })?;
        let bytes = input.available();
        if bytes.is_empty() {
            return Err(TraceError::Empty { file });
        }
        let Some(mut header) = bytes.first_chunk::<4>().and_then(|magic| pcap::recognise(*magic)) else {
            let magic = bytes.iter().take(4).copied().collect();
            return Err(TraceError::UnknownFormat { file, magic });
        };
        if let Some(bytes) = bytes.first_chunk() {
            header = header.read(bytes);
        }
        Ok(Self {
            file,
            source,
            input,
            header,
            vantage: None,
            behind: pcap::FILE_HEADER_LEN,
            frames: 0,
            cut: !whole,
        })
    }

    /// The next frame, numbered from 1; `None` at the end of the file, and where it is cut. `vantages` is the
    /// table of the session: the same at each call.
    ///
    /// # Errors
    /// When the file cannot be read on, or is damaged; every frame before has been given.
    pub fn next_frame(&mut self, vantages: &Vantages) -> Result<Option<Frame<'_>>, TraceError> {
        self.input.consume(std::mem::take(&mut self.behind));
        if self.cut || !self.fill(pcap::RECORD_HEADER_LEN)? {
            self.cut |= !self.input.available().is_empty() || self.input.is_cut();
            return Ok(None);
        }
        let Some(header) = self.input.available().first_chunk() else { return Ok(None) };
        let record = self.header.record(header).map_err(|what| self.damaged(what))?;
        if record.len > MAX_RECORD - pcap::RECORD_HEADER_LEN {
            return Err(self.damaged("a frame of more than 16 MiB"));
        }
        let end = pcap::RECORD_HEADER_LEN + record.len;
        if !self.fill(end)? {
            self.cut = true;
            return Ok(None);
        }
        self.behind = end;
        self.frames += 1;
        let vantage = match self.vantage {
            Some(vantage) => vantage,
            None => *self.vantage.insert(vantages.intern(Vantage {
                interface: "if0".into(),
                source: self.source,
                ..Vantage::default()
            })),
        };
        Ok(Some(Frame {
            number: self.frames,
            time: record.time,
            vantage,
            link: self.header.link,
            original_len: record.original_len,
            bytes: self.input.available().get(pcap::RECORD_HEADER_LEN..end).unwrap_or_default(),
            segment_size: 0,
            nat: None,
        }))
    }

    /// Frames that the file itself says were lost while it was written.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        0
    }

    /// Whether the file ended inside a record: it was cut, or is still being written.
    #[must_use]
    pub const fn cut(&self) -> bool {
        self.cut
    }

    fn fill(&mut self, need: usize) -> Result<bool, TraceError> {
        self.input.fill(need).map_err(|source| TraceError::Read {
            file: self.file.clone(),
            offset: self.input.offset(),
            source,
        })
    }

    fn damaged(&self, what: &'static str) -> TraceError {
        TraceError::Damaged {
            file: self.file.clone(),
            offset: self.input.offset(),
            what,
            frames: self.frames,
        }
    }
}
