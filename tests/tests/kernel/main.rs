//! What dnspath must do on every kernel: hook packets, see each query and answer of a node's ordinary traffic once and
//! paired, read conntrack's tuples, tell clashes of conntrack entries, do without conntrack until it is loaded, and leave
//! nothing behind. `cargo xtask vm-test` runs this on Debian's kernels.

mod clashes;
mod late;
mod paths;
mod pods;
mod reasons;
mod stage;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::wait_until;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::output_of;
use dnspath_tests::query::{Qtype, query};
use dnspath_tests::requirements::kernel_has_tcx;
use dnspath_tests::topology::{UPSTREAM4, UPSTREAM6, VIP4, VIP6};
use dnspath_tests::tracer::binary;
use paths::Path;
use serde_json::Value;
use stage::{Stage, on_quiet_stage, on_stage};

fn main() -> ExitCode {
    let code = run(&[
        // First: there is no lab yet whose rules need conntrack.
        ("conntrack_that_is_loaded_late_is_probed_then", late::conntrack_is_loaded_late),
        ("check_tells_how_this_kernel_is_hooked", check),
        ("check_names_a_connection_table_nearly_full", check_of_a_full_table),
        ("pods_on_cgroup_v2_are_named", pods::on_cgroup_v2),
        ("udp_to_the_service", || Path::new(VIP4, false, 0x1000).check()),
        ("udp_to_the_service_over_ipv6", || Path::new(VIP6, false, 0x1100).check()),
        ("tcp_to_the_service", || Path::new(VIP4, true, 0x1200).check()),
        ("tcp_to_the_service_over_ipv6", || Path::new(VIP6, true, 0x1300).check()),
        ("udp_masqueraded_to_the_upstream", || Path::new(UPSTREAM4, false, 0x1400).check()),
        ("udp_masqueraded_to_the_upstream_over_ipv6", || Path::new(UPSTREAM6, false, 0x1500).check()),
        ("clash_of_two_pods_with_one_port_behind_masquerading", clashes::two_pods_with_one_port),
        ("clash_of_one_socket_to_two_services_with_one_server", clashes::one_socket_to_two_services),
        ("clash_with_an_entry_that_has_the_reply", clashes::an_entry_that_has_the_reply),
        ("clash_of_a_tcp_syn_and_its_retransmission", clashes::a_syn_and_its_retransmission),
        ("clash_of_one_socket_to_one_server_is_resolved", || clashes::one_socket_is_resolved(40_021, "dns1")),
        ("clash_of_one_socket_to_two_servers_is_resolved", || {
            clashes::one_socket_is_resolved(40_022, "dns2")
        }),
        ("reason_of_a_query_that_falls_to_a_rule", reasons::of_a_query_that_falls_to_a_rule),
        ("nothing_was_lost_and_missing_reasons_are_told", nothing_was_lost),
    ]);
    Stage::take_down();
    code
}

fn check() -> Result<Outcome> {
    // By clsact, the second of two takes away the filters of the first.
    on_quiet_stage(|stage| {
        let mut command = stage.lab.node().command(binary()?);
        let output = output_of(command.args(["check", "-o", "json"]), "", Duration::from_secs(60))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        ensure!(output.status.code() == Some(0), "it ended with {}: {text}", output.status);
        let hook = if kernel_has_tcx()? { "tcx" } else { "clsact" };
        let facts: Vec<_> = told["checks"].as_array().into_iter().flatten().collect();
        let fact = |name: &str| {
            facts.iter().find(|fact| fact["name"] == name).with_context(|| format!("no {name}: {text}"))
        };
        let attached = fact("attachment")?["found"].as_str().unwrap_or_default();
        ensure!(attached.contains(hook), "attached, but not by {hook}: {attached}");
        for name in ["type information", "capabilities", "attachment", "translation"] {
            ensure!(fact(name)?["status"] == "ok", "{}", fact(name)?);
        }
        Ok(Outcome::Measured(attached.to_owned()))
    })
}

/// What is the whole machine's (the limit of connections, cgroups) is changed in a virtual one alone, which has this file.
pub(crate) const OF_VIRTUAL_MACHINES: &str = "/tests/list";
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

fn check_of_a_full_table() -> Result<Outcome> {
    if !std::path::Path::new(OF_VIRTUAL_MACHINES).is_file() {
        return Ok(Outcome::LeftOut(
            "the limit of connections is the whole machine's (cargo xtask vm-test plants it)".to_owned(),
        ));
    }
    on_quiet_stage(|stage| {
        let node = stage.lab.node();
        let pod = stage.lab.pod("web")?;
        node.run("sh", &["-c", "echo 900 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout"])?;
        // They stay; what else the lab has may end at any time.
        const OURS: u16 = 200;
        for number in 0..OURS {
            let socket = pod.namespace.udp_socket(pod.ip4, 20_000 + number)?;
            socket.send_to(&query(number, "full.example", Qtype::A), (UPSTREAM4, 53))?;
        }
        let counted = "/proc/sys/net/netfilter/nf_conntrack_count";
        let entries = || -> Result<u64> { Ok(node.run("cat", &[counted])?.trim().parse()?) };
        wait_until(Duration::from_secs(20), || entries().is_ok_and(|entries| entries >= OURS.into()));
        let (entries, before) = (entries()?, std::fs::read_to_string(LIMIT)?);
        ensure!(entries >= OURS.into(), "{entries} connections");
        let limit = u64::from(OURS) * 100 / 95;
        std::fs::write(LIMIT, limit.to_string())?;
        let mut command = node.command(binary()?);
        // Under emulation attaching to one interface takes seconds.
        command.args(["check", "-o", "json", "--interface", "cni0"]);
        let told = output_of(&mut command, "", Duration::from_secs(120));
        std::fs::write(LIMIT, before)?;
        let told = told?;
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        let told_json: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        let line = told_json["checks"].as_array().into_iter().flatten().find(|it| it["name"] == "conntrack");
        let line = line.with_context(|| format!("nothing of conntrack: {text}"))?;
        let found = line["found"].as_str().unwrap_or_default().to_owned();
        ensure!(line["status"] == "warning" && found.contains(&format!(" of {limit} connections")), "{line}");
        ensure!(told.status.code() == Some(1), "it ended with {}", told.status);
        Ok(Outcome::Measured(found))
    })
}

fn nothing_was_lost() -> Result<Outcome> {
    on_stage(|stage| {
        let (told, log) = stage.finish()?;
        reasons::are_a_blind_spot_where_missing(&log, &told)?;
        for what in ["lost", "truncated", "malformed", "evicted"] {
            // What is not told did not happen.
            let count = told.coverage.get(what).copied().unwrap_or(0);
            ensure!(count == 0, "{what}={count}");
        }
        let node = stage.lab.node();
        let (qdiscs, hooked) = (node.run("tc", &["qdisc", "show"])?, node.run("bpftool", &["net", "show"])?);
        ensure!(!qdiscs.contains("clsact"), "a qdisc is left: {qdiscs}");
        ensure!(!hooked.contains("dnspath"), "a program is left: {hooked}");
        Ok(Outcome::Measured(format!("{} frames", told.covered("frames")?)))
    })
}
