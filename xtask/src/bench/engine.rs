//! Instructions of the decoder and the engine alone, and of a report with all there is.

use super::{
    Extent,
    table::{Column, Table},
};
use anyhow::Result;
use dnspath_tests::callgrind::{DECODE_BUDGET, ENGINE_BUDGET, REPORT_BUDGET, count, why_not};

const COLUMNS: [Column; 2] =
    [Column::new("instructions", "instructions", 0), Column::new("budget", "budget", 0)];

/// Once, however many rounds: the count is the same each time.
pub(crate) fn measure(_extent: &Extent) -> Result<Vec<Table>> {
    let title = "Instructions in steady state, by callgrind";
    let mut table = Table::new("engine", title.to_owned(), "of", &COLUMNS);
    if let Some(reason) = why_not() {
        table.left_out.push(reason);
        return Ok(vec![table]);
    }
    let counted = count()?;
    table.add("the decoder, for a frame", &[Some(counted.decode), Some(DECODE_BUDGET)]);
    table.add("the engine, for a message with two sightings", &[Some(counted.engine), Some(ENGINE_BUDGET)]);
    table.add("`dnspath report`, for a packet of a file", &[Some(counted.report), Some(REPORT_BUDGET)]);
    Ok(vec![table])
}
