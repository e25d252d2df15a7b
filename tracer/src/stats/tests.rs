use super::*;
use crate::findings::testing::{ask, at, direct, lookup, messages, searched};
use crate::model::{Family, Retransmission, RetransmissionKind};
use std::time::Duration;

fn counted(lookups: &[Lookup]) -> Stats {
    let mut stats = Stats::default();
    for lookup in lookups {
        for question in lookup.steps.iter().flat_map(|step| &step.questions) {
            for message in messages(question) {
                stats.message(&message);
            }
            stats.question(question);
        }
        stats.lookup(lookup);
    }
    stats
}

#[test]
fn a_search_counts_its_waste_and_its_nxdomains() {
    let stats = counted(&[searched("api.example.com", Family::Glibc, 1), direct("web", 50)]);
    let totals = stats.totals();
    assert_eq!((totals.lookups, totals.queries, totals.responses), (2, 10, 10));
    assert_eq!((totals.wasted_search_queries, totals.nxdomain_responses, totals.unanswered), (6, 6, 0));
    assert_eq!(totals.empty_noerror, BTreeMap::from([(Rtype::AAAA, 1)]));
    assert_eq!(totals.results, BTreeMap::from([(LookupResult::Ok, 2)]));
    assert_eq!(stats.span(), Some((at(1), at(51))));
}

#[test]
fn a_retransmission_is_a_query_and_its_lost_twin_is_unanswered() {
    let a = ask("web", Rtype::A, 0).address("10.96.4.7").build();
    let aaaa = ask("web", Rtype::AAAA, 0).again(5_000, RetransmissionKind::Timeout).empty().build();
    let stats = counted(&[lookup("web", Family::Glibc, LookupResult::Ok, vec![a, aaaa])]);
    let totals = stats.totals();
    assert_eq!((totals.queries, totals.retransmissions, totals.unanswered), (3, 1, 1));
    assert_eq!(stats.latency().max(), Some(Duration::from_millis(5_001)), "what the client waited");
    let servers = stats.servers().ranked();
    let (_, server) = servers[0];
    assert_eq!(server.latency.max(), Some(Duration::from_millis(1)), "what the server took");
    assert_eq!((server.queries, server.answered, server.unanswered), (3, 2, 1));
}

#[test]
fn a_question_asked_all_over_again_is_a_retransmission() {
    let a = ask("many", Rtype::A, 0).address("10.96.4.7").build();
    let again = ask("many", Rtype::A, 2).address("10.96.4.7").build();
    let mut twice = lookup("many", Family::Glibc, LookupResult::Ok, vec![a, again]);
    twice.retransmissions = vec![Retransmission {
        gap: Duration::from_millis(2),
        kind: RetransmissionKind::AnsweredAgain,
        same_id: false,
        same_port: false,
        server_changed: false,
    }];
    assert_eq!(counted(&[twice]).totals().retransmissions, 1);
}

#[test]
fn late_and_truncated_answers_are_told_apart() {
    let late = ask("web", Rtype::A, 0).answered(Rcode::NOERROR, &["10.96.4.7"], 6_000).late().build();
    let cut = ask("big", Rtype::A, 0).truncated().over_tcp(2).address("10.96.4.8").build();
    let stats = counted(&[
        lookup("web", Family::Musl, LookupResult::Timeout, vec![late]),
        lookup("big", Family::Musl, LookupResult::Ok, vec![cut]),
    ]);
    let totals = stats.totals();
    assert_eq!((totals.late_responses, totals.tc_responses), (1, 1));
    assert_eq!((totals.udp_queries, totals.tcp_queries, totals.retransmissions), (2, 1, 0));
    assert!(totals.empty_noerror.is_empty(), "a truncated answer is not empty");
    assert_eq!(stats.latency().count(), 1, "a late answer is no latency");
}

#[test]
fn suspicious_answers_are_those_of_suspicious_names() {
    let mut stopped = lookup(
        "api.example.com",
        Family::Musl,
        LookupResult::Nodata,
        [Rtype::A, Rtype::AAAA].map(|t| ask("api.example.com.cluster.local", t, 0).empty().build()).to_vec(),
    );
    assert_eq!(counted(&[stopped.clone()]).totals().suspicious_empty_noerror, 0);
    stopped.suspicious_names.push(stopped.steps[0].name);
    assert_eq!(counted(&[stopped]).totals().suspicious_empty_noerror, 2);
}

#[test]
fn tables_stay_bounded_and_nothing_is_lost_from_the_sums() {
    let mut stats = Stats::default();
    for n in 0..400_u16 {
        let [high, low] = n.to_be_bytes();
        let question = ask("web", Rtype(n), 0).to(&format!("10.0.{high}.{low}")).empty().build();
        stats.question(&question);
        for message in messages(&question) {
            stats.message(&message);
        }
    }
    assert_eq!(stats.servers().ranked().len(), 256);
    assert_eq!(stats.servers().other().unwrap().queries, 144);
    let totals = stats.totals();
    assert_eq!(totals.empty_noerror.len(), 32);
    assert_eq!(totals.empty_noerror_other, 368);
}
