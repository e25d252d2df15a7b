//! The flight recorder: the last frames of a session in bounded memory, to be written when somebody asks.
//!
//! Rule: a frame costs one copy into a chunk. Memory is chunks of one size, of which no more are ever alive than the
//! budget has room for, those that are being written included; the oldest one makes room for the newest. Chunks are
//! made as frames come.

use super::{Writer, link};
use crate::model::{DropMark, Fate, Flow, Frame, NatTuple, Timestamp, VantageId, Vantages};
use std::{
    collections::VecDeque,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The least budget that holds a useful number of chunks.
pub const LEAST_FLIGHT_OCTETS: u64 = 2 << 20;
/// Octets of a chunk: a sixty-fourth of the budget, in these bounds.
const CHUNK: std::ops::RangeInclusive<usize> = 256 << 10..=1 << 20;
/// Octets of a frame that are kept: what a capture takes at most.
const MAX_FRAME: usize = 64 << 10;
/// Octets of a reason's or place's name that are kept.
const MAX_WORD: usize = 255;

/// Time, original length, length, vantage, segment size, link type, flags.
const HEAD: usize = 8 + 4 + 4 + 2 + 2 + 2 + 1;
const HAS_NAT: u8 = 1;
const HAS_DROP: u8 = 2;

/// Keeps the last frames it is given.
#[derive(Debug)]
pub struct FlightRecorder {
    chunk_len: usize,
    most_chunks: usize,
    /// Chunks alive, wherever they are.
    alive: Arc<AtomicUsize>,
    /// Full ones, oldest first.
    full: VecDeque<Arc<Chunk>>,
    open: Option<Chunk>,
    /// Frames that found no room since the last time somebody held what is here.
    missed: u64,
}

/// Frames one behind the other.
#[derive(Debug)]
struct Chunk {
    octets: Vec<u8>,
    frames: u64,
    first: Timestamp,
    last: Timestamp,
    alive: Arc<AtomicUsize>,
}

/// What a flight recorder held at one moment.
#[derive(Debug)]
pub struct Held {
    chunks: VecDeque<Arc<Chunk>>,
    missed: u64,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FlightRecorder {
    /// An empty one that will not use more than `octets`, but at least [`LEAST_FLIGHT_OCTETS`].
    #[must_use]
    pub fn new(octets: u64) -> Self {
        let octets = usize::try_from(octets.max(LEAST_FLIGHT_OCTETS)).unwrap_or(usize::MAX);
        let chunk_len = (octets / 64).clamp(*CHUNK.start(), *CHUNK.end());
        Self {
            chunk_len,
            most_chunks: octets / (chunk_len + size_of::<Chunk>() + 64),
            alive: Arc::default(),
            full: VecDeque::new(),
            open: None,
            missed: 0,
        }
    }

    /// Keeps a frame. Where there is no room because all of it is being written, the frame is not kept, and counted.
    #[inline]
    pub fn push(&mut self, frame: &Frame<'_>) {
        let bytes = frame.bytes.get(..MAX_FRAME).unwrap_or(frame.bytes);
        // The longest nat and drop mark there can be.
        let need = HEAD + bytes.len() + 4 * 19 + 5 + 2 * (MAX_WORD + 1);
        if self.open.as_ref().is_none_or(|chunk| chunk.octets.len() + need > self.chunk_len) {
            self.turn();
        }
        if let Some(chunk) = &mut self.open {
            chunk.push(frame, bytes);
        } else {
            self.missed += 1;
        }
    }

    /// Puts the open chunk to the full ones, and opens another.
    #[cold]
    fn turn(&mut self) {
        self.full.extend(self.open.take().map(Arc::new));
        while self.alive.load(Ordering::Relaxed) >= self.most_chunks {
            let Some(oldest) = self.full.pop_front() else { return };
            // Its memory is used again, unless it is being written.
            if let Ok(mut chunk) = Arc::try_unwrap(oldest) {
                chunk.octets.clear();
                chunk.frames = 0;
                self.open = Some(chunk);
                return;
            }
        }
        self.alive.fetch_add(1, Ordering::Relaxed);
        self.open = Some(Chunk {
            octets: Vec::with_capacity(self.chunk_len),
            frames: 0,
            first: Timestamp::MAX,
            last: Timestamp::EPOCH,
            alive: Arc::clone(&self.alive),
        });
    }

    /// What is held now; it stays held. Costs nothing but handles.
    pub fn hold(&mut self) -> Held {
        if self.open.as_ref().is_some_and(|chunk| chunk.frames > 0) {
            self.full.extend(self.open.take().map(Arc::new));
        }
        Held { chunks: self.full.iter().map(Arc::clone).collect(), missed: std::mem::take(&mut self.missed) }
    }
}

impl Held {
    /// How many frames.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.frames).sum()
    }

    /// Frames that came while there was no room: all of it was being written.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// The earliest and the latest time; `None` where nothing is held.
    #[must_use]
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let first = self.chunks.iter().map(|chunk| chunk.first).min()?;
        Some((first, self.chunks.iter().map(|chunk| chunk.last).max()?))
    }

    /// Writes all frames, oldest first; each chunk is given back as soon as it is written.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write<W: Write>(self, to: &mut Writer<W>, vantages: &Vantages) -> io::Result<()> {
        for chunk in self.chunks {
            let mut octets = Octets(&chunk.octets);
            while let Some(frame) = octets.frame() {
                to.frame(&frame, vantages)?;
            }
        }
        Ok(())
    }
}

