//! What was learnt of the node, as comments of name-resolution blocks have it.
//!
//! Rule: whose address is whose is in the block's records. What has no record is in comments that a person reads:
//! `dnspath: told at 1795176000.412000000` is where a session was told, between two frames; `dnspath: since; 10.0.0.1 at
//! 1795176000.300000000` is from when on the addresses of the records belong to whom they name, in their order;
//! `dnspath: gone; 10.0.0.1 at 1795176000.400000000` are addresses whose owners were gone by then; and a container's resolver is
//! `dnspath: resolver; namespace shop; pod web-1; container app; read at 1795176000.412000000; addresses 10.0.0.1;
//! libc musl; agrees; resolv.conf nameserver 10.96.0.10\nsearch shop.svc.cluster.local\n`, with escapes for control
//! characters, backslashes and semicolons. What cannot be seen is `dnspath: blind spot; found at 1795176000.412000000; what
//! ipvs; because IPVS balances services here; unseen which backend was chosen; advice …`. Packet rules are `dnspath: rules;
//! counted at 1795176000.412000000; netns node-7; count 20003; duplicates 19999; times 20000; rule -t nat -A …`. A service is
//! `dnspath: service; found at 1795176000.412000000; address 10.96.0.10:53; name kube-system/kube-dns:dns; backends
//! 10.244.0.2:53 10.244.0.3:53`; the record beside it is for other programs. Which
//! container of a pod asks is `dnspath: container; namespace shop; pod web-1; since 1795176000.412000000; name app`,
//! without a name where that is not known.

use super::{
    note::{PREFIX, SEPARATOR},
    text,
};
use crate::model::{BlindSpot, Libc, News, PodName, Resolver, RuleCount, Service, Timestamp};
use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, sync::Arc};

const TOLD_AT: &str = "told at ";
const SINCE: &str = "since";
const GONE: &str = "gone";
const RESOLVER: &str = "resolver";
const BLIND_SPOT: &str = "blind spot";
const RULES: &str = "rules";
const CONTAINER: &str = "container";
const SERVICE: &str = "service";
const AT: &str = " at ";
/// A comment has at most 65,535 octets: what of a text is kept, escaped. A resolv.conf has a few hundred.
const MOST_RESOLV_CONF: usize = 40_000;
const MOST_ENVIRONMENT: usize = 16_000;
const MOST_NAME: usize = 1_024;
/// Addresses of a resolver that are kept; pods have two.
const MOST_ADDRESSES: usize = 64;

/// Something learnt, as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When the session was told, by its clock; `None`: before the frames that follow.
    pub at: Option<Timestamp>,
    /// What it was told.
    pub news: News,
    /// The file that says so, by its place.
    pub source: u16,
}

/// What a comment of a name-resolution block says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// When the session was told what is in this block.
    At(Timestamp),
    /// From when on the addresses of its records belong to whom they name.
    Since(Vec<(IpAddr, Timestamp)>),
    News(Vec<News>),
}

/// Reads a comment; `None` where it is not one of these.
pub(super) fn read(comment: &[u8]) -> Option<Said> {
    let text = std::str::from_utf8(comment).ok()?.strip_prefix(PREFIX)?;
    if let Some(time) = text.strip_prefix(TOLD_AT) {
        return Some(Said::At(time_of(time)?));
    }
    let mut parts = text.split(SEPARATOR);
    let address_at = |part: &str| {
        let (address, time) = part.split_once(AT)?;
        Some((address.parse().ok()?, time_of(time)?))
    };
    match parts.next()? {
        SINCE => parts.map(address_at).collect::<Option<_>>().map(Said::Since),
        GONE => {
            let gone = |part| address_at(part).map(|(address, time)| News::Gone(address, time));
            parts.map(gone).collect::<Option<_>>().map(Said::News)
        }
        RESOLVER => resolver(parts).map(|news| Said::News(vec![news])),
        BLIND_SPOT => blind_spot(parts).map(|news| Said::News(vec![news])),
        CONTAINER => container(parts).map(|news| Said::News(vec![news])),
        RULES => rules(parts).map(|news| Said::News(vec![news])),
        SERVICE => service(parts).map(|news| Said::News(vec![news])),
        _ => None,
    }
}

/// The comment that says when the session was told.
pub(super) fn at(time: Timestamp) -> String {
    format!("{PREFIX}{TOLD_AT}{}", seconds(time))
}

/// The comment of owners in the block's records.
pub(super) fn since(all: impl Iterator<Item = (IpAddr, Timestamp)>) -> String {
    addresses_at(SINCE, all)
}

/// The comment of owners that were gone.
pub(super) fn gone(all: impl Iterator<Item = (IpAddr, Timestamp)>) -> String {
    addresses_at(GONE, all)
}

