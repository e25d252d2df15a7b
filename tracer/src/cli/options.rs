//! What an action is given: arguments, checked and joined.

use super::args::{
    CaptureArgs, CheckArgs, CheckFormat, DecodeArgs, LiveArgs, RaceArgs, RecordArgs, ReplayArgs, ReportArgs,
    ReportFormat, SelectArgs, StreamArgs, WriteArgs,
};
use crate::{
    capture::{Hook, MAX_PORTS, Netns},
    findings::Severity,
    output::{Format, Unit},
    pipeline::{
        provoke::Plan,
        replay::Speed,
        selection::{PodFilter, Selection, Times},
    },
};
use anyhow::{Context, bail};
use std::{fs::File, io::Read, path::PathBuf, time::Duration};

/// How an action ended, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Nothing at or above the severity asked for: 0.
    Clean,
    /// Findings at or above it: 1.
    Findings,
}

impl ExitStatus {
    /// [`Self::Findings`] where the worst of them is at or above the threshold.
    #[must_use]
    pub fn of(worst: Option<Severity>, fail_on: Severity) -> Self {
        if worst.is_some_and(|worst| worst >= fail_on) { Self::Findings } else { Self::Clean }
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Clean => Self::SUCCESS,
            ExitStatus::Findings => Self::from(1),
        }
    }
}

/// What live capture needs, whatever is done with it.
#[derive(Debug)]
pub struct LiveOptions {
    /// Interfaces to attach to; empty: chosen by kind.
    pub interfaces: Vec<String>,
    /// Namespaces to attach in, by name or path; empty: the one dnspath runs in.
    pub netns: Vec<String>,
    /// Whether the one dnspath runs in is watched beside `netns`.
    pub also_own: bool,
    /// Whether the loopbacks inside the pods are watched.
    pub pod_loopback: bool,
    /// How packets are hooked.
    pub hook: Hook,
    /// DNS ports, none of them 0; at least one.
    pub ports: Vec<u16>,
    /// Whether it is followed how connections to answered addresses begin.
    pub connects: bool,
    /// Created once attached.
    pub ready_file: Option<PathBuf>,
    /// When to stop by itself.
    pub duration: Option<Duration>,
    /// What to show and count.
    pub selection: Selection,
    /// The window to show and count, still to be resolved against a clock.
    pub times: Times,
    /// The text of the clients' resolv.conf, where one was given.
    pub resolv_conf: Option<String>,
    /// Octets of the flight recorder; 0: none. Only the screen has one.
    pub flight_recorder: u64,
    /// Where to record to, if at all.
    pub record: Option<RecordOptions>,
    /// Whether colours are wanted: neither `NO_COLOR` nor `TERM=dumb` is set.
    pub color: bool,
}

/// Where a recording goes and how much of it.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The file; `-` is stdout.
    pub path: PathBuf,
    /// Octets of a file.
    pub max_size: u64,
    /// Files to keep; with one, recording ends when it is full.
    pub files: u32,
    /// What is there already is replaced.
    pub force: bool,
}

impl RecordOptions {
    /// Whether zstd is asked for.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "zst")
    }

    fn new(args: WriteArgs) -> anyhow::Result<Option<Self>> {
        let WriteArgs { write: Some(path), max_size, keep: files, force } = args else { return Ok(None) };
        if path.as_os_str() == "-" && files > 1 {
            bail!("cannot record several --files to stdout; name a file with -w");
        }
        Ok(Some(Self { path, max_size: max_size.0, files, force }))
    }
}

/// What reading files needs, whatever is done with them.
#[derive(Debug)]
pub struct FileOptions {
    /// The files, at least one; `-` is stdin.
    pub files: Vec<PathBuf>,
    /// DNS ports, none of them 0; at least one.
    pub ports: Vec<u16>,
    /// Whether it is followed how connections to answered addresses begin.
    pub connects: bool,
    /// What to show and count.
    pub selection: Selection,
    /// The window to show and count, still to be resolved against the files' end.
    pub times: Times,
    /// The text of the clients' resolv.conf, where one was given.
    pub resolv_conf: Option<String>,
}

/// How files are replayed.
#[derive(Debug)]
pub struct ReplayOptions {
    /// The files, and what to show of them.
    pub files: FileOptions,
    /// How fast to begin with.
    pub speed: Speed,
    /// The files still grow.
    pub follow: bool,
}

impl ReplayOptions {
    /// Whether standard input is one of the files: it is read once.
    #[must_use]
    pub fn reads_stdin(&self) -> bool {
        self.files.files.iter().any(|file| file.as_os_str() == "-")
    }

