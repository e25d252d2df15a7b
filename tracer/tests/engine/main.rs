//! The engine's behaviours: one scenario file each, and properties over any packets.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod properties;
mod scenario;
mod scenarios;
