//! The report as one page for a browser: nothing is fetched, nothing runs, its size is bounded. The same events make the
//! same octets.

mod charts;
mod ladder;
mod markup;
mod samples;

use super::{Report, text};
use crate::{
    findings::{Confidence, Finding, Severity},
    model::{Lookup, Misdirected, Name, Observer, Pods, Question, Timestamp, Vantages},
    output::text::{DateTime, count, human},
    stats::{Overview, ServerStats, Share, Top},
};
use charts::Axis;
use markup::{Escaped, clipped};
use samples::Samples;
use std::{collections::HashSet, fmt::Write, io, net::IpAddr};

const STYLE: &str = include_str!("page.css");
/// Findings told one by one.
const FINDINGS: usize = 60;
/// Pictures drawn; the worst findings come first.
const PICTURES: usize = 30;
/// Rows of a table.
const ROWS: usize = 15;
/// Frame numbers shown.
const FRAMES: usize = 16;

/// What only the page shows: it is gathered where one is asked for.
#[derive(Debug)]
pub struct Page {
    overview: Overview,
    samples: Samples,
    pods: Pods,
}

impl Page {
    /// A page that names clients by `pods`.
    #[must_use]
    pub fn new(vantages: Vantages, pods: Pods) -> Self {
        Self { overview: Overview::default(), samples: Samples::new(vantages, pods.clone()), pods }
    }
}

impl Observer for Page {
    fn question(&mut self, question: &Question) {
        self.overview.question(question);
    }
    fn lookup(&mut self, lookup: &Lookup) {
        self.overview.lookup(lookup);
        self.samples.lookup(lookup);
    }
    fn misdirected(&mut self, frame: &Misdirected) {
        self.samples.misdirected(frame);
    }
}

