//! Domain names in wire form, folded to lower case.

use smallvec::SmallVec;
use std::{borrow::Borrow, fmt, hash::Hash, str::FromStr};

/// The longest name in wire form, length octets and root included (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// The longest label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A domain name: uncompressed wire form (RFC 1035 section 3.1), ASCII letters folded to lower case (RFC 4343),
/// held inline so that decoding and hashing need no allocation.
///
/// Its bytes come from packets: [`fmt::Display`] escapes them (`\.`, `\\`, `\DDD`), so a shown name is always
/// printable ASCII.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    wire: [u8; MAX_NAME],
}

/// Why bytes or text are no domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label of more than 63 octets, or an empty one that is not the root.
    #[error("a label is empty or longer than 63 octets")]
    Label,
    /// More than 255 octets in wire form.
    #[error("the name is longer than 255 octets")]
    TooLong,
    /// The root label is missing.
    #[error("the name ends without its root label")]
    Unterminated,
    /// A `\DDD` escape above 255 or cut short.
    #[error("a backslash escape is malformed")]
    Escape,
}

impl Name {
    /// The root name.
    pub const ROOT: Self = Self { len: 1, wire: [0; MAX_NAME] };

    /// Reads one uncompressed name that fills `wire` exactly; letters are folded.
    ///
    /// # Errors
    /// When `wire` is no well-formed uncompressed name.
    pub fn from_wire(wire: &[u8]) -> Result<Self, NameError> {
        let mut builder = NameBuilder::new();
        let mut rest = wire;
        loop {
            let (&length, tail) = rest.split_first().ok_or(NameError::Unterminated)?;
            let length = usize::from(length);
            if length == 0 {
                return if tail.is_empty() { Ok(builder.finish()) } else { Err(NameError::Label) };
            }
            let label = tail.get(..length).ok_or(NameError::Unterminated)?;
            builder.push(label)?;
            rest = &tail[length..];
        }
    }

    /// Takes over `wire`, which is another name's [`Self::as_wire`], as it is; anything longer is cut to the root.
    pub(crate) fn copy_wire(&mut self, wire: &[u8]) {
        let (len, wire) = match u8::try_from(wire.len()) {
            Ok(len @ 1..) => (len, wire),
            _ => (1, [0].as_slice()),
        };
        self.len = len;
        if let Some(own) = self.wire.get_mut(..wire.len()) {
            own.copy_from_slice(wire);
        }
    }

    /// Takes over a well-formed name in wire form, folded: length octets are below the letters, so that all octets
    /// can be folded at once.
    pub(crate) fn fold_wire(&mut self, wire: &[u8]) {
        let Some(last) = wire.last_chunk::<STEP>() else {
            self.copy_wire(wire);
            self.wire[..STEP].make_ascii_lowercase();
            return;
        };
        let Ok(len) = u8::try_from(wire.len()) else { return self.copy_wire(&[]) };
        self.len = len;
        for (to, from) in self.wire.as_chunks_mut().0.iter_mut().zip(wire.as_chunks().0) {
            fold_step(to, from);
        }
        // The last step lies over the one before.
        if let Some(to) = self.wire.get_mut(wire.len() - STEP..).and_then(|to| to.first_chunk_mut()) {
            fold_step(to, last);
        }
    }