impl Chunk {
    #[inline]
    fn push(&mut self, frame: &Frame<'_>, bytes: &[u8]) {
        if self.frames == 0 {
            (self.first, self.last) = (frame.time, frame.time);
        }
        self.frames += 1;
        self.first = self.first.min(frame.time);
        self.last = self.last.max(frame.time);
        let to = &mut self.octets;
        let mut head = [0; HEAD];
        let flags = (u8::from(frame.nat.is_some()) * HAS_NAT) | (u8::from(frame.drop.is_some()) * HAS_DROP);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        head[..8].copy_from_slice(&frame.time.as_nanos().to_le_bytes());
        head[8..12].copy_from_slice(&frame.original_len.to_le_bytes());
        head[12..16].copy_from_slice(&len.to_le_bytes());
        head[16..18].copy_from_slice(&frame.vantage.0.to_le_bytes());
        head[18..20].copy_from_slice(&frame.segment_size.to_le_bytes());
        head[20..22].copy_from_slice(&link::to_linktype(frame.link).to_le_bytes());
        head[22] = flags;
        to.extend_from_slice(&head);
        if let Some(NatTuple { original, reply }) = frame.nat {
            for address in [original.source, original.destination, reply.source, reply.destination] {
                push_address(to, address);
            }
        }
        if let Some(mark) = &frame.drop {
            to.extend_from_slice(&mark.cpu.to_le_bytes());
            to.push(fate_number(mark.fate));
            push_word(to, mark.reason);
            push_word(to, mark.place);
        }
        to.extend_from_slice(bytes);
    }
}

fn push_address(to: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            to.push(4);
            to.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            to.push(6);
            to.extend_from_slice(&ip.octets());
        }
    }
    to.extend_from_slice(&address.port().to_le_bytes());
}

fn push_word(to: &mut Vec<u8>, word: &str) {
    let word = &word[..word.floor_char_boundary(MAX_WORD)];
    to.push(u8::try_from(word.len()).unwrap_or(0));
    to.extend_from_slice(word.as_bytes());
}

const FATES: [Fate; 4] = [Fate::ClashResolved, Fate::Dropped, Fate::InsertFailed, Fate::TableFull];

