//! Builds the kernel side for the BPF target, with the tools that `cargo xtask` put into `target/setup`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// The classifiers, and the probes of drops: an old kernel that refuses the second still loads the first.
const OBJECTS: [&str; 2] = ["dnspath-kernel", "dnspath-drops"];
const SET_UP: &str = "the kernel side cannot be built yet: run `cargo xtask setup` once, then this again";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let root = variable("CARGO_MANIFEST_DIR").map(PathBuf::from)?;
    let root = root.parent().ok_or("the package lies in no workspace")?;
    let setup = root.join("target/setup");
    // The last two are rustc's, of which cargo does not know: profile/README.md.
    let watched = [
        "tracer-ebpf/src",
        "tracer-ebpf/Cargo.toml",
        "Cargo.lock",
        "target/setup/core-source",
        "profile/rustc",
        "profile/dnspath.profdata",
    ];
    for watched in watched {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }

    let source = fs::read_to_string(setup.join("core-source")).map_err(|_| SET_UP)?;
    if !Path::new(&source).join("core/src/lib.rs").is_file() || !setup.join("bin/bpf-linker").is_file() {
        return Err(SET_UP.into());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    // One folder for all profiles: target/PROFILE/build/PACKAGE/out is four folders down.
    let target = out.ancestors().nth(4).unwrap_or(&out).join("kernel");
    let path = env::join_paths(
        std::iter::once(setup.join("bin")).chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )
    .map_err(|error| format!("cannot extend PATH: {error}"))?;
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        "-Cdebuginfo=2".into(),
        "-Ctarget-cpu=v2".into(),
        "-Clink-arg=--btf".into(),
    ];

    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--profile", "kernel", "--package", "dnspath-ebpf"])
        .args(["--features", "kernel", "--bins"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        // Where std's source lies outside the toolchain (Debian's package unpacked under target/setup).
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", &source)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // What cargo and clippy-driver set for this package must not reach the other build.
    for inherited in
        ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR", "TARGET"]
    {
        cargo.env_remove(inherited);
    }
    let output =
        cargo.output().map_err(|error| format!("cannot start cargo for the kernel side: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the kernel side does not build: {}",
            String::from_utf8_lossy(&output.stderr).replace('\n', "  ")
        ));
    }
    for object in OBJECTS {
        fs::copy(target.join("bpfel-unknown-none/kernel").join(object), out.join(object))
            .map_err(|error| format!("cannot copy the kernel side's object {object}: {error}"))?;
    }
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
