//! first
use std::process::ExitCode;
use dnspath_tests::harness::run;
fn main() -> ExitCode {
    run(&[])
}
