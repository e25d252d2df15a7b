//! How long it takes to attach to the links of 250 pods, and to leave them.

use super::{
    Extent, rotated,
    table::{Column, Table},
};
use crate::command::say;
use anyhow::Result;
use dnspath_tests::{
    Lab, LabOptions, Tracer, clock,
    requirements::{kernel_has_tcx, why_no_lab},
};
use rustix::process::Signal;
use std::time::Duration;

const LINKS: usize = 250;
const LIMIT: Duration = Duration::from_secs(120);
const COLUMNS: [Column; 2] =
    [Column::new("attach_seconds", "attached after, s", 2), Column::new("leave_seconds", "left after, s", 2)];

pub(crate) fn measure(extent: &Extent) -> Result<Vec<Table>> {
    let title =
        format!("`dnspath stream` on a node with {LINKS} veths beside the lab's own, from its start on");
    let mut table = Table::new("attach", title, "--hook", &COLUMNS);
    if let Some(reason) = why_no_lab() {
        table.left_out.push(reason);
        return Ok(vec![table]);
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    add_links(&lab)?;
    let mut hooks = vec!["auto", "clsact"];
    if kernel_has_tcx()? {
        hooks.push("tcx");
    } else {
        table.left_out.push("tcx: Linux has it from 6.6 on".to_owned());
    }
    for round in 0..extent.pairs {
        for &hook in rotated(&hooks, round) {
            say(&format!("bench: round {} of {}: {hook}", round + 1, extent.pairs));
            let start = clock::now();
            let mut tracer = Tracer::stream(lab.node(), &["--hook", hook])?;
            let attached = start.elapsed();
            let start = clock::now();
            tracer.process().stop(Signal::INT, LIMIT)?;
            table.add(hook, &[Some(attached.as_secs_f64()), Some(start.elapsed().as_secs_f64())]);
        }
    }
    Ok(vec![table])
}

/// Links on the node's bridge; what they lead to is in another namespace, as pods are.
fn add_links(lab: &Lab) -> Result<()> {
    let elsewhere = lab.upstream().name();
    let line = |number| {
        format!(
            "link add name veth{number} type veth peer name peer{number} netns {elsewhere}\n\
             link set veth{number} master cni0 up\n"
        )
    };
    let batch: String = (0..LINKS).map(line).collect();
    lab.node().script(&format!("ip -batch - <<'END'\n{batch}END\n")).map(drop)
}
