//! A DNS server under as many queries as one client can send, untraced and traced by each tool in turn.

use super::{
    Extent, fast_lab, rotated,
    table::{Column, Table},
    tools::Tool,
};
use crate::command::say;
use anyhow::{Context, Result};
use dnspath_tests::{
    Lab, Pod,
    load::{Load, LoadResult},
    topology::VIP4,
};
use std::{fs, thread::sleep, time::Duration};

/// For what still is on its way to the tool when the load ends.
const SETTLE: Duration = Duration::from_millis(500);
/// The lower of two untraced rates is at least so much of the higher, unless something else ran beside one of them.
const STEADY: f64 = 0.85;
/// Queries a second that are asked for; none: as many as it goes.
const RATES: [Option<u32>; 5] = [Some(1_000), Some(5_000), Some(20_000), Some(50_000), None];

const COLUMNS: [Column; 6] = [
    Column::new("queries_per_second", "queries/s", 0),
    Column::new("kept", "of untraced", 3),
    Column::new("lost_percent", "lost, %", 3),
    Column::new("cpu_per_million", "CPU s per million packets", 3),
    Column::new("peak_mib", "peak MiB", 1),
    Column::new("packets_per_second", "packets/s taken", 0),
];
const RATE_COLUMNS: [Column; 4] = [
    Column::new("packets_per_second", "packets/s taken", 0),
    Column::new("cpu_percent", "CPU, % of one", 2),
    Column::new("cpu_per_million", "CPU s per million packets", 3),
    Column::new("us_per_lookup", "µs per lookup", 2),
];

pub(crate) fn measure(extent: &Extent) -> Result<Vec<Table>> {
    let mut tools = Table::new(
        "live",
        format!(
            "A server under full load, traced on the client's link alone or at all vantages, {} s each",
            extent.seconds
        ),
        "traced by",
        &COLUMNS,
    );
    let mut rates = Table::new(
        "rates",
        "`dnspath stream` on the client's link as the load grows; a lookup is an A and an AAAA query"
            .to_owned(),
        "queries/s asked for",
        &RATE_COLUMNS,
    );
    match fast_lab()? {
        Err(reason) => {
            tools.left_out.push(reason.clone());
            rates.left_out.push(reason);
        }
        Ok(lab) => {
            compare(&lab, extent, &mut tools)?;
            grow(&lab, extent, &mut rates)?;
        }
    }
    Ok(vec![tools, rates])
}

/// Between any two tools the load runs untraced; a tool is compared with the mean of the two beside it. Where these
/// differ, the machine did something else meanwhile: then it is measured once more.
fn compare(lab: &Lab, extent: &Extent, table: &mut Table) -> Result<()> {
    let pod = lab.pod("web")?;
    table.left_out = Tool::ALL.into_iter().filter_map(Tool::why_not).collect();
    let tools: Vec<Tool> = Tool::ALL.into_iter().filter(|tool| tool.why_not().is_none()).collect();
    let load = Load::full_speed(extent.seconds);
    // Caches, connection tables and the processors' clocks start cold.
    load.run(pod, VIP4.into())?;
    let mut repeated = 0;
    let columns = |rate: f64| [Some(rate), Some(1.0), None, None, None, None];
    for round in 0..extent.pairs {
        let mut before = load.run(pod, VIP4.into())?.queries_per_second;
        table.add("nothing", &columns(before));
        for &tool in rotated(&tools, round) {
            say(&format!("bench: round {} of {}: {}", round + 1, extent.pairs, tool.name()));
            let mut traced = trace(lab, pod, tool, &load)?;
            let mut after = load.run(pod, VIP4.into())?.queries_per_second;
            if before.min(after) < before.max(after) * STEADY {
                repeated += 1;
                before = after;
                traced = trace(lab, pod, tool, &load)?;
                after = load.run(pod, VIP4.into())?.queries_per_second;
            }
            table.add("nothing", &columns(after));
            let rate = traced.load.queries_per_second;
            let seconds = extent.seconds as f64;
            table.add(
                tool.name(),
                &[
                    Some(rate),
                    Some(rate / f64::midpoint(before, after)),
                    traced.lost_share.map(|share| share * 100.0),
                    Some(traced.cpu_seconds / traced.packets * 1e6),
                    Some(traced.peak_mib),
                    Some(traced.packets / seconds),
                ],
            );
            before = after;
        }
    }
    if repeated > 0 {
        let all = tools.len() * extent.pairs as usize;
        table.left_out.push(format!(
            "{repeated} of {all} measurements, which were made once more: the untraced rates beside them differed by \
             more than {:.0} %",
            (1.0 - STEADY) * 100.0
        ));
    }
    Ok(())
}

fn grow(lab: &Lab, extent: &Extent, table: &mut Table) -> Result<()> {
    let pod = lab.pod("web")?;
    for round in 0..extent.pairs {
        for rate in rotated(&RATES, round) {
            let name = rate.map_or_else(|| "as many as it goes".to_owned(), |rate| rate.to_string());
            say(&format!("bench: round {} of {}: {name} queries/s", round + 1, extent.pairs));
            let load = Load { rate: *rate, ..Load::full_speed(extent.seconds) };
            let traced = trace(lab, pod, Tool::Stream { all: false }, &load)?;
            let seconds = extent.seconds as f64;
            let lookups = traced.load.sent as f64 / 2.0;
            table.add(
                &name,
                &[
                    Some(traced.packets / seconds),
                    Some(traced.cpu_seconds / seconds * 100.0),
                    Some(traced.cpu_seconds / traced.packets * 1e6),
                    Some(traced.cpu_seconds / lookups * 1e6),
                ],
            );
        }
    }
    // Rounds begin with another rate each; the rows belong in their order.
    table.sort_rows(|name| name.parse::<u32>().unwrap_or(u32::MAX));
    Ok(())
}

/// One load under the eyes of a tool.
struct Traced {
    load: LoadResult,
    /// Packets that the tool took; where it does not say, those on the client's link.
    packets: f64,
    lost_share: Option<f64>,
    /// From when it captures until half a second after the load.
    cpu_seconds: f64,
    peak_mib: f64,
}

fn trace(lab: &Lab, pod: &Pod, tool: Tool, load: &Load) -> Result<Traced> {
    let running = tool.start(lab, pod)?;
    let (link, used) = (packets_on_link(lab, pod)?, running.usage()?);
    let load = load.run(pod, VIP4.into())?;
    sleep(SETTLE);
    let (link, after) = (packets_on_link(lab, pod)? - link, running.usage()?);
    let told = running.stop()?;
    let packets = told.captured.unwrap_or(link) as f64;
    Ok(Traced {
        load,
        packets,
        lost_share: told.lost.map(|lost| lost as f64 / (packets + lost as f64)),
        cpu_seconds: after.cpu_seconds - used.cpu_seconds,
        peak_mib: after.peak_kib as f64 / 1024.0,
    })
}

/// Packets that passed the host's end of the pod's link, both ways.
fn packets_on_link(lab: &Lab, pod: &Pod) -> Result<u64> {
    // The holder's /sys shows its own network.
    let directory = format!("/proc/{}/root/sys/class/net/{}/statistics", lab.node().pause_pid(), pod.veth);
    let mut sum = 0;
    for counter in ["rx_packets", "tx_packets"] {
        let text = fs::read_to_string(format!("{directory}/{counter}"))
            .with_context(|| format!("cannot read {directory}/{counter}"))?;
        sum += text.trim().parse::<u64>().with_context(|| format!("{counter} is no number: {text}"))?;
    }
    Ok(sum)
}
