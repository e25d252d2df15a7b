//! dnsperf: as many queries as one machine can send.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Pod;
use crate::process::run;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Names, each asked for A and AAAA in turn.
    pub names: Vec<String>,
    /// How long, in whole seconds.
    pub seconds: u64,
    /// At most so many queries a second; else as many as come back.
    pub rate: Option<u32>,
    /// Sockets to send from.
    pub clients: u32,
    /// Queries in flight at once.
    pub outstanding: u32,
}

impl Load {
    /// As fast as it goes, for so many seconds.
    pub fn full_speed(seconds: u64) -> Self {
        let names = ["payments.shop.svc.cluster.local", "www.example.com", "v4only.example.com"];
        Self { names: names.map(str::to_owned).to_vec(), seconds, rate: None, clients: 20, outstanding: 500 }
    }
}

/// What dnsperf counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadResult {
    /// Queries sent.
    pub sent: u64,
    /// Queries answered.
    pub completed: u64,
    /// Queries that got no answer.
    pub lost: u64,
    /// Answers a second.
    pub queries_per_second: f64,
}

impl Load {
    /// Runs dnsperf in `pod` against `server` to its end.
    ///
    /// # Errors
    /// dnsperf is missing, fails, or prints something else than its statistics.
    pub fn run(&self, pod: &Pod, server: IpAddr) -> Result<LoadResult> {
        let file = pod.namespace.files().join("dnsperf.queries");
        let mut queries = String::new();
        for name in &self.names {
            // Writing to a String cannot fail.
            let _ = writeln!(queries, "{name} A\n{name} AAAA");
        }
        fs::write(&file, queries).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = pod.command("dnsperf");
        command.arg("-s").arg(server.to_string()).arg("-d").arg(&file);
        command.arg("-l").arg(self.seconds.to_string()).args(["-t", "1"]);
        command.arg("-c").arg(self.clients.to_string()).arg("-q").arg(self.outstanding.to_string());
        if let Some(rate) = self.rate {
            command.arg("-Q").arg(rate.to_string());
        }
        let output = run(&mut command, Duration::from_secs(self.seconds + 30))?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).with_context(|| format!("cannot read dnsperf's statistics: {text}"))
    }
}

fn parse(text: &str) -> Option<LoadResult> {
    let value = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label))?;
        line.split_whitespace().next()
    };
    Some(LoadResult {
        sent: value("Queries sent:")?.parse().ok()?,
        completed: value("Queries completed:")?.parse().ok()?,
        lost: value("Queries lost:")?.parse().ok()?,
        queries_per_second: value("Queries per second:")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnsperfs_statistics_are_read_by_their_labels() {
        let text = "Statistics:\n\n  Queries sent:         100\n  Queries completed:    99 (99.00%)\n  Queries lost:         1 (1.00%)\n\n  Queries per second:   49.500000\n";
        let expected = LoadResult { sent: 100, completed: 99, lost: 1, queries_per_second: 49.5 };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("Error: no server"), None);
    }
}
