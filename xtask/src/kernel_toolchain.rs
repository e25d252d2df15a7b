//! What the kernel side needs beside a stable Rust: the source of `core`, and `bpf-linker`.
//!
//! Both go to `target/setup`; nothing is installed on the system. `target/setup/core-source` holds the path of the
//! standard library's source, `target/setup/bin/bpf-linker` the linker, built against the LLVM that rustc ships.
//! `tracer/build.rs` reads the same two and fails with one sentence where they are missing.

use crate::command::{cargo, output, root, run, say};
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
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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
    let by_rustup = Command::new("rustup")
        .args(["component", "add", "rust-src"])
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if by_rustup.is_ok_and(|status| status.success()) && in_sysroot.join("core/src/lib.rs").is_file() {
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

/// Downloads Debian's `rust-src` of this release with apt lists of our own and unpacks it under `setup`.
fn from_debian(release: &str, setup: &Path) -> Result<PathBuf> {
    let unpacked = setup.join("rust-src");
    let library = unpacked.join(format!("usr/src/rustc-{release}/library"));
    if library.join("core/src/lib.rs").is_file() {
        return Ok(library);
    }
    let archive = debian_archive()?;
    let mut last_error = None;
    for suite in DEBIAN_SUITES {
        match download_rust_src(release, &archive, suite, setup) {
            Ok(package) => {
                run(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
                fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))?;
                if library.join("core/src/lib.rs").is_file() {
                    return Ok(library);
                }
                bail!("Debian's rust-src holds no library/core");
            }
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.unwrap_or_else(|| anyhow::anyhow!("no Debian suite was tried")))
}

fn download_rust_src(release: &str, archive: &str, suite: &str, setup: &Path) -> Result<PathBuf> {
    let apt = setup.join("apt");
    for folder in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder))
            .with_context(|| format!("cannot make {}", apt.join(folder).display()))?;
    }
    let list = apt.join("sources.list");
    fs::write(&list, format!("deb [signed-by={DEBIAN_KEYRING}] {archive} {suite} main\n"))
        .with_context(|| format!("cannot write {}", list.display()))?;
    let with_our_lists = |program: &str| {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::sourcelist", list.as_path()),
            ("Dir::Etc::sourceparts", Path::new("/dev/null")),
            ("Dir::State", &apt.join("state")),
            ("Dir::State::status", Path::new("/dev/null")),
            ("Dir::Cache", &apt.join("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command.args(["-o", "APT::Sandbox::User=root", "-o", "APT::Get::List-Cleanup=0"]).current_dir(&apt);
        command
    };
    output(with_our_lists("apt-get").arg("update"))?;
    let offered = output(with_our_lists("apt-cache").args(["madison", "rust-src"]))?;
    let version = offered
        .lines()
        .filter_map(|line| line.split('|').nth(1).map(str::trim))
        .find(|version| {
            version.starts_with(&format!("{release}+")) || version.starts_with(&format!("{release}-"))
        })
        .with_context(|| format!("Debian {suite} has no rust-src {release}"))?;
    output(with_our_lists("apt-get").args(["download", &format!("rust-src={version}")]))?;
    fs::read_dir(&apt)
        .with_context(|| format!("cannot read {}", apt.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no package in {}", apt.display()))
}

/// The archive's address as this machine's apt knows it: of the entry for the running Debian release.
fn debian_archive() -> Result<String> {
    let mut sources = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        sources.extend(folder.filter_map(|entry| Some(entry.ok()?.path())));
    }
    let texts: Vec<String> = sources.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("stable");
    texts
        .iter()
        .find_map(|text| archive_of(text, codename))
        .with_context(|| format!("this machine's apt sources name no archive for {codename}"))
}

/// The first archive that `text`, in the one-line or the deb822 format, gives for `codename`.
fn archive_of(text: &str, codename: &str) -> Option<String> {
    let one_line = text.lines().find_map(|line| {
        let words: Vec<&str> =
            line.strip_prefix("deb ")?.split_whitespace().filter(|w| !is_option(w)).collect();
        (words.get(1) == Some(&codename)).then(|| words.first().map(ToString::to_string))?
    });
    one_line.or_else(|| {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.split_whitespace())
            };
            let mut suites = field("Suites:")?;
            suites.any(|suite| suite == codename).then(|| field("URIs:")?.next().map(ToString::to_string))?
        })
    })
}

fn is_option(word: &str) -> bool {
    word.starts_with('[') || word.ends_with(']')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_found_in_either_format() {
        let one_line = "# c\ndeb [arch=amd64] http://archive.example/debian bookworm main\n";
        assert_eq!(archive_of(one_line, "bookworm").as_deref(), Some("http://archive.example/debian"));
        assert_eq!(archive_of(one_line, "trixie"), None);
        let deb822 = "Types: deb\nURIs: http://archive.example/debian\nSuites: bookworm bookworm-updates\n\n\
                      Types: deb\nURIs: http://other.example/x\nSuites: nodistro\n";
        assert_eq!(archive_of(deb822, "bookworm").as_deref(), Some("http://archive.example/debian"));
        assert_eq!(archive_of(deb822, "nodistro").as_deref(), Some("http://other.example/x"));
    }
}
