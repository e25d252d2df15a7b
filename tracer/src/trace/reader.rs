//! Frames out of one capture file.

use super::{
    Note, Origin, Recorded, Told, TraceError,
    input::{Input, MAX_RECORD},
    pcap,
    pcapng::{self, Section},
};
use crate::model::{Frame, LinkType, Timestamp, Vantage, VantageId, Vantages};
use std::{io, ops::Range, path::Path};

/// A frame, and what its file says of it beside.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The frame.
    pub frame: Frame<'a>,
    /// Its comment, as it is in the file: not escaped, and of any content. The last one where there are several.
    pub comment: Option<&'a [u8]>,
}

/// Reads frames from a pcap or pcapng file, plain or compressed with gzip or zstd, one after the other, in memory
/// that does not grow with the file.
#[derive(Debug)]
pub struct Reader {
    file: String,
    source: u16,
    input: Input,
    format: Format,
    /// Octets to pass over before the next record: those of the one before.
    behind: usize,
    /// The frame that was moved on to, where `loaded` says so; filled in place.
    head: Head,
    loaded: bool,
    frames: u64,
    ended: bool,
    cut: bool,
}

#[derive(Debug)]
enum Format {
    Pcap(pcap::Header, Option<VantageId>),
    Pcapng(Box<Section>),
}

/// A frame whose octets lie at the start of what the input has available.
#[derive(Clone, Debug, Default)]
struct Head {
    time: Timestamp,
    vantage: VantageId,
    link: LinkType,
    original_len: u32,
    data: Range<usize>,
    comment: Option<Range<usize>>,
    note: Option<Range<usize>>,
}

impl Reader {
    /// Opens a file, or standard input for `-`. `source` is its number among the files of a session.
    ///
    /// # Errors
    /// When it cannot be opened or is no capture file.
    pub fn open(path: &Path, source: u16) -> Result<Self, TraceError> {
        Self::open_as(path, source, Input::open)
    }

    /// Opens a file that still grows, or standard input whose writer takes its time: where the next frame is not there
    /// yet, [`Self::next_frame`] gives none and [`Self::waiting`] says so. Opening standard input waits for its first
    /// octets.
    ///
    /// # Errors
    /// As [`Self::open`]; [`TraceError::Empty`] also where the file's header is not there yet.
    pub fn follow(path: &Path, source: u16) -> Result<Self, TraceError> {
        Self::open_as(path, source, Input::follow)
    }

