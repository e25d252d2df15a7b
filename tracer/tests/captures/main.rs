//! `report` on capture files: those of the corpus as they are, and harmed on purpose.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod counted;
mod harmed;
mod pcap;
mod replayed;
mod selected;

use pcap::Capture;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A capture of the corpus.
fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/resolvers").join(format!("{name}.pcap"))
}

/// Runs `dnspath` with these words and files: its exit status, standard output and standard error.
fn dnspath(words: &str, files: &[&Path]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dnspath"));
    let output = command.args(words.split_whitespace()).args(files).output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn report(words: &str, files: &[&Path]) -> Value {
    let (_, printed, said) = dnspath(&format!("report -o json --lookups {words}"), files);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The report of a capture that is not in a file yet.
fn report_of(capture: &Capture) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture.pcap");
    std::fs::write(&path, capture.to_bytes()).unwrap();
    report("", &[&path])
}
