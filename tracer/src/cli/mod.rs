//! Arguments to options to action.

/// Runs the command line; the exit code is 0 clean, 1 findings, 2 error.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
