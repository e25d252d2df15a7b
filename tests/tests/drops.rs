//! What the kernel drops, and what conntrack refuses or joins: provoked, reported, and counted by the kernel itself.
//!
//! Every provocation is deterministic but the race of two CPUs, which is run until it was lost often enough.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::conntrack::{Holder, counted, fill, growth, occupy, send_queries, send_query, track};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::packet::{Ipv4, Link, TCP, inject, tcp, udp};
use dnspath_tests::query::{Qtype, query};
use dnspath_tests::requirements::find;
use dnspath_tests::topology::{EMPTY_VIP4, UPSTREAM4, VIP4};
use dnspath_tests::tracer::{Told, Tracer, binary};
use dnspath_tests::{Lab, LabOptions, Namespace};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("a_forwarded_query_that_cannot_be_entered", || refused(Way::Forwarded)),
        ("a_forwarded_syn_that_cannot_be_entered", || refused(Way::ForwardedSyn)),
        ("a_query_to_the_node_that_cannot_be_entered", || refused(Way::ToTheNode)),
        ("a_query_of_the_node_that_cannot_be_entered", || refused(Way::FromTheNode)),
        ("a_query_on_the_loopback_that_cannot_be_entered", || refused(Way::Loopback)),
        ("a_race_of_two_cpus", race),
        ("a_loser_that_was_held_up", held_up),
        ("a_clash_that_is_resolved", resolved),
        ("ten_thousand_packets_that_fall_to_rules", || fallen_to_rules("iptables")),
        ("ten_thousand_packets_that_fall_to_legacy_rules", || fallen_to_rules("iptables-legacy")),
        ("a_full_table", full_table),
        ("an_invalid_packet_and_a_rejected_one", invalid_and_rejected),
        ("reasons_of_the_stack", reasons),
    ])
}

/// What every test needs; `Err` says why there is none.
fn ready(tools: &[&str]) -> Result<(), String> {
    binary().map_err(|reason| format!("{reason:#}"))?;
    match tools.iter().find(|tool| find(tool).is_none()) {
        Some(tool) => Err(format!("{tool} is missing")),
        None => Ok(()),
    }
}

/// A lab without servers; `service_rules` gives its nodes their NAT.
fn quiet_lab(service_rules: bool) -> Result<Lab> {
    Lab::new(LabOptions { server: None, service_rules, ..LabOptions::default() })
}

fn trace(namespace: &Namespace) -> Result<Tracer> {
    Tracer::stream(namespace, &["--unit", "drop"])
}

/// Ends the tracer: its lines of drops.
fn drops(tracer: Tracer) -> Result<Vec<Value>> {
    // What happened last has to be told yet.
    thread::sleep(Duration::from_millis(300));
    let told: Told = tracer.finish()?;
    ensure!(told.covered("lost")? == 0, "records were lost");
    Ok(told.unit("drop").cloned().collect())
}

fn of_fate<'a>(drops: &'a [Value], fate: &str) -> Vec<&'a Value> {
    drops.iter().filter(|drop| drop["fate"] == fate).collect()
}

/// How a packet goes whose connection cannot be entered.
#[derive(Clone, Copy)]
enum Way {
    Forwarded,
    ForwardedSyn,
    ToTheNode,
    FromTheNode,
    Loopback,
}

