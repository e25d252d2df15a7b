//! `dnspath check` as text and JSON.

use crate::model::{Check, Verdict};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A ticked list, a hint under what is not fine.
#[must_use]
pub fn to_text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Fine => "✓",
            Verdict::Limited => "!",
            Verdict::Wrong | Verdict::Missing => "✗",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark} {:<17} {}", check.name, one_line(&check.found));
        if !check.hint.is_empty() {
            let _ = writeln!(text, "  {:<17} → {}", "", check.hint);
        }
    }
    text
}

/// One object: the worst verdict, and every check.
#[must_use]
pub fn to_json(checks: &[Check]) -> Value {
    let entries: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({"name": check.name, "status": word(check.verdict), "found": check.found, "hint": check.hint})
        })
        .collect();
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Fine);
    json!({"version": 1, "status": word(worst), "checks": entries})
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fine => "ok",
        Verdict::Limited | Verdict::Wrong => "warning",
        Verdict::Missing => "error",
    }
}

/// Interface names may hold any byte but `/` and white space.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Check> {
        let check = |name, verdict, found: &str, hint: &str| Check {
            name,
            verdict,
            found: found.into(),
            hint: hint.into(),
        };
        vec![
            check("kernel", Verdict::Fine, "Linux 6.18.0 on x86_64", ""),
            check("type information", Verdict::Limited, "the kernel has no BTF", "use one that has"),
            check("rules", Verdict::Wrong, "20,000 rules", "take the copies away"),
            check("attachment", Verdict::Missing, "no \x1b[31minterface", "name one with -i"),
        ]
    }

    #[test]
    fn text_ticks_and_hints() {
        insta::assert_snapshot!(to_text(&examples()));
    }

    #[test]
    fn json_names_the_worst() {
        insta::assert_json_snapshot!(to_json(&examples()));
    }
}
