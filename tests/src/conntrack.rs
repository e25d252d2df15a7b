//! Conntrack, provoked: entries made by hand, packets that are held up, and what the kernel counted.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::clock::wait_until;
use crate::namespace::Namespace;
use crate::process::{Process, run_with_input};
use crate::query::{Qtype, query};

/// An address that nobody has: the other end of an entry made by hand.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 96, 77, 10);

/// Makes conntrack look at every packet of a namespace.
///
/// # Errors
/// The rules cannot be loaded.
pub fn track(namespace: &Namespace) -> Result<()> {
    let script: String = ["INPUT", "FORWARD", "OUTPUT"]
        .iter()
        .map(|chain| format!("iptables -w -A {chain} -m conntrack --ctstate NEW -j ACCEPT\n"))
        .collect();
    namespace.script(&script).map(drop)
}

/// Makes an entry whose replies would look just like those of a connection from `client` to `server`: the first packet
/// of that connection, where nothing translates it, cannot be entered then.
///
/// # Errors
/// conntrack is missing or refuses.
pub fn occupy(namespace: &Namespace, protocol: &str, client: SocketAddr, server: SocketAddr) -> Result<()> {
    let (source, port, to) = (client.ip().to_string(), client.port().to_string(), server.ip().to_string());
    let (nobody, server_port) = (NOBODY.to_string(), server.port().to_string());
    let mut arguments = vec!["-I", "-p", protocol, "-s", &source, "-d", &nobody, "--sport", &port];
    arguments.extend(["--dport", &server_port, "-g", &to, "-t", "60"]);
    if protocol == "tcp" {
        arguments.extend(["--state", "SYN_SENT"]);
    }
    namespace.run("conntrack", &arguments).map(drop)
}

/// Takes away what [`occupy`] made.
///
/// # Errors
/// conntrack is missing, or there is no such entry any more.
pub fn vacate(namespace: &Namespace, protocol: &str, client: SocketAddr) -> Result<()> {
    let (source, port, nobody) = (client.ip().to_string(), client.port().to_string(), NOBODY.to_string());
    let arguments = ["-D", "-p", protocol, "-s", &source, "-d", &nobody, "--sport", &port];
    namespace.run("conntrack", &arguments).map(drop)
}

/// Fills the table of a namespace with entries that cannot be evicted, and returns how many there are.
///
/// # Errors
/// conntrack is missing, or the table does not get full.
pub fn fill(namespace: &Namespace) -> Result<u64> {
    let number = |name: &str| -> Result<u64> {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        Ok(namespace.run("cat", &[&path])?.trim().parse()?)
    };
    let max = number("max")?;
    let mut entries = String::new();
    // Those that are there already make some fail, which ends nothing.
    for entry in 0..max {
        let (high, low, port) = ((entry >> 8) & 0xff, entry & 0xff, 1024 + (entry >> 16));
        entries.push_str(&format!(
            "-I -p udp -s 172.16.{high}.{low} -d 172.31.0.1 --sport {port} --dport 999 -t 600 -u ASSURED,SEEN_REPLY\n"
        ));
    }
    let file = namespace.files().join("entries");
    std::fs::write(&file, entries).context("cannot write the entries")?;
    let mut command = namespace.command("conntrack");
    command.arg("-R").arg(&file);
    // Its status tells of the entries that found no room.
    let _ = run_with_input(&mut command, "", Duration::from_secs(60));
    let count = number("count")?;
    ensure!(count >= max, "the table has {count} of {max} entries");
    Ok(count)
}

/// Sums of conntrack's counters over all CPUs, by their names.
///
/// # Errors
/// conntrack is missing.
pub fn counted(namespace: &Namespace) -> Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::new();
    for word in namespace.run("conntrack", &["-S"])?.split_whitespace() {
        let Some((name, number)) = word.split_once('=') else { continue };
        if name != "cpu" {
            *sums.entry(name.to_owned()).or_default() += number.parse::<u64>()?;
        }
    }
    Ok(sums)
}

/// Conntrack's counters, CPU by CPU, by their names.
///
/// # Errors
/// conntrack is missing.
pub fn counted_per_cpu(namespace: &Namespace) -> Result<Vec<BTreeMap<String, u64>>> {
    let text = namespace.run("conntrack", &["-S"])?;
    let counters = |line: &str| -> Result<BTreeMap<String, u64>> {
        let named = line.split_whitespace().filter_map(|word| word.split_once('='));
        named.map(|(name, number)| Ok((name.to_owned(), number.parse()?))).collect()
    };
    text.lines().map(counters).collect()
}

