//! Bad input of every kind: arguments, missing rights, and packets that lie. Never a panic, always a line that says
//! what to do or a count, and what comes after is told as ever.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::capture::Capture;
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::packet::inject;
use dnspath_tests::process::{bound_command, output_of, run as run_command, run_with_input};
use dnspath_tests::query::{Qtype, query};
use dnspath_tests::requirements::find;
use dnspath_tests::storm::{Case, Ends, mutations, storm};
use dnspath_tests::topology::{VIP4, VIP6};
use dnspath_tests::tracer::{Told, Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("bad_arguments_are_told_on_one_line", bad_arguments_are_told_on_one_line),
        ("missing_capabilities_are_named", missing_capabilities_are_named),
        ("a_storm_of_lies_as_json", a_storm_of_lies_as_json),
        ("a_storm_of_lies_as_text", a_storm_of_lies_as_text),
        ("messages_in_tcp_streams_of_every_cut", messages_in_tcp_streams_of_every_cut),
        ("joined_segments_are_told_one_by_one", joined_segments_are_told_one_by_one),
    ])
}

/// Checks that a command is refused: status 2, nothing printed, one line that has all of `words`.
fn refused(command: &mut Command, words: &[&str]) -> Result<()> {
    let output = output_of(command, "", Duration::from_secs(20))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let shown = format!("{command:?} said {said:?} and ended with {}", output.status);
    ensure!(output.status.code() == Some(2), "not status 2: {shown}");
    ensure!(output.stdout.is_empty(), "it printed something: {shown}");
    ensure!(said.lines().count() == 1 && said.starts_with("dnspath: "), "not one line: {shown}");
    for word in words {
        ensure!(said.contains(word), "no {word:?}: {shown}");
    }
    Ok(())
}

fn bad_arguments_are_told_on_one_line() -> Result<Outcome> {
    let Ok(binary) = binary() else { return Ok(Outcome::LeftOut("there is no dnspath binary".into())) };
    let cases: [(&[&str], &[&str]); 16] = [
        (&["stream", "-i", "nosuch0"], &["cannot attach", "\"nosuch0\"", "there are: "]),
        (&["stream", "-i", "no\x1bsuch\n"], &["cannot attach", "there are: "]),
        (&["stream", "-i", "["], &["cannot use --interface", "["]),
        (&["report", "--duration", "1s", "-i", "nosuch0"], &["cannot attach", "\"nosuch0\""]),
        (&["-i", "nosuch0"], &["cannot attach", "\"nosuch0\""]),
        (&["stream", "--netns", "nosuch"], &["network namespace \"nosuch\"", "`ip netns`"]),
        (&["stream", "--netns", "/etc/passwd"], &["network namespace \"/etc/passwd\""]),
        (&["stream", "--port", "0"], &["'0'", "--port", "1..=65535", "--help"]),
        (&["stream", "--port", "65536"], &["'65536'", "--port", "1..=65535"]),
        (&["stream", "--port", "x"], &["'x'", "--port"]),
        (&["stream", "--port", "1,2,3,4,5,6,7,8,9"], &["9 DNS ports", "at most 8", "--port"]),
        (&["stream", "-o", "jsn"], &["'jsn'", "--output", "json", "text"]),
        (&["stream", "--duration", "forever"], &["'forever'", "--duration"]),
        (&["stream", "--ready-file", "/nonexistent/ready"], &["--ready-file", "/nonexistent/ready"]),
        (&["report"], &["cannot report", "--duration"]),
        (&["frobnicate"], &["'frobnicate'", "--help"]),
    ];
    for (arguments, words) in cases {
        refused(bound_command(&binary).args(arguments), words)?;
    }
    Ok(Outcome::Measured(format!("{} bad command lines", cases.len())))
}

