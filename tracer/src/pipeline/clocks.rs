//! How far the clocks of several files differ, from the messages that are in two of them.
//!
//! Rule: a query and its response that two nodes saw bound the difference from both sides, as in NTP (RFC 5905 section 8):
//! half the sum of what the two clocks differ by for the query and for the response is the offset, whichever node asked,
//! and half the difference of the two is the most it can be wrong by. Many such exchanges agree; those that do not (an
//! exchange repeated with the same id and port, of which each node saw another one) are outvoted. The one with the least
//! uncertainty counts. An offset within its uncertainty is none: captures of one node have one clock, and stay as they
//! are. Where only queries or only responses are in two files, the way between them cannot be told from the offset: such
//! a difference counts above 50 ms.
//!
//! Messages are found again by their addresses as they are between two nodes (both ends see the same after NAT), ports,
//! id, name and type, whenever they were seen: the clocks may be days apart. Memory is bounded: past 65,536 exchanges every
//! second one is forgotten, by its hash, in all files alike. The pass over the files ends as soon as every file has enough
//! exchanges with another one. Clocks are taken to run equally fast; 50 ppm are 30 ms in ten minutes, which the joining
//! of hops (100 ms) bears.

use crate::{
    model::{Sighting, SightingBody, Transport, Vantages},
    trace::MergedReader,
    wire::Decoder,
};
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::{collections::HashMap, hash::BuildHasher, time::Duration};

/// Exchanges that are held.
const MOST_EXCHANGES: usize = 65_536;
/// Exchanges that two files have in common: more make it no better.
const ENOUGH: usize = 256;
/// Files that are compared; further ones keep their times.
const MOST_FILES: usize = 64;
/// Offsets that agree are within this.
const AGREE: i64 = 100_000_000;
/// Of the hashes; one file always gives the same report.
const SEED: u64 = 0x5d3f_1c0e_9b27_a846;
/// What a message may take from one node to another where nothing bounds it.
const ONE_WAY: i64 = 50_000_000;

/// What is known of a file's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// Nanoseconds that it is ahead of the first file's, and the most that this is wrong by; `None` where they could not
    /// be compared.
    pub(super) ahead: Option<(i64, Duration)>,
    /// Exchanges (or lone messages) in common with the file it was compared with.
    pub(super) exchanges: u64,
    /// It was recorded while another one was, as far as their clocks agree.
    pub(super) overlaps: bool,
}

impl Clock {
    /// The nanoseconds that the file's times are to be put later, so that they are by the first file's clock.
    pub(super) fn shift(&self) -> i64 {
        self.ahead.map_or(0, |(ahead, _)| ahead.saturating_neg())
    }

    /// Whether it differs from the first file's, or could not be compared with it though it was recorded meanwhile.
    pub(super) fn is_worth_a_word(&self) -> bool {
        self.ahead.map_or(self.overlaps, |(ahead, _)| ahead != 0)
    }
}

/// When one file saw the two messages of an exchange first.
#[derive(Clone, Copy, Debug)]
struct Seen {
    file: u16,
    query: Option<u64>,
    response: Option<u64>,
}

/// Compares the clocks of these files as far as they can be read; the first one's is taken to be right.
pub(super) fn compare(reader: &mut MergedReader, files: usize, ports: &[u16]) -> Vec<Clock> {
    let mut exchanges = Exchanges::new(files.min(MOST_FILES));
    let vantages = Vantages::new();
    let mut decoder = Decoder::new(ports);
    // A file that is damaged is compared up to there; reading it again tells of it.
    while let Ok(Some(frame)) = reader.next_frame(&vantages) {
        decoder.decode(&frame, &vantages, &mut |sighting| {
            let source = vantages.lookup(sighting.vantage).map_or(0, |vantage| vantage.source);
            exchanges.see(sighting, source);
        });
        if exchanges.suffice() {
            break;
        }
    }
    exchanges.clocks()
}

