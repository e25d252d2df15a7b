//! The tools that are compared live: how each is started on a link of the lab, and what it tells at its end.

use crate::command::{binary, target};
use anyhow::{Context, Result, bail};
use dnspath_tests::{
    Lab, Pod, Process,
    clock::wait_until,
    process::bound_command,
    requirements::find,
    screen::Screen,
    tracer,
    usage::{self, Usage},
};
use rustix::process::Signal;
use std::{fs, path::PathBuf, process::Stdio, time::Duration};

/// What traces. `all`: every vantage of the node; else the client's link alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Stream { all: bool },
    Record { all: bool },
    Screen,
    Tcpdump,
    Dumpcap,
    Tshark,
    Minimal,
}

/// Long enough to attach on a loaded machine, and to end there.
const LIMIT: Duration = Duration::from_secs(60);
/// Buffers of the tools on libpcap: four times dnspath's ring. tcpdump takes KiB, Wireshark's programs MiB.
const BUFFER_KIB: &str = "16384";
const BUFFER_MIB: &str = "16";
const FILTER: &str = "port 53";

impl Tool {
    pub(crate) const ALL: [Self; 9] = [
        Self::Stream { all: false },
        Self::Record { all: false },
        Self::Screen,
        Self::Minimal,
        Self::Tcpdump,
        Self::Dumpcap,
        Self::Tshark,
        Self::Stream { all: true },
        Self::Record { all: true },
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stream { all: false } => "dnspath stream",
            Self::Stream { all: true } => "dnspath stream, all vantages",
            Self::Record { all: false } => "dnspath record",
            Self::Record { all: true } => "dnspath record, all vantages",
            Self::Screen => "dnspath, the screen",
            Self::Tcpdump => "tcpdump -w",
            Self::Dumpcap => "dumpcap -w",
            Self::Tshark => "tshark",
            Self::Minimal => "minimal capture",
        }
    }

    /// Why it cannot be measured here.
    pub(crate) fn why_not(self) -> Option<String> {
        let program = match self {
            Self::Tcpdump => "tcpdump",
            Self::Dumpcap => "dumpcap",
            Self::Tshark => "tshark",
            Self::Screen => "tmux",
            Self::Stream { .. } | Self::Record { .. } | Self::Minimal => return None,
        };
        find(program).is_none().then(|| format!("{}: {program} is not installed", self.name()))
    }

    /// Starts it, and returns once it captures.
    pub(crate) fn start<'a>(self, lab: &'a Lab, pod: &Pod) -> Result<Running<'a>> {
        let files = lab.node().files();
        let capture = files.join("bench.capture");
        let log = files.join("bench.log");
        let link = pod.veth.as_str();
        let ready = files.join("bench.ready");
        if ready.exists() {
            fs::remove_file(&ready).context("cannot remove the old ready file")?;
        }
        if self == Self::Screen {
            let screen = Screen::start(lab.node(), 120, 40)?;
            let program = tracer::binary()?;
            screen.type_line(&format!("{} -i {link} --ready-file {}", program.display(), ready.display()))?;
            if !wait_until(LIMIT, || ready.exists()) {
                bail!("dnspath does not get ready on the screen:\n{}", screen.text()?);
            }
            let pid = screen.program()?;
            return Ok(Running { tool: self, pid, handle: Handle::Screen(screen), capture });
        }
        let mut command = match self {
            Self::Stream { .. } | Self::Record { .. } => bound_command(tracer::binary()?),
            Self::Minimal => lab.node().command(binary("dnspath-bench")),
            Self::Dumpcap => lab.node().command("dumpcap"),
            Self::Tshark => lab.node().command("tshark"),
            Self::Tcpdump | Self::Screen => lab.node().command("tcpdump"),
        };
        match self {
            Self::Stream { .. } => command.args(["stream", "-o", "json"]),
            Self::Record { .. } => command.args(["record", "--max-size", "100GB", "-w"]).arg(&capture),
            Self::Minimal => command.args(["capture", "-i", link, "--object"]).arg(minimal_object()),
            Self::Dumpcap => {
                command.args(["-q", "-p", "-i", link, "-B", BUFFER_MIB, "-f", FILTER, "-w"]).arg(&capture)
            }
            Self::Tshark => command.args(["-n", "-p", "-i", link, "-B", BUFFER_MIB, "-f", FILTER]),
            Self::Tcpdump | Self::Screen => command
                .args(["-n", "-p", "-i", link, "-B", BUFFER_KIB, "-Z", "root", "-w"])
                .arg(&capture)
                .arg(FILTER),
        };
        if let Self::Stream { all } | Self::Record { all } = self {
            command.args(["--netns", lab.node().name(), "--ready-file"]).arg(&ready);
            if !all {
                command.args(["-i", link]);
            }
        }
        let mut process = if self == Self::Minimal {
            Process::spawn(self.name(), &mut command, &log)?
        } else {
            Process::spawn_with_stdout(self.name(), &mut command, Stdio::null(), &log)?
        };
        let captures = |process: &Process| {
            let said = |words: &str| process.log().is_ok_and(|log| log.contains(words));
            match self {
                Self::Tcpdump => said("listening on"),
                // What dumpcap says it does, it does a little later; its file is made when it does.
                Self::Dumpcap => said("File:") || capture.exists(),
                Self::Tshark => said("Capturing on"),
                Self::Minimal => said("ready"),
                Self::Stream { .. } | Self::Record { .. } | Self::Screen => ready.exists(),
            }
        };
        wait_until(LIMIT, || captures(&process) || !process.is_running());
        if !process.is_running() || !captures(&process) {
            bail!("{} does not capture on {link}: {}", self.name(), process.log()?.trim());
        }
        let pid = process.pid();
        Ok(Running { tool: self, pid, handle: Handle::Process(process), capture })
    }
}

