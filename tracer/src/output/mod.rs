//! Text, JSON lines, reports. Everything that comes from a packet is escaped before it gets here or in here.

pub mod check;
mod drops;
mod json;
pub(crate) mod ladder;
mod lines;
mod lookup_json;
mod race;
mod report;
mod stream;
pub mod text;

pub use race::{Provoked, RaceSummary};
pub use report::{Baseline, ClockView, Known, LookupLog, Page, Report};
pub use stream::{Format, Stream, Unit};
