//! Every incident in one lab at the same time, beside healthy clients that ask as fast as told.

use std::net::IpAddr;
use std::thread::{scope, sleep};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::session::{Session, findings};
use super::{ALL, INCIDENTS, Played, Scenario, expect};
use crate::lab::{Lab, LabOptions};
use crate::load::{Load, LoadResult};
use crate::server::ServerKind;
use crate::topology::VIP4;

/// Who asks as fast as told.
const BUSY: &str = "busy";
/// As long as the slowest incident takes, and some seconds.
const SECONDS: u64 = 18;

/// What came of it.
#[derive(Debug)]
pub struct AllAtOnce {
    /// What the load came to.
    pub load: LoadResult,
    /// Records that the session lost.
    pub lost: u64,
    /// How many incidents were played.
    pub incidents: usize,
    session: Session,
    played: Vec<(&'static Scenario, Played)>,
}

/// Plays all incidents that this machine can play, under a load of so many queries a second.
///
/// # Errors
/// The lab cannot be built, or an incident does not happen.
pub fn play(rate: u32) -> Result<AllAtOnce> {
    static SCENARIOS: &[Scenario] = &ALL;
    let incidents: Vec<&Scenario> =
        SCENARIOS.iter().filter(|it| it.code.is_some() && it.why_not().is_none()).collect();
    let pods: Vec<String> = (1..=incidents.len()).map(|number| format!("pod{number}")).collect();
    let mut lab = Lab::new(LabOptions {
        server: Some(ServerKind::Fast),
        pods: [&pods[..], &[BUSY.to_owned()]].concat(),
        far_pods: Vec::new(),
        endpoints: vec!["dns1".to_owned()],
        ..LabOptions::default()
    })?;
    for (scenario, pod) in incidents.iter().zip(&pods) {
        (scenario.prepare)(&mut lab, pod).with_context(|| format!("cannot prepare {}", scenario.name))?;
    }
    let mut arguments: Vec<&str> =
        incidents.iter().flat_map(|scenario| scenario.arguments.iter().copied()).collect();
    arguments.dedup();
    let (session, (load, played)) = Session::of(&lab, &arguments, || {
        let (lab, incidents) = (&lab, &incidents);
        scope(|scope| {
            let load = scope.spawn(move || {
                // Not more at once than the server's socket has room for: what overflows is no healthy node.
                let load = Load { rate: Some(rate), outstanding: 100, ..Load::full_speed(SECONDS) };
                load.run(lab.pod(BUSY)?, IpAddr::from(VIP4))
            });
            sleep(Duration::from_secs(1));
            let threads: Vec<_> = incidents
                .iter()
                .zip(&pods)
                .map(|(scenario, pod)| {
                    scope.spawn(move || (scenario.play)(lab, lab.pod(pod)?).context(scenario.name))
                })
                .collect();
            let panicked = |_| anyhow!("a scenario panicked");
            let played: Result<Vec<Played>> = threads
                .into_iter()
                .map(|thread| thread.join().map_err(panicked).and_then(|played| played))
                .collect();
            let load = load.join().map_err(panicked)??;
            Ok((load, incidents.iter().copied().zip(played?).collect()))
        })
    })?;
    let lost = session.json["coverage"]["lost"].as_u64().context("no count of lost records")?;
    Ok(AllAtOnce { load, lost, incidents: incidents.len(), session, played })
}

impl AllAtOnce {
    /// Checks that each incident is named, and nothing else.
    ///
    /// # Errors
    /// One is not, or something else is.
    pub fn check(&self) -> Result<()> {
        self.session.same_again()?;
        let told = findings(&self.session.json);
        let is_about = |finding: &Value, (scenario, played): &(&Scenario, Played)| {
            scenario.code.is_some_and(|code| finding["code"] == code)
                && expect::agrees(finding, played).is_ok()
        };
        for incident in &self.played {
            ensure!(
                told.iter().any(|finding| is_about(finding, incident)),
                "{} is not named: {:?} in {told:#?}",
                incident.0.name,
                incident.1.subject
            );
        }
        let unexplained = told.iter().filter(|finding| finding["explained_by"].is_null());
        for finding in unexplained.filter(|finding| finding["severity"] != "info" || is_incident(finding)) {
            let expected = self.played.iter().any(|incident| is_about(finding, incident));
            ensure!(expected, "nothing of this happened: {finding:#}");
        }
        Ok(())
    }
}

fn is_incident(finding: &Value) -> bool {
    INCIDENTS.iter().any(|code| finding["code"] == *code)
}