/// Where the build leaves the kernel side of the minimal capture.
fn minimal_object() -> PathBuf {
    target().join("kernel/bpfel-unknown-none/kernel/dnspath-minimal")
}

/// A tool that captures. Dropping it ends it.
pub(crate) struct Running<'a> {
    tool: Tool,
    pid: u32,
    handle: Handle<'a>,
    capture: PathBuf,
}

enum Handle<'a> {
    Process(Process),
    Screen(Screen<'a>),
}

/// What a tool says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Packets that it took, where it says so.
    pub(crate) captured: Option<u64>,
    /// Packets that it knows it did not take.
    pub(crate) lost: Option<u64>,
}

impl Running<'_> {
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// What it and its helpers have used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        usage::of(self.pid)
    }

    /// Ends it; what it recorded goes.
    pub(crate) fn stop(self) -> Result<Told> {
        let told = match self.handle {
            Handle::Process(mut process) => {
                process.stop(Signal::INT, LIMIT)?;
                let log = process.log()?;
                told(self.tool, &log)
                    .with_context(|| format!("{} does not tell what it lost: {log}", self.tool.name()))?
            }
            Handle::Screen(screen) => {
                let shown = screen.text()?;
                screen.press(&["q"])?;
                Told { captured: None, lost: lost_on_screen(&shown) }
            }
        };
        if self.capture.exists() {
            fs::remove_file(&self.capture).context("cannot remove what a tool recorded")?;
        }
        Ok(told)
    }
}

fn told(tool: Tool, log: &str) -> Option<Told> {
    let line_with = |words: &str| log.lines().find(|line| line.contains(words));
    let first_number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
    let named = |name: &str| log.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok());
    let (captured, lost) = match tool {
        Tool::Stream { .. } | Tool::Record { .. } => {
            line_with("coverage: ")?;
            (named("frames="), named("lost="))
        }
        Tool::Minimal => (named("captured="), named("lost=")),
        Tool::Tcpdump => {
            (first_number(line_with("packets captured")?), first_number(line_with("dropped by kernel")?))
        }
        Tool::Dumpcap => {
            // Packets received/dropped on interface 'x': 100/0 (pcap:0/dumpcap:0/flushed:0/ps_ifdrop:0) (100.0%)
            let counts = line_with("received/dropped on interface")?.rsplit_once("': ")?.1;
            let (captured, rest) = counts.split_once('/')?;
            (captured.parse().ok(), first_number(rest))
        }
        Tool::Tshark => (
            line_with("captured").and_then(first_number),
            // It speaks of losses only where there are some.
            Some(line_with("dropped from").and_then(first_number).unwrap_or(0)),
        ),
        Tool::Screen => (None, None),
    };
    Some(Told { captured, lost })
}

/// The header says `lost N`, thousands apart by commas.
fn lost_on_screen(text: &str) -> Option<u64> {
    let header = text.lines().next()?.to_lowercase();
    let (_, rest) = header.split_once("lost ")?;
    let digits: String = rest.split_whitespace().next()?.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_tells_what_it_took_and_lost_in_its_own_way() {
        let dnspath = "dnspath: coverage: frames=100 dns_messages=90 lost=7 truncated=0\n";
        let tcpdump = "tcpdump: listening on x\n100 packets captured\n107 packets received by filter\n\
                       7 packets dropped by kernel\n";
        let dumpcap = "Capturing on 'veth-web'\nFile: x\nPackets captured: 100\nPackets received/dropped on interface \
                       'veth-web': 100/7 (pcap:7/dumpcap:0/flushed:0/ps_ifdrop:0) (93.4%)\n";
        let tshark = "Capturing on 'veth-web'\n7 packets dropped from veth-web\n100 packets captured\n";
        let minimal = "ready\ncaptured=100 lost=7 octets=9\n";
        let expected = Some(Told { captured: Some(100), lost: Some(7) });
        assert_eq!(told(Tool::Stream { all: true }, dnspath), expected);
        assert_eq!(told(Tool::Tcpdump, tcpdump), expected);
        assert_eq!(told(Tool::Dumpcap, dumpcap), expected);
        assert_eq!(told(Tool::Tshark, tshark), expected);
        assert_eq!(told(Tool::Minimal, minimal), expected);
        assert_eq!(told(Tool::Stream { all: true }, "it broke"), None);
        let none = Some(Told { captured: Some(100), lost: Some(0) });
        assert_eq!(told(Tool::Tshark, "100 packets captured\n"), none);
    }

    #[test]
    fn the_screen_tells_its_losses_in_the_header() {
        assert_eq!(
            lost_on_screen(" dnspath  veth-web   72 q/s  p99 10 ms  lost 1,284  rec\n 1 Lookups"),
            Some(1284)
        );
        assert_eq!(lost_on_screen(" dnspath  vm  1 veth  72 q/s  LOST 58,794\n"), Some(58_794));
        assert_eq!(lost_on_screen("$ "), None);
    }
}
