//! What the lookups of a client add up to: a score for each family, in tenths of a bit of likelihood.

use crate::model::Family;

/// The lead over the second that a family needs; glibc's ids are easily taken for random ones and back.
const LEAD: i32 = 10;
const LEAD_OF_GLIBC: i32 = 20;
/// A score is kept within these bounds, so that a client that changes its resolver is known again soon.
const BOUND: i32 = 600;

/// No pair or two adds so much to a family.
const MANY: i32 = 200;

const FAMILIES: [(Family, i32); 9] = [
    // What clients in clusters run, before anything is seen.
    (Family::Glibc, 4),
    (Family::Musl, 4),
    (Family::Go, 4),
    (Family::CAresBefore120, 0),
    (Family::CAresFrom120, 0),
    (Family::BindTools, 0),
    (Family::BusyboxNslookup, -20),
    (Family::Haproxy, -10),
    (Family::Nginx, -10),
];
const DNSMASQ: (Family, i32) = (Family::Dnsmasq, -10);

/// Evidence so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Votes {
    scores: [i32; FAMILIES.len() + 1],
}

fn families() -> impl Iterator<Item = (Family, i32)> {
    FAMILIES.into_iter().chain([DNSMASQ])
}

/// A family's place among [`families`].
const fn place(family: Family) -> Option<usize> {
    Some(match family {
        Family::Glibc => 0,
        Family::Musl => 1,
        Family::Go => 2,
        Family::CAresBefore120 => 3,
        Family::CAresFrom120 => 4,
        Family::BindTools => 5,
        Family::BusyboxNslookup => 6,
        Family::Haproxy => 7,
        Family::Nginx => 8,
        Family::Dnsmasq => 9,
        _ => return None,
    })
}

impl Votes {
    pub(super) fn add(&mut self, weights: &[(Family, i32)]) {
        for &(family, weight) in weights {
            if let Some(score) = place(family).and_then(|place| self.scores.get_mut(place)) {
                *score = (*score + weight).clamp(-BOUND, BOUND);
            }
        }
    }

    /// Whether more than a pair or two was seen.
    pub(super) fn are_many(&self) -> bool {
        self.scores.iter().any(|&score| score >= MANY)
    }

    /// Whether so much was seen that a look at a lookup now and then is enough.
    pub(super) fn is_settled(&self) -> bool {
        self.scores.iter().any(|&score| score >= BOUND / 2)
    }

    /// The family that leads clearly.
    pub(super) fn family(&self) -> Family {
        if self.scores.iter().all(|&score| score == 0) {
            return Family::Unknown;
        }
        // The first three; of equal ones the first comes first.
        let [mut first, mut next, mut last] = [(i32::MIN, Family::Unknown); 3];
        for (score, (family, prior)) in self.scores.iter().zip(families()) {
            let new = (score + prior, family);
            if new.0 > first.0 {
                (first, next, last) = (new, first, next);
            } else if new.0 > next.0 {
                (next, last) = (new, next);
            } else if new.0 > last.0 {
                last = new;
            }
        }
        let is_c_ares = |f| matches!(f, Family::CAresBefore120 | Family::CAresFrom120);
        let ((best, family), (second, other), (third, _)) = (first, next, last);
        let lead = if family == Family::Glibc { LEAD_OF_GLIBC } else { LEAD };
        if best - second >= lead {
            family
        } else if is_c_ares(family) && is_c_ares(other) && best - third >= LEAD {
            Family::CAres
        } else {
            Family::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_evidence_is_unknown() {
        assert_eq!(Votes::default().family(), Family::Unknown);
    }
}
