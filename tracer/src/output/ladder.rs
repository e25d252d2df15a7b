//! A lookup's messages in the order of their steps and times: what the ladder screen and the page draw, kept small.

use super::text;
use crate::findings::{Evidence, what_happened};
use crate::model::{
    Answer, Hop, Lookup, Name, PacketDrop, Question, QuestionOutcome, Rcode, RetransmissionKind, Timestamp,
    Transmission, TransmissionKind, Transport, Unreachable, VantageId, Vantages,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A wait shorter than this between two messages of a step is not worth a line.
const SHOWN_GAP: Duration = Duration::from_millis(200);

/// The messages of one lookup, or of one question.
#[derive(Debug)]
pub(crate) struct Ladder {
    pub(crate) start: Timestamp,
    /// The candidate that gave the address, escaped.
    pub(crate) answered_by: Option<Box<str>>,
    pub(crate) steps: Box<[Step]>,
}

/// One candidate name.
#[derive(Debug)]
pub(crate) struct Step {
    /// Escaped.
    pub(crate) name: Box<str>,
    /// Each type asked, and how it ended.
    pub(crate) outcome: Box<str>,
    /// By time.
    pub(crate) rungs: Box<[Rung]>,
}

/// One line of the ladder.
#[derive(Debug)]
pub(crate) struct Rung {
    /// Since the lookup's start.
    pub(crate) offset: Duration,
    /// What the line is about.
    pub(crate) what: What,
    /// The type asked, as text.
    pub(crate) qtype: Box<str>,
    /// The message's way, in the order it passed; empty for a gap.
    pub(crate) hops: Box<[Hop]>,
    /// What the kernel told of its end.
    pub(crate) drop: Option<Evidence>,
    /// What is to be said about it.
    pub(crate) note: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Query {
        id: u16,
        transport: Transport,
        server: SocketAddr,
        backend: Option<SocketAddr>,
        arrived: bool,
        /// The kernel told that it dropped it.
        dropped: bool,
    },
    Answer {
        id: u16,
        transport: Transport,
        late: bool,
        failed: bool,
        dropped: bool,
    },
    Icmp {
        from: IpAddr,
    },
    Gap(Duration),
}

impl Ladder {
    pub(crate) fn of_lookup(lookup: &Lookup, vantages: &Vantages) -> Self {
        Self {
            start: lookup.start,
            answered_by: lookup.answered_by.map(|n| n.to_string().into()),
            steps: lookup
                .steps
                .iter()
                .map(|s| Step::new(&s.name, &s.questions, lookup.start, vantages))
                .collect(),
        }
    }

    pub(crate) fn of_question(question: &Question, vantages: &Vantages) -> Self {
        let start = question.first_asked();
        let step = Step::new(&question.name, std::slice::from_ref(question), start, vantages);
        Self { start, answered_by: None, steps: Box::new([step]) }
    }

    /// Whether one of these frames is of its messages, or was a drop of one.
    pub(crate) fn shows(&self, evidence: &[Evidence]) -> bool {
        self.rungs().any(|(_, rung)| {
            let frames = rung.hops.iter().map(Evidence::from).chain(rung.drop);
            frames.into_iter().any(|frame| evidence.contains(&frame))
        })
    }

    /// Octets of memory, near enough for a budget.
    pub(crate) fn size(&self) -> usize {
        let rungs = self.steps.iter().flat_map(|s| &s.rungs);
        let rung = |r: &Rung| size_of::<Rung>() + size_of_val(&*r.hops) + r.note.len() + r.qtype.len();
        size_of::<Self>()
            + self.steps.iter().map(|s| size_of::<Step>() + s.name.len() + s.outcome.len()).sum::<usize>()
            + rungs.map(rung).sum::<usize>()
    }

    /// Every line with the step it is in.
    pub(crate) fn rungs(&self) -> impl Iterator<Item = (usize, &Rung)> {
        self.steps.iter().enumerate().flat_map(|(index, step)| step.rungs.iter().map(move |r| (index, r)))
    }

    /// The interfaces on the way from client to server: each query's way in turn, new ones put behind the one
    /// they were seen after. Both directions of an interface are one lane.
    pub(crate) fn lanes(&self, vantages: &Vantages) -> Vec<Lane> {
        let mut lanes: Vec<Lane> = Vec::new();
        for (_, rung) in self.rungs() {
            let forward = matches!(rung.what, What::Query { .. });
            let mut place = if forward { 0 } else { lanes.len() };
            for hop in &rung.hops {
                let name = lane_name(vantages, hop.vantage);
                match lanes.iter_mut().position(|l| l.name == name) {
                    Some(known) => {
                        place = if forward { known + 1 } else { known };
                        if let Some(lane) = lanes.get_mut(known)
                            && !lane.vantages.contains(&hop.vantage)
                        {
                            lane.vantages.push(hop.vantage);
                        }
                    }
                    None => {
                        lanes.insert(place, Lane { name, vantages: vec![hop.vantage] });
                        place += usize::from(forward);
                    }
                }
            }
        }
        lanes
    }
}

/// One interface on the way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    /// Escaped.
    pub(crate) name: String,
    /// The vantages it stands for.
    pub(crate) vantages: Vec<VantageId>,
}

