//! The lines of the servers view, from the counters of `stats`.

use crate::{
    model::Rcode,
    stats::{Role, ServerStats, Servers},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// One line of the servers view.
#[derive(Debug)]
pub(super) struct ServerRow {
    /// Stays the same for the session.
    pub(super) key: u64,
    /// `None`: all further servers.
    pub(super) server: Option<SocketAddr>,
    /// The service or the pod that has the address, where that is known.
    pub(super) name: Option<String>,
    pub(super) role: Role,
    pub(super) queries: u64,
    pub(super) answered: u64,
    pub(super) unanswered: u64,
    pub(super) unreachable: u64,
    pub(super) retransmissions: u64,
    /// NOERROR, SERVFAIL, NXDOMAIN, REFUSED, any other.
    pub(super) rcodes: [u64; 5],
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
}

/// All lines, in the order the servers were first seen; `name` says who has an address.
pub(super) fn rows(
    servers: &Servers<(SocketAddr, Role)>,
    name: impl Fn(SocketAddr) -> Option<String>,
) -> Vec<Arc<ServerRow>> {
    let known = servers.iter().map(|((server, role), stats)| (Some(*server), *role, stats));
    let others = servers.other().map(|stats| (None, Role::Asked, stats));
    let all = known.chain(others).enumerate();
    let row = |(key, (server, role, stats)): (usize, (Option<SocketAddr>, Role, &ServerStats))| {
        Arc::new(ServerRow { name: server.and_then(&name), ..row(key as u64, server, role, stats) })
    };
    all.map(row).collect()
}

fn row(key: u64, server: Option<SocketAddr>, role: Role, stats: &ServerStats) -> ServerRow {
    let mut rcodes = [0; 5];
    for (&rcode, count) in &stats.rcodes {
        rcodes[rcode_slot(rcode)] += count;
    }
    ServerRow {
        key,
        server,
        name: None,
        role,
        queries: stats.queries,
        answered: stats.answered,
        unanswered: stats.unanswered,
        unreachable: stats.unreachable,
        retransmissions: stats.retransmissions,
        rcodes,
        p50: stats.latency.quantile(0.5),
        p99: stats.latency.quantile(0.99),
    }
}

fn rcode_slot(rcode: Rcode) -> usize {
    match rcode {
        Rcode::NOERROR => 0,
        Rcode::SERVFAIL => 1,
        Rcode::NXDOMAIN => 2,
        Rcode::REFUSED => 3,
        _ => 4,
    }
}
