//! What the kernel side needs beside a stable Rust: the source of `core`, and `bpf-linker`.
//!
//! Both go to `target/setup`; nothing is installed on the system. `target/setup/core-source` holds the path of the
//! standard library's source, `target/setup/bin/bpf-linker` the linker, built against the LLVM that rustc ships.
//! `tracer/build.rs` reads the same two and fails with one sentence where they are missing.

use crate::{
    command::{cargo, output, root, run, say},
    debian::Suite,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const BPF_LINKER_VERSION: &str = "0.13.0";
/// Debian suites that may hold the source of a given Rust release, tried after the machine's own.
const DEBIAN_SUITES: [&str; 4] = ["trixie-backports", "testing", "bookworm-backports", "unstable"];

/// What `rustc -vV` says.
struct Rustc {
    release: String,
    llvm_major: String,
    sysroot: PathBuf,
}

/// Gets what is missing; silent when nothing is.
pub(crate) fn ensure() -> Result<()> {
    let setup = root().join("target/setup");
    let linker = setup.join("bin/bpf-linker");
    let core_source = setup.join("core-source");
    let pinned = setup.join("toolchain");
    let wanted = fs::read_to_string(root().join("rust-toolchain.toml"))
        .context("cannot read rust-toolchain.toml")?
        + BPF_LINKER_VERSION;
    let source_is_there =
        fs::read_to_string(&core_source).is_ok_and(|path| Path::new(&path).join("core/src/lib.rs").is_file());
    if linker.is_file()
        && source_is_there
        && fs::read_to_string(&pinned).is_ok_and(|made_for| made_for == wanted)
    {
        return Ok(());
    }
    fs::create_dir_all(&setup).with_context(|| format!("cannot make {}", setup.display()))?;
    let rustc = rustc()?;
    let library = find_core_source(&rustc, &setup)?;
    fs::write(&core_source, library.to_string_lossy().as_bytes())
        .context("cannot write target/setup/core-source")?;
    install_linker(&rustc, &setup)?;
    fs::write(&pinned, wanted).context("cannot write target/setup/toolchain")?;
    Ok(())
}

fn rustc() -> Result<Rustc> {
    let verbose = output(Command::new("rustc").arg("-vV").current_dir(root()))?;
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let release = field("release:").context("rustc -vV names no release")?;
    let llvm = field("LLVM version:").context("rustc -vV names no LLVM version")?;
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()))?;
    Ok(Rustc {
        release: release.into(),
        llvm_major: llvm.split('.').next().unwrap_or(llvm).into(),
        sysroot: sysroot.trim().into(),
    })
}

/// rustup first, Debian's package of the same release second.
fn find_core_source(rustc: &Rustc, setup: &Path) -> Result<PathBuf> {
    let in_sysroot = rustc.sysroot.join("lib/rustlib/src/rust/library");
    if in_sysroot.join("core/src/lib.rs").is_file() {
        return Ok(in_sysroot);
    }
    say("setup: getting the source of Rust's core library");
    if add_component("rust-src", &in_sysroot.join("core/src/lib.rs")) {
        return Ok(in_sysroot);
    }
    from_debian(&rustc.release, setup).with_context(|| {
        format!(
            "cannot get the source of Rust {}: `rustup component add rust-src` failed, and so did Debian's package \
             rust-src; install the component rust-src for this toolchain, then run this again",
            rustc.release
        )
    })
}

/// Has rustup add a component to this toolchain; whether `file` of it is there now.
pub(crate) fn add_component(name: &str, file: &Path) -> bool {
    let status = Command::new("rustup")
        .args(["component", "add", name])
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success()) && file.is_file()
}

/// Downloads Debian's `rust-src` of this release with apt lists of our own and unpacks it under `setup`.
fn from_debian(release: &str, setup: &Path) -> Result<PathBuf> {
    let unpacked = setup.join("rust-src");
    let library = unpacked.join(format!("usr/src/rustc-{release}/library"));
    if library.join("core/src/lib.rs").is_file() {
        return Ok(library);
    }
    let mut last_error = None;
    for suite in DEBIAN_SUITES {
        match unpack_rust_src(release, suite, setup, &unpacked) {
            Ok(()) if library.join("core/src/lib.rs").is_file() => return Ok(library),
            Ok(()) => bail!("Debian's rust-src holds no library/core"),
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.unwrap_or_else(|| anyhow::anyhow!("no Debian suite was tried")))
}

fn unpack_rust_src(release: &str, suite: &str, setup: &Path, unpacked: &Path) -> Result<()> {
    let suite = Suite::fetch(suite, &setup.join("apt"))?;
    let version = suite
        .versions("rust-src")?
        .into_iter()
        .find(|version| {
            version.starts_with(&format!("{release}+")) || version.starts_with(&format!("{release}-"))
        })
        .with_context(|| format!("Debian {} has no rust-src {release}", suite.name()))?;
    suite.unpack(&format!("rust-src={version}"), unpacked)
}

/// Builds bpf-linker against the LLVM inside rustc's own sysroot, so that no LLVM development package is needed.
fn install_linker(rustc: &Rustc, setup: &Path) -> Result<()> {
    if setup.join("bin/bpf-linker").is_file() {
        fs::remove_file(setup.join("bin/bpf-linker"))
            .context("cannot replace target/setup/bin/bpf-linker")?;
    }
    say("setup: building bpf-linker (about a minute)");
    let shipped = rustc.sysroot.join("lib");
    let library = fs::read_dir(&shipped)
        .with_context(|| format!("cannot read {}", shipped.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| file_name(path).starts_with("libLLVM.so."))
        .with_context(|| format!("{} holds no libLLVM.so.*: use a toolchain of rustup", shipped.display()))?;
    let links = setup.join("llvm/lib");
    fs::create_dir_all(&links).with_context(|| format!("cannot make {}", links.display()))?;
    for name in ["libLLVM.so", &file_name(&library)] {
        let link = links.join(name);
        // Left from an earlier toolchain, or not there: both are fine.
        let _ = fs::remove_file(&link);
        symlink(&library, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    run(cargo()
        .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked", "--quiet", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{}", rustc.llvm_major)])
        .arg("--root")
        .arg(setup)
        .arg("--target-dir")
        .arg(setup.join("build"))
        .env("LLVM_PREFIX", setup.join("llvm")))?;
    // The linker's own build is of no further use, and large.
    let _ = fs::remove_dir_all(setup.join("build"));
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
