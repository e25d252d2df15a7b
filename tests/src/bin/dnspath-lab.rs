//! `dnspath-lab`: holds a lab up for a person or for another program.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use dnspath_tests::clock::wait_until;
use dnspath_tests::requirements::why_no_lab;
use dnspath_tests::topology::{EMPTY_VIP4, EMPTY_VIP6, NODE_LOCAL, UPSTREAM4, UPSTREAM6};
use dnspath_tests::{Lab, LabOptions, ServerKind, requirements, scenarios, sweep, toolbox, traffic};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A Kubernetes-shaped node made of network namespaces, for dnspath.
#[derive(Parser)]
#[command(name = "dnspath-lab")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build a lab, print what is in it as one line of JSON, hold it until standard input closes or a signal comes
    Up {
        /// Let real resolvers look up names all the time
        #[arg(long)]
        traffic: bool,
        /// What answers
        #[arg(long, value_enum, default_value = "coredns")]
        server: ServerChoice,
        /// Take it down after so many seconds
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
    },
    /// Build the lab of a scenario, print what is in it as one line of JSON, play it once the file `ready` in its
    /// directory is there, print another line, and hold the lab until standard input closes
    Play {
        /// The scenario
        name: String,
    },
    /// Take down labs whose owner was killed
    Down,
    /// Print what is missing on this machine, one a line, as JSON; status 1 where there can be no lab
    Requirements,
    /// Build the servers and clients, so that the first lab is up at once
    Build,
}

#[derive(Clone, Copy, ValueEnum)]
enum ServerChoice {
    Coredns,
    Fast,
    None,
}

fn main() -> ExitCode {
    match act(&Arguments::parse()) {
        Ok(code) => code,
        Err(e) => {
            // There is nowhere else to say it.
            let _ = writeln!(std::io::stderr(), "dnspath-lab: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn act(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.action {
        Action::Up { traffic, server, seconds } => up(*traffic, *server, Duration::from_secs(*seconds))?,
        Action::Play { name } => play(name)?,
        Action::Down => say(&json!({ "taken_down": sweep::sweep()? }))?,
        Action::Build => toolbox::build_all()?,
        Action::Requirements => {
            for missing in requirements() {
                say(&serde_json::to_value(missing)?)?;
            }
            return Ok(if why_no_lab().is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(value: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{value}").and_then(|()| out.flush()).context("cannot write to standard output")
}

fn up(traffic: bool, server: ServerChoice, limit: Duration) -> Result<()> {
    if let Some(reason) = why_no_lab() {
        bail!("no lab here: {reason}");
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
    }
    let server = match server {
        ServerChoice::Coredns => Some(ServerKind::CoreDns),
        ServerChoice::Fast => Some(ServerKind::Fast),
        ServerChoice::None => None,
    };
    let mut lab = Lab::new(LabOptions { server, ..LabOptions::default() })?;
    say(&facts(&lab))?;
    let closed = Arc::clone(&stop);
    std::thread::spawn(move || {
        // Whatever comes in is of no interest, nor why it ends.
        let _ = std::io::copy(&mut std::io::stdin().lock().take(u64::MAX), &mut std::io::sink());
        closed.store(true, Ordering::Relaxed);
    });
    if traffic {
        return traffic::run(&mut lab, &stop, limit);
    }
    let start = dnspath_tests::clock::now();
    while !stop.load(Ordering::Relaxed) && start.elapsed() < limit {
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn play(name: &str) -> Result<()> {
    let scenario = scenarios::find(name)?;
    if let Some(reason) = why_no_lab().or_else(|| scenario.why_not()) {
        bail!("{name} cannot be played here: {reason}");
    }
    let lab = scenario.stage()?;
    let mut facts = facts(&lab);
    facts["arguments"] = json!(scenario.arguments);
    say(&facts)?;
    let ready = lab.directory().join("ready");
    if !wait_until(Duration::from_secs(120), || ready.exists()) {
        bail!("nobody watches: there is no {}", ready.display());
    }
    let played = scenario.happen(&lab)?;
    let elsewhere = played.elsewhere.as_ref().map(|(recording, _)| recording);
    say(&json!({ "played": name, "elsewhere": elsewhere }))?;
    // Whatever comes in is of no interest, nor why it ends.
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    Ok(())
}

fn facts(lab: &Lab) -> serde_json::Value {
    let pods: Vec<_> = lab
        .pods()
        .map(|pod| {
            json!({
                "name": pod.name, "netns": pod.netns(), "node": lab.site(pod.site).name(), "veth": pod.veth,
                "ip4": pod.ip4, "ip6": pod.ip6, "pid": pod.namespace.pause_pid(),
            })
        })
        .collect();
    json!({
        "prefix": lab.prefix(), "watcher": lab.watcher_pid(), "directory": lab.directory(), "node": lab.node().name(),
        "node2": lab.node2().name(), "upstream": lab.upstream().name(), "fabric": lab.fabric().name(),
        "vip4": lab.vip(), "vip6": lab.vip6(), "empty_vip4": EMPTY_VIP4, "empty_vip6": EMPTY_VIP6,
        "upstream4": UPSTREAM4, "upstream6": UPSTREAM6, "node_local": NODE_LOCAL, "pods": pods,
    })
}