    /// Builds a name label by label, in order, without the root label.
    ///
    /// # Errors
    /// When a label is empty or too long, or the name is.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        let mut builder = NameBuilder::new();
        for label in labels {
            builder.push(label)?;
        }
        Ok(builder.finish())
    }

    /// The wire form, root label included: 1 to 255 octets.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.wire[..usize::from(self.len)]
    }

    /// The labels from the left, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.as_wire();
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            let length = usize::from(length);
            if length == 0 || length > tail.len() {
                return None;
            }
            let (label, after) = tail.split_at(length);
            rest = after;
            Some(label)
        })
    }

    /// What [`fmt::Display`] shows, piece by piece: printable ASCII.
    pub fn pieces(&self, mut put: impl FnMut(&[u8])) {
        if self.is_root() {
            put(b".");
            return;
        }
        for (index, label) in self.labels().enumerate() {
            if index > 0 {
                put(b".");
            }
            if label.iter().all(|&byte| PLAIN[usize::from(byte)]) {
                put(label);
                continue;
            }
            for &byte in label {
                match byte {
                    b'.' | b'\\' => put(&[b'\\', byte]),
                    0x21..=0x7e => put(&[byte]),
                    _ => put(&[b'\\', b'0' + byte / 100, b'0' + byte / 10 % 10, b'0' + byte % 10]),
                }
            }
        }
    }

    /// The number of labels, root not counted.
    #[must_use]
    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// The number of dots a user would type for it (no trailing one): what `ndots` is compared with.
    #[must_use]
    pub fn dots(&self) -> usize {
        self.label_count().saturating_sub(1)
    }

    /// Whether this is the root name.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.len == 1
    }

    /// Becomes the first labels of `name`, as far as they are whole in the first `octets` of its wire form.
    pub(crate) fn copy_first_labels(&mut self, name: &Self, octets: usize) {
        let all = name.as_wire();
        let mut cut = 0;
        while let Some(&length @ 1..) = all.get(cut)
            && octets - cut > usize::from(length)
        {
            cut += 1 + usize::from(length);
        }
        self.copy_wire(all.get(..=cut).unwrap_or_default());
        // What comes behind is its root label now.
        if let Some(end) = self.wire.get_mut(cut) {
            *end = 0;
        }
    }

    /// Whether this name is `suffix` or below it, on a label boundary.
    #[must_use]
    pub fn ends_with(&self, suffix: &Self) -> bool {
        self.strip_suffix(suffix).is_some()
    }

    /// The labels before `suffix` as a name of their own; `None` where this name is not `suffix` or below it.
    #[must_use]
    pub fn strip_suffix(&self, suffix: &Self) -> Option<Self> {
        let (own, suffix) = (self.as_wire(), suffix.as_wire());
        let cut = own.len().checked_sub(suffix.len())?;
        if &own[cut..] != suffix {
            return None;
        }
        let mut position = 0;
        while position < cut {
            position += 1 + usize::from(own[position]);
        }
        if position != cut {
            return None;
        }
        let mut wire = [0; MAX_NAME];
        wire[..cut].copy_from_slice(&own[..cut]);
        Some(Self { len: u8::try_from(cut + 1).ok()?, wire })
    }

    /// This name with `suffix` put behind it.
    ///
    /// # Errors
    /// When the result is longer than 255 octets.
    pub fn join(&self, suffix: &Self) -> Result<Self, NameError> {
        Self::from_labels(self.labels().chain(suffix.labels()))
    }
}

/// Octets that the processor folds at once.
const STEP: usize = 16;

#[inline]
fn fold_step(to: &mut [u8; STEP], from: &[u8; STEP]) {
    *to = *from;
    to.make_ascii_lowercase();
}

/// Collects labels into a [`Name`]; the wire decoder uses it while it follows compression pointers.
#[derive(Debug)]
pub struct NameBuilder {
    len: usize,
    wire: [u8; MAX_NAME],
}

impl NameBuilder {
    /// An empty name.
    #[must_use]
    pub const fn new() -> Self {
        Self { len: 0, wire: [0; MAX_NAME] }
    }

    /// Adds one label on the right, folded.
    ///
    /// # Errors
    /// When the label is empty or longer than 63 octets, or the name would pass 255.
    pub fn push(&mut self, label: &[u8]) -> Result<(), NameError> {
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(NameError::Label);
        }
        let end = self.len + 1 + label.len();
        if end + 1 > MAX_NAME {
            return Err(NameError::TooLong);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a label is at most 63 octets, checked above")]
        {
            self.wire[self.len] = label.len() as u8;
        }
        for (to, from) in self.wire[self.len + 1..end].iter_mut().zip(label) {
            *to = from.to_ascii_lowercase();
        }
        self.len = end;
        Ok(())
    }

    /// Starts another name.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Puts the name, with its root label, in the place of another: cheaper than [`Self::finish`], since only the
    /// octets that are in use are copied.
    pub fn write_to(&self, name: &mut Name) {
        name.wire[..self.len].copy_from_slice(&self.wire[..self.len]);
        name.wire[self.len] = 0;
        #[expect(clippy::cast_possible_truncation, reason = "push keeps the length below 255")]
        {
            name.len = self.len as u8 + 1;
        }
    }

    /// The name, with its root label.
    #[must_use]
    pub fn finish(self) -> Name {
        #[expect(clippy::cast_possible_truncation, reason = "push keeps the length below 255")]
        Name { len: self.len as u8 + 1, wire: self.wire }
    }
}

