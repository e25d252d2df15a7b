//! The ways dnspath shows itself without a screen: what it can see, lines and then a report, a report that counts
//! what the stream tells.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::wait_until;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::{Process, bound_command, output_of};
use dnspath_tests::query::{Qtype, query};
use dnspath_tests::topology::EMPTY_VIP4;
use dnspath_tests::tracer::{Told, Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions, QueryFilter};
use rustix::process::Signal;
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("check_finds_all_that_capture_needs", check_finds_all_that_capture_needs),
        ("check_names_what_is_missing", check_names_what_is_missing),
        ("without_a_terminal_there_are_lines_and_then_the_report", lines_and_then_the_report),
        ("a_live_report_counts_what_the_stream_tells", a_live_report_counts_what_the_stream_tells),
        ("a_namespace_named_twice_is_watched_once", a_namespace_named_twice_is_watched_once),
        ("two_nodes_are_told_as_one_way", two_nodes_are_told_as_one_way),
        ("other_ports_are_told_where_asked_for", other_ports_are_told_where_asked_for),
    ])
}

/// Runs dnspath to its end: its status, what it printed, what it complained of.
fn dnspath(command: &mut Command) -> Result<(Option<i32>, String, String)> {
    let output = output_of(command, "", Duration::from_secs(60))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

fn status_of<'a>(checks: &'a Value, name: &str) -> &'a Value {
    let all = checks["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|check| check["name"] == name).map_or(&Value::Null, |check| &check["status"])
}

const CHECKS: [&str; 6] =
    ["kernel", "type information", "capabilities", "attachment", "translation", "interfaces"];

fn check_finds_all_that_capture_needs() -> Result<Outcome> {
    let Ok(binary) = binary() else { return Ok(Outcome::LeftOut("there is no dnspath binary".into())) };
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    // From beside the node, and on it.
    let beside = || {
        let mut command = bound_command(&binary);
        command.args(["check", "--netns", lab.node().name()]);
        command
    };
    let on_it = || {
        let mut command = lab.node().command(&binary);
        command.arg("check");
        command
    };
    for make in [&beside as &dyn Fn() -> Command, &on_it] {
        let (status, text, complaint) = dnspath(&mut make())?;
        ensure!(status == Some(0) && complaint.is_empty(), "{status:?}, {complaint}: {text}");
        ensure!(!text.contains('✗'), "something is missing: {text}");
        for name in CHECKS {
            ensure!(text.lines().any(|line| line.contains(name)), "no line of {name}: {text}");
        }
        for interface in ["veth-web", "cni0", "eth0"] {
            ensure!(text.contains(interface), "no {interface}: {text}");
        }
        let (status, json, complaint) = dnspath(make().args(["-o", "json"]))?;
        ensure!(status == Some(0) && complaint.is_empty(), "{status:?}, {complaint}: {json}");
        let checks: Value = serde_json::from_str(&json).with_context(|| format!("not JSON: {json}"))?;
        ensure!(checks["version"] == 1 && checks["status"] != "error", "{checks:#}");
        for name in CHECKS {
            ensure!(
                ["ok", "warning"].iter().any(|word| status_of(&checks, name) == word),
                "{name}: {checks:#}"
            );
        }
    }
    let (status, text, _) = dnspath(beside().args(["-i", "nosuch0"]))?;
    ensure!(
        status == Some(1) && text.contains("✗ attachment") && text.contains("nosuch0"),
        "{status:?}: {text}"
    );
    let (status, text, _) = dnspath(bound_command(&binary).args(["check", "--netns", "nosuch"]))?;
    ensure!(
        status == Some(1) && text.contains("✗ attachment") && text.contains("nosuch"),
        "{status:?}: {text}"
    );
    Ok(Outcome::Passed)
}

