//! Capture files in and out.

mod block;
mod error;
mod input;
mod link;
mod merged;
mod note;
mod origin;
mod pcap;
mod pcapng;
mod reader;
mod statistics;
mod text;
mod ticks;
mod vantage;
mod writer;

pub use error::TraceError;
pub use merged::MergedReader;
pub use note::Note;
pub use origin::Origin;
pub use reader::{Reader, Record};
pub use statistics::{Recorded, Statistics, conntrack_between};
pub use vantage::describe;
pub use writer::Writer;

#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod writer_tests;
