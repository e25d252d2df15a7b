//! Search lists: known from a resolv.conf, or inferred from the candidates.
//!
//! The candidates of one walk share a base, the name the program asked; what is behind it is a suffix of the
//! search list or nothing (the name as it is). Without a resolv.conf the base is the longest prefix of labels that
//! the candidates share, and a rest is believed to be a suffix when it
//! - looks like Kubernetes: `NS.svc.DOMAIN`, `svc.DOMAIN`, or `DOMAIN` beside one of these;
//! - was a suffix of this client before;
//! - is a parent of, or below, another rest of the walk;
//!
//! or, unknown, when the candidate followed so promptly that no program could have asked in between.
//!
//! A walk never goes back: not from `svc.DOMAIN` to `NS.svc.DOMAIN`, nor to a suffix that the client's resolv.conf
//! or its walks so far have before the last one.

use crate::model::Name;
use smallvec::SmallVec;

/// The search list of a resolv.conf(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchList {
    /// The suffixes of `search`, in order.
    pub suffixes: Vec<Name>,
    /// `options ndots`: names with fewer dots get the suffixes first.
    pub ndots: u8,
}

impl SearchList {
    /// Reads the `search`, `domain` and `options ndots` lines; the last of each kind counts (resolv.conf(5)).
    /// Suffixes that are no domain names are left out.
    #[must_use]
    pub fn from_resolv_conf(text: &str) -> Self {
        let mut list = Self { suffixes: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("search") => {
                    list.suffixes =
                        words.filter_map(|w| w.parse().ok()).filter(|n: &Name| !n.is_root()).collect();
                }
                Some("domain") => list.suffixes = words.take(1).filter_map(|w| w.parse().ok()).collect(),
                Some("options") => {
                    let ndots =
                        words.filter_map(|w| w.strip_prefix("ndots:")?.parse::<u8>().ok()).next_back();
                    list.ndots = ndots.map_or(list.ndots, |n| n.min(15));
                }
                _ => {}
            }
        }
        list
    }
}

/// Suffixes that a client's walks showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Suffixes {
    seen: Vec<Suffix>,
}

#[derive(Clone, Debug)]
struct Suffix {
    wire: Box<[u8]>,
    count: u32,
    /// The most suffixes that came before it in a walk.
    place: usize,
}

const MOST_SUFFIXES: usize = 12;

impl Suffixes {
    /// Remembers the suffix of a candidate before which a walk had `place` other suffixes.
    pub(super) fn learn(&mut self, base: &Name, candidate: &Name, place: usize) {
        let (base, wire) = (base.as_wire(), candidate.as_wire());
        let Some(rest) = wire.get(base.len() - 1..).filter(|rest| rest.len() > 1) else { return };
        if let Some(known) = self.seen.iter_mut().find(|known| *known.wire == *rest) {
            known.count = known.count.saturating_add(1);
            known.place = known.place.max(place);
            return;
        }
        if self.seen.len() >= MOST_SUFFIXES {
            let least = self.seen.iter().enumerate().min_by_key(|(_, known)| known.count);
            if let Some((index, _)) = least {
                self.seen.remove(index);
            }
        }
        self.seen.push(Suffix { wire: rest.into(), count: 1, place });
    }

    fn has(&self, rest: &[u8]) -> bool {
        self.place(rest).is_some()
    }

    fn place(&self, rest: &[u8]) -> Option<usize> {
        self.seen.iter().find(|known| *known.wire == *rest).map(|known| known.place)
    }

    /// The suffix `NS.svc.DOMAIN` seen most often: what this client's walks begin with.
    fn first(&self) -> Option<&[u8]> {
        let own = self.seen.iter().filter(|known| cluster_depth(&known.wire) == Some(1));
        own.max_by_key(|known| known.count).map(|known| &*known.wire)
    }
}

/// What is known of a client's search list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Knowledge<'a> {
    pub(super) told: Option<&'a SearchList>,
    pub(super) seen: Option<&'a Suffixes>,
}

