//! The lab itself: what the other tests take for granted.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::query::{Qtype, ask, query};
use dnspath_tests::topology::{EMPTY_VIP4, EMPTY_VIP6, VIP4, VIP6};
use dnspath_tests::{Client, Lab, LabOptions, QueryFilter, clock, sweep};

fn main() -> ExitCode {
    run(&[
        ("every_resolver_resolves_a_service_name", every_resolver_resolves_a_service_name),
        ("both_backends_of_the_service_are_used", both_backends_of_the_service_are_used),
        ("a_service_without_endpoints_refuses", a_service_without_endpoints_refuses),
        ("a_dropped_aaaa_costs_glibc_five_seconds", a_dropped_aaaa_costs_glibc_five_seconds),
        ("nothing_is_left_of_a_dropped_lab", nothing_is_left_of_a_dropped_lab),
    ])
}

fn every_resolver_resolves_a_service_name() -> Result<Outcome> {
    let lab = Lab::new(LabOptions::default())?;
    let mut left_out = Vec::new();
    for client in Client::ALL {
        if let Err(e) = client.available() {
            left_out.push(format!("{client:?}: {e:#}"));
            continue;
        }
        // busybox searches only for names without a dot.
        let name =
            if client == Client::Busybox { "payments.shop.svc.cluster.local" } else { "payments.shop" };
        for pod in ["web", "far"] {
            let answer = client.lookup(lab.pod(pod)?, name)?;
            let expected: [IpAddr; 2] = ["10.96.1.20".parse()?, "fd00:96::20".parse()?];
            ensure!(
                expected.iter().all(|address| answer.addresses.contains(address)),
                "{client:?} in {pod}: {answer:?}"
            );
        }
        let answer = client.lookup(lab.pod("web")?, "www.example.com")?;
        ensure!(answer.addresses.len() == 2, "{client:?}: {answer:?}");
        let answer = client.lookup(lab.pod("web")?, "nothing.example.com")?;
        ensure!(answer.error.is_some(), "{client:?}: {answer:?}");
    }
    Ok(if left_out.is_empty() { Outcome::Passed } else { Outcome::LeftOut(left_out.join("; ")) })
}

/// Sends `count` queries from as many ports of `pod` and returns how many were answered.
fn answered(lab: &Lab, pod: &str, server: IpAddr, count: u16) -> Result<usize> {
    let any: IpAddr = if server.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
    let mut answered = 0;
    for id in 0..count {
        let socket = lab.pod(pod)?.namespace.udp_socket(any, 0)?;
        let message = query(id, "payments.shop.svc.cluster.local", Qtype::A);
        let response = ask(&socket, SocketAddr::new(server, 53), &message, Duration::from_secs(1))?;
        answered += usize::from(response.is_some());
    }
    Ok(answered)
}

/// Packets that the rule with this comment's end saw, of all tables' `nat` chains.
fn packets(lab: &Lab, program: &str, target: &str) -> Result<u64> {
    let listing = lab.node().run(program, &["-w", "-t", "nat", "-vnxL"])?;
    let rule = format!("to:{target}");
    let counts = listing.lines().filter(|line| line.ends_with(&rule));
    counts
        .map(|line| {
            line.split_whitespace().next().unwrap_or_default().parse::<u64>().context(line.to_owned())
        })
        .sum()
}

fn both_backends_of_the_service_are_used() -> Result<Outcome> {
    let lab = Lab::new(LabOptions::default())?;
    for (vip, program) in [(IpAddr::from(VIP4), "iptables"), (IpAddr::from(VIP6), "ip6tables")] {
        let got = answered(&lab, "web", vip, 40)?;
        ensure!(got == 40, "{got} of 40 queries to {vip} answered");
        for name in ["dns1", "dns2"] {
            let pod = lab.pod(name)?;
            let address = if vip.is_ipv4() { pod.ip4.into() } else { IpAddr::from(pod.ip6) };
            let seen = packets(&lab, program, &SocketAddr::new(address, 53).to_string())?;
            // One of two at random, 40 times: below 5 is one in 10 million.
            ensure!(seen >= 5, "{name} got {seen} of 40 flows to {vip}");
        }
    }
    Ok(Outcome::Passed)
}

fn a_service_without_endpoints_refuses() -> Result<Outcome> {
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    for vip in [IpAddr::from(EMPTY_VIP4), IpAddr::from(EMPTY_VIP6)] {
        let error = answered(&lab, "web", vip, 1).err().context("no error")?;
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        ensure!(kind == Some(std::io::ErrorKind::ConnectionRefused), "{vip}: {error:#}");
    }
    Ok(Outcome::Passed)
}

fn a_dropped_aaaa_costs_glibc_five_seconds() -> Result<Outcome> {
    let lab = Lab::new(LabOptions::default())?;
    let pod = lab.pod("web")?;
    let filter = QueryFilter { qtype: Some(Qtype::Aaaa), first: Some(1) };
    let drop = lab.drop_queries(pod, filter)?;
    let answer = Client::Glibc.lookup(pod, "payments.shop.svc.cluster.local.")?;
    let took = answer.took.as_secs_f64();
    ensure!(answer.addresses.len() == 2 && (4.9..5.5).contains(&took), "{answer:?}");
    ensure!(drop.hits()? == 1, "{} queries dropped", drop.hits()?);
    std::mem::drop(drop);
    let answer = Client::Glibc.lookup(pod, "payments.shop.svc.cluster.local.")?;
    ensure!(answer.took < Duration::from_secs(1), "the rule is still there: {answer:?}");
    Ok(Outcome::Passed)
}

/// Whether any process has one of these as its network namespace.
fn processes_in(inodes: &[u64]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot list /proc")? {
        let path = entry?.path();
        // Processes come and go meanwhile.
        if let Ok(metadata) = std::fs::metadata(path.join("ns/net"))
            && inodes.contains(&std::os::unix::fs::MetadataExt::ino(&metadata))
        {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

fn inodes(prefix: &str) -> Result<Vec<u64>> {
    let names = sweep::namespaces_of(prefix)?;
    names
        .iter()
        .map(|name| {
            let metadata = std::fs::metadata(Path::new("/run/netns").join(name)).context(name.clone())?;
            Ok(std::os::unix::fs::MetadataExt::ino(&metadata))
        })
        .collect()
}

fn nothing_is_left_of_a_dropped_lab() -> Result<Outcome> {
    let start = clock::now();
    let mut lab = Lab::new(LabOptions::default())?;
    let up = start.elapsed();
    lab.add_pod("extra")?;
    lab.remove_pod("extra")?;
    let (prefix, directory, watcher) =
        (lab.prefix().to_owned(), lab.directory().to_owned(), lab.watcher_pid());
    let inodes = inodes(&prefix)?;
    ensure!(inodes.len() == 10 && !processes_in(&inodes)?.is_empty(), "{inodes:?}");
    let start = clock::now();
    drop(lab);
    let down = start.elapsed();
    ensure!(sweep::namespaces_of(&prefix)?.is_empty(), "namespaces are left");
    ensure!(processes_in(&inodes)?.is_empty(), "processes are left");
    ensure!(!directory.exists() && !Path::new("/etc/netns").exists(), "files are left");
    ensure!(!Path::new(&format!("/proc/{watcher}")).exists(), "the watcher is left");
    ensure!(up < Duration::from_secs(10), "it took {up:?} to come up");
    println!("up in {:.2} s, down in {:.2} s", up.as_secs_f64(), down.as_secs_f64());
    Ok(Outcome::Passed)
}
