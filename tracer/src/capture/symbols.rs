//! Names of the kernel's functions by their addresses, from `/proc/kallsyms`.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

/// A longer way from a function's start is into something that has no name here: a module that was loaded since.
const LONGEST_FUNCTION: u64 = 64 << 10;

/// What names of padding begin with (objtool's `--prefix`).
const PADDING: &str = "__pfx_";

/// The kernel's functions as they were when dnspath started; none where the kernel hides the addresses.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// Start address, and where in `names` its name begins; by address.
    starts: Vec<(u64, u32)>,
    /// Names, each ended by a newline.
    names: String,
}

impl Symbols {
    /// Reads them; without CAP_SYSLOG the kernel may show every address as 0 (`kernel.kptr_restrict`).
    pub(super) fn of_kernel() -> Self {
        File::open("/proc/kallsyms").map(|file| Self::read(BufReader::new(file))).unwrap_or_default()
    }

    /// Lines of address, kind, name and, in brackets, module; one after the other, because all together have 6 MB.
    fn read(mut lines: impl BufRead) -> Self {
        let (mut symbols, mut line) = (Self::default(), Vec::new());
        loop {
            line.clear();
            match lines.read_until(b'\n', &mut line) {
                Ok(1..) => {}
                // Without the rest, what is there still names what it names.
                Ok(0) | Err(_) => break,
            }
            // Names of other kernels' makers: hostile only in that they could be broken.
            let Ok(line) = str::from_utf8(&line) else { continue };
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address @ 1..) = u64::from_str_radix(address, 16) else { continue };
            // Functions alone: in the text section, or weak.
            let (true, Ok(at)) = (matches!(kind, "t" | "T" | "w" | "W"), u32::try_from(symbols.names.len()))
            else {
                continue;
            };
            // Half of the names are of the padding before functions (CONFIG_FUNCTION_PADDING_BYTES): nothing runs there.
            if name.starts_with(PADDING) {
                continue;
            }
            symbols.starts.push((address, at));
            symbols.names.push_str(name);
            symbols.names.push('\n');
        }
        symbols.starts.sort_unstable();
        symbols.names.shrink_to_fit();
        symbols.starts.shrink_to_fit();
        symbols
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The function that `address` lies in, without what the compiler hung on its name (`.isra.0`); empty where
    /// unknown.
    pub(super) fn function_at(&self, address: u64) -> &str {
        let behind = self.starts.partition_point(|(start, _)| *start <= address);
        let Some((start, at)) = behind.checked_sub(1).and_then(|index| self.starts.get(index)) else {
            return "";
        };
        if address - start >= LONGEST_FUNCTION {
            return "";
        }
        let name = self.name(*at);
        name.split('.').next().unwrap_or(name)
    }

    /// From where to where the code of a function goes; `[0, 0]` where unknown.
    pub(super) fn code_of(&self, function: &str) -> [u64; 2] {
        let Some(index) = self.starts.iter().position(|(_, at)| self.name(*at) == function) else {
            return [0; 2];
        };
        let from = self.starts[index].0;
        let next = self.starts[index..].iter().map(|(start, _)| *start).find(|start| *start > from);
        [from, next.unwrap_or(from + LONGEST_FUNCTION).min(from + LONGEST_FUNCTION)]
    }

    fn name(&self, at: u32) -> &str {
        let rest = self.names.get(at as usize..).unwrap_or_default();
        rest.split('\n').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "\
0000000000001000 T nf_hook_slow
0000000000001200 t ip_rcv_core.isra.0
0000000000001180 D some_data
00000000000010f0 t __pfx_also
0000000000001100 W also
0000000000000000 A fixed
ffffffffc0001000 t nft_do_chain\t[nf_tables]
broken
";

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let symbols = Symbols::read(EXAMPLE.as_bytes());
        let named = [0xfff, 0x1000, 0x10ff, 0x1150, 0x11ff, 0x1201, 0xffff_ffff_c000_1010]
            .map(|address| symbols.function_at(address));
        assert_eq!(
            named,
            ["", "nf_hook_slow", "nf_hook_slow", "also", "also", "ip_rcv_core", "nft_do_chain"]
        );
        assert_eq!(symbols.function_at(0x1200 + LONGEST_FUNCTION), "");
    }

    #[test]
    fn a_functions_code_ends_where_the_next_begins() {
        let symbols = Symbols::read(EXAMPLE.as_bytes());
        assert_eq!(symbols.code_of("nf_hook_slow"), [0x1000, 0x1100]);
        assert_eq!(symbols.code_of("no_such"), [0, 0]);
    }

    #[test]
    fn hidden_addresses_leave_nothing() {
        assert!(Symbols::read(&b"0000000000000000 T nf_hook_slow\n"[..]).is_empty());
    }
}
