//! What `cargo xtask bench` measures with: traffic made from a seed, as a capture file or as what the engine is
//! told.

pub mod engine;
pub mod frames;
pub mod traffic;
