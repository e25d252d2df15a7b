//! The `dnspath` command.

fn main() -> std::process::ExitCode {
    #[cfg(target_env = "gnu")]
    give_freed_memory_back();
    dnspath::cli::main()
}

/// Keeps glibc's allocator from holding what was freed. By itself it takes the first block of megabytes that is freed
/// (the kernel's type information, at the start) for a sign that such blocks come and go: from then on blocks of that
/// size come from its heap, and twice as much stays there. They do not; and a table that grows in a mapping of its own
/// leaves no hole behind.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) is C")]
fn give_freed_memory_back() {
    /// What glibc begins with, in octets.
    const THRESHOLD: libc::c_int = 128 << 10;
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it takes numbers alone, and there is no other thread yet. A refusal leaves things as they were.
        unsafe { libc::mallopt(parameter, THRESHOLD) };
    }
}
