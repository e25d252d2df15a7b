//! The filter line: terms between spaces, all of which must hold.
//!
//! `text` is looked for in the table's main column; `key=value`, `key~glob`, `key>1s` (also `!=`, `!~`, `<`,
//! `>=`, `<=`) test the column with that key; `!` before a term turns it round.

use super::column::{Column, Kind, Value};
use globset::{GlobBuilder, GlobMatcher};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A filter that was understood; the default one lets everything through.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    column: usize,
    test: Test,
    wanted: bool,
}

#[derive(Clone, Debug)]
enum Test {
    /// Address, prefix length, port.
    Address(IpAddr, u8, Option<u16>),
    Clock(Op, String),
    Contains(String),
    Count(Op, u64),
    Equals(String),
    Glob(GlobMatcher),
    Span(Op, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Like,
}

/// Why a filter was not understood; says what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("no column {key:?}; there are {known}")]
    Key { key: String, known: String },
    #[error("{key}: nothing behind {op:?}")]
    Empty { key: String, op: &'static str },
    #[error("{key}: {value:?} is none of {choices}")]
    Choice { key: &'static str, value: String, choices: String },
    #[error("{key}: {value:?} is no {what}")]
    Value { key: &'static str, value: String, what: &'static str },
    #[error("{key} cannot be compared with {op:?}; use {instead}")]
    Op { key: &'static str, op: &'static str, instead: &'static str },
    #[error("{value:?} is no pattern: {reason}")]
    Glob { value: String, reason: String },
}

/// Longest first, so that `!=` is not read as `=`.
const OPS: [(&str, Op, bool); 8] = [
    (">=", Op::GreaterEqual, true),
    ("<=", Op::LessEqual, true),
    ("!=", Op::Equal, false),
    ("!~", Op::Like, false),
    ("=", Op::Equal, true),
    ("~", Op::Like, true),
    (">", Op::Greater, true),
    ("<", Op::Less, true),
];

impl Filter {
    /// Reads a filter line for a table with these columns; plain text is looked for in the column `plain`.
    pub(super) fn parse<R>(text: &str, columns: &[Column<R>], plain: &str) -> Result<Self, FilterError> {
        let terms = text.split_whitespace().map(|term| parse_term(term, columns, plain));
        Ok(Self { terms: terms.collect::<Result<_, _>>()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a line passes.
    pub(super) fn matches<R>(&self, line: &R, columns: &[Column<R>]) -> bool {
        self.terms.iter().all(|term| {
            columns.get(term.column).is_some_and(|c| term.test.holds(&(c.value)(line)) == term.wanted)
        })
    }
}

fn parse_term<R>(term: &str, columns: &[Column<R>], plain: &str) -> Result<Term, FilterError> {
    let (term, wanted) = match term.strip_prefix('!') {
        Some(rest) if !rest.is_empty() => (rest, false),
        _ => (term, true),
    };
    let split = term.find(['=', '~', '<', '>', '!']).filter(|&at| {
        at > 0 && term[..at].bytes().all(|b| b.is_ascii_alphanumeric()) && op_at(&term[at..]).is_some()
    });
    let Some((key, (sign, op, straight))) = split.and_then(|at| Some((&term[..at], op_at(&term[at..])?)))
    else {
        return Ok(Term { column: position(columns, plain)?, test: like(term)?, wanted });
    };
    let column = position(columns, key)?;
    let value = &term[key.len() + sign.len()..];
    if value.is_empty() {
        return Err(FilterError::Empty { key: key.to_owned(), op: sign });
    }
    let declared = &columns[column];
    Ok(Term { column, test: test(declared.key, declared.kind, sign, op, value)?, wanted: wanted == straight })
}

fn op_at(text: &str) -> Option<(&'static str, Op, bool)> {
    OPS.into_iter().find(|(sign, ..)| text.starts_with(sign))
}

fn position<R>(columns: &[Column<R>], key: &str) -> Result<usize, FilterError> {
    columns.iter().position(|c| c.key.eq_ignore_ascii_case(key)).ok_or_else(|| FilterError::Key {
        key: key.to_owned(),
        known: columns.iter().map(|c| c.key).collect::<Vec<_>>().join(" "),
    })
}

fn test(key: &'static str, kind: Kind, sign: &'static str, op: Op, value: &str) -> Result<Test, FilterError> {
    let wrong = |what| FilterError::Value { key, value: value.to_owned(), what };
    let ordered =
        |instead| if op == Op::Like { Err(FilterError::Op { key, op: sign, instead }) } else { Ok(op) };
    match (kind, op) {
        (Kind::Count, _) => {
            value.parse().map_err(|_| wrong("number")).and_then(|n| Ok(Test::Count(ordered("= < >")?, n)))
        }
        (Kind::Span, _) => {
            let span = parse_span(value).ok_or_else(|| wrong("time span (1s, 200ms, 50us)"))?;
            Ok(Test::Span(ordered("< >")?, span))
        }
        (Kind::Clock, _) => {
            if !value.bytes().all(|b| b.is_ascii_digit() || b == b':' || b == b'.') {
                return Err(wrong("time of day (12:00:03)"));
            }
            Ok(Test::Clock(ordered("= < >")?, value.to_owned()))
        }
        (_, Op::Like) => like(value),
        (Kind::Address, Op::Equal) => {
            parse_address(value).ok_or_else(|| wrong("address (10.1.2.3, 10.1.0.0/16, [fd00::1]:53)"))
        }
        (Kind::Word(choices), Op::Equal) => {
            if !choices.is_empty() && !choices.iter().any(|c| c.eq_ignore_ascii_case(value)) {
                let choices = choices.join(" ");
                return Err(FilterError::Choice { key, value: value.to_owned(), choices });
            }
            Ok(Test::Equals(value.to_owned()))
        }
        (Kind::Text, Op::Equal) => Ok(Test::Equals(value.to_owned())),
        _ => Err(FilterError::Op { key, op: sign, instead: "= ~" }),
    }
}

fn like(pattern: &str) -> Result<Test, FilterError> {
    if !pattern.contains(['*', '?', '[', '{']) {
        return Ok(Test::Contains(pattern.to_ascii_lowercase()));
    }
    let glob = GlobBuilder::new(pattern).case_insensitive(true).build();
    glob.map(|g| Test::Glob(g.compile_matcher()))
        .map_err(|e| FilterError::Glob { value: pattern.to_owned(), reason: e.kind().to_string() })
}

fn parse_span(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..unit].parse().ok()?;
    let seconds = match &text[unit..] {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

fn parse_address(text: &str) -> Option<Test> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(Test::Address(socket.ip(), prefix_of(socket.ip()), Some(socket.port())));
    }
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address.parse::<IpAddr>().ok()?, prefix.parse().ok()?),
        None => {
            let address = text.parse::<IpAddr>().ok()?;
            (address, prefix_of(address))
        }
    };
    (prefix <= prefix_of(address)).then_some(Test::Address(address, prefix, None))
}

const fn prefix_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Test {
    fn holds(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Address(net, prefix, port), Value::Addresses(all)) => all
                .iter()
                .any(|a| port.is_none_or(|port| port == a.port()) && in_network(a.ip(), *net, *prefix)),
            (Self::Clock(op, wanted), Value::Clock(time)) => {
                let shown = super::text::clock(*time);
                op.holds(shown.get(..wanted.len()).unwrap_or(&shown), wanted.as_str())
            }
            (Self::Count(op, wanted), Value::Count(number)) => op.holds(number, wanted),
            (Self::Span(op, wanted), Value::Span(Some(span))) => op.holds(span, wanted),
            (Self::Equals(wanted), Value::Words(words)) => {
                words.split('+').any(|w| w.eq_ignore_ascii_case(wanted))
            }
            (Self::Equals(wanted), other) => other.show().eq_ignore_ascii_case(wanted),
            (Self::Contains(_) | Self::Glob(_), Value::Addresses(all)) => {
                all.iter().any(|a| self.is_like(&a.ip().to_string()))
            }
            (Self::Contains(_) | Self::Glob(_), other) => self.is_like(&other.show()),
            _ => false,
        }
    }

    fn is_like(&self, text: &str) -> bool {
        match self {
            Self::Contains(part) => {
                part.is_empty()
                    || text.as_bytes().windows(part.len()).any(|w| w.eq_ignore_ascii_case(part.as_bytes()))
            }
            Self::Glob(glob) => glob.is_match(text),
            _ => false,
        }
    }
}

impl Op {
    fn holds<T: PartialOrd + ?Sized>(self, value: &T, wanted: &T) -> bool {
        match self {
            Self::Equal | Self::Like => value == wanted,
            Self::Greater => value > wanted,
            Self::GreaterEqual => value >= wanted,
            Self::Less => value < wanted,
            Self::LessEqual => value <= wanted,
        }
    }
}

fn in_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    address.is_ipv4() == network.is_ipv4() && (bits(address) ^ bits(network)) & mask == 0
}
