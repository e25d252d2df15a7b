//! A steady mix of lookups by real resolvers, as on a node that has something to show.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::client::Client;
use crate::clock;
use crate::drops::QueryFilter;
use crate::lab::{Lab, resolv_conf};
use crate::process::output_of;
use crate::query::Qtype;
use crate::topology::{UPSTREAM4, VIP4, VIP6};

/// One kind of lookup in the mix: from which pod, by whom, of what.
const MIX: [(&str, Client, &[&str]); 9] = [
    ("web", Client::Glibc, &["api.example.com"]),
    ("web", Client::Glibc, &["payments.shop", "web"]),
    ("db", Client::Musl, &["payments.shop.svc.cluster.local"]),
    ("db", Client::Go, &["www.example.com"]),
    ("web", Client::CAres, &["kube-dns.kube-system", "v4only.example.com."]),
    ("far", Client::Glibc, &["payments.shop"]),
    ("db", Client::Glibc, &["nothing.example.com"]),
    ("web", Client::Glibc, &["many.example.com."]),
    ("db", Client::Busybox, &["web.default.svc.cluster.local"]),
];

/// How often an AAAA query goes missing: glibc then waits 5 s for it.
const DROP_EVERY: Duration = Duration::from_secs(15);
/// Some lookups end late, so that the mix is not a rhythm of whole rounds.
const PAUSE: Duration = Duration::from_millis(120);

/// Runs the mix until `stop` is set or `limit` has passed. Three pods do something of their own: `tcp` asks over
/// TCP, `direct` asks the upstream without the service, `six` asks the service's IPv6 address.
///
/// # Errors
/// A pod cannot be added, or a client cannot be run.
pub fn run(lab: &mut Lab, stop: &AtomicBool, limit: Duration) -> Result<()> {
    let special = [
        ("tcp", resolv_conf(&[VIP4.into()]) + "options use-vc\n"),
        ("direct", resolv_conf(&[UPSTREAM4.into()])),
        ("six", resolv_conf(&[VIP6.into()])),
    ];
    for (name, text) in &special {
        lab.add_pod(name)?.namespace.set_resolv_conf(text)?;
    }
    let lab = &*lab;
    let start = clock::now();
    let over = || stop.load(Ordering::Relaxed) || start.elapsed() >= limit;
    std::thread::scope(|scope| {
        let sometimes_lost = scope.spawn(|| lose_an_aaaa(lab, &over));
        let mixed = mix(lab, &special.each_ref().map(|(name, _)| *name), &over);
        let lost =
            sometimes_lost.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the dropping thread panicked")));
        mixed.and(lost)
    })
}

fn mix(lab: &Lab, special: &[&str], over: &(impl Fn() -> bool + Sync)) -> Result<()> {
    let clients: Vec<_> = MIX.iter().filter(|(_, client, _)| client.available().is_ok()).collect();
    while !over() {
        for (pod, client, names) in &clients {
            if over() {
                return Ok(());
            }
            output_of(&mut client.command(lab.pod(pod)?, names)?, "", Duration::from_secs(100))?;
            sleep(PAUSE);
        }
        for pod in special {
            Client::Glibc.lookup(lab.pod(pod)?, "www.example.com")?;
        }
    }
    Ok(())
}

fn lose_an_aaaa(lab: &Lab, over: &(impl Fn() -> bool + Sync)) -> Result<()> {
    let pod = lab.pod("db")?;
    while !over() {
        let lost = lab.drop_queries(pod, QueryFilter { qtype: Some(Qtype::Aaaa), first: Some(1) })?;
        Client::Glibc.lookup(pod, "payments.shop.svc.cluster.local.")?;
        drop(lost);
        clock::wait_until(DROP_EVERY, over);
    }
    Ok(())
}
