//! Enhanced packet blocks (draft-ietf-opsawg-pcapng section 4.3), put together where they are to lie.
//!
//! All other blocks are pcap-file's; this one is written for every packet, and by pcap-file it took a third of what
//! recording costs: its options are vectors and strings of their own.

use crate::model::Timestamp;

const TYPE: u32 = 6;
const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_FLAGS: u16 = 2;
/// Type, length, interface, two halves of the time, octets captured and on the wire; and the length again at the end.
const FIXED: usize = 7 * 4 + 4;
/// An option's code and length.
const OPTION_HEADER: usize = 4;

/// What a block says of one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacketBlock<'a> {
    /// The interface's number in its section.
    pub(super) interface: u32,
    /// To the nanosecond, as the interface's `if_tsresol` has to say.
    pub(super) time: Timestamp,
    /// Octets on the wire.
    pub(super) original_len: u32,
    /// What was captured.
    pub(super) bytes: &'a [u8],
    /// `epb_flags`: its two lowest bits are the direction.
    pub(super) flags: Option<u32>,
    /// `opt_comment`; none where it is empty.
    pub(super) comment: &'a [u8],
}

impl PacketBlock<'_> {
    /// Appends the block, in little endian.
    pub(super) fn append(&self, to: &mut Vec<u8>) {
        let comment = self.comment.get(..usize::from(u16::MAX)).unwrap_or(self.comment);
        let of_flags = if self.flags.is_some() { OPTION_HEADER + 4 } else { 0 };
        let of_comment = if comment.is_empty() { 0 } else { OPTION_HEADER + padded(comment.len()) };
        let of_end = if of_flags + of_comment > 0 { OPTION_HEADER } else { 0 };
        let total = FIXED + padded(self.bytes.len()) + of_flags + of_comment + of_end;
        // Frames are cut to 256 KiB before.
        let [total_word, captured] = [total, self.bytes.len()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let nanos = self.time.as_nanos();
        let head = [
            TYPE,
            total_word,
            self.interface,
            (nanos >> 32) as u32,
            (nanos & 0xffff_ffff) as u32,
            captured,
            self.original_len,
        ];
        to.reserve(total);
        to.extend_from_slice(head.map(u32::to_le_bytes).as_flattened());
        append_padded(to, self.bytes);
        if let Some(flags) = self.flags {
            append_option(to, OPTION_FLAGS, &flags.to_le_bytes());
        }
        if !comment.is_empty() {
            append_option(to, OPTION_COMMENT, comment);
        }
        if of_end > 0 {
            append_option(to, OPTION_END, &[]);
        }
        to.extend_from_slice(&total_word.to_le_bytes());
    }
}

fn append_option(to: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Comments are cut to what fits before.
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    to.extend_from_slice([code, len].map(u16::to_le_bytes).as_flattened());
    append_padded(to, value);
}

fn append_padded(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(bytes);
    let padding = padded(bytes.len()) - bytes.len();
    to.extend_from_slice([0; 3].get(..padding).unwrap_or_default());
}

const fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{
        Block, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            section_header::SectionHeaderBlock,
        },
    };
    use pcap_file::{DataLink, Endianness};
    use proptest::prelude::*;
    use std::{borrow::Cow, time::Duration};

    /// The same block by pcap-file.
    fn by_pcap_file(block: &PacketBlock<'_>) -> Vec<u8> {
        let section = SectionHeaderBlock { endianness: Endianness::Little, ..SectionHeaderBlock::default() };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), section).unwrap();
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![InterfaceDescriptionOption::IfTsResol(9)],
        };
        writer.write_block(&Block::InterfaceDescription(interface)).unwrap();
        let before = writer.get_ref().len();
        let mut options = Vec::new();
        options.extend(block.flags.map(EnhancedPacketOption::Flags));
        if !block.comment.is_empty() {
            let comment = std::str::from_utf8(block.comment).unwrap();
            options.push(EnhancedPacketOption::Comment(Cow::Borrowed(comment)));
        }
        let packet = EnhancedPacketBlock {
            interface_id: block.interface,
            timestamp: Duration::from_nanos(block.time.as_nanos()),
            original_len: block.original_len,
            data: Cow::Borrowed(block.bytes),
            options,
        };
        writer.write_block(&Block::EnhancedPacket(packet)).unwrap();
        writer.get_ref()[before..].to_vec()
    }

    proptest! {
        #[test]
        fn a_block_has_the_octets_that_pcap_file_gives_it(
            time: u64,
            more in 0..4_000_u32,
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            flags in proptest::option::of(0..3_u32),
            comment in "[ -~]{0,90}",
        ) {
            let block = PacketBlock {
                interface: 0,
                time: Timestamp::from_nanos(time),
                original_len: bytes.len() as u32 + more,
                bytes: &bytes,
                flags,
                comment: comment.as_bytes(),
            };
            let mut ours = vec![7];
            block.append(&mut ours);
            prop_assert_eq!(&ours[1..], by_pcap_file(&block));
        }
    }
}
