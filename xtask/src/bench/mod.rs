//! `cargo xtask bench`: dnspath beside what people use today, on this machine, in one run.
//!
//! Whatever is compared is measured in turn, again and again, in an order that moves on by one each time, so that
//! what the machine does beside it meets all alike. Each sample is kept; tables show medians.

mod attach;
mod engine;
mod kernel;
mod live;
mod machine;
mod memory;
mod offline;
mod rules;
mod soak;
mod table;
mod tools;

use crate::{
    command::{binary, build_release, root, say, target},
    packages,
};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use dnspath_tests::{Lab, LabOptions, ServerKind, requirements::why_no_lab};
use serde_json::json;
use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, ExitCode},
};
use table::Table;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure; all but the soak where none is named
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// How often each thing is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,

    /// Seconds of load in each live measurement
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Minutes of the soak
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,

    /// How to print the tables
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,

    /// Less of everything: to see that it works
    #[arg(long)]
    quick: bool,

    /// Put the tables into this document, between their marks
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A DNS server under full load, traced by each tool in turn
    Live,
    /// Run time of the kernel side, by the kernel's own statistics
    Kernel,
    /// One capture file, read by each tool in turn
    Offline,
    /// Instructions a message
    Engine,
    /// Memory and time as load, pods and unanswered queries grow
    Memory,
    /// Attaching to 250 interfaces
    Attach,
    /// Reading 180,000 packet rules
    Rules,
    /// Memory under full load, minute by minute
    Soak,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// How much is measured, for all parts.
struct Extent {
    pairs: u32,
    seconds: u64,
    minutes: u32,
    quick: bool,
}

/// Programs that only this uses, and their packages.
const PEERS: [(&str, &str); 7] = [
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
    ("dumpcap", "wireshark-common"),
    ("dnstop", "dnstop"),
    ("dnscap", "dnscap"),
    ("dnsperf", "dnsperf"),
    ("valgrind", "valgrind"),
];

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let usual = Part::value_variants().iter().copied().filter(|part| *part != Part::Soak);
    let parts = if options.parts.is_empty() { usual.collect() } else { options.parts.clone() };
    if let Some(document) = &options.write
        && !document.is_file()
    {
        bail!("there is no {}: --write fills the marks of a document that is there", document.display());
    }
    packages::ensure()?;
    packages::ensure_each(&PEERS, "the comparison lacks");
    build_release(&["dnspath", "dnspath-tests", "dnspath-bench"])?;
    let extent = Extent {
        pairs: if options.quick { options.pairs.min(2) } else { options.pairs },
        seconds: if options.quick { options.seconds.min(2) } else { options.seconds },
        minutes: options.minutes,
        quick: options.quick,
    };
    let mut tables = Vec::new();
    for part in parts {
        let beside = machine::busy_percent();
        let mut measured = part.measure(&extent)?;
        let beside = [beside, machine::busy_percent()];
        for table in &mut measured {
            table.beside = Some(beside);
            if options.output == Output::Text {
                print(&table.text())?;
            }
        }
        tables.extend(measured);
    }
    let machine = machine::facts(&extent);
    if options.output == Output::Json {
        let tables: Vec<_> = tables.iter().map(Table::json).collect();
        print(&serde_json::to_string_pretty(
            &json!({ "version": 1, "machine": machine, "tables": tables }),
        )?)?;
    }
    if let Some(document) = &options.write {
        let mut text =
            fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
        let machine = ("machine", machine::markdown(&machine));
        for (name, content) in tables.iter().map(|table| (table.name, table.markdown())).chain([machine]) {
            text = table::insert(&text, name, &content)
                .with_context(|| format!("{} has no marks for the table {name}", document.display()))?;
        }
        fs::write(document, text).with_context(|| format!("cannot write {}", document.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Part {
    fn measure(self, extent: &Extent) -> Result<Vec<Table>> {
        let name = self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        say(&format!("bench: {name}"));
        match self {
            Self::Live => live::measure(extent),
            Self::Kernel => kernel::measure(extent),
            Self::Offline => offline::measure(extent),
            Self::Engine => engine::measure(extent),
            Self::Memory => memory::measure(extent),
            Self::Attach => attach::measure(extent),
            Self::Rules => rules::measure(extent),
            Self::Soak => soak::measure(extent),
        }
        .with_context(|| format!("cannot measure: {name}"))
    }
}

/// A node with a fast server, and a pod that asks it; or why there can be none.
fn fast_lab() -> Result<Result<Lab, String>> {
    if let Some(reason) = why_no_lab() {
        return Ok(Err(reason));
    }
    let options = LabOptions {
        server: Some(ServerKind::Fast),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    };
    Lab::new(options).map(Ok)
}

/// The program that makes traffic and measures the engine.
fn bench_program() -> Command {
    Command::new(binary("dnspath-bench"))
}

/// A folder for large files, emptied.
fn scratch() -> Result<PathBuf> {
    let folder = target().join("bench");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// `all`, beginning with another one each round.
fn rotated<T>(all: &[T], round: u32) -> impl Iterator<Item = &T> {
    let start = round as usize % all.len().max(1);
    all[start..].iter().chain(&all[..start])
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n')).context("cannot print")
}

/// The commit that was measured.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(root());
    crate::command::output(&mut git).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another() {
        let order = |round| rotated(&[1, 2, 3], round).copied().collect::<Vec<_>>();
        assert_eq!((order(0), order(1), order(5)), (vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]));
        assert_eq!(rotated(&[0; 0], 4).count(), 0);
    }
}
