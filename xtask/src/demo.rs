//! The demo: a lab node with real clients and a real DNS server, and dnspath on it.

use crate::{
    command::{self, binary, build_release, root, say},
    packages,
};
use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead as _, BufReader, IsTerminal as _},
    process::{Child, Command, ExitCode, Stdio},
};

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds of lines where stdout is no terminal
    #[arg(long, default_value_t = 15)]
    seconds: u32,
}

/// A capture of a search path walked with retries, for machines that allow no eBPF.
const RECORDING: &str = "tests/corpus/resolvers/dropfirstaaaa-glibc236.pcap";

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure()?;
    build_release(&["dnspath", "dnspath-tests"])?;
    if let Err(reason) = may_capture() {
        say("demo: this machine does not let dnspath capture; `dnspath check` says:");
        say(&reason);
        return replay();
    }
    let mut lab = Lab::start()?;
    let duration = format!("{}s", options.seconds);
    let mut dnspath = Command::new(binary("dnspath"));
    dnspath.args(["live", "--netns", &lab.node]);
    if !std::io::stdout().is_terminal() {
        dnspath.args(["--duration", &duration]);
    }
    let status = dnspath.status().context("cannot start dnspath");
    lab.stop();
    // 1 means that the report found something: in a lab with faults it should.
    match status?.code() {
        Some(0 | 1) => Ok(ExitCode::SUCCESS),
        code => bail!("dnspath ended with {code:?}"),
    }
}

/// What `dnspath check` says is missing, where something is.
fn may_capture() -> Result<(), String> {
    let check = Command::new(binary("dnspath")).arg("check").stdin(Stdio::null()).output();
    match check {
        Ok(output) if output.status.code() == Some(0) => Ok(()),
        Ok(output) => Err([output.stdout, output.stderr]
            .iter()
            .map(|text| String::from_utf8_lossy(text))
            .collect::<String>()),
        Err(error) => Err(format!("it does not start: {error}")),
    }
}

fn replay() -> Result<ExitCode> {
    say(&format!("demo: showing the recording {RECORDING} instead"));
    let recording = root().join(RECORDING);
    command::run(Command::new(binary("dnspath")).args(["stream", "-o", "text"]).arg(&recording))?;
    let report = Command::new(binary("dnspath"))
        .arg("report")
        .arg(&recording)
        .status()
        .context("cannot start dnspath")?;
    match report.code() {
        Some(0 | 1) => Ok(ExitCode::SUCCESS),
        code => bail!("dnspath report ended with {code:?}"),
    }
}

/// A lab node that lives as long as this does: its process ends, and takes the node down, when its stdin closes.
struct Lab {
    process: Child,
    node: String,
}

impl Lab {
    fn start() -> Result<Self> {
        say("demo: setting up a node of network namespaces, with DNS servers and clients");
        let mut process = Command::new(binary("dnspath-lab"))
            .args(["up", "--traffic"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start dnspath-lab")?;
        let mut facts = String::new();
        let stdout = process.stdout.take().context("dnspath-lab has no stdout")?;
        BufReader::new(stdout).read_line(&mut facts).context("cannot read what dnspath-lab says")?;
        let node = word_after(&facts, "\"node\":\"").map(ToOwned::to_owned);
        let mut lab = Self { process, node: node.unwrap_or_default() };
        if lab.node.is_empty() {
            lab.stop();
            bail!("dnspath-lab did not come up; its own message is above");
        }
        Ok(lab)
    }

    fn stop(&mut self) {
        drop(self.process.stdin.take());
        // Its status says nothing that its messages did not.
        let _ = self.process.wait();
    }
}

/// The text between `lead` and the next quotation mark.
fn word_after<'a>(text: &'a str, lead: &str) -> Option<&'a str> {
    let rest = &text[text.find(lead)? + lead.len()..];
    rest.split('"').next()
}
