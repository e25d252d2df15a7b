//! Columns, declared once: what a table shows, sorts by, filters by and explains in the help.

use super::{text, theme::Tone};
use crate::model::Timestamp;
use std::{borrow::Cow, cmp::Ordering, net::SocketAddr, time::Duration};

/// One column of a table whose lines are made from `R`.
#[derive(Debug)]
pub(super) struct Column<R: 'static> {
    /// Its name in a filter.
    pub(super) key: &'static str,
    /// Its title; empty: it is there to filter by only.
    pub(super) title: &'static str,
    /// The words of the help.
    pub(super) about: &'static str,
    /// How wide it is.
    pub(super) width: Width,
    /// Which columns go first where room is short: the highest number.
    pub(super) priority: u8,
    /// What a filter may say about it.
    pub(super) kind: Kind,
    /// Its value.
    pub(super) value: fn(&R) -> Value<'_>,
    /// Why it stands out, if it does.
    pub(super) tone: fn(&R) -> Tone,
}

/// Nothing stands out.
pub(super) const fn plain<R>(_: &R) -> Tone {
    Tone::Plain
}

impl<R> Column<R> {
    /// A number.
    pub(super) const fn count(
        key: &'static str,
        title: &'static str,
        about: &'static str,
        width: u16,
        priority: u8,
        value: fn(&R) -> Value<'_>,
    ) -> Self {
        let width = Width::Fixed(width);
        Self { key, title, about, width, priority, kind: Kind::Count, value, tone: plain }
    }

    /// Text.
    pub(super) const fn text(
        key: &'static str,
        title: &'static str,
        about: &'static str,
        width: Width,
        priority: u8,
        value: fn(&R) -> Value<'_>,
    ) -> Self {
        Self { key, title, about, width, priority, kind: Kind::Text, value, tone: plain }
    }
}

/// The columns a cell takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Never shown.
    Hidden,
    /// This many.
    Fixed(u16),
    /// The long form where there is plenty of room.
    Either { short: u16, long: u16 },
    /// At least `min`; up to `max` of what is left over is shared by `weight`.
    Fill { min: u16, max: u16, weight: u16 },
}

impl Width {
    pub(super) const fn min(self) -> u16 {
        match self {
            Self::Hidden => 0,
            Self::Fixed(width) | Self::Either { short: width, .. } | Self::Fill { min: width, .. } => width,
        }
    }
}

/// What kind of value a filter compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `=10.1.2.3`, `=10.1.0.0/16`, `=10.1.2.3:53`, `~10.1.*`.
    Address,
    /// `>12:00:03`.
    Clock,
    /// `>5`.
    Count,
    /// One of these words, where any are listed; `=A`.
    Word(&'static [&'static str]),
    /// `>1s`.
    Span,
    /// `=text`, `~glob`.
    Text,
}

/// The value of a cell.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// Addresses, of which any may match; shown is the first.
    Addresses(Cow<'a, [SocketAddr]>),
    /// A point in time.
    Clock(Timestamp),
    /// A number.
    Count(u64),
    /// A time span; `None` is shown as `–`.
    Span(Option<Duration>),
    /// Text, already escaped.
    Text(Cow<'a, str>),
    /// Words joined by `+`, of which any may match.
    Words(Cow<'a, str>),
}

impl Value<'_> {
    /// What a cell of that width shows.
    pub(super) fn show_in(&self, width: u16) -> Cow<'_, str> {
        match self {
            Self::Clock(time) if width < 12 => {
                let clock = text::clock(*time);
                Cow::Owned(clock.get(..8).unwrap_or(&clock).to_owned())
            }
            Self::Count(number) => {
                let whole = text::count(*number);
                // A number must not be cut: its head would read as another number.
                Cow::Owned(if text::width(&whole) <= width { whole } else { text::rough_count(*number) })
            }
            other => other.show(),
        }
    }

    /// The value in words.
    pub(super) fn show(&self) -> Cow<'_, str> {
        match self {
            Self::Addresses(all) => all.first().map_or(Cow::Borrowed("–"), |a| Cow::Owned(a.to_string())),
            Self::Clock(time) => Cow::Owned(text::clock(*time)),
            Self::Count(number) => Cow::Owned(text::count(*number)),
            Self::Span(Some(span)) => Cow::Owned(text::span(*span)),
            Self::Span(None) => Cow::Borrowed("–"),
            Self::Text(text) | Self::Words(text) => Cow::Borrowed(text),
        }
    }

    /// Numbers stand right.
    pub(super) const fn is_right(&self) -> bool {
        matches!(self, Self::Count(_) | Self::Span(_))
    }

    /// How a sort orders two values of one column.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Addresses(a), Self::Addresses(b)) => a.cmp(b),
            (Self::Clock(a), Self::Clock(b)) => a.cmp(b),
            (Self::Count(a), Self::Count(b)) => a.cmp(b),
            (Self::Span(a), Self::Span(b)) => a.cmp(b),
            (Self::Text(a) | Self::Words(a), Self::Text(b) | Self::Words(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }
}

