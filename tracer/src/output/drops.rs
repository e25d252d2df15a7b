//! Drops and clashes as lines, and conntrack's counters beside what was reported.

use super::{json::Shown, text::TimeOfDay};
use crate::{
    findings::what_happened,
    model::{Conntrack, Fate, Flow, NatTuple, PacketDrop, Vantages},
    stats::Totals,
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::io::{self, Write};

/// One line of `--unit drop`.
pub(super) struct DropLine<'a>(pub(super) &'a PacketDrop, pub(super) &'a Vantages);

impl Serialize for DropLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(drop, vantages) = self;
        let asked = drop.asked();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("unit", "drop")?;
        map.serialize_entry("time", &Shown(drop.time))?;
        map.serialize_entry("fate", drop.fate.as_str())?;
        map.serialize_entry("reason", &*drop.reason)?;
        map.serialize_entry("place", &*drop.place)?;
        map.serialize_entry("cpu", &drop.cpu)?;
        if let Some(vantage) = vantages.lookup(drop.vantage) {
            map.serialize_entry("vantage", &Shown(vantage))?;
        }
        map.serialize_entry("qr", if drop.is_response() { "R" } else { "Q" })?;
        map.serialize_entry("client", &Shown(asked.source))?;
        map.serialize_entry("server", &Shown(asked.destination))?;
        map.serialize_entry("transport", &Shown(drop.transport))?;
        map.serialize_entry("packet", &Tuple::from(drop.flow))?;
        if let Some(connection) = drop.connection {
            map.serialize_entry("original", &Tuple::from(connection.original))?;
            map.serialize_entry("reply", &Tuple::from(connection.reply))?;
        }
        if let Some(mac) = drop.destination_mac {
            map.serialize_entry("destination_mac", &Shown(mac))?;
        }
        if let Some(dns) = &drop.dns {
            map.serialize_entry("id", &dns.id)?;
            if dns.has_question {
                map.serialize_entry("name", &Shown(dns.name))?;
                map.serialize_entry("qtype", &Shown(dns.qtype))?;
            }
        }
        if let Some(rival) = drop.rival {
            map.serialize_entry("rival", &Rival { qtype: Shown(rival.qtype), id: rival.id })?;
        }
        if let Some(question) = drop.question {
            map.serialize_entry("question", &question.0)?;
        }
        map.serialize_entry("frame", &drop.frame)?;
        map.end()
    }
}

#[derive(Serialize)]
struct Tuple {
    src: Shown<std::net::SocketAddr>,
    dst: Shown<std::net::SocketAddr>,
}

impl From<Flow> for Tuple {
    fn from(flow: Flow) -> Self {
        Self { src: Shown(flow.source), dst: Shown(flow.destination) }
    }
}

#[derive(Serialize)]
struct Rival {
    qtype: Shown<crate::model::Rtype>,
    id: u16,
}

/// `12:00:03.412  x  10.244.1.5:40001 > 10.96.0.10:53  udp 4f9b AAAA web  conntrack insert failed (cpu 1)`
pub(super) fn line(line: &mut impl Write, drop: &PacketDrop) -> io::Result<()> {
    let asked = drop.asked();
    let arrow = if drop.is_response() { '<' } else { '>' };
    let sign = if drop.fate.is_loss() { 'x' } else { '=' };
    write!(
        line,
        "{}  {sign}  {:<21} {arrow} {:<18}  {} ",
        TimeOfDay(drop.time),
        asked.source.to_string(),
        asked.destination.to_string(),
        drop.transport
    )?;
    match &drop.dns {
        Some(dns) if dns.has_question => write!(line, "{:04x} {} {}", dns.id, dns.qtype, dns.name)?,
        Some(dns) => write!(line, "{:04x}", dns.id)?,
        None => write!(line, "(data not readable)")?,
    }
    write!(line, "  {}", what_happened(drop))?;
    if drop.fate.is_loss() && drop.fate != Fate::Dropped && !drop.place.is_empty() {
        write!(line, " at {}", drop.place)?;
    }
    match drop.connection {
        // The original tuple is at the line's head.
        Some(NatTuple { reply, .. }) if matches!(drop.fate, Fate::ClashResolved | Fate::InsertFailed) => {
            write!(line, "  reply {} > {}", reply.source, reply.destination)?;
        }
        _ if drop.flow != asked && drop.flow.reversed() != asked => {
            write!(line, "  as {} > {}", drop.flow.source, drop.flow.destination)?;
        }
        _ => (),
    }
    if drop.question.is_none() {
        write!(line, "  (no query seen)")?;
    }
    writeln!(line)
}

/// Conntrack's counters, and what was reported of the same.
pub(super) struct ConntrackView {
    counted: Conntrack,
    reported_insert_failed: u64,
    reported_clash_resolved: u64,
    note: Option<String>,
}

impl Serialize for ConntrackView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, count) in self.counted.counters() {
            map.serialize_entry(name, &count)?;
        }
        map.serialize_entry("entries", &self.counted.entries)?;
        map.serialize_entry("max", &self.counted.max)?;
        map.serialize_entry("reported_insert_failed", &self.reported_insert_failed)?;
        map.serialize_entry("reported_clash_resolved", &self.reported_clash_resolved)?;
        if let Some(note) = &self.note {
            map.serialize_entry("note", note)?;
        }
        map.end()
    }
}

impl ConntrackView {
    pub(super) fn new(counted: Conntrack, totals: &Totals) -> Self {
        Self {
            counted,
            reported_insert_failed: totals.insert_failed,
            reported_clash_resolved: totals.clashes_resolved,
            note: difference(counted, totals),
        }
    }

    /// `insert_failed 3, drop 3; 1,024 of 262,144 entries`.
    pub(super) fn text(&self) -> String {
        let counters = self.counted.counters().into_iter().filter(|(_, number)| *number > 0);
        let shown: Vec<String> =
            counters.map(|(name, number)| format!("{name} {}", super::text::count(number))).collect();
        let mut text = if shown.is_empty() { "nothing dropped".into() } else { shown.join(", ") };
        let Conntrack { entries, max, .. } = self.counted;
        if max > 0 {
            let (entries, max) = (super::text::count(entries), super::text::count(max));
            text.push_str(&format!("; {entries} of {max} entries"));
        }
        if let Some(note) = &self.note {
            text.push_str("; ");
            text.push_str(note);
        }
        text
    }
}

/// What to make of it where conntrack counted more or less failed inserts than were reported: it counts every packet,
/// DNS or not.
fn difference(counted: Conntrack, totals: &Totals) -> Option<String> {
    let (counted, reported) = (counted.insert_failed, totals.insert_failed);
    match counted.cmp(&reported) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(format!(
            "of {counted} failed inserts that conntrack counted, {reported} told as DNS packets: the others were other \
             traffic, not selected, or missed"
        )),
        std::cmp::Ordering::Less => Some(format!(
            "{reported} failed inserts were told and conntrack counted {counted}: its counters were read of other namespaces, \
             or before the last ones"
        )),
    }
}
