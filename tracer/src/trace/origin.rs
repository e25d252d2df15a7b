//! Who recorded, where and of what: a section header's options.
//!
//! Rule: the options that pcapng has say what they are for (`shb_hardware` the node, `shb_os` its kernel,
//! `shb_userappl` dnspath and its version); what else is known is the comment, in parts that a person reads:
//! `dnspath: source node-7; clock 2026-11-20T12:00:00.000000000Z at monotonic 81 ns; hook tcx`. The sources are read
//! back from it.

use super::note::{PREFIX, SEPARATOR};
use super::text::{self, MAX_TEXT};

/// What `shb_userappl` starts with in a recording of dnspath.
const APPLICATION: &str = "dnspath ";
const SOURCE: &str = "source ";
/// Namespaces and facts of a header that are kept: far more than any session has.
const MOST_PARTS: usize = 1_024;

/// What a recording says of its making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The version of dnspath; empty in the files of other programs.
    pub version: String,
    /// The node and what it is, as `node-7 (x86_64)`.
    pub node: String,
    /// The kernel with its version.
    pub kernel: String,
    /// What was watched, as a report names it.
    pub sources: Vec<String>,
    /// What else was found when capture started, each a few words: the clock's anchor, capabilities.
    pub facts: Vec<String>,
}

impl Origin {
    /// Reads a section header's options; a program other than dnspath says nothing that is kept.
    pub(super) fn read(application: &[u8], hardware: &[u8], system: &[u8], comment: &[u8]) -> Option<Self> {
        let version = std::str::from_utf8(application).ok()?.strip_prefix(APPLICATION)?;
        let mut origin = Self {
            version: text::printable(version.as_bytes()),
            node: text::printable(hardware),
            kernel: text::printable(system),
            ..Self::default()
        };
        let comment = std::str::from_utf8(comment).ok().and_then(|comment| comment.strip_prefix(PREFIX));
        for part in
            comment.unwrap_or_default().split(SEPARATOR).filter(|part| !part.is_empty()).take(MOST_PARTS)
        {
            match part.strip_prefix(SOURCE) {
                Some(source) => origin.sources.push(text::printable(source.as_bytes())),
                None => origin.facts.push(text::printable(part.as_bytes())),
            }
        }
        Some(origin)
    }

    /// `shb_userappl`.
    pub(super) fn application(&self) -> String {
        format!("{APPLICATION}{}", text::one_part(&self.version))
    }

    /// The comment; an option holds 65,535 octets, so that parts beyond 32 KiB are left out.
    pub(super) fn comment(&self) -> String {
        let mut comment = String::from(PREFIX);
        let sources = self.sources.iter().map(|source| (SOURCE, source));
        for (key, value) in sources.chain(self.facts.iter().map(|fact| ("", fact))).take(MOST_PARTS) {
            if comment.len() > 32 * 1024 - 4 * MAX_TEXT {
                break;
            }
            if comment.len() > PREFIX.len() {
                comment.push_str(SEPARATOR);
            }
            comment.push_str(key);
            comment.push_str(&text::one_part(value));
        }
        comment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(origin: &Origin) -> Option<Origin> {
        Origin::read(
            origin.application().as_bytes(),
            origin.node.as_bytes(),
            origin.kernel.as_bytes(),
            origin.comment().as_bytes(),
        )
    }

    #[test]
    fn a_header_is_read_back() {
        let origin = Origin {
            version: "0.1.0".into(),
            node: "node-7 (x86_64)".into(),
            kernel: "Linux 6.18".into(),
            sources: vec!["netns blue".into(), "netns green".into()],
            facts: vec!["hook tcx".into(), "translation read".into()],
        };
        assert_eq!(
            origin.comment(),
            "dnspath: source netns blue; source netns green; hook tcx; translation read"
        );
        assert_eq!(read(&origin), Some(origin));
        assert_eq!(read(&Origin::default()), Some(Origin::default()));
    }

    #[test]
    fn headers_of_others_say_nothing() {
        assert_eq!(Origin::read(b"Dumpcap 4.0", b"", b"Linux", b"dnspath: source x"), None);
        assert_eq!(Origin::read(b"", b"", b"", b""), None);
    }

    #[test]
    fn hostile_words_stay_in_their_part_and_bounded() {
        let origin = Origin {
            sources: vec!["a; source b\x1b[31m".into(), "x".repeat(100_000)],
            facts: vec!["y".into(); 100_000],
            ..Origin::default()
        };
        let comment = origin.comment();
        assert!(comment.len() < 40_000);
        assert!(!comment.contains('\x1b'));
        assert_eq!(read(&origin).unwrap().sources.len(), 2);
    }
}
