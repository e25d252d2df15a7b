//! Lengths that every verifier takes for bounded.

use core::arch::asm;

/// `length`, at least `MIN` and at most `MAX`.
///
/// In assembly, because verifiers before 6.8 want both bounds compared on the very register that a helper gets; the
/// compiler, which knows the bounds from before, would leave the comparisons out or make them on a copy.
#[inline(always)]
pub fn within<const MIN: usize, const MAX: usize>(mut length: u64) -> u64 {
    // SAFETY: it compares and sets one register.
    unsafe {
        asm!(
            "if {length} <= {max} goto +1",
            "{length} = {max}",
            "if {length} >= {min} goto +1",
            "{length} = {min}",
            length = inout(reg) length,
            max = const MAX,
            min = const MIN,
            options(pure, nomem, nostack),
        );
    }
    length
}
