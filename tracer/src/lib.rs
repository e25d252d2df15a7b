//! dnspath: an eBPF packet-level DNS tracer for Kubernetes nodes.
//!
//! A packet's way is one direction: `capture` or `trace` → `wire` → `engine` → `findings` and `stats` →
//! `output` and `tui`. `pipeline` joins them; everything depends on `model`, and `model` on nothing.

pub mod capture;
pub mod cli;
pub mod engine;
pub mod findings;
pub mod model;
pub mod node;
pub mod output;
pub mod pipeline;
pub mod stats;
pub mod trace;
pub mod tui;
pub mod wire;
