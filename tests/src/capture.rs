//! tcpdump and tshark: what was really on the wire, told by somebody else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::clock::wait_until;
use crate::namespace::Namespace;
use crate::process::{Process, run};

/// With `--immediate-mode` each packet takes so much of the buffer, however short it is: the default of 256 KiB
/// leaves room for 64. No message of the lab is longer.
const SNAPLEN: &str = "8192";

/// A running tcpdump on one interface. Never promiscuous: on a bridge that makes the node answer twice.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures DNS and ICMP on `interface` of `namespace`; returns once it is capturing. The file goes with the
    /// lab.
    ///
    /// # Errors
    /// tcpdump is missing or cannot capture there.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::start_with(namespace, interface, "port 53 or icmp or icmp6")
    }

    /// As [`Capture::start`], with another filter.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn start_with(namespace: &Namespace, interface: &str, filter: &str) -> Result<Self> {
        let file = namespace.files().join(format!("{interface}.pcap"));
        let mut command = namespace.command("tcpdump");
        command.args([
            "-i",
            interface,
            "-n",
            "-p",
            "-s",
            SNAPLEN,
            "-U",
            "--immediate-mode",
            "-B",
            "16384",
            "-Z",
            "root",
        ]);
        command.args(["--time-stamp-precision", "nano", "-w"]).arg(&file);
        command.arg(filter);
        let log = namespace.files().join(format!("{interface}.tcpdump.log"));
        let mut process = Process::spawn("tcpdump", &mut command, &log)?;
        // It says so once its socket is bound.
        let capturing = wait_until(Duration::from_secs(10), || {
            process.log().is_ok_and(|log| log.contains("listening on")) || !process.is_running()
        });
        if !capturing || !process.is_running() {
            bail!("tcpdump does not capture on {interface}: {}", process.log()?.trim());
        }
        Ok(Self { process, file })
    }

    /// Ends the capture and returns its file.
    ///
    /// # Errors
    /// tcpdump did not end, or lost packets.
    pub fn stop(mut self) -> Result<PathBuf> {
        // What is in its socket still has to be read.
        std::thread::sleep(Duration::from_millis(100));
        self.process.stop(Signal::INT, Duration::from_secs(5))?;
        let log = self.process.log()?;
        ensure!(log.contains("0 packets dropped by kernel"), "tcpdump lost packets: {}", log.trim());
        Ok(self.file.clone())
    }
}

/// A tcpdump that only counts what passes an interface.
#[derive(Debug)]
pub struct Counter(Process);

impl Counter {
    /// Counts DNS packets on `interface` of `namespace`; returns once it is capturing.
    ///
    /// # Errors
    /// tcpdump is missing or cannot capture there.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        let mut command = namespace.command("tcpdump");
        command.args(["-i", interface, "-n", "-p", "-s", "64", "-B", "262144", "-Z", "root"]);
        command.args(["-w", "/dev/null", "port 53"]);
        let log = namespace.files().join(format!("{interface}.count.log"));
        let mut process = Process::spawn("tcpdump", &mut command, &log)?;
        let capturing = wait_until(Duration::from_secs(10), || {
            process.log().is_ok_and(|log| log.contains("listening on")) || !process.is_running()
        });
        if !capturing || !process.is_running() {
            bail!("tcpdump does not capture on {interface}: {}", process.log()?.trim());
        }
        Ok(Self(process))
    }

    /// Ends it: how many packets there were, and how many of them tcpdump itself did not take.
    ///
    /// # Errors
    /// tcpdump did not end, or does not tell.
    pub fn stop(mut self) -> Result<(u64, u64)> {
        // What is in its socket still has to be read.
        std::thread::sleep(Duration::from_millis(500));
        self.0.stop(Signal::INT, Duration::from_secs(5))?;
        let log = self.0.log()?;
        let number_before = |words: &str| -> Result<u64> {
            let line = log.lines().find(|line| line.ends_with(words));
            let line = line.with_context(|| format!("no {words:?} in {log:?}"))?;
            Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
        };
        Ok((number_before("received by filter")?, number_before("dropped by kernel")?))
    }
}

/// A DNS message on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireMessage {
    /// The frame's number in the capture.
    pub frame: u64,
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// QR.
    pub response: bool,
    /// The DNS id.
    pub id: u16,
    /// Who asks.
    pub client: SocketAddr,
    /// Who is asked.
    pub server: SocketAddr,
    /// `udp` or `tcp`.
    pub transport: &'static str,
    /// The first question's name in lower case, without the trailing dot.
    pub name: String,
    /// The first question's type.
    pub qtype: u16,
}

