//! The kernel boundary: load, attach, follow links, read the ring, count what is lost.