fn check_names_what_is_missing() -> Result<Outcome> {
    let Ok(binary) = binary() else { return Ok(Outcome::LeftOut("there is no dnspath binary".into())) };
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let cases: [(&str, &[&str]); 4] = [
        ("-bpf,-sys_admin", &["CAP_BPF"]),
        ("-perfmon,-sys_admin", &["CAP_PERFMON"]),
        ("-net_admin", &["CAP_NET_ADMIN"]),
        ("-bpf,-perfmon,-net_admin,-sys_admin", &["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]),
    ];
    for (dropped, missing) in cases {
        let without = || {
            let mut command = lab.node().command("setpriv");
            command.args([&format!("--bounding-set={dropped}"), &format!("--inh-caps={dropped}")]);
            command.arg(&binary).arg("check");
            command
        };
        let (status, text, complaint) = dnspath(&mut without())?;
        ensure!(status == Some(1), "{dropped}: {status:?}, {complaint}: {text}");
        let line = text.lines().find(|line| line.contains("✗ capabilities"));
        let line = line.with_context(|| format!("{dropped}: no line of capabilities: {text}"))?;
        ensure!(missing.iter().all(|name| line.contains(name)), "{dropped}: {line}");
        ensure!(line.matches("CAP_").count() == missing.len(), "{dropped}: {line}");
        ensure!(text.contains("→ run as root"), "{dropped}: it does not say what to do: {text}");
        let (status, json, _) = dnspath(without().args(["-o", "json"]))?;
        let checks: Value = serde_json::from_str(&json).with_context(|| format!("not JSON: {json}"))?;
        ensure!(status == Some(1) && checks["status"] == "error", "{dropped}: {status:?}: {checks:#}");
        ensure!(status_of(&checks, "capabilities") == "error", "{dropped}: {checks:#}");
        ensure!(status_of(&checks, "attachment") == "error", "{dropped}: {checks:#}");
        ensure!(status_of(&checks, "kernel") != "error", "{dropped}: {checks:#}");
    }
    Ok(Outcome::Passed)
}

fn lines_and_then_the_report() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions::default())?;
    let web = lab.pod("web")?;
    let mut tracer = Tracer::start(lab.directory(), &["--netns", lab.node().name()])?;
    for name in ["payments.shop", "www.example.com", "nothing.example.com."] {
        Client::Glibc.lookup(web, name)?;
    }
    let output = lab.directory().join("dnspath.out");
    let printed = || std::fs::read_to_string(&output).unwrap_or_default();
    ensure!(
        wait_until(Duration::from_secs(10), || printed().contains("nothing.example.com")),
        "no line of a lookup while it runs: {}",
        printed()
    );
    let lookups_before = printed();
    ensure!(!lookups_before.contains("\n\n"), "there is more than lines: {lookups_before}");
    let status = tracer.process().stop(Signal::INT, Duration::from_secs(10))?;
    ensure!(matches!(status.code(), Some(0 | 1)), "it ended with {status}: {}", tracer.log()?);
    let text = printed();
    let (lines, report) = text.split_once("\n\n").context("no report behind the lines")?;
    let of_web = |name: &str| {
        let client = format!(" {} ", web.netns());
        lines.lines().filter(|line| line.contains(&client) && line.contains(name)).count()
    };
    for (name, result) in [
        ("payments.shop -> payments.shop.svc.cluster.local", " ok "),
        ("www.example.com", " ok "),
        ("nothing.example.com", " nxdomain "),
    ] {
        ensure!(of_web(name) == 1, "{name} is told {} times: {lines}", of_web(name));
        let line = lines.lines().find(|line| line.contains(name)).unwrap_or_default();
        ensure!(line.contains(result), "not {result}: {line}");
    }
    ensure!(report.contains("this node") || report.contains(lab.node().name()), "no report: {report}");
    ensure!(report.contains("frames"), "no coverage in the report: {report}");
    ensure!(!text.contains('\x1b'), "escape sequences without a terminal");
    Ok(Outcome::Measured(format!(
        "{} lines, then {} of report",
        lines.lines().count(),
        report.lines().count()
    )))
}

fn why_not() -> Option<String> {
    if let Err(reason) = binary() {
        return Some(format!("{reason:#}"));
    }
    Client::Glibc.available().err().map(|reason| format!("{reason:#}"))
}

/// How long the report captures: time for a lookup that waits 5 s for a lost answer.
const WINDOW: Duration = Duration::from_secs(14);