    /// Whether more may come where there is nothing yet.
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.follow || self.reads_stdin()
    }
}

/// Where frames come from.
#[derive(Debug)]
pub enum Source {
    /// Files.
    Files(FileOptions),
    /// The kernel.
    Live(LiveOptions),
}

/// How `stream` prints.
#[derive(Debug)]
pub struct StreamOptions {
    /// JSON or text.
    pub format: Format,
    /// Which events.
    pub units: Vec<Unit>,
    /// The files still grow.
    pub follow: bool,
}

/// How `report` prints and judges.
#[derive(Debug)]
pub struct ReportOptions {
    /// A page, JSON or text.
    pub format: ReportFormat,
    /// Every lookup goes into the JSON report.
    pub lookups: bool,
    /// The least severity that makes [`ExitStatus::Findings`].
    pub fail_on: Severity,
}

impl ReportOptions {
    /// Of the report behind the lines of a session without a screen.
    pub const BEHIND_LINES: Self =
        Self { format: ReportFormat::Text, lookups: false, fail_on: Severity::Error };
}

/// How `race` prints, and what it provokes.
#[derive(Debug)]
pub struct RaceOptions {
    /// JSON or text.
    pub format: Format,
    /// Pairs to send.
    pub provoke: Option<Plan>,
}

/// What `check` looks at and how it prints.
#[derive(Debug)]
pub struct CheckOptions {
    /// JSON or text.
    pub format: CheckFormat,
    /// Interfaces to check; empty: chosen by kind.
    pub interfaces: Vec<String>,
    /// Namespaces to check, by name or path; empty: the one dnspath runs in.
    pub netns: Vec<String>,
    /// How packets are hooked.
    pub hook: Hook,
    /// Whether the cluster's DNS is asked.
    pub probe: bool,
}

impl LiveOptions {
    /// Joins the option groups of a live action.
    ///
    /// # Errors
    /// When `--resolv-conf` cannot be read or there are more ports than can be watched.
    pub fn new(
        write: WriteArgs,
        capture: CaptureArgs,
        decode: DecodeArgs,
        select: SelectArgs,
    ) -> anyhow::Result<Self> {
        let (selection, times) = selection(select)?;
        Ok(Self {
            interfaces: capture.interfaces,
            netns: capture.netns,
            also_own: false,
            pod_loopback: capture.pod_loopback,
            hook: capture.hook,
            resolv_conf: resolv_conf(&decode)?,
            ports: live_ports(decode.ports.ports)?,
            connects: !decode.ports.no_connect,
            ready_file: capture.ready_file,
            duration: capture.duration.map(|ago| ago.0),
            selection,
            times,
            flight_recorder: 0,
            record: RecordOptions::new(write)?,
            color: color_wanted(),
        })
    }

    /// Refuses a recording on stdout, where something else is printed there.
    fn leave_stdout(self) -> anyhow::Result<Self> {
        if self.record.as_ref().is_some_and(|record| record.path.as_os_str() == "-") {
            bail!(
                "cannot record to stdout, where this command prints; name a file with -w, or use `dnspath record`"
            );
        }
        Ok(self)
    }
}

impl TryFrom<LiveArgs> for LiveOptions {
    type Error = anyhow::Error;
    fn try_from(args: LiveArgs) -> anyhow::Result<Self> {
        let options = Self::new(args.write, args.capture, args.decode, args.select)?;
        Ok(Self { flight_recorder: args.flight_recorder.0, ..options.leave_stdout()? })
    }
}

/// A session that is not bounded by its user ends after ten minutes: who forgets it does not find a full disk.
const RECORD_AT_MOST: Duration = Duration::from_secs(600);

impl TryFrom<RecordArgs> for LiveOptions {
    type Error = anyhow::Error;
    fn try_from(args: RecordArgs) -> anyhow::Result<Self> {
        if !args.select.is_empty() {
            bail!(
                "cannot select while recording: behind a translation a packet does not show whom it belongs to; record \
                 all, and give --client, --name and the like to `dnspath report FILE`"
            );
        }
        let decode = DecodeArgs { ports: args.ports, resolv_conf: None };
        let mut options = Self::new(args.write, args.capture, decode, SelectArgs::default())?;
        if options.record.is_none() {
            bail!("cannot record: no file is given; name one with -w FILE, or -w - for stdout");
        }
        options.duration.get_or_insert(RECORD_AT_MOST);
        Ok(options)
    }
}

