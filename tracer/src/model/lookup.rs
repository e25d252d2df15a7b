//! Lookups: what a program asked its resolver for.

use super::{Name, Question, Retransmission, Timestamp};
use std::{fmt, net::IpAddr, time::Duration};

/// How a lookup ended, as the client saw it: late answers do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LookupResult {
    /// An address was accepted.
    Ok,
    /// No candidate exists.
    Nxdomain,
    /// The last candidate exists without an address.
    Nodata,
    /// The server failed.
    Servfail,
    /// The server refused.
    Refused,
    /// No answer in time.
    Timeout,
    /// ICMP unreachable from the server's side.
    Unreachable,
    /// Truncated, and no answer over TCP.
    Truncated,
    /// Its end is not in the capture.
    Incomplete,
}

impl LookupResult {
    /// The word of the JSON output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Nxdomain => "nxdomain",
            Self::Nodata => "nodata",
            Self::Servfail => "servfail",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Truncated => "truncated",
            Self::Incomplete => "incomplete",
        }
    }

    /// Whether it ended without the client being told whether the name exists.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Ok | Self::Incomplete | Self::Nxdomain | Self::Nodata => false,
            Self::Servfail | Self::Refused | Self::Timeout | Self::Unreachable | Self::Truncated => true,
        }
    }
}

impl fmt::Display for LookupResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which resolver code a client runs, as its packets show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// dig, host and nslookup of BIND.
    BindTools,
    /// busybox's nslookup.
    BusyboxNslookup,
    /// c-ares, version not told.
    CAres,
    /// c-ares before 1.20.
    CAresBefore120,
    /// c-ares from 1.20.
    CAresFrom120,
    /// dnsmasq as a forwarder.
    Dnsmasq,
    /// glibc's getaddrinfo.
    Glibc,
    /// Go's own resolver.
    Go,
    /// HAProxy's resolvers section.
    Haproxy,
    /// musl's getaddrinfo.
    Musl,
    /// nginx's resolver.
    Nginx,
    /// Not told apart.
    #[default]
    Unknown,
}

impl Family {
    /// The word of the JSON output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BindTools => "bind-tools",
            Self::BusyboxNslookup => "busybox-nslookup",
            Self::CAres => "c-ares",
            Self::CAresBefore120 => "c-ares<1.20",
            Self::CAresFrom120 => "c-ares>=1.20",
            Self::Dnsmasq => "dnsmasq",
            Self::Glibc => "glibc",
            Self::Go => "go",
            Self::Haproxy => "haproxy",
            Self::Musl => "musl",
            Self::Nginx => "nginx",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One candidate name of a search: its questions (A and AAAA together).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The candidate.
    pub name: Name,
    /// Its questions, in the order they were first asked.
    pub questions: Vec<Question>,
}

/// One getaddrinfo() call, or what came nearest to it: the steps of one search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Who looked up.
    pub client: IpAddr,
    /// The name the program asked, as far as the packets tell: the candidate without its search suffix.
    pub name: Name,
    /// How it ended.
    pub result: LookupResult,
    /// The candidate that gave the address.
    pub answered_by: Option<Name>,
    /// The candidates with their questions, in the order they were first asked.
    pub steps: Vec<Step>,
    /// Query messages: retransmissions, copies and TCP included.
    pub queries: u32,
    /// Query messages whose name is not `answered_by`; `None` when the lookup failed.
    pub wasted_search_queries: Option<u32>,
    /// Further messages of questions already asked, by time.
    pub retransmissions: Vec<Retransmission>,
    /// Silent gaps of 0.2 s and more between query messages.
    pub gaps: Vec<Duration>,
    /// Candidates with a search suffix that got an empty NOERROR for every type asked where NXDOMAIN was due.
    pub suspicious_names: Vec<Name>,
    /// The first query message.
    pub start: Timestamp,
    /// From the first query message to the last answer that counted, or to the last query when none came.
    pub duration: Duration,
    /// Which resolver it was.
    pub family: Family,
    /// Its client is itself asked as a server: this is what a server asked for another client, whose own lookup
    /// tells the same.
    pub forwarded: bool,
}

impl Lookup {
    /// The latest answer or query of the lookup.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.start + self.duration
    }
}
