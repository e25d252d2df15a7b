//! The pcap format (draft-ietf-opsawg-pcap): a file header, then records.

use super::link;
use crate::model::{LinkType, Timestamp};

/// Octets of the file header.
pub(super) const FILE_HEADER_LEN: usize = 24;
/// Octets of a record's header.
pub(super) const RECORD_HEADER_LEN: usize = 16;

/// What the file header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    magic: [u8; 4],
    big_endian: bool,
    nanos_per_tick: u64,
    pub(super) link: LinkType,
}

/// What a record's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Captured octets.
    pub(super) len: usize,
    /// Octets on the wire.
    pub(super) original_len: u32,
    /// When.
    pub(super) time: Timestamp,
}

/// A file's byte order and tick, from its magic; `None` where it is no pcap.
pub(super) fn recognise(magic: [u8; 4]) -> Option<Header> {
    let (big_endian, nanos_per_tick) = match magic {
        [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1_000),
        [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1_000),
        [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1),
        [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1),
        _ => return None,
    };
    Some(Header { magic, big_endian, nanos_per_tick, link: LinkType::default() })
}

impl Header {
    /// Takes the link type from the whole file header; its upper bits tell of frame check sequences.
    pub(super) fn read(self, header: &[u8; FILE_HEADER_LEN]) -> Self {
        let [.., n0, n1, n2, n3] = *header;
        let network = self.word([n0, n1, n2, n3]);
        Self { link: link::from_linktype((network & 0xffff) as u16), ..self }
    }

    /// Reads a record's header.
    ///
    /// # Errors
    /// With what is wrong, when it is the header of a second file behind the first: their records may not be of
    /// the same kind.
    #[inline]
    pub(super) fn record(&self, header: &[u8; RECORD_HEADER_LEN]) -> Result<Record, &'static str> {
        let [s0, s1, s2, s3, t0, t1, t2, t3, c0, c1, c2, c3, l0, l1, l2, l3] = *header;
        let captured = self.word([c0, c1, c2, c3]);
        let original_len = self.word([l0, l1, l2, l3]);
        if [s0, s1, s2, s3] == self.magic && captured == 0 && original_len == 0 {
            return Err("a second file's header");
        }
        let seconds = u64::from(self.word([s0, s1, s2, s3]));
        let ticks = u64::from(self.word([t0, t1, t2, t3]));
        Ok(Record {
            len: captured as usize,
            original_len,
            time: Timestamp::from_nanos(seconds * 1_000_000_000 + ticks * self.nanos_per_tick),
        })
    }

    #[inline]
    const fn word(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}