#[derive(Debug)]
struct Exchanges {
    all: HashMap<u64, SmallVec<[Seen; 2]>, FixedState>,
    hasher: FixedState,
    /// Hashes with one of these bits set are passed over.
    passed_over: u64,
    /// By file: exchanges in common with any other one.
    common: Vec<usize>,
    /// By file: the earliest and the latest time.
    spans: Vec<(u64, u64)>,
}

impl Exchanges {
    fn new(files: usize) -> Self {
        Self {
            all: HashMap::with_hasher(FixedState::with_seed(SEED)),
            hasher: FixedState::with_seed(SEED),
            passed_over: 0,
            common: vec![0; files],
            spans: vec![(u64::MAX, 0); files],
        }
    }

    fn suffice(&self) -> bool {
        self.common.iter().all(|count| *count >= ENOUGH)
    }

    fn see(&mut self, sighting: &Sighting, file: u16) {
        let (SightingBody::Dns(dns), Transport::Udp) = (&sighting.body, sighting.transport) else { return };
        let time = sighting.time.as_nanos();
        let Some(span) = self.spans.get_mut(usize::from(file)) else { return };
        *span = (span.0.min(time), span.1.max(time));
        let response = dns.is_response();
        let flow = if response { sighting.flow.reversed() } else { sighting.flow };
        let hash = self.hasher.hash_one((flow, dns.id, dns.name.as_wire(), dns.qtype));
        if hash & self.passed_over != 0 {
            return;
        }
        let seen = self.all.entry(hash).or_default();
        let was_common = seen.iter().filter(|seen| seen.is_whole()).count() > 1;
        let of_file = match seen.iter().position(|seen| seen.file == file) {
            Some(known) => seen.get_mut(known),
            None => {
                seen.push(Seen { file, query: None, response: None });
                seen.last_mut()
            }
        };
        let Some(of_file) = of_file else { return };
        let first = if response { &mut of_file.response } else { &mut of_file.query };
        if first.is_some() {
            return;
        }
        *first = Some(time);
        let whole: SmallVec<[u16; 4]> =
            seen.iter().filter(|seen| seen.is_whole()).map(|seen| seen.file).collect();
        if !was_common && whole.len() > 1 {
            for file in whole {
                if let Some(common) = self.common.get_mut(usize::from(file)) {
                    *common += 1;
                }
            }
        }
        if self.all.len() > MOST_EXCHANGES {
            self.passed_over = self.passed_over << 1 | 1;
            let passed_over = self.passed_over;
            self.all.retain(|hash, _| hash & passed_over == 0);
        }
    }

    /// The clocks by the first file's: each file is compared with one whose clock is known, the one with which it has
    /// most in common.
    fn clocks(&self) -> Vec<Clock> {
        let mut clocks = vec![Clock::default(); self.common.len()];
        for (index, clock) in clocks.iter_mut().enumerate() {
            clock.overlaps = self.overlaps(index);
        }
        if let Some(first) = clocks.first_mut() {
            first.ahead = Some((0, Duration::ZERO));
        }
        loop {
            let (known, unknown): (Vec<usize>, Vec<usize>) = (0..clocks.len())
                .partition(|file| clocks.get(*file).is_some_and(|clock| clock.ahead.is_some()));
            let pairs = unknown.iter().flat_map(|file| known.iter().map(move |of| (*of, *file)));
            let best = pairs
                .filter_map(|(of, file)| Some((of, file, self.offset(of, file)?)))
                .max_by_key(|(of, file, offset)| (offset.exchanges, usize::MAX - file, usize::MAX - of));
            let Some((of, file, offset)) = best else { return clocks };
            let base = clocks.get(of).and_then(|clock| clock.ahead).unwrap_or_default();
            if let Some(clock) = clocks.get_mut(file) {
                let uncertain = Duration::from_nanos(offset.uncertain.unsigned_abs());
                // Within what it may be wrong by it is the same clock.
                let ahead = if offset.ahead.abs() <= offset.uncertain { 0 } else { offset.ahead };
                clock.ahead = Some((base.0.saturating_add(ahead), base.1 + uncertain));
                clock.exchanges = offset.exchanges;
            }
        }
    }

