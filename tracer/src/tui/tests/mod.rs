//! The screens as text, the keys as sequences, and what may never happen as properties.

mod behaviour;
pub(crate) mod build;
mod filters;
mod screens;
mod views;
