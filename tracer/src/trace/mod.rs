//! Capture files in and out.

mod error;
mod input;
mod link;
mod pcap;
mod reader;

pub use error::TraceError;
pub use reader::Reader;
