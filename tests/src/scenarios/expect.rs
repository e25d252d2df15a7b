//! What reports have to say of scenarios.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::session::{Session, codes, findings};
use super::{INCIDENTS, Played, Scenario};

/// Checks that the report on a session names what the scenario is about, and first; of a look-alike, that it names no
/// incident. Gives what it said.
///
/// # Errors
/// It does not.
pub fn first_finding(scenario: &Scenario, session: &Session, played: &Played) -> Result<String> {
    let lost = &session.json["coverage"]["lost"];
    ensure!(*lost == 0, "{lost} records were lost");
    session.same_again()?;
    let Some(code) = scenario.code else { return no_incident(&session.json) };
    let first = first(&session.json, code)?;
    agrees(first, played)?;
    let text = session.text()?;
    ensure!(text.contains(code), "the text does not tell {code}:\n{text}");
    if let Some(cause) = played.cause {
        let lookups = session.json["lookups"].as_array().context("no lookups")?;
        let says = |lookup: &Value| lookup["cause"].as_str().is_some_and(|said| said.contains(cause));
        ensure!(lookups.iter().any(says), "no lookup's cause is {cause:?}: {lookups:#?}");
    }
    if let Some((recording, code)) = &played.elsewhere {
        self::first(&session.with(recording)?, code)?;
    }
    Ok(first["summary"].as_str().unwrap_or_default().to_owned())
}

fn first<'a>(report: &'a Value, code: &str) -> Result<&'a Value> {
    let told = findings(report);
    let first = told.first().with_context(|| format!("nothing is told, not even {code}"))?;
    ensure!(first["code"] == code, "not {code} is the first, but {:?}: {told:#?}", codes(report));
    Ok(first)
}

/// Whether a finding says what is known of its scenario.
///
/// # Errors
/// What it does not say.
pub fn agrees(finding: &Value, played: &Played) -> Result<()> {
    let subject = &finding["subject"];
    for (key, value) in &played.subject {
        ensure!(subject[key] == value.as_str(), "its {key} is not {value}: {finding:#}");
    }
    if let Some(waited) = played.waited {
        let told: f64 = subject["waited_s"].as_str().context("it tells no wait")?.parse()?;
        ensure!((told - waited).abs() < 0.1, "{told} s of {waited} are told: {finding:#}");
    }
    Ok(())
}

fn no_incident(report: &Value) -> Result<String> {
    if let Some(told) =
        findings(report).iter().find(|finding| INCIDENTS.iter().any(|code| finding["code"] == *code))
    {
        bail!("this is no incident: {told:#}");
    }
    // What cannot be seen here is said of every session.
    let told: Vec<_> = findings(report)
        .iter()
        .filter(|finding| finding["code"] != "DP902")
        .map(|finding| {
            format!(
                "{} {}",
                finding["code"].as_str().unwrap_or_default(),
                finding["summary"].as_str().unwrap_or_default()
            )
        })
        .collect();
    Ok(if told.is_empty() { "nothing is told".to_owned() } else { told.join("; ") })
}
