//! The fields and options of one pcapng block.
//!
//! Rule: whatever a length in the file says, only what is in the block is read.

use super::{link, note::PREFIX, ticks::Clock};
use crate::model::{Direction, LinkType};
use std::{net::IpAddr, ops::Range};

mod option {
    pub(super) const COMMENT: u16 = 1;
    pub(super) const SHB_HARDWARE: u16 = 2;
    pub(super) const SHB_OS: u16 = 3;
    pub(super) const SHB_USERAPPL: u16 = 4;
    pub(super) const IF_NAME: u16 = 2;
    pub(super) const IF_DESCRIPTION: u16 = 3;
    pub(super) const IF_TSRESOL: u16 = 9;
    pub(super) const IF_TSOFFSET: u16 = 14;
    pub(super) const EPB_FLAGS: u16 = 2;
    pub(super) const EPB_DROPCOUNT: u16 = 4;
    pub(super) const ISB_STARTTIME: u16 = 2;
    pub(super) const ISB_ENDTIME: u16 = 3;
    pub(super) const ISB_IFDROP: u16 = 5;
    pub(super) const ISB_OSDROP: u16 = 7;
}

const TOO_SHORT: &str = "a block shorter than its fields";

/// A block without its last word; `body` starts with the block's type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) big_endian: bool,
    pub(super) bytes: &'a [u8],
}

/// A section header block's options; empty where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SectionHeader<'a> {
    pub(super) hardware: &'a [u8],
    pub(super) system: &'a [u8],
    pub(super) application: &'a [u8],
    pub(super) comment: &'a [u8],
}

/// An interface description block.
#[derive(Clone, Copy, Debug)]
pub(super) struct InterfaceDescription<'a> {
    pub(super) link: LinkType,
    pub(super) snap_len: u32,
    pub(super) clock: Clock,
    pub(super) name: Option<&'a [u8]>,
    pub(super) description: Option<&'a [u8]>,
}

/// A packet block; the ranges are places in the block.
#[derive(Clone, Debug)]
pub(super) struct RawPacket {
    pub(super) interface: usize,
    pub(super) ticks: Option<u64>,
    pub(super) original_len: u32,
    pub(super) data: Range<usize>,
    pub(super) direction: Direction,
    pub(super) dropped: u64,
    /// The last comment, and the last one that dnspath wrote.
    pub(super) comment: Option<Range<usize>>,
    pub(super) note: Option<Range<usize>>,
}

/// An interface statistics block.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawStatistics<'a> {
    pub(super) interface: usize,
    pub(super) dropped: u64,
    /// In ticks of the interface.
    pub(super) started: Option<u64>,
    pub(super) ended: Option<u64>,
    pub(super) comment: Option<&'a [u8]>,
}

