//! Text, JSON lines, reports. Everything that comes from a packet is escaped before it gets here or in here.

pub mod check;
mod json;
mod lines;
mod stream;
pub mod text;

pub use stream::{Format, Stream, Unit};
