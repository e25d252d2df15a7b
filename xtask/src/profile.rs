//! `cargo xtask profile`: counts under load how often each branch of dnspath is taken, for the release build.

use crate::{
    command::{output, root, run, say, target},
    kernel_toolchain::add_component,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// The parts of the bench that the counting program goes through: each way in and each way out, in the lab and from
/// files.
const LOAD: [&str; 4] = ["bench", "live", "offline", "--quick"];

pub(crate) fn count() -> Result<ExitCode> {
    let merge = profdata()?;
    let (built, counts) = (target().join("counting"), target().join("counts"));
    if counts.exists() {
        fs::remove_dir_all(&counts).with_context(|| format!("cannot empty {}", counts.display()))?;
    }
    let dnspath = built.join("release/dnspath");
    say("profile: building a dnspath that counts, and measuring with it (about a quarter of an hour)");
    let this = std::env::current_exe().context("cannot find this program")?;
    run(Command::new(this)
        .args(LOAD)
        .env("CARGO_TARGET_DIR", &built)
        .env("DNSPATH_COUNT", &counts)
        .env("DNSPATH_BIN", &dnspath)
        .stdout(Stdio::null()))?;
    // What resolvers do when something goes wrong: rare under load, and not to be taken for never.
    for capture in captures(&root().join("tests/corpus"))? {
        let report = Command::new(&dnspath).arg("report").arg(&capture).stdout(Stdio::null()).status();
        let status = report.with_context(|| format!("cannot start {}", dnspath.display()))?;
        if !matches!(status.code(), Some(0 | 1)) {
            bail!("dnspath report fails on {}: {status}", capture.display());
        }
    }
    let profile = root().join("profile/dnspath.profdata");
    run(Command::new(merge).args(["merge", "--sparse", "-o"]).arg(&profile).arg(&counts))?;
    say(&format!("profile: wrote {}; the next release build goes by it", profile.display()));
    Ok(ExitCode::SUCCESS)
}

/// rustup's `llvm-profdata`, of the version that rustc writes for.
fn profdata() -> Result<PathBuf> {
    let folder = output(Command::new("rustc").args(["--print", "target-libdir"]).current_dir(root()))?;
    let program = Path::new(folder.trim()).with_file_name("bin").join("llvm-profdata");
    if !program.is_file() && !add_component("llvm-tools", &program) {
        bail!("there is no {}: install rustup's component llvm-tools for this toolchain", program.display());
    }
    Ok(program)
}

/// The capture files below `folder`, in the order of their names.
fn captures(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.is_dir() {
            found.extend(captures(&path)?);
        } else if path.extension().is_some_and(|end| end == "pcap" || end == "pcapng") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
