//! The terminal screens.
//!
//! A [`Feed`] (an `Observer`, on the pipeline's thread) keeps a bounded number of lines; a [`Snapshot`] copies
//! what changed; an [`App`] turns keys into state and draws. [`run`] joins them with a terminal. Nothing here
//! reads a clock. Names from packets are escaped by their `Display`; all other text is escaped on its way to
//! the screen.

mod app;
mod column;
mod feed;
mod filter;
mod found;
mod header;
mod kernel;
mod keys;
mod names;
mod pods;
mod row;
mod servers;
mod snapshot;
mod status;
mod table;
mod terminal;
mod text;
mod theme;
mod views;

#[cfg(test)]
pub(crate) mod tests;

pub use app::{Action, App, Request};
pub use feed::{Feed, Limits, SharedFeed};
pub use snapshot::Snapshot;
pub use status::{Motion, Playback, Recording, Said, Status};
pub use terminal::{Exit, run};
pub use theme::Theme;
