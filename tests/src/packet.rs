//! Frames made by hand, right or wrong in any field, and a way to send them from a pod as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::Pod;
use crate::namespace::Namespace;
use crate::process::run_with_input;

/// Ethernet type of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethernet type of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Ethernet type of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// Ethernet type of an 802.1ad tag.
pub const SERVICE_VLAN: u16 = 0x88a8;
/// IP protocol ICMP.
pub const ICMP: u8 = 1;
/// IP protocol TCP.
pub const TCP: u8 = 6;
/// IP protocol UDP.
pub const UDP: u8 = 17;
/// IP protocol ICMPv6.
pub const ICMPV6: u8 = 58;

/// The program that sends frames; it reads them in hexadecimal, one a line.
const INJECT: &str = include_str!("../clients/inject.py");

/// From where to where on a link.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The sender's MAC address.
    pub source: [u8; 6],
    /// The MAC address of who takes it.
    pub destination: [u8; 6],
}

impl Link {
    /// From a pod to its gateway.
    ///
    /// # Errors
    /// The addresses cannot be read.
    pub fn to_gateway(pod: &Pod, node: &Namespace) -> Result<Self> {
        let address = |namespace: &Namespace, interface: &str| -> Result<[u8; 6]> {
            let shown = namespace.run("ip", &["-br", "link", "show", "dev", interface])?;
            let word = shown.split_whitespace().nth(2).context("ip shows no address")?;
            let octets: Vec<u8> = word
                .split(':')
                .map(|octet| u8::from_str_radix(octet, 16))
                .collect::<Result<_, _>>()
                .with_context(|| format!("not a MAC address: {word}"))?;
            octets.try_into().map_err(|_| anyhow::anyhow!("not a MAC address: {word}"))
        };
        Ok(Self { source: address(&pod.namespace, "eth0")?, destination: address(node, "cni0")? })
    }

    /// An Ethernet frame.
    pub fn frame(self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&self.destination[..], &self.source, &ethertype.to_be_bytes(), payload].concat()
    }

    /// An IPv4 or IPv6 packet in a frame.
    pub fn ip(self, packet: &[u8]) -> Vec<u8> {
        let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        self.frame(if v6 { IPV6 } else { IPV4 }, packet)
    }
}

/// What an IPv4 header says beside addresses and protocol.
#[derive(Clone, Debug, Default)]
pub struct Ipv4 {
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset, as they stand in the header.
    pub fragment: u16,
    /// Options; a multiple of four octets.
    pub options: Vec<u8>,
    /// Another total length than the true one.
    pub total: Option<u16>,
    /// Another header length than the true one, in words.
    pub words: Option<u8>,
}

impl Ipv4 {
    /// A packet.
    pub fn packet(&self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = 20 + self.options.len() + payload.len();
        let words = self.words.unwrap_or(5 + (self.options.len() / 4) as u8);
        let mut packet = vec![0x40 | words & 0xf, 0];
        packet.extend(self.total.unwrap_or(length as u16).to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(&self.options);
        let sum = checksum(&packet).to_be_bytes();
        packet.splice(10..12, sum);
        packet.extend(payload);
        packet
    }
}

/// An IPv6 packet; `next` is what its payload begins with.
pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// A UDP datagram. Its checksum is right; `length` replaces the true length.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8], length: Option<u16>) -> Vec<u8> {
    let true_length = (8 + payload.len()) as u16;
    let mut datagram = from.port().to_be_bytes().to_vec();
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(length.unwrap_or(true_length).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = transport_checksum(from.ip(), to.ip(), UDP, &datagram);
    // 0 would mean that there is none.
    let sum = if sum == 0 { 0xffff } else { sum };
    datagram.splice(6..8, sum.to_be_bytes());
    datagram
}

/// A TCP segment; its header claims `words` words, of which there are five.
pub fn tcp(from: SocketAddr, to: SocketAddr, sequence: u32, flags: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = from.port().to_be_bytes().to_vec();
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 1, words << 4, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    let sum = transport_checksum(from.ip(), to.ip(), TCP, &segment);
    segment.splice(16..18, sum.to_be_bytes());
    segment
}

/// An ICMP error of either version that quotes `quote`.
pub fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, quote: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(quote);
    let sum =
        if from.is_ipv6() { transport_checksum(from, to, ICMPV6, &message) } else { checksum(&message) };
    message.splice(2..4, sum.to_be_bytes());
    message
}

fn transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let mut pseudo = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    pseudo.extend([0, protocol]);
    pseudo.extend((bytes.len() as u16).to_be_bytes());
    pseudo.extend(bytes);
    checksum(&pseudo)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends frames out of a pod's `eth0`, in order.
///
/// # Errors
/// python3 is missing, or a frame is refused.
pub fn inject(pod: &Pod, frames: &[Vec<u8>]) -> Result<()> {
    let mut lines = String::new();
    for frame in frames {
        lines.extend(frame.iter().map(|octet| format!("{octet:02x}")));
        lines.push('\n');
    }
    let mut command = pod.command("python3");
    command.args(["-c", INJECT, "eth0"]);
    let output = run_with_input(&mut command, &lines, Duration::from_secs(60))?;
    let sent: usize = String::from_utf8_lossy(&output.stdout).trim().parse().context("no count of frames")?;
    ensure!(sent == frames.len(), "{sent} of {} frames sent", frames.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_rfc_1071s_example() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let (from, to) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let packet = Ipv4 { options: vec![1; 8], ..Ipv4::default() }.packet(from, to, UDP, &[1, 2, 3]);
        assert_eq!((packet[0], packet.len()), (0x47, 31));
        assert_eq!(checksum(&packet[..28]), 0);
        let datagram = udp((from, 4000).into(), (to, 53).into(), &[1, 2, 3], None);
        assert_eq!(transport_checksum(from.into(), to.into(), UDP, &datagram), 0);
    }
}
