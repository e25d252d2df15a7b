//! Why a capture file cannot be read.

use std::io;

/// Why a capture file cannot be read. `file` is the path as given; `standard input` for `-`.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened.
    #[error("cannot open {file}: {source}; check the path and its permissions")]
    Open {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Reading or decompressing failed.
    #[error("cannot read {file} at octet {offset}: {source}; copy or record it again")]
    Read {
        /// The file.
        file: String,
        /// Uncompressed octets read before.
        offset: u64,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// The file has no content.
    #[error("{file} is empty; give a pcap or pcapng file that tcpdump, Wireshark or `dnspath record` wrote")]
    Empty {
        /// The file.
        file: String,
    },
    /// The first octets are those of no format that is read.
    #[error(
        "{file} is neither pcap nor pcapng (it starts with {magic:02x?}); give a file that tcpdump, Wireshark or \
         `dnspath record` wrote"
    )]
    UnknownFormat {
        /// The file.
        file: String,
        /// Its first octets.
        magic: Vec<u8>,
    },
    /// What is at `offset` is no record; everything before it has been read.
    #[error(
        "{file} is damaged at octet {offset}: {what}; the {frames} frames before it were read. Cut the file \
         there (`editcap`), or join files with `mergecap` in place of `cat`"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Uncompressed octets before the damage.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
        /// Frames read before it.
        frames: u64,
    },
}
