//! The minimal capture's reader: it looks at the length of each record and counts.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::{
        SchedClassifier, TcAttachType,
        tc::{self, TcError},
    },
};
use signal_hook::consts::{SIGINT, SIGTERM};

/// As often as dnspath's reader.
const NAP: Duration = Duration::from_millis(10);
/// Where a record has the octets captured of its frame.
const CAPTURED: std::ops::Range<usize> = 12..16;

/// Where to capture.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The kernel side, `dnspath-minimal`
    #[arg(long)]
    object: PathBuf,
    /// The interface, of this network namespace
    #[arg(short, long)]
    interface: String,
}

/// Prints `ready` once attached, and `captured=N lost=N octets=N` at the end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
    }
    let mut ebpf = Ebpf::load_file(&options.object)
        .with_context(|| format!("cannot load {}", options.object.display()))?;
    attach(&mut ebpf, &options.interface)?;
    let records = ebpf.take_map("RECORDS").context("the object has no map RECORDS")?;
    let mut records = RingBuf::try_from(records).context("cannot map the ring")?;
    super::say("ready")?;
    let (mut captured, mut octets) = (0_u64, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        read(&mut records, &mut captured, &mut octets);
        sleep(NAP);
    }
    read(&mut records, &mut captured, &mut octets);
    super::say(&format!("captured={captured} lost={} octets={octets}", missed(&ebpf)?))
}

fn read(records: &mut RingBuf<MapData>, captured: &mut u64, octets: &mut u64) {
    while let Some(record) = records.next() {
        *captured += 1;
        let length = record.get(CAPTURED).and_then(|octets| octets.try_into().ok());
        *octets += u64::from(length.map_or(0, u32::from_ne_bytes));
    }
}

fn attach(ebpf: &mut Ebpf, interface: &str) -> Result<()> {
    for (name, direction) in [("minimal_in", TcAttachType::Ingress), ("minimal_out", TcAttachType::Egress)] {
        let program: &mut SchedClassifier = ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no program {name}"))?
            .try_into()
            .with_context(|| format!("{name} is no classifier"))?;
        program.load().with_context(|| format!("the kernel refuses {name}"))?;
        if program.attach(interface, direction).is_err() {
            // Before Linux 6.6 there must be a qdisc to attach to; it goes with the interface.
            match tc::qdisc_add_clsact(interface) {
                Ok(()) | Err(TcError::AlreadyAttached) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot add clsact to {interface}")),
            }
            program.attach(interface, direction).with_context(|| format!("cannot attach to {interface}"))?;
        }
    }
    Ok(())
}

/// Frames that found no room, over all CPUs.
fn missed(ebpf: &Ebpf) -> Result<u64> {
    let counts =
        PerCpuArray::<_, u64>::try_from(ebpf.map("MISSED").context("the object has no map MISSED")?)?;
    Ok(counts.get(&0, 0).context("cannot read MISSED")?.iter().sum())
}