/// Whether `name` can be the next candidate of a walk that asked `names`, in this order. `prompt`: it followed at
/// once.
pub(super) fn continues(names: &[&[u8]], name: &[u8], knowledge: &Knowledge<'_>, prompt: bool) -> bool {
    let mut all: SmallVec<[&[u8]; 8]> = SmallVec::from_slice(names);
    all.push(name);
    if let Some(list) = knowledge.told {
        return base_of_list(&all, list).is_some_and(|base| {
            let place = |name: &[u8]| {
                let rest = name.get(base..).unwrap_or_default();
                list.suffixes.iter().position(|suffix| suffix.as_wire() == rest)
            };
            let goes_back = names.last().and_then(|last| Some(place(name)? < place(last)?));
            goes_back != Some(true) && !is_finished(names, base)
        });
    }
    let base = common_prefix(&all);
    if base == 0 || is_finished(names, base) {
        return false;
    }
    let rests: SmallVec<[&[u8]; 8]> = names.iter().map(|n| n.get(base..).unwrap_or_default()).collect();
    let new = name.get(base..).unwrap_or_default();
    let as_is = |rest: &[u8]| rest.len() <= 1;
    if as_is(new) || rests.first().is_some_and(|r| as_is(r)) {
        return true;
    }
    if goes_back(&rests, new, knowledge) {
        return false;
    }
    let believed = |rest: &[u8]| {
        as_is(rest)
            || cluster_depth(rest).is_some_and(|depth| depth <= 1)
            || knowledge.seen.is_some_and(|s| s.has(rest))
            || rests.iter().any(|other| other.len() > rest.len() && other.ends_with(rest))
    };
    prompt || rests.iter().all(|r| believed(r)) || rests.iter().any(|r| is_below(new, r))
}

/// Whether the suffix `new` comes before one of `rests` in the search list, as far as that shows.
fn goes_back(rests: &[&[u8]], new: &[u8], knowledge: &Knowledge<'_>) -> bool {
    let kubernetes =
        cluster_depth(new).is_some() && rests.iter().any(|rest| rest.len() > 1 && is_below(new, rest));
    let place = |rest: &[u8]| knowledge.seen.and_then(|seen| seen.place(rest));
    kubernetes || rests.last().and_then(|last| Some(place(new)? < place(last)?)) == Some(true)
}

fn is_below(rest: &[u8], other: &[u8]) -> bool {
    !other.is_empty() && rest.len() > other.len() && rest.ends_with(other) && {
        let mut at = 0;
        let cut = rest.len() - other.len();
        while at < cut {
            at += 1 + rest.get(at).map_or(0, |&l| usize::from(l));
        }
        at == cut
    }
}

/// A walk ends with the name as it is, unless it began with it.
fn is_finished(names: &[&[u8]], base: usize) -> bool {
    names.iter().skip(1).any(|n| n.len() == base + 1)
}

/// Octets of the name that a program asked when `names` are its candidates, root label not counted.
pub(super) fn base(names: &[&[u8]], knowledge: &Knowledge<'_>) -> usize {
    let whole = names.first().map_or(0, |n| n.len().saturating_sub(1));
    if let Some(list) = knowledge.told
        && let Some(base) = base_of_list(names, list)
    {
        return base;
    }
    match names {
        [] => 0,
        [name] => {
            let first = knowledge.seen.and_then(Suffixes::first);
            let suffix = match first {
                Some(first) => is_below(name, first).then_some(first.len()),
                None => namespace_suffix(name),
            };
            suffix.map_or(whole, |length| name.len() - length)
        }
        _ => match common_prefix(names) {
            0 => whole,
            base => base,
        },
    }
}

/// The base that all names have with suffixes of the list, tried in the order in which a walk begins.
fn base_of_list(names: &[&[u8]], list: &SearchList) -> Option<usize> {
    let first = names.first()?;
    let suffix_of = |name: &[u8], base: usize| {
        name.get(base..).is_some_and(|rest| {
            rest.len() <= 1 || list.suffixes.iter().any(|suffix| suffix.as_wire() == rest)
        })
    };
    let begins = list.suffixes.iter().map(|s| s.as_wire().len()).chain([1]);
    begins
        .enumerate()
        .filter_map(|(index, length)| {
            let base = first.len().checked_sub(length)?;
            let dots = labels(first.get(..base)?).saturating_sub(1);
            let in_order = index == 0 || index == list.suffixes.len();
            let expanded = index < list.suffixes.len();
            let allowed = in_order && (!expanded || dots < usize::from(list.ndots));
            (base > 0 && (allowed || names.len() > 1)).then_some(base)
        })
        .find(|&base| {
            let prefix = first.get(..base).unwrap_or_default();
            names.iter().all(|n| n.starts_with(prefix) && suffix_of(n, base))
        })
}

/// Octets of the labels that all names begin with.
fn common_prefix(names: &[&[u8]]) -> usize {
    let Some((first, others)) = names.split_first() else { return 0 };
    let mut end = 0;
    while let Some(&length) = first.get(end).filter(|&&l| l > 0) {
        let next = end + 1 + usize::from(length);
        if next >= first.len() || !others.iter().all(|n| n.get(..next) == first.get(..next)) {
            break;
        }
        end = next;
    }
    end
}

fn labels(prefix: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Some(&length) = prefix.get(at).filter(|&&l| l > 0) {
        at += 1 + usize::from(length);
        count += 1;
    }
    count
}