impl Default for NameBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// Octets that stand for themselves and are in most names, by value.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = matches!(byte as u8, b'-' | b'0'..=b'9' | b'_' | b'a'..=b'z');
        byte += 1;
    }
    plain
};

impl Default for Name {
    fn default() -> Self {
        Self::ROOT
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_wire() == other.as_wire()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_wire().hash(state);
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_wire()
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_wire().cmp(other.as_wire())
    }
}

/// Presentation form without the trailing dot (`.` for the root); bytes that are not printable ASCII as `\DDD`
/// (RFC 1035 section 5.1), so that no packet can send an escape sequence to a terminal.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written as one: who takes it looks at each piece anew.
        let mut text: SmallVec<[u8; 256]> = SmallVec::new();
        self.pieces(|piece| text.extend_from_slice(piece));
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// Reads presentation form; a trailing dot is allowed.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "." || text.is_empty() {
            return Ok(Self::ROOT);
        }
        let mut builder = NameBuilder::new();
        let mut label = Vec::with_capacity(MAX_LABEL);
        let mut bytes = text.strip_suffix('.').filter(|t| !t.ends_with('\\')).unwrap_or(text).bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' => {
                    builder.push(&label)?;
                    label.clear();
                }
                b'\\' => label.push(unescape(&mut bytes)?),
                _ => label.push(byte),
            }
        }
        builder.push(&label)?;
        Ok(builder.finish())
    }
}

fn unescape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = bytes.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit).ok_or(NameError::Escape)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn folds_case_and_drops_the_trailing_dot() {
        assert_eq!(name("API.Example.COM.").to_string(), "api.example.com");
        assert_eq!(name("."), Name::ROOT);
    }

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        let evil = Name::from_labels([b"\x1b[31m".as_slice(), b"a.b", b"c\\d", b"\xff "]).unwrap();
        assert_eq!(evil.to_string(), "\\027[31m.a\\.b.c\\\\d.\\255\\032");
        assert_eq!(name(&evil.to_string()), evil);
    }

    #[test]
    fn suffixes_match_on_label_boundaries_only() {
        let host = name("api.example.com");
        assert_eq!(host.strip_suffix(&name("example.com")), Some(name("api")));
        assert_eq!(host.strip_suffix(&name("ample.com")), None);
        assert_eq!(host.strip_suffix(&host), Some(Name::ROOT));
        assert_eq!(name("api").join(&name("example.com")), Ok(host));
        assert_eq!(host.dots(), 2);
    }

    #[test]
    fn the_first_labels_are_those_that_are_whole() {
        let first_labels = |host: &Name, octets| {
            let mut first = name("left.behind");
            first.copy_first_labels(host, octets);
            first
        };
        let host = name("api.example.com");
        for (octets, first) in [(0, "."), (3, "."), (4, "api"), (11, "api"), (12, "api.example")] {
            assert_eq!(first_labels(&host, octets), name(first), "{octets}");
        }
        assert_eq!(first_labels(&host, usize::MAX), host);
        assert_eq!(first_labels(&Name::ROOT, 7), Name::ROOT);
    }

    #[test]
    fn a_builder_serves_again_and_leaves_nothing_of_the_name_before() {
        let (mut builder, mut place) = (NameBuilder::new(), name("a.much.longer.name"));
        for text in ["www.example.com", "b", "."] {
            builder.clear();
            for label in name(text).labels() {
                builder.push(label).unwrap();
            }
            builder.write_to(&mut place);
            assert_eq!(place, name(text));
        }
    }

    #[test]
    fn refuses_what_is_no_name() {
        assert_eq!(Name::from_wire(b""), Err(NameError::Unterminated));
        assert_eq!(Name::from_wire(b"\x03ab"), Err(NameError::Unterminated));
        assert_eq!(Name::from_wire(b"\0x"), Err(NameError::Label));
        assert_eq!(Name::from_wire(b"\xc0\x0c"), Err(NameError::Unterminated));
        assert_eq!("a..b".parse::<Name>(), Err(NameError::Label));
        assert_eq!("\\999".parse::<Name>(), Err(NameError::Escape));
    }

    proptest! {
        #[test]
        fn any_bytes_as_wire_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = Name::from_wire(&bytes) {
                prop_assert_eq!(name.as_wire().len(), bytes.len());
                prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
                prop_assert!(name.to_string().bytes().all(|b| (0x21..=0x7e).contains(&b)));
            }
        }
    }
}
