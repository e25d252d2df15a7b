//! Running other programs, and where things are.

use anyhow::{Context, Result, bail};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The release binary.
pub(crate) fn binary(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// One line to the person at the terminal.
pub(crate) fn say(line: &str) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The cargo that runs this xtask, at the repository's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs to the end; a status other than 0 is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs to the end and gives its standard output; its standard error is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn show(command: &Command) -> String {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    command.get_args().fold(program, |line, argument| line + " " + &argument.to_string_lossy())
}

/// Whether `name` is a program on the search path (`sbin` folders included).
pub(crate) fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/local/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Builds packages in release mode, silent but for the first time.
pub(crate) fn build_release(packages: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked"]);
    if binary("dnspath").is_file() {
        build.arg("--quiet");
    }
    // The lab always: what it needs of other packages turns features of them on, and cargo then gives dnspath's functions
    // other names, which the profile would not know (profile/README.md).
    let without_lab = packages.iter().filter(|package| **package != "dnspath-tests");
    for package in without_lab.chain(&["dnspath-tests"]) {
        build.args(["--package", package]);
    }
    run(&mut build)
}

/// Runs the release binary as root, through sudo where this is not root.
pub(crate) fn run_privileged(arguments: &[String]) -> Result<ExitCode> {
    let binary = binary("dnspath");
    let mut command = if is_root() {
        Command::new(&binary)
    } else if on_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(&binary);
        sudo
    } else {
        bail!(
            "dnspath needs root or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and there is no sudo: run this as root"
        );
    };
    let status =
        command.args(arguments).status().with_context(|| format!("cannot start {}", binary.display()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::from(2), ExitCode::from))
}
