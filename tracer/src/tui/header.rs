//! The first two lines: where, how fast, what was lost, and in what state the screen is.

use super::{
    snapshot::Snapshot,
    status::{Motion, Playback},
    text,
    theme::{Theme, Tone},
};
use crate::model::{Coverage, Timestamp};
use ratatui::{buffer::Buffer, layout::Rect};
use std::time::Duration;

/// Columns between two facts.
const GAP: u16 = 2;

struct Fact {
    text: String,
    tone: Tone,
    /// Larger ones go first where room is short.
    priority: u8,
}

/// `dnspath  node  interfaces      q/s  p50  p99  lost`.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, snapshot: &Snapshot, theme: Theme) {
    let rates = snapshot.rates;
    let latency = |name: &str, value: Option<Duration>| {
        format!("{name} {}", value.map_or_else(|| "–".to_owned(), text::span))
    };
    let fact = |text, priority| Fact { text, tone: Tone::Plain, priority };
    let mut facts = vec![
        fact(queries_per_second(rates.queries_per_second), 2),
        fact(latency("p50", rates.p50), 4),
        fact(latency("p99", rates.p99), 3),
    ];
    facts.extend(losses(snapshot.status.coverage));
    let x = draw_right(buffer, area, facts, theme);
    let status = &snapshot.status;
    let left = [("dnspath", Tone::Head), (&*status.title, Tone::Plain), (&*status.interfaces, Tone::Dim)];
    let mut at = area.x.saturating_add(1);
    for (words, tone) in left.into_iter().filter(|(words, _)| !words.is_empty()) {
        let room = x.saturating_sub(at).saturating_sub(GAP);
        // A name cut to a letter or two says nothing.
        if room < 7 {
            return;
        }
        let words = text::escape(words);
        text::put(buffer, at, area.y, &words, room, theme.style(tone));
        at = at.saturating_add(text::width(&words).min(room)).saturating_add(GAP);
    }
}

/// Behind the tabs: frozen, recording, clock of the newest record.
pub(super) fn draw_state(buffer: &mut Buffer, area: Rect, snapshot: &Snapshot, frozen: bool, theme: Theme) {
    let mut facts = Vec::new();
    if frozen {
        facts.push(Fact { text: "FROZEN".into(), tone: Tone::Warn, priority: 0 });
    }
    if let Some(playback) = &snapshot.status.playback {
        facts.extend(playback_facts(playback, snapshot.status.ended));
    } else if snapshot.status.ended {
        facts.push(Fact { text: "end of file".into(), tone: Tone::Plain, priority: 2 });
    }
    if let Some(recording) = &snapshot.status.recording {
        let seconds = recording.elapsed.as_secs();
        let text = format!("● rec {:02}:{:02}", seconds / 60, seconds % 60);
        facts.push(Fact { text, tone: Tone::Bad, priority: 1 });
    }
    let now = snapshot.status.playback.as_ref().map_or(snapshot.newest, |playback| playback.position);
    if now > Timestamp::EPOCH {
        let clock = text::clock(now);
        let clock = clock.get(..8).unwrap_or(&clock);
        let date = if area.width < 50 { String::new() } else { text::date(now) + " " };
        let text = format!("{date}{clock} UTC");
        facts.push(Fact { text, tone: Tone::Plain, priority: 3 });
    }
    draw_right(buffer, area, facts, theme);
}

/// How a replay moves, and how far it is.
fn playback_facts(playback: &Playback, ended: bool) -> [Fact; 2] {
    let (text, tone) = match playback.motion {
        Motion::Seeking => ("seeking".to_owned(), Tone::Warn),
        _ if ended => ("end of file".to_owned(), Tone::Plain),
        Motion::Paused => (format!("PAUSED {}", playback.speed), Tone::Warn),
        Motion::Playing => (format!("▶ {}", playback.speed), Tone::Plain),
        Motion::Following => ("▶ following".to_owned(), Tone::Plain),
    };
    let seconds = playback.position.since(playback.start).as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let elapsed = if hours > 0 {
        format!("+{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("+{minutes:02}:{seconds:02}")
    };
    [Fact { text, tone, priority: 0 }, Fact { text: elapsed, tone: Tone::Plain, priority: 2 }]
}

/// Loss is always said, also that there was none; the rest when there is some.
fn losses(coverage: Coverage) -> Vec<Fact> {
    let lost = Fact {
        text: if coverage.lost == 0 {
            "lost 0".into()
        } else {
            format!("LOST {}", text::count(coverage.lost))
        },
        tone: if coverage.lost == 0 { Tone::Plain } else { Tone::Bad },
        priority: 0,
    };
    let mut facts = vec![lost];
    for (number, what) in
        [(coverage.evicted, "evicted"), (coverage.truncated, "cut"), (coverage.malformed, "malformed")]
    {
        if number > 0 {
            facts.push(Fact {
                text: format!("{what} {}", text::count(number)),
                tone: Tone::Warn,
                priority: 5,
            });
        }
    }
    facts
}

fn queries_per_second(rate: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, rounded")]
    if rate > 0.0 && rate < 9.95 {
        format!("{rate:.1} q/s")
    } else {
        format!("{} q/s", text::count(rate.round() as u64))
    }
}

/// Draws the facts that fit, right-aligned, in order; returns where they begin.
fn draw_right(buffer: &mut Buffer, area: Rect, mut facts: Vec<Fact>, theme: Theme) -> u16 {
    let total = |facts: &[Fact]| facts.iter().map(|f| text::width(&f.text) + GAP).sum::<u16>();
    while total(&facts) > area.width
        && let Some((index, _)) = facts.iter().enumerate().max_by_key(|(_, f)| f.priority)
    {
        facts.remove(index);
    }
    let start = area.right().saturating_sub(total(&facts).saturating_sub(GAP)).saturating_sub(1);
    let mut x = start;
    for fact in &facts {
        let width = text::width(&fact.text);
        text::put(buffer, x, area.y, &fact.text, width, theme.style(fact.tone));
        x = x.saturating_add(width).saturating_add(GAP);
    }
    start
}
