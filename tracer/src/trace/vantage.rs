//! A vantage as an interface description block has it.
//!
//! Rule: the interface's name is `if_name`. What else dnspath knows is one line in `if_description`, which
//! Wireshark shows: `dnspath ingress veth ifindex=7 netns=blue`; an interface of other programs has its name alone.

use super::text::printable;
use crate::model::{Direction, InterfaceKind, Vantage};

const PREFIX: &str = "dnspath ";

/// The description that `read` takes apart again.
#[must_use]
pub fn describe(vantage: &Vantage) -> String {
    let mut line = format!("{PREFIX}{} {} ifindex={}", vantage.direction, vantage.kind, vantage.ifindex);
    if let Some(netns) = &vantage.netns {
        line.push_str(" netns=");
        line.push_str(&printable(netns.as_bytes()));
    }
    line
}

/// The vantage behind an interface description block, the `index`th of its section.
pub(super) fn read(name: Option<&[u8]>, description: Option<&[u8]>, index: usize) -> Vantage {
    let interface = name.map(printable).filter(|name| !name.is_empty());
    let mut vantage =
        Vantage { interface: interface.unwrap_or_else(|| format!("if{index}")), ..Vantage::default() };
    let description = description.and_then(|line| std::str::from_utf8(line).ok());
    let Some(words) = description.and_then(|line| line.strip_prefix(PREFIX)) else { return vantage };
    let (words, netns) = match words.split_once(" netns=") {
        Some((words, netns)) => (words, Some(printable(netns.as_bytes()))),
        None => (words, None),
    };
    vantage.netns = netns;
    for word in words.split(' ') {
        if let Some(ifindex) = word.strip_prefix("ifindex=") {
            vantage.ifindex = ifindex.parse().unwrap_or(0);
        } else if let Some(direction) = direction(word) {
            vantage.direction = direction;
        } else if let Some(kind) = kind(word) {
            vantage.kind = kind;
        }
    }
    vantage
}

fn direction(word: &str) -> Option<Direction> {
    [Direction::Egress, Direction::Ingress].into_iter().find(|known| known.to_string() == word)
}

fn kind(word: &str) -> Option<InterfaceKind> {
    use InterfaceKind::{Bridge, Loopback, Tunnel, Uplink, Veth};
    [Bridge, Loopback, Tunnel, Uplink, Veth].into_iter().find(|known| known.to_string() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_back() {
        for (direction, netns) in [(Direction::Ingress, Some("blue box")), (Direction::Unknown, None)] {
            let vantage = Vantage {
                interface: "veth1".into(),
                ifindex: 7,
                direction,
                kind: InterfaceKind::Veth,
                netns: netns.map(Into::into),
                source: 0,
            };
            let line = describe(&vantage);
            assert_eq!(read(Some(b"veth1"), Some(line.as_bytes()), 0), vantage);
        }
    }

    #[test]
    fn interfaces_of_other_programs_have_their_name_alone() {
        let plain = read(Some(b"eth0"), Some(b"Intel ingress veth"), 4);
        assert_eq!(plain, Vantage { interface: "eth0".into(), ..Vantage::default() });
        assert_eq!(read(None, None, 4).interface, "if4");
        assert_eq!(read(Some(b""), None, 4).interface, "if4");
        assert_eq!(read(Some(b"\x1b[31m"), None, 0).interface, "\\u{1b}[31m");
        assert_eq!(read(Some(&[b'x'; 60_000]), None, 0).interface.len(), crate::trace::text::MAX_TEXT);
    }
}