/// How far a counter went.
///
/// # Errors
/// The kernel has no such counter.
pub fn growth(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, name: &str) -> Result<u64> {
    let value = |counters: &BTreeMap<String, u64>| {
        counters.get(name).copied().with_context(|| format!("conntrack counts no {name}"))
    };
    Ok(value(after)? - value(before)?)
}

/// Sends one query from `from`, and does not wait for an answer. What the kernel says of the sending is no matter: a
/// packet that is dropped on its way out is an error to the sender.
///
/// # Errors
/// The address cannot be bound.
pub fn send_query(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    id: u16,
    name: &str,
) -> Result<()> {
    let socket = namespace.udp_socket(from.ip(), from.port())?;
    let _ = socket.send_to(&query(id, name, Qtype::A), to);
    Ok(())
}

/// Sends `count` queries, each from a port of its own, from the calling thread's CPU or any.
///
/// # Errors
/// A port cannot be bound.
pub fn send_queries(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    count: u16,
    name: &str,
) -> Result<()> {
    namespace
        .enter(|| {
            for number in 0..count {
                let local = SocketAddr::new(from.ip(), from.port() + number);
                let socket = UdpSocket::bind(local).with_context(|| format!("cannot bind {local}"))?;
                let _ = socket.send_to(&query(number, name, Qtype::A), to);
            }
            Ok(())
        })
        .and_then(|sent| sent)
}

/// Holds packets in queue `$1` until there are `$2` of them, and `$3` seconds more, then lets all go in order; and
/// again, until it is ended. Netlink by hand: nfnetlink_queue's messages of binding, mode and verdict.
const HOLD: &str = r#"
import socket, struct, sys, time
queue, enough, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
link.bind((0, 0))
def attribute(kind, data):
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
def tell(kind, body):
    body = struct.pack(">BBH", 0, 0, queue) + body
    link.send(struct.pack("IHHII", 16 + len(body), 0x300 | kind, 1, 0, 0) + body)
tell(2, attribute(1, struct.pack(">BBH", 1, 0, 2)))
tell(2, attribute(2, struct.pack(">IB", 128, 2)))
print("holding", flush=True)
held = []
while True:
    data, at = link.recv(65536), 0
    while at < len(data):
        length, kind = struct.unpack_from("IH", data, at)
        if kind == 0x300:
            part = at + 20
            while part < at + length:
                size, number = struct.unpack_from("HH", data, part)
                if number & 0x7fff == 1:
                    held.append(struct.unpack_from(">I", data, part + 4)[0])
                part += size + 3 & ~3
        at += length + 3 & ~3
    if len(held) >= enough:
        time.sleep(pause)
        for packet in held:
            tell(1, attribute(2, struct.pack(">II", 1, packet)))
        held = []
"#;

/// Holds packets that a rule puts into an NFQUEUE, and lets them go together.
#[derive(Debug)]
pub struct Holder {
    process: Process,
}

impl Holder {
    /// Starts to hold `enough` packets at a time in queue `queue` of a namespace, and lets them go `pause` after the last
    /// of them came.
    ///
    /// # Errors
    /// python3 is missing, or the queue cannot be bound.
    pub fn start(namespace: &Namespace, queue: u16, enough: usize, pause: Duration) -> Result<Self> {
        let mut command = namespace.command("python3");
        command.args(["-c", HOLD, &queue.to_string(), &enough.to_string(), &pause.as_secs_f64().to_string()]);
        let log = namespace.files().join("holder.log");
        let said = namespace.files().join("holder.said");
        let stdout = std::fs::File::create(&said).context("cannot create the holder's output")?;
        let mut process = Process::spawn_with_stdout("holder", &mut command, Stdio::from(stdout), &log)?;
        let holding = |said: &Path| std::fs::read_to_string(said).is_ok_and(|text| text.contains("holding"));
        wait_until(Duration::from_secs(10), || holding(&said) || !process.is_running());
        if !holding(&said) || !process.is_running() {
            bail!("packets cannot be held: {}", process.log()?.trim());
        }
        Ok(Self { process })
    }

    /// Whether it still holds.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}