impl Report<'_> {
    /// Writes the report as a page.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write_html(&self, page: &Page, to: &mut impl io::Write) -> io::Result<()> {
        let mut html = String::with_capacity(1 << 16);
        // Writing to a String does not fail.
        let _ = write!(
            html,
            "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\
             <link rel=icon href=\"data:,\"><title>dnspath report</title>\n<style>\n{STYLE}</style></head><body>\n"
        );
        self.top(&mut html);
        self.charts(&mut html, page);
        self.list(&mut html, page);
        self.tables(&mut html, page);
        html.push_str("</body></html>\n");
        to.write_all(html.as_bytes())
    }

    fn top(&self, html: &mut String) {
        let _ = write!(html, "<h1>{}</h1>\n<p class=dim>", Escaped(self.verdict()));
        if let Some((from, to)) = self.window {
            let _ = write!(html, "{} to {} UTC ({}), ", DateTime(from), DateTime(to), human(to.since(from)));
        }
        let _ = writeln!(html, "{}</p>", Escaped(text::sources(self.sources)));
        let _ = writeln!(html, "<p class=dim>Seen: {}</p>", Escaped(self.seen()));
        for clock in self.clock_lines() {
            let _ = writeln!(html, "<p class=dim>Clock: {}</p>", Escaped(clock));
        }
        for line in self.changes() {
            let _ = writeln!(html, "<p>{}</p>", Escaped(line));
        }
    }

    fn charts(&self, html: &mut String, page: &Page) {
        let series = &page.overview.series;
        let Some(window) = self.window.filter(|_| series.iter().next().is_some()) else { return };
        let axis = Axis::new(series, window);
        let findings: Vec<&Finding> = self.unexplained().collect();
        let _ = writeln!(
            html,
            "<h2>Lookups and findings</h2>\n<p class=dim>Times are UTC. A bar is {}; <b class=error>red</b>: \
             failed.</p>",
            human(series.width())
        );
        charts::timeline(html, axis, series, &findings);
        html.push_str(
            "\n<h2>Waits for answers</h2>\n<p class=dim>What half (<b class=p50>p50</b>) and all but a hundredth \
             (<b class=p99>p99</b>) of the questions waited at most.</p>\n",
        );
        charts::waits(html, axis, series);
    }

    fn list(&self, html: &mut String, page: &Page) {
        html.push_str("\n<h2>Findings</h2>\n");
        let all: Vec<&Finding> = self.unexplained().collect();
        if all.is_empty() {
            html.push_str("<p>None.</p>\n");
        }
        let mut drawn: HashSet<usize> = HashSet::new();
        for (index, finding) in all.iter().take(FINDINGS).enumerate() {
            self.finding(html, finding, index, page, &mut drawn);
        }
        let more: u64 = all.iter().skip(FINDINGS).map(|finding| finding.stands_for()).sum();
        if more > 0 {
            let _ = writeln!(html, "<p class=dim>and {} more (-o json has them)</p>", count(more));
        }
    }

    fn finding(
        &self,
        html: &mut String,
        finding: &Finding,
        index: usize,
        page: &Page,
        drawn: &mut HashSet<usize>,
    ) {
        let severity = finding.severity;
        let open = if severity > Severity::Info || index == 0 { " open" } else { "" };
        let doubt = if finding.confidence == Confidence::Inconclusive {
            " (inconclusive: frames were lost)"
        } else {
            ""
        };
        let _ = writeln!(
            html,
            "<details class={severity}{open}><summary><b class={severity}>{} {}</b> {}{doubt}</summary><div>",
            finding.code,
            finding.name,
            Escaped(&finding.summary)
        );
        let costs = text::consequences(finding);
        if !costs.is_empty() {
            let _ = writeln!(html, "<p>{}</p>", Escaped(costs));
        }
        if !finding.advice.is_empty() {
            let _ = writeln!(html, "<p>→ {}</p>", Escaped(&finding.advice));
        }
        let _ = writeln!(
            html,
            "<p class=dim>{}, {}; confidence {}</p>",
            if finding.count == 1 { "once".into() } else { format!("{} times", count(finding.count)) },
            Escaped(self.when(finding, FRAMES)),
            finding.confidence
        );
        if let Some((number, sample)) = page.samples.showing(&finding.evidence) {
            let of =
                format!("{} by {}: {}, {}", sample.name, sample.client, sample.result, human(sample.took));
            if drawn.contains(&number) {
                let _ = writeln!(html, "<p class=dim>Its picture is above: {}</p>", Escaped(of));
            } else if drawn.len() < PICTURES {
                drawn.insert(number);
                let _ = write!(html, "<p class=dim>For example {}</p><div class=scroll>", Escaped(of));
                ladder::draw(html, sample, self.vantages);
                html.push_str("</div>\n");
            }
        }
        let mut explained = self.findings.iter().filter(|other| {
            let by = other.explained_by.and_then(|by| self.findings.get(by.place));
            by.is_some_and(|by| std::ptr::eq(by, finding))
        });
        if let Some(first) = explained.next() {
            let _ = write!(html, "<p class=dim>So it explains:</p><ul class=dim>");
            for other in std::iter::once(first).chain(explained).take(ROWS) {
                let _ = write!(html, "<li>{} {}</li>", other.code, Escaped(&other.summary));
            }
            html.push_str("</ul>");
        }
        html.push_str("</div></details>\n");
    }

    fn tables(&self, html: &mut String, page: &Page) {
        let Page { overview, pods, .. } = page;
        let at = self.window.map_or(Timestamp::EPOCH, |(_, to)| to);
        html.push_str("<div class=tables><section>\n<h2>Clients</h2>\n");
        let client = |address: &IpAddr| match pods.name_at(*address, at) {
            Some(pod) => format!("{pod} ({address})"),
            None => address.to_string(),
        };
        shares(html, "client", &overview.clients, client);
        html.push_str("</section><section>\n<h2>Names</h2>\n");
        shares(html, "name", &overview.names, Name::to_string);
        html.push_str("</section><section>\n<h2>Servers</h2>\n");
        self.servers(html);
        html.push_str("</section><section>\n<h2>Answers</h2>\n<table><tr><th>code<th class=n>answers\n");
        let mut rcodes: Vec<_> = overview.rcodes.iter().collect();
        rcodes.sort_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
        for (rcode, number) in rcodes {
            let _ = writeln!(html, "<tr><td>{}<td class=n>{}", Escaped(rcode), count(*number));
        }
        html.push_str("</table></section></div>\n");
    }

    fn servers(&self, html: &mut String) {
        html.push_str(
            "<table><tr><th>server<th class=n>queries<th class=n>unanswered<th class=n>p50<th class=n>p99\n",
        );
        let wait = |stats: &ServerStats, quantile| {
            stats.latency.quantile(quantile).map_or_else(|| "–".to_owned(), |wait| human(wait).to_string())
        };
        for (address, stats) in self.stats.servers().ranked().into_iter().take(ROWS) {
            let _ = writeln!(
                html,
                "<tr><td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
                Escaped(self.server_name(address)),
                count(stats.queries),
                count(stats.unanswered),
                wait(stats, 0.5),
                wait(stats, 0.99)
            );
        }
        html.push_str("</table>");
    }
}

fn shares<K: Clone + Eq + std::hash::Hash + Ord>(
    html: &mut String,
    what: &str,
    top: &Top<K>,
    name: impl Fn(&K) -> String,
) {
    let _ = writeln!(
        html,
        "<table><tr><th>{what}<th class=n>lookups<th class=n>no address<th class=n>queries<th class=n>took"
    );
    for (key, share) in top.ranked(ROWS) {
        let Share { lookups, without, queries, took, .. } = share;
        let shown = name(key);
        let _ = writeln!(
            html,
            "<tr><td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
            Escaped(clipped(&shown, 120)),
            count(lookups),
            count(without),
            count(queries),
            human(took)
        );
    }
    html.push_str("</table>");
    match top.len() {
        Some(all) if all > ROWS => {
            let _ = write!(html, "<p class=dim>of {}</p>", count(all as u64));
        }
        Some(_) => {}
        None => html.push_str("<p class=dim>of very many: these counts are the least there were</p>"),
    }
}