/// Another entry has the tuple of the replies: `__nf_conntrack_confirm` drops the packet, at each hook that calls it.
fn refused(way: Way) -> Result<Outcome> {
    const TIMES: u16 = 20;
    if let Err(reason) = ready(&["conntrack"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab(false)?;
    let (node, web) = (lab.node(), lab.pod("web")?);
    let server = lab.pod("dns1")?.ip4;
    let bridge = Ipv4Addr::new(10, 244, 1, 1);
    let loopback = Ipv4Addr::new(127, 0, 0, 53);
    let (from, source, to) = match way {
        Way::Forwarded | Way::ForwardedSyn => (&web.namespace, web.ip4, server),
        Way::ToTheNode => (&web.namespace, web.ip4, bridge),
        Way::FromTheNode => (node, bridge, server),
        Way::Loopback => (node, Ipv4Addr::LOCALHOST, loopback),
    };
    let tcp = matches!(way, Way::ForwardedSyn);
    let protocol = if tcp { "tcp" } else { "udp" };
    track(node)?;
    let before = counted(node)?;
    let tracer = trace(node)?;
    for number in 0..TIMES {
        let (client, server) = (SocketAddr::from((source, 5400 + number)), SocketAddr::from((to, 53)));
        occupy(node, protocol, client, server)?;
        if tcp {
            // One SYN, which is not answered; the port is the entry's only by chance, so it is asked for.
            syn(from, client, server)?;
        } else {
            send_query(from, client, server, 0x4000 + number, "refused.example.com")?;
        }
    }
    let drops = drops(tracer)?;
    let after = counted(node)?;
    let refused = of_fate(&drops, "insert_failed");
    let by_kernel = growth(&before, &after, "insert_failed")?;
    ensure!(by_kernel == u64::from(TIMES), "the kernel counted {by_kernel} of {TIMES}");
    ensure!(refused.len() == usize::from(TIMES), "reported: {} of {TIMES}: {drops:?}", refused.len());
    for (number, drop) in refused.iter().enumerate() {
        let client = format!("{source}:{}", 5400 + number);
        ensure!(drop["client"] == client.as_str(), "not of {client}: {drop}");
        ensure!(drop["server"] == format!("{to}:53").as_str(), "not to {to}: {drop}");
        ensure!(drop["transport"] == protocol && drop["place"] == "__nf_conntrack_confirm", "{drop}");
        ensure!(tcp || drop["id"] == 0x4000 + number, "not the query: {drop}");
    }
    Ok(Outcome::Passed)
}

/// Begins a connection from a given port, and gives it up before its first retransmission.
fn syn(namespace: &Namespace, from: SocketAddr, to: SocketAddr) -> Result<()> {
    // std binds no socket before it connects; a small program does.
    const CONNECT: &str = "
import socket, sys
s = socket.socket()
s.bind((sys.argv[1], int(sys.argv[2])))
s.settimeout(0.3)
try: s.connect((sys.argv[3], int(sys.argv[4])))
except OSError: pass
";
    let (ip, port) = (from.ip().to_string(), from.port().to_string());
    let (to_ip, to_port) = (to.ip().to_string(), to.port().to_string());
    namespace.run("python3", &["-c", CONNECT, &ip, &port, &to_ip, &to_port]).map(drop)
}

/// Two pods send from one port to one server at one time, on two CPUs; both get the same port of the node (MASQUERADE),
/// and one of them loses.
fn race() -> Result<Outcome> {
    const PAIRS: u64 = 100;
    if let Err(reason) = ready(&["conntrack", "nft"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    if thread::available_parallelism()?.get() < 2 {
        return Ok(Outcome::LeftOut("there is one CPU: nothing can race".to_owned()));
    }
    let lab = quiet_lab(true)?;
    let node = lab.node();
    // After the source has been translated and before the connection is entered: rules that take their time, so that
    // both packets are on their way between the two.
    let slow: String = (0..2_000).map(|port| format!("udp sport {} counter\n", 60_000 + port)).collect();
    node.script(&format!(
        "nft -f - <<END\ntable ip slow {{ chain c {{ type filter hook postrouting priority 200;\n{slow}}}\n}}\nEND\n"
    ))
    .context("cannot load rules that slow packets down")?;
    let before = counted(node)?;
    let tracer = trace(node)?;
    let mut sent = 0;
    for round in 0..20 {
        if growth(&before, &counted(node)?, "insert_failed")? >= PAIRS {
            break;
        }
        let ports = 10_000 + round * 100;
        send_in_pairs(&lab, ports..ports + 100)?;
        sent += 100;
    }
    let drops = drops(tracer)?;
    let by_kernel = growth(&before, &counted(node)?, "insert_failed")?;
    let refused = of_fate(&drops, "insert_failed").len() as u64;
    ensure!(by_kernel >= PAIRS, "only {by_kernel} of {sent} pairs raced");
    ensure!(refused == by_kernel, "the kernel counted {by_kernel}, reported are {refused}");
    Ok(Outcome::Measured(format!("{by_kernel} of {sent} pairs lost one, all reported")))
}

/// `web` and `db` each send a query from every port, each pair at the same moment.
fn send_in_pairs(lab: &Lab, ports: std::ops::Range<u16>) -> Result<()> {
    let arrived = AtomicUsize::new(0);
    let (arrived, server) = (&arrived, SocketAddr::from((UPSTREAM4, 53)));
    thread::scope(|scope| {
        let mut senders = Vec::new();
        for (cpu, pod) in ["web", "db"].into_iter().enumerate() {
            let (pod, ports) = (lab.pod(pod)?, ports.clone());
            senders.push(scope.spawn(move || {
                pod.namespace.enter(|| -> Result<()> {
                    let mut set = CpuSet::new();
                    set.set(cpu);
                    sched_setaffinity(None, &set).context("cannot choose a CPU")?;
                    for (number, port) in ports.enumerate() {
                        let socket = UdpSocket::bind((pod.ip4, port)).context("cannot bind")?;
                        let message = query(port, "race.example.com", Qtype::A);
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < 2 * (number + 1) {
                            std::hint::spin_loop();
                        }
                        socket.send_to(&message, server).context("cannot send")?;
                    }
                    Ok(())
                })?
            }));
        }
        for sender in senders {
            sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        }
        Ok(())
    })
}

/// A SYN that is held up while its repetition goes by: a rule queues every second one. Once it is let go it cannot be
/// entered, and is freed where the queue gives it back, for no reason that the kernel names.
fn held_up() -> Result<Outcome> {
    const TIMES: u16 = 20;
    const SYN: u8 = 2;
    if let Err(reason) = ready(&["conntrack", "python3"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab(true)?;
    let (node, web) = (lab.node(), lab.pod("web")?);
    let server = lab.pod("dns1")?.ip4;
    node.script(
        "iptables -w -t mangle -A POSTROUTING -p tcp --syn --dport 53 -m statistic --mode nth --every 2 --packet 0 -j NFQUEUE --queue-num 7\n",
    )?;
    // A reset would end the connection that the repetition made.
    lab.pod("dns1")?.namespace.script("iptables -w -A INPUT -p tcp -j DROP\n")?;
    let mac = mac_of(&lab.pod("dns1")?.namespace)?;
    let link = Link { destination: mac, ..Link::to_gateway(web, node)? };
    let frames: Vec<Vec<u8>> = (0..TIMES)
        .flat_map(|number| {
            let (from, to) = ((web.ip4, 5500 + number).into(), (server, 53).into());
            let segment = tcp(from, to, 1, SYN, 5, &[]);
            let frame = link.ip(&Ipv4::default().packet(web.ip4, server, TCP, &segment));
            [frame.clone(), frame]
        })
        .collect();
    let mut holder = Holder::start(node, 7, usize::from(TIMES), Duration::from_millis(300))?;
    let before = counted(node)?;
    let tracer = trace(node)?;
    inject(web, &frames)?;
    thread::sleep(Duration::from_millis(700));
    ensure!(holder.is_running(), "the holder ended early");
    let drops = drops(tracer)?;
    let by_kernel = growth(&before, &counted(node)?, "insert_failed")?;
    let refused = of_fate(&drops, "insert_failed");
    ensure!(by_kernel == u64::from(TIMES), "the kernel counted {by_kernel} of {TIMES}");
    ensure!(refused.len() == usize::from(TIMES), "reported: {} of {TIMES}: {drops:?}", refused.len());
    for (number, drop) in refused.iter().enumerate() {
        let client = format!("{}:{}", web.ip4, 5500 + number);
        ensure!(drop["client"] == client.as_str() && drop["transport"] == "tcp", "not of {client}: {drop}");
    }
    Ok(Outcome::Measured(format!("freed as {}", refused[0]["reason"])))
}

/// Two queries of one socket to one service, to two backends: the kernel enters the second for replies alone. Nothing
/// is lost, and nothing may be told as lost.
fn resolved() -> Result<Outcome> {
    const TIMES: u16 = 10;
    if let Err(reason) = ready(&["conntrack", "python3"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab(true)?;
    let (node, web) = (lab.node(), lab.pod("web")?);
    let (first, second) = (lab.pod("dns1")?.ip4, lab.pod("dns2")?.ip4);
    node.script(&format!(
        "iptables -w -t nat -I PREROUTING -d {VIP4} -p udp --dport 53 -j DNAT --to {second}:53
iptables -w -t nat -I PREROUTING -d {VIP4} -p udp --dport 53 -m statistic --mode nth --every 2 --packet 0 -j DNAT --to {first}:53
iptables -w -t mangle -A POSTROUTING -p udp --dport 53 -m conntrack --ctstate NEW -j NFQUEUE --queue-num 7
"
    ))?;
    let mut holder = Holder::start(node, 7, 2, Duration::ZERO)?;
    let before = counted(node)?;
    let tracer = trace(node)?;
    for number in 0..TIMES {
        let socket = web.namespace.udp_socket(web.ip4, 5600 + number)?;
        for id in [0x6000, 0x6100] {
            socket.send_to(&query(id + number, "resolved.example.com", Qtype::A), (VIP4, 53))?;
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(80));
    }
    ensure!(holder.is_running(), "the holder ended early");
    let drops = drops(tracer)?;
    let after = counted(node)?;
    let (joined, failed) =
        (growth(&before, &after, "clash_resolve")?, growth(&before, &after, "insert_failed")?);
    ensure!(
        (joined, failed) == (TIMES.into(), 0),
        "the kernel resolved {joined} of {TIMES}, refused {failed}"
    );
    let resolved = of_fate(&drops, "clash_resolved");
    ensure!(resolved.len() == usize::from(TIMES), "reported: {} of {TIMES}: {drops:?}", resolved.len());
    ensure!(of_fate(&drops, "insert_failed").is_empty(), "told as lost: {drops:?}");
    for (number, drop) in resolved.iter().enumerate() {
        ensure!(drop["id"] == 0x6100 + number && drop["server"] == format!("{VIP4}:53").as_str(), "{drop}");
    }
    Ok(Outcome::Passed)
}

/// Rules that drop new connections' packets before they are entered, from two pods at once, on both CPUs.
fn fallen_to_rules(iptables: &str) -> Result<Outcome> {
    const EACH: u16 = 5_000;
    if let Err(reason) = ready(&["conntrack", iptables]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab(true)?;
    let node = lab.node();
    let server = SocketAddr::from((lab.pod("dns1")?.ip4, 53));
    node.script(&format!("{iptables} -w -t mangle -A POSTROUTING -p udp --dport 53 -j DROP\n"))?;
    let before = counted(node)?;
    let tracer = trace(node)?;
    thread::scope(|scope| {
        let senders = ["web", "db"].map(|name| {
            let lab = &lab;
            scope.spawn(move || {
                let pod = lab.pod(name)?;
                send_queries(&pod.namespace, (pod.ip4, 20_000).into(), server, EACH, "rule.example.com")
            })
        });
        senders
            .into_iter()
            .try_for_each(|sender| sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?)
    })?;
    let drops = drops(tracer)?;
    let failed = growth(&before, &counted(node)?, "insert_failed")?;
    ensure!(failed == 0, "the kernel refused {failed}");
    for fate in ["insert_failed", "table_full", "clash_resolved"] {
        let wrong = of_fate(&drops, fate);
        ensure!(wrong.is_empty(), "{} told as {fate}: {}", wrong.len(), wrong[0]);
    }
    let dropped = of_fate(&drops, "dropped");
    ensure!(dropped.len() == 2 * usize::from(EACH), "reported: {} of {}", dropped.len(), 2 * EACH);
    let reason = &dropped[0]["reason"];
    ensure!(dropped.iter().all(|drop| drop["reason"] == *reason), "not one reason");
    Ok(Outcome::Measured(format!("{} dropped: {reason} at {}", dropped.len(), dropped[0]["place"])))
}

/// No room for another connection.
fn full_table() -> Result<Outcome> {
    const QUERIES: u16 = 50;
    if let Err(reason) = ready(&["conntrack"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab(false)?;
    let (node, web) = (lab.node(), lab.pod("web")?);
    let server = SocketAddr::from((lab.pod("dns1")?.ip4, 53));
    track(node)?;
    let entries = fill(node)?;
    let before = counted(node)?;
    let tracer = trace(node)?;
    send_queries(&web.namespace, (web.ip4, 23_000).into(), server, QUERIES, "full.example.com")?;
    let drops = drops(tracer)?;
    let dropped = growth(&before, &counted(node)?, "drop")?;
    let full = of_fate(&drops, "table_full");
    ensure!(dropped == u64::from(QUERIES), "the kernel dropped {dropped} of {QUERIES}");
    ensure!(full.len() == usize::from(QUERIES), "reported: {} of {QUERIES}: {drops:?}", full.len());
    ensure!(of_fate(&drops, "insert_failed").is_empty(), "told as refused: {drops:?}");
    Ok(Outcome::Measured(format!("{entries} entries")))
}

/// A bad checksum is conntrack's INVALID, which a rule drops; a service without endpoints rejects.
fn invalid_and_rejected() -> Result<Outcome> {
    const EACH: u16 = 50;
    if let Err(reason) = ready(&["conntrack", "python3"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab(true)?;
    let (node, web) = (lab.node(), lab.pod("web")?);
    let server = lab.pod("dns3")?.ip4;
    let link = Link::to_gateway(web, node)?;
    let frames: Vec<Vec<u8>> = (0..EACH)
        .map(|number| {
            let (from, to) = ((web.ip4, 24_000 + number).into(), (server, 53).into());
            let mut datagram = udp(from, to, &query(number, "invalid.example.com", Qtype::A), None);
            datagram[6] ^= 0x55;
            link.ip(&Ipv4::default().packet(web.ip4, server, 17, &datagram))
        })
        .collect();
    let before = counted(node)?;
    let tracer = trace(node)?;
    inject(web, &frames)?;
    send_queries(&web.namespace, (web.ip4, 25_000).into(), (EMPTY_VIP4, 53).into(), EACH, "rejected")?;
    let drops = drops(tracer)?;
    let invalid = growth(&before, &counted(node)?, "invalid")?;
    ensure!(invalid == u64::from(EACH), "conntrack found {invalid} of {EACH} invalid");
    for name in ["invalid.example.com", "rejected"] {
        let told: Vec<&Value> = drops.iter().filter(|drop| drop["name"] == name).collect();
        ensure!(told.len() == usize::from(EACH), "{name}: reported {} of {EACH}", told.len());
        ensure!(told.iter().all(|drop| drop["fate"] == "dropped"), "{name}: not by a rule: {}", told[0]);
    }
    Ok(Outcome::Passed)
}

/// Reasons that have nothing to do with netfilter: nobody listens, a bad checksum, another's MAC address, a socket that
/// nobody reads; and that a socket which is closed with answers unread loses nothing.
fn reasons() -> Result<Outcome> {
    if let Err(reason) = ready(&["python3"]) {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab(false)?;
    let (node, web, server) = (lab.node(), lab.pod("web")?, lab.pod("dns1")?);
    let to = SocketAddr::from((server.ip4, 53));
    let tracer = trace(node)?;
    send_query(&web.namespace, (web.ip4, 26_000).into(), to, 1, "nobody.listens")?;
    let listener = server.namespace.udp_socket(server.ip4, 53)?;
    let unread = server.namespace.enter(|| -> Result<UdpSocket> {
        let socket = UdpSocket::bind((server.ip4, 0))?;
        Ok(socket)
    })??;
    let link = Link::to_gateway(web, node)?;
    let mut broken = udp((web.ip4, 26_001).into(), to, &query(2, "bad.checksum", Qtype::A), None);
    broken[6] ^= 0x55;
    let stray = udp((web.ip4, 26_002).into(), to, &query(3, "wrong.mac", Qtype::A), None);
    let wrong = Link { destination: [2, 0, 0, 0, 0, 9], ..link };
    let right = mac_of(&server.namespace)?;
    let direct = Link { destination: right, ..link };
    inject(
        web,
        &[
            direct.ip(&Ipv4::default().packet(web.ip4, server.ip4, 17, &broken)),
            wrong.ip(&Ipv4::default().packet(web.ip4, server.ip4, 17, &stray)),
        ],
    )?;
    // An answer that nobody reads.
    let asker = web.namespace.udp_socket(web.ip4, 26_003)?;
    listener.send_to(&query(4, "never.read", Qtype::A), (web.ip4, 26_003))?;
    thread::sleep(Duration::from_millis(100));
    drop((asker, unread));
    let drops = drops(tracer)?;
    let told = |name: &str| -> Vec<(&str, &str)> {
        let of_name = drops.iter().filter(|drop| drop["name"] == name);
        of_name.map(|drop| (word(drop, "reason"), word(drop, "place"))).collect()
    };
    ensure!(matches!(told("nobody.listens")[..], [("NO_SOCKET" | "", _)]), "{:?}", told("nobody.listens"));
    ensure!(matches!(told("bad.checksum")[..], [("UDP_CSUM" | "", _)]), "{:?}", told("bad.checksum"));
    ensure!(told("never.read").is_empty(), "{:?}", told("never.read"));
    let stray = told("wrong.mac");
    ensure!(
        !stray.is_empty() && stray.iter().all(|(reason, _)| matches!(*reason, "OTHERHOST" | "")),
        "{stray:?}"
    );
    let mac = drops.iter().find(|drop| drop["name"] == "wrong.mac").map(|drop| &drop["destination_mac"]);
    ensure!(mac.is_some_and(|mac| *mac == "02:00:00:00:00:09"), "{mac:?}");
    Ok(Outcome::Passed)
}

fn word<'a>(drop: &'a Value, key: &str) -> &'a str {
    drop[key].as_str().unwrap_or_default()
}

fn mac_of(namespace: &Namespace) -> Result<[u8; 6]> {
    let text = namespace.run("cat", &["/sys/class/net/eth0/address"])?;
    let octets: Vec<u8> =
        text.trim().split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>()?;
    octets.try_into().map_err(|_| anyhow::anyhow!("not a MAC address: {text}"))
}
