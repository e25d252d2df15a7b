//! One run of a kernel under QEMU, without the machine's own virtualisation: emulated, it works everywhere.

use super::kernel::Kernel;
use crate::command::say;
use anyhow::{Context, Result};
use dnspath_tests::clock::{now, wait_until};
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

/// Everything that QEMU emulates but CMPXCHG16B: QEMU 7.2 gets its flags wrong once in a while, and a kernel that
/// allocates memory with it (6.12) dies of a double fault.
const CPU: &str = "max,-cx16";
/// Some boots under emulation never reach the first process.
const BOOTS: usize = 3;
/// A boot takes 3 to 5 s on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// A run takes one to two minutes there.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// How often the machine is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// What a run came to.
pub(super) struct Run {
    /// What the test programs and `init.sh` said.
    pub(super) said: String,
    /// Whether it came to its end.
    pub(super) complete: bool,
    /// How long it took, all boots together.
    pub(super) took: Duration,
    /// How often it was booted.
    pub(super) boots: usize,
}

/// Boots `kernel` with the file system `initramfs` and waits for its end. The two serial lines stay in the kernel's
/// folder, as `console` and `output`.
pub(super) fn run(kernel: &Kernel, initramfs: &Path) -> Result<Run> {
    let start = now();
    let mut boots = 0;
    loop {
        boots += 1;
        let said = boot(kernel, initramfs)?;
        let complete = said.lines().any(|line| line.starts_with("@@end"));
        if said.contains("@@boot") || boots == BOOTS {
            return Ok(Run { said, complete, took: start.elapsed(), boots });
        }
        say(&format!("vm: {} did not reach its first process: once more", kernel.release));
    }
}

fn boot(kernel: &Kernel, initramfs: &Path) -> Result<String> {
    let (console, told) = (kernel.folder.join("console"), kernel.folder.join("output"));
    for file in [&console, &told] {
        File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    }
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", "768M"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"])
        .args(["-serial", &format!("file:{}", console.display())])
        .args(["-serial", &format!("file:{}", told.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64 (Debian's qemu-system-x86)")?;
    let text = || fs::read(&told).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let mut ended = false;
    let mut ends = || {
        sleep(PAUSE);
        ended = !matches!(qemu.try_wait(), Ok(None));
        ended
    };
    wait_until(BOOT_LIMIT, || ends() || text().contains("@@boot"));
    if text().contains("@@boot") {
        wait_until(RUN_LIMIT, &mut ends);
    }
    if !ended {
        // Gone meanwhile: just as well.
        let _ = qemu.kill();
        let _ = qemu.wait();
    }
    Ok(text())
}
