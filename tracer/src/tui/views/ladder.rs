//! The ladder of one lookup: its messages by step and time, each drawn along its way from client to server.

use crate::{
    model::{Transport, Vantages},
    output::ladder::{Ladder, Lane, Rung, Step, What},
    tui::{
        keys::Command,
        row::Row,
        text,
        theme::{Theme, Tone},
    },
};
use ratatui::{Frame, buffer::Buffer, layout::Rect, widgets::Clear};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

/// Columns of the time.
const TIME: u16 = 10;
/// Columns of the type, and of type and id where there is room.
const MESSAGE: (u16, u16) = (5, 9);
/// From this width on there is room.
const WIDE: u16 = 100;
/// The least room for the words behind the lanes.
const NOTE: u16 = 22;
/// Columns from one lane to the next.
const LANE: std::ops::RangeInclusive<u16> = 7..=14;
/// The least lines about the message under the cursor, the rule above them included.
const DETAIL: u16 = 6;

/// The screen over the list.
#[derive(Debug)]
pub(in crate::tui) struct LadderScreen {
    row: Arc<Row>,
    ladder: Arc<Ladder>,
    /// The line under the cursor: never a heading.
    cursor: usize,
    top: usize,
    page: usize,
}

/// A line: a step's heading, or one of its rungs.
#[derive(Clone, Copy)]
enum Line<'a> {
    Head(usize, &'a Step),
    Rung(&'a Rung),
}

/// Where the lanes stand.
struct Plan {
    /// Column of each point: client, lanes, server.
    points: Vec<u16>,
    labels: Vec<String>,
    /// The lanes that are shown, in order.
    lanes: Vec<Lane>,
    hidden: usize,
    /// Columns of the message.
    message: u16,
    /// Column of the words behind the lanes.
    note: u16,
}

impl LadderScreen {
    pub(in crate::tui) fn new(row: Arc<Row>, ladder: Arc<Ladder>) -> Self {
        Self { row, ladder, cursor: 1, top: 0, page: 1 }
    }

    /// What happened, in words.
    pub(in crate::tui) fn story(&self) -> &str {
        &self.row.story
    }

    fn lines(&self) -> Vec<Line<'_>> {
        let steps = self.ladder.steps.iter().enumerate();
        steps
            .flat_map(|(index, step)| {
                std::iter::once(Line::Head(index, step)).chain(step.rungs.iter().map(Line::Rung))
            })
            .collect()
    }

    pub(in crate::tui) fn update(&mut self, command: Command) {
        let lines = self.lines();
        let last = lines.len().saturating_sub(1);
        let (to, up) = match command {
            Command::Up => (self.cursor.saturating_sub(1), true),
            Command::Down => (self.cursor + 1, false),
            Command::PageUp => (self.cursor.saturating_sub(self.page), true),
            Command::PageDown => (self.cursor + self.page, false),
            Command::Top => (0, false),
            Command::Bottom => (last, true),
            _ => return,
        };
        let is_rung = |index: &usize| matches!(lines.get(*index), Some(Line::Rung(_)));
        let to = to.min(last);
        let found = if up { (0..=to).rev().find(is_rung) } else { (to..=last).find(is_rung) };
        let to_top = up && found.is_none();
        self.cursor = found.unwrap_or(self.cursor);
        if to_top {
            self.top = 0;
        }
    }

    pub(in crate::tui) fn draw(
        &mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        vantages: &Vantages,
        theme: Theme,
    ) {
        frame.render_widget(Clear, area);
        let buffer = frame.buffer_mut();
        let area = area.intersection(buffer.area);
        if area.is_empty() {
            return;
        }
        let plan = self.plan(area, vantages);
        let mut y = self.draw_title(buffer, area, theme);
        if let Some(plan) = &plan {
            for (label, (&x, end)) in plan.labels.iter().zip(plan.points.iter().zip(plan.ends(area))) {
                text::put(buffer, x, y, label, end.saturating_sub(x), theme.style(Tone::Dim));
            }
            if plan.hidden > 0 {
                let hidden = format!("{} not shown", text::counted(plan.hidden as u64, "hop"));
                let room = plan.points.first().map_or(0, |x| x.saturating_sub(area.x + 2));
                text::put(buffer, area.x.saturating_add(1), y, &hidden, room, theme.style(Tone::Warn));
            }
            y = y.saturating_add(1);
        }
        let detail = if area.height >= 12 { self.detail_height(area.height / 3) } else { 0 };
        let bottom = area.bottom().saturating_sub(detail);
        self.page = usize::from(bottom.saturating_sub(y)).max(1);
        let lines = self.lines();
        let top = self.top.min(lines.len().saturating_sub(self.page));
        // The heading above the first rung comes with it.
        let first_seen = if self.cursor == 1 { 0 } else { self.cursor };
        let top = top.min(first_seen).max((self.cursor + 1).saturating_sub(self.page));
        for ((index, line), y) in lines.iter().enumerate().skip(top).take(self.page).zip(y..bottom) {
            match line {
                Line::Head(number, step) => self.draw_head(buffer, area, y, *number, step, theme),
                Line::Rung(rung) => {
                    draw_rung(buffer, area, y, rung, plan.as_ref(), theme);
                    if index == self.cursor {
                        text::put(buffer, area.x, y, "▸", 1, theme.style(Tone::Head));
                        buffer.set_style(Rect::new(area.x, y, area.width.min(TIME + 2), 1), theme.selected());
                    }
                }
            }
        }
        if detail > 0
            && let Some(Line::Rung(rung)) = lines.get(self.cursor)
        {
            draw_detail(buffer, Rect { y: bottom, height: detail, ..area }, rung, vantages, theme);
        }
        self.top = top;
    }

    /// Room for the longest way, so that the pane stands still while the cursor moves.
    fn detail_height(&self, most: u16) -> u16 {
        let hops = self.ladder.rungs().map(|(_, r)| r.hops.len()).max().unwrap_or(0);
        // The rule, and two lines of words.
        u16::try_from(hops + 3).unwrap_or(u16::MAX).min(most).max(DETAIL)
    }

    fn draw_title(&self, buffer: &mut Buffer, area: Rect, theme: Theme) -> u16 {
        let row = &self.row;
        let mut title = row.name.to_string();
        if let Some(answered_by) = self.ladder.answered_by.as_deref().filter(|by| **by != *row.name) {
            title = format!("{title} → {answered_by}");
        }
        let room = area.width.saturating_sub(1);
        text::put(buffer, area.x.saturating_add(1), area.y, &title, room, theme.style(Tone::Head));
        let mut facts = vec![row.result.to_string()];
        facts.extend(row.took.map(text::span));
        facts.push(row.types.to_string());
        if !row.family.is_empty() && row.family != "unknown" {
            facts.push(row.family.to_owned());
        }
        facts.push(row.who.to_string());
        let start = self.ladder.start;
        facts.push(format!("{} {} UTC", text::date(start), text::clock(start)));
        let facts = facts.join(" · ");
        let y = area.y.saturating_add(1);
        text::put(buffer, area.x.saturating_add(1), y, &facts, room, theme.style(Tone::Plain));
        y.saturating_add(1)
    }

    fn draw_head(&self, buffer: &mut Buffer, area: Rect, y: u16, number: usize, step: &Step, theme: Theme) {
        let right = text::width(&step.outcome).min(area.width / 2);
        let room = area.width.saturating_sub(right).saturating_sub(3);
        let name = if self.ladder.steps.len() > 1 {
            format!("{}. {}", number + 1, step.name)
        } else {
            step.name.to_string()
        };
        text::put(buffer, area.x.saturating_add(1), y, &name, room, theme.style(Tone::Head));
        let x = area.right().saturating_sub(right).saturating_sub(1);
        text::put(buffer, x, y, &step.outcome, right, theme.style(Tone::Plain));
    }

    /// Where lanes fit; `None` on a screen too narrow for any.
    fn plan(&self, area: Rect, vantages: &Vantages) -> Option<Plan> {
        let message = if area.width < WIDE { MESSAGE.0 } else { MESSAGE.1 };
        let left = area.x + 1 + TIME + 2 + message + 1;
        let room = area.right().checked_sub(left.checked_add(NOTE + 2)?)?;
        let mut lanes = self.ladder.lanes(vantages);
        let most = usize::from(room / LANE.start());
        if most < 1 {
            return None;
        }
        // Client and server are points too: n + 1 gaps for n lanes.
        let mut hidden = 0;
        while lanes.len() + 1 > most.max(2) {
            lanes.remove(lanes.len() / 2);
            hidden += 1;
        }
        let gaps = u16::try_from(lanes.len() + 1).ok()?;
        let gap = (room / gaps).clamp(*LANE.start(), *LANE.end());
        let points: Vec<u16> = (0..=gaps).map(|i| left + i * gap).collect();
        let who = &*self.row.who;
        // The pod's name says more than its namespace.
        let pod = who.rsplit('/').next().filter(|_| text::width(who) >= gap).unwrap_or(who);
        let mut labels = vec![pod.to_owned()];
        labels.extend(lanes.iter().map(|l| l.name.clone()));
        labels.push(self.server_label());
        let note = points.last()? + 2;
        Some(Plan { points, labels, lanes, hidden, message, note })
    }

    fn server_label(&self) -> String {
        let servers: BTreeSet<SocketAddr> = self
            .ladder
            .rungs()
            .filter_map(|(_, r)| match r.what {
                What::Query { server, .. } => Some(server),
                _ => None,
            })
            .collect();
        match servers.first() {
            Some(server) if servers.len() == 1 => server.ip().to_string(),
            _ => text::counted(servers.len() as u64, "server"),
        }
    }
}

