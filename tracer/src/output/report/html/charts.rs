//! How it went over time: lookups, findings and waits over one axis.

use super::markup::Escaped;
use crate::{
    findings::Finding,
    model::Timestamp,
    output::text::{TimeOfDay, count, human},
    stats::Series,
};
use std::{fmt::Write, time::Duration};

const WIDTH: usize = 1_000;
const LEFT: usize = 70;
const RIGHT: usize = 14;
/// Findings with a line of their own.
const LINES: usize = 12;
/// The waits' axis: powers of ten from 10 µs to 100 s.
const DECADES: std::ops::RangeInclusive<i32> = -5..=2;

/// One axis of time for all charts.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    from: Timestamp,
    length: Duration,
}

impl Axis {
    /// From the first bucket's start to the end of the window.
    pub(super) fn new(series: &Series, window: (Timestamp, Timestamp)) -> Self {
        let first = series.iter().next().map_or(window.0, |(start, _)| start.min(window.0));
        let last = series.iter().last().map_or(window.1, |(start, _)| (start + series.width()).max(window.1));
        Self { from: first, length: last.since(first).max(Duration::from_millis(1)) }
    }

    fn x(self, time: Timestamp) -> f64 {
        let share = time.since(self.from).as_secs_f64() / self.length.as_secs_f64();
        LEFT as f64 + share.min(1.0) * (WIDTH - LEFT - RIGHT) as f64
    }

    fn ticks(self, to: &mut String, y: usize) {
        for part in 0..=4_u32 {
            let time = self.from + self.length * part / 4;
            let anchor = match part {
                0 => "start",
                4 => "end",
                _ => "middle",
            };
            let _ = write!(
                to,
                "<text x={:.1} y={y} text-anchor={anchor} class=dim>{}</text>",
                self.x(time),
                TimeOfDay(time)
            );
        }
    }
}

fn open(to: &mut String, height: usize, label: &str) {
    let _ = write!(to, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"{label}\">");
}

/// Lookups by bucket, those that failed at the bottom; findings as lines below.
pub(super) fn timeline(to: &mut String, axis: Axis, series: &Series, findings: &[&Finding]) {
    const TOP: usize = 120;
    let lines = findings.len().min(LINES);
    let height = TOP + 22 + lines * 20 + 6;
    open(to, height, "lookups and findings over time");
    let most = series.iter().map(|(_, bucket)| bucket.lookups).max().unwrap_or(0).max(1);
    let tall = |number: u64| number as f64 / most as f64 * (TOP - 16) as f64;
    let _ = write!(
        to,
        "<text x={} y=14 text-anchor=end class=dim>{}</text><text x={} y={TOP} text-anchor=end class=dim>lookups</text>",
        LEFT - 6,
        count(most),
        LEFT - 6
    );
    for (start, bucket) in series.iter() {
        let (x, end) = (axis.x(start), axis.x(start + series.width()));
        let wide = (end - x - 0.6).max(0.8);
        for (class, number, above) in
            [("failed", bucket.failed, 0), ("fine", bucket.lookups - bucket.failed, bucket.failed)]
        {
            if number > 0 {
                let _ = write!(
                    to,
                    "<rect x={x:.1} y={:.1} width={wide:.1} height={:.1} class={class}><title>{}: {} lookups, {} \
                     failed</title></rect>",
                    TOP as f64 - tall(above + number),
                    tall(number),
                    TimeOfDay(start),
                    count(bucket.lookups),
                    count(bucket.failed)
                );
            }
        }
    }
    axis.ticks(to, TOP + 14);
    for (index, finding) in findings.iter().take(LINES).enumerate() {
        let y = TOP + 22 + index * 20;
        let x = axis.x(finding.first);
        let wide = (axis.x(finding.last) - x).max(4.0);
        let _ = write!(
            to,
            "<text x={} y={} text-anchor=end>{}</text><rect x={x:.1} y={} width={wide:.1} height=10 rx=3 \
             class={}><title>{}</title></rect>",
            LEFT - 6,
            y + 12,
            finding.code,
            y + 3,
            finding.severity,
            Escaped(&finding.summary)
        );
    }
    to.push_str("</svg>");
}

/// What half of the questions, and all but a hundredth, waited at most; logarithmic.
pub(super) fn waits(to: &mut String, axis: Axis, series: &Series) {
    const HEIGHT: usize = 190;
    const BOTTOM: f64 = 170.0;
    open(to, HEIGHT, "waits over time");
    let decades = f64::from(DECADES.end() - DECADES.start());
    let y = |seconds: f64| {
        let above = (seconds.max(1e-9).log10() - f64::from(*DECADES.start())).clamp(0.0, decades);
        BOTTOM - above / decades * (BOTTOM - 12.0)
    };
    for (decade, label) in DECADES.zip(["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"])
    {
        let line = y(10_f64.powi(decade));
        let _ = write!(
            to,
            "<line x1={LEFT} x2={} y1={line:.1} y2={line:.1} class=grid /><text x={} y={:.1} text-anchor=end \
             class=dim>{label}</text>",
            WIDTH - RIGHT,
            LEFT - 6,
            line + 4.0
        );
    }
    for (quantile, class) in [(0.99, "p99"), (0.5, "p50")] {
        let mut path = String::new();
        let mut points = String::new();
        let mut before: Option<Timestamp> = None;
        for (start, bucket) in series.iter() {
            let Some(wait) = bucket.waits.quantile(quantile) else { continue };
            let (x, y) = (axis.x(start + series.width() / 2), y(wait.as_secs_f64()));
            // Over a silence no line is drawn.
            let joined = before.is_some_and(|before| start.since(before) <= series.width() * 3);
            let _ = write!(path, "{}{x:.1} {y:.1}", if joined { 'L' } else { 'M' });
            before = Some(start);
            let _ = write!(
                points,
                "<circle cx={x:.1} cy={y:.1} r=2.5 class={class}><title>{}: {class} {}</title></circle>",
                TimeOfDay(start),
                human(wait)
            );
        }
        let _ = write!(to, "<path d=\"{path}\" class=\"{class} line\" />{points}");
    }
    axis.ticks(to, HEIGHT - 4);
    to.push_str("</svg>");
}