fn missing_capabilities_are_named() -> Result<Outcome> {
    let Ok(binary) = binary() else { return Ok(Outcome::LeftOut("there is no dnspath binary".into())) };
    // Anybody may run this copy.
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let copy = directory.path().join("dnspath");
    std::fs::copy(&binary, &copy).context("cannot copy dnspath")?;
    for path in [directory.path(), &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).context("cannot chmod")?;
    }
    let without = |capabilities: &[&str]| {
        let list = capabilities.iter().map(|name| format!("-{name}")).collect::<Vec<_>>().join(",");
        let mut command = bound_command("setpriv");
        command.args([&format!("--bounding-set={list}"), &format!("--inh-caps={list}")]).arg(&copy);
        command
    };
    // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
    let cases: [(&[&str], &str); 4] = [
        (&["bpf", "sys_admin"], "CAP_BPF is missing"),
        (&["perfmon", "sys_admin"], "CAP_PERFMON is missing"),
        (&["net_admin"], "CAP_NET_ADMIN is missing"),
        (&["bpf", "perfmon", "net_admin", "sys_admin"], "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are missing"),
    ];
    for (capabilities, words) in cases {
        for arguments in [&["stream"][..], &["report", "--duration", "1s"], &[]] {
            refused(without(capabilities).args(arguments), &["cannot capture", words, "run as root"])?;
        }
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let other = ["stream", "--netns", lab.node().name()];
    refused(without(&["sys_admin"]).args(other), &["CAP_SYS_ADMIN is missing"])?;
    let mut nobody = bound_command("setpriv");
    nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy).arg("stream");
    refused(&mut nobody, &["CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are missing", "run as root"])?;
    // Just what is needed is enough, for a user that is not root too.
    let mut enough = bound_command("setpriv");
    let needed = "+bpf,+perfmon,+net_admin";
    enough.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    enough.args([&format!("--inh-caps={needed}"), &format!("--ambient-caps={needed}")]);
    enough.arg(&copy).args(["stream", "--duration", "100ms"]);
    run_command(&mut enough, Duration::from_secs(20)).context("with the capabilities it asks for")?;
    Ok(Outcome::Passed)
}

const MUTATIONS: usize = 20_000;

/// A lab, and the storm from its pod `web` to the service.
fn storm_lab() -> Result<(Lab, Vec<Case>)> {
    let lab = Lab::new(LabOptions::default())?;
    let cases = storm(Ends::of(&lab, "web")?);
    Ok((lab, cases))
}

fn why_no_storm() -> Option<String> {
    if let Err(reason) = binary() {
        return Some(format!("{reason:#}"));
    }
    ["python3", "tcpdump", "tshark"]
        .into_iter()
        .find(|program| find(program).is_none())
        .map(|program| format!("{program} is missing"))
}

fn a_storm_of_lies_as_json() -> Result<Outcome> {
    if let Some(reason) = why_no_storm() {
        return Ok(Outcome::LeftOut(reason));
    }
    let (lab, cases) = storm_lab()?;
    let web = lab.pod("web")?;
    let units = ["--unit", "message", "--unit", "question", "--unit", "lookup", "--unit", "finding"];
    let mut tracer = Tracer::stream(lab.node(), &units)?;
    let capture = Capture::start_with(lab.node(), &web.veth, "")?;
    let frames: Vec<Vec<u8>> = cases.iter().flat_map(|case| case.frames.clone()).collect();
    inject(web, &frames)?;
    // Fragments that are never completed are waited for.
    sleep(Duration::from_millis(500));
    let wire = names_by_tshark(&capture.stop()?)?;
    inject(web, &mutations(&cases, MUTATIONS, 0x5eed))?;
    sleep(Duration::from_millis(500));
    ensure!(tracer.process().is_running(), "dnspath ended in the storm: {}", tracer.log()?);
    let answer = Client::Glibc.lookup(web, "payments.shop")?;
    sleep(Duration::from_millis(500));
    let log = tracer.log()?;
    let told = tracer.finish()?;
    ensure!(!log.contains("panicked"), "it panicked: {log}");
    check_names(&cases, &told, &wire, web.ip4.into(), web.ip6.into())?;
    ensure!(answer.error.is_none(), "the lookup after the storm failed: {answer:?}");
    check_lookup(&told, web.ip4.into(), &answer.addresses)?;
    let counted = cases.iter().filter(|case| case.counted).count() as u64;
    let (malformed, truncated) = (told.covered("malformed")?, told.covered("truncated")?);
    ensure!(malformed + truncated >= counted, "{counted} broken frames, counted {:?}", told.coverage);
    ensure!(told.covered("lost")? == 0, "frames lost: {:?}", told.coverage);
    Ok(Outcome::Measured(format!(
        "{} cases and {MUTATIONS} mutations, {} lines, {:?}",
        cases.len(),
        told.lines.len(),
        told.coverage
    )))
}

