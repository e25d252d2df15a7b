//! `dnspath check` on a real containerd node: each fault that is planted is named, and 180,000 rules are counted.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::wait_until;
use dnspath_tests::containerd::{Containerd, asking, cluster_resolv_conf};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::{output_of, run_with_input};
use dnspath_tests::report::{LiveReport, of_code};
use dnspath_tests::tracer::binary;
use serde_json::Value;

fn main() -> ExitCode {
    run(&[("check_names_what_is_planted", check_names_what_is_planted)])
}

/// Looks at 180,000 rules at most.
const MOST_LOOKS: usize = 4;

/// `dnspath check -o json` on the node: its exit status and its lines.
fn check(node: &Containerd, options: &[&str]) -> Result<(Option<i32>, Vec<Value>)> {
    let mut command = node.command(binary()?);
    command.args(["check", "-o", "json", "--hook", "clsact"]).args(options);
    let output = output_of(&mut command, "", Duration::from_secs(60))?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code(), told["checks"].as_array().context("no checks")?.clone()))
}

/// Whether a line of this name is as bad as `status`, and says `found`.
fn says(checks: &[Value], name: &str, status: &str, found: &str) -> bool {
    checks.iter().any(|check| {
        check["name"] == name
            && check["status"] == status
            && check["found"].as_str().is_some_and(|it| it.contains(found))
    })
}

/// A stub's address, and a search line that musl leaves out.
fn broken_resolv_conf() -> String {
    format!("nameserver 127.0.0.53\nsearch {}\n", "division.example ".repeat(18))
}

/// kube-proxy's rules for a cluster DNS with one endpoint.
const KUBE_DNS: &str = r#"*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-DNS - [0:0]
:KUBE-SEP-DNS - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "kube-system/kube-dns:dns cluster IP" -m udp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SVC-DNS -m comment --comment "kube-system/kube-dns:dns -> 10.98.0.1:53" -j KUBE-SEP-DNS
-A KUBE-SEP-DNS -p udp -m udp -j DNAT --to-destination 10.98.0.1:53
COMMIT
"#;

fn check_names_what_is_planted() -> Result<Outcome> {
    if let Some(reason) = Containerd::why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let node = Containerd::start()?;
    node.run_pod(1, &asking(1))?;
    let restore = |rules: &str| -> Result<()> {
        let mut command = node.command("iptables-nft-restore");
        run_with_input(command.arg("--noflush"), rules, Duration::from_secs(120)).map(drop)
    };
    restore(KUBE_DNS)?;
    node.sh("echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")?;
    let (status, healthy) = check(&node, &[])?;
    ensure!(
        healthy.iter().all(|check| check["status"] == "ok") && status == Some(0),
        "{status:?} {healthy:#?}"
    );
    ensure!(says(&healthy, "pods", "ok", "1 by name"), "{healthy:#?}");
    ensure!(says(&healthy, "CNI", "ok", "lab: bridge"), "{healthy:#?}");
    ensure!(says(&healthy, "kube-proxy", "ok", "iptables: 1 service"), "{healthy:#?}");
    ensure!(
        says(&healthy, "cluster DNS", "ok", "kube-system/kube-dns:dns at 10.96.0.10:53, 1 endpoint"),
        "{healthy:#?}"
    );

    by_nftables(&node)?;
    growth_is_told(&node)?;
    // Whoever asks a service from the node itself needs a way to its address.
    node.sh("ip route add 10.96.0.0/16 dev cni0")?;
    let asked_server = node.answer_no_such_name()?;
    let probe = || Ok::<_, anyhow::Error>(check(&node, &["--probe"])?.1);
    ensure!(
        wait_until(Duration::from_secs(10), || probe().is_ok_and(|it| says(
            &it,
            "cluster DNS",
            "ok",
            "; answers"
        ))),
        "{:#?}",
        probe()?
    );
    drop(asked_server);
    let silent = probe()?;
    ensure!(says(&silent, "cluster DNS", "warning", "1 endpoint; does not answer: "), "{silent:#?}");

    std::fs::write(node.files().join("rootfs/etc/resolv.conf"), broken_resolv_conf())?;
    node.sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables")?;
    restore(&format!("*nat\n{}COMMIT\n", "-A POSTROUTING -s 10.98.0.0/24 -j MASQUERADE\n".repeat(20_000)))?;
    node.sh("iptables-nft -t nat -F KUBE-SEP-DNS")?;
    for number in 2..=4 {
        node.run_pod_with(number, "sleep 600", &cluster_resolv_conf("10.96.0.10"))?;
    }
    node.run_pod_with(5, "sleep 600", &cluster_resolv_conf("10.0.0.10"))?;
    let (status, planted) = check(&node, &[])?;
    ensure!(status == Some(1), "{status:?} {planted:#?}");
    for (name, found) in [
        ("resolv.conf", "shop/pod-001 has the nameserver 127.0.0.53"),
        ("resolv.conf", "shop/pod-001 has a line of 313 octets"),
        (
            "resolv.conf",
            "shop/pod-005 searches the cluster's domains at 10.0.0.10; the other pods ask 10.96.0.10",
        ),
        ("bridge netfilter", "bridge-nf-call-iptables is 0"),
        ("rules", "19999 of them duplicates"),
        ("cluster DNS", "kube-system/kube-dns:dns at 10.96.0.10:53, 0 endpoints"),
    ] {
        ensure!(says(&planted, name, "warning", found), "{name} should say {found:?}: {planted:#?}");
    }

    reports_say_it_too(&node)?;

    let many: String = (0..160_000_u32)
        .map(|n| format!("-A POSTROUTING -s 10.{}.{}.{}/32 -j RETURN\n", n >> 16, n >> 8 & 255, n & 255))
        .collect();
    restore(&format!("*nat\n{many}COMMIT\n"))?;
    let (_, checks) = check(&node, &[])?;
    ensure!(says(&checks, "rules", "warning", "180004 rules"), "{checks:#?}");
    // The kernel goes through all rules before a message's first one, so the listing alone takes seconds, more or fewer as
    // the machine's memory is fast; what dnspath adds to it is its own doing.
    let cpu_seconds = |line: String| -> Result<f64> {
        let times = node.sh(&format!("{line} >/dev/null || true; times"))?;
        let last = times.lines().last().context("no times")?;
        Ok(last.split_whitespace().map(minutes_and_seconds).sum())
    };
    // By turns, and the least of each: from one minute to the next the same listing takes half as long again.
    let (mut all, mut listing) = (f64::INFINITY, f64::INFINITY);
    for look in 0..MOST_LOOKS {
        if look > 0 && all < 1.5 * listing + 0.5 {
            break;
        }
        all = all.min(cpu_seconds(format!("{} check --hook clsact", binary()?.display()))?);
        listing = listing.min(cpu_seconds("iptables-nft-save".to_owned())?);
    }
    let figures = format!("180,000 rules took {all:.1} s of CPU time, of which {listing:.1} s to list them");
    ensure!(all < 1.5 * listing + 0.5, "{figures}");
    Ok(Outcome::Measured(figures))
}

