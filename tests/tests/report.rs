//! `dnspath report` of one session seen from several places: the counts, lookups and findings are the same
//! wherever the capture was taken, each message being counted once.
//!
//! The session: pods with four resolvers ask the service, a backend, another node, the upstream (masqueraded), over
//! IPv6 and TCP; four search suffixes; one AAAA query that is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use dnspath_tests::capture::{Capture, WireMessage, pair, read_messages};
use dnspath_tests::harness::{Outcome, Shared, run};
use dnspath_tests::lab::resolv_conf;
use dnspath_tests::query::Qtype;
use dnspath_tests::report::{LiveReport, clients, report, report_json, same};
use dnspath_tests::toolbox::target_directory;
use dnspath_tests::topology::{UPSTREAM4, VIP4, VIP6};
use dnspath_tests::tracer::binary;
use dnspath_tests::{Client, Lab, LabOptions, QueryFilter};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("at_the_pods_the_report_counts_what_tshark_counts", at_the_pods),
        ("one_capture_of_all_interfaces_says_the_same", one_capture_of_all_interfaces),
        ("a_capture_of_each_interface_says_the_same", captures_of_each_interface),
        ("a_live_session_says_the_same", live),
        ("one_file_always_gives_the_same_octets", same_octets),
    ])
}

/// Answered at once, without a search.
const PLAIN: [&str; 3] = ["web.default.svc.cluster.local.", "www.example.com.", "nothing.example.com."];
/// Answered as it is, after four suffixes; by the second suffix.
const SEARCHED: [&str; 2] = ["api.example.com", "payments.shop"];
/// Over TCP. glibc's buffer grows for it, so that one call asks it three times: one process a call, for calls at once
/// after each other would be taken for one.
const LARGE: &str = "many.example.com.";

/// A pod of the session: its name, its resolver, whom it asks, options of its resolv.conf.
const PODS: [(&str, Client, &str, &str); 11] = [
    ("glibc", Client::Glibc, "vip4", ""),
    ("musl", Client::Musl, "vip4", ""),
    ("go", Client::Go, "vip4", ""),
    ("cares", Client::CAres, "vip4", ""),
    ("direct", Client::Musl, "dns1", ""),
    ("remote", Client::Glibc, "dns3", ""),
    ("up", Client::Glibc, "upstream", ""),
    ("upgo", Client::Go, "upstream", ""),
    ("six", Client::Glibc, "vip6", ""),
    ("tcp", Client::Glibc, "vip4", "options use-vc\n"),
    ("tcpgo", Client::Go, "vip4", "options use-vc\n"),
];

struct Session {
    /// Kept for its files.
    _directory: tempfile::TempDir,
    at_pods: Vec<PathBuf>,
    any: PathBuf,
    everywhere: Vec<PathBuf>,
    live: Value,
    pods: Vec<String>,
    /// How many calls each pod made.
    calls: Vec<usize>,
    /// What was wrong with the session before, if this is the second one.
    before: String,
}

/// The session, made once for all tests; `Err` is the reason why it is left out.
fn session() -> Result<Result<&'static Session, String>> {
    static SESSION: Shared<Session> = Shared::new();
    SESSION.get(make)
}

/// Eleven clients, sixteen captures and a live session on two processors: a client that gets none for a tenth of a second
/// between two messages is told as two lookups, which is known. So what differs is tried once more, and told.
fn make() -> Result<Result<Session, String>> {
    if let Err(reason) = binary() {
        return Ok(Err(format!("{reason:#}")));
    }
    let session = make_once()?;
    let before = who_differs(&session)?;
    Ok(Ok(if before.is_empty() { session } else { Session { before, ..make_once()? } }))
}

fn make_once() -> Result<Session> {
    let pods: Vec<String> = PODS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let mut lab = Lab::new(LabOptions { pods, ..LabOptions::default() })?;
    lab.start_cluster_server("dns3")?;
    for (name, _, server, options) in PODS {
        let server = match server {
            "vip4" => VIP4.into(),
            "vip6" => VIP6.into(),
            "upstream" => UPSTREAM4.into(),
            pod => lab.pod(pod)?.ip4.into(),
        };
        lab.pod(name)?.namespace.set_resolv_conf(&(resolv_conf(&[server]) + options))?;
    }
    let directory = tempfile::tempdir().context("cannot make a directory for the captures")?;
    let mut addresses = Vec::new();
    let mut interfaces = Vec::new();
    for (name, ..) in PODS {
        let pod = lab.pod(name)?;
        addresses.extend([pod.ip4.to_string(), pod.ip6.to_string()]);
        interfaces.push(pod.veth.clone());
    }
    interfaces.extend(["veth-dns1", "veth-dns2", "cni0", "eth0", "any"].map(str::to_owned));
    let mut arguments = vec!["--netns", lab.node().name()];
    arguments.extend(clients(&addresses));
    let live = LiveReport::start(directory.path(), &arguments)?;
    let captures: Vec<Capture> =
        interfaces.iter().map(|name| Capture::start(lab.node(), name)).collect::<Result<_>>()?;
    let calls = talk(&lab)?;
    // The last messages are still on their way through the node.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut files = Vec::new();
    for (capture, interface) in captures.into_iter().zip(&interfaces) {
        let kept = directory.path().join(format!("{interface}.pcap"));
        fs::copy(capture.stop()?, &kept).context("cannot keep a capture")?;
        files.push(kept);
    }
    let live = live.finish()?;
    let any = files.pop().context("no capture of any")?;
    let at_pods = files.iter().take(PODS.len()).cloned().collect();
    let before = String::new();
    Ok(Session {
        _directory: directory,
        at_pods,
        any,
        everywhere: files,
        live,
        pods: addresses,
        calls,
        before,
    })
}

