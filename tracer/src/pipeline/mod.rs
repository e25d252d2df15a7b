//! Source → wire → engine → sinks; the one place, with `cli`, that sees both I/O and pure code.