impl Plan {
    /// Where each label must end.
    fn ends(&self, area: Rect) -> impl Iterator<Item = u16> {
        self.points.iter().skip(1).map(|x| x.saturating_sub(1)).chain([area.right()])
    }

    /// The points at which a message was seen, in the order it passed.
    fn seen(&self, rung: &Rung) -> Vec<usize> {
        let lane_of =
            |hop: &crate::model::Hop| self.lanes.iter().position(|l| l.vantages.contains(&hop.vantage));
        rung.hops.iter().filter_map(lane_of).map(|lane| lane + 1).collect()
    }
}

fn tone_of(rung: &Rung) -> Tone {
    match rung.what {
        What::Query { arrived: false, .. } | What::Answer { dropped: true, .. } | What::Icmp { .. } => {
            Tone::Bad
        }
        What::Answer { late: true, .. } | What::Answer { failed: true, .. } => Tone::Warn,
        What::Gap(wait) if wait >= Duration::from_secs(1) => Tone::Warn,
        What::Gap(_) => Tone::Dim,
        What::Query { .. } | What::Answer { .. } => Tone::Plain,
    }
}

/// The type and, where it fits, the id.
fn message_of(rung: &Rung, width: u16) -> String {
    match rung.what {
        What::Query { id, .. } | What::Answer { id, .. } if width >= MESSAGE.1 => {
            format!("{:<4} {id:04x}", rung.qtype)
        }
        What::Gap(_) => String::new(),
        _ => rung.qtype.to_string(),
    }
}