/// How many labels are before `svc` in a name below `svc.DOMAIN`: 0 for `svc.DOMAIN` itself.
pub(super) fn cluster_depth(wire: &[u8]) -> Option<usize> {
    let (mut at, mut depth, mut found) = (0, 0, None);
    while let Some(&length) = wire.get(at).filter(|&&l| l > 0) {
        let next = at + 1 + usize::from(length);
        if wire.get(at + 1..next) == Some(b"svc") && wire.get(next).is_some_and(|&l| l > 0) {
            found = Some(depth);
        }
        at = next;
        depth += 1;
    }
    found
}

/// Octets of `NS.svc.DOMAIN` (root label included) in a name below it.
fn namespace_suffix(wire: &[u8]) -> Option<usize> {
    let before = cluster_depth(wire)?.checked_sub(1).filter(|&before| before > 0)?;
    let mut at = 0;
    for _ in 0..before {
        at += 1 + wire.get(at).map_or(0, |&l| usize::from(l));
    }
    wire.len().checked_sub(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wires(names: &[&str]) -> Vec<Name> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn base_text(names: &[&str], knowledge: &Knowledge<'_>) -> String {
        let names = wires(names);
        let slices: Vec<&[u8]> = names.iter().map(Name::as_wire).collect();
        let mut wire = slices[0][..base(&slices, knowledge)].to_vec();
        wire.push(0);
        Name::from_wire(&wire).unwrap().to_string()
    }

    fn walks(names: &[&str], next: &str, prompt: bool) -> bool {
        let (names, next) = (wires(names), wires(&[next]));
        let slices: Vec<&[u8]> = names.iter().map(Name::as_wire).collect();
        continues(&slices, next[0].as_wire(), &Knowledge::default(), prompt)
    }

    #[test]
    fn the_base_is_what_the_candidates_share() {
        let unknown = Knowledge::default();
        assert_eq!(base_text(&["a.b.ns.svc.cluster.local", "a.b.svc.cluster.local", "a.b"], &unknown), "a.b");
        assert_eq!(base_text(&["web.ns.svc.cluster.local"], &unknown), "web");
        assert_eq!(base_text(&["api.example.com"], &unknown), "api.example.com");
    }

    #[test]
    fn a_known_list_tells_an_asked_name_from_an_expanded_one() {
        let list =
            SearchList::from_resolv_conf("search ns.svc.cluster.local svc.cluster.local\noptions ndots:5");
        let told = Knowledge { told: Some(&list), seen: None };
        assert_eq!(base_text(&["web.ns.svc.cluster.local"], &told), "web");
        assert_eq!(base_text(&["web.svc.cluster.local"], &told), "web.svc.cluster.local");
        assert_eq!(
            base_text(&["a.b.c.d.e.f.ns.svc.cluster.local"], &told),
            "a.b.c.d.e.f.ns.svc.cluster.local"
        );
    }

    #[test]
    fn unrelated_names_are_no_walk() {
        assert!(walks(&["www.ns.svc.cluster.local"], "www.svc.cluster.local", false));
        assert!(walks(&["www.corp.example"], "www", false));
        assert!(!walks(&["www.example.com"], "www.example.net", false));
        assert!(!walks(&["a.ns.svc.cluster.local"], "b.svc.cluster.local", true));
        assert!(!walks(&["a.corp", "a"], "a.lan", true), "the name as it is ends the walk");
    }

    #[test]
    fn a_walk_never_goes_back_in_its_search_list() {
        assert!(!walks(&["a.b.svc.cluster.local"], "a.b.default.svc.cluster.local", false));
        assert!(!walks(&["a.cluster.local"], "a.svc.cluster.local", true));
        let names = wires(&["a.corp.example", "a.lan.example", "a"]);
        let [corp, lan, base] = names.as_slice() else { panic!() };
        let mut seen = Suffixes::default();
        seen.learn(base, corp, 0);
        seen.learn(base, lan, 1);
        let list = SearchList::from_resolv_conf("search corp.example lan.example\noptions ndots:5");
        for knowledge in
            [Knowledge { told: None, seen: Some(&seen) }, Knowledge { told: Some(&list), seen: None }]
        {
            assert!(continues(&[corp.as_wire()], lan.as_wire(), &knowledge, false));
            assert!(!continues(&[lan.as_wire()], corp.as_wire(), &knowledge, false));
        }
    }

    #[test]
    fn reads_resolv_conf() {
        let list = SearchList::from_resolv_conf(
            "domain old.example\nsearch a.example b.example.\noptions timeout:1 ndots:2 ndots:3\nnameserver ::1",
        );
        assert_eq!(list, SearchList { suffixes: wires(&["a.example", "b.example"]), ndots: 3 });
    }
}
