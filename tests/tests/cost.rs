//! What a message costs: a budget in instructions, which do not depend on the machine's load.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use dnspath_tests::callgrind::{DECODE_BUDGET, ENGINE_BUDGET, REPORT_BUDGET, count, why_not};
use dnspath_tests::harness::{Outcome, run};

fn main() -> ExitCode {
    run(&[("decoder_engine_and_report_keep_their_budget", decoder_engine_and_report_keep_their_budget)])
}

fn decoder_engine_and_report_keep_their_budget() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let counted = count()?;
    ensure!(counted.decode <= DECODE_BUDGET, "{:.0} instructions for a frame", counted.decode);
    ensure!(counted.engine <= ENGINE_BUDGET, "{:.0} instructions for a message", counted.engine);
    ensure!(
        counted.report <= REPORT_BUDGET,
        "report: {:.0} instructions for a packet; is the profile up to date (profile/README.md)?",
        counted.report
    );
    Ok(Outcome::Measured(format!(
        "decoder {:.0} instructions for a frame, engine {:.0} for a message with two sightings, report {:.0} for a packet",
        counted.decode, counted.engine, counted.report
    )))
}
