//! The addresses of a network namespace, as `/proc/PID/net` shows them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Addresses of one namespace that are looked at; a pod has two or three.
pub(super) const MOST: usize = 64;

/// Those of a `/proc/PID/net/fib_trie`: a leaf is followed by what it is for, `/32 host LOCAL` being an own address.
#[must_use]
pub(super) fn of_fib_trie(text: &str) -> BTreeSet<IpAddr> {
    let mut leaf = None;
    let mut addresses = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.trim_end() == "/32 host LOCAL"
            && let Some(address) = leaf
            && addresses.len() < MOST
        {
            addresses.extend(useful(address.into()));
        }
    }
    addresses
}

/// Those of a `/proc/PID/net/if_inet6`: 32 hexadecimal digits, index, prefix length, scope, flags, interface.
#[must_use]
pub(super) fn of_if_inet6(text: &str) -> BTreeSet<IpAddr> {
    let address = |line: &str| u128::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok();
    text.lines()
        .filter_map(address)
        .filter_map(|bits| useful(Ipv6Addr::from_bits(bits).into()))
        .take(MOST)
        .collect()
}

/// An address that tells a pod from others: not a loopback's or a link's own, which every namespace has.
#[must_use]
pub(super) fn useful(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    let everywhere = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let nowhere = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    (!everywhere && !nowhere).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIB_TRIE: &str = "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.244.1.0/24 2 0 2
        +-- 10.244.1.0/28 2 0 2
           |-- 10.244.1.0
              /24 link UNICAST
           |-- 10.244.1.4
              /32 host LOCAL
        |-- 10.244.1.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
Local:
     |-- 10.244.1.4
        /32 host LOCAL
";

    fn shown(addresses: &BTreeSet<IpAddr>) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn own_addresses_and_no_others() {
        assert_eq!(shown(&of_fib_trie(FIB_TRIE)), ["10.244.1.4"]);
        let if_inet6 = "00000000000000000000000000000001 01 80 10 80       lo
fd000244000100000000000000000004 02 40 00 80     eth0
fe80000000000000a00000fffe000001 02 40 20 80     eth0
";
        assert_eq!(shown(&of_if_inet6(if_inet6)), ["fd00:244:1::4"]);
    }

    #[test]
    fn broken_text_gives_nothing() {
        for text in ["", "|-- x\n/32 host LOCAL", "/32 host LOCAL", "zz 01", "|-- 10.0.0.1\n/32 host"] {
            assert!(of_fib_trie(text).is_empty() && of_if_inet6(text).is_empty(), "{text:?}");
        }
        let many: String =
            (0..1_000).map(|n| format!("|-- 10.0.{}.{}\n/32 host LOCAL\n", n / 256, n % 256)).collect();
        assert_eq!(of_fib_trie(&many).len(), MOST);
    }
}
