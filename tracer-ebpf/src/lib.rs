//! What the kernel side and user space share: the ring record's layout, and the rule that says which packets
//! are of interest.
//!
//! The rule ([`classify`]) reads packets through [`Bytes`], so the same code runs as a tc classifier in the kernel
//! and in tests on the host.
#![no_std]

mod classify;
mod drop;
mod record;

pub use classify::{Bytes, ENCRYPTED_DNS, Fragments, Interest, Link, MAX_PORTS, Ports, classify};
pub use drop::{
    Baseline, DROP, DROP_CLASSES, DROP_HEADER_LEN, DropHeader, ENTERED, FATE_CLASH_RESOLVED, FATE_DROPPED,
    FATE_INSERT_FAILED, FATE_TABLE_FULL, FLAG_CONNECTION, FLAG_ETHERNET, INSERT_FAILED, MAX_BASELINES,
    MAX_DROP_CAPTURED, NO_REASON, UNCLAIMED_FOR_GOOD, UNCLAIMED_SINCE,
};
pub use record::{
    CLASSES, CONNECTS_PASSED_OVER, COUNTS, ENCRYPTED_SEEN, FLAG_CLASH, FLAG_CONNECT, FLAG_EGRESS, FLAG_NAT,
    FLAG_NAT_IPV4, FLAG_RAW_IP, FragmentKey, HEADER_LEN, LOST_ELSEWHERE, LostKey, MAX_CAPTURED, NAT_IPV4_LEN,
    NAT_LEN, RecordHeader,
};
