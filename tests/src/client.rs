//! Real resolvers as clients.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::clock;
use crate::lab::Pod;
use crate::process::output_of;
use crate::requirements::find;
use crate::toolbox;

/// The slowest of them, c-ares 1.18, gives up after 75 s.
const LOOKUP_LIMIT: Duration = Duration::from_secs(100);

/// A stub resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// `getaddrinfo` of the GNU C library.
    Glibc,
    /// `getaddrinfo` of musl.
    Musl,
    /// Go's own resolver.
    Go,
    /// `ares_getaddrinfo` of c-ares.
    CAres,
    /// busybox's `nslookup`.
    Busybox,
}

/// What a lookup came to.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupAnswer {
    /// The name asked.
    pub name: String,
    /// Addresses, as the resolver ordered them.
    pub addresses: Vec<IpAddr>,
    /// The resolver's own words where it failed.
    pub error: Option<String>,
    /// How long the call took.
    pub took: Duration,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Glibc, Self::Musl, Self::Go, Self::CAres, Self::Busybox];

    /// The program, built if need be.
    ///
    /// # Errors
    /// Why this client is left out here.
    pub fn available(self) -> Result<PathBuf> {
        match self {
            Self::Glibc => toolbox::glibc(),
            Self::Musl => toolbox::musl(),
            Self::Go => toolbox::go(),
            Self::CAres => toolbox::cares(),
            Self::Busybox => find("busybox").context("busybox is missing (package busybox-static)"),
        }
    }

    /// A command that looks up `names` in `pod`, one after another.
    ///
    /// # Errors
    /// The client is not available here.
    pub fn command(self, pod: &Pod, names: &[&str]) -> Result<Command> {
        let mut command = pod.command(self.available()?);
        if self == Self::Busybox {
            command.arg("nslookup");
        }
        command.args(names);
        Ok(command)
    }

    /// Looks up one name, both families.
    ///
    /// # Errors
    /// The client is not available or cannot be run. A name that does not resolve is an answer, not an error.
    pub fn lookup(self, pod: &Pod, name: &str) -> Result<LookupAnswer> {
        let start = clock::now();
        let output = output_of(&mut self.command(pod, &[name])?, "", LOOKUP_LIMIT)?;
        let took = start.elapsed();
        let text = String::from_utf8_lossy(&output.stdout);
        match self {
            Self::Busybox => Ok(parse_nslookup(name, &text, took)),
            _ => {
                let complaint = || {
                    anyhow!("{self:?} printed no result: {}", String::from_utf8_lossy(&output.stderr).trim())
                };
                parse_lookups(&text)?.pop().ok_or_else(complaint)
            }
        }
    }

    /// Looks up several names in one process, `rounds` times over. Not for busybox.
    ///
    /// # Errors
    /// As [`Client::lookup`].
    pub fn lookup_all(self, pod: &Pod, names: &[&str], rounds: usize) -> Result<Vec<LookupAnswer>> {
        let mut command = pod.command(self.available()?);
        command.arg("-n").arg(rounds.to_string()).args(names);
        let output = output_of(&mut command, "", LOOKUP_LIMIT)?;
        parse_lookups(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Reads lines of `NAME\tSECONDS\tok|fail\tADDRESSES|ERROR`.
fn parse_lookups(text: &str) -> Result<Vec<LookupAnswer>> {
    text.lines().map(|line| parse_line(line).with_context(|| format!("cannot read {line:?}"))).collect()
}

fn parse_line(line: &str) -> Result<LookupAnswer> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, seconds, status, rest] = fields.as_slice() else { bail!("it has not four fields") };
    let took = Duration::try_from_secs_f64(seconds.parse().context("no seconds")?)?;
    let (addresses, error) = if *status == "ok" {
        (rest.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>()?, None)
    } else {
        (Vec::new(), Some((*rest).to_owned()))
    };
    Ok(LookupAnswer { name: (*name).to_owned(), addresses, error, took })
}

/// Reads busybox's `nslookup`: the first address is the server's own, those after a `Name:` line are the answers.
fn parse_nslookup(name: &str, text: &str, took: Duration) -> LookupAnswer {
    let addresses: Vec<IpAddr> = text
        .lines()
        .skip_while(|line| !line.starts_with("Name:"))
        .filter_map(|line| line.strip_prefix("Address:"))
        .filter_map(|address| address.trim().parse().ok())
        .collect();
    let error = addresses.is_empty().then(|| text.trim().to_owned());
    LookupAnswer { name: name.to_owned(), addresses, error, took }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_client_is_an_answer_or_a_failure() {
        let lines = "a.test\t0.001500\tok\t192.0.2.1 2001:db8::1\nb.test\t5.000000\tfail\tTry again\n";
        let answers = parse_lookups(lines).unwrap();
        assert_eq!(answers[0].addresses, ["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(answers[0].took, Duration::from_micros(1500));
        assert_eq!(answers[1].error.as_deref(), Some("Try again"));
        assert!(parse_lookups("a.test 1\n").is_err());
    }

    #[test]
    fn nslookups_first_address_is_the_servers() {
        let text = "Server:\t\t10.96.0.10\nAddress:\t10.96.0.10:53\n\nName:\ta.test\nAddress: 192.0.2.1\n";
        let answer = parse_nslookup("a.test", text, Duration::ZERO);
        assert_eq!(answer.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(
            parse_nslookup("a.test", "Server:\t10.96.0.10\nAddress:\t10.96.0.10:53\n", Duration::ZERO)
                .error
                .is_some()
        );
    }
}
