//! Frames into a pcapng file, and what a session says of itself beside them.
//!
//! Rule: nothing is decoded and nothing is left out: what [`super::Reader`] gives of the file is what was written.
//! The blocks are pcap-file's, but for those of packets; they are put together in memory and handed on in large pieces.

use super::{Note, Origin, Statistics, link, packet_block::PacketBlock, text, told, vantage::describe};
use crate::model::{Direction, Frame, LinkType, News, PodName, Timestamp, VantageId, Vantages};
use foldhash::fast::RandomState;
use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        Block, PcapNgWriter,
        blocks::{
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            name_resolution::{Ipv4Record, Ipv6Record, NameResolutionBlock, NameResolutionOption, Record},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};
use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, Write},
    net::IpAddr,
};

/// Octets that are put together before they are handed on.
const CHUNK: usize = 256 * 1024;
/// Octets of a frame that are kept: Wireshark's own limit.
const MAX_FRAME: usize = 256 * 1024;
/// Names, or owners that are gone, in one block.
const NAMES_A_BLOCK: usize = 500;
/// `if_tsresol`: ten to the minus ninth.
const NANOSECONDS: u8 = 9;

/// Writes one section of a pcapng file.
pub struct Writer<W> {
    blocks: PcapNgWriter<Vec<u8>>,
    to: W,
    interfaces: HashMap<Key, Interface, RandomState>,
    /// The interface of statistics that are nobody else's: the first.
    first: Option<Key>,
    /// What was learnt before: editcap and mergecap refuse names before the first interface.
    held: Vec<(Option<Timestamp>, Vec<News>)>,
    frames: u64,
    octets: u64,
    /// The comment of a frame, of which each takes the place of the one before.
    comment: Vec<u8>,
    /// The interface of the frame before: frames come in runs.
    last: Option<(Key, Interface)>,
}

/// Frames of one interface block have one vantage and one link type: what the kernel dropped starts at the network
/// header, wherever it was.
type Key = (VantageId, LinkType);