/// All pods at once; returns how many calls each made.
fn talk(lab: &Lab) -> Result<Vec<usize>> {
    let lost =
        lab.drop_queries(lab.pod("glibc")?, QueryFilter { qtype: Some(Qtype::Aaaa), first: Some(1) })?;
    let calls = std::thread::scope(|scope| {
        let all: Vec<_> = PODS
            .map(|(pod, client, ..)| scope.spawn(move || talk_of(lab, pod, client)))
            .into_iter()
            .collect();
        all.into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err(anyhow!("a client's thread panicked"))))
            .collect::<Result<_>>()
    })?;
    ensure!(lost.hits()? == 1, "{} queries dropped", lost.hits()?);
    Ok(calls)
}

fn talk_of(lab: &Lab, pod: &str, client: Client) -> Result<usize> {
    if client.available().is_err() {
        return Ok(0);
    }
    let plain = client.lookup_all(lab.pod(pod)?, &PLAIN, 6)?;
    let searched = client.lookup_all(lab.pod(pod)?, &SEARCHED, 4)?;
    for _ in 0..2 {
        client.lookup(lab.pod(pod)?, LARGE)?;
    }
    Ok(plain.len() + searched.len() + 2)
}

fn check(test: fn(&Session, &Value) -> Result<String>) -> Result<Outcome> {
    let session = match session()? {
        Ok(session) => session,
        Err(reason) => return Ok(Outcome::LeftOut(reason)),
    };
    let at_pods = report_json(&clients(&session.pods), &session.at_pods)?;
    Ok(Outcome::Measured(test(session, &at_pods)?))
}

fn at_the_pods() -> Result<Outcome> {
    check(|session, at_pods| {
        let (mut queries, mut responses, mut paired) = (0, 0, 0);
        for file in &session.at_pods {
            let messages: Vec<WireMessage> = read_messages(file)?;
            responses += messages.iter().filter(|message| message.response).count();
            queries += messages.iter().filter(|message| !message.response).count();
            paired += pair(&messages).len();
        }
        let totals = &at_pods["totals"];
        let counted = ["queries", "responses", "unanswered"].map(|key| totals[key].as_u64());
        let expected = [queries, responses, queries - paired].map(|count| Some(count as u64));
        ensure!(counted == expected, "{counted:?}, tshark {expected:?}");
        let calls: usize = session.calls.iter().sum();
        let differ = who_differs(session)?;
        let lookups = totals["lookups"].as_u64();
        ensure!(differ.is_empty() && lookups == Some(calls as u64), "{lookups:?} of {calls} calls: {differ}");
        ensure!(totals["retransmissions"].as_u64() >= Some(1), "the lost AAAA is not told: {totals}");
        let before = if session.before.is_empty() { "" } else { "; tried once more, for before: " };
        Ok(format!("{calls} lookups, {queries} queries, {responses} responses{before}{}", session.before))
    })
}

/// The pods whose lookups are not their calls, with what was told of them; their captures are kept.
fn who_differs(session: &Session) -> Result<String> {
    let kept = target_directory().join("differs");
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let mut text = String::new();
    for (((pod, ..), file), calls) in PODS.iter().zip(&session.at_pods).zip(&session.calls) {
        let report = report_json(&[], std::slice::from_ref(file))?;
        let lookups = report["lookups"].as_array().context("no lookups")?;
        if lookups.len() != *calls {
            let capture = kept.join(format!("{pod}.pcap"));
            fs::copy(file, &capture).context("cannot keep a capture")?;
            let mut names: BTreeMap<&str, usize> = BTreeMap::new();
            for lookup in lookups {
                *names.entry(lookup["name"].as_str().unwrap_or_default()).or_default() += 1;
            }
            let capture = capture.display();
            text.push_str(&format!(
                "{pod}: {} lookups of {calls} calls in {capture}: {names:?}; ",
                lookups.len()
            ));
        }
    }
    Ok(text)
}

fn one_capture_of_all_interfaces() -> Result<Outcome> {
    check(|session, at_pods| {
        let any = report_json(&clients(&session.pods), std::slice::from_ref(&session.any))?;
        same(at_pods, &any)?;
        Ok(seen(&any))
    })
}

fn captures_of_each_interface() -> Result<Outcome> {
    check(|session, at_pods| {
        let all = report_json(&clients(&session.pods), &session.everywhere)?;
        same(at_pods, &all)?;
        Ok(seen(&all))
    })
}

fn live() -> Result<Outcome> {
    check(|session, at_pods| {
        let lost = &session.live["coverage"]["lost"];
        ensure!(*lost == 0, "{lost} frames lost");
        same(at_pods, &session.live)?;
        Ok(seen(&session.live))
    })
}

/// How often messages were seen, and how many of them there were.
fn seen(report: &Value) -> String {
    let messages = report["coverage"]["dns_messages"].as_u64().unwrap_or_default();
    let totals = &report["totals"];
    let counted: u64 = ["queries", "responses"].iter().filter_map(|key| totals[key].as_u64()).sum();
    format!("{messages} sightings, {counted} messages of the pods")
}

fn same_octets() -> Result<Outcome> {
    check(|session, _| {
        let mut octets = 0;
        for arguments in [&["-o", "text"][..], &["-o", "json", "--lookups"]] {
            let first = report(arguments, std::slice::from_ref(&session.any))?;
            octets += first.1.len();
            for _ in 0..4 {
                ensure!(
                    first == report(arguments, std::slice::from_ref(&session.any))?,
                    "{arguments:?} differs"
                );
            }
        }
        Ok(format!("{octets} octets, five times"))
    })
}
