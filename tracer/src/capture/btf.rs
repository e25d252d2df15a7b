//! Offsets of kernel struct members, values of enums and arguments of tracepoints, from the running kernel's BTF
//! (Documentation/bpf/btf.rst).
//!
//! BPF programs in Rust have no CO-RE relocations: the loader reads the offsets here and passes them as globals.
//! Only what that needs is read. A module's own BTF is a second part: its ids and string offsets go on where the
//! kernel's end.

use std::{fs, io, path::Path};

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
const TYPE: usize = 12;

const KIND_INT: u32 = 1;
const KIND_POINTER: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Members can be anonymous structs in anonymous unions; the kernel nests them a few levels.
const MAX_NESTING: u32 = 8;

/// A kernel's type information.
#[derive(Debug)]
pub struct Btf {
    /// The kernel's own, then a module's.
    parts: Vec<Part>,
}

/// One file of BTF.
#[derive(Debug)]
struct Part {
    data: Vec<u8>,
    strings: usize,
    strings_len: usize,
    /// Offset of each type's record; in the first part index 0 is type 1.
    types: Vec<u32>,
}

/// A type's record, or a member's: which part it is in, and where.
#[derive(Clone, Copy, Debug)]
struct At {
    part: usize,
    at: usize,
}

impl At {
    const fn plus(self, octets: usize) -> Self {
        Self { part: self.part, at: self.at + octets }
    }
}

/// Why BTF could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error(
        "cannot read the kernel's BTF at {path}: {source}; without it translated packets are joined by their content"
    )]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Not BTF, or a version this reader does not know.
    #[error("the kernel's BTF at {path} is malformed at octet {at}")]
    Malformed {
        /// Which file.
        path: String,
        /// Where.
        at: usize,
    },
}

impl Btf {
    /// Reads `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// When the kernel has none, or it cannot be read.
    pub fn of_kernel() -> Result<Self, BtfError> {
        Self::read(Path::new("/sys/kernel/btf/vmlinux"))
    }

    /// Adds what the module `name` defines, where it has BTF of its own (`/sys/kernel/btf/NAME`).
    ///
    /// # Errors
    /// When there is none, which is so for a module that is built in or not loaded, or it cannot be read.
    pub fn add_module(&mut self, name: &str) -> Result<(), BtfError> {
        let module = Self::read(&Path::new("/sys/kernel/btf").join(name))?;
        self.parts.truncate(1);
        self.parts.extend(module.parts);
        Ok(())
    }

    fn read(path: &Path) -> Result<Self, BtfError> {
        let shown = path.display().to_string();
        let data = fs::read(path).map_err(|source| BtfError::Read { path: shown.clone(), source })?;
        Self::parse(data).map_err(|at| BtfError::Malformed { path: shown, at })
    }

    /// Walks the type section once; the error is the offset at which it stopped making sense.
    fn parse(data: Vec<u8>) -> Result<Self, usize> {
        let header_len = u32_at(&data, 4).ok_or(4_usize)? as usize;
        if u16_at(&data, 0) != Some(MAGIC) || header_len < HEADER {
            return Err(0);
        }
        let word = |at| u32_at(&data, at).map(|value| value as usize).ok_or(at);
        let (types_at, types_len) = (header_len.saturating_add(word(8)?), word(12)?);
        let (strings, strings_len) = (header_len.saturating_add(word(16)?), word(20)?);
        let end = types_at.checked_add(types_len).filter(|&end| end <= data.len()).ok_or(12_usize)?;
        let mut types = Vec::new();
        let mut at = types_at;
        while at < end {
            types.push(u32::try_from(at).map_err(|_| at)?);
            let info = u32_at(&data, at + 4).ok_or(at)?;
            at += TYPE + tail_len(info);
        }
        Ok(Self { parts: vec![Part { data, strings, strings_len, types }] })
    }

    /// Offset in octets of `member` in the struct or union `name`; a member may lie in anonymous members.
    #[must_use]
    pub fn member_offset(&self, name: &str, member: &str) -> Option<u32> {
        self.structs_named(name)
            .find_map(|at| self.offset_within(at, member, MAX_NESTING))
            .map(|bits| bits / 8)
    }

    /// Octets of the struct or union `name`.
    #[must_use]
    pub fn size_of(&self, name: &str) -> Option<u32> {
        self.structs_named(name).find_map(|at| self.word(at.plus(8)))
    }