/// An interface description block that was written.
#[derive(Clone, Copy, Debug)]
struct Interface {
    index: u32,
    direction: Direction,
    /// Drops that its statistics told.
    lost: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a section; its header waits to be written as all blocks do.
    ///
    /// # Errors
    /// Never: it has no block yet that could be refused.
    pub fn new(to: W, origin: &Origin) -> io::Result<Self> {
        let option = |text: &str| Cow::Owned(text::printable(text.as_bytes()));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![
                SectionHeaderOption::Hardware(option(&origin.node)),
                SectionHeaderOption::OS(option(&origin.kernel)),
                SectionHeaderOption::UserApplication(Cow::Owned(origin.application())),
                SectionHeaderOption::Comment(Cow::Owned(origin.comment())),
            ],
            ..SectionHeaderBlock::default()
        };
        let buffer = Vec::with_capacity(CHUNK + CHUNK / 4);
        Ok(Self {
            blocks: PcapNgWriter::with_section_header(buffer, section).map_err(refused)?,
            to,
            interfaces: HashMap::default(),
            first: None,
            held: Vec::new(),
            frames: 0,
            octets: 0,
            comment: Vec::new(),
            last: None,
        })
    }

    /// Writes a frame, and its interface's description before the first one. Frames get the numbers 1, 2, … that
    /// Wireshark shows, whatever `frame.number` says.
    ///
    /// # Errors
    /// When what waited cannot be handed on.
    pub fn frame(&mut self, frame: &Frame<'_>, vantages: &Vantages) -> io::Result<()> {
        let key = (frame.vantage, frame.link);
        let Interface { index, direction, .. } = self.interface(key, vantages)?;
        self.comment.clear();
        if let Some(note) = Note::of(frame) {
            note.append(&mut self.comment);
        }
        let block = PacketBlock {
            interface: index,
            time: frame.time,
            original_len: frame.original_len.max(u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX)),
            bytes: frame.bytes.get(..MAX_FRAME).unwrap_or(frame.bytes),
            // Both directions of an interface have a description of their own; this is for filters in Wireshark.
            flags: match direction {
                Direction::Ingress => Some(1),
                Direction::Egress => Some(2),
                Direction::Unknown => None,
            },
            comment: &self.comment,
        };
        block.append(self.blocks.get_mut());
        self.frames += 1;
        self.hand_on_if_due()
    }

    fn interface(&mut self, key: Key, vantages: &Vantages) -> io::Result<Interface> {
        if let Some((last, interface)) = self.last
            && last == key
        {
            return Ok(interface);
        }
        let interface = match self.interfaces.get(&key) {
            Some(interface) => *interface,
            None => self.describe(key, vantages)?,
        };
        self.last = Some((key, interface));
        Ok(interface)
    }

    /// Writes what was learnt of the node. `at` is when the session was told, if it was told here, between these frames;
    /// `None` for what it knew before them. It waits for the first interface.
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub fn news(&mut self, at: Option<Timestamp>, news: &[News]) -> io::Result<()> {
        if self.first.is_none() {
            if !news.is_empty() {
                self.held.push((at, news.to_vec()));
            }
            return Ok(());
        }
        for alike in news.chunk_by(|one, other| std::mem::discriminant(one) == std::mem::discriminant(other))
        {
            for some in alike.chunks(NAMES_A_BLOCK) {
                self.news_alike(at, some)?;
            }
        }
        Ok(())
    }

    /// One block of names or of owners gone; of anything else one each.
    fn news_alike(&mut self, at: Option<Timestamp>, news: &[News]) -> io::Result<()> {
        let (mut records, mut since, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for news in news {
            match news {
                News::Named(address, pod, time) if !pod.name.is_empty() => {
                    records.push(record(*address, pod));
                    since.push((*address, *time));
                }
                News::Named(..) => {}
                News::Gone(address, time) => gone.push((*address, *time)),
                News::Blind(spot, time) => {
                    self.name_resolution(at, Vec::new(), Some(told::of_blind_spot(spot, *time)))?;
                }
                News::Container(pod, name, since) => {
                    let comment = told::of_container(pod, name.as_deref(), *since);
                    self.name_resolution(at, Vec::new(), Some(comment))?;
                }
                News::Rules(count, time) => {
                    self.name_resolution(at, Vec::new(), Some(told::of_rules(count, *time)))?;
                }
                News::Service(service, time) => {
                    let name = service.shown().map(|name| name_record(service.address.ip(), name));
                    let records = name.into_iter().collect();
                    self.name_resolution(at, records, Some(told::of_service(service, *time)))?;
                }
                News::Resolver(resolver, time) => {
                    self.name_resolution(at, Vec::new(), Some(told::of_resolver(resolver, *time)))?;
                }
            }
        }
        let is_dated = since.iter().any(|(_, time)| *time != Timestamp::EPOCH);
        let comment = if is_dated {
            Some(told::since(since.into_iter()))
        } else {
            (!gone.is_empty()).then(|| told::gone(gone.into_iter()))
        };
        if records.is_empty() && comment.is_none() {
            return Ok(());
        }
        self.name_resolution(at, records, comment)
    }

    fn name_resolution(
        &mut self,
        at: Option<Timestamp>,
        records: Vec<Record<'_>>,
        comment: Option<String>,
    ) -> io::Result<()> {
        let comments = at.map(told::at).into_iter().chain(comment);
        let options = comments.map(|text| NameResolutionOption::Comment(Cow::Owned(text))).collect();
        self.write(&Block::NameResolution(NameResolutionBlock { records, options }))
    }

    /// Writes what is counted: the session's at its first interface, drops at theirs where they have grown.
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub fn statistics(&mut self, statistics: &Statistics, vantages: &Vantages) -> io::Result<()> {
        let Some(first) = self.first_interface(vantages)? else { return Ok(()) };
        let mut lost_at_first = 0;
        for &(vantage, lost) in &statistics.lost {
            let at = match vantage {
                Some(vantage) if lost > 0 => self.interface_of(vantage, vantages)?,
                _ => first,
            };
            if at == first {
                lost_at_first += lost;
            } else if let Some(interface) = self.interfaces.get_mut(&at)
                && interface.lost < lost
            {
                interface.lost = lost;
                let index = interface.index;
                self.count(index, statistics, lost, None)?;
            }
        }
        if let Some(interface) = self.interfaces.get_mut(&first) {
            interface.lost = lost_at_first;
            let index = interface.index;
            self.count(index, statistics, lost_at_first, Some(statistics.comment()))?;
        }
        Ok(())
    }

    /// Hands on everything that was put together.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub fn flush(&mut self) -> io::Result<()> {
        self.hand_on()?;
        self.to.flush()
    }

    /// [`Self::flush`], then gives back what was written to.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.to)
    }

    /// Gives back what was written to, without what still waits: for when that cannot be written.
    #[must_use]
    pub fn into_target(self) -> W {
        self.to
    }

    /// Frames written.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Octets of the section so far, with those that wait.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets + self.blocks.get_ref().len() as u64
    }

    /// What is written to.
    #[must_use]
    pub const fn target(&self) -> &W {
        &self.to
    }

    fn count(
        &mut self,
        interface_id: u32,
        statistics: &Statistics,
        lost: u64,
        comment: Option<String>,
    ) -> io::Result<()> {
        let mut options = vec![
            InterfaceStatisticsOption::IsbStartTime(halves(statistics.started)),
            InterfaceStatisticsOption::IsbEndTime(halves(statistics.until)),
            InterfaceStatisticsOption::IsbOsDrop(lost),
        ];
        options.extend(comment.map(|comment| InterfaceStatisticsOption::Comment(Cow::Owned(comment))));
        let timestamp = halves(statistics.until);
        self.write(&Block::InterfaceStatistics(InterfaceStatisticsBlock { interface_id, timestamp, options }))
    }

    /// The first interface described; where there is none, the first vantage's.
    fn first_interface(&mut self, vantages: &Vantages) -> io::Result<Option<Key>> {
        if self.first.is_none() && !vantages.is_empty() {
            self.describe((VantageId(0), LinkType::Ethernet), vantages)?;
        }
        Ok(self.first)
    }

    /// An interface of a vantage, whatever its link type.
    fn interface_of(&mut self, vantage: VantageId, vantages: &Vantages) -> io::Result<Key> {
        let [ethernet, raw] = [LinkType::Ethernet, LinkType::RawIp].map(|link| (vantage, link));
        if self.interfaces.contains_key(&raw) && !self.interfaces.contains_key(&ethernet) {
            return Ok(raw);
        }
        if !self.interfaces.contains_key(&ethernet) {
            self.describe(ethernet, vantages)?;
        }
        Ok(ethernet)
    }

    fn describe(&mut self, key: Key, vantages: &Vantages) -> io::Result<Interface> {
        let (id, link) = key;
        let vantage = vantages.lookup(id).unwrap_or_default();
        self.write(&Block::InterfaceDescription(InterfaceDescriptionBlock {
            linktype: DataLink::from(u32::from(link::to_linktype(link))),
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(text::printable(vantage.interface.as_bytes()))),
                InterfaceDescriptionOption::IfDescription(Cow::Owned(describe(&vantage))),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        }))?;
        let index = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let interface = Interface { index, direction: vantage.direction, lost: 0 };
        self.interfaces.insert(key, interface);
        self.first.get_or_insert(key);
        for (at, news) in std::mem::take(&mut self.held) {
            self.news(at, &news)?;
        }
        Ok(interface)
    }

    fn write(&mut self, block: &Block<'_>) -> io::Result<()> {
        self.blocks.write_block(block).map_err(refused)?;
        self.hand_on_if_due()
    }

    fn hand_on_if_due(&mut self) -> io::Result<()> {
        if self.blocks.get_ref().len() >= CHUNK { self.hand_on() } else { Ok(()) }
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let waiting = self.blocks.get_mut();
        let written = self.to.write_all(waiting);
        self.octets += waiting.len() as u64;
        // What could not be written is not tried again: some of it may be there.
        waiting.clear();
        written
    }
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("frames", &self.frames)
            .field("octets", &self.octets)
            .finish_non_exhaustive()
    }
}

fn record(address: IpAddr, pod: &PodName) -> Record<'static> {
    name_record(address, &pod.to_string())
}

fn name_record(address: IpAddr, name: &str) -> Record<'static> {
    let names = vec![Cow::Owned(text::printable(name.as_bytes()))];
    match address {
        IpAddr::V4(ip) => Record::Ipv4(Ipv4Record { ip_addr: Cow::Owned(ip.octets().into()), names }),
        IpAddr::V6(ip) => Record::Ipv6(Ipv6Record { ip_addr: Cow::Owned(ip.octets().into()), names }),
    }
}

/// A time as statistics have it: the high half comes first. pcap-file writes it as one number, low half first.
const fn halves(time: Timestamp) -> u64 {
    time.as_nanos().rotate_left(32)
}

fn refused(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
