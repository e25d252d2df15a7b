//! `replay` without a screen says what `stream` and `report` say, at whatever speed.

use super::{corpus, dnspath};
use std::{fs, path::Path};

#[test]
fn at_any_speed_a_replay_has_the_lookups_and_the_report() {
    let mut compared = 0;
    for entry in fs::read_dir(corpus("any").parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("drop") || path.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let files: &[&Path] = &[&path];
        let (_, report, _) = dnspath("report", files);
        let (_, lookups, _) = dnspath("stream", files);
        for speed in ["max", "100"] {
            let (status, printed, said) = dnspath(&format!("replay --speed {speed}"), files);
            assert_eq!((status, said.as_str()), (Some(0), ""), "{name}");
            assert_eq!(printed, format!("{lookups}\n{report}"), "{name} at {speed}");
        }
        compared += 1;
    }
    assert!(compared > 20, "{compared} captures");
}