fn addresses_at(what: &str, all: impl Iterator<Item = (IpAddr, Timestamp)>) -> String {
    let mut comment = format!("{PREFIX}{what}");
    for (address, time) in all {
        // Writing to a string does not fail.
        let _ = write!(comment, "{SEPARATOR}{address}{AT}{}", seconds(time));
    }
    comment
}

/// The comment of a resolver.
pub(super) fn of_resolver(resolver: &Resolver, time: Timestamp) -> String {
    let Resolver { pod, container, addresses, resolv_conf, environment, libc, agrees, has_server } = resolver;
    let mut comment = format!("{PREFIX}{RESOLVER}");
    let mut part = |key: &str, value: &str, most: usize| {
        if !value.is_empty() {
            comment.push_str(SEPARATOR);
            comment.push_str(key);
            escape(value, most, &mut comment);
        }
    };
    part("namespace ", &pod.namespace, MOST_NAME);
    part("pod ", &pod.name, MOST_NAME);
    part("container ", container, MOST_NAME);
    part("read at ", &seconds(time), MOST_NAME);
    let addresses: Vec<String> = addresses.iter().take(MOST_ADDRESSES).map(ToString::to_string).collect();
    part("addresses ", &addresses.join(" "), usize::MAX);
    part("libc ", &libc.to_string(), MOST_NAME);
    part("", if *agrees { "agrees" } else { "differs" }, MOST_NAME);
    part("", if *has_server { "has a server" } else { "" }, MOST_NAME);
    part("resolv.conf ", resolv_conf, MOST_RESOLV_CONF);
    part("environment ", environment, MOST_ENVIRONMENT);
    comment
}

/// The comment of something that cannot be seen.
pub(super) fn of_blind_spot(spot: &BlindSpot, time: Timestamp) -> String {
    let BlindSpot { what, found, unseen, advice } = spot;
    let mut comment = format!("{PREFIX}{BLIND_SPOT}{SEPARATOR}found at {}", seconds(time));
    for (key, value) in [("what ", what), ("because ", found), ("unseen ", unseen), ("advice ", advice)] {
        comment.push_str(SEPARATOR);
        comment.push_str(key);
        escape(value, MOST_NAME, &mut comment);
    }
    comment
}

/// The comment of the container that asks.
pub(super) fn of_container(pod: &PodName, name: Option<&str>, since: Timestamp) -> String {
    let mut comment = format!("{PREFIX}{CONTAINER}");
    let since = seconds(since);
    let parts = [("namespace ", &*pod.namespace), ("pod ", &pod.name), ("since ", &since)];
    for (key, value) in parts.into_iter().chain(name.map(|name| ("name ", name))) {
        comment.push_str(SEPARATOR);
        comment.push_str(key);
        escape(value, MOST_NAME, &mut comment);
    }
    comment
}

/// The comment of counted rules.
pub(super) fn of_rules(counted: &RuleCount, time: Timestamp) -> String {
    let RuleCount { netns, rules, duplicates, worst } = counted;
    let mut comment = format!("{PREFIX}{RULES}{SEPARATOR}counted at {}{SEPARATOR}netns ", seconds(time));
    escape(netns, MOST_NAME, &mut comment);
    // Writing to a string does not fail.
    let _ = write!(comment, "{SEPARATOR}count {rules}{SEPARATOR}duplicates {duplicates}");
    if let Some((rule, times)) = worst {
        let _ = write!(comment, "{SEPARATOR}times {times}{SEPARATOR}rule ");
        escape(rule, MOST_NAME, &mut comment);
    }
    comment
}

/// The comment of a service.
pub(super) fn of_service(service: &Service, time: Timestamp) -> String {
    let Service { address, name, backends } = service;
    let mut comment =
        format!("{PREFIX}{SERVICE}{SEPARATOR}found at {}{SEPARATOR}address {address}", seconds(time));
    if !name.is_empty() {
        comment.push_str(SEPARATOR);
        comment.push_str("name ");
        escape(name, MOST_NAME, &mut comment);
    }
    if !backends.is_empty() {
        let shown = backends.iter().take(Service::MOST_BACKENDS).map(ToString::to_string);
        comment.push_str(SEPARATOR);
        comment.push_str("backends ");
        comment.push_str(&shown.collect::<Vec<_>>().join(" "));
    }
    comment
}

fn service<'a>(parts: impl Iterator<Item = &'a str>) -> Option<News> {
    let (mut found_at, mut address, mut name, mut backends) = (None, None, String::new(), BTreeSet::new());
    for part in parts {
        let (key, value) = part.split_once(' ')?;
        match key {
            "found" => found_at = Some(time_of(value.strip_prefix("at ")?)?),
            "address" => address = Some(value.parse().ok()?),
            "name" => name = plain(value)?,
            "backends" => {
                let some = value.split(' ').take(Service::MOST_BACKENDS).map(|backend| backend.parse().ok());
                backends = some.collect::<Option<_>>()?;
            }
            _ => {}
        }
    }
    Some(News::Service(Arc::new(Service { address: address?, name, backends }), found_at?))
}

