//! The demo: a lab node with real clients and a real DNS server, and dnspath on it.

use crate::{
    command::{self, binary, build_release, root, say},
    packages,
};
use anyhow::{Context, Result, bail};
use dnspath_tests::scenarios;
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    thread::sleep,
    time::Duration,
};

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds of lines where stdout is no terminal
    #[arg(long, default_value_t = 15)]
    seconds: u32,

    /// Show this incident, or what looks like one, and print the report on it
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,

    /// Name the scenarios
    #[arg(long, conflicts_with = "scenario")]
    list: bool,
}

/// A capture of a search path walked with retries, for machines that allow no eBPF.
const RECORDING: &str = "tests/corpus/resolvers/dropfirstaaaa-glibc236.pcap";

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.list {
        return list();
    }
    if let Some(name) = &options.scenario {
        return show(scenarios::find(name)?.name);
    }
    packages::ensure()?;
    build_release(&["dnspath", "dnspath-tests"])?;
    if let Err(reason) = may_capture() {
        say("demo: this machine does not let dnspath capture; `dnspath check` says:");
        say(&reason);
        return replay();
    }
    let mut lab = Lab::start(&["up", "--traffic"])?;
    let duration = format!("{}s", options.seconds);
    let mut dnspath = Command::new(binary("dnspath"));
    dnspath.args(["live", "--netns", lab.fact("node")?]);
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

fn list() -> Result<ExitCode> {
    let mut out = std::io::stdout();
    for scenario in scenarios::ALL {
        let code = scenario.code.unwrap_or("-");
        writeln!(out, "{:<20} {code:<6} {}", scenario.name, scenario.about)
            .context("cannot print the list")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A scenario in a lab of its own, dnspath watching; in the end the report on what it recorded.
fn show(name: &str) -> Result<ExitCode> {
    packages::ensure()?;
    build_release(&["dnspath", "dnspath-tests"])?;
    if let Err(reason) = may_capture() {
        bail!("this machine does not let dnspath capture; `dnspath check` says:\n{reason}");
    }
    let folder = command::target().join("demo");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let recording = folder.join(format!("{name}.pcapng"));
    let mut lab = Lab::start(&["play", name])?;
    let shown = watch(&mut lab, &recording).and_then(|elsewhere| {
        say(&format!("demo: the report on {name}; its recording is {}", recording.display()));
        report(std::iter::once(recording).chain(elsewhere))
    });
    lab.stop();
    shown
}

/// Lets dnspath watch the scenario: on a terminal as long as somebody looks. Gives the recording made elsewhere.
fn watch(lab: &mut Lab, recording: &Path) -> Result<Option<PathBuf>> {
    let ready = Path::new(lab.fact("directory")?).join("ready");
    let mut dnspath = Command::new(binary("dnspath"));
    dnspath.args(["live", "--netns", lab.fact("node")?, "--force", "-w"]).arg(recording);
    dnspath.arg("--ready-file").arg(ready);
    dnspath.args(lab.facts["arguments"].as_array().into_iter().flatten().filter_map(Value::as_str));
    let mut watching = dnspath.spawn().context("cannot start dnspath")?;
    let looks = std::io::stdout().is_terminal();
    if looks {
        watching.wait().context("cannot wait for dnspath")?;
    }
    let played = lab.line();
    if !looks {
        // What happened last has to be told yet.
        sleep(Duration::from_secs(1));
        let interrupted = command::run(Command::new("kill").args(["-INT", &watching.id().to_string()]));
        let ended = watching.wait().context("cannot wait for dnspath");
        interrupted.and(ended)?;
    }
    Ok(played?["elsewhere"].as_str().map(PathBuf::from))
}

fn report(files: impl IntoIterator<Item = PathBuf>) -> Result<ExitCode> {
    let status = Command::new(binary("dnspath")).arg("report").args(files).status();
    // 1 means that it found something.
    match status.context("cannot start dnspath")?.code() {
        Some(0 | 1) => Ok(ExitCode::SUCCESS),
        code => bail!("dnspath report ended with {code:?}"),
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
    report([recording])
}

/// A lab node that lives as long as this does: its process ends, and takes the node down, when its stdin closes.
struct Lab {
    process: Child,
    said: BufReader<ChildStdout>,
    /// What is in it.
    facts: Value,
}

impl Lab {
    fn start(arguments: &[&str]) -> Result<Self> {
        say("demo: setting up a node of network namespaces, with DNS servers and clients");
        let mut process = Command::new(binary("dnspath-lab"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start dnspath-lab")?;
        let said = BufReader::new(process.stdout.take().context("dnspath-lab has no stdout")?);
        let mut lab = Self { process, said, facts: Value::Null };
        let facts = lab.line();
        if facts.is_err() {
            lab.stop();
        }
        lab.facts = facts?;
        Ok(lab)
    }

    /// The next line that dnspath-lab says.
    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.said.read_line(&mut line).context("cannot read what dnspath-lab says")?;
        serde_json::from_str(&line).context("dnspath-lab ended; its own message is above")
    }

    fn fact(&self, name: &str) -> Result<&str> {
        self.facts[name].as_str().with_context(|| format!("dnspath-lab says no {name}"))
    }

    fn stop(&mut self) {
        drop(self.process.stdin.take());
        // Its status says nothing that its messages did not.
        let _ = self.process.wait();
    }
}
