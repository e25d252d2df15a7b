//! Capture files in and out.

mod block;
mod error;
mod flight;
mod input;
mod link;
mod merged;
mod note;
mod origin;
mod packet_block;
mod pcap;
mod pcapng;
mod reader;
mod statistics;
mod tail;
mod text;
mod ticks;
mod told;
mod vantage;
mod writer;

pub use error::TraceError;
pub use flight::{FlightRecorder, Held, LEAST_FLIGHT_OCTETS};
pub use merged::MergedReader;
pub use note::Note;
pub use origin::Origin;
pub use reader::{Reader, Record};
pub use statistics::{Recorded, Statistics};
pub use told::Told;
pub use vantage::describe;
pub use writer::Writer;

#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod writer_tests;
