//! How long it takes to read 180,000 packet rules, beside the program that lists them.

use super::{
    Extent, rotated,
    table::{Column, Table},
};
use crate::command::say;
use anyhow::Result;
use dnspath_tests::{Lab, LabOptions, process::run_with_input, requirements::why_no_lab, tracer, usage};
use std::time::Duration;

const RULES: u32 = 180_000;
const LIMIT: Duration = Duration::from_secs(120);
const COLUMNS: [Column; 2] =
    [Column::new("wall_seconds", "s", 2), Column::new("cpu_seconds", "CPU s, with what it starts", 2)];

pub(crate) fn measure(extent: &Extent) -> Result<Vec<Table>> {
    let title = format!("A node with {RULES} rules in one chain");
    let mut table = Table::new("rules", title, "command", &COLUMNS);
    if let Some(reason) = why_no_lab() {
        table.left_out.push(reason);
        return Ok(vec![table]);
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let lines: String = (0..RULES)
        .map(|n| format!("-A POSTROUTING -s 10.{}.{}.{}/32 -j RETURN\n", n >> 16, n >> 8 & 255, n & 255))
        .collect();
    let mut restore = lab.node().command("iptables-nft-restore");
    run_with_input(restore.arg("--noflush"), &format!("*nat\n{lines}COMMIT\n"), LIMIT)?;
    let check = tracer::binary()?;
    for round in 0..extent.pairs {
        say(&format!("bench: round {} of {}: {RULES} rules", round + 1, extent.pairs));
        for &(row, is_check) in rotated(&[("dnspath check", true), ("iptables-nft-save", false)], round) {
            let mut command = lab.node().command(if is_check { check.as_os_str() } else { row.as_ref() });
            command.args(is_check.then_some("check"));
            let run = usage::measure(&mut command, &[0, 1], LIMIT)?;
            table.add(row, &[Some(run.wall_seconds), Some(run.usage.cpu_seconds)]);
        }
    }
    Ok(vec![table])
}
