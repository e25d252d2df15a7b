//! DP401 wrong-mac: frames for a pod that were sent to a MAC address which is not the pod's.
//!
//! Fires for a receiver's IP address at the first one: a frame left a veth or a bridge for the address with another
//! destination MAC than the one this address sends by; or the kernel dropped a message for it because the frame was for
//! another host (OTHERHOST) and the message was lost by that. `count` is the frames. An error: nothing that is sent there
//! arrives.
//!
//! Looks alike and does not fire: a bridge that floods a frame to all ports (its MAC is right, and where it is dropped as
//! OTHERHOST the message was answered all the same); broadcast; an address that another pod has now, which sends by its own.

use super::{
    Confidence, Evidence, Finding, Rule, Severity,
    culprit::Culprit,
    groups::{Code, Groups},
    losses::Loss,
};
use crate::model::{Hop, MacAddress, Misdirected, Question};
use std::{collections::VecDeque, net::IpAddr};

const CODE: Code = Code { code: "DP401", name: "wrong-mac" };
/// Frames that are remembered until their questions are told; a wait in vain takes seconds.
const MOST_FRAMES: usize = 4_096;

#[derive(Debug, Default)]
struct Detail {
    /// Sent to, and the receiver's own.
    macs: Option<(MacAddress, MacAddress)>,
    /// Sent to, of a frame that was dropped on arrival.
    dropped_for: Option<MacAddress>,
    sent: u64,
    dropped: u64,
    answers: u64,
}

/// The rule's state.
#[derive(Debug, Default)]
pub(super) struct WrongMac {
    groups: Groups<IpAddr, Detail>,
    /// The latest frames, with whom each was for.
    recent: VecDeque<(Evidence, IpAddr)>,
}

impl WrongMac {
    pub(super) fn misdirected(&mut self, frame: &Misdirected) {
        let evidence = Evidence { frame: frame.frame, vantage: frame.vantage };
        let address = frame.flow.destination.ip();
        if self.recent.len() >= MOST_FRAMES {
            self.recent.pop_front();
        }
        self.recent.push_back((evidence, address));
        let Some(detail) = self.groups.add(address, 1, frame.time, [evidence]) else { return };
        detail.macs = Some((frame.destination_mac, frame.expected_mac));
        detail.sent += 1;
        detail.answers += u64::from(frame.dns.is_response());
    }

    /// Whom this rule blames for what became of `question`: a frame of it went astray.
    pub(super) fn blamed(&self, question: &Question) -> Option<Culprit> {
        if self.recent.is_empty() {
            return None;
        }
        let sent = question.transmissions.iter().flat_map(|sent| &sent.hops);
        let answered = question.answers.iter().flat_map(|answer| &answer.hops);
        let astray = |hop: &Hop| self.recent.iter().rev().find(|(frame, _)| *frame == Evidence::from(hop));
        sent.chain(answered).find_map(astray).map(|(_, address)| Culprit::WrongMac(*address))
    }
}

impl Rule for WrongMac {
    fn loss(&mut self, loss: &Loss<'_>) {
        let drop = loss.drop;
        if &*drop.reason != "OTHERHOST" || loss.question.is_none() {
            return;
        }
        let evidence = Evidence { frame: drop.frame, vantage: drop.vantage };
        let address = drop.flow.destination.ip();
        let Some(detail) = self.groups.charge(address, 1, loss.cost(), drop.time, [evidence]) else { return };
        detail.dropped += 1;
        detail.dropped_for = drop.destination_mac.or(detail.dropped_for);
    }

