//! What several rules ask of a lookup.

use super::Evidence;
use crate::model::{Lookup, Name, Question, Step};
use std::net::IpAddr;

/// What `candidate` has behind the name that was asked: its search suffix, the root where there is none.
/// `None` where it does not start with `asked`.
pub(super) fn suffix_of(candidate: &Name, asked: &Name) -> Option<Name> {
    let labels = asked.as_wire().split_last().map_or(&[][..], |(_, labels)| labels);
    let rest = candidate.as_wire().strip_prefix(labels)?;
    let mut suffix = Name::ROOT;
    suffix.copy_wire(rest);
    Some(suffix)
}

/// The first frame of each query message of a step.
pub(super) fn first_frames(step: &Step) -> impl Iterator<Item = Evidence> {
    step.questions.iter().flat_map(frames)
}

/// The first frame of each query message of a question.
pub(super) fn frames(question: &Question) -> impl Iterator<Item = Evidence> {
    question.transmissions.iter().filter_map(|sent| sent.hops.first()).map(Evidence::from)
}

/// Every question of a lookup.
pub(super) fn questions(lookup: &Lookup) -> impl Iterator<Item = &Question> {
    lookup.steps.iter().flat_map(|step| &step.questions)
}

/// The server that a question's first message went to.
pub(super) fn server_of(question: &Question) -> Option<IpAddr> {
    question.transmissions.first().map(|sent| sent.server.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_what_follows_the_asked_name_on_a_label_boundary() {
        let cases = [
            ("web.default.svc", "web", Some("default.svc")),
            ("web", "web", Some(".")),
            ("webs.default.svc", "web", None),
            ("default.svc", "web", None),
        ];
        for (candidate, asked, suffix) in cases {
            let shown =
                suffix_of(&candidate.parse().unwrap(), &asked.parse().unwrap()).map(|s| s.to_string());
            assert_eq!(shown.as_deref(), suffix, "{candidate} of {asked}");
        }
    }
}
