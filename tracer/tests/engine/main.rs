//! The engine's behaviours: one scenario file each, and properties over any packets.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot read its own input must fail"
)]

mod drops;
mod properties;
mod scenario;
mod scenarios;
