//! LINKTYPE values of capture files (tcpdump.org/linktypes.html).

use crate::model::LinkType;

/// The link type behind a LINKTYPE value.
pub(super) const fn from_linktype(value: u16) -> LinkType {
    match value {
        0 | 108 => LinkType::Null,
        1 => LinkType::Ethernet,
        // 12 and 14 are DLT_RAW as some systems write it; 228 and 229 are raw IPv4 and raw IPv6.
        12 | 14 | 101 | 228 | 229 => LinkType::RawIp,
        113 => LinkType::LinuxSll,
        276 => LinkType::LinuxSll2,
        other => LinkType::Other(other),
    }
}

/// The LINKTYPE value of a link type.
pub(super) const fn to_linktype(link: LinkType) -> u16 {
    match link {
        LinkType::Null => 0,
        LinkType::Ethernet => 1,
        LinkType::RawIp => 101,
        LinkType::LinuxSll => 113,
        LinkType::LinuxSll2 => 276,
        LinkType::Other(other) => other,
    }
}
