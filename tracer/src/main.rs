//! The `dnspath` command.

#[cfg(target_env = "gnu")]
use libc::{M_MMAP_THRESHOLD, mallopt};

fn main() -> std::process::ExitCode {
    give_back_large_pieces();
    dnspath::cli::main()
}

/// Octets from which on memory is taken from the kernel piece by piece, and given back when it is freed (mallopt(3)).
#[cfg(target_env = "gnu")]
const LARGE: i32 = 128 << 10;

/// Keeps glibc from raising that with the largest piece that was freed: at the start the kernel's types are read, six
/// megabytes in one piece, and as much as that takes would never be given back, nor what tables leave as they grow.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "what is freed goes back to the kernel by this alone")]
fn give_back_large_pieces() {
    // SAFETY: it takes two numbers, and no other thread is there yet that could be allocating.
    unsafe { mallopt(M_MMAP_THRESHOLD, LARGE) };
}

/// Others than glibc keep to one size.
#[cfg(not(target_env = "gnu"))]
fn give_back_large_pieces() {}