fn lane_name(vantages: &Vantages, id: VantageId) -> String {
    let Some(vantage) = vantages.lookup(id) else { return "?".into() };
    let name = match &vantage.netns {
        Some(netns) => format!("{netns}/{}", vantage.interface),
        None => vantage.interface.clone(),
    };
    text::escape(&name).into_owned()
}

impl Step {
    fn new(name: &Name, questions: &[Question], start: Timestamp, vantages: &Vantages) -> Self {
        let mut rungs: Vec<Rung> = questions.iter().flat_map(|q| of_question(q, start, vantages)).collect();
        rungs.sort_by_key(|r| r.offset);
        let outcome = questions.iter().map(outcome).collect::<Vec<_>>().join(" · ");
        Self { name: name.to_string().into(), outcome: outcome.into(), rungs: with_gaps(rungs).into() }
    }
}

fn with_gaps(rungs: Vec<Rung>) -> Vec<Rung> {
    let mut all: Vec<Rung> = Vec::with_capacity(rungs.len());
    for rung in rungs {
        let gap = all.last().map_or(Duration::ZERO, |last| rung.offset.saturating_sub(last.offset));
        if gap >= SHOWN_GAP {
            let offset = rung.offset;
            all.push(Rung {
                offset,
                what: What::Gap(gap),
                qtype: "".into(),
                hops: Box::default(),
                drop: None,
                note: "".into(),
            });
        }
        all.push(rung);
    }
    all
}

fn of_question<'a>(
    question: &'a Question,
    start: Timestamp,
    vantages: &'a Vantages,
) -> impl Iterator<Item = Rung> + 'a {
    let qtype = move || question.qtype.to_string().into_boxed_str();
    let queries = question.transmissions.iter().flat_map(move |t| {
        let query = Rung {
            offset: t.time.since(start),
            what: What::Query {
                id: t.id,
                transport: t.transport,
                server: t.server,
                backend: t.backend.filter(|b| *b != t.server),
                arrived: t.answered_by.is_some() || t.unreachable.is_some(),
                dropped: t.dropped.is_some() && t.answered_by.is_none(),
            },
            qtype: qtype(),
            hops: t.hops.to_vec().into(),
            drop: t.dropped.as_deref().map(evidence),
            note: note_of_query(question, t, vantages).into(),
        };
        std::iter::once(query).chain(t.unreachable.map(|u| icmp(u, start, qtype())))
    });
    let answers = question.answers.iter().map(move |a| Rung {
        offset: a.time.since(start),
        what: What::Answer {
            id: a.id,
            transport: a.transport,
            late: a.late,
            failed: a.truncated || !matches!(a.rcode, Rcode::NOERROR | Rcode::NXDOMAIN),
            dropped: a.dropped.is_some(),
        },
        qtype: qtype(),
        hops: a.hops.to_vec().into(),
        drop: a.dropped.as_deref().map(evidence),
        note: note_of_answer(a).into(),
    });
    queries.chain(answers)
}

fn evidence(drop: &PacketDrop) -> Evidence {
    Evidence { frame: drop.frame, vantage: drop.vantage }
}

fn icmp(unreachable: Unreachable, start: Timestamp, qtype: Box<str>) -> Rung {
    let error = unreachable.error;
    let what = if error.is_port_unreachable() {
        "port unreachable".to_owned()
    } else if error.is_unreachable() {
        format!("unreachable, code {}", error.code)
    } else {
        format!("type {} code {}", error.kind, error.code)
    };
    Rung {
        offset: unreachable.time.since(start),
        what: What::Icmp { from: error.from },
        qtype,
        hops: Box::default(),
        drop: None,
        note: format!("ICMP {what}").into(),
    }
}

fn note_of_query(question: &Question, message: &Transmission, vantages: &Vantages) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(drop) = &message.dropped {
        let what = what_happened(drop);
        parts.push(if drop.is_response() {
            format!("answer dropped: {what}")
        } else if drop.time < message.time && drop.dns.is_none() && message.answered_by.is_some() {
            format!("SYN dropped before: {what}")
        } else {
            what
        });
    } else if message.answered_by.is_none()
        && message.unreachable.is_none()
        && question.outcome != QuestionOutcome::Incomplete
    {
        let last = message.hops.last().filter(|_| vantages.len() > 1);
        parts.push(match last {
            Some(hop) => format!("unanswered, last seen {}", place(vantages, hop.vantage)),
            None => "unanswered".into(),
        });
    }
    match message.kind {
        TransmissionKind::First => {}
        TransmissionKind::ParallelCopy => parts.push("copy to another server".into()),
        TransmissionKind::TcpFallback => parts.push("over TCP after truncation".into()),
        TransmissionKind::Retransmission(r) => {
            parts.push(again(r.gap, r.kind, r.same_port, r.server_changed));
        }
    }
    parts.reverse();
    parts.join("; ")
}