/// The names of queries in a capture by DNS id, as tshark reads them.
fn names_by_tshark(file: &Path) -> Result<HashMap<u16, String>> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file);
    command.args(["-Y", "dns.flags.response == 0 && dns.qry.name && !icmp && !icmpv6"]);
    command.args(["-T", "fields", "-E", "occurrence=f", "-e", "dns.id", "-e", "dns.qry.name"]);
    let output = run_command(&mut command, Duration::from_secs(120))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| {
        let (id, name) = line.split_once('\t')?;
        Some((u16::from_str_radix(id.trim_start_matches("0x"), 16).ok()?, name.to_lowercase()))
    });
    Ok(names.collect())
}

fn check_names(
    cases: &[Case],
    told: &Told,
    wire: &HashMap<u16, String>,
    web4: IpAddr,
    web6: IpAddr,
) -> Result<()> {
    let mut names: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for line in told.unit("message").filter(|line| line["qr"] == "Q") {
        let client: Option<SocketAddr> = line["client"].as_str().and_then(|client| client.parse().ok());
        if client.is_some_and(|client| client.ip() == web4 || client.ip() == web6)
            && let (Some(id), Some(name)) = (line["id"].as_u64(), line["name"].as_str())
        {
            names.entry(id).or_default().push(name);
        }
    }
    let mut wrong = Vec::new();
    for case in cases {
        let Some(name) = &case.name else { continue };
        let told = names.get(&case.id.into()).map(Vec::as_slice).unwrap_or_default();
        if !told.contains(&name.as_str()) {
            wrong.push(format!("{} (id {:#x}): {name:?} not told but {told:?}", case.what, case.id));
        }
        if case.plain && wire.get(&case.id) != Some(name) {
            wrong.push(format!("{}: tshark reads {:?}, not {name:?}", case.what, wire.get(&case.id)));
        }
    }
    ensure!(wrong.is_empty(), "{} cases wrong: {}", wrong.len(), wrong.join("; "));
    Ok(())
}

/// The lookup of `payments.shop` is told whole: its answers, its questions, itself.
fn check_lookup(told: &Told, web: IpAddr, addresses: &[IpAddr]) -> Result<()> {
    let name = "payments.shop.svc.cluster.local";
    for address in addresses {
        let shown = Value::from(address.to_string());
        let has = |line: &Value| {
            line["qr"] == "R"
                && line["name"] == name
                && line["addresses"].as_array().is_some_and(|addresses| addresses.contains(&shown))
                && line["latency_ns"].as_u64().is_some_and(|latency| latency < 1_000_000_000)
        };
        ensure!(told.unit("message").any(has), "no answer {address} told after the storm");
    }
    let answered = told
        .unit("question")
        .filter(|line| line["name"] == name && line["client"] == web.to_string())
        .filter(|line| line["outcome"] == "answered" && line["rcode"] == "NOERROR")
        .count();
    ensure!(answered == 2, "{answered} questions answered after the storm, not 2");
    let lookup = told
        .unit("lookup")
        .find(|line| line["name"] == "payments.shop")
        .context("the lookup after the storm was not told")?;
    ensure!(lookup["result"] == "ok", "told wrongly: {lookup}");
    Ok(())
}

