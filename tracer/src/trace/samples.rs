//! Capture files for tests, built octet by octet in either byte order.

use std::io::Write;

/// A byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Big,
    Little,
}

impl Order {
    pub(super) fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn u64(self, value: u64) -> [u8; 8] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// A pcap file of (seconds, ticks, octets) records.
    pub(super) fn pcap(self, magic: u32, linktype: u32, records: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut file = self.u32(magic).to_vec();
        file.extend(self.u16(2));
        file.extend(self.u16(4));
        file.extend([0; 8]);
        file.extend(self.u32(262_144));
        file.extend(self.u32(linktype));
        for (seconds, ticks, bytes) in records {
            let len = u32::try_from(bytes.len()).unwrap();
            for word in [*seconds, *ticks, len, len + 5] {
                file.extend(self.u32(word));
            }
            file.extend(*bytes);
        }
        file
    }

    /// A pcapng block.
    pub(super) fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let len = self.u32(u32::try_from(body.len().next_multiple_of(4) + 12).unwrap());
        let mut block = self.u32(kind).to_vec();
        block.extend(len);
        block.extend(body);
        block.resize(block.len().next_multiple_of(4), 0);
        block.extend(len);
        block
    }

    /// Options, with the one that ends them.
    pub(super) fn options(self, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, value) in options.iter().chain([&(0, [].as_slice())]) {
            bytes.extend(self.u16(*code));
            bytes.extend(self.u16(u16::try_from(value.len()).unwrap()));
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// A section header block.
    pub(super) fn section(self) -> Vec<u8> {
        let body = [&self.u32(0x1a2b_3c4d)[..], &self.u16(1), &self.u16(0), &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    /// An interface description block.
    pub(super) fn interface(self, linktype: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
        let body = [&self.u16(linktype)[..], &[0, 0], &self.u32(0), &self.options(options)].concat();
        self.block(1, &body)
    }

    /// An enhanced packet block.
    pub(super) fn packet(
        self,
        interface: u32,
        ticks: u64,
        bytes: &[u8],
        options: &[(u16, &[u8])],
    ) -> Vec<u8> {
        let len = u32::try_from(bytes.len()).unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a time")]
        let words = [interface, (ticks >> 32) as u32, ticks as u32, len, len + 5];
        let mut body: Vec<u8> = words.iter().flat_map(|&word| self.u32(word)).collect();
        body.extend(bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(self.options(options));
        self.block(6, &body)
    }
}

/// `bytes` in gzip.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `bytes` in zstd.
pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}
