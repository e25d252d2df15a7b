//! `cargo xtask`: everything this repository can do, from a bare machine on.
//!
//! Each step looks first whether its work is done, so a second run is quick and silent.

mod bench;
mod command;
mod containerd;
mod debian;
mod demo;
mod kernel_toolchain;
mod packages;
mod profile;
mod test;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Set-up, build, demo and tests of dnspath.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Get what building needs (core's source, bpf-linker) and the packages that the lab needs
    Setup,
    /// Build the release binary: the default
    Build,
    /// Show dnspath on a lab node with real clients and a real DNS server
    Demo(demo::Options),
    /// Format check, lints, unit tests, documentation tests, end-to-end tests in the lab
    Test(test::Options),
    /// Measure dnspath beside tcpdump, tshark, dnstop and others: speed, loss, processor time, memory
    Bench(bench::Options),
    /// Count under load how often each branch is taken, for the release build (profile/README.md)
    Profile,
    /// Tests on Debian's kernels, each in a virtual machine (QEMU)
    VmTest(vm::Options),
    /// Build dnspath and run it with the privileges it needs
    Run {
        /// Arguments for dnspath
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let task = Arguments::parse().task.unwrap_or(Task::Build);
    match run(task) {
        Ok(code) => code,
        Err(error) => {
            command::say(&format!("xtask: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    kernel_toolchain::ensure()?;
    match task {
        Task::Setup => {
            packages::ensure()?;
            // The tests say what they do without.
            let _ = containerd::ensure();
        }
        Task::Build => {
            command::build_release(&["dnspath"])?;
        }
        Task::Demo(options) => return demo::run(&options),
        Task::Test(options) => return test::run(&options),
        Task::Bench(options) => return bench::run(&options),
        Task::Profile => return profile::count(),
        Task::VmTest(options) => return vm::run(&options),
        Task::Run { arguments } => {
            command::build_release(&["dnspath"])?;
            return command::run_privileged(&arguments);
        }
    }
    Ok(ExitCode::SUCCESS)
}
