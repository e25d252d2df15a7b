//! Why packets were dropped: kernels since 5.17 say it, and then no blind spot is told; older ones do not, which is said
//! at the start and in the report, and their drops are told by the function that freed the packet.

use anyhow::{Context, Result, ensure};
use dnspath_tests::harness::Outcome;
use dnspath_tests::query::{Qtype, query};
use dnspath_tests::requirements::kernel_is_since;
use dnspath_tests::topology::UPSTREAM4;
use dnspath_tests::tracer::Told;
use serde_json::Value;

use crate::stage::on_stage;

/// A port that no clash is made from.
const PORT: u16 = 40_024;

fn kernel_gives_reasons() -> Result<bool> {
    kernel_is_since((5, 17))
}

/// A query that falls to a packet rule.
pub(crate) fn of_a_query_that_falls_to_a_rule() -> Result<Outcome> {
    on_stage(|stage| {
        let web = stage.lab.pod("web")?;
        let rule = format!("FORWARD -s {} -p udp --sport {PORT} -j DROP", web.ip4);
        stage.lab.node().script(&format!("iptables -w -I {rule}\n"))?;
        let socket = web.namespace.udp_socket(web.ip4, PORT)?;
        let sent = socket.send_to(&query(0x91, "rule.example.com", Qtype::A), (UPSTREAM4, 53));
        let client = format!("{}:{PORT}", web.ip4);
        let told = stage.told(1, |line| line["unit"] == "drop" && line["client"] == client);
        stage.lab.node().script(&format!("iptables -w -D {rule}\n"))?;
        sent.context("cannot send the query")?;
        let told = told?;
        let [drop] = told.as_slice() else { anyhow::bail!("not one drop is told: {told:?}") };
        ensure!(drop["fate"] == "dropped" && drop["id"] == 0x91, "not of the query: {drop}");
        let expected = if kernel_gives_reasons()? { "NETFILTER_DROP" } else { "" };
        ensure!(drop["reason"] == expected, "another reason than {expected:?}: {drop}");
        // Which one it is depends on the compiler and on who made the rule, iptables or nftables.
        ensure!(drop["place"].as_str().is_some_and(|place| !place.is_empty()), "no function: {drop}");
        Ok(Outcome::Measured(format!("reason {}, place {}", drop["reason"], drop["place"])))
    })
}

/// Whether missing reasons are told as a blind spot, in `log` at the start and among the findings, just where they are
/// missing.
pub(crate) fn are_a_blind_spot_where_missing(log: &str, told: &Told) -> Result<()> {
    const SAID: &str = "this kernel gives no reasons for drops";
    let missing = !kernel_gives_reasons()?;
    let at_start = log.lines().any(|line| line.contains("(DP902)") && line.contains(SAID));
    ensure!(at_start == missing, "said at the start: {at_start}, missing: {missing}: {log}");
    let is_it = |finding: &&Value| finding["code"] == "DP902" && finding["subject"]["what"] == "drop-reasons";
    let found: Vec<_> = told.unit("finding").filter(is_it).collect();
    ensure!(found.len() == usize::from(missing), "missing: {missing}, found: {found:?}");
    let as_expected = |finding: &Value| finding["severity"] == "info" && finding["subject"]["found"] == SAID;
    ensure!(found.iter().all(|finding| as_expected(finding)), "{found:?}");
    Ok(())
}