    /// Names and values of the enum `name`; empty where there is none. Values of more than 32 bits are left out.
    #[must_use]
    pub fn enum_values(&self, name: &str) -> Vec<(String, u32)> {
        let value = |at: At, wide: bool| {
            let value = self.word(at.plus(4))?;
            let high = if wide { self.word(at.plus(8))? } else { 0 };
            let name = String::from_utf8_lossy(self.name_at(at)?).into_owned();
            (high == 0).then_some((name, value))
        };
        let Some((at, info)) = self.named(name, |kind| matches!(kind, KIND_ENUM | KIND_ENUM64)).next() else {
            return Vec::new();
        };
        let wide = kind(info) == KIND_ENUM64;
        let size = if wide { 12 } else { 8 };
        (0..vlen(info)).filter_map(|index| value(at.plus(TYPE + size * index), wide)).collect()
    }

    /// How many arguments the tracepoint `name` hands to a program.
    #[must_use]
    pub fn tracepoint_arguments(&self, name: &str) -> Option<u32> {
        // typedef void (*btf_trace_NAME)(void *, the arguments)
        let (typedef, _) = self.named(&format!("btf_trace_{name}"), |kind| kind == KIND_TYPEDEF).next()?;
        let pointer = self.type_at(self.word(typedef.plus(8))?)?;
        let prototype = self.type_at(self.word(pointer.plus(8))?)?;
        let (of_pointer, info) = (self.word(pointer.plus(4))?, self.word(prototype.plus(4))?);
        let as_expected = kind(of_pointer) == KIND_POINTER && kind(info) == KIND_FUNC_PROTO;
        u32::try_from(vlen(info).checked_sub(1)?).ok().filter(|_| as_expected)
    }

    fn structs_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = At> + 'a {
        self.named(name, |kind| matches!(kind, KIND_STRUCT | KIND_UNION))
            .filter(|(_, info)| vlen(*info) > 0)
            .map(|(at, _)| at)
    }

    /// Types of that name and kind, each with its `info`.
    fn named<'a>(
        &'a self,
        name: &'a str,
        is_kind: impl Fn(u32) -> bool + 'a,
    ) -> impl Iterator<Item = (At, u32)> + 'a {
        let all = self.parts.iter().enumerate();
        all.flat_map(|(part, types)| types.types.iter().map(move |&at| At { part, at: at as usize }))
            .filter_map(move |at| {
                let info = self.word(at.plus(4))?;
                (is_kind(kind(info)) && self.is_named(at, name)).then_some((at, info))
            })
    }

    /// The member's offset in bits.
    fn offset_within(&self, of: At, member: &str, depth: u32) -> Option<u32> {
        let info = self.word(of.plus(4))?;
        for index in 0..vlen(info) {
            let at = of.plus(TYPE + 12 * index);
            let raw = self.word(at.plus(8))?;
            // With the kind flag the upper octet is a bit field's size.
            let offset = if info >> 31 == 1 { raw & 0x00ff_ffff } else { raw };
            let name = self.name_at(at)?;
            if name == member.as_bytes() {
                return Some(offset);
            }
            if name.is_empty() && depth > 0 {
                let inner = self.type_at(self.word(at.plus(4))?)?;
                let is_composite =
                    self.word(inner.plus(4)).is_some_and(|i| matches!(kind(i), KIND_STRUCT | KIND_UNION));
                if is_composite && let Some(within) = self.offset_within(inner, member, depth - 1) {
                    return offset.checked_add(within);
                }
            }
        }
        None
    }

    fn type_at(&self, id: u32) -> Option<At> {
        let mut index = (id as usize).checked_sub(1)?;
        for (part, types) in self.parts.iter().enumerate() {
            match types.types.get(index) {
                Some(&at) => return Some(At { part, at: at as usize }),
                None => index -= types.types.len(),
            }
        }
        None
    }

    fn word(&self, at: At) -> Option<u32> {
        u32_at(&self.parts.get(at.part)?.data, at.at)
    }

    fn is_named(&self, at: At, name: &str) -> bool {
        let rest = self.name_and_rest(at).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The name that the first word at `at` points to.
    fn name_at(&self, at: At) -> Option<&[u8]> {
        let rest = self.name_and_rest(at)?;
        rest.iter().position(|&byte| byte == 0).map(|end| &rest[..end])
    }

    /// From that name on to the end of all names.
    fn name_and_rest(&self, at: At) -> Option<&[u8]> {
        let mut offset = self.word(at)? as usize;
        // A module's string offsets go on where the kernel's end.
        let part = match self.parts.first() {
            Some(kernel) if at.part > 0 && offset >= kernel.strings_len => {
                offset -= kernel.strings_len;
                self.parts.get(at.part)?
            }
            kernel => kernel?,
        };
        part.data.get(part.strings.checked_add(offset)?..)
    }
}

