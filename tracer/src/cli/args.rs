//! The command line as clap sees it. Only what exists is offered; every option is declared once, in a group
//! that the commands share.

use crate::{
    capture::Hook,
    findings::Severity,
    model::{Name, Rcode, Rtype},
    output::{Format, Unit},
    pipeline::{
        provoke::MOST_PAIRS,
        record::Size,
        replay::Speed,
        selection::{NameGlob, Network, PodGlob},
        when::{Ago, When},
    },
    trace::LEAST_FLIGHT_OCTETS,
};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// See every DNS lookup of this node: search paths, waits, empty answers, losses.
#[derive(Debug, Parser)]
#[command(
    name = "dnspath",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Without a command: live.\n\
        Exit status: 0 clean, 1 findings at or above --fail-on, 2 usage or run-time error.\n\
        Times are UTC. Names and addresses are never resolved. NO_COLOR and TERM=dumb are kept to."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `live`, for when no command is given.
    #[command(flatten)]
    pub live: LiveArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch lookups live on the screen (the default); prints lines when stdout is no terminal.
    Live(LiveArgs),
    /// Print one line an event, live or from capture files.
    #[command(after_help = "Examples:\n  \
        dnspath stream                          lookups as they end\n  \
        dnspath stream -o json --unit message   every DNS message with its hops\n  \
        dnspath stream --rcode SERVFAIL,REFUSED capture.pcapng")]
    Stream(StreamArgs),
    /// Show capture files on the screen as if they were live; prints lines when stdout is no terminal.
    #[command(after_help = "Examples:\n  \
        dnspath replay capture.pcapng            everything at once; then back with the arrows or t\n  \
        dnspath replay --speed 1 a.pcapng b.pcapng\n  \
        dnspath replay --follow growing.pcapng   as it is written\n\n\
        Keys: space pause, + - speed, ← → 10 s, t a time, n N findings, ? all keys.")]
    Replay(ReplayArgs),
    /// Say what is wrong in a time window, live or in capture files.
    #[command(after_help = "Examples:\n  \
        dnspath report capture.pcapng           what is wrong in this file\n  \
        dnspath report --duration 1m            what is wrong on this node, now\n  \
        dnspath report -o json --lookups a.pcap.zst b.pcap.zst\n\n\
        Exit status: 0 clean, 1 findings at or above --fail-on, 2 usage or run-time error.")]
    Report(ReportArgs),
    /// Write every DNS packet into a file, to look at later and elsewhere: here or in Wireshark.
    #[command(after_help = "Examples:\n  \
        dnspath record -w trace.pcapng                     10 minutes, at most 200 MB\n  \
        dnspath record -w trace.pcapng.zst --duration 1h   compressed\n  \
        dnspath record -w ring.pcapng --files 5 --max-size 50MB --duration 7d\n  \
        dnspath record -w - | tshark -r - -N n\n\n\
        Every DNS packet is recorded: select when reading (`dnspath report FILE --client …`).\n\
        What was captured is in the file at the latest half a second later, whatever happens to dnspath.")]
    Record(RecordArgs),
    /// Watch conntrack clashes and drops: both tuples, the CPU, the lookups they hit; or provoke some and count.
    #[command(after_help = "Examples:\n  \
        dnspath race                                        every clash and drop as it happens\n  \
        dnspath race --provoke 10.96.0.10 --netns cni-1234  what this kernel does to A+AAAA from one socket\n\n\
        Exit status: 0 nothing lost, 1 packets lost, 2 usage or run-time error.")]
    Race(RaceArgs),
    /// Say what this kernel and this node let dnspath see, and what on the node will cost lookups.
    #[command(
        after_help = "Exit status: 0 all fine, 1 no capture or something is wrong, 2 usage or run-time error."
    )]
    Check(CheckArgs),
    /// Print a shell completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff.
    Man,
}