impl StreamArgs {
    /// Where from, and how to print.
    ///
    /// # Errors
    /// As [`LiveOptions::new`].
    pub fn into_options(self) -> anyhow::Result<(Source, StreamOptions)> {
        let source = source(self.files, self.write, self.capture, self.decode, self.select)?;
        Ok((source, StreamOptions { format: self.output, units: self.units, follow: self.follow }))
    }
}

impl ReportArgs {
    /// Where from, and how to print and judge.
    ///
    /// # Errors
    /// As [`LiveOptions::new`], and when there is nothing to report on.
    pub fn into_options(self) -> anyhow::Result<(Source, ReportOptions)> {
        if self.files.is_empty() && self.capture.duration.is_none() {
            bail!(
                "cannot report: neither a FILE nor --duration is given; name capture files, or say how long to capture"
            );
        }
        let source = source(self.files, self.write, self.capture, self.decode, self.select)?;
        let options = ReportOptions { format: self.output, lookups: self.lookups, fail_on: self.fail_on };
        Ok((source, options))
    }
}

impl RaceArgs {
    /// What to watch, and what to provoke.
    ///
    /// # Errors
    /// As [`LiveOptions::new`].
    pub fn into_options(self) -> anyhow::Result<(LiveOptions, RaceOptions)> {
        let mut live = LiveOptions::new(WriteArgs::default(), self.capture, self.decode, self.select)?;
        let provoke = self.provoke.map(|server| {
            let netns = live.netns.first().map_or(Netns::Own, |name| Netns::from_argument(name));
            // The pairs' way leads through the node's namespace, where conntrack judges them.
            live.also_own = !live.netns.is_empty();
            Plan { server, pairs: self.pairs, netns, name: self.ask }
        });
        Ok((live, RaceOptions { format: self.output, provoke }))
    }
}

impl TryFrom<ReplayArgs> for ReplayOptions {
    type Error = anyhow::Error;
    fn try_from(args: ReplayArgs) -> anyhow::Result<Self> {
        let files = file_options(args.files, args.decode, args.select)?;
        Ok(Self { files, speed: args.speed, follow: args.follow })
    }
}

impl From<CheckArgs> for CheckOptions {
    fn from(args: CheckArgs) -> Self {
        Self {
            format: args.output,
            interfaces: args.interfaces,
            netns: args.netns,
            hook: args.hook,
            probe: args.probe,
        }
    }
}

fn source(
    files: Vec<PathBuf>,
    write: WriteArgs,
    capture: CaptureArgs,
    decode: DecodeArgs,
    select: SelectArgs,
) -> anyhow::Result<Source> {
    if files.is_empty() {
        return LiveOptions::new(write, capture, decode, select)?.leave_stdout().map(Source::Live);
    }
    file_options(files, decode, select).map(Source::Files)
}

fn file_options(files: Vec<PathBuf>, decode: DecodeArgs, select: SelectArgs) -> anyhow::Result<FileOptions> {
    let (selection, times) = selection(select)?;
    let resolv_conf = resolv_conf(&decode)?;
    let connects = !decode.ports.no_connect;
    Ok(FileOptions { files, ports: decode.ports.ports, connects, selection, times, resolv_conf })
}

fn selection(args: SelectArgs) -> anyhow::Result<(Selection, Times)> {
    let times = match args.last {
        Some(ago) => Times { since: Some(ago.into()), until: None },
        None => Times { since: args.since, until: args.until },
    };
    let mut selection = Selection::new(args.clients, args.servers, &args.names, args.qtypes, args.rcodes)
        .context("cannot use --name; give fewer or simpler patterns")?;
    selection.pod_filter = PodFilter::new(&args.namespaces, &args.pods)
        .context("cannot use --namespace or --pod; give fewer or simpler patterns")?;
    Ok((selection, times))
}

/// Each port once, and no more than the kernel side has room for.
fn live_ports(mut ports: Vec<u16>) -> anyhow::Result<Vec<u16>> {
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MAX_PORTS {
        bail!("cannot watch {} DNS ports: give at most {MAX_PORTS} with --port", ports.len());
    }
    Ok(ports)
}

/// A resolv.conf is a page of text; what is larger is none.
const RESOLV_CONF_MAX: u64 = 1 << 20;

fn resolv_conf(args: &DecodeArgs) -> anyhow::Result<Option<String>> {
    let Some(path) = &args.resolv_conf else { return Ok(None) };
    let cannot = || format!("cannot read --resolv-conf {path:?}; give a readable resolv.conf");
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(RESOLV_CONF_MAX).read_to_end(&mut bytes))
        .with_context(cannot)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn color_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