    fn findings(&self) -> Vec<Finding> {
        self.groups.findings(|address, group| {
            let Detail { macs, dropped_for, sent, dropped, answers } = group.detail;
            let mut finding = group.tally.finding(CODE, Severity::Error, Confidence::High);
            // The same frame may have been seen leaving and been dropped on arrival.
            finding.count = sent.max(dropped);
            finding.subject = vec![("address", address.to_string())];
            let frames = if finding.count == 1 { "1 frame".into() } else { format!("{} frames", finding.count) };
            finding.summary = match macs {
                Some((to, own)) => {
                    finding.subject.push(("sent_to", to.to_string()));
                    finding.subject.push(("own_mac", own.to_string()));
                    let answers = if answers > 0 { format!(", {answers} of them answers") } else { String::new() };
                    format!("{frames} for {address} went to {to}{answers}, but its own MAC address is {own}")
                }
                None => {
                    finding.subject.extend(dropped_for.map(|to| ("sent_to", to.to_string())));
                    let to = dropped_for.map_or_else(String::new, |to| format!(" ({to})"));
                    format!("dropped on arrival, as for another MAC address{to}: {frames} for {address}")
                }
            };
            if macs.is_some() && dropped > 0 {
                finding.summary.push_str(&format!("; {dropped} were dropped on arrival (OTHERHOST)"));
            }
            finding.blames = vec![Culprit::WrongMac(*address)];
            finding.advice = match macs {
                Some(_) => format!(
                    "A stale or fixed neighbour entry: `ip neigh show {address}` on the node (and in the sender's pod), then `ip neigh \
                     del`; where it comes back, two pods have one address, or a network plug-in writes it."
                ),
                // A service's address, for one, is nobody's on the link: frames for it go to the gateway.
                None => format!(
                    "A stale or fixed neighbour entry of the sender: `ip route get {address}` in its namespace tells the neighbour \
                     that this goes through (behind `via`; without one it is {address} itself), `ip neigh` the entry; then `ip neigh \
                     del`. Where it comes back, two of them have one address, or a network plug-in writes it."
                ),
            };
            Some(finding)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::{SERVER, answer_lost, ask, at, drop_of, losses, lost};
    use crate::model::{DnsMessage, Fate, Flags, Flow, PacketDrop, Rtype, VantageId};

    fn frame(number: u64) -> Misdirected {
        let asked = drop_of(Fate::Dropped, at(0)).asked();
        Misdirected {
            frame: number,
            time: at(number),
            vantage: VantageId(1),
            flow: Flow { source: asked.destination, destination: asked.source },
            destination_mac: MacAddress([2, 0, 0, 0, 0, 7]),
            expected_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            dns: DnsMessage { flags: Flags(0x8180), ..DnsMessage::default() },
        }
    }

    #[test]
    fn fires_for_frames_that_leave_and_for_those_dropped_on_arrival() {
        let mut rule = WrongMac::default();
        for number in [3, 9] {
            rule.misdirected(&frame(number));
        }
        let left = rule.findings();
        let arrived = answer_lost(ask("web", Rtype::A, 0).address("10.1.1.1"), "OTHERHOST", "ip_rcv");
        insta::assert_debug_snapshot!([left, losses::<WrongMac>(&[arrived], &[])]);
    }

    /// A service's address has no neighbour entry: the gateway's is wrong.
    #[test]
    fn a_frame_dropped_on_its_way_to_a_gateway_leads_to_the_senders_route() {
        let mut question = lost(ask("web", Rtype::A, 0), Fate::Dropped, "OTHERHOST", "ip_rcv");
        let sent = &mut question.transmissions[0];
        let mut drop = PacketDrop::clone(&sent.dropped.take().unwrap());
        (drop.flow, drop.destination_mac) = (drop.asked(), Some(MacAddress([2, 0, 0, 0, 0, 9])));
        sent.dropped = Some(drop.into());
        let found = losses::<WrongMac>(&[question], &[]);
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        let said = format!(
            "dropped on arrival, as for another MAC address (02:00:00:00:00:09): 1 frame for {SERVER}"
        );
        assert_eq!(finding.summary, said);
        assert!(finding.advice.contains(&format!("`ip route get {SERVER}`")), "{}", finding.advice);
        assert!(finding.subject.contains(&("sent_to", "02:00:00:00:00:09".into())), "{:?}", finding.subject);
    }

    #[test]
    fn does_not_fire_for_a_flooded_copy_or_a_drop_that_nobody_asked_about() {
        let answered = ask("web", Rtype::A, 0).address("10.1.1.1").build();
        let mut copy = drop_of(Fate::Dropped, at(0));
        (copy.reason, copy.question) = ("OTHERHOST".into(), Some(answered.id));
        let mut of_others = copy.clone();
        of_others.question = None;
        assert_eq!(losses::<WrongMac>(&[answered], &[copy, of_others]), []);
    }
}
