//! A lookup's messages as a picture: time downwards, the way from client to server from left to right.

use super::{
    markup::{Escaped, clipped},
    samples::Sample,
};
use crate::{
    model::Vantages,
    output::{
        ladder::{Lane, Rung, What},
        text::human,
    },
};
use std::{fmt::Write, time::Duration};

/// Lines of a picture; a search walk of many names goes on.
const RUNGS: usize = 40;
/// Lanes between client and server; what lies between the outer ones is left out.
const LANES: usize = 7;
const TIME: usize = 86;
const MESSAGE: usize = 104;
const NOTE: usize = 410;
const LINE: usize = 22;
const HEAD: usize = 42;

/// Writes the picture.
pub(super) fn draw(to: &mut String, sample: &Sample, vantages: &Vantages) {
    let ladder = &sample.ladder;
    let mut lanes = ladder.lanes(vantages);
    while lanes.len() > LANES {
        lanes.remove(lanes.len() / 2);
    }
    let gap = (520 / (lanes.len() + 1)).clamp(84, 150);
    let left = TIME + MESSAGE;
    let picture = Picture { lanes: &lanes, left, gap };
    let width = picture.right() + 24 + NOTE;
    let lines = ladder.rungs().count().min(RUNGS) + ladder.steps.len().min(RUNGS);
    let height = HEAD + (lines + 1) * LINE;
    let _ = write!(
        to,
        "<svg class=ladder viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=img aria-label=\"ladder of {}\">",
        Escaped(&sample.name)
    );
    picture.head(to, sample, height);
    let (mut y, mut step) = (HEAD, None);
    for (number, (of_step, rung)) in ladder.rungs().enumerate() {
        if number == RUNGS {
            let _ = write!(to, "<text x=0 y={} class=dim>and more messages</text>", y + 14);
            break;
        }
        if step != Some(of_step) {
            step = Some(of_step);
            if let Some(step) = ladder.steps.get(of_step) {
                let _ = write!(
                    to,
                    "<text x=0 y={} class=step>{}<tspan class=dim> {}</tspan></text>",
                    y + 14,
                    Escaped(clipped(&step.name, 90)),
                    Escaped(&step.outcome)
                );
            }
            y += LINE;
        }
        picture.rung(to, rung, y + 10);
        y += LINE;
    }
    to.push_str("</svg>");
}

/// `0.214 ms`, `5.005 s`.
fn offset(since: Duration) -> String {
    if since < Duration::from_secs(1) {
        format!("{:.3} ms", since.as_secs_f64() * 1e3)
    } else {
        format!("{:.3} s", since.as_secs_f64())
    }
}

struct Picture<'a> {
    lanes: &'a [Lane],
    left: usize,
    gap: usize,
}

impl Picture<'_> {
    fn lane(&self, index: usize) -> usize {
        self.left + (index + 1) * self.gap
    }

    fn right(&self) -> usize {
        self.lane(self.lanes.len())
    }

    /// The names of the lanes, and their lines.
    fn head(&self, to: &mut String, sample: &Sample, height: usize) {
        let server = sample.ladder.rungs().find_map(|(_, rung)| match rung.what {
            What::Query { server, .. } => Some(server.to_string()),
            _ => None,
        });
        let server = server.unwrap_or_else(|| "server".into());
        let names = std::iter::once((self.left, sample.client.as_str(), "end"))
            .chain(self.lanes.iter().enumerate().map(|(index, lane)| (self.lane(index), &*lane.name, "lane")))
            .chain(std::iter::once((self.right(), &*server, "end")));
        for (index, (x, name, class)) in names.enumerate() {
            // Two heights, so that neighbours have room.
            let y = if index % 2 == 0 { 12 } else { 26 };
            let _ = write!(
                to,
                "<line x1={x} x2={x} y1=32 y2={height} class={class} /><text x={x} y={y} text-anchor=middle \
                 class={class}>{}<title>{}</title></text>",
                Escaped(clipped(name, self.gap * 2 / 7)),
                Escaped(name)
            );
        }
    }

    fn rung(&self, to: &mut String, rung: &Rung, y: usize) {
        let text = y + 4;
        if let What::Gap(gap) = rung.what {
            let _ = write!(
                to,
                "<line x1={} x2={} y1={y} y2={y} class=gap /><text x={} y={text} class=gap>{} of silence</text>",
                self.left,
                self.right(),
                self.right() + 24,
                human(gap)
            );
            return;
        }
        let _ = write!(
            to,
            "<text x={} y={text} text-anchor=end class=time>{}</text>",
            TIME - 8,
            offset(rung.offset)
        );
        let (message, class) = match rung.what {
            What::Query { id, arrived, dropped, .. } => {
                let class = if dropped || !arrived { "lost" } else { "query" };
                (format!("{} {id:04x}", rung.qtype), class)
            }
            What::Answer { id, late, failed, dropped, .. } => {
                let class = if dropped || late || failed { "lost" } else { "answer" };
                (format!("{} {id:04x}", rung.qtype), class)
            }
            What::Icmp { .. } => ("ICMP".into(), "lost"),
            What::Gap(_) => (String::new(), "gap"),
        };
        let _ = write!(
            to,
            "<text x={TIME} y={text} class={class}>{}</text><text x={} y={text} class=note>{}<title>{}</title></text>",
            Escaped(message),
            self.right() + 24,
            Escaped(clipped(&rung.note, NOTE / 8 + 4)),
            Escaped(&rung.note)
        );
        self.way(to, rung, y, class);
    }

    /// The line along the hops; what arrived goes through to the end, what was lost ends in a cross.
    fn way(&self, to: &mut String, rung: &Rung, y: usize, class: &str) {
        let places: Vec<usize> = rung
            .hops
            .iter()
            .filter_map(|hop| self.lanes.iter().position(|lane| lane.vantages.contains(&hop.vantage)))
            .collect();
        let (from, end, lost) = match rung.what {
            What::Query { arrived, .. } => (self.left, self.right(), !arrived),
            What::Answer { dropped, .. } => (self.right(), self.left, dropped),
            What::Icmp { .. } | What::Gap(_) => (self.right(), self.left, false),
        };
        let forward = end > from;
        let furthest = if forward { places.iter().max() } else { places.iter().min() };
        let seen = furthest.map_or(from, |place| self.lane(*place));
        let beyond = self.gap * 2 / 5;
        let to_x = match (lost, forward) {
            (false, _) => end,
            (true, true) => seen + beyond,
            (true, false) => seen - beyond,
        };
        let _ = write!(to, "<line x1={from} x2={to_x} y1={y} y2={y} class={class} />");
        for place in places {
            let _ = write!(to, "<circle cx={} cy={y} r=3.5 class={class} />", self.lane(place));
        }
        if lost {
            let (a, b, top, bottom) = (to_x - 5, to_x + 5, y - 5, y + 5);
            let _ = write!(
                to,
                "<path d=\"M{a} {top}L{b} {bottom}M{a} {bottom}L{b} {top}\" class=\"{class} cross\" />"
            );
        } else {
            let back = if forward { to_x - 8 } else { to_x + 8 };
            let _ = write!(
                to,
                "<path d=\"M{back} {}L{to_x} {y}L{back} {}\" class=\"{class} head\" />",
                y - 4,
                y + 4
            );
        }
    }
}
