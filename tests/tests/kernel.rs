//! first
use dnspath_tests::harness::run;
use std::process::ExitCode;
fn main() -> ExitCode {
    run(&[])
}
