//! Capture files in and out.

mod error;
mod input;
mod link;
mod merged;
mod note;
mod pcap;
mod pcapng;
mod reader;
mod tail;
mod vantage;

pub use error::TraceError;
pub use merged::MergedReader;
pub use note::Note;
pub use reader::{Reader, Record};
pub use vantage::describe;

#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod samples;