fn draw_rung(buffer: &mut Buffer, area: Rect, y: u16, rung: &Rung, plan: Option<&Plan>, theme: Theme) {
    let tone = theme.style(tone_of(rung));
    let x = area.x.saturating_add(1);
    let is_gap = matches!(rung.what, What::Gap(_));
    let note = match rung.what {
        What::Gap(gap) => format!("{} of silence", text::wait(gap)),
        _ => rung.note.to_string(),
    };
    if !is_gap {
        text::put_right(buffer, x, y, &text::offset(rung.offset), TIME, theme.style(Tone::Dim));
    }
    let Some(plan) = plan else {
        let sign = match rung.what {
            What::Query { .. } => "→",
            What::Answer { .. } | What::Icmp { .. } => "←",
            What::Gap(_) => "⋮",
        };
        let cross = if is_dropped(rung) { "✗ " } else { "" };
        let line = format!("{sign} {:<4} {cross}{note}", message_of(rung, MESSAGE.0));
        let room = area.width.saturating_sub(TIME + 2);
        text::put(buffer, x.saturating_add(TIME + 1), y, &line, room, tone);
        return;
    };
    text::put(buffer, x.saturating_add(TIME + 2), y, &message_of(rung, plan.message), plan.message, tone);
    for &point in &plan.points {
        text::put(buffer, point, y, if is_gap { "⋮" } else { "│" }, 1, theme.style(Tone::Dim));
    }
    draw_way(buffer, y, rung, plan, theme);
    text::put(buffer, plan.note, y, &note, area.right().saturating_sub(plan.note), tone);
}

const fn is_dropped(rung: &Rung) -> bool {
    matches!(rung.what, What::Query { dropped: true, .. } | What::Answer { dropped: true, .. })
}

