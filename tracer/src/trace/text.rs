//! Text that comes out of a file or goes into one: bounded, without control characters.

/// Characters of a text that are kept. Interface names of the kernel have at most 15 octets, pods' names 253 and
/// their namespaces' 63; other programs put more there.
pub(super) const MAX_TEXT: usize = 384;

/// A file that counts more than this is wrong, and sums of its counts would overflow.
pub(super) const MOST_COUNTED: u64 = 1 << 40;

/// A count as a comment has it.
pub(super) fn count(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().map(|count| count.min(MOST_COUNTED))
}

/// Text of a file as it may be shown: bounded, control characters escaped.
pub(super) fn printable(bytes: &[u8]) -> String {
    escaped(String::from_utf8_lossy(bytes).chars(), MAX_TEXT)
}

/// Text as one part of a comment: bounded, without control characters and what separates parts.
pub(super) fn one_part(text: &str) -> String {
    escaped(text.chars().map(|c| if c == ';' { ',' } else { c }), MAX_TEXT)
}

/// At most `most` characters, escapes counted, so that what was escaped once stays as it is.
fn escaped(text: impl Iterator<Item = char>, most: usize) -> String {
    let mut kept = String::new();
    let mut characters = 0;
    for character in text {
        let before = kept.len();
        if character.is_control() {
            kept.extend(character.escape_default());
            // An escape is ASCII.
            characters += kept.len() - before;
        } else {
            kept.push(character);
            characters += 1;
        }
        if characters >= most {
            if characters > most {
                kept.truncate(before);
            }
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable(b"\x1b[31m"), "\\u{1b}[31m");
        assert_eq!(printable(&[b'x'; 60_000]).len(), MAX_TEXT);
        assert_eq!(one_part("a; b\n"), "a, b\\n");
    }

    #[test]
    fn counts_are_bounded() {
        assert_eq!(count("18446744073709551615"), Some(MOST_COUNTED));
        assert_eq!((count("7"), count("-1"), count("")), (Some(7), None, None));
    }

    proptest! {
        #[test]
        fn what_was_escaped_stays(text in "\\PC*|[\\x00-\\x20;]{0,600}") {
            let once = printable(text.as_bytes());
            prop_assert_eq!(printable(once.as_bytes()), once.clone());
            let once = one_part(&text);
            prop_assert_eq!(one_part(&once), once);
        }
    }
}
