//! DNS wire values (RFC 1035, terms of RFC 9499). Every code a packet can carry has a value here, known or not.

use super::Name;
use smallvec::SmallVec;
use std::{fmt, net::IpAddr};

macro_rules! wire_code {
    ($(#[$doc:meta])* $name:ident($repr:ty), $prefix:literal, { $($(#[$code_doc:meta])* $code:ident = $value:literal => $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl $name {
            $($(#[$code_doc])* pub const $code: Self = Self($value);)*

            /// The mnemonic, where the value has one here.
            #[must_use]
            pub const fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.mnemonic() {
                    Some(text) => f.write_str(text),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            /// Reads a mnemonic in any case, or the number behind the prefix that unknown values show.
            fn from_str(text: &str) -> Result<Self, String> {
                let upper = text.to_ascii_uppercase();
                match upper.as_str() {
                    $($text => Ok(Self($value)),)*
                    other => other
                        .strip_prefix($prefix)
                        .and_then(|number| number.parse().ok())
                        .map(Self)
                        .ok_or_else(|| format!("{text:?} is neither a known mnemonic nor {}NUMBER", $prefix)),
                }
            }
        }
    };
}

wire_code! {
    /// A record type (RFC 1035 section 3.2.2); unknown ones show as `TYPE65280` (RFC 3597).
    Rtype(u16), "TYPE", {
        /// IPv4 address.
        A = 1 => "A",
        /// Name server.
        NS = 2 => "NS",
        /// Canonical name.
        CNAME = 5 => "CNAME",
        /// Start of authority: in the authority section it marks a negative answer (RFC 2308).
        SOA = 6 => "SOA",
        /// Pointer.
        PTR = 12 => "PTR",
        /// Host information; CoreDNS's loop plugin asks it.
        HINFO = 13 => "HINFO",
        /// Mail exchange.
        MX = 15 => "MX",
        /// Text.
        TXT = 16 => "TXT",
        /// IPv6 address (RFC 3596).
        AAAA = 28 => "AAAA",
        /// Service location (RFC 2782).
        SRV = 33 => "SRV",
        /// Naming authority pointer (RFC 3403).
        NAPTR = 35 => "NAPTR",
        /// Delegation name (RFC 6672).
        DNAME = 39 => "DNAME",
        /// EDNS pseudo record (RFC 6891).
        OPT = 41 => "OPT",
        /// Delegation signer (RFC 4034).
        DS = 43 => "DS",
        /// Signature (RFC 4034).
        RRSIG = 46 => "RRSIG",
        /// Next secure (RFC 4034).
        NSEC = 47 => "NSEC",
        /// Key (RFC 4034).
        DNSKEY = 48 => "DNSKEY",
        /// Service binding (RFC 9460).
        SVCB = 64 => "SVCB",
        /// HTTPS service binding (RFC 9460).
        HTTPS = 65 => "HTTPS",
        /// Incremental zone transfer (RFC 1995).
        IXFR = 251 => "IXFR",
        /// Zone transfer (RFC 5936).
        AXFR = 252 => "AXFR",
        /// All types (RFC 8482).
        ANY = 255 => "ANY",
    }
}

impl Rtype {
    /// Whether a stub resolver asks this type to find addresses.
    #[must_use]
    pub const fn is_address(self) -> bool {
        matches!(self, Self::A | Self::AAAA)
    }
}

wire_code! {
    /// A class (RFC 1035 section 3.2.4).
    Class(u16), "CLASS", {
        /// Internet.
        IN = 1 => "IN",
        /// Chaos: `version.bind` and the like.
        CH = 3 => "CH",
        /// Any class.
        ANY = 255 => "ANY",
    }
}

wire_code! {
    /// A response code, the EDNS extension (RFC 6891 section 6.1.3) included.
    Rcode(u16), "RCODE", {
        /// No error; with no answer records it is NODATA (RFC 2308).
        NOERROR = 0 => "NOERROR",
        /// The server could not read the query.
        FORMERR = 1 => "FORMERR",
        /// The server failed.
        SERVFAIL = 2 => "SERVFAIL",
        /// The name does not exist.
        NXDOMAIN = 3 => "NXDOMAIN",
        /// The server does not do this kind of query.
        NOTIMP = 4 => "NOTIMP",
        /// The server will not do it for this client.
        REFUSED = 5 => "REFUSED",
        /// Not authoritative, or not authorised.
        NOTAUTH = 9 => "NOTAUTH",
        /// Bad OPT version.
        BADVERS = 16 => "BADVERS",
        /// Bad server cookie (RFC 7873).
        BADCOOKIE = 23 => "BADCOOKIE",
    }
}

wire_code! {
    /// A kind of query (RFC 1035 section 4.1.1).
    Opcode(u8), "OPCODE", {
        /// A standard query.
        QUERY = 0 => "QUERY",
        /// Server status.
        STATUS = 2 => "STATUS",
        /// Zone change notification (RFC 1996).
        NOTIFY = 4 => "NOTIFY",
        /// Dynamic update (RFC 2136).
        UPDATE = 5 => "UPDATE",
    }
}

/// The second 16 bits of a DNS header (RFC 1035 section 4.1.1, RFC 4035 section 3.1.6).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// QR: this is a response.
    #[must_use]
    pub const fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }
    /// The kind of query.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        Opcode((self.0 >> 11) as u8 & 0xf)
    }
    /// AA: authoritative answer.
    #[must_use]
    pub const fn authoritative(self) -> bool {
        self.0 & 0x0400 != 0
    }
    /// TC: the message was cut; ask again over TCP.
    #[must_use]
    pub const fn truncated(self) -> bool {
        self.0 & 0x0200 != 0
    }
    /// RD: recursion desired.
    #[must_use]
    pub const fn recursion_desired(self) -> bool {
        self.0 & 0x0100 != 0
    }
    /// RA: recursion available.
    #[must_use]
    pub const fn recursion_available(self) -> bool {
        self.0 & 0x0080 != 0
    }
    /// AD: authentic data (RFC 4035).
    #[must_use]
    pub const fn authentic_data(self) -> bool {
        self.0 & 0x0020 != 0
    }
    /// The low four bits of the response code.
    #[must_use]
    pub const fn rcode(self) -> u8 {
        self.0 as u8 & 0xf
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#06x})", self.0)
    }
}