    fn overlaps(&self, index: usize) -> bool {
        let Some(own) = self.spans.get(index) else { return false };
        let others = self.spans.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, other)| other).any(|other| own.0 <= other.1 && other.0 <= own.1)
    }

    /// How far the clock of `file` is ahead of that of `of`.
    fn offset(&self, of: usize, file: usize) -> Option<Offset> {
        let (mut whole, mut lone) = (Vec::new(), Vec::new());
        for seen in self.all.values() {
            let at = |file: usize| seen.iter().find(|seen| usize::from(seen.file) == file);
            let (Some(one), Some(other)) = (at(of), at(file)) else { continue };
            let between = |one: Option<u64>, other: Option<u64>| Some(difference(other?, one?));
            let (query, response) = (between(one.query, other.query), between(one.response, other.response));
            match (query, response) {
                (Some(query), Some(response)) => whole.push(Offset {
                    ahead: query.midpoint(response),
                    uncertain: query.abs_diff(response).div_ceil(2).try_into().unwrap_or(i64::MAX),
                    exchanges: 1,
                }),
                (Some(ahead), None) | (None, Some(ahead)) => {
                    lone.push(Offset { ahead, uncertain: ONE_WAY, exchanges: 1 });
                }
                (None, None) => {}
            }
        }
        agreed(whole).or_else(|| agreed(lone))
    }
}

impl Seen {
    const fn is_whole(&self) -> bool {
        self.query.is_some() && self.response.is_some()
    }
}

#[derive(Clone, Copy, Debug)]
struct Offset {
    ahead: i64,
    uncertain: i64,
    exchanges: u64,
}

fn difference(one: u64, other: u64) -> i64 {
    one.wrapping_sub(other).cast_signed()
}

