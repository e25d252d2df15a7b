//! Bytes to sightings: link, IP, UDP and TCP, DNS; lax, without I/O.
