//! Which resolver a client runs: votes of all its lookups.
//!
//! Each thing a lookup shows adds to or takes from a family's score: tenths of a bit of likelihood, against a
//! resolver with random ids and ports. What is looked at:
//! - OPT: its size, a cookie; DF (BIND's tools send without it);
//! - the ids of an A and AAAA pair: musl takes the clock's nanoseconds, so AAAA's is a little greater; glibc folds
//!   a clock into the id, so its lower octet (as on the wire) changes by a small step;
//! - ports: one per pair, per question, or one for all candidates;
//! - IPv4 identifications of candidates from different ports: one counter for the destination shows sockets that
//!   are not connected (musl, dnsmasq), unrelated ones show connected sockets (glibc, Go);
//! - retries: after 2.5 s, after 2 s, doubling or not; what is asked again that was answered; copies to several
//!   servers.
//!
//! A single pair errs, so a client's votes add up, and without a clear lead the family is unknown. A pair between
//! whose queries the client waited for a processor says little by its ids: it may have waited between those too.

use super::{
    Engine,
    questions::{COPY_WINDOW, Standing},
    records::{Bits, MessageRecord, Role},
    table::{NONE, Place},
    votes::Votes,
};
use crate::model::{Edns, Family, RetransmissionKind, Rtype};
use smallvec::SmallVec;

const MILLISECOND: u64 = 1_000_000;
/// Nobody takes so long between a pair's queries, unless it waits for a processor.
const WAITED: u64 = MILLISECOND;
/// What the ids of such a pair count against a family at most.
const MOST_OF_WAITED_IDS: i32 = 10;
/// Ids that a program takes from its C library count so much for it at most.
const MOST_OF_ANOTHERS_IDS: i32 = 25;
/// Of a client well known, one question in so many begins a lookup that is looked at.
const SAMPLE: u64 = 8;

/// The first query message of a question, and what else the votes look at.
struct Asked<'a> {
    message: &'a MessageRecord,
    name: super::intern::NameId,
    qtype: Rtype,
    /// When its first answer came.
    answered: Option<u64>,
}