/// Options of `live`.
#[derive(Debug, Args)]
pub struct LiveArgs {
    /// Memory that keeps the last packets for ctrl-s to save, like 64MiB; 0: none.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub flight_recorder: FlightSize,
    /// What to attach to.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Where to record to.
    #[command(flatten)]
    pub write: WriteArgs,
    /// What to decode.
    #[command(flatten)]
    pub decode: DecodeArgs,
    /// What to show.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Options of `stream`.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Capture files instead of live capture: pcap or pcapng, also .gz or .zst; "-" is stdin.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = LIVE_ONLY)]
    pub files: Vec<PathBuf>,
    /// Go on reading files that grow, until a signal.
    #[arg(long, requires = "files")]
    pub follow: bool,
    /// How to print events.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// Which events to print; repeatable.
    #[arg(long = "unit", value_enum, value_name = "UNIT", value_delimiter = ',', default_value = "lookup")]
    pub units: Vec<Unit>,
    /// What to attach to.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Where to record to.
    #[command(flatten)]
    pub write: WriteArgs,
    /// What to decode.
    #[command(flatten)]
    pub decode: DecodeArgs,
    /// What to show.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Capture files, merged by time: pcap or pcapng, also .gz or .zst; "-" is stdin, where there is no way back.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required = true)]
    pub files: Vec<PathBuf>,
    /// How fast to begin with: seconds of the files in one second, or max, which is at the end at once.
    #[arg(long, value_name = "X|max", default_value = "max")]
    pub speed: Speed,
    /// Go on reading files that grow, until a signal.
    #[arg(long)]
    pub follow: bool,
    /// What to decode.
    #[command(flatten)]
    pub decode: DecodeArgs,
    /// What to show.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Capture files, merged by time: pcap or pcapng, also .gz or .zst; "-" is stdin. None: live, needs --duration.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = LIVE_ONLY)]
    pub files: Vec<PathBuf>,
    /// How to print the report.
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub output: ReportFormat,
    /// Put every lookup into the JSON report. Memory then grows with their number.
    #[arg(long)]
    pub lookups: bool,
    /// The least severity that makes the exit status 1.
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = Severity::Warning)]
    pub fail_on: Severity,
    /// What to attach to.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Where to record to.
    #[command(flatten)]
    pub write: WriteArgs,
    /// What to decode.
    #[command(flatten)]
    pub decode: DecodeArgs,
    /// What to count.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Options of `record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Where to record to.
    #[command(flatten)]
    pub write: WriteArgs,
    /// What to attach to.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// What is DNS.
    #[command(flatten)]
    pub ports: PortArgs,
    /// What is refused here, so that it can be said why.
    #[arg(long = "client", hide = true, value_name = "…",
        aliases = ["server", "name", "type", "rcode", "since", "until", "last"])]
    pub select: Vec<String>,
}

/// Options of `race`.
#[derive(Debug, Args)]
pub struct RaceArgs {
    /// How to print events.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// Send A+AAAA pairs to this server, each pair from one socket at one moment on two CPUs, and count what is lost.
    /// They leave from the first --netns, else from the namespace dnspath runs in, which is watched too.
    #[arg(long, value_name = "IP[:PORT]", value_parser = server)]
    pub provoke: Option<SocketAddr>,
    /// How many pairs.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "provoke",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_PAIRS)))]
    pub pairs: u32,
    /// The name that the pairs ask for.
    #[arg(long, value_name = "NAME", default_value = "dnspath-race.invalid", requires = "provoke")]
    pub ask: Name,
    /// What to attach to.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// What to decode.
    #[command(flatten)]
    pub decode: DecodeArgs,
    /// What to show.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// An address with or without a port: 53 then.
fn server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    address
        .or_else(|_| text.parse())
        .map_err(|_| "give an IP address, or one with a port: 10.96.0.10:53".into())
}

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = CheckFormat::Text)]
    pub output: CheckFormat,
    /// Check these interfaces [default: all of pods, bridges and uplinks].
    #[arg(short, long = "interface", value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub interfaces: Vec<String>,
    /// Check these network namespaces, by name or path [default: the one dnspath runs in].
    #[arg(long, value_name = "NAME|PATH", num_args = 1..)]
    pub netns: Vec<String>,
    /// How to hook packets.
    #[arg(long, value_enum, value_name = "HOOK", default_value_t)]
    pub hook: Hook,
    /// Ask the cluster's DNS service, too: one query to each of its addresses.
    #[arg(long)]
    pub probe: bool,
}

/// Octets of the flight recorder: 0, or enough to be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightSize(pub u64);

impl FromStr for FlightSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size; write it like 64MiB or 1GiB, or 0 for none");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "kib" => 1 << 10,
            "m" | "mb" => 1_000_000,
            "mib" => 1 << 20,
            "g" | "gb" => 1_000_000_000,
            "gib" => 1 << 30,
            _ => return Err(wrong()),
        };
        let octets = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(wrong)?;
        if octets > 0 && octets < LEAST_FLIGHT_OCTETS {
            return Err(format!(
                "{text:?} is too small to keep anything of use; give 2MiB or more, or 0 for none"
            ));
        }
        Ok(Self(octets))
    }
}

/// How `check` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// One JSON object.
    Json,
    /// Text for people.
    Text,
}

/// How `report` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One page for a browser, which needs no network.
    Html,
    /// One JSON object.
    Json,
    /// Text for people.
    Text,
}

