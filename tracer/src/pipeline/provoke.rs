//! Sends the pairs that race: A and AAAA of one name from one socket, at one moment, on two CPUs.
//!
//! Both are the first packets of one new connection, so that each CPU makes a conntrack entry of its own and one of
//! them comes second (`__nf_conntrack_confirm`). Whether that one is lost is what `dnspath race` is asked.

use super::clock;
use crate::{
    capture::{CaptureError, Netns},
    model::{Name, Rtype},
    output::Provoked,
};
use anyhow::{Context, anyhow, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::{
    hint,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// Pairs at most in one run.
pub const MOST_PAIRS: u32 = 10_000;
/// Sockets open at once: each pair has one of its own, because only a new connection races.
const SOCKETS_AT_ONCE: u32 = 200;
/// From one pair to the next.
const BETWEEN_PAIRS: Duration = Duration::from_millis(5);
/// How long answers are waited for, after the last query of a batch.
const WAIT_FOR_ANSWERS: Duration = Duration::from_secs(2);
/// Turns that a sender waits for its twin before it lets others run.
const SPINS: u32 = 20_000;

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server asked: a service address races as pods' queries do.
    pub server: SocketAddr,
    /// How many pairs, at most [`MOST_PAIRS`].
    pub pairs: u32,
    /// Where they are sent from.
    pub netns: Netns,
    /// The name asked.
    pub name: Name,
}

/// Sends all pairs, and waits for their answers; ends at the next batch when `stop` is set.
///
/// # Errors
/// When the namespace cannot be entered, fewer than two CPUs may be used, or no socket can be made.
pub fn provoke(plan: &Plan, stop: &AtomicBool) -> anyhow::Result<Provoked> {
    let cpus = two_cpus()?;
    let mut total = Provoked { cpus, ..Provoked::default() };
    let mut done = 0;
    while done < plan.pairs && !stop.load(Ordering::Relaxed) {
        let pairs = SOCKETS_AT_ONCE.min(plan.pairs - done);
        let batch = batch(plan, pairs, cpus, stop)?;
        total.sent += batch.sent;
        total.refused += batch.refused;
        total.answered += batch.answered;
        done += pairs;
    }
    Ok(total)
}

/// Some pairs, each from a socket of its own.
fn batch(plan: &Plan, pairs: u32, cpus: (usize, usize), stop: &AtomicBool) -> anyhow::Result<Provoked> {
    let sockets = thread::scope(|scope| {
        // A thread of its own: it never comes back from the namespace.
        scope
            .spawn(|| sockets(plan, pairs))
            .join()
            .map_err(|_| anyhow!("the thread that makes sockets failed"))?
    })?;
    let queries = [query(&plan.name, Rtype::A), query(&plan.name, Rtype::AAAA)];
    let arrived = AtomicU32::new(0);
    let (sockets, arrived) = (&sockets[..], &arrived);
    let mut provoked = thread::scope(|scope| {
        let sender = |cpu, query: &[u8], first| {
            let query = query.to_vec();
            scope.spawn(move || send(sockets, &query, cpu, arrived, first))
        };
        let senders = [sender(cpus.0, &queries[0], true), sender(cpus.1, &queries[1], false)];
        let mut provoked = Provoked::default();
        for sender in senders {
            let (sent, refused) = sender.join().map_err(|_| anyhow!("a sending thread failed"))??;
            provoked.sent += sent;
            provoked.refused += refused;
        }
        anyhow::Ok(provoked)
    })?;
    provoked.answered = answers(sockets, provoked.sent, stop);
    Ok(provoked)
}

/// Sockets made in the namespace belong to it, whoever uses them.
fn sockets(plan: &Plan, count: u32) -> anyhow::Result<Vec<UdpSocket>> {
    plan.netns.enter().map_err(|error: CaptureError| anyhow!(error))?;
    let any: IpAddr = match plan.server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(plan.server)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let made: std::io::Result<Vec<UdpSocket>> = (0..count).map(|_| socket()).collect();
    made.with_context(|| {
        format!("cannot make a socket to {}; see that it can be reached from there", plan.server)
    })
}

/// One half of every pair: waits for its twin, then sends.
fn send(
    sockets: &[UdpSocket],
    query: &[u8],
    cpu: usize,
    arrived: &AtomicU32,
    first: bool,
) -> anyhow::Result<(u32, u32)> {
    let mut only = CpuSet::new();
    only.set(cpu);
    if let Err(errno) = sched_setaffinity(None, &only) {
        // The twin must not wait for ever.
        arrived.store(u32::MAX / 2, Ordering::Release);
        return Err(errno).with_context(|| format!("cannot run on CPU {cpu}"));
    }
    let (mut sent, mut refused) = (0, 0);
    for (pair, socket) in (1..).zip(sockets) {
        meet(arrived, 2 * pair);
        sent += 1;
        // The other half of the pair still goes out; what was refused is counted as sent and lost.
        refused += u32::from(socket.send(query).is_err());
        if first {
            // Its twin waits at the next meeting.
            thread::sleep(BETWEEN_PAIRS);
        }
    }
    Ok((sent, refused))
}

/// Returns when both have arrived.
fn meet(arrived: &AtomicU32, both: u32) {
    arrived.fetch_add(1, Ordering::AcqRel);
    let mut turns = 0;
    while arrived.load(Ordering::Acquire) < both {
        hint::spin_loop();
        turns += 1;
        if turns > SPINS {
            thread::yield_now();
        }
    }
}

/// Counts the queries that got an answer: each socket's two have different ids.
fn answers(sockets: &[UdpSocket], expected: u32, stop: &AtomicBool) -> u32 {
    let mut answered = vec![[false; 2]; sockets.len()];
    let mut count = 0;
    let mut buffer = [0; 4096];
    let until = clock::monotonic_now().saturating_add(WAIT_FOR_ANSWERS.as_nanos() as u64);
    loop {
        for (socket, answered) in sockets.iter().zip(&mut answered) {
            while let Ok(length) = socket.recv(&mut buffer) {
                let Some([high, low, flags]) = buffer.get(..length).and_then(<[u8]>::first_chunk) else {
                    continue;
                };
                let which = match u16::from_be_bytes([*high, *low]) {
                    ID_OF_A => 0,
                    ID_OF_AAAA => 1,
                    _ => continue,
                };
                if flags & 0x80 != 0 && !answered[which] {
                    answered[which] = true;
                    count += 1;
                }
            }
        }
        if count >= expected || clock::monotonic_now() >= until || stop.load(Ordering::Relaxed) {
            return count;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

const ID_OF_A: u16 = 0x0a0a;
const ID_OF_AAAA: u16 = 0x1c1c;

/// A query: RD set, one question (RFC 1035 section 4.1).
fn query(name: &Name, qtype: Rtype) -> Vec<u8> {
    let id = if qtype == Rtype::A { ID_OF_A } else { ID_OF_AAAA };
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(name.as_wire());
    message.extend(qtype.0.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// The first two CPUs that this process may use.
fn two_cpus() -> anyhow::Result<(usize, usize)> {
    let allowed = sched_getaffinity(None).context("cannot tell which CPUs may be used")?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    match (cpus.next(), cpus.next()) {
        (Some(first), Some(second)) => Ok((first, second)),
        _ => bail!("cannot provoke a race: it takes two CPUs, and this process may use one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NameBuilder;

    fn name() -> Name {
        let mut name = NameBuilder::new();
        for label in ["race", "invalid"] {
            name.push(label.as_bytes()).unwrap();
        }
        name.finish()
    }

    #[test]
    fn every_answer_is_counted_once_and_silence_is_loss() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let plan = Plan { server: server.local_addr().unwrap(), pairs: 20, netns: Netns::Own, name: name() };
        let answering = thread::spawn(move || {
            let mut buffer = [0; 512];
            for _ in 0..40 {
                let (length, client) = server.recv_from(&mut buffer).unwrap();
                buffer[2] |= 0x80;
                // AAAA of every pair stays without an answer; A gets two.
                for _ in 0..if buffer[0] == 0x0a { 2 } else { 0 } {
                    server.send_to(&buffer[..length], client).unwrap();
                }
            }
        });
        if two_cpus().is_err() {
            // One CPU cannot race; that this is told is the other test's.
            return;
        }
        let provoked = provoke(&plan, &AtomicBool::new(false)).unwrap();
        answering.join().unwrap();
        assert_eq!((provoked.sent, provoked.refused, provoked.answered, provoked.lost()), (40, 0, 20, 20));
    }

    #[test]
    fn a_query_is_a_dns_message() {
        let message = query(&name(), Rtype::AAAA);
        assert_eq!(&message[12..], b"\x04race\x07invalid\x00\x00\x1c\x00\x01");
    }
}