impl Kind {
    /// Whether the first press of `s` puts the largest on top.
    pub(super) const fn sorts_descending(self) -> bool {
        matches!(self, Self::Count | Self::Span)
    }
}

/// The columns that fit into `room`, each with its width: the unimportant ones drop out, what is left over goes
/// to those that can use it. `gap` columns are between two.
pub(super) fn fit<R>(columns: &[Column<R>], room: u16, gap: u16) -> Vec<(usize, u16)> {
    let mut by_priority: Vec<usize> =
        (0..columns.len()).filter(|&i| columns[i].width != Width::Hidden).collect();
    by_priority.sort_by_key(|&i| columns[i].priority);
    let mut used = 0u16;
    let mut chosen: Vec<(usize, u16)> = Vec::with_capacity(columns.len());
    for index in by_priority {
        let least = columns[index].width.min();
        let with_gap = if chosen.is_empty() { least } else { least.saturating_add(gap) };
        if used.saturating_add(with_gap) > room && !chosen.is_empty() {
            break;
        }
        used = used.saturating_add(with_gap);
        chosen.push((index, least.min(room)));
    }
    chosen.sort_unstable_by_key(|&(index, _)| index);
    share(columns, &mut chosen, room.saturating_sub(used));
    chosen
}

fn share<R>(columns: &[Column<R>], chosen: &mut [(usize, u16)], mut left: u16) {
    for (index, width) in chosen.iter_mut() {
        if let Width::Either { long, .. } = columns[*index].width
            && left >= 2 * long
        {
            left -= long - *width;
            *width = long;
        }
    }
    loop {
        let growing = |&(index, width): &(usize, u16)| match columns[index].width {
            Width::Fill { max, weight, .. } if width < max => Some((max - width, weight.max(1))),
            _ => None,
        };
        let weights: u16 = chosen.iter().filter_map(growing).map(|(_, weight)| weight).sum();
        if weights == 0 || left == 0 {
            return;
        }
        let unit = (left / weights).max(1);
        for cell in chosen.iter_mut() {
            if let Some((room, weight)) = growing(cell) {
                let more = room.min(unit.saturating_mul(weight)).min(left);
                cell.1 += more;
                left -= more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(width: Width, priority: u8) -> Column<()> {
        Column {
            key: "",
            title: "",
            about: "",
            width,
            priority,
            kind: Kind::Text,
            value: |()| Value::Text("".into()),
            tone: |()| Tone::Plain,
        }
    }

    #[test]
    fn the_least_important_columns_drop_out_and_the_rest_share_the_room() {
        let columns = [
            column(Width::Fixed(12), 2),
            column(Width::Fill { min: 10, max: 20, weight: 1 }, 0),
            column(Width::Hidden, 0),
            column(Width::Fixed(8), 1),
            column(Width::Fill { min: 5, max: 99, weight: 1 }, 3),
        ];
        assert_eq!(fit(&columns, 80, 2), [(0, 12), (1, 20), (3, 8), (4, 34)]);
        assert_eq!(fit(&columns, 34, 2), [(0, 12), (1, 10), (3, 8)]);
        assert_eq!(fit(&columns, 25, 2), [(1, 15), (3, 8)]);
        assert_eq!(fit(&columns, 4, 2), [(1, 4)]);
        assert_eq!(fit(&columns, 0, 2), [(1, 0)]);
        let either = [column(Width::Either { short: 8, long: 12 }, 0)];
        assert_eq!((fit(&either, 31, 2), fit(&either, 32, 2)), (vec![(0, 8)], vec![(0, 12)]));
    }
}
