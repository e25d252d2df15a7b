//! The programs that the lab builds for itself, once, into `target/lab`: CoreDNS and the clients.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};

use crate::process::run;
use crate::requirements::find;

/// CoreDNS takes minutes on a small machine; everything else takes seconds.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// A program and what it is built from.
struct Recipe {
    name: &'static str,
    sources: &'static [(&'static str, &'static str)],
    /// The compiler and its arguments; `OUT` stands for the program.
    command: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const COREDNS: Recipe = Recipe {
    name: "coredns",
    sources: &[
        ("main.go", include_str!("../servers/coredns/main.go")),
        ("go.mod", include_str!("../servers/coredns/go.mod")),
        ("go.sum", include_str!("../servers/coredns/go.sum")),
    ],
    command: &["nice", "go", "build", "-p", "2", "-trimpath", "-ldflags=-s -w", "-o", "OUT", "."],
    environment: &[("CGO_ENABLED", "0")],
};

const GLIBC: Recipe = Recipe {
    name: "lookup-glibc",
    sources: &[("lookup.c", include_str!("../clients/lookup.c"))],
    command: &["gcc", "-O2", "-Wall", "-Wextra", "-o", "OUT", "lookup.c"],
    environment: &[],
};

const MUSL: Recipe = Recipe {
    name: "lookup-musl",
    sources: GLIBC.sources,
    command: &["musl-gcc", "-O2", "-Wall", "-Wextra", "-static", "-o", "OUT", "lookup.c"],
    environment: &[],
};

const CARES: Recipe = Recipe {
    name: "lookup-cares",
    sources: &[("lookup_cares.c", include_str!("../clients/lookup_cares.c"))],
    command: &["gcc", "-O2", "-Wall", "-Wextra", "-o", "OUT", "lookup_cares.c", "-lcares"],
    environment: &[],
};

const GO: Recipe = Recipe {
    name: "lookup-go",
    sources: &[("lookup.go", include_str!("../clients/lookup.go"))],
    command: &["go", "build", "-o", "OUT", "lookup.go"],
    environment: &[("CGO_ENABLED", "0"), ("GOFLAGS", "-buildvcs=false")],
};

/// CoreDNS: the path of the program, built if need be.
///
/// # Errors
/// Go is missing or the build fails.
pub fn coredns() -> Result<PathBuf> {
    build(&COREDNS)
}

/// Whether there is a CoreDNS, or Go to build one.
pub fn has_coredns() -> bool {
    find("go").is_some() || is_built(&COREDNS, &target_directory().join("lab"))
}

/// The glibc client.
///
/// # Errors
/// gcc is missing or the build fails.
pub fn glibc() -> Result<PathBuf> {
    build(&GLIBC)
}

/// The musl client, linked statically.
///
/// # Errors
/// musl-gcc is missing or the build fails.
pub fn musl() -> Result<PathBuf> {
    build(&MUSL)
}

/// The c-ares client.
///
/// # Errors
/// gcc or c-ares is missing or the build fails.
pub fn cares() -> Result<PathBuf> {
    build(&CARES)
}

/// The client with Go's own resolver.
///
/// # Errors
/// Go is missing or the build fails.
pub fn go() -> Result<PathBuf> {
    build(&GO)
}

/// Builds everything there is a compiler for; what there is none for is left out, `requirements` names it.
///
/// # Errors
/// A build fails.
pub fn build_all() -> Result<()> {
    for recipe in [&COREDNS, &GLIBC, &MUSL, &CARES, &GO] {
        let compiler = recipe.command.iter().find(|word| **word != "nice").copied().unwrap_or_default();
        if find(compiler).is_some() {
            build(recipe)?;
        }
    }
    Ok(())
}

/// The cargo target directory of the running program, else of this source tree.
pub fn target_directory() -> PathBuf {
    let marked = std::env::current_exe().ok().and_then(|program| {
        program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists()).map(Path::to_owned)
    });
    marked.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"))
}

/// Builds a recipe unless the program of exactly these sources is there. One build at a time on the machine.
fn build(recipe: &Recipe) -> Result<PathBuf> {
    let lab = target_directory().join("lab");
    let program = lab.join(recipe.name);
    let sources = sources_of(recipe, &lab);
    fs::create_dir_all(&sources).with_context(|| format!("cannot create {}", sources.display()))?;
    let lock = File::create(lab.join("lock")).context("cannot create the lab's build lock")?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot take the lab's build lock")?;
    if is_built(recipe, &lab) {
        return Ok(program);
    }
    if let Err(e) = fs::remove_file(&program)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(e).with_context(|| format!("cannot replace {}", program.display()));
    }
    for (file, text) in recipe.sources {
        fs::write(sources.join(file), text).with_context(|| format!("cannot write {file}"))?;
    }
    let mut words = recipe.command.iter();
    let compiler = words.next().ok_or_else(|| anyhow!("{} has no build command", recipe.name))?;
    let mut command = Command::new(compiler);
    for word in words {
        if *word == "OUT" {
            command.arg(&program)
        } else {
            command.arg(word)
        };
    }
    command.current_dir(&sources).envs(recipe.environment.iter().copied());
    run(&mut command, BUILD_LIMIT).with_context(|| format!("cannot build {}", recipe.name))?;
    if !program.exists() {
        bail!("the build of {} left no program", recipe.name);
    }
    Ok(program)
}

fn sources_of(recipe: &Recipe, lab: &Path) -> PathBuf {
    lab.join("sources").join(recipe.name)
}

fn is_built(recipe: &Recipe, lab: &Path) -> bool {
    let sources = sources_of(recipe, lab);
    let same = |(file, text): &(&str, &str)| {
        fs::read_to_string(sources.join(file)).is_ok_and(|built| built == *text)
    };
    lab.join(recipe.name).exists() && recipe.sources.iter().all(same)
}