fn a_live_report_counts_what_the_stream_tells() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions::default())?;
    let (web, db, node) = (lab.pod("web")?, lab.pod("db")?, lab.node().name());
    let units = ["--unit", "message", "--unit", "question", "--unit", "lookup"];
    let stream = Tracer::stream(lab.node(), &units)?;
    let (mut report, printed) = start_report(&lab, node)?;
    let lost = lab.drop_queries(db, QueryFilter { qtype: Some(Qtype::Aaaa), first: Some(1) })?;
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| Client::Glibc.lookup(db, "payments.shop.svc.cluster.local."));
        for name in [
            "payments.shop",
            "www.example.com",
            "nothing.example.com",
            "many.example.com.",
            "v4only.example.com.",
        ] {
            Client::Glibc.lookup(web, name)?;
        }
        let socket = web.namespace.udp_socket(web.ip4, 0)?;
        let message = query(77, "refused.example.com", Qtype::A);
        socket.send_to(&message, SocketAddr::from((EMPTY_VIP4, 53))).context("cannot send a query")?;
        slow.join().map_err(|_| anyhow::anyhow!("the slow lookup panicked"))??;
        anyhow::Ok(())
    })?;
    ensure!(report.is_running(), "the traffic outlasted the report");
    ensure!(lost.hits()? == 1, "{} queries dropped", lost.hits()?);
    ensure!(wait_until(WINDOW + Duration::from_secs(10), || !report.is_running()), "the report does not end");
    sleep(Duration::from_millis(200));
    let mut told = stream.finish()?;
    let text = std::fs::read_to_string(&printed).context("cannot read the report")?;
    let report: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    // The stream runs before the report and after it, and the server asks by itself (`NS .`, as CoreDNS
    // looks whether its upstream is well): what began outside of the report's window is not in it.
    let within = |line: &Value| within(line, &report["window"]);
    let outside: Vec<Value> = told.lines.extract_if(.., |line| within(line) == Some(false)).collect();
    let (counted, totals) = (counts(&told), &report["totals"]);
    for (name, count) in &counted {
        ensure!(
            totals[name] == *count,
            "{name}: the stream tells {count}, the report {totals:#}; outside of {}: {outside:?}",
            report["window"]
        );
    }
    let at_least = |name: &str, least: u64| {
        let found = totals[name].as_u64().unwrap_or_default();
        ensure!(found >= least, "only {found} {name}: {totals:#}");
        Ok(())
    };
    for (name, least) in [
        ("retransmissions", 1),
        ("tcp_queries", 1),
        ("tc_responses", 1),
        ("nxdomain_responses", 1),
        ("unanswered", 2),
    ] {
        at_least(name, least)?;
    }
    ensure!(report["coverage"]["lost"] == 0, "frames lost: {}", report["coverage"]);
    let codes = report["findings"].as_array().into_iter().flatten().filter_map(|f| f["code"].as_str());
    let codes: Vec<&str> = codes.collect();
    ensure!(codes.contains(&"DP102"), "the wait of five seconds is not among the findings {codes:?}");
    Ok(Outcome::Measured(format!("{counted:?}, findings {codes:?}")))
}

/// A live report in JSON beside a running stream: the process, and the file it prints to.
fn start_report(lab: &Lab, node: &str) -> Result<(Process, PathBuf)> {
    let (ready, printed) = (lab.directory().join("report.ready"), lab.directory().join("report.json"));
    let mut command = bound_command(binary()?);
    let window = format!("{}s", WINDOW.as_secs());
    command
        .args(["report", "-o", "json", "--netns", node, "--duration", &window, "--ready-file"])
        .arg(&ready);
    let stdout = File::create(&printed).context("cannot create the report's file")?;
    let log = lab.directory().join("report.log");
    let mut report = Process::spawn_with_stdout("report", &mut command, stdout.into(), &log)?;
    wait_until(Duration::from_secs(15), || ready.exists() || !report.is_running());
    ensure!(ready.exists(), "the report did not get ready: {}", report.log()?);
    Ok((report, printed))
}

/// The report's totals, counted from lines.
fn counts(told: &Told) -> Vec<(&'static str, usize)> {
    let messages = |which: &dyn Fn(&Value) -> bool| told.unit("message").filter(|line| which(line)).count();
    let questions = |which: &dyn Fn(&Value) -> bool| told.unit("question").filter(|line| which(line)).count();
    let is_query = |line: &Value| line["qr"] == "Q";
    let rcode = |rcode: &'static str| move |line: &Value| line["rcode"] == rcode;
    let sum = |unit: &str, field: &str| {
        told.unit(unit).filter_map(|line| line[field].as_u64()).sum::<u64>() as usize
    };
    // A lookup also tells what it asked all over again, in messages that are first ones; other questions are no lookups.
    let resent = |line: &Value| line["retransmissions"].as_array().map_or(0, Vec::len);
    let is_address = |line: &Value| line["qtype"] == "A" || line["qtype"] == "AAAA";
    let again = told.unit("lookup").map(resent).sum::<usize>()
        + told.unit("question").filter(|line| !is_address(line)).map(resent).sum::<usize>();
    // Each query message is answered by one response at most.
    let unanswered = sum("question", "queries").saturating_sub(messages(&|line| line["unmatched"] == false));
    vec![
        ("queries", messages(&is_query)),
        ("udp_queries", messages(&|line| is_query(line) && line["transport"] == "udp")),
        ("tcp_queries", messages(&|line| is_query(line) && line["transport"] == "tcp")),
        ("responses", messages(&|line| line["qr"] == "R")),
        ("retransmissions", again),
        ("nxdomain_responses", messages(&rcode("NXDOMAIN"))),
        ("servfail_responses", messages(&rcode("SERVFAIL"))),
        ("refused_responses", messages(&rcode("REFUSED"))),
        ("tc_responses", messages(&|line| line["tc"] == true)),
        ("late_responses", messages(&|line| line["late"] == true)),
        ("unanswered", unanswered.max(questions(&|line| line["answers"] == 0))),
        ("lookups", told.unit("lookup").count()),
        ("wasted_search_queries", sum("lookup", "wasted_search_queries")),
    ]
}