/// A solid line as far as the message was seen or must have come, dots and a question mark behind; a cross where the
/// kernel told that it dropped it.
fn draw_way(buffer: &mut Buffer, y: u16, rung: &Rung, plan: &Plan, theme: Theme) {
    let tone = theme.style(tone_of(rung));
    let last = plan.points.len() - 1;
    let at = |point: usize| plan.points.get(point).copied().unwrap_or_default();
    let seen = plan.seen(rung);
    let mut line = |from: u16, to: u16, sign: &str| {
        for x in from.min(to) + 1..from.max(to) {
            text::put(buffer, x, y, sign, 1, tone);
        }
    };
    let dropped = is_dropped(rung);
    let unsure = if dropped { "✗" } else { "?" };
    let (end, head) = match rung.what {
        What::Gap(_) => return,
        What::Icmp { .. } => {
            line(at(0), at(last), "╌");
            (at(0) + 1, "◀")
        }
        What::Query { arrived: true, .. } => {
            line(at(0), at(last), "─");
            (at(last) - 1, "▶")
        }
        What::Query { arrived: false, .. } => {
            let reached = at(seen.iter().copied().max().unwrap_or(0));
            line(at(0), reached, "─");
            line(reached, reached + 4, if dropped { "─" } else { "╌" });
            (reached + 4, unsure)
        }
        What::Answer { late, .. } => {
            let reached = seen.iter().copied().min().unwrap_or(1);
            let sign = if late { "╌" } else { "─" };
            if !dropped && (reached <= 1 || plan.hidden > 0) {
                line(at(0), at(last), sign);
                (at(0) + 1, "◀")
            } else {
                line(at(reached), at(last), sign);
                line(at(reached) - 4, at(reached), if dropped { "─" } else { "╌" });
                (at(reached) - 4, unsure)
            }
        }
    };
    text::put(buffer, end, y, head, 1, tone);
    for point in seen {
        text::put(buffer, at(point), y, "●", 1, tone);
    }
}

fn draw_detail(buffer: &mut Buffer, area: Rect, rung: &Rung, vantages: &Vantages, theme: Theme) {
    let dim = theme.style(Tone::Dim);
    text::put(buffer, area.x, area.y, &"─".repeat(usize::from(area.width)), area.width, dim);
    let head = detail_head(rung);
    let whole = format!("{head}: {}", rung.note);
    let mut lines = match &*rung.note {
        "" => vec![head],
        _ if text::width(&whole) < area.width => vec![whole],
        note => vec![head, note.to_owned()],
    };
    let places: Vec<String> =
        rung.hops.iter().map(|h| crate::output::ladder::place(vantages, h.vantage)).collect();
    let longest = places.iter().map(String::len).max().unwrap_or(0).min(28);
    let first = rung.hops.first().map(|h| h.time);
    for (hop, place) in rung.hops.iter().zip(&places) {
        let later = first.map_or(Duration::ZERO, |first| hop.time.since(first));
        lines.push(format!(
            "  {place:<longest$}  +{:<9}  {} → {}  frame {}",
            text::offset(later),
            hop.source,
            hop.destination,
            hop.frame
        ));
    }
    let room = usize::from(area.height.saturating_sub(1));
    if lines.len() > room {
        let more = lines.len() - room + 1;
        lines.truncate(room.saturating_sub(1));
        lines.push(format!("  and {}", text::counted(more as u64, "more hop")));
    }
    for (line, y) in lines.iter().zip(area.y.saturating_add(1)..area.bottom()) {
        text::put(buffer, area.x + 1, y, line, area.width.saturating_sub(1), theme.style(Tone::Plain));
    }
}

fn detail_head(rung: &Rung) -> String {
    let tcp = |transport| if transport == Transport::Tcp { ", tcp" } else { "" };
    match rung.what {
        What::Query { id, transport, server, backend, .. } => {
            let behind = backend.map(|b| format!(", translated to {b}")).unwrap_or_default();
            format!("query {} {id:04x}{} to {server}{behind}", rung.qtype, tcp(transport))
        }
        What::Answer { id, transport, .. } => format!("answer {} {id:04x}{}", rung.qtype, tcp(transport)),
        What::Icmp { from } => format!("ICMP error from {from}"),
        What::Gap(gap) => format!("{} without a message of this step", text::wait(gap)),
    }
}