impl<'a> Block<'a> {
    /// Byte order, version, length of the section, options.
    pub(super) fn section_header(self) -> SectionHeader<'a> {
        let mut header = SectionHeader::default();
        self.options(24, |code, range| {
            let value = self.value(range);
            match code {
                option::COMMENT => header.comment = value,
                option::SHB_HARDWARE => header.hardware = value,
                option::SHB_OS => header.system = value,
                option::SHB_USERAPPL => header.application = value,
                _ => {}
            }
        });
        header
    }

    /// Link type, reserved, snap length, options.
    pub(super) fn interface(self) -> Result<InterfaceDescription<'a>, &'static str> {
        let link = self.bytes.get(8..).and_then(|b| b.first_chunk()).ok_or(TOO_SHORT)?;
        let mut interface = InterfaceDescription {
            link: link::from_linktype(self.half(*link)),
            snap_len: self.u32(12)?,
            clock: Clock::default(),
            name: None,
            description: None,
        };
        self.options(16, |code, range| {
            let value = self.value(range);
            match code {
                option::IF_NAME => interface.name = Some(value),
                option::IF_DESCRIPTION => interface.description = Some(value),
                option::IF_TSRESOL => {
                    if let Some(&resolution) = value.first() {
                        interface.clock.set_resolution(resolution);
                    }
                }
                option::IF_TSOFFSET => {
                    if let Some(&seconds) = value.first_chunk() {
                        interface.clock.set_offset(self.long(seconds).cast_signed());
                    }
                }
                _ => {}
            }
        });
        Ok(interface)
    }

    /// Interface, time, captured and original length, data, options.
    pub(super) fn enhanced_packet(self, obsolete: bool) -> Result<RawPacket, &'static str> {
        let word = self.u32(8)?;
        let (interface, mut dropped) = if !obsolete {
            (word, 0)
        } else {
            let first = if self.big_endian { word >> 16 } else { word & 0xffff };
            let second = if self.big_endian { word & 0xffff } else { word >> 16 };
            // 65535: not known.
            (first, if second == 0xffff { 0 } else { u64::from(second) })
        };
        let ticks = u64::from(self.u32(12)?) << 32 | u64::from(self.u32(16)?);
        let captured = self.u32(20)? as usize;
        let original_len = self.u32(24)?;
        let data = 28..28 + captured;
        if data.end > self.bytes.len() {
            return Err("a packet longer than its block");
        }
        let (mut direction, mut comment, mut note) = (Direction::Unknown, None, None);
        self.options(data.end.next_multiple_of(4), |code, range| {
            let value = self.value(range.clone());
            match code {
                option::COMMENT => {
                    if value.starts_with(PREFIX.as_bytes()) {
                        note = Some(range.clone());
                    }
                    comment = Some(range);
                }
                option::EPB_FLAGS => {
                    direction = match value.first_chunk().map(|&flags| self.word(flags) & 3) {
                        Some(1) => Direction::Ingress,
                        Some(2) => Direction::Egress,
                        _ => Direction::Unknown,
                    };
                }
                option::EPB_DROPCOUNT if !obsolete => {
                    dropped = value.first_chunk().map_or(0, |&count| self.long(count));
                }
                _ => {}
            }
        });
        Ok(RawPacket {
            interface: interface as usize,
            ticks: Some(ticks),
            original_len,
            data,
            direction,
            dropped,
            comment,
            note,
        })
    }

    /// Original length and data: it was captured on interface 0, at a time not said. `snap_len` is that
    /// interface's, 0 for none.
    pub(super) fn simple_packet(self, snap_len: u32) -> Result<RawPacket, &'static str> {
        let original_len = self.u32(8)?;
        let snap_len = if snap_len == 0 { u32::MAX } else { snap_len };
        let captured = original_len.min(snap_len) as usize;
        Ok(RawPacket {
            interface: 0,
            ticks: None,
            original_len,
            data: 12..self.bytes.len().min(12 + captured),
            direction: Direction::Unknown,
            dropped: 0,
            comment: None,
            note: None,
        })
    }

    /// Interface, time, options.
    pub(super) fn statistics(self) -> Result<RawStatistics<'a>, &'static str> {
        let mut statistics = RawStatistics {
            interface: self.u32(8)? as usize,
            dropped: 0,
            started: None,
            ended: None,
            comment: None,
        };
        self.options(20, |code, range| {
            let value = self.value(range);
            match code {
                option::COMMENT => statistics.comment = Some(value),
                option::ISB_STARTTIME => statistics.started = self.ticks(value),
                option::ISB_ENDTIME => statistics.ended = self.ticks(value),
                option::ISB_IFDROP | option::ISB_OSDROP => {
                    if let Some(&count) = value.first_chunk() {
                        statistics.dropped = statistics.dropped.saturating_add(self.long(count));
                    }
                }
                _ => {}
            }
        });
        Ok(statistics)
    }

    /// Goes over the records of a name resolution block, an address with each of its names, and gives its comments.
    pub(super) fn names(self, mut each: impl FnMut(IpAddr, &'a [u8])) -> Vec<&'a [u8]> {
        let end = self.options(8, |kind, range| {
            let value = self.value(range);
            let (address, names) = match kind {
                1 => match value.split_first_chunk::<4>() {
                    Some((&octets, names)) => (IpAddr::from(octets), names),
                    None => return,
                },
                2 => match value.split_first_chunk::<16>() {
                    Some((&octets, names)) => (IpAddr::from(octets), names),
                    None => return,
                },
                _ => return,
            };
            for name in names.split(|&octet| octet == 0).filter(|name| !name.is_empty()) {
                each(address, name);
            }
        });
        let mut comments = Vec::new();
        self.options(end + 4, |code, range| {
            if code == option::COMMENT {
                comments.push(self.value(range));
            }
        });
        comments
    }

    /// Goes over the options (or records, which look the same) from `position`, as far as they are whole; gives where
    /// they end.
    fn options(self, mut position: usize, mut each: impl FnMut(u16, Range<usize>)) -> usize {
        while let Some(&[c0, c1, l0, l1]) =
            self.bytes.get(position..).and_then(|rest| rest.first_chunk::<4>())
        {
            let code = self.half([c0, c1]);
            let range = position + 4..position + 4 + usize::from(self.half([l0, l1]));
            if code == 0 || range.end > self.bytes.len() {
                break;
            }
            position = range.end.next_multiple_of(4);
            each(code, range);
        }
        position
    }

    fn value(self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// A time: the high half comes first in either byte order.
    fn ticks(self, value: &[u8]) -> Option<u64> {
        let (&high, low) = value.split_first_chunk()?;
        Some(u64::from(self.word(high)) << 32 | u64::from(self.word(*low.first_chunk()?)))
    }

    /// The word at `position`.
    pub(super) fn u32(self, position: usize) -> Result<u32, &'static str> {
        let word = self.bytes.get(position..).and_then(|rest| rest.first_chunk());
        word.map(|&word| self.word(word)).ok_or(TOO_SHORT)
    }

    const fn word(self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    const fn half(self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    const fn long(self, bytes: [u8; 8]) -> u64 {
        if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
    }
}
