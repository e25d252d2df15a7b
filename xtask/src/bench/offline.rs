//! One capture file, read by each tool in turn.

use super::{
    Extent, bench_program, rotated, scratch,
    table::{Column, Table},
};
use crate::command::{run, say};
use anyhow::{Context, Result};
use dnspath_tests::{requirements::find, tracer, usage};
use std::{fs, io, path::Path, process::Command, time::Duration};

/// tshark keeps a gigabyte for a million packets, and takes as long as all others together.
const MOST_FOR_TSHARK: u64 = 2_000_000;
const LIMIT: Duration = Duration::from_secs(1_800);

const COLUMNS: [Column; 5] = [
    Column::new("wall_seconds", "s", 2),
    Column::new("of_report", "s, times `dnspath report`", 2),
    Column::new("cpu_seconds", "CPU s", 2),
    Column::new("cpu_of_report", "CPU, times `dnspath report`", 2),
    Column::new("peak_mib", "peak MiB", 1),
];

/// A tool, how it is called, and the exit statuses that are fine.
struct Reader {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    fine: &'static [i32],
}

/// `FILE` stands for the capture, `OUT` for a file to write.
const READERS: [Reader; 7] = [
    Reader { name: "dnspath report", program: "dnspath", arguments: &["report", "FILE"], fine: &[0, 1] },
    Reader {
        name: "dnspath report -o json --lookups",
        program: "dnspath",
        arguments: &["report", "-o", "json", "--lookups", "FILE"],
        fine: &[0, 1],
    },
    Reader { name: "dnstop (counts of queries)", program: "dnstop", arguments: &["FILE"], fine: &[0] },
    Reader {
        name: "dnstop -Q -R -l 5 (and of responses and names)",
        program: "dnstop",
        arguments: &["-Q", "-R", "-l", "5", "FILE"],
        fine: &[0],
    },
    Reader {
        name: "dnscap -w (copy)",
        program: "dnscap",
        arguments: &["-N", "-T", "-r", "FILE", "-w", "OUT"],
        fine: &[0],
    },
    Reader {
        name: "tcpdump -w (copy)",
        program: "tcpdump",
        arguments: &["-n", "-r", "FILE", "-Z", "root", "-w", "OUT", "port 53"],
        fine: &[0],
    },
    Reader {
        name: "tshark -z dns,tree",
        program: "tshark",
        arguments: &["-n", "-q", "-r", "FILE", "-z", "dns,tree"],
        fine: &[0],
    },
];

pub(crate) fn measure(extent: &Extent) -> Result<Vec<Table>> {
    let sizes: &[(&str, u64)] = if extent.quick {
        &[("offline-1", 100_000)]
    } else {
        &[("offline-1", 1_000_000), ("offline-10", 10_000_000)]
    };
    sizes.iter().map(|(name, packets)| compare(name, *packets, extent)).collect()
}

fn compare(name: &'static str, packets: u64, extent: &Extent) -> Result<Table> {
    let title = format!(
        "A capture of {packets} packets: 246 clients, four search suffixes, 80 % NXDOMAIN, 0.1 % without answer"
    );
    let mut table = Table::new(name, title, "read by", &COLUMNS);
    let folder = scratch()?;
    let capture = folder.join("traffic.pcap");
    say(&format!("bench: making a capture of {packets} packets"));
    run(bench_program().args(["generate", "--packets", &packets.to_string(), "-w"]).arg(&capture))?;
    let mut readers: Vec<&Reader> = Vec::new();
    for reader in &READERS {
        if reader.program != "dnspath" && find(reader.program).is_none() {
            table.left_out.push(format!("{}: it is not installed", reader.name));
        } else if reader.program == "tshark" && packets > MOST_FOR_TSHARK {
            table.left_out.push(format!("{}: it keeps all packets in memory", reader.name));
        } else {
            readers.push(reader);
        }
    }
    let rounds = if packets > MOST_FOR_TSHARK { extent.pairs.min(3) } else { extent.pairs };
    for round in 0..rounds {
        // In memory, so that no tool pays for the disk.
        warm(&capture)?;
        let mut runs = Vec::new();
        for &reader in rotated(&readers, round) {
            say(&format!("bench: round {} of {rounds}: {}", round + 1, reader.name));
            runs.push((reader, reader.read(&capture, &folder)?));
        }
        let report = runs.iter().find(|(reader, _)| reader.name == READERS[0].name);
        let report = report.map(|(_, run)| *run);
        for (reader, run) in runs {
            table.add(
                reader.name,
                &[
                    Some(run.wall_seconds),
                    report.map(|report| run.wall_seconds / report.wall_seconds),
                    Some(run.usage.cpu_seconds),
                    report.map(|report| run.usage.cpu_seconds / report.usage.cpu_seconds),
                    Some(run.usage.peak_kib as f64 / 1024.0),
                ],
            );
        }
    }
    table.sort_rows(|row| READERS.iter().position(|reader| reader.name == row));
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(table)
}

impl Reader {
    fn read(&self, capture: &Path, folder: &Path) -> Result<usage::Run> {
        let written = folder.join("written");
        fs::create_dir_all(&written).with_context(|| format!("cannot make {}", written.display()))?;
        let mut command = match self.program {
            "dnspath" => Command::new(tracer::binary()?),
            other => Command::new(other),
        };
        for argument in self.arguments {
            match *argument {
                "FILE" => command.arg(capture),
                "OUT" => command.arg(written.join("copy")),
                other => command.arg(other),
            };
        }
        let run = usage::measure(&mut command, self.fine, LIMIT)?;
        fs::remove_dir_all(&written).with_context(|| format!("cannot remove {}", written.display()))?;
        Ok(run)
    }
}

/// Reads the file once, so that it is in the page cache.
pub(super) fn warm(file: &Path) -> Result<()> {
    let mut opened = fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    io::copy(&mut opened, &mut io::sink()).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(())
}
