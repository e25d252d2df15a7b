//! The pcapng format (draft-ietf-opsawg-pcapng): blocks in sections, each section with interfaces of its own.
//!
//! Rule: a block that is not known is passed over; one that contradicts itself ends the reading.

use super::{
    block::{Block, InterfaceDescription, RawPacket, RawStatistics},
    origin::Origin,
    statistics::Recorded,
    text,
    ticks::Clock,
    told::{self, Said, Told},
    vantage,
};
use crate::model::{Direction, LinkType, News, PodName, Timestamp, Vantage, VantageId, Vantages};
use std::{mem, net::IpAddr, ops::Range, sync::Arc};

/// Octets of a block's type, its length, and the first word of its body.
pub(super) const BLOCK_HEADER_LEN: usize = 12;
/// Interfaces of one section; a file that has more is not one that a capture program wrote.
const MAX_INTERFACES: usize = 65_535;
/// Different sources that are kept of a file.
const MOST_SOURCES: usize = 1_024;
/// What of the node is kept between two frames: as much as a session knows of names.
const MOST_TOLD: usize = 131_072;
/// Resolvers among them, which have up to 64 KiB each.
const MOST_RESOLVERS: usize = 1_024;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// The obsolete packet block: as an enhanced one, with a 16-bit interface and a count of drops.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const NAME_RESOLUTION: u32 = 4;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// One packet block; the ranges are places in the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) time: Timestamp,
    pub(super) vantage: VantageId,
    pub(super) link: LinkType,
    pub(super) original_len: u32,
    pub(super) data: Range<usize>,
    pub(super) comment: Option<Range<usize>>,
    pub(super) note: Option<Range<usize>>,
}

/// The section that is being read, and what the sections before left.
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
    /// Of the section that is being read.
    origin: Option<Origin>,
    recorded: Option<Recorded>,
    recorded_before: Option<Recorded>,
    /// Of all sections; what other programs wrote has none.
    sources: Vec<String>,
    foreign: bool,
    /// What was told of the node, not yet taken.
    told: Vec<Told>,
}

/// What a block's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    kind: u32,
    pub(super) len: usize,
}

impl Section {
    /// The state before the first section header.
    pub(super) fn new(source: u16) -> Self {
        Self {
            source,
            big_endian: false,
            interfaces: Vec::new(),
            last_time: Timestamp::EPOCH,
            dropped_before: 0,
            dropped_between: 0,
            origin: None,
            recorded: None,
            recorded_before: None,
            sources: Vec::new(),
            foreign: false,
            told: Vec::new(),
        }
    }

    /// Whether a file that begins so is pcapng: the section header's type reads the same in either byte order.
    pub(super) const fn recognise(magic: [u8; 4]) -> bool {
        u32::from_be_bytes(magic) == SECTION_HEADER
    }

