//! The pcapng format (draft-ietf-opsawg-pcapng): blocks in sections, each section with interfaces of its own.
//!
//! Rule: a block that is not known is passed over; one that contradicts itself ends the reading.

use super::{link, note::Note, vantage};
use crate::model::{Direction, LinkType, Timestamp, Vantage, VantageId, Vantages};
use std::ops::Range;

/// Octets of a block's type, its length, and the first word of its body.
pub(super) const BLOCK_HEADER_LEN: usize = 12;
/// Interfaces of one section; a file that has more is not one that a capture program wrote.
const MAX_INTERFACES: usize = 65_535;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// The obsolete packet block: as an enhanced one, with a 16-bit interface and a count of drops.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

mod option {
    pub(super) const COMMENT: u16 = 1;
    pub(super) const IF_NAME: u16 = 2;
    pub(super) const IF_DESCRIPTION: u16 = 3;
    pub(super) const IF_TSRESOL: u16 = 9;
    pub(super) const IF_TSOFFSET: u16 = 14;
    pub(super) const EPB_FLAGS: u16 = 2;
    pub(super) const EPB_DROPCOUNT: u16 = 4;
    pub(super) const ISB_IFDROP: u16 = 5;
    pub(super) const ISB_OSDROP: u16 = 7;
}

/// One packet block; the ranges are places in the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) time: Timestamp,
    pub(super) vantage: VantageId,
    pub(super) link: LinkType,
    pub(super) original_len: u32,
    pub(super) data: Range<usize>,
    pub(super) comment: Option<Range<usize>>,
    pub(super) note: Option<Note>,
}

/// The section that is being read.
#[derive(Debug)]
pub(super) struct Section {
    source: u16,
    big_endian: bool,
    interfaces: Vec<Interface>,
    last_time: Timestamp,
    /// Drops that the statistics of the sections before tell.
    dropped_before: u64,
    /// Drops that packet blocks tell.
    dropped_between: u64,
}

/// What a block's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    kind: u32,
    pub(super) len: usize,
}

impl Section {
    /// The state before the first section header.
    pub(super) const fn new(source: u16) -> Self {
        Self {
            source,
            big_endian: false,
            interfaces: Vec::new(),
            last_time: Timestamp::EPOCH,
            dropped_before: 0,
            dropped_between: 0,
        }
    }

    /// Whether a file that begins so is pcapng: the section header's type reads the same in either byte order.
    pub(super) const fn recognise(magic: [u8; 4]) -> bool {
        u32::from_be_bytes(magic) == SECTION_HEADER
    }