fn note_of_answer(answer: &Answer) -> String {
    let mut note = String::new();
    if answer.late {
        note.push_str("late: ");
    }
    note.push_str(&answer.rcode.to_string());
    if answer.truncated {
        note.push_str(" truncated");
    } else if answer.empty_noerror {
        note.push_str(" empty");
    }
    if let Some(drop) = &answer.dropped {
        note.push_str(", ");
        note.push_str(&what_happened(drop));
        return note;
    }
    for (index, address) in answer.addresses.iter().enumerate() {
        note.push_str(if index == 0 { " " } else { ", " });
        note.push_str(&address.to_string());
    }
    if answer.addresses.is_empty() && answer.answer_count > 0 {
        note.push(' ');
        note.push_str(&text::counted(u64::from(answer.answer_count), "record"));
    }
    note
}

fn outcome(question: &Question) -> String {
    let how = match question.outcome {
        QuestionOutcome::Unanswered => "unanswered".to_owned(),
        QuestionOutcome::Unreachable => "unreachable".to_owned(),
        QuestionOutcome::Incomplete => "incomplete".to_owned(),
        QuestionOutcome::Answered(Rcode::NOERROR) => match question.answer() {
            Some(answer) if answer.truncated => "truncated".to_owned(),
            Some(answer) if answer.empty_noerror => "empty NOERROR".to_owned(),
            _ => "ok".to_owned(),
        },
        QuestionOutcome::Answered(rcode) => rcode.to_string(),
    };
    format!("{} {how}", question.qtype)
}

/// `veth1 ingress`, escaped.
pub(crate) fn place(vantages: &Vantages, id: VantageId) -> String {
    vantages.lookup(id).map_or_else(|| "?".to_owned(), |v| text::escape(&v.to_string()).into_owned())
}

/// The words of a retransmission: `again after 5.0 s, same port`.
pub(crate) fn again(
    gap: Duration,
    kind: RetransmissionKind,
    same_port: bool,
    server_changed: bool,
) -> String {
    let why = match kind {
        RetransmissionKind::AnsweredAgain => "though answered, ",
        RetransmissionKind::Icmp => "after ICMP, ",
        RetransmissionKind::Refused => "after REFUSED, ",
        RetransmissionKind::Servfail => "after SERVFAIL, ",
        RetransmissionKind::Timeout => "",
    };
    let whom = if server_changed {
        "other server"
    } else if same_port {
        "same port"
    } else {
        "new port"
    };
    format!("again after {}, {why}{whom}", text::wait(gap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Rtype, tui::tests::build::Node};

    fn lanes(node: &Node, questions: &[Question]) -> Vec<String> {
        let start = questions[0].first_asked();
        let step = Step::new(&questions[0].name, questions, start, &node.vantages);
        let ladder = Ladder { start, answered_by: None, steps: Box::new([step]) };
        ladder.lanes(&node.vantages).into_iter().map(|l| l.name).collect()
    }

    #[test]
    fn lanes_stand_in_the_order_of_the_way_whichever_message_shows_them() {
        let mut node = Node::new();
        let path = ["veth7c9f", "cni0", "vethdns1"];
        let whole = node.answered("a.example", Rtype::A, 1.0, 0.001, Rcode::NOERROR, &["192.0.2.1"]);

        let mut cut_first = node.question("a.example", Rtype::AAAA);
        node.send(&mut cut_first, 0.5, 1);
        assert_eq!(lanes(&node, &[cut_first.clone(), whole.clone()]), path);

        let mut ends_only = cut_first;
        node.send(&mut ends_only, 0.6, 3);
        ends_only.transmissions[1].hops.remove(1);
        assert_eq!(lanes(&node, &[ends_only, whole.clone()]), path);

        let mut by_its_answer = whole;
        by_its_answer.transmissions[0].hops.clear();
        assert_eq!(lanes(&node, &[by_its_answer]), path);
    }

    #[test]
    fn silence_of_a_fifth_of_a_second_is_a_line() {
        let mut node = Node::new();
        for (again, gaps) in [(1.19, 0), (1.21, 1)] {
            let mut question = node.question("a.example", Rtype::A);
            node.send(&mut question, 1.0, 3);
            node.send(&mut question, again, 3);
            let ladder = Ladder::of_question(&question, &node.vantages);
            let found = ladder.rungs().filter(|(_, r)| matches!(r.what, What::Gap(_))).count();
            assert_eq!(found, gaps, "asked again at {again}");
        }
    }
}