fn a_storm_of_lies_as_text() -> Result<Outcome> {
    if let Some(reason) = why_no_storm() {
        return Ok(Outcome::LeftOut(reason));
    }
    let (lab, cases) = storm_lab()?;
    let web = lab.pod("web")?;
    let arguments = ["stream", "-o", "text", "--netns", lab.node().name(), "--unit"];
    let tracer =
        Tracer::start(lab.node().files(), &[&arguments[..], &["message,question,lookup,finding"]].concat())?;
    let frames: Vec<Vec<u8>> = cases.iter().flat_map(|case| case.frames.clone()).collect();
    inject(web, &frames)?;
    inject(web, &mutations(&cases, MUTATIONS, 0x7e47))?;
    Client::Glibc.lookup(web, "payments.shop")?;
    sleep(Duration::from_millis(500));
    let log = tracer.log()?;
    let (text, _) = tracer.finish_with_text()?;
    ensure!(!log.contains("panicked"), "it panicked: {log}");
    let odd = text.iter().position(|octet| !matches!(octet, b'\n' | 0x20..=0x7e));
    if let Some(at) = odd {
        let around = text.get(at.saturating_sub(80)..text.len().min(at + 40)).unwrap_or_default();
        anyhow::bail!("not printable: {:?}", String::from_utf8_lossy(around));
    }
    let text = String::from_utf8(text).context("not even UTF-8")?;
    for case in cases.iter().filter(|case| case.name.is_some()) {
        let id = format!(" {:04x} ", case.id);
        let name = case.name.as_deref().unwrap_or_default();
        let told = text.lines().any(|line| line.contains(&id) && line.contains(name));
        ensure!(told, "{}: no line with {id:?} and {name:?}", case.what);
    }
    ensure!(text.lines().any(|line| line.contains("payments.shop ->")), "the lookup was not told");
    Ok(Outcome::Measured(format!("{} lines, all printable", text.lines().count())))
}

/// A message as TCP carries it.
fn prefixed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// Reads one message, or what there is until the server closes.
fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).context("cannot set the time limit")?;
    let mut prefix = [0_u8; 2];
    stream.read_exact(&mut prefix).context("no answer")?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
    stream.read_exact(&mut message).context("half an answer")?;
    Ok(message)
}

/// Addresses that the test's own server answers with: more than fits into a few segments.
const LARGE_ANSWERS: u16 = 1_300;

fn messages_in_tcp_streams_of_every_cut() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let lab = Lab::new(LabOptions::default())?;
    let (web, db) = (lab.pod("web")?, lab.pod("db")?);
    let listener = db.namespace.enter(|| TcpListener::bind((db.ip4, 53)))?.context("cannot listen")?;
    let connect = |to: IpAddr| -> Result<TcpStream> {
        let stream = web.namespace.enter(|| TcpStream::connect((to, 53)))?.context("cannot connect")?;
        stream.set_nodelay(true).context("no TCP_NODELAY")?;
        Ok(stream)
    };
    let ask = |id: u16, name: &str| prefixed(&query(id, &format!("{name}.example.com"), Qtype::A));
    let mut before = connect(VIP4.into())?;
    before.write_all(&ask(1, "before"))?;
    read_message(&mut before)?;
    let tracer = Tracer::stream(lab.node(), &["--unit", "message", "--unit", "question"])?;
    before.write_all(&ask(0x101, "middle"))?;
    read_message(&mut before)?;
    let mut together = connect(VIP4.into())?;
    together
        .write_all(&[ask(0x102, "together1"), ask(0x103, "together2"), ask(0x104, "together3")].concat())?;
    for _ in 0..3 {
        read_message(&mut together)?;
    }
    let mut bytewise = connect(VIP6.into())?;
    for octet in ask(0x105, "bytewise") {
        bytewise.write_all(&[octet])?;
        sleep(Duration::from_millis(1));
    }
    read_message(&mut bytewise)?;
    // What a server does with these is its own business.
    let lies: [&[u8]; 5] = [&[0, 0], &[0xff; 600], &[0, 5, 1, 2, 3, 4, 5], b"GET / HTTP/1.1\r\n\r\n", &[0]];
    for lie in lies {
        let mut stream = connect(VIP4.into())?;
        stream.write_all(lie)?;
        sleep(Duration::from_millis(20));
    }
    let mut large = connect(db.ip4.into())?;
    large.write_all(&ask(0x106, "large"))?;
    let (mut served, _) = listener.accept().context("nobody connects")?;
    let mut response = read_message(&mut served)?;
    response.splice(2..4, [0x84, 0]);
    response.splice(6..8, LARGE_ANSWERS.to_be_bytes());
    for number in 0..LARGE_ANSWERS {
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 198, 51]);
        response.extend(number.to_be_bytes());
    }
    served.write_all(&prefixed(&response))?;
    ensure!(read_message(&mut large)? == response, "the large answer came otherwise");
    let mut after = connect(VIP4.into())?;
    after.write_all(&ask(0x107, "after"))?;
    read_message(&mut after)?;
    sleep(Duration::from_millis(500));
    let told = tracer.finish()?;
    let names = ["middle", "together1", "together2", "together3", "bytewise", "large", "after"];
    for (id, name) in (0x101_u16..).zip(names) {
        for qr in ["Q", "R"] {
            let lines = told.unit("message").filter(|line| {
                let client: Option<SocketAddr> =
                    line["client"].as_str().and_then(|client| client.parse().ok());
                client.is_some_and(|client| [web.ip4.into(), IpAddr::from(web.ip6)].contains(&client.ip()))
                    && line["id"] == id
                    && line["qr"] == qr
                    && line["transport"] == "tcp"
                    && line["name"] == format!("{name}.example.com")
            });
            let lines: Vec<&Value> = lines.collect();
            ensure!(lines.len() == 1, "{name}: {} {qr} lines: {lines:?}", lines.len());
            let line = lines.first().context("no line")?;
            ensure!(qr == "Q" || line["latency_ns"].is_u64(), "{name}: not paired: {line}");
            if qr == "R" && name == "large" {
                ensure!(line["num_answers"] == LARGE_ANSWERS, "answers: {line}");
                ensure!(line["size"] == response.len(), "size: {line}");
            }
        }
    }
    Ok(Outcome::Measured(format!("an answer of {} octets, {:?}", response.len(), told.coverage)))
}

