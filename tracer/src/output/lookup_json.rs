//! A lookup as a JSON object, as lines and reports have it.
//!
//! There is one for each lookup of a flood, and serialising it went through every octet five times: a third of what
//! `dnspath stream` did. So its keys are written as they are, and its values by their kind; what is unusual in a value
//! (an octet to be escaped, IPv6) goes the general way.

use crate::{
    findings::cause,
    model::{Lookup, Name, PodName, Timestamp},
};
use serde::Serialize;
use std::{fmt::Write as _, net::IpAddr, time::Duration};

const SECOND: u64 = 1_000_000_000;
/// Octets of a fraction of a second, behind the point.
const FRACTION: usize = 9;

/// Writes lookups.
#[derive(Debug, Default)]
pub(super) struct LookupJson {
    /// The second of the last time, and what that looks like in front of its fraction.
    second: Option<u64>,
    shown: String,
    /// What a value is put together in.
    text: String,
    /// The last name, and its string: a line has most names several times.
    named: Name,
    name: Vec<u8>,
}

impl LookupJson {
    /// Appends the object; `line`: with its unit, and as lines name pods.
    pub(super) fn append(
        &mut self,
        to: &mut Vec<u8>,
        lookup: &Lookup,
        (pod, container): (Option<&PodName>, Option<&str>),
        line: bool,
    ) {
        to.extend_from_slice(if line { br#"{"unit":"lookup","client":"# } else { br#"{"client":"# });
        self.address(to, lookup.client);
        self.pod(to, pod, line);
        if let Some(container) = container {
            to.extend_from_slice(br#","k8s.container.name":"#);
            text(to, container);
        }
        to.extend_from_slice(br#","name":"#);
        self.name(to, &lookup.name);
        to.extend_from_slice(br#","result":"#);
        plain(to, lookup.result.as_str());
        to.extend_from_slice(br#","answered_by":"#);
        match &lookup.answered_by {
            Some(name) => self.name(to, name),
            None => to.extend_from_slice(b"null"),
        }
        to.extend_from_slice(br#","candidates":"#);
        list(to, &lookup.steps, |to, step| self.name(to, &step.name));
        to.extend_from_slice(br#","queries":"#);
        value(to, &lookup.queries);
        to.extend_from_slice(br#","wasted_search_queries":"#);
        value(to, &lookup.wasted_search_queries);
        to.extend_from_slice(br#","retransmissions":"#);
        list(to, &lookup.retransmissions, |to, resent| {
            to.extend_from_slice(br#"{"gap_s":"#);
            value(to, &resent.gap.as_secs_f64());
            to.extend_from_slice(br#","kind":"#);
            plain(to, resent.kind.as_str());
            to.push(b'}');
        });
        to.extend_from_slice(br#","gaps_s":"#);
        list(to, &lookup.gaps, |to, gap: &Duration| value(to, &gap.as_secs_f64()));
        to.extend_from_slice(br#","start":"#);
        self.time(to, lookup.start);
        to.extend_from_slice(br#","duration_s":"#);
        value(to, &lookup.duration.as_secs_f64());
        to.extend_from_slice(br#","family":"#);
        plain(to, lookup.family.as_str());
        to.extend_from_slice(br#","suspicious_names":"#);
        list(to, &lookup.suspicious_names, |to, name| self.name(to, name));
        to.extend_from_slice(br#","cause":"#);
        value(to, &cause(lookup));
        to.push(b'}');
    }

    /// Whose the address is: `pod`, and in lines its names by OpenTelemetry's conventions for a Kubernetes pod.
    fn pod(&mut self, to: &mut Vec<u8>, pod: Option<&PodName>, line: bool) {
        to.extend_from_slice(br#","pod":"#);
        let Some(pod) = pod else {
            to.extend_from_slice(b"null");
            return;
        };
        self.text.clear();
        pod.append_to(&mut self.text);
        text(to, &self.text);
        if line && !pod.namespace.is_empty() {
            to.extend_from_slice(br#","k8s.namespace.name":"#);
            text(to, &pod.namespace);
            to.extend_from_slice(br#","k8s.pod.name":"#);
            text(to, &pod.name);
        }
    }

    fn name(&mut self, to: &mut Vec<u8>, name: &Name) {
        if self.name.is_empty() || self.named != *name {
            self.named.copy_wire(name.as_wire());
            let string = &mut self.name;
            string.clear();
            string.push(b'"');
            name.pieces(|piece| string.extend_from_slice(piece));
            string.push(b'"');
            let special = |octet: &&u8| matches!(octet, b'"' | b'\\');
            if string.iter().filter(special).count() > 2 {
                string.clear();
                value(string, &name.to_string());
            }
        }
        to.extend_from_slice(&self.name);
    }

    fn address(&mut self, to: &mut Vec<u8>, address: IpAddr) {
        let IpAddr::V4(address) = address else {
            self.text.clear();
            // Writing to a string does not fail.
            let _ = write!(self.text, "{address}");
            text(to, &self.text);
            return;
        };
        for (octet, before) in address.octets().into_iter().zip(*b"\"...") {
            to.push(before);
            value(to, &octet);
        }
        to.push(b'"');
    }

    fn time(&mut self, to: &mut Vec<u8>, time: Timestamp) {
        let nanos = time.as_nanos();
        if self.second != Some(nanos / SECOND) {
            self.second = Some(nanos / SECOND);
            self.shown.clear();
            let _ = write!(self.shown, "{time}");
            // A time that has no date is not shown as one.
            match self.shown.len().checked_sub(FRACTION + 1) {
                Some(start) if self.shown.ends_with('Z') => self.shown.truncate(start),
                _ => self.second = None,
            }
        }
        to.push(b'"');
        to.extend_from_slice(self.shown.as_bytes());
        if self.second.is_some() {
            let mut digits = [b'0'; FRACTION];
            let mut rest = nanos % SECOND;
            for digit in digits.iter_mut().rev() {
                *digit += (rest % 10) as u8;
                rest /= 10;
            }
            to.extend_from_slice(&digits);
            to.push(b'Z');
        }
        to.push(b'"');
    }
}

fn list<T>(to: &mut Vec<u8>, all: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    to.push(b'[');
    for (place, one) in all.iter().enumerate() {
        if place > 0 {
            to.push(b',');
        }
        each(to, one);
    }
    to.push(b']');
}

/// A string; what has to be escaped is left to serde.
fn text(to: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|octet| octet >= b' ' && octet != b'"' && octet != b'\\') {
        plain(to, text);
    } else {
        value(to, text);
    }
}

/// A string that has nothing to be escaped.
fn plain(to: &mut Vec<u8>, text: &str) {
    to.push(b'"');
    to.extend_from_slice(text.as_bytes());
    to.push(b'"');
}

fn value(to: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Writing to a vector does not fail.
    let _ = serde_json::to_writer(to, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::direct;
    use proptest::prelude::*;

    fn printed(name: Vec<u8>, address: IpAddr, nanos: u64, pod: &PodName) -> (Lookup, String) {
        let mut lookup = direct("web", 3);
        let label = if name.is_empty() { b"x".to_vec() } else { name };
        let mut builder = crate::model::NameBuilder::new();
        builder.push(&label).unwrap();
        lookup.name = builder.finish();
        (lookup.client, lookup.start) = (address, Timestamp::from_nanos(nanos));
        let mut octets = Vec::new();
        LookupJson::default().append(&mut octets, &lookup, (Some(pod), Some("app")), true);
        (lookup, String::from_utf8(octets).unwrap())
    }

    proptest! {
        #[test]
        fn every_value_is_read_back(
            name in prop::collection::vec(any::<u8>(), 0..63),
            address in any::<IpAddr>(),
            nanos in any::<u64>(),
            namespace in "\\PC*",
        ) {
            let pod = PodName { namespace, name: "web-1".into() };
            let (lookup, line) = printed(name, address, nanos, &pod);
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&read["name"], &lookup.name.to_string());
            prop_assert_eq!(&read["client"], &address.to_string());
            prop_assert_eq!(&read["start"], &Timestamp::from_nanos(nanos).to_string());
            prop_assert_eq!(&read["pod"], &pod.to_string());
            prop_assert_eq!(&read["duration_s"], &serde_json::json!(lookup.duration.as_secs_f64()));
            prop_assert_eq!(&read["k8s.container.name"], "app");
        }
    }

    #[test]
    fn times_of_one_second_and_of_the_next() {
        let mut json = LookupJson::default();
        for nanos in [1_500_000_000_000_000_001, 1_500_000_000_999_999_999, 1_500_000_001_000_000_000, 0] {
            let time = Timestamp::from_nanos(nanos);
            let mut octets = Vec::new();
            json.time(&mut octets, time);
            assert_eq!(String::from_utf8(octets).unwrap(), format!("\"{time}\""));
        }
    }
}
