//! Packets that go missing on purpose: rules in the `raw` table of a node, before conntrack, which drop chosen
//! queries from chosen pods.

use anyhow::{Context, Result};

use crate::lab::{Lab, Pod};
use crate::query::Qtype;

/// Which queries to drop.
#[derive(Clone, Copy, Debug)]
pub struct QueryFilter {
    /// Only queries of this type.
    pub qtype: Option<Qtype>,
    /// Only the first so many of them; else all.
    pub first: Option<u32>,
}

/// A drop in force; it ends when this is dropped.
#[derive(Debug)]
pub struct QueryDrop<'a> {
    lab: &'a Lab,
    node: crate::topology::Site,
    chain: String,
}

impl Lab {
    /// Drops queries that `pod` sends to port 53 over UDP, IPv4 and IPv6, at its node.
    ///
    /// # Errors
    /// The rules cannot be loaded.
    pub fn drop_queries(&self, pod: &Pod, filter: QueryFilter) -> Result<QueryDrop<'_>> {
        let chain = format!("DROP-{}-{}", pod.name, filter.qtype.map_or("ALL", qtype_name));
        let question = match filter.qtype {
            // The root label, the type, class IN: how the question section of such a query ends.
            Some(qtype) => {
                format!("-m string --algo bm --from 40 --hex-string \"|0000{:02x}0001|\"", qtype as u8)
            }
            None => String::new(),
        };
        // A burst that refills once a day is a number of packets.
        let count = match filter.first {
            Some(first) => format!("-m limit --limit 1/day --limit-burst {first}"),
            None => String::new(),
        };
        let mut script = String::new();
        for (program, source) in [("iptables", pod.ip4.to_string()), ("ip6tables", pod.ip6.to_string())] {
            script.push_str(&format!(
                "{program} -w -t raw -N {chain}
{program} -w -t raw -A {chain} {question} {count} -j DROP
{program} -w -t raw -I PREROUTING -s {source} -p udp --dport 53 -j {chain}
"
            ));
        }
        self.site(pod.site).script(&script).context("cannot load the drop rules")?;
        Ok(QueryDrop { lab: self, node: pod.site, chain })
    }
}

fn qtype_name(qtype: Qtype) -> &'static str {
    match qtype {
        Qtype::A => "A",
        Qtype::Aaaa => "AAAA",
    }
}

impl QueryDrop<'_> {
    /// How many queries were dropped so far.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn hits(&self) -> Result<u64> {
        let mut hits = 0;
        for program in ["iptables", "ip6tables"] {
            let listing =
                self.lab.site(self.node).run(program, &["-w", "-t", "raw", "-vnxL", &self.chain])?;
            for line in listing.lines().filter(|line| line.contains("DROP")).skip(1) {
                let packets = line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
                hits += packets.with_context(|| format!("no packet count in {line:?}"))?;
            }
        }
        Ok(hits)
    }
}

impl Drop for QueryDrop<'_> {
    fn drop(&mut self) {
        let mut script = String::new();
        for program in ["iptables", "ip6tables"] {
            script.push_str(&format!(
                "{program} -w -t raw -S PREROUTING | sed -n 's/^-A \\(.* -j {chain}\\)$/\\1/p' | while read -r rule; do {program} -w -t raw -D $rule; done
{program} -w -t raw -F {chain}
{program} -w -t raw -X {chain}
",
                chain = self.chain
            ));
        }
        // A lab on its way down has no rules left to remove.
        let _ = self.lab.site(self.node).script(&script);
    }
}