/// What a message's OPT record says (RFC 6891).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Edns {
    /// The UDP payload size the sender takes, in octets.
    pub udp_payload_size: u16,
    /// DO: DNSSEC records wanted (RFC 3225).
    pub dnssec_ok: bool,
    /// A COOKIE option is there (RFC 7873).
    pub cookie: bool,
    /// Octets of options.
    pub options_len: u16,
}

/// What the answer and authority sections hold, without the records themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerSummary {
    /// Addresses of A and AAAA records in the answer section, the first of them in order.
    pub addresses: SmallVec<[IpAddr; 4]>,
    /// Answer records whose type is the one asked for, as far as they could be read.
    pub matching: u16,
    /// The target of the last CNAME in the answer section.
    pub cname_target: Option<Box<Name>>,
    /// The authority section holds an SOA: a proper negative answer (RFC 2308 section 2).
    pub authority_soa: bool,
}

/// One DNS message as decoded: header and first question whole, the rest as a summary.
///
/// Whatever decodes is kept: a message cut by the capture or malformed behind its question still has its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsMessage {
    /// The id.
    pub id: u16,
    /// QR, opcode and the flag bits.
    pub flags: Flags,
    /// The response code, EDNS bits included; NOERROR in a query.
    pub rcode: Rcode,
    /// Name of the first question; the root where `has_question` is false.
    pub name: Name,
    /// Type of the first question.
    pub qtype: Rtype,
    /// Class of the first question.
    pub qclass: Class,
    /// Whether a first question could be read.
    pub has_question: bool,
    /// Counts that the header claims: question, answer, authority, additional. A claim, not a fact.
    pub counts: [u16; 4],
    /// The OPT record, where one was read.
    pub edns: Option<Edns>,
    /// The answer and authority sections; empty for a query.
    pub answer: AnswerSummary,
    /// Octets of the message on the wire (for UDP the datagram's payload, for TCP the length prefix's value).
    pub size: u32,
    /// The capture or a decoding error stopped the reading before the message's end.
    pub cut: bool,
}

impl DnsMessage {
    /// Whether this is a response.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags.is_response()
    }

    /// NOERROR, not truncated, and no record in the answer section (RFC 2308 section 2.2).
    #[must_use]
    pub const fn is_empty_noerror(&self) -> bool {
        self.is_response()
            && self.rcode.0 == Rcode::NOERROR.0
            && !self.flags.truncated()
            && self.counts[1] == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_survive_and_are_read_back() {
        assert_eq!(Rtype(65280).to_string(), "TYPE65280");
        assert_eq!("type65280".parse(), Ok(Rtype(65280)));
        assert_eq!("aaaa".parse(), Ok(Rtype::AAAA));
        assert_eq!(Rcode(3841).to_string(), "RCODE3841");
        assert!("TYPE70000".parse::<Rtype>().is_err());
    }

    #[test]
    fn flags_read_their_bits() {
        let flags = Flags(0x8583);
        assert!(flags.is_response() && flags.authoritative() && flags.recursion_desired());
        assert!(flags.recursion_available() && !flags.truncated());
        assert_eq!((flags.opcode(), flags.rcode()), (Opcode::QUERY, 3));
    }
}
