//! Offsets of kernel struct members as globals, which the loader sets and the verifier takes for constants: BPF
//! programs in Rust have no CO-RE.

/// Offset of something that this kernel does not have.
pub const UNKNOWN: u32 = u32::MAX;

/// Declares globals of offsets, each [`UNKNOWN`] until the loader sets it.
#[macro_export]
macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            pub static $name: ::aya_ebpf::Global<u32> = ::aya_ebpf::Global::new($crate::offsets::UNKNOWN);
        )*
    };
}