fn container<'a>(parts: impl Iterator<Item = &'a str>) -> Option<News> {
    let mut pod = PodName::default();
    let (mut since, mut name) = (None, None);
    for part in parts {
        let (key, value) = part.split_once(' ')?;
        match key {
            "namespace" => pod.namespace = plain(value)?,
            "pod" => pod.name = plain(value)?,
            "since" => since = Some(time_of(value)?),
            "name" => name = Some(plain(value)?.into()),
            _ => {}
        }
    }
    Some(News::Container(Arc::new(pod), name, since?))
}

fn rules<'a>(parts: impl Iterator<Item = &'a str>) -> Option<News> {
    let mut counted = RuleCount::default();
    let (mut counted_at, mut times) = (None, 0);
    for part in parts {
        let (key, value) = part.split_once(' ')?;
        match key {
            "counted" => counted_at = Some(time_of(value.strip_prefix("at ")?)?),
            "netns" => counted.netns = plain(value)?,
            "count" => counted.rules = text::count(value)?,
            "duplicates" => counted.duplicates = text::count(value)?,
            "times" => times = text::count(value)?,
            "rule" => counted.worst = Some((plain(value)?, times)),
            _ => {}
        }
    }
    Some(News::Rules(Arc::new(counted), counted_at?))
}

fn blind_spot<'a>(parts: impl Iterator<Item = &'a str>) -> Option<News> {
    let mut spot = BlindSpot::default();
    let mut found_at = None;
    for part in parts {
        let (key, value) = part.split_once(' ')?;
        match key {
            "found" => found_at = Some(time_of(value.strip_prefix("at ")?)?),
            "what" => spot.what = plain(value)?,
            "because" => spot.found = plain(value)?,
            "unseen" => spot.unseen = plain(value)?,
            "advice" => spot.advice = plain(value)?,
            _ => {}
        }
    }
    Some(News::Blind(Arc::new(spot), found_at?))
}

fn resolver<'a>(parts: impl Iterator<Item = &'a str>) -> Option<News> {
    let mut resolver = Resolver::default();
    let mut pod = PodName::default();
    let mut read_at = None;
    for part in parts {
        let (key, value) = part.split_once(' ').unwrap_or((part, ""));
        match key {
            "namespace" => pod.namespace = plain(value)?,
            "pod" => pod.name = plain(value)?,
            "container" => resolver.container = plain(value)?,
            "read" => read_at = Some(time_of(value.strip_prefix("at ")?)?),
            "addresses" => {
                let addresses = value.split(' ').take(MOST_ADDRESSES).map(|address| address.parse().ok());
                resolver.addresses = addresses.collect::<Option<_>>()?;
            }
            "libc" => {
                let known = [Libc::Glibc, Libc::Musl, Libc::Unknown];
                resolver.libc = known.into_iter().find(|libc| libc.to_string() == value).unwrap_or_default();
            }
            "agrees" => resolver.agrees = true,
            "has" => resolver.has_server = true,
            "resolv.conf" => resolver.resolv_conf = plain(value)?,
            "environment" => resolver.environment = plain(value)?,
            _ => {}
        }
    }
    resolver.pod = pod;
    Some(News::Resolver(Arc::new(resolver), read_at?))
}

/// Seconds since 1970 with nine decimals, as Wireshark's `frame.time_epoch`.
fn seconds(time: Timestamp) -> String {
    let nanos = time.as_nanos();
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn time_of(text: &str) -> Option<Timestamp> {
    let (seconds, nanos) = text.split_once('.')?;
    let nanos = (nanos.len() == 9).then(|| nanos.parse::<u32>().ok())??;
    let seconds = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?;
    Some(Timestamp::from_nanos(seconds.checked_add(u64::from(nanos))?))
}

/// Appends a text without control characters, backslashes and semicolons, as far as at most `most` octets hold it.
fn escape(text: &str, most: usize, to: &mut String) {
    let limit = to.len().saturating_add(most);
    for character in text.chars() {
        let before = to.len();
        match character {
            '\\' | '\n' | '\r' | '\t' => to.extend(character.escape_default()),
            ';' => to.extend(character.escape_unicode()),
            other if other.is_control() => to.extend(other.escape_unicode()),
            other => to.push(other),
        }
        if to.len() > limit {
            to.truncate(before);
            return;
        }
    }
}

/// What was escaped; `None` where it was not escaped so.
fn plain(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let mut characters = after.chars();
        plain.push(match characters.next()? {
            '\\' => '\\',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (digits, after) = characters.as_str().strip_prefix('{')?.split_once('}')?;
                characters = after.chars();
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            _ => return None,
        });
        rest = characters.as_str();
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests;