fn fate_number(fate: Fate) -> u8 {
    FATES.iter().position(|known| *known == fate).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

/// What of a chunk is still to be read. `None` is its end: what was put in comes out.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn frame(&mut self) -> Option<Frame<'a>> {
        let time = Timestamp::from_nanos(u64::from_le_bytes(self.array()?));
        let original_len = self.u32()?;
        let len = self.u32()?;
        let vantage = VantageId(self.u16()?);
        let segment_size = self.u16()?;
        let link = link::from_linktype(self.u16()?);
        let flags = self.u8()?;
        let nat = if flags & HAS_NAT == 0 { None } else { Some(self.nat()?) };
        let drop = if flags & HAS_DROP == 0 { None } else { Some(self.drop_mark()?) };
        let bytes = self.take(len as usize)?;
        Some(Frame { number: 0, time, vantage, link, original_len, bytes, segment_size, nat, drop })
    }

    fn nat(&mut self) -> Option<NatTuple> {
        let mut flow = || Some(Flow { source: self.address()?, destination: self.address()? });
        Some(NatTuple { original: flow()?, reply: flow()? })
    }

    fn drop_mark(&mut self) -> Option<DropMark<'a>> {
        let cpu = self.u32()?;
        let fate = *FATES.get(usize::from(self.u8()?))?;
        Some(DropMark { fate, cpu, reason: self.word()?, place: self.word()? })
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.u8()? {
            4 => IpAddr::from(self.array::<4>()?),
            _ => IpAddr::from(self.array::<16>()?),
        };
        Some(SocketAddr::new(ip, self.u16()?))
    }

    fn word(&mut self) -> Option<&'a str> {
        let len = self.u8()?;
        std::str::from_utf8(self.take(usize::from(len))?).ok()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LinkType;

    fn frame(time: u64, bytes: &[u8]) -> Frame<'_> {
        Frame {
            number: 0,
            time: Timestamp::from_nanos(time),
            vantage: VantageId(3),
            link: LinkType::Ethernet,
            original_len: 90,
            bytes,
            segment_size: 0,
            nat: None,
            drop: None,
        }
    }

    fn told(held: &Held) -> Vec<String> {
        let mut frames = Vec::new();
        for chunk in &held.chunks {
            let mut octets = Octets(&chunk.octets);
            while let Some(frame) = octets.frame() {
                frames.push(format!("{frame:?}"));
            }
            assert!(octets.0.is_empty());
        }
        frames
    }

    #[test]
    fn every_field_of_a_frame_is_kept() {
        let nat = NatTuple {
            original: Flow {
                source: "10.244.1.23:40000".parse().unwrap(),
                destination: "10.96.0.10:53".parse().unwrap(),
            },
            reply: Flow {
                source: "[fd00::5]:53".parse().unwrap(),
                destination: "[fd00::1]:40000".parse().unwrap(),
            },
        };
        let mut frames = vec![frame(5, b"plain"), frame(6, b"")];
        for fate in FATES {
            let mark = DropMark { fate, cpu: 7, reason: "NETFILTER_DROP", place: "" };
            let link = LinkType::RawIp;
            frames.push(Frame {
                nat: Some(nat),
                drop: Some(mark),
                segment_size: 512,
                link,
                ..frame(7, b"x")
            });
        }
        frames.push(Frame { link: LinkType::Other(127), ..frame(8, b"other") });
        let mut recorder = FlightRecorder::new(0);
        frames.iter().for_each(|frame| recorder.push(frame));
        let held = recorder.hold();
        assert_eq!(told(&held), frames.iter().map(|frame| format!("{frame:?}")).collect::<Vec<_>>());
        assert_eq!(held.frames(), 7);
        assert_eq!(held.span(), Some((Timestamp::from_nanos(5), Timestamp::from_nanos(8))));
    }

    #[test]
    fn the_oldest_chunks_make_room_and_the_budget_is_kept() {
        let budget = 4 << 20;
        let mut recorder = FlightRecorder::new(budget);
        let bytes = [7; 1_000];
        for time in 0..20_000 {
            recorder.push(&frame(time, &bytes));
            let chunks = recorder.full.iter().map(|chunk| chunk.octets.capacity());
            let all: usize = chunks.chain(recorder.open.iter().map(|chunk| chunk.octets.capacity())).sum();
            assert!(all as u64 <= budget);
        }
        let held = recorder.hold();
        let (first, last) = held.span().unwrap();
        assert_eq!(last.as_nanos(), 19_999);
        assert_eq!(last.as_nanos() - first.as_nanos() + 1, held.frames(), "there is a hole");
        // A chunk is given up at once, and each may have an end that is not used.
        assert!((3_000..4_200).contains(&held.frames()), "{}", held.frames());
    }

    #[test]
    fn what_is_being_written_counts_and_is_not_changed() {
        let mut recorder = FlightRecorder::new(0);
        let bytes = [7; 1_000];
        (0..5_000).for_each(|time| recorder.push(&frame(time, &bytes)));
        let held = recorder.hold();
        let before = told(&held);
        (5_000..15_000).for_each(|time| recorder.push(&frame(time, &bytes)));
        assert!(recorder.alive.load(Ordering::Relaxed) <= recorder.most_chunks);
        assert_eq!(told(&held), before);
        drop(held);
        assert_eq!(recorder.missed, 10_000);
        (15_000..16_000).for_each(|time| recorder.push(&frame(time, &bytes)));
        assert_eq!(recorder.hold().span().unwrap().1.as_nanos(), 15_999);
        assert!(recorder.alive.load(Ordering::Relaxed) <= recorder.most_chunks);
    }

    #[test]
    fn hostile_lengths_are_cut() {
        let mut recorder = FlightRecorder::new(0);
        let (bytes, word) = (vec![1; 300_000], "ä".repeat(300));
        let mark = DropMark { fate: Fate::Dropped, cpu: 0, reason: &word, place: &word };
        for time in 0..50 {
            recorder.push(&Frame { drop: Some(mark), ..frame(time, &bytes) });
        }
        let held = recorder.hold();
        assert!(held.frames() > 10);
        for chunk in &held.chunks {
            assert!(chunk.octets.len() <= recorder.chunk_len);
            let mut octets = Octets(&chunk.octets);
            while let Some(frame) = octets.frame() {
                assert_eq!((frame.bytes.len(), frame.drop.unwrap().reason.len()), (MAX_FRAME, 254));
            }
        }
    }
}
