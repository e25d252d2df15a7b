//! Full load for a long time: memory minute by minute, and what was lost by the end.

use super::{
    Extent, fast_lab,
    table::{Column, Table},
    tools::Tool,
};
use crate::command::say;
use anyhow::{Result, ensure};
use dnspath_tests::{load::Load, topology::VIP4, usage};

const COLUMNS: [Column; 5] = [
    Column::new("queries_per_second", "queries/s", 0),
    Column::new("resident_mib", "resident, MiB", 1),
    Column::new("anonymous_mib", "of that its own, MiB", 1),
    Column::new("peak_mib", "peak, MiB", 1),
    Column::new("cpu_percent", "CPU, % of one", 1),
];
const SECONDS: u64 = 60;

pub(crate) fn measure(extent: &Extent) -> Result<Vec<Table>> {
    let minutes = extent.minutes;
    let tool = Tool::Stream { all: true };
    let title = format!("`{}` under full load for {minutes} minutes", tool.name());
    let mut table = Table::new("soak", title, "after minute", &COLUMNS);
    let lab = match fast_lab()? {
        Ok(lab) => lab,
        Err(reason) => {
            table.left_out.push(reason);
            return Ok(vec![table]);
        }
    };
    let pod = lab.pod("web")?;
    let running = tool.start(&lab, pod)?;
    let load = Load::full_speed(if extent.quick { extent.seconds } else { SECONDS });
    let mib = |kib: u64| Some(kib as f64 / 1024.0);
    for minute in 1..=minutes {
        let before = running.usage()?;
        let done = load.run(pod, VIP4.into())?;
        let (used, memory) = (running.usage()?, usage::memory(running.pid())?);
        let cpu = (used.cpu_seconds - before.cpu_seconds) / load.seconds as f64 * 100.0;
        let row = [
            Some(done.queries_per_second),
            mib(memory.resident_kib),
            mib(memory.anonymous_kib),
            mib(used.peak_kib),
            Some(cpu),
        ];
        table.add(&minute.to_string(), &row);
        say(&format!("bench: minute {minute} of {minutes}: {:.1} MiB", memory.resident_kib as f64 / 1024.0));
    }
    let told = running.stop()?;
    let (taken, lost) = (told.captured.unwrap_or(0), told.lost.unwrap_or(0));
    ensure!(taken > 0, "nothing was captured");
    table.title.push_str(&format!(": {taken} packets taken, {lost} lost"));
    Ok(vec![table])
}
