//! The correlation core: sightings to messages, questions, steps, lookups. No I/O, no clock: time is an argument.
