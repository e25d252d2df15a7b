//! The `dnspath` command.

fn main() -> std::process::ExitCode {
    dnspath::cli::main()
}