/// The mode is told by what is there, beside the rules that another mode left.
fn by_nftables(node: &Containerd) -> Result<()> {
    let rules = include_str!("../fixtures/kube-proxy/rules.nft");
    run_with_input(node.command("nft").args(["-f", "-"]), rules, Duration::from_secs(60))?;
    let (_, checks) = check(node, &[])?;
    let found = "nftables and iptables: 7 service addresses, 6 endpoints";
    ensure!(says(&checks, "kube-proxy", "ok", found), "{checks:#?}");
    let found = "kube-system/kube-dns:dns at [fd00:96::a]:53, 1 endpoint";
    ensure!(says(&checks, "cluster DNS", "ok", found), "{checks:#?}");
    node.sh("nft delete table ip kube-proxy && nft delete table ip6 kube-proxy").map(drop)
}

/// Rules that are added while a report lasts, as one that leaks them does. The last count is left out where the first took
/// long, which a busy machine makes it: then once more.
fn growth_is_told(node: &Containerd) -> Result<()> {
    let mut findings = Vec::new();
    for time in 0..5 {
        let live = LiveReport::start_by(node.command(binary()?), node.files(), &["--hook", "clsact"])?;
        std::thread::sleep(Duration::from_secs(2));
        for batch in 0..3 {
            let rule = format!("-A POSTROUTING -s 10.{time}.{batch}.0/24 -j RETURN\n");
            let rules = format!("*nat\n{}COMMIT\n", rule.repeat(10));
            let mut command = node.command("iptables-nft-restore");
            run_with_input(command.arg("--noflush"), &rules, Duration::from_secs(120))?;
            std::thread::sleep(Duration::from_millis(200));
        }
        let report = live.finish()?;
        node.sh("iptables-nft -t nat -F POSTROUTING")?;
        findings = of_code(&report, "DP502").into_iter().cloned().collect();
        let grown = |finding: &Value| {
            let summary = finding["summary"].as_str().unwrap_or_default();
            finding["subject"]["added"] == "30"
                && summary.contains(" (30 more than ")
                && finding["advice"].as_str().is_some_and(|advice| advice.starts_with("Somebody adds rules"))
        };
        if findings.len() == 1 && grown(&findings[0]) {
            return Ok(());
        }
    }
    anyhow::bail!("30 rules more, of which 27 duplicates, should be growth: {findings:#?}")
}

/// What `check` says of files and rules, a live report says too, and the report on its recording the same.
fn reports_say_it_too(node: &Containerd) -> Result<()> {
    let recording = node.files().join("planted.pcapng");
    let report = |arguments: &[&str]| -> Result<Value> {
        let mut command = node.command(binary()?);
        command.args(["report", "-o", "json"]).args(arguments);
        let output = output_of(&mut command, "", Duration::from_secs(60))?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))
    };
    let file = recording.to_str().context("a path that is no text")?;
    let live = report(&["--hook", "clsact", "--duration", "5s", "-w", file])?;
    let rules = of_code(&live, "DP502");
    ensure!(rules.len() == 1 && rules[0]["count"].as_u64() > Some(20_000), "{:#}", live["findings"]);
    ensure!(rules[0]["subject"]["duplicates"] == "19999", "{:#}", live["findings"]);
    let pods: Vec<_> =
        of_code(&live, "DP501").iter().map(|finding| finding["subject"]["pod"].clone()).collect();
    ensure!(pods.contains(&"shop/pod-001".into()) && pods.contains(&"shop/pod-005".into()), "{pods:?}");
    let replayed = report(&[file])?;
    for code in ["DP501", "DP502"] {
        ensure!(
            of_code(&live, code) == of_code(&replayed, code),
            "{code}: {:#} {:#}",
            live["findings"],
            replayed["findings"]
        );
    }
    Ok(())
}

/// `1m2.500s` as the shell prints it; what is none is too long.
fn minutes_and_seconds(text: &str) -> f64 {
    let parsed = text.trim_end_matches('s').split_once('m').and_then(|(minutes, seconds)| {
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    });
    parsed.unwrap_or(f64::INFINITY)
}
