//! Source → wire → engine → sinks; the one place, with `cli`, that sees both I/O and pure code.

mod beside;
pub mod check;
pub mod clock;
mod clocks;
mod flight;
mod known;
pub mod live;
mod loss;
pub mod offline;
pub mod provoke;
pub mod race;
pub mod record;
pub mod replay;
pub mod selection;
pub mod session;
pub mod signals;
mod sinks;
pub mod when;