/// What makes one query message and its response belong together.
pub type MessageKey = (SocketAddr, SocketAddr, &'static str, u16, String, u16);

impl WireMessage {
    /// Client, server, transport, id, name, type.
    pub fn key(&self) -> MessageKey {
        (self.client, self.server, self.transport, self.id, self.name.clone(), self.qtype)
    }
}

const FIELDS: [&str; 14] = [
    "frame.number",
    "frame.time_epoch",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "udp.srcport",
    "udp.dstport",
    "tcp.srcport",
    "tcp.dstport",
    "dns.id",
    "dns.flags.response",
    "dns.qry.name",
    "dns.qry.type",
];

/// The DNS messages of a capture, by time, as tshark reads them.
///
/// # Errors
/// tshark is missing, or a line of its output is not as asked for.
pub fn read_messages(file: &Path) -> Result<Vec<WireMessage>> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file).args(["-Y", "dns && !icmp && !icmpv6", "-T", "fields"]);
    command.args(["-E", "separator=/t", "-E", "aggregator=;"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = run(&mut command, Duration::from_secs(120))?;
    let mut messages = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        read_line(line, &mut messages).with_context(|| format!("cannot read tshark's {line:?}"))?;
    }
    Ok(messages)
}

/// One line is one frame; a TCP segment may end several messages.
fn read_line(line: &str, messages: &mut Vec<WireMessage>) -> Result<()> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [
        frame,
        time,
        v4_src,
        v4_dst,
        v6_src,
        v6_dst,
        udp_src,
        udp_dst,
        tcp_src,
        tcp_dst,
        ids,
        qrs,
        names,
        types,
    ] = fields.as_slice()
    else {
        bail!("it has not {} fields", FIELDS.len());
    };
    let (transport, from_port, to_port) =
        if udp_src.is_empty() { ("tcp", tcp_src, tcp_dst) } else { ("udp", udp_src, udp_dst) };
    let address = |v4: &str, v6: &str, port: &str| -> Result<SocketAddr> {
        let ip: IpAddr = if v4.is_empty() { v6 } else { v4 }.parse()?;
        Ok(SocketAddr::new(ip, port.parse()?))
    };
    let (from, to) = (address(v4_src, v6_src, from_port)?, address(v4_dst, v6_dst, to_port)?);
    let (seconds, nanoseconds) = time.split_once('.').context("no fraction of a second")?;
    ensure!(nanoseconds.len() == 9, "no nanoseconds");
    let time_ns = seconds.parse::<u64>()? * 1_000_000_000 + nanoseconds.parse::<u64>()?;
    let parts = |field: &str| field.split(';').map(str::to_owned).collect::<Vec<_>>();
    let (ids, qrs, names, types) = (parts(ids), parts(qrs), parts(names), parts(types));
    ensure!(ids.len() == qrs.len() && ids.len() == names.len() && ids.len() == types.len(), "uneven fields");
    for (((id, qr), name), qtype) in ids.iter().zip(&qrs).zip(&names).zip(&types) {
        let response = matches!(qr.as_str(), "1" | "True");
        let (client, server) = if response { (to, from) } else { (from, to) };
        messages.push(WireMessage {
            frame: frame.parse()?,
            time_ns,
            response,
            id: u16::from_str_radix(id.trim_start_matches("0x"), 16)?,
            client,
            server,
            transport,
            name: name.to_lowercase(),
            qtype: qtype.parse()?,
        });
    }
    Ok(())
}

/// Pairs each response with the oldest unanswered query of the same key: indexes of responses → of queries.
pub fn pair(messages: &[WireMessage]) -> HashMap<usize, usize> {
    let mut open: HashMap<MessageKey, Vec<usize>> = HashMap::new();
    let mut pairs = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        let waiting = open.entry(message.key()).or_default();
        if !message.response {
            waiting.push(index);
        } else if !waiting.is_empty() {
            pairs.insert(index, waiting.remove(0));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERIES: &str = "7\t1700000000.000000123\t\t\tfd00::1\tfd00::2\t\t\t4000\t53\t0x000a;0x000b\t0;0\tA.test;a.test\t1;28";
    const RESPONSE: &str =
        "9\t1700000000.001000123\t\t\tfd00::2\tfd00::1\t\t\t53\t4000\t0x000b\t1\ta.test\t28";

    #[test]
    fn two_messages_in_one_segment_are_two_and_a_response_pairs_with_its_own() {
        let mut messages = Vec::new();
        read_line(QUERIES, &mut messages).unwrap();
        read_line(RESPONSE, &mut messages).unwrap();
        assert_eq!(messages.len(), 3);
        assert_eq!(messages[0].name, "a.test");
        assert_eq!(messages[2].client, "[fd00::1]:4000".parse().unwrap());
        assert_eq!(messages[2].time_ns - messages[1].time_ns, 1_000_000);
        assert_eq!(pair(&messages), HashMap::from([(2, 1)]));
    }

    #[test]
    fn a_response_answers_the_oldest_query_that_has_none() {
        let mut messages = Vec::new();
        for line in [QUERIES, QUERIES, RESPONSE, RESPONSE, RESPONSE] {
            read_line(line, &mut messages).unwrap();
        }
        assert_eq!(pair(&messages), HashMap::from([(4, 1), (5, 3)]));
    }
}
