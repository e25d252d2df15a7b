//! The engine's behaviours: one scenario file each, and properties over any packets.

mod properties;
mod scenario;
mod scenarios;