    fn open_as(
        path: &Path,
        source: u16,
        open: impl Fn(&Path) -> io::Result<Input>,
    ) -> Result<Self, TraceError> {
        let file = if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() };
        match open(path) {
            Ok(input) => Self::new(file, input, source),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(TraceError::Empty { file }),
            Err(source) => Err(TraceError::Open { file, source }),
        }
    }

    fn new(file: String, mut input: Input, source: u16) -> Result<Self, TraceError> {
        if let Err(source) = input.fill(pcap::FILE_HEADER_LEN) {
            return Err(TraceError::Read { file, offset: 0, source });
        }
        let start = input.available();
        if start.is_empty() && !input.is_cut() || input.is_waiting() {
            return Err(TraceError::Empty { file });
        }
        let (mut behind, mut cut) = (0, false);
        let magic = start.first_chunk::<4>();
        let format = if magic.is_some_and(|&magic| Section::recognise(magic)) {
            Format::Pcapng(Box::new(Section::new(source)))
        } else if let Some(header) = magic.and_then(|&magic| pcap::recognise(magic)) {
            behind = pcap::FILE_HEADER_LEN;
            cut = start.len() < behind;
            Format::Pcap(start.first_chunk().map_or(header, |whole| header.read(whole)), None)
        } else if magic.is_none() && input.is_cut() {
            // A compressed file cut before its first block ends.
            cut = true;
            Format::Pcapng(Box::new(Section::new(source)))
        } else {
            let magic = start.iter().take(4).copied().collect();
            return Err(TraceError::UnknownFormat { file, magic });
        };
        Ok(Self {
            file,
            source,
            input,
            format,
            behind,
            head: Head::default(),
            loaded: false,
            frames: 0,
            ended: cut,
            cut,
        })
    }

    /// The next frame, numbered from 1; `None` at the end of the file, and where it is cut. `vantages` is the
    /// table of the session: the same at each call.
    ///
    /// # Errors
    /// When the file cannot be read on, or is damaged; every frame before has been given.
    #[inline]
    pub fn next_frame(&mut self, vantages: &Vantages) -> Result<Option<Frame<'_>>, TraceError> {
        Ok(self.next_record(vantages)?.map(|record| record.frame))
    }

    /// The next frame with its comment; otherwise as [`Self::next_frame`].
    ///
    /// # Errors
    /// As [`Self::next_frame`].
    #[inline]
    pub fn next_record(&mut self, vantages: &Vantages) -> Result<Option<Record<'_>>, TraceError> {
        self.load(vantages)?;
        Ok(self.loaded())
    }

    /// Frames that the file itself says were lost while it was written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.section().map_or(0, Section::lost)
    }

    /// [`Self::lost`] by the interface that lost them, as far as statistics of the section read last tell it.
    #[must_use]
    pub fn lost_by_vantage(&mut self, vantages: &Vantages) -> Vec<(Option<VantageId>, u64)> {
        match &mut self.format {
            Format::Pcap(..) => Vec::new(),
            Format::Pcapng(section) => section.lost_by_vantage(vantages),
        }
    }

    /// What a recording of dnspath says of its session, as far as it was read.
    #[must_use]
    pub fn recorded(&self) -> Option<Recorded> {
        self.section().and_then(Section::recorded)
    }

    /// Who made a recording of dnspath, where and of what; of the section that was read last.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.section().and_then(Section::origin)
    }

    /// The file's name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What was watched, as a recording of dnspath says it; else the file's name.
    #[must_use]
    pub fn sources(&self) -> Vec<String> {
        let said = self.section().and_then(Section::sources);
        said.map_or_else(|| vec![self.file.clone()], <[String]>::to_vec)
    }

    /// What the file tells of the node up to the frame given last, each thing once: it is known before that frame.
    #[must_use]
    pub fn take_told(&mut self) -> Vec<Told> {
        match &mut self.format {
            Format::Pcap(..) => Vec::new(),
            Format::Pcapng(section) => section.take_told(),
        }
    }

    /// Whether [`Self::take_told`] has something.
    pub(super) fn has_told(&self) -> bool {
        self.section().is_some_and(Section::has_told)
    }

    fn section(&self) -> Option<&Section> {
        match &self.format {
            Format::Pcap(..) => None,
            Format::Pcapng(section) => Some(&**section),
        }
    }

    /// Whether the file ended inside a record: it was cut, or is still being written.
    #[must_use]
    pub const fn cut(&self) -> bool {
        self.cut
    }

    /// Whether the next frame is not there yet, and may still come.
    #[must_use]
    pub fn waiting(&self) -> bool {
        !self.loaded && !self.ended
    }

    /// Moves on to the next frame; gives its time.
    pub(super) fn load(&mut self, vantages: &Vantages) -> Result<Option<Timestamp>, TraceError> {
        self.loaded = false;
        if !self.ended {
            // What is behind an error is not looked at again.
            self.ended = true;
            self.loaded = match self.format {
                Format::Pcap(..) => self.load_pcap(vantages)?,
                Format::Pcapng(_) => self.load_pcapng(vantages)?,
            };
            self.ended = !self.loaded && !self.input.is_waiting();
        }
        self.frames += u64::from(self.loaded);
        Ok(self.loaded.then_some(self.head.time))
    }

    /// The frame that was moved on to.
    #[inline]
    pub(super) fn loaded(&self) -> Option<Record<'_>> {
        if !self.loaded {
            return None;
        }
        let head = &self.head;
        let block = self.input.available();
        let bytes = block.get(head.data.clone()).unwrap_or_default();
        let note = head.note.clone().and_then(|range| Note::read(block.get(range)?)).unwrap_or_default();
        Some(Record {
            frame: Frame {
                number: self.frames,
                time: head.time,
                vantage: head.vantage,
                link: head.link,
                original_len: head.original_len.max(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
                bytes,
                segment_size: note.segment_size,
                nat: note.nat,
                drop: note.drop,
            },
            comment: head.comment.clone().and_then(|range| block.get(range)),
        })
    }

    fn load_pcap(&mut self, vantages: &Vantages) -> Result<bool, TraceError> {
        if !self.next_is_there(pcap::RECORD_HEADER_LEN)? {
            return Ok(false);
        }
        let Format::Pcap(header, vantage) = &mut self.format else { return Ok(false) };
        let Some(bytes) = self.input.available().first_chunk() else { return Ok(false) };
        let record = match header.record(bytes) {
            Ok(record) if record.len <= MAX_RECORD - pcap::RECORD_HEADER_LEN => record,
            Ok(_) => return Err(self.damaged("a frame of more than 16 MiB")),
            Err(what) => return Err(self.damaged(what)),
        };
        let (link, source) = (header.link, self.source);
        let vantage = *vantage.get_or_insert_with(|| {
            vantages.intern(Vantage { interface: "if0".into(), source, ..Vantage::default() })
        });
        let end = pcap::RECORD_HEADER_LEN + record.len;
        if !self.rest_is_there(end)? {
            return Ok(false);
        }
        let head = &mut self.head;
        head.time = record.time;
        head.vantage = vantage;
        head.link = link;
        head.original_len = record.original_len;
        head.data = pcap::RECORD_HEADER_LEN..end;
        Ok(true)
    }

    fn load_pcapng(&mut self, vantages: &Vantages) -> Result<bool, TraceError> {
        while self.next_is_there(pcapng::BLOCK_HEADER_LEN)? {
            let Format::Pcapng(section) = &mut self.format else { return Ok(false) };
            let Some(bytes) = self.input.available().first_chunk() else { return Ok(false) };
            let header = match section.header(bytes) {
                Ok(header) if header.len <= MAX_RECORD => header,
                Ok(_) => return Err(self.damaged("a block of more than 16 MiB")),
                Err(what) => return Err(self.damaged(what)),
            };
            if !self.rest_is_there(header.len)? {
                return Ok(false);
            }
            let Format::Pcapng(section) = &mut self.format else { return Ok(false) };
            let block = self.input.available().get(..header.len).unwrap_or_default();
            match section.block(header, block, vantages) {
                Ok(None) => {}
                Ok(Some(packet)) => {
                    self.head = Head {
                        time: packet.time,
                        vantage: packet.vantage,
                        link: packet.link,
                        original_len: packet.original_len,
                        data: packet.data,
                        comment: packet.comment,
                        note: packet.note,
                    };
                    return Ok(true);
                }
                Err(what) => return Err(self.damaged(what)),
            }
        }
        Ok(false)
    }

    /// Moves past the record before; whether `need` octets of another are there.
    fn next_is_there(&mut self, need: usize) -> Result<bool, TraceError> {
        self.input.consume(std::mem::take(&mut self.behind));
        let there = self.input.fill(need).map_err(|error| self.unreadable(error))?;
        if !there {
            let partly = !self.input.available().is_empty() || self.input.is_cut();
            self.cut |= partly && !self.input.is_waiting();
        }
        Ok(there)
    }

    /// Whether a record is there to its end.
    fn rest_is_there(&mut self, end: usize) -> Result<bool, TraceError> {
        let there = self.input.fill(end).map_err(|error| self.unreadable(error))?;
        self.cut |= !there && !self.input.is_waiting();
        if there {
            self.behind = end;
        }
        Ok(there)
    }

    fn unreadable(&self, source: io::Error) -> TraceError {
        TraceError::Read { file: self.file.clone(), offset: self.input.offset(), source }
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
