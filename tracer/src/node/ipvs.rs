//! Services that IPVS balances, as `/proc/net/ip_vs` prints them (`ip_vs_info_seq_show`).
//!
//! Addresses and ports are hexadecimal: `UDP  0A60000A:0035 rr`, `TCP  [fd00:0000:…:000a]:0035 rr`, and below each the
//! real servers, `  -> 0AF40003:0035      Masq    1      0          12`. Names are nowhere in it.

use super::{
    roots::read_made,
    services::{Found, Table},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

/// A service has a line of 40 octets or so, a backend one of 70.
const MOST_OCTETS: u64 = 32 << 20;

/// The table of one namespace.
#[derive(Debug, Default)]
pub(super) struct Ipvs {
    pub(super) services: Table,
    /// Lines that say no service and no backend, though they are in such a line's place.
    pub(super) broken: u64,
    /// Services by a firewall mark, which have no address.
    marked: u64,
}

impl Ipvs {
    /// That of the calling thread's network namespace; empty where IPVS is not there.
    pub(super) fn list() -> Self {
        let table = read_made(Path::new("/proc/thread-self/net/ip_vs"), MOST_OCTETS);
        table.map(|table| Self::parse(&String::from_utf8_lossy(&table))).unwrap_or_default()
    }

    /// Whether it balances anything.
    pub(super) fn is_in_use(&self) -> bool {
        self.marked > 0 || !self.services.is_empty()
    }

    pub(super) fn parse(table: &str) -> Self {
        let mut ipvs = Self::default();
        // What the backends that follow belong to.
        let mut service = None;
        // Three lines of head.
        for line in table.lines().skip(3) {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next()) {
                (Some("->"), Some(at)) => match (socket(at), service) {
                    (Some(backend), Some(service)) => ipvs.services.add_backend(service, backend),
                    // Of a service that has no address, or found no room.
                    (Some(_), None) => {}
                    (None, _) => ipvs.broken += 1,
                },
                (Some(protocol @ ("TCP" | "UDP" | "SCTP")), Some(at)) => {
                    service = socket(at);
                    match service {
                        Some(address) => {
                            ipvs.services.add(address, Found::unnamed(protocol == "UDP"));
                        }
                        None => ipvs.broken += 1,
                    }
                }
                (Some("FWM"), Some(_)) => {
                    service = None;
                    ipvs.marked += 1;
                }
                (None, _) => {}
                _ => {
                    service = None;
                    ipvs.broken += 1;
                }
            }
        }
        ipvs
    }
}

/// `0A60000A:0035` or `[fd00:…:000a]:0035`.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(ip6) => IpAddr::V6(ip6.strip_suffix(']')?.parse().ok()?),
        None if address.len() == 8 => IpAddr::V4(Ipv4Addr::from_bits(hexadecimal(address)?)),
        None => return None,
    };
    let port = if port.len() == 4 { hexadecimal(port)? } else { return None };
    Some(SocketAddr::new(address, u16::try_from(port).ok()?))
}

/// Digits alone: a sign is no digit.
fn hexadecimal(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> \
                        RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    /// As a node of a dual-stack cluster has it.
    const NODE: &str = "\
TCP  0A600001:01BB rr 
  -> C0A8010A:192B      Masq    1      3          0         
TCP  0A60000A:0035 rr 
  -> 0AF40003:0035      Masq    1      0          0         
  -> 0AF40002:0035      Masq    1      0          2         
UDP  0A60000A:0035 rr 
  -> 0AF40003:0035      Masq    1      0          12        
  -> 0AF40002:0035      Masq    1      0          11        
UDP  [fd00:0096:0000:0000:0000:0000:0000:000a]:0035 rr persistent 10800
  -> [fd00:0244:0000:0000:0000:0000:0000:0002]:0035      Masq    0      0          0         
UDP  0A600063:0035 rr 
FWM  00000001 wlc 
  -> 0AF40009:0050      Route   1      0          0         
";

    #[test]
    fn a_nodes_table() {
        let ipvs = Ipvs::parse(&format!("{HEAD}{NODE}"));
        assert_eq!((ipvs.broken, ipvs.marked), (0, 1));
        assert_eq!(
            ipvs.services.shown(),
            [
                "10.96.0.1:443 : 192.168.1.10:6443",
                "10.96.0.10:53 udp : 10.244.0.2:53 10.244.0.3:53",
                "10.96.0.99:53 udp : ",
                "[fd00:96::a]:53 udp : [fd00:244::2]:53",
            ]
        );
    }

    #[test]
    fn it_is_in_use_where_there_is_a_service() {
        assert!(!Ipvs::parse(HEAD).is_in_use() && !Ipvs::parse("").is_in_use());
        assert!(Ipvs::parse(&format!("{HEAD}{NODE}")).is_in_use());
        assert!(Ipvs::parse(&format!("{HEAD}FWM  00000001 rr\n")).is_in_use());
    }

    #[test]
    fn what_is_broken_is_counted() {
        let broken = "UDP  +A60000A:0035 rr\n  -> 0AF40003:0035 Masq\nUDP\nXYZ  0A60000A:0035\nUDP  0A60000A:00350\n  -> \
                      nonsense\nTCP  [fd00::zz]:0035\nUDP  0A60000A rr\nSCTP 0A60000B:0035 rr\n  -> \n";
        let ipvs = Ipvs::parse(&format!("{HEAD}{broken}"));
        assert_eq!((ipvs.broken, ipvs.services.shown()), (8, vec!["10.96.0.11:53 : ".to_owned()]));
    }

    proptest! {
        #[test]
        fn any_table_is_read(body in "(UDP  |TCP  |  -> |FWM |[0-9A-F:\\[\\]]{0,9}|\\PC| |\n){0,60}") {
            let _ = Ipvs::parse(&format!("{HEAD}{body}"));
        }
    }
}