/// What most of these say: of those that agree the surest, in the middle where several are.
fn agreed(mut all: Vec<Offset>) -> Option<Offset> {
    all.sort_unstable_by_key(|offset| (offset.ahead, offset.uncertain));
    let agreeing = |from: usize| {
        let first = all.get(from).map_or(0, |offset| offset.ahead);
        let end = all.partition_point(|offset| offset.ahead <= first.saturating_add(AGREE));
        all.get(from..end).unwrap_or_default()
    };
    let most = (0..all.len()).map(agreeing).max_by_key(|agreeing| agreeing.len())?;
    let least = most.iter().map(|offset| offset.uncertain).min()?;
    let surest: SmallVec<[&Offset; 8]> = most.iter().filter(|offset| offset.uncertain == least).collect();
    let middle = surest.get(surest.len() / 2)?;
    Some(Offset { exchanges: most.len() as u64, ..**middle })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DnsMessage, Flags, Flow, Timestamp, VantageId};

    const MS: i64 = 1_000_000;
    const START: i64 = 1_700_000_000_000_000_000;

    /// A message of exchange `id`, as a file saw it at `millis` by its own clock.
    fn message(id: u16, response: bool, nanos: i64) -> Sighting {
        let flow =
            Flow { source: "10.0.0.5:4000".parse().unwrap(), destination: "10.244.2.2:53".parse().unwrap() };
        Sighting {
            frame: 1,
            time: Timestamp::from_nanos((START + nanos).unsigned_abs()),
            vantage: VantageId(0),
            transport: Transport::Udp,
            flow: if response { flow.reversed() } else { flow },
            destination_mac: None,
            source_mac: None,
            ttl: 64,
            ip_id: 0,
            dont_fragment: true,
            nat: None,
            body: SightingBody::Dns(DnsMessage {
                id,
                flags: Flags(if response { 0x8180 } else { 0x0100 }),
                has_question: true,
                ..DnsMessage::default()
            }),
        }
    }

    /// What two files saw: who asks in the first one, 0.2 ms there and 0.3 ms back, 1 ms in the server.
    fn exchange(all: &mut Exchanges, id: u16, at: i64, ahead: i64) {
        for (file, response, time) in [
            (0, false, at),
            (1, false, at + ahead + MS / 5),
            (1, true, at + ahead + MS / 5 + MS),
            (0, true, at + MS / 2 + MS),
        ] {
            all.see(&message(id, response, time), file);
        }
    }

    #[test]
    fn an_exchange_in_two_files_bounds_the_offset_from_both_sides() {
        for ahead in [3_000 * MS, -3_000 * MS, 86_400_000 * MS] {
            let mut all = Exchanges::new(2);
            exchange(&mut all, 1, 0, ahead);
            let clock = all.clocks()[1];
            let (found, uncertain) = clock.ahead.unwrap();
            assert!((found - ahead).abs() <= MS / 4 && uncertain == Duration::from_micros(250), "{clock:?}");
            assert_eq!((clock.exchanges, clock.shift()), (1, -found));
        }
    }

    #[test]
    fn one_clock_stays_as_it_is() {
        let mut all = Exchanges::new(2);
        for id in 0..50 {
            exchange(&mut all, id, i64::from(id) * 20 * MS, 0);
        }
        assert_eq!(all.clocks()[1].ahead, Some((0, Duration::from_micros(250))));
        assert!(!all.clocks()[1].is_worth_a_word());
    }

    #[test]
    fn what_does_not_agree_is_outvoted() {
        let mut all = Exchanges::new(2);
        for id in 0..20 {
            exchange(&mut all, id, i64::from(id) * 20 * MS, 3_000 * MS);
        }
        // The same ids used again, of which the second file saw only the later ones; and a query that was lost once.
        for id in 100..115 {
            exchange(&mut all, id, i64::from(id) * 60_000 * MS, 3_000 * MS - 40_000 * MS * i64::from(id));
        }
        all.see(&message(500, false, 0), 0);
        exchange(&mut all, 500, 5_000 * MS, 3_000 * MS);
        let clock = all.clocks()[1];
        assert!((clock.ahead.unwrap().0 - 3_000 * MS).abs() <= MS, "{clock:?}");
    }

    #[test]
    fn lone_messages_tell_large_differences_only() {
        for (ahead, told) in [(3_000 * MS, true), (30 * MS, false)] {
            let mut all = Exchanges::new(2);
            for id in 0..5 {
                all.see(&message(id, false, i64::from(id) * MS), 0);
                all.see(&message(id, false, i64::from(id) * MS + ahead), 1);
            }
            let found = all.clocks()[1].ahead.unwrap();
            assert_eq!(found.0 != 0, told, "{found:?}");
            assert_eq!(found.1, Duration::from_millis(50));
        }
    }

    #[test]
    fn without_a_message_in_both_nothing_is_known() {
        let mut all = Exchanges::new(3);
        all.see(&message(1, false, 0), 0);
        all.see(&message(2, false, 0), 1);
        let clocks = all.clocks();
        assert_eq!((clocks[1].ahead, clocks[1].is_worth_a_word(), clocks[1].shift()), (None, true, 0));
        assert!(!clocks[2].is_worth_a_word(), "an empty file");
    }

    #[test]
    fn a_third_file_is_compared_with_the_second() {
        let mut all = Exchanges::new(3);
        exchange(&mut all, 1, 0, 3_000 * MS);
        for (file, at) in [(1, 0), (2, 1_000 * MS)] {
            all.see(&message(2, false, at), file);
            all.see(&message(2, true, at + MS), file);
        }
        let ahead = all.clocks()[2].ahead.unwrap().0;
        assert!((ahead - 4_000 * MS).abs() <= MS, "{ahead}");
    }

    #[test]
    fn memory_is_bounded_and_the_same_exchanges_are_kept_of_each_file() {
        let mut all = Exchanges::new(2);
        for file in [0, 1] {
            for client in 0..3_u32 {
                for id in 0..u16::MAX {
                    let mut one = message(id, false, i64::from(file) * 3_000 * MS);
                    one.flow.source = std::net::SocketAddr::from((client.to_be_bytes(), 4_000));
                    all.see(&one, file);
                }
            }
        }
        assert!(all.all.len() <= MOST_EXCHANGES && all.all.len() > MOST_EXCHANGES / 4, "{}", all.all.len());
        assert!(all.all.values().all(|seen| seen.len() == 2));
    }
}