/// Octets that follow a type's record.
const fn tail_len(info: u32) -> usize {
    match kind(info) {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * vlen(info),
        KIND_ENUM | KIND_FUNC_PROTO => 8 * vlen(info),
        _ => 0,
    }
}

const fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

const fn vlen(info: u32) -> usize {
    (info & 0xffff) as usize
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct s { int a; union { int b; struct { int c; int d; }; }; int bits:3 }`, by hand.
    fn example() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0c\0d\0int\0bits\0";
        let mut types: Vec<u32> = vec![11, KIND_INT << 24, 4, 32]; // 1: int
        types.extend([0, KIND_STRUCT << 24 | 2, 8, 7, 1, 0, 9, 1, 32]); // 2: struct { c; d }
        types.extend([0, KIND_UNION << 24 | 2, 8, 5, 1, 0, 0, 2, 0]); // 3: union { b; 2 }
        types.extend([1, 1 << 31 | KIND_STRUCT << 24 | 3, 16, 3, 1, 0, 0, 3, 32, 15, 1, 3 << 24 | 96]); // 4: s
        file(&types, strings)
    }

    fn file(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut data = MAGIC.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_through_anonymous_ones() {
        let btf = Btf::parse(example()).unwrap();
        let offsets = ["a", "b", "c", "d", "bits", "x"].map(|member| btf.member_offset("s", member));
        assert_eq!(offsets, [Some(0), Some(4), Some(4), Some(8), Some(12), None]);
        assert_eq!(btf.size_of("s"), Some(16));
        assert_eq!(btf.member_offset("no_such", "a"), None);
    }

    /// As a module: `enum e { A = 7 }`, `typedef void (*btf_trace_t)(void *, int)`, `struct m { int n; struct s s; }`.
    fn module() -> Vec<u8> {
        let (first_string, first_id) = (20, 5);
        let strings = b"\0e\0A\0btf_trace_t\0m\0n\0";
        let string = |at: u32| first_string + at;
        let mut types: Vec<u32> = vec![string(1), KIND_ENUM << 24 | 1, 4, string(3), 7];
        types.extend([0, KIND_FUNC_PROTO << 24 | 2, 0, 0, 0, 0, 1]);
        types.extend([0, KIND_POINTER << 24, first_id + 1]);
        types.extend([string(5), KIND_TYPEDEF << 24, first_id + 2]);
        types.extend([string(17), KIND_STRUCT << 24 | 2, 20, string(19), 1, 0, 1, 4, 32]);
        file(&types, strings)
    }

    #[test]
    fn a_modules_types_go_on_where_the_kernels_end() {
        let mut btf = Btf::parse(example()).unwrap();
        assert_eq!(btf.parts[0].strings_len, 20);
        btf.parts.extend(Btf::parse(module()).unwrap().parts);
        assert_eq!(btf.enum_values("e"), [("A".to_owned(), 7)]);
        assert_eq!(btf.tracepoint_arguments("t"), Some(1));
        assert_eq!((btf.member_offset("m", "n"), btf.member_offset("m", "s")), (Some(0), Some(4)));
        assert_eq!(btf.member_offset("s", "d"), Some(8));
        assert!(btf.enum_values("s").is_empty());
        assert_eq!(btf.tracepoint_arguments("e"), None);
    }

    #[test]
    fn this_kernels_own_btf_can_be_read_where_there_is_one() {
        if Path::new("/sys/kernel/btf/vmlinux").exists() {
            let btf = Btf::of_kernel().unwrap();
            assert_eq!(btf.member_offset("list_head", "prev"), Some(8));
            assert!(btf.member_offset("sk_buff", "len").is_some());
        }
    }

    proptest! {
        #[test]
        fn broken_btf_never_panics(cut in 0_usize..200, at in 0_usize..200, value: u8) {
            let mut data = example();
            let at = at % data.len();
            data[at] = value;
            data.truncate(cut);
            if let Ok(btf) = Btf::parse(data) {
                let _ = btf.member_offset("s", "d");
            }
        }
    }
}
