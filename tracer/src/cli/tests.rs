use super::*;
use crate::output::{Format, Unit};
use args::ReportFormat;
use clap::error::ErrorKind;
use std::time::Duration;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn source(line: &str) -> Source {
    match parse(line).unwrap().command.unwrap() {
        Command::Stream(args) => args.into_options().unwrap().0,
        Command::Report(args) => args.into_options().unwrap().0,
        other => panic!("{other:?}"),
    }
}

fn long_help(name: Option<&str>) -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let help = match name {
        Some(name) => command.find_subcommand_mut(name).unwrap().render_long_help(),
        None => command.render_long_help(),
    };
    help.to_string()
}

#[test]
fn help_of_every_command() {
    insta::assert_snapshot!("help", long_help(None));
    for name in ["live", "stream", "replay", "report", "record", "check", "completions", "man"] {
        insta::assert_snapshot!(format!("help-{name}"), long_help(Some(name)));
    }
}

#[test]
fn the_declaration_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn usage_errors_name_the_value_and_exit_with_2() {
    let cases = [
        "dnspath report a.pcap --port 0",
        "dnspath report a.pcap --port 65536",
        "dnspath report a.pcap --duration 10s",
        "dnspath report a.pcap --last 10",
        "dnspath report a.pcap --last 10m --since 09:00",
        "dnspath report a.pcap --since yesterday",
        "dnspath report a.pcap --client 10.244.0.0/33",
        "dnspath report a.pcap --type AAAAA",
        "dnspath report a.pcap --rcode NXDOMAINS",
        "dnspath report a.pcap --name [",
        "dnspath report a.pcap --fail-on never",
        "dnspath stream --unit packet",
        "dnspath nonsense",
        "dnspath completions",
    ];
    let mut shown = String::new();
    for line in cases {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        let said = usage_line(&error);
        assert!(said.starts_with("dnspath: ") && said.lines().count() == 1, "{said}");
        shown.push_str(&format!("$ {line}\n  {said}\n"));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn help_and_version_are_no_errors() {
    assert_eq!(parse("dnspath --help").unwrap_err().kind(), ErrorKind::DisplayHelp);
    assert_eq!(parse("dnspath --version").unwrap_err().exit_code(), 0);
}

#[test]
fn without_a_command_the_options_are_those_of_live() {
    for line in [
        "dnspath -i veth1 veth2 --port 53,5353 --duration 1m30s --netns blue",
        "dnspath live -i veth1,veth2 --port 53 --port 5353 --duration 90s --netns blue",
    ] {
        let cli = parse(line).unwrap();
        let args = match cli.command {
            Some(Command::Live(args)) => args,
            None => cli.live,
            other => panic!("{other:?}"),
        };
        let options = LiveOptions::try_from(args).unwrap();
        assert_eq!(options.interfaces, ["veth1", "veth2"]);
        assert_eq!(options.ports, [53, 5353]);
        assert_eq!(options.netns, ["blue"]);
        assert_eq!(options.duration, Some(Duration::from_secs(90)));
        assert_eq!(options.ready_file, None);
    }
}

#[test]
fn more_ports_than_the_kernel_side_holds_are_refused() {
    let Command::Stream(stream) = parse("dnspath stream --port 1,2,3,4,5,6,7,8,9").unwrap().command.unwrap()
    else {
        panic!()
    };
    insta::assert_snapshot!(error_line(&stream.into_options().unwrap_err()));
    let Source::Live(live) = source("dnspath stream --port 53,1,2,3,4,5,6,7,53") else { panic!() };
    assert_eq!(live.ports, [1, 2, 3, 4, 5, 6, 7, 53]);
    let Source::Files(files) = source("dnspath stream a.pcap --port 1,2,3,4,5,6,7,8,9") else { panic!() };
    assert_eq!(files.ports.len(), 9);
}

#[test]
fn files_or_live() {
    let Source::Files(files) = source("dnspath report a.pcap - --port 5300") else { panic!() };
    assert_eq!(files.files, [std::path::Path::new("a.pcap"), std::path::Path::new("-")]);
    assert_eq!(files.ports, [5300]);
    let Source::Live(live) = source("dnspath report --duration 10s --ready-file /tmp/ready") else {
        panic!()
    };
    assert_eq!((live.ports, live.duration), (vec![53], Some(Duration::from_secs(10))));
    assert!(matches!(source("dnspath stream"), Source::Live(_)));
}

#[test]
fn defaults_of_report_and_stream() {
    let Command::Report(report) = parse("dnspath report a.pcap").unwrap().command.unwrap() else { panic!() };
    let (_, options) = report.into_options().unwrap();
    assert_eq!(options.format, ReportFormat::Text);
    assert_eq!(options.fail_on, crate::findings::Severity::Warning);
    assert!(!options.lookups);
    let line = "dnspath stream -o json --unit lookup --unit finding,message";
    let Command::Stream(stream) = parse(line).unwrap().command.unwrap() else { panic!() };
    let (_, options) = stream.into_options().unwrap();
    assert_eq!(
        (options.format, options.units),
        (Format::Json, vec![Unit::Lookup, Unit::Finding, Unit::Message])
    );
}

#[test]
fn a_missing_resolv_conf_says_what_to_do() {
    let Command::Report(report) =
        parse("dnspath report a.pcap --resolv-conf /nonexistent/resolv.conf").unwrap().command.unwrap()
    else {
        panic!()
    };
    let error = report.into_options().unwrap_err();
    insta::assert_snapshot!(error_line(&error));
}

#[test]
fn a_report_needs_files_or_a_duration() {
    let Command::Report(report) = parse("dnspath report -o json").unwrap().command.unwrap() else { panic!() };
    insta::assert_snapshot!(error_line(&report.into_options().unwrap_err()));
}

#[test]
fn an_error_is_one_line_without_control_characters() {
    let error = anyhow::anyhow!("No such\nfile").context("cannot read \"a\x1b[31m.pcap\"");
    assert_eq!(error_line(&error), "dnspath: cannot read \"a\\u{1b}[31m.pcap\": No such\\nfile");
}

#[test]
fn a_closed_pipe_is_told_from_other_errors() {
    let broken = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot print");
    assert!(is_broken_pipe(&broken));
    assert!(!is_broken_pipe(&io::Error::from(io::ErrorKind::NotFound).into()));
}

#[test]
fn the_manual_has_every_command_and_option() {
    let page = String::from_utf8(manual().unwrap()).unwrap();
    assert!(page.contains(".TH dnspath 1"), "{page}");
    let plain = page.replace("\\-", "-");
    for word in ["DNSPATH STREAM", "DNSPATH REPORT", "--fail-on", "--unit", "--since", "--resolv-conf"] {
        assert!(plain.contains(word), "{word} is missing");
    }
}

#[test]
fn every_shell_gets_a_completion_script() {
    use clap::ValueEnum;
    for shell in clap_complete::Shell::value_variants() {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "dnspath", &mut script);
        assert!(String::from_utf8(script).unwrap().contains("resolv-conf"), "{shell}");
    }
}

fn recording(line: &str) -> anyhow::Result<LiveOptions> {
    match parse(line)?.command {
        Some(Command::Record(args)) => args.try_into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recording_is_bounded_unless_told_otherwise() {
    let options = recording("dnspath record -w a.pcapng.zst").unwrap();
    let record = options.record.unwrap();
    assert_eq!(
        (options.duration, record.max_size, record.files),
        (Some(Duration::from_secs(600)), 200_000_000, 1)
    );
    assert!(record.is_compressed() && !record.force);
    let options =
        recording("dnspath record -w a.pcapng --duration 7d --max-size 50MB --files 5 --force").unwrap();
    let record = options.record.unwrap();
    assert_eq!(
        (options.duration, record.max_size, record.files),
        (Some(Duration::from_secs(604_800)), 50_000_000, 5)
    );
    assert!(!record.is_compressed() && record.force);
}

#[test]
fn what_makes_no_sense_for_a_recording_is_refused() {
    for (line, why) in [
        ("dnspath record", "no file is given"),
        ("dnspath record -w a --client 10.0.0.1", "cannot select while recording"),
        ("dnspath record -w a --last 10m", "cannot select while recording"),
        ("dnspath record -w - --files 2", "cannot record several --files to stdout"),
        ("dnspath record -w a --max-size 1", "too small for a recording"),
        ("dnspath record -w a --files 0", "0 is not in 1..=10000"),
        ("dnspath record --force", "required"),
    ] {
        let said = recording(line).unwrap_err().to_string();
        assert!(said.contains(why), "{line}: {said}");
    }
    for line in ["dnspath report --duration 1s -w -", "dnspath stream -w -"] {
        let refused = match parse(line).unwrap().command {
            Some(Command::Report(args)) => args.into_options().map(drop),
            Some(Command::Stream(args)) => args.into_options().map(drop),
            other => panic!("{other:?}"),
        };
        assert!(refused.unwrap_err().to_string().contains("cannot record to stdout"), "{line}");
    }
    assert!(parse("dnspath report a.pcap -w b.pcapng").is_err());
}