impl Engine {
    /// Adds what a lookup shows.
    pub(super) fn vote(&self, lookup: Place, votes: &mut Votes) {
        if votes.is_settled() && !self.lookups.at(lookup).number.is_multiple_of(SAMPLE) {
            return;
        }
        let mut asked: SmallVec<[Asked<'_>; 12]> = SmallVec::new();
        let mut question = self.lookups.at(lookup).first_question;
        while question != NONE && asked.len() < 12 {
            let record = self.questions.at(question);
            let message = self.messages.at(record.first);
            let answered = match self.standing(question, u64::MAX) {
                Standing::Final(time) | Standing::Failed(_, time) => Some(time),
                _ => None,
            };
            asked.push(Asked { message, name: record.name, qtype: Rtype(record.qtype), answered });
            question = record.next;
        }
        asked.sort_by_key(|a| a.message.time);
        let Some(first) = asked.first() else { return };
        vote_for_options(first, votes);
        vote_for_pairs(&asked, votes);
        vote_for_candidates(&asked, votes);
        for asked in &asked {
            self.vote_for_retries(asked, votes);
        }
        self.vote_for_turns(&asked, votes);
        self.vote_for_half_lost(&asked, votes);
    }

    /// glibc begins a pair anew when one of it was lost: A, then AAAA when A has its answer, whichever was answered
    /// before. When one of it failed it asks neither again. Others ask the lost or failed one alone.
    fn vote_for_half_lost(&self, asked: &[Asked<'_>], votes: &mut Votes) {
        let [one, other, ..] = asked else { return };
        if one.name != other.name || one.message.client.port() != other.message.client.port() {
            return;
        }
        let timed_out = |asked: &Asked<'_>| {
            let role = self.messages.at(asked.message.next).role;
            matches!(role, Role::Retransmission { kind: RetransmissionKind::Timeout, .. })
        };
        let failed = |asked: &Asked<'_>| is_failed_again(self.messages.at(asked.message.next).role);
        let done = |asked: &Asked<'_>| asked.message.next == NONE && asked.answered.is_some();
        let (a, aaaa) = if one.qtype == Rtype::A { (one, other) } else { (other, one) };
        if (timed_out(aaaa) && done(a))
            || (timed_out(a) && a.answered.is_some() && done(aaaa))
            || (failed(a) && done(aaaa))
            || (failed(aaaa) && done(a))
        {
            votes.add(&[(Family::Glibc, -60)]);
        }
    }

    /// glibc takes a pair's answers together: it asks both again once both failed, and over TCP once one was
    /// truncated. Others go on with each question when its own answer came.
    fn vote_for_turns(&self, asked: &[Asked<'_>], votes: &mut Votes) {
        let [one, other, ..] = asked else { return };
        if one.name != other.name || one.message.client.port() != other.message.client.port() {
            return;
        }
        let (again, sibling) = (self.messages.at(one.message.next), self.messages.at(other.message.next));
        let (first, second) = (self.messages.at(one.message.peer), self.messages.at(other.message.peer));
        if one.message.next == NONE || other.message.next == NONE || one.message.peer == NONE {
            return;
        }
        let prompt = again.time.saturating_sub(first.time) < COPY_WINDOW;
        if again.role == Role::TcpFallback && sibling.role == Role::TcpFallback && prompt {
            // Both in one segment: others too, where the second was truncated before the connection stood.
            let unasked = other.message.peer == NONE || sibling.time < second.time;
            let in_one = sibling.time == again.time;
            votes.add(&[(
                Family::Glibc,
                if unasked {
                    30
                } else if in_one {
                    6
                } else {
                    -40
                },
            )]);
        } else if is_failed_again(again.role) && prompt {
            let together = other.message.peer != NONE && again.time >= second.time;
            votes.add(&[(Family::Glibc, if together { 24 } else { -30 })]);
        }
    }

    fn vote_for_retries(&self, asked: &Asked<'_>, votes: &mut Votes) {
        let (mut gaps, mut at_once): (SmallVec<[u64; 4]>, usize) = (SmallVec::new(), 0);
        let mut tries_at_once = 0;
        let mut place = asked.message.next;
        while place != NONE {
            let message = self.messages.at(place);
            let before = self.messages.at(message.previous);
            let gap = message.time.saturating_sub(before.time);
            match message.role {
                Role::ParallelCopy if message.client.port() == before.client.port() => votes.add(&[
                    (Family::Musl, 30),
                    (Family::Dnsmasq, 30),
                    (Family::Glibc, -60),
                    (Family::Go, -60),
                    (Family::CAresBefore120, -60),
                    (Family::CAresFrom120, -60),
                ]),
                Role::ParallelCopy => votes.add(&[(Family::Haproxy, 40)]),
                Role::Retransmission { kind, same_id, same_port, server_changed } => {
                    vote_for_retry(gap, kind, (same_id, same_port, server_changed), votes);
                    at_once += usize::from(gap < COPY_WINDOW && kind == RetransmissionKind::Servfail);
                    tries_at_once += usize::from(gap < COPY_WINDOW && same_id && !server_changed);
                    if gap > 200 * MILLISECOND && same_port && !server_changed {
                        gaps.push(gap);
                    }
                }
                Role::TcpFallback => votes.add(&[(Family::BusyboxNslookup, -60)]),
                Role::First => {}
            }
            place = message.next;
        }
        if at_once >= 4 {
            votes.add(&[(Family::Musl, 40), (Family::Glibc, -20)]);
        }
        // glibc tries twice, c-ares four times.
        if tries_at_once >= 3 {
            votes.add(&[(Family::Glibc, -40)]);
        }
        if let [first, second, ..] = gaps.as_slice()
            && !asked.message.dns.has_edns()
        {
            if *second * 2 > *first * 3 {
                votes.add(&[(Family::CAresBefore120, 40), (Family::Nginx, -60), (Family::Glibc, -30)]);
            } else {
                votes.add(&[(Family::Nginx, 10), (Family::CAresBefore120, -40)]);
            }
        }
    }
}

const fn is_failed_again(role: Role) -> bool {
    let Role::Retransmission { kind, .. } = role else { return false };
    matches!(kind, RetransmissionKind::Servfail | RetransmissionKind::Refused)
}

fn vote_for_retry(
    gap: u64,
    kind: RetransmissionKind,
    (same_id, same_port, server_changed): (bool, bool, bool),
    votes: &mut Votes,
) {
    let about = |milliseconds: u64| gap.abs_diff(milliseconds * MILLISECOND) < 60 * MILLISECOND;
    if kind == RetransmissionKind::AnsweredAgain && gap > 200 * MILLISECOND {
        votes.add(&[(Family::Glibc, 40), (Family::Musl, -20), (Family::CAresBefore120, -20)]);
    }
    if !same_id {
        votes.add(&[(Family::Go, 20), (Family::Glibc, -30), (Family::Musl, -60)]);
    } else if kind == RetransmissionKind::Refused && gap < COPY_WINDOW {
        votes.add(&[(Family::Musl, -40)]);
    } else if about(2_500) && same_port {
        votes.add(&[(Family::Musl, 30), (Family::BusyboxNslookup, 40), (Family::Glibc, -20)]);
    } else if about(5_000) && same_port {
        votes.add(&[(Family::Musl, -10), (Family::BusyboxNslookup, -20)]);
        // glibc sleeps in one poll() of 5 s, which the kernel may end a thousandth later (select_estimate_accuracy);
        // c-ares's caller wakes for the nearest of its timers. Where processors are full, everybody wakes late.
        if gap < 5_002_500_000 {
            votes.add(&[(Family::Glibc, -14), (Family::CAresBefore120, 14), (Family::Nginx, 14)]);
        } else {
            votes.add(&[(Family::Glibc, 4)]);
        }
    } else if server_changed && kind == RetransmissionKind::Timeout && (about(3_000) || about(6_000)) {
        // glibc alone divides its timeout among the servers: 5, 3 and 6 s for three.
        votes.add(&[(Family::Glibc, 15), (Family::CAresBefore120, -15), (Family::BusyboxNslookup, -15)]);
    } else if !same_port && !server_changed && kind == RetransmissionKind::Timeout {
        votes.add(&[(Family::CAresFrom120, 10), (Family::Musl, -60), (Family::CAresBefore120, -20)]);
    }
}

fn vote_for_options(first: &Asked<'_>, votes: &mut Votes) {
    let message = first.message;
    // IPv6 has no identification and no DF; over TCP both say nothing.
    if message.ip_id != 0 && !message.bits.has(Bits::TCP) {
        if message.bits.has(Bits::DONT_FRAGMENT) {
            votes.add(&[(Family::BindTools, -60)]);
        } else {
            let others = [
                Family::Glibc,
                Family::Musl,
                Family::Go,
                Family::CAresBefore120,
                Family::CAresFrom120,
                Family::Haproxy,
                Family::Nginx,
            ];
            votes.add(&[(Family::BindTools, 60)]);
            votes.add(&others.map(|family| (family, -40)));
        }
    }
    match message.dns.edns() {
        None if message.dns.has_edns() => votes.add(&[(Family::Musl, -80), (Family::CAresBefore120, -40)]),
        None => votes.add(&[(Family::Go, -80), (Family::CAresFrom120, -40), (Family::Haproxy, -60)]),
        Some(Edns { cookie: true, .. }) => votes.add(&[
            (Family::CAresFrom120, 80),
            (Family::BindTools, 60),
            (Family::Glibc, -60),
            (Family::Musl, -80),
            (Family::Go, -60),
        ]),
        Some(Edns { udp_payload_size: 512, .. }) => {
            votes.add(&[(Family::Haproxy, 80), (Family::Musl, -80), (Family::Go, -60)]);
        }
        Some(Edns { udp_payload_size: 1200, .. }) => votes.add(&[(Family::Glibc, 80), (Family::Musl, -80)]),
        Some(_) => votes.add(&[
            (Family::Go, 40),
            (Family::CAresFrom120, 30),
            (Family::Glibc, -40),
            (Family::Musl, -80),
            (Family::CAresBefore120, -40),
            (Family::Nginx, -60),
            (Family::BusyboxNslookup, -60),
            (Family::Dnsmasq, -20),
        ]),
    }
}

/// A and AAAA of each candidate that were sent together.
fn vote_for_pairs(asked: &[Asked<'_>], votes: &mut Votes) {
    for (index, one) in asked.iter().enumerate() {
        let sibling = asked.iter().skip(index + 1).find(|other| {
            other.name == one.name
                && other.qtype != one.qtype
                && other.qtype.is_address()
                && one.qtype.is_address()
        });
        let Some(other) = sibling else { continue };
        let (a, b) = (one.message, other.message);
        let together =
            one.answered.is_none_or(|time| time > b.time) && b.time.saturating_sub(a.time) < 20 * MILLISECOND;
        let same_port = a.client.port() == b.client.port();
        let edns = a.dns.has_edns();
        if !same_port {
            if a.server != b.server {
                // A channel of c-ares has a socket for each server, and Go one for each query: where servers are taken
                // in turn both look alike.
                votes.add(&[(Family::Glibc, -40), (Family::Musl, -80), (Family::Dnsmasq, -20)]);
                votes.add(&[(Family::CAresFrom120, if edns { 10 } else { 0 })]);
            } else if together && edns {
                votes.add(&[(Family::Go, 40), (Family::CAresFrom120, -40), (Family::Glibc, -60)]);
            } else if together {
                let one_counter = (1..16).contains(&b.ip_id.wrapping_sub(a.ip_id));
                votes.add(&[
                    (Family::Dnsmasq, if one_counter { 40 } else { 10 }),
                    (Family::Glibc, -40),
                    (Family::Musl, -80),
                    (Family::CAresBefore120, -60),
                    (Family::BusyboxNslookup, -60),
                    (Family::Nginx, -40),
                ]);
            } else {
                // One after the other from new ports: BIND's tools, glibc with single-request-reopen.
                votes.add(&[(Family::Musl, -40), (Family::CAresBefore120, -30), (Family::Nginx, -30)]);
            }
            continue;
        }
        votes.add(&[(Family::Go, -60), (Family::BindTools, -40), (Family::Dnsmasq, -80)]);
        if one.qtype == Rtype::AAAA {
            votes.add(&[(Family::Glibc, -40), (Family::Musl, -40)]);
        } else if a.dns.id == b.dns.id {
            votes.add(&[(Family::Haproxy, 20), (Family::Musl, -40)]);
        } else {
            let waited = b.time.saturating_sub(a.time) > WAITED;
            vote_for_ids(a.dns.id, b.dns.id, index == 0, waited, votes);
        }
    }
}

fn vote_for_ids(a: u16, b: u16, first_pair: bool, waited: bool, votes: &mut Votes) {
    let apart = b.wrapping_sub(a);
    let musl = match apart {
        100..512 => 70,
        20..100 => 30,
        1..20 => 0,
        // Of 800 pairs none was held up so long.
        512..1024 => -20,
        1024..2048 => -30,
        _ => -80,
    };
    let least = if waited { -MOST_OF_WAITED_IDS } else { i32::MIN };
    let musl = musl.max(least);
    votes.add(&[(Family::Musl, musl)]);
    let octet = usize::from((a ^ b) & 0xff);
    let table = if first_pair { &COLD } else { &WARM };
    let weight = |table: &[i16; 256]| i32::from(table.get(octet).copied().unwrap_or(0)).max(least);
    votes.add(&[
        (Family::Glibc, weight(table)),
        (Family::BusyboxNslookup, weight(&BUSYBOX).max(musl - 20).min(MOST_OF_ANOTHERS_IDS)),
    ]);
}

/// How one candidate's messages differ from the next one's.
fn vote_for_candidates(asked: &[Asked<'_>], votes: &mut Votes) {
    let mut names: SmallVec<[&Asked<'_>; 8]> = SmallVec::new();
    for one in asked {
        if names.iter().all(|known| known.name != one.name) {
            names.push(one);
        }
    }
    for pair in names.windows(2) {
        let [before, after] = pair else { continue };
        let (a, b) = (before.message, after.message);
        if a.bits.has(Bits::TCP) || b.bits.has(Bits::TCP) {
            continue;
        }
        if a.client.port() == b.client.port() {
            // The other type of the one before comes after this one: first all names, then all again.
            let in_rounds = asked
                .iter()
                .any(|o| o.name == before.name && o.qtype != before.qtype && o.message.time > b.time);
            let at_once = (in_rounds || before.answered.is_none_or(|time| time > b.time))
                && b.time.saturating_sub(a.time) < 20 * MILLISECOND;
            votes.add(&[
                (Family::CAresBefore120, if at_once { -40 } else { 30 }),
                (Family::CAresFrom120, if at_once { -40 } else { 30 }),
                (Family::BusyboxNslookup, if at_once { 60 } else { -20 }),
                (Family::Glibc, -50),
                (Family::Musl, -50),
                (Family::Go, -60),
            ]);
            continue;
        }
        votes.add(&[(Family::CAresBefore120, -30), (Family::BusyboxNslookup, -40), (Family::Nginx, -30)]);
        if a.ip_id == 0 || b.ip_id == 0 {
            continue;
        }
        if (1..24).contains(&b.ip_id.wrapping_sub(a.ip_id)) {
            votes.add(&[(Family::Musl, 30), (Family::Dnsmasq, 10), (Family::Glibc, -30), (Family::Go, -30)]);
        } else {
            votes.add(&[(Family::Musl, -30), (Family::Dnsmasq, -30)]);
        }
    }
    if names.len() > 1 {
        votes.add(&[Family::Dnsmasq, Family::Nginx, Family::Haproxy].map(|family| (family, -20)));
    }
}

/// How often, in thousands, glibc's clock moves by 0, 1, 2 … units of 256 ns between the ids of a pair: the first
/// pair of a process, with its code not in the cache yet, and later pairs.
const COLD_STEPS: [u32; 13] = [5, 70, 310, 240, 120, 100, 60, 40, 20, 15, 5, 5, 5];
const WARM_STEPS: [u32; 13] = [200, 400, 180, 80, 40, 30, 20, 15, 10, 10, 5, 5, 5];
/// busybox makes its queries with the C library that it is built with, and does more between them.
const BUSYBOX_STEPS: [u32; 13] = [5, 5, 20, 60, 90, 150, 180, 130, 100, 80, 60, 40, 30];
static BUSYBOX: [i16; 256] = likelihoods(&BUSYBOX_STEPS);
static COLD: [i16; 256] = likelihoods(&COLD_STEPS);
static WARM: [i16; 256] = likelihoods(&WARM_STEPS);

/// For each difference (exclusive or) of two octets: tenths of a bit by which it is likelier where the second
/// octet is the first plus a small step than between random octets.
const fn likelihoods(steps: &[u32; 13]) -> [i16; 256] {
    let mut counts = [0_u32; 256];
    let mut step = 0;
    while step < steps.len() {
        let mut octet = 0;
        while octet < 256 {
            counts[octet ^ ((octet + step) & 0xff)] += steps[step];
            octet += 1;
        }
        step += 1;
    }
    let mut table = [0; 256];
    let mut difference = 0;
    while difference < 256 {
        // One in thirty pairs is held up and moves further; random octets give 1,000 here.
        table[difference] = tenths_of_bits(counts[difference] + 33);
        difference += 1;
    }
    table
}

/// Ten times the binary logarithm of `thousandths` / 1000, roughly.
#[expect(clippy::cast_possible_truncation, reason = "a logarithm of 32 bits fits")]
const fn tenths_of_bits(thousandths: u32) -> i16 {
    let scaled = thousandths as u64 * (1 << 20) / 1000;
    let whole = scaled.ilog2();
    let rest = (scaled << 3 >> whole) as i16 - 8;
    (whole as i16 - 20) * 10 + rest * 10 / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_steps_of_a_clock_are_told_from_random_octets() {
        assert!(COLD[0x02] > 40 && WARM[0x01] > 40);
        assert!(COLD[0xa6] < -30 && WARM[0x5d] < -30);
    }
}