    /// Reads a block's header; a section header sets the byte order.
    pub(super) fn header(&mut self, bytes: &[u8; BLOCK_HEADER_LEN]) -> Result<BlockHeader, &'static str> {
        let &[k0, k1, k2, k3, l0, l1, l2, l3, m0, m1, m2, m3] = bytes;
        if u32::from_be_bytes([k0, k1, k2, k3]) == SECTION_HEADER {
            self.big_endian = match [m0, m1, m2, m3] {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => return Err("a section header without a byte order"),
            };
        }
        let len = self.word([l0, l1, l2, l3]) as usize;
        if len < BLOCK_HEADER_LEN || !len.is_multiple_of(4) {
            return Err("a block of impossible length");
        }
        Ok(BlockHeader { kind: self.word([k0, k1, k2, k3]), len })
    }

    /// Takes one whole block; gives its packet, where it holds one.
    pub(super) fn block(
        &mut self,
        header: BlockHeader,
        block: &[u8],
        vantages: &Vantages,
    ) -> Result<Option<Packet>, &'static str> {
        let end = header.len - 4;
        if self.u32_at(block, end) != Some(u32::try_from(header.len).unwrap_or(0)) {
            return Err("a block whose two lengths differ");
        }
        let body = Block { section: self, bytes: block.get(..end).unwrap_or_default() };
        match header.kind {
            SECTION_HEADER => {
                self.dropped_before += self.interfaces.iter().map(|interface| interface.dropped).sum::<u64>();
                self.interfaces.clear();
                Ok(None)
            }
            INTERFACE_DESCRIPTION => {
                let interface = body.interface()?;
                if self.interfaces.len() >= MAX_INTERFACES {
                    return Err("more interfaces than any capture has");
                }
                self.interfaces.push(interface);
                Ok(None)
            }
            INTERFACE_STATISTICS => {
                let (index, dropped) = body.statistics()?;
                // Counted from the start of the capture: the last one says it all.
                if let Some(interface) = self.interfaces.get_mut(index) {
                    interface.dropped = interface.dropped.max(dropped);
                }
                Ok(None)
            }
            ENHANCED_PACKET | PACKET | SIMPLE_PACKET => {
                let raw = match header.kind {
                    SIMPLE_PACKET => body.simple_packet(),
                    kind => body.enhanced_packet(kind == PACKET),
                }?;
                self.packet(raw, vantages).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Drops that the file itself tells of. Statistics and packet blocks tell of the same drops.
    pub(super) fn lost(&self) -> u64 {
        let current: u64 = self.interfaces.iter().map(|interface| interface.dropped).sum();
        self.dropped_between.max(self.dropped_before.saturating_add(current))
    }

    fn packet(&mut self, raw: RawPacket, vantages: &Vantages) -> Result<Packet, &'static str> {
        let source = self.source;
        let interface =
            self.interfaces.get_mut(raw.interface).ok_or("a packet of an interface not described")?;
        if let Some(ticks) = raw.ticks {
            self.last_time = interface.clock.time(ticks);
        }
        self.dropped_between = self.dropped_between.saturating_add(raw.dropped);
        Ok(Packet {
            time: self.last_time,
            vantage: interface.vantage(raw.direction, source, vantages),
            link: interface.link,
            original_len: raw.original_len,
            data: raw.data,
            comment: raw.comment,
            note: raw.note,
        })
    }

    fn u32_at(&self, bytes: &[u8], position: usize) -> Option<u32> {
        bytes.get(position..)?.first_chunk().map(|&word| self.word(word))
    }

    const fn word(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    const fn half(&self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    const fn long(&self, bytes: [u8; 8]) -> u64 {
        if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
    }
}

/// An interface description block.
#[derive(Debug)]
struct Interface {
    link: LinkType,
    snap_len: u32,
    clock: Clock,
    vantage: Vantage,
    /// Its vantage in the session's table, for each direction that packets name.
    ids: [Option<VantageId>; 3],
    dropped: u64,
}

impl Interface {
    fn vantage(&mut self, direction: Direction, source: u16, vantages: &Vantages) -> VantageId {
        let [egress, ingress, unknown] = &mut self.ids;
        let id = match direction {
            Direction::Egress => egress,
            Direction::Ingress => ingress,
            Direction::Unknown => unknown,
        };
        *id.get_or_insert_with(|| {
            let mut vantage = Vantage { source, ..self.vantage.clone() };
            if direction != Direction::Unknown {
                vantage.direction = direction;
            }
            vantages.intern(vantage)
        })
    }
}

/// How an interface counts time: `if_tsresol` and `if_tsoffset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    unit: Unit,
    offset_nanos: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A tick is so many nanoseconds.
    Coarse(u64),
    /// So many ticks are a nanosecond.
    Fine(u64),
    /// So many ticks, as a power of two, are a second.
    Binary(u32),
}

impl Default for Clock {
    fn default() -> Self {
        Self { unit: Unit::Coarse(1_000), offset_nanos: 0 }
    }
}

impl Clock {
    fn unit(resolution: u8) -> Unit {
        let exponent = u32::from(resolution & 0x7f);
        if resolution & 0x80 != 0 {
            // Beyond 64 bits every tick is zero seconds.
            Unit::Binary(exponent)
        } else if exponent <= 9 {
            Unit::Coarse(10_u64.pow(9 - exponent))
        } else {
            Unit::Fine(10_u64.checked_pow(exponent - 9).unwrap_or(u64::MAX))
        }
    }

    fn time(self, ticks: u64) -> Timestamp {
        let nanos = match self.unit {
            Unit::Coarse(nanos) => ticks.saturating_mul(nanos),
            Unit::Fine(per_nano) => ticks / per_nano,
            Unit::Binary(exponent) => {
                let nanos = (u128::from(ticks) * 1_000_000_000).checked_shr(exponent).unwrap_or(0);
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
        };
        if self.offset_nanos == 0 {
            return Timestamp::from_nanos(nanos);
        }
        let shifted = (i128::from(nanos) + self.offset_nanos).max(0);
        Timestamp::from_nanos(u64::try_from(shifted).unwrap_or(u64::MAX))
    }
}

/// A packet block before its interface is looked up.
struct RawPacket {
    interface: usize,
    ticks: Option<u64>,
    original_len: u32,
    data: Range<usize>,
    direction: Direction,
    dropped: u64,
    comment: Option<Range<usize>>,
    note: Option<Note>,
}

/// A block without its last word.
struct Block<'a> {
    section: &'a Section,
    bytes: &'a [u8],
}

impl Block<'_> {
    fn u32(&self, position: usize) -> Result<u32, &'static str> {
        self.section.u32_at(self.bytes, position).ok_or("a block shorter than its fields")
    }

    /// Link type, reserved, snap length, options.
    fn interface(&self) -> Result<Interface, &'static str> {
        let link =
            self.bytes.get(8..).and_then(|b| b.first_chunk()).ok_or("a block shorter than its fields")?;
        let snap_len = self.u32(12)?;
        let mut clock = Clock::default();
        let (mut name, mut description) = (None, None);
        self.options(16, |code, range| {
            let value = self.bytes.get(range).unwrap_or_default();
            match code {
                option::IF_NAME => name = Some(value),
                option::IF_DESCRIPTION => description = Some(value),
                option::IF_TSRESOL => {
                    if let Some(&resolution) = value.first() {
                        clock.unit = Clock::unit(resolution);
                    }
                }
                option::IF_TSOFFSET => {
                    if let Some(&seconds) = value.first_chunk() {
                        let seconds = self.section.long(seconds).cast_signed();
                        clock.offset_nanos = i128::from(seconds) * 1_000_000_000;
                    }
                }
                _ => {}
            }
        });
        Ok(Interface {
            link: link::from_linktype(self.section.half(*link)),
            snap_len,
            clock,
            vantage: vantage::read(name, description, self.section.interfaces.len()),
            ids: [None; 3],
            dropped: 0,
        })
    }

    /// Interface, time, captured and original length, data, options.
    fn enhanced_packet(&self, obsolete: bool) -> Result<RawPacket, &'static str> {
        let word = self.u32(8)?;
        let (interface, mut dropped) = if !obsolete {
            (word, 0)
        } else {
            let first = if self.section.big_endian { word >> 16 } else { word & 0xffff };
            let second = if self.section.big_endian { word & 0xffff } else { word >> 16 };
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
            let value = self.bytes.get(range.clone()).unwrap_or_default();
            match code {
                option::COMMENT => {
                    note = Note::read(value).or(note);
                    comment = Some(range);
                }
                option::EPB_FLAGS => {
                    direction = match value.first_chunk().map(|&flags| self.section.word(flags) & 3) {
                        Some(1) => Direction::Ingress,
                        Some(2) => Direction::Egress,
                        _ => Direction::Unknown,
                    };
                }
                option::EPB_DROPCOUNT if !obsolete => {
                    dropped = value.first_chunk().map_or(0, |&count| self.section.long(count));
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

    /// Original length and data: it was captured on interface 0, at a time not said.
    fn simple_packet(&self) -> Result<RawPacket, &'static str> {
        let original_len = self.u32(8)?;
        let snap_len = match self.section.interfaces.first().map_or(0, |interface| interface.snap_len) {
            0 => u32::MAX,
            snap_len => snap_len,
        };
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

    /// Interface, time, options; gives the interface and its drops.
    fn statistics(&self) -> Result<(usize, u64), &'static str> {
        let interface = self.u32(8)? as usize;
        let mut dropped = 0_u64;
        self.options(20, |code, range| {
            if matches!(code, option::ISB_IFDROP | option::ISB_OSDROP)
                && let Some(&count) = self.bytes.get(range).and_then(|value| value.first_chunk())
            {
                dropped = dropped.saturating_add(self.section.long(count));
            }
        });
        Ok((interface, dropped))
    }

    /// Goes over the options from `position`, as far as they are whole.
    fn options(&self, mut position: usize, mut each: impl FnMut(u16, Range<usize>)) {
        while let Some(&[c0, c1, l0, l1]) =
            self.bytes.get(position..).and_then(|rest| rest.first_chunk::<4>())
        {
            let code = self.section.half([c0, c1]);
            let range = position + 4..position + 4 + usize::from(self.section.half([l0, l1]));
            if code == 0 || range.end > self.bytes.len() {
                return;
            }
            position = range.end.next_multiple_of(4);
            each(code, range);
        }
    }
}
