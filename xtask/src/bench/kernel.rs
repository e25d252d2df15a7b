//! Run time of the kernel side's programs under full load, as the kernel itself counts it.

use super::{
    Extent, fast_lab, rotated,
    table::{Column, Table},
    tools::Tool,
};
use crate::command::say;
use anyhow::{Context, Result};
use dnspath_tests::{
    Lab,
    load::Load,
    topology::VIP4,
    usage::{ProgramTime, programs},
};
use std::{fs, thread::sleep, time::Duration};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// `enum bpf_prog_type`, and what runs as such.
const KINDS: [(u32, &str); 3] =
    [(3, "classifier"), (17, "probe of kfree_skb"), (2, "probes of __nf_conntrack_confirm")];
const CLASSIFIER: u32 = 3;
const TOOLS: [Tool; 3] = [Tool::Minimal, Tool::Stream { all: false }, Tool::Stream { all: true }];

const COLUMNS: [Column; 3] = [
    Column::new("nanos_per_run", "ns a run", 0),
    Column::new("of_minimal", "of the minimal one", 2),
    Column::new("runs_per_thousand_queries", "runs per 1,000 queries", 1),
];

pub(crate) fn measure(extent: &Extent) -> Result<Vec<Table>> {
    let title = "Programs in the kernel under full load, by `kernel.bpf_stats_enabled` (its own two clock reads included)";
    let mut table = Table::new("kernel", title.to_owned(), "program", &COLUMNS);
    match fast_lab()? {
        Err(reason) => table.left_out.push(reason),
        Ok(lab) => {
            let _statistics = Statistics::enable()?;
            compare(&lab, extent, &mut table)?;
        }
    }
    Ok(vec![table])
}

fn compare(lab: &Lab, extent: &Extent, table: &mut Table) -> Result<()> {
    for round in 0..extent.pairs {
        let mut times = Vec::new();
        for &tool in rotated(&TOOLS, round) {
            say(&format!("bench: round {} of {}: {}", round + 1, extent.pairs, tool.name()));
            times.extend(run(lab, tool, extent)?);
        }
        let minimal = times.iter().find(|(tool, kind, ..)| (*tool, *kind) == (Tool::Minimal, CLASSIFIER));
        let minimal = minimal.map(|(.., time, _)| nanos_per_run(*time));
        for (tool, kind, time, queries) in times {
            let program = KINDS.iter().find(|(number, _)| *number == kind).map_or("other", |(_, name)| name);
            let nanos = nanos_per_run(time);
            let ratio = minimal.filter(|_| kind == CLASSIFIER).map(|minimal| nanos / minimal);
            table.add(
                &format!("{}: {program}", tool.name()),
                &[Some(nanos), ratio, Some(time.runs as f64 / queries * 1e3)],
            );
        }
    }
    table.sort_rows(|name| {
        TOOLS.iter().position(|tool| name.starts_with(&format!("{}:", tool.name()))).unwrap_or(TOOLS.len())
    });
    Ok(())
}

fn nanos_per_run(time: ProgramTime) -> f64 {
    time.nanos as f64 / time.runs as f64
}

/// What each kind of program took during one load, and the queries of the load.
fn run(lab: &Lab, tool: Tool, extent: &Extent) -> Result<Vec<(Tool, u32, ProgramTime, f64)>> {
    let pod = lab.pod("web")?;
    let running = tool.start(lab, pod)?;
    let before = programs(running.pid())?;
    let load = Load::full_speed(extent.seconds).run(pod, VIP4.into())?;
    sleep(Duration::from_millis(200));
    let after = programs(running.pid())?;
    running.stop()?;
    let since = |(kind, time): (u32, ProgramTime)| {
        let earlier = before.get(&kind).copied().unwrap_or_default();
        let time = ProgramTime { runs: time.runs - earlier.runs, nanos: time.nanos - earlier.nanos };
        (tool, kind, time, load.sent as f64)
    };
    Ok(after.into_iter().map(since).filter(|(_, _, time, _)| time.runs > 0).collect())
}

/// The kernel's statistics of BPF programs; off again, where they were, when dropped.
struct Statistics {
    before: String,
}

impl Statistics {
    fn enable() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH} (this needs root)"))?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        // What could be set a moment ago can be set back.
        let _ = fs::write(SWITCH, self.before.trim());
    }
}
