//! What cannot be seen in a session.

/// Something that cannot be seen, known from the start or found on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlindSpot {
    /// What it is about: a word, stable.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What is not seen because of it.
    pub unseen: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
}

impl BlindSpot {
    /// From its words.
    #[must_use]
    pub fn new(what: &str, found: impl Into<String>, unseen: &str, advice: &str) -> Self {
        Self { what: what.into(), found: found.into(), unseen: unseen.into(), advice: advice.into() }
    }

    /// DNS over TLS or QUIC passes: packets to or from port 853 were seen.
    #[must_use]
    pub fn encrypted_dns() -> Self {
        Self::new(
            "encrypted-dns",
            "DNS over TLS or QUIC is in use (port 853)",
            "its queries and answers",
            "Look at the programs and stub resolvers that use it; what they ask over HTTPS (DoH) shows nowhere.",
        )
    }
}
