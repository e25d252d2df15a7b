//! Archives that the kernel unpacks as its first file system: cpio's "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Several, one behind the other, are one.

use std::fmt::Write as _;

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// An archive in the making. Folders must come before what is in them.
#[derive(Default)]
pub(super) struct Archive {
    octets: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// A folder.
    pub(super) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, b"");
    }

    /// A file with these permissions.
    pub(super) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, FILE | permissions, content);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.entry(path, LINK | 0o777, to.as_bytes());
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.octets
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name with its NUL, checksum.
        let name_len = path.len() as u32 + 1;
        let mut header = "070701".to_owned();
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0] {
            // Writing to a String cannot fail.
            let _ = write!(header, "{field:08x}");
        }
        self.octets.extend(header.as_bytes());
        self.octets.extend(path.as_bytes());
        self.octets.push(0);
        self.pad();
        self.octets.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_laid_out_as_the_kernel_reads_them() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"hello");
        let octets = archive.finish();
        assert_eq!(&octets[..22], b"07070100000001000081ed");
        // The size is the seventh field, the length of the name the twelfth.
        assert_eq!(&octets[54..62], b"00000005");
        assert_eq!(&octets[94..102], b"00000005");
        assert_eq!(&octets[110..115], b"init\0");
        assert_eq!(&octets[116..124], b"hello\0\0\0");
        assert_eq!(&octets[124..130], b"070701");
        assert!(octets.len().is_multiple_of(4));
    }
}