    /// Reads a block's header; a section header sets the byte order.
    pub(super) fn header(&mut self, bytes: &[u8; BLOCK_HEADER_LEN]) -> Result<BlockHeader, &'static str> {
        let &[k0, k1, k2, k3, .., m0, m1, m2, m3] = bytes;
        if u32::from_be_bytes([k0, k1, k2, k3]) == SECTION_HEADER {
            self.big_endian = match [m0, m1, m2, m3] {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => return Err("a section header without a byte order"),
            };
        }
        let header = Block { big_endian: self.big_endian, bytes };
        let len = header.u32(4)? as usize;
        if len < BLOCK_HEADER_LEN || !len.is_multiple_of(4) {
            return Err("a block of impossible length");
        }
        Ok(BlockHeader { kind: header.u32(0)?, len })
    }

    /// Takes one whole block; gives its packet, where it holds one.
    pub(super) fn block(
        &mut self,
        header: BlockHeader,
        block: &[u8],
        vantages: &Vantages,
    ) -> Result<Option<Packet>, &'static str> {
        let end = header.len - 4;
        let whole = Block { big_endian: self.big_endian, bytes: block };
        if whole.u32(end) != Ok(u32::try_from(header.len).unwrap_or(0)) {
            return Err("a block whose two lengths differ");
        }
        let body = Block { bytes: block.get(..end).unwrap_or_default(), ..whole };
        match header.kind {
            ENHANCED_PACKET => self.packet(body.enhanced_packet(false)?, vantages).map(Some),
            PACKET => self.packet(body.enhanced_packet(true)?, vantages).map(Some),
            SIMPLE_PACKET => {
                let snap_len = self.interfaces.first().map_or(0, |interface| interface.snap_len);
                self.packet(body.simple_packet(snap_len)?, vantages).map(Some)
            }
            other => {
                match other {
                    SECTION_HEADER => self.begin(body),
                    INTERFACE_DESCRIPTION => self.describe(body.interface()?)?,
                    INTERFACE_STATISTICS => self.count(body.statistics()?),
                    NAME_RESOLUTION => self.tell(body),
                    _ => {}
                }
                Ok(None)
            }
        }
    }

    /// Drops that the file itself tells of. Statistics and packet blocks tell of the same drops.
    pub(super) fn lost(&self) -> u64 {
        let current: u64 = self.interfaces.iter().map(|interface| interface.dropped).sum();
        self.dropped_between.max(self.dropped_before.saturating_add(current)).min(text::MOST_COUNTED)
    }

    /// The drops of this section's interfaces.
    pub(super) fn lost_by_vantage(&mut self, vantages: &Vantages) -> Vec<(Option<VantageId>, u64)> {
        let source = self.source;
        let lossy = self.interfaces.iter_mut().filter(|interface| interface.dropped > 0);
        lossy.map(|i| (Some(i.vantage(Direction::Unknown, source, vantages)), i.dropped)).collect()
    }

    /// What a recording of dnspath says of its session so far.
    pub(super) fn recorded(&self) -> Option<Recorded> {
        match (self.recorded_before, self.recorded) {
            (Some(before), Some(now)) => Some(before.and(now)),
            (before, now) => before.or(now),
        }
    }

    /// Who recorded the section that is being read, where it was dnspath.
    pub(super) const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// What the sections so far say was watched; `None` where another program wrote one of them.
    pub(super) fn sources(&self) -> Option<&[String]> {
        (!self.foreign && !self.sources.is_empty()).then_some(&self.sources)
    }

    /// Whether [`Self::take_told`] has something.
    pub(super) const fn has_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// What was told of the node since the last time.
    pub(super) fn take_told(&mut self) -> Vec<Told> {
        mem::take(&mut self.told)
    }

    fn begin(&mut self, body: Block<'_>) {
        let dropped = self.interfaces.iter().map(|interface| interface.dropped).sum();
        self.dropped_before = self.dropped_before.saturating_add(dropped);
        self.interfaces.clear();
        self.recorded_before = self.recorded();
        self.recorded = None;
        let header = body.section_header();
        self.origin = Origin::read(header.application, header.hardware, header.system, header.comment);
        match &self.origin {
            None => self.foreign = true,
            Some(origin) => {
                for source in &origin.sources {
                    if !self.sources.contains(source) && self.sources.len() < MOST_SOURCES {
                        self.sources.push(source.clone());
                    }
                }
            }
        }
    }

    fn describe(&mut self, description: InterfaceDescription<'_>) -> Result<(), &'static str> {
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err("more interfaces than any capture has");
        }
        let InterfaceDescription { link, snap_len, clock, name, description } = description;
        self.interfaces.push(Interface {
            link,
            snap_len,
            clock,
            vantage: vantage::read(name, description, self.interfaces.len()),
            ids: [None; 3],
            dropped: 0,
        });
        Ok(())
    }

    fn count(&mut self, statistics: RawStatistics<'_>) {
        let Some(interface) = self.interfaces.get_mut(statistics.interface) else { return };
        // Counted from the start of the capture: the last one says it all.
        interface.dropped = interface.dropped.max(statistics.dropped.min(text::MOST_COUNTED));
        let of_session = || {
            let (started, ended) =
                (interface.clock.time(statistics.started?), interface.clock.time(statistics.ended?));
            Recorded::read(statistics.comment?, started, ended)
        };
        self.recorded = of_session().or(self.recorded);
    }

    fn tell(&mut self, body: Block<'_>) {
        let own = self.origin.is_some();
        let mut all = Vec::new();
        let comments = body.names(|address, name| all.extend(named(address, name, own)));
        let mut at = None;
        for said in comments.into_iter().filter(|_| own).filter_map(told::read) {
            match said {
                Said::At(time) => at = Some(time),
                Said::Since(since) => date(&mut all, &since),
                Said::News(news) => all.extend(news),
            }
        }
        // The record beside a service is for other programs: its address is no pod's.
        if all.iter().any(|news| matches!(news, News::Service(..))) {
            all.retain(|news| !matches!(news, News::Named(..)));
        }
        let is_resolver = |news: &News| matches!(news, News::Resolver(..));
        let mut resolvers = self.told.iter().filter(|told| is_resolver(&told.news)).count();
        for news in all {
            resolvers += usize::from(is_resolver(&news));
            if self.told.len() < MOST_TOLD && (!is_resolver(&news) || resolvers <= MOST_RESOLVERS) {
                self.told.push(Told { at, news, source: self.source });
            }
        }
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
}

/// An address and its name. Wireshark puts hosts' names there, resolved by DNS: these say nothing of pods.
fn named(address: IpAddr, name: &[u8], own: bool) -> Option<News> {
    let name = text::printable(name);
    let pod = match name.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            PodName { namespace: namespace.into(), name: name.into() }
        }
        _ if own => PodName { namespace: String::new(), name },
        _ => return None,
    };
    Some(News::Named(address, Arc::new(pod), Timestamp::EPOCH))
}

/// Says since when names are those of their addresses. Where somebody left some of a block's records out, nobody knows.
fn date(all: &mut [News], since: &[(IpAddr, Timestamp)]) {
    for (news, (of, time)) in all.iter_mut().zip(since) {
        match news {
            News::Named(address, _, since) if address == of => *since = *time,
            _ => return,
        }
    }
}

/// An interface that the section described.
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
