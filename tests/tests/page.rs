//! The page of `dnspath report -o html` in a browser: it is drawn whole, asks for nothing, and its console stays empty.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::{bound_command, output_of};
use dnspath_tests::report::report;
use dnspath_tests::requirements::find;
use dnspath_tests::tracer::binary;

fn main() -> ExitCode {
    run(&[("a_browser_draws_the_page_without_a_word", a_browser_draws_the_page)])
}

/// A browser starts slowly on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Captures with a race, a slow server, a silent one, and an empty answer.
const FILES: [&str; 4] =
    ["dropfirstaaaa-glibc236", "slow6s-go119", "dropall3ns-musl125", "nodatasuffix-musl125"];

/// The browser, by the commands of Debian's packages.
fn browser() -> Result<PathBuf, String> {
    if let Err(reason) = binary() {
        return Err(format!("{reason:#}"));
    }
    ["chromium-headless-shell", "chromium"]
        .iter()
        .find_map(|name| find(name))
        .ok_or_else(|| "no browser here (package chromium-headless-shell or chromium)".to_owned())
}

/// Opens a page; gives its elements as the browser understood them, what the console said, and a picture.
fn open(browser: &Path, page: &Path) -> Result<(String, Vec<String>, Vec<u8>)> {
    let directory = page.parent().context("a page in no directory")?;
    let picture = directory.join("page.png");
    let run = |what: &str| {
        let mut command = bound_command(browser);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"])
            .arg("--window-size=1120,3000")
            .arg(format!("--user-data-dir={}", directory.join("profile").display()))
            .arg(what)
            .arg(format!("file://{}", page.display()))
            .current_dir(directory);
        output_of(&mut command, "", LIMIT).context("cannot run the browser")
    };
    let shown = run("--dump-dom")?;
    let drawn = run(&format!("--screenshot={}", picture.display()))?;
    let said = [shown.stderr, drawn.stderr].concat();
    let console = String::from_utf8_lossy(&said)
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .map(str::to_owned)
        .collect();
    let picture = fs::read(&picture).context("the browser drew nothing")?;
    Ok((String::from_utf8_lossy(&shown.stdout).into_owned(), console, picture))
}

fn a_browser_draws_the_page() -> Result<Outcome> {
    let browser = match browser() {
        Ok(browser) => browser,
        Err(reason) => return Ok(Outcome::LeftOut(reason)),
    };
    let directory = tempfile::tempdir().context("cannot make a directory for the page")?;
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let path = directory.path().join(name);
        fs::write(&path, text).context("cannot write a page")?;
        Ok(path)
    };

    // What this test would see if something were wrong.
    let wrong = write("wrong.html", "<!DOCTYPE html><script>nothing.is.here()</script><p>empty")?;
    let (_, console, blank) = open(&browser, &wrong)?;
    ensure!(!console.is_empty(), "the browser does not tell of errors in a page");

    let files =
        FILES.map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("corpus/resolvers/{name}.pcap")));
    let html = report(&["-o", "html"], &files)?.1;
    ensure!(html == report(&["-o", "html"], &files)?.1, "two pages of the same files differ");
    let (elements, console, picture) = open(&browser, &write("page.html", &html)?)?;
    ensure!(console.is_empty(), "the console says {console:?}");
    for mark in ["<svg", "<details", "<tr>", "class=\"ladder\"", "DP104", "DP102", "DP204", "DP103"] {
        let written = html.matches(&mark.replace('"', "")).count();
        let shown = elements.matches(mark).count();
        ensure!(shown > 0 && shown >= written, "{mark}: {written} in the page, {shown} in the browser");
    }
    ensure!(
        picture.len() > 5 * blank.len(),
        "an empty picture: {} octets, {} blank",
        picture.len(),
        blank.len()
    );
    Ok(Outcome::Measured(format!("{} octets of page, {} of picture", html.len(), picture.len())))
}
