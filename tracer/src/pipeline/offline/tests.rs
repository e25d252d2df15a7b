use super::*;
use crate::output::Unit;
use crate::{
    cli::{
        args::{Cli, Command},
        options::Source,
    },
    output::Format,
};
use clap::Parser;
use std::{fs, path::PathBuf};

fn corpus(file: &str) -> String {
    format!("{}/../tests/corpus/resolvers/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command line over corpus files; gives its exit status and what it printed.
fn run(line: &str, files: &[&str]) -> anyhow::Result<(ExitStatus, String)> {
    let files = files.iter().map(|file| if file.contains('/') { (*file).to_owned() } else { corpus(file) });
    let words = line.split_whitespace().map(str::to_owned);
    let cli = Cli::try_parse_from(["dnspath".to_owned()].into_iter().chain(words).chain(files))?;
    let mut printed = Vec::new();
    let status = match cli.command {
        Some(Command::Report(args)) => match args.into_options()? {
            (Source::Files(files), options) => report(files, &options, &mut printed),
            (Source::Live(_), _) => panic!("live"),
        },
        Some(Command::Stream(args)) => match args.into_options()? {
            (Source::Files(files), options) => stream(files, &options, &mut printed),
            (Source::Live(_), _) => panic!("live"),
        },
        other => panic!("{other:?}"),
    }?;
    Ok((status, String::from_utf8(printed)?))
}

fn json(line: &str, files: &[&str]) -> serde_json::Value {
    serde_json::from_str(&run(line, files).unwrap().1).unwrap()
}

fn index() -> impl Iterator<Item = serde_json::Value> {
    let index = fs::read_to_string(corpus("index.jsonl")).unwrap();
    index.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>().into_iter()
}

#[test]
fn messages_of_every_capture_are_counted_as_its_index_says() {
    let counts = [
        "queries",
        "udp_queries",
        "tcp_queries",
        "responses",
        "nxdomain_responses",
        "servfail_responses",
        "refused_responses",
        "tc_responses",
        "empty_noerror",
    ];
    let mut checked = 0;
    for entry in index() {
        let file = entry["file"].as_str().unwrap();
        let totals = &json("report -o json", &[file])["totals"];
        for count in counts {
            assert_eq!(totals[count], entry["totals"][count], "{count} of {file}");
        }
        checked += 1;
    }
    assert_eq!(checked, 166);
}

#[test]
fn every_kind_of_trouble_is_named_and_what_looks_alike_is_not() {
    let cases: [(&str, &[&str]); 22] = [
        ("okext-glibc236", &["DP101 warning"]),
        ("okext-musl123", &["DP101 warning"]),
        ("dropfirstaaaa-glibc236", &["DP102 warning pair-race"]),
        ("dropfirstaaaa-musl125", &["DP102 warning pair-race"]),
        ("dropfirstaaaa-go119", &["DP102 warning loss"]),
        ("dropfirstboth-musl125", &["DP102 warning loss"]),
        ("dropallaaaa-glibc236", &["DP102 warning one-type"]),
        ("dropns1of2-glibc236", &["DP102 warning silent-server"]),
        ("slow3s-musl125", &["DP102 warning slow-server"]),
        ("nodatawild-musl125", &["DP103 error", "DP104 error nodata"]),
        ("nodatainternal-cares1348", &["DP101 warning", "DP103 warning"]),
        ("dropall-go119", &["DP104 error timeout"]),
        ("noserver-glibc236", &["DP104 error unreachable"]),
        ("servfailall-musl1124", &["DP104 error servfail", "DP203 error"]),
        ("timeoutsuffix-musl125", &["DP104 error timeout"]),
        ("tcsmall-musl123", &["DP104 error truncated", "DP106 error"]),
        ("slow6s-go119", &["DP104 error timeout", "DP105 warning", "DP204 error server"]),
        ("ndots2svc-musl125", &["DP104 warning nxdomain"]),
        ("nxdomain-glibc236", &["DP104 info nxdomain"]),
        ("addrconfig-musl125", &[]),
        ("slow3s-glibc236", &[]),
        ("tc-glibc236", &[]),
    ];
    for (name, expected) in cases {
        let file = format!("{name}.pcap");
        let report = json("report -o json", &[&file]);
        let mut found: Vec<String> = report["findings"].as_array().unwrap().iter().map(shown).collect();
        found.sort();
        assert_eq!(found, expected, "{name}");
        let failed = expected.iter().any(|finding| !finding.contains("info"));
        assert_eq!(run("report", &[&file]).unwrap().0 == ExitStatus::Findings, failed, "{name}");
    }
}

/// Code, severity, and what tells a finding from others of its code.
fn shown(finding: &serde_json::Value) -> String {
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let mut words = vec![word(&finding["code"]), word(&finding["severity"])];
    words.extend(["cause", "result"].iter().filter_map(|key| finding["subject"].get(key)).map(word));
    words.join(" ")
}

#[test]
fn the_same_file_makes_the_same_octets() {
    for line in ["report", "report -o json --lookups", "stream --unit message,question,lookup,finding"] {
        let file = ["parallel4-glibc236.pcap"];
        assert_eq!(run(line, &file).unwrap(), run(line, &file).unwrap(), "{line}");
    }
}

#[test]
fn files_are_merged_by_time_and_named() {
    let report = json("report -o json", &["okext-glibc236.pcap", "okext-musl123.pcap"]);
    assert_eq!(report["totals"]["queries"], 20);
    assert_eq!(report["sources"].as_array().unwrap().len(), 2);
}

#[test]
fn findings_of_several_files_say_which_one_their_frames_are_in() {
    let files = ["okext-glibc236.pcap", "okext-musl123.pcap"];
    let report = json("report -o json", &files);
    for finding in report["findings"].as_array().unwrap() {
        let place = u64::from(finding["subject"]["family"] == "musl");
        let sources = finding["evidence_sources"].as_array().unwrap();
        assert!(sources.iter().all(|source| *source == place), "{finding}");
        assert_eq!(sources.len(), finding["evidence"].as_array().unwrap().len());
    }
    let (_, text) = run("report", &files).unwrap();
    for file in files {
        let shown = format!("frames 1 2 5 6 9 10 of {} ...", corpus(file));
        assert!(text.contains(&shown), "no {shown} in {text}");
    }
    let alone = json("report -o json", &files[..1]);
    assert!(alone["findings"][0].get("evidence_sources").is_none());
}

#[test]
fn filters_say_what_is_told() {
    let file = ["okext-glibc236.pcap"];
    let lines = |line: &str| run(line, &file).unwrap().1.lines().count();
    assert_eq!(lines("stream --unit message"), 20);
    assert_eq!(lines("stream --unit message --type AAAA"), 10);
    assert_eq!(lines("stream --unit message --rcode NXDOMAIN"), 8);
    assert_eq!(lines("stream --unit message --name *.cluster.local"), 12);
    assert_eq!(lines("stream --unit message --client 192.0.2.0/24"), 0);
}

#[test]
fn a_relative_window_counts_from_the_files_end() {
    let file = ["dropfirstboth-glibc236.pcap"];
    let all = json("report -o json", &file);
    let last = json("report -o json --last 1s", &file);
    assert_eq!(all["totals"]["queries"], 4);
    assert_eq!(last["totals"]["queries"], 2, "those 5 s before are outside");
    assert_eq!(last["window"]["to"], all["window"]["to"]);
}

#[test]
fn other_ports_are_no_dns() {
    let (status, text) = run("report --port 5300", &["okext-glibc236.pcap"]).unwrap();
    assert_eq!(status, ExitStatus::Clean);
    assert!(text.starts_with("No DNS seen in 20 frames"), "{text}");
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("empty.pcap"), b"").unwrap();
    fs::write(path("notes.txt"), b"some notes").unwrap();
    let mut shown = String::new();
    for name in ["missing.pcap", "empty.pcap", "notes.txt"] {
        let error = run("report", &[&path(name)]).unwrap_err();
        shown.push_str(&format!("{error}\n").replace(&format!("{}/", folder.path().display()), ""));
    }
    let files = FileOptions {
        connects: true,
        files: vec![PathBuf::from("-")],
        ports: vec![53],
        selection: Selection::default(),
        times: super::super::selection::Times { since: Some("10m".parse().unwrap()), until: None },
        resolv_conf: None,
    };
    let options = StreamOptions { format: Format::Text, units: vec![Unit::Lookup], follow: false };
    shown.push_str(&format!("{:#}\n", stream(files, &options, Vec::new()).unwrap_err()));
    insta::assert_snapshot!(shown);
}

#[test]
fn a_cut_file_is_reported_up_to_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pcap").display().to_string();
    let whole = fs::read(corpus("okext-glibc236.pcap")).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let (_, text) = run("report", &[&path]).unwrap();
    assert!(text.contains("19 frames, 19 DNS messages in them"), "{text}");
    assert!(text.contains("a file ends inside a record"), "{text}");
    assert_eq!(json("report -o json", &[&path])["coverage"]["cut"], true);
    assert_eq!(json("report -o json", &["okext-glibc236.pcap"])["coverage"]["cut"], false);
}

#[test]
fn a_closed_output_ends_the_reading() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let cli = Cli::try_parse_from(["dnspath", "stream", &corpus("okext-glibc236.pcap")]).unwrap();
    let Some(Command::Stream(args)) = cli.command else { panic!() };
    let (Source::Files(files), options) = args.into_options().unwrap() else { panic!() };
    let error = stream(files, &options, Closed).unwrap_err();
    let cause = error.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(cause.kind(), std::io::ErrorKind::BrokenPipe);
}