/// Whether what a line tells began within a report's window; none for a line without a time of its own.
fn within(line: &Value, window: &Value) -> Option<bool> {
    let began = line["time"].as_str().or_else(|| line["start"].as_str())?;
    Some(began >= window["from"].as_str()? && began <= window["to"].as_str()?)
}

/// The lines of a query's message.
fn queries_told<'a>(told: &'a Told, name: &str) -> Vec<&'a Value> {
    told.unit("message").filter(|line| line["qr"] == "Q" && line["name"] == name).collect()
}

/// The hops of a message.
fn hops(line: &Value) -> Vec<&str> {
    let hops = line["hops"].as_array().map(Vec::as_slice).unwrap_or_default();
    hops.iter().filter_map(|hop| hop["vantage"].as_str()).collect()
}

fn a_namespace_named_twice_is_watched_once() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions::default())?;
    let name = lab.node().name();
    let (by_path, by_pid) =
        (format!("/run/netns/{name}"), format!("/proc/{}/ns/net", lab.node().pause_pid()));
    let again = ["--netns", name, "--netns", &by_path, &by_pid];
    let tracer = Tracer::stream(lab.node(), &[&["--unit", "message"], &again[..]].concat())?;
    Client::Glibc.lookup(lab.pod("web")?, "www.example.com.")?;
    sleep(Duration::from_millis(300));
    let told = tracer.finish()?;
    let queries = queries_told(&told, "www.example.com");
    let of_web = queries.iter().filter(|line| hops(line).iter().any(|hop| hop.ends_with("veth-web ingress")));
    let of_web: Vec<_> = of_web.collect();
    ensure!(of_web.len() == 2, "an A and an AAAA query became {of_web:?}");
    for line in of_web {
        let first = hops(line).iter().filter(|hop| hop.ends_with("veth-web ingress")).count();
        ensure!(first == 1 && line["role"] == "first", "told twice: {line}");
    }
    Ok(Outcome::Passed)
}

fn two_nodes_are_told_as_one_way() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let mut lab = Lab::new(LabOptions { endpoints: vec!["dns3".to_owned()], ..LabOptions::default() })?;
    lab.start_cluster_server("dns3")?;
    let other = lab.node2().name().to_owned();
    let tracer = Tracer::stream(lab.node(), &["--netns", &other, "--unit", "message"])?;
    Client::Glibc.lookup(lab.pod("web")?, "payments.shop.svc.cluster.local.")?;
    sleep(Duration::from_millis(300));
    let told = tracer.finish()?;
    let queries = queries_told(&told, "payments.shop.svc.cluster.local");
    ensure!(queries.len() == 2, "an A and an AAAA query became {queries:?}");
    let mut ways = Vec::new();
    for line in queries {
        let way = hops(line);
        let first = format!("{}/veth-web ingress", lab.node().name());
        let last = format!("{other}/veth-dns3 egress");
        ensure!(way.first() == Some(&first.as_str()), "it does not begin at the pod: {line}");
        ensure!(way.last() == Some(&last.as_str()), "it does not end at the server: {line}");
        ways.push(way.len());
    }
    Ok(Outcome::Measured(format!("{ways:?} hops over both nodes")))
}

fn other_ports_are_told_where_asked_for() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let (web, db) = (lab.pod("web")?, lab.pod("db")?);
    let tracer = Tracer::stream(lab.node(), &["--port", "5300,5353", "--unit", "message"])?;
    let socket = web.namespace.udp_socket(web.ip4, 0)?;
    for (id, port) in [(1, 53_u16), (2, 5300), (3, 5353), (4, 5301)] {
        let message = query(id, &format!("port{port}.example.com"), Qtype::A);
        socket.send_to(&message, SocketAddr::from((db.ip4, port))).context("cannot send a query")?;
    }
    sleep(Duration::from_millis(300));
    let told = tracer.finish()?;
    let ids: Vec<u64> = told.unit("message").filter_map(|line| line["id"].as_u64()).collect();
    ensure!(ids == [2, 3], "told are {ids:?}");
    Ok(Outcome::Passed)
}