/// Ids of the options that make no sense with files.
const LIVE_ONLY: [&str; 6] = ["interfaces", "netns", "pod_loopback", "ready_file", "duration", "write"];

/// Where and how long to capture.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Capturing")]
pub struct CaptureArgs {
    /// Attach to these interfaces [default: all of pods, bridges and uplinks, as they come and go].
    #[arg(short, long = "interface", value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub interfaces: Vec<String>,
    /// Attach in these network namespaces, by name or path [default: the one dnspath runs in].
    #[arg(long, value_name = "NAME|PATH", num_args = 1..)]
    pub netns: Vec<String>,
    /// Watch the loopbacks inside the pods, too: there a server that forwards to itself is seen. Up to 256 pods, with a
    /// thread and 1 MiB for each.
    #[arg(long)]
    pub pod_loopback: bool,
    /// How to hook packets. A killed dnspath leaves nothing with tcx; clsact attaches hundreds of interfaces faster.
    #[arg(long, value_enum, value_name = "HOOK", default_value_t)]
    pub hook: Hook,
    /// Stop after this time, like 90s, 10m or 1h30m.
    #[arg(long, value_name = "TIME")]
    pub duration: Option<Ago>,
    /// Create this file once attached.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub ready_file: Option<PathBuf>,
}

/// Where to record to, and how much.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Recording")]
pub struct WriteArgs {
    /// Record every DNS packet into this pcapng file; FILE.zst is compressed, "-" is stdout.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub write: Option<PathBuf>,
    /// The largest size of a file, like 50MB or 2GiB.
    #[arg(long, value_name = "SIZE", default_value_t = Size::default(), requires = "write")]
    pub max_size: Size,
    /// Keep the newest N files, named FILE-00001 and so on, each of --max-size. With one, recording ends there.
    // Its id is not `files`: that is what is read.
    #[arg(id = "kept", long = "files", value_name = "N", default_value_t = 1, requires = "write",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub keep: u32,
    /// Replace a file that is there already.
    #[arg(long, requires = "write")]
    pub force: bool,
}

/// What is taken for DNS.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Decoding")]
pub struct PortArgs {
    /// A DNS port; repeatable. 5353 (mDNS) is decoded only when given.
    #[arg(long = "port", value_name = "N", value_delimiter = ',', default_value = "53",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Leave out how TCP connections to answered addresses begin (DP601).
    #[arg(long)]
    pub no_connect: bool,
}

/// How to understand what is captured.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Decoding")]
pub struct DecodeArgs {
    /// What is DNS.
    #[command(flatten)]
    pub ports: PortArgs,
    /// The clients' resolv.conf: its search list and ndots tell lookups apart exactly.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub resolv_conf: Option<PathBuf>,
}

/// What to show and count. Several values of one option: any of them; several options: all of them.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Selecting")]
pub struct SelectArgs {
    /// Only pods of this namespace: * any characters, ? one; repeatable.
    #[arg(short, long = "namespace", value_name = "GLOB")]
    pub namespaces: Vec<PodGlob>,
    /// Only pods with this name, or namespace/name: * any characters, ? one; repeatable.
    #[arg(short, long = "pod", value_name = "GLOB")]
    pub pods: Vec<PodGlob>,
    /// Only this client's; repeatable.
    #[arg(long = "client", value_name = "IP|CIDR", value_delimiter = ',')]
    pub clients: Vec<Network>,
    /// Only what was sent to this server (its service address or a backend); repeatable.
    #[arg(long = "server", value_name = "IP|CIDR", value_delimiter = ',')]
    pub servers: Vec<Network>,
    /// Only names like this: * any characters, ? one; repeatable. A lookup also matches by its candidates.
    #[arg(long = "name", value_name = "GLOB")]
    pub names: Vec<NameGlob>,
    /// Only this query type, like AAAA or TYPE65; repeatable.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub qtypes: Vec<Rtype>,
    /// Only what was answered with this code, like NXDOMAIN; repeatable. As messages: responses only.
    #[arg(long = "rcode", value_name = "RCODE", value_delimiter = ',')]
    pub rcodes: Vec<Rcode>,
    /// Only from this time on: RFC 3339, HH:MM today, or a time ago like 10m (with files: before their end).
    #[arg(long, value_name = "TIME")]
    pub since: Option<When>,
    /// Only up to this time, given like --since.
    #[arg(long, value_name = "TIME")]
    pub until: Option<When>,
    /// Only the last 10m, 90s and so on (with files: before their end).
    #[arg(long, value_name = "TIME", conflicts_with_all = ["since", "until"])]
    pub last: Option<Ago>,
}
