//! The totals of a report are those that the corpus counts.

use crate::{corpus, report};
use serde_json::Value;

#[test]
fn each_total_of_each_capture() {
    let index = std::fs::read_to_string(corpus("x").with_file_name("index.jsonl")).unwrap();
    let mut wrong = Vec::new();
    let mut files = 0;
    for truth in index.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let name = truth["file"].as_str().unwrap().trim_end_matches(".pcap");
        let told = &report("", &[&corpus(name)])["totals"];
        let lookups = || truth["lookup_list"].as_array().into_iter().flatten();
        let sum = |key: &str| lookups().filter_map(|lookup| lookup[key].as_u64()).sum::<u64>();
        let mut check = |key: &str, expected: Option<u64>, got: &Value| {
            if expected.is_none() || got.as_u64() != expected {
                wrong.push(format!("{name}: {key} {expected:?}, got {got}"));
            }
        };
        // Those of ICMP are in no report; where there are several by type, they come below.
        for (key, count) in truth["totals"].as_object().expect("each capture of the index has totals") {
            if count.is_number() && !key.starts_with("icmp_") {
                check(key, count.as_u64(), &told[key]);
            }
        }
        check("lookups", truth["lookups"].as_u64(), &told["lookups"]);
        for key in ["late_responses", "suspicious_empty_noerror"] {
            check(key, Some(sum(key)), &told[key]);
        }
        for (qtype, count) in truth["totals"]["empty_noerror"].as_object().unwrap() {
            check(qtype, count.as_u64(), &told["empty_noerror"][qtype]);
        }
        files += 1;
    }
    assert!(wrong.is_empty() && files > 160, "{files} files: {wrong:#?}");
}
