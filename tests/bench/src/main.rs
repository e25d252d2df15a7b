//! `dnspath-bench`: the programs that `cargo xtask bench` starts and measures.

mod capture;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use dnspath_bench::{
    engine::{Pass, Player},
    frames::write_pcap,
    traffic::Traffic,
};
use serde_json::json;

/// What `cargo xtask bench` measures with.
#[derive(Parser)]
#[command(name = "dnspath-bench")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Write traffic as a pcap file
    Generate {
        #[command(flatten)]
        traffic: Traffic,
        /// Packets
        #[arg(long)]
        packets: usize,
        /// The file
        #[arg(short, long)]
        write: PathBuf,
    },
    /// Play traffic to the decoder and the engine, and print what came of it as JSON
    Engine {
        #[command(flatten)]
        traffic: Traffic,
        /// Messages, two frames each
        #[arg(long)]
        messages: usize,
        /// How far each frame goes
        #[arg(long, value_enum, default_value = "engine")]
        pass: Pass,
    },
    /// Capture with the minimal kernel side until SIGINT, and print how much
    Capture(capture::Options),
}

fn main() -> ExitCode {
    match act(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nowhere else to say it.
            let _ = writeln!(std::io::stderr(), "dnspath-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn act(action: Action) -> Result<()> {
    match action {
        Action::Generate { traffic, packets, write } => {
            let file = File::create(&write).with_context(|| format!("cannot create {}", write.display()))?;
            let mut out = BufWriter::with_capacity(1 << 20, file);
            write_pcap(&traffic, packets, &mut out)
                .and_then(|()| out.flush())
                .with_context(|| format!("cannot write {}", write.display()))
        }
        Action::Engine { traffic, messages, pass } => engine(&traffic, messages, pass),
        Action::Capture(options) => capture::run(&options),
    }
}

fn engine(traffic: &Traffic, messages: usize, pass: Pass) -> Result<()> {
    let mut player = Player::new(traffic);
    let (mut most_open, mut most_octets, mut seconds) = (0, 0, 0.0);
    let start = cpu_nanos()?;
    for (number, message) in traffic.messages().take(messages).enumerate() {
        player.play(&message, pass);
        if number % 4096 == 0 || number + 1 == messages {
            most_open = most_open.max(player.engine().counters().open_questions);
            most_octets = most_octets.max(player.engine().memory());
            seconds = message.time as f64 / 1e9;
        }
    }
    let cpu = cpu_nanos()? - start;
    let (frames, octets) = player.played();
    let counters = player.engine().counters();
    let line = json!({
        "frames": frames,
        "octets": octets,
        "sightings": counters.sightings,
        "queries": counters.queries,
        "evicted": counters.evicted,
        "most_open_questions": most_open,
        "engine_octets": most_octets,
        "traffic_seconds": seconds,
        "cpu_ns": cpu,
    });
    say(&line.to_string())
}

/// This process's processor time in nanoseconds, the first number of `/proc/self/schedstat`: other work on the machine
/// does not count. (Reading a clock through rustix crashes under valgrind, which hides the vDSO.)
fn cpu_nanos() -> Result<i64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").context("cannot read /proc/self/schedstat")?;
    text.split_whitespace().next().unwrap_or_default().parse().context("/proc/self/schedstat has no number")
}

/// One line to whoever measures.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to standard output")
}