/// Sends datagrams that the kernel cuts out of one buffer.
const SEGMENTS: &str = include_str!("../clients/segments.py");

fn joined_segments_are_told_one_by_one() -> Result<Outcome> {
    if let Some(reason) = why_no_storm() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = Lab::new(LabOptions::default())?;
    let web = lab.pod("web")?;
    let tracer = Tracer::stream(lab.node(), &["--unit", "message", "--unit", "question"])?;
    let backend: Ipv4Addr = lab.pod("dns1")?.ip4;
    let mut sent = Vec::new();
    for (round, server) in [VIP4.to_string(), VIP6.to_string(), backend.to_string()].iter().enumerate() {
        // The last one may be shorter.
        let names =
            [format!("one{round}.example.com"), format!("two{round}.example.com"), "w.example.com".into()];
        let first = 0x200 + 16 * round as u16;
        let messages: Vec<Vec<u8>> =
            (first..).zip(&names).map(|(id, name)| query(id, name, Qtype::A)).collect();
        let size = messages.first().map_or(0, Vec::len).to_string();
        let hexadecimal: String = messages.concat().iter().map(|octet| format!("{octet:02x}")).collect();
        let mut command = web.command("python3");
        command.args(["-c", SEGMENTS, server, &size]);
        let output = run_with_input(&mut command, &hexadecimal, Duration::from_secs(20))?;
        let answers = String::from_utf8_lossy(&output.stdout).lines().count();
        ensure!(answers == 3, "{answers} of 3 answered by {server}");
        sent.push((first, names));
    }
    sleep(Duration::from_millis(300));
    let told = tracer.finish()?;
    let mut joined = 0;
    for (first, names) in &sent {
        let mut frames = Vec::new();
        for (id, name) in (*first..).zip(names) {
            let ours = |qr: &str| {
                let lines = told.unit("message").filter(|line| {
                    let client: Option<SocketAddr> = line["client"].as_str().and_then(|c| c.parse().ok());
                    client.is_some_and(|c| [web.ip4.into(), IpAddr::from(web.ip6)].contains(&c.ip()))
                        && line["id"] == id
                        && line["name"] == *name
                        && line["qr"] == qr
                });
                lines.collect::<Vec<_>>()
            };
            let (queries, responses) = (ours("Q"), ours("R"));
            ensure!(queries.len() == 1 && responses.len() == 1, "{name}: {queries:?}, {responses:?}");
            ensure!(responses.iter().all(|line| line["latency_ns"].is_u64()), "not paired: {responses:?}");
            frames.extend(queries.iter().map(|line| line["hops"][0]["frame"].clone()));
        }
        frames.dedup();
        joined += usize::from(frames.len() == 1);
    }
    ensure!(joined > 0, "no frame held several queries: the pods' links cut them");
    Ok(Outcome::Measured(format!("{joined} of {} frames held three queries", sent.len())))
}
