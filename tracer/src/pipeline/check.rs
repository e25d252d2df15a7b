//! `dnspath check`: what capture finds out by trying, then what of the node bears on DNS.

use super::{
    beside::{namespaces, watch_node, watched},
    clock,
    offline::CANNOT_PRINT,
};
use crate::{
    capture::{self, Interfaces, Netns, Notes},
    cli::{
        args::CheckFormat,
        options::{CheckOptions, ExitStatus},
    },
    findings::{Findings, Severity},
    model::{Check, Coverage, Observer as _, Pods, Verdict},
    node, output,
};
use anyhow::Context as _;
use std::{
    io::{self, Write as _},
    sync::mpsc,
};

/// Containers whose resolvers are looked at.
const MOST_RESOLVERS: usize = 8_192;
/// Findings about them that have a line of their own.
const LINES: usize = 10;

/// Says what this node lets dnspath see and what is wrong with it; [`ExitStatus::Findings`] where it cannot capture, or
/// something is wrong.
///
/// # Errors
/// When an option makes no sense, or stdout cannot be written.
pub fn check(options: &CheckOptions) -> anyhow::Result<ExitStatus> {
    let capture_options = capture::Options {
        interfaces: Interfaces::new(&options.interfaces)
            .context("cannot use --interface; give names, or patterns with * ? [...]")?,
        namespaces: namespaces(&options.netns),
        hook: options.hook,
        ..capture::Options::default()
    };
    let checks = std::thread::scope(|scope| {
        // A huge ruleset takes seconds to list; attaching and looking at the pods wait for the kernel too.
        let nodes = scope.spawn(|| nodes(&capture_options.namespaces, options.probe));
        let mut checks = capture::check(&capture_options, clock::monotonic_now);
        checks.extend(pods(&capture_options.namespaces));
        checks.extend(nodes.join().unwrap_or_else(|_| {
            let hint = "what bears on DNS here was not looked at: please report this";
            vec![Check::limited("node", "the thread that looks at it failed", hint)]
        }));
        checks
    });
    let text = match options.format {
        CheckFormat::Json => format!("{:#}\n", output::check::to_json(&checks)),
        CheckFormat::Text => output::check::to_text(&checks),
    };
    io::stdout().lock().write_all(text.as_bytes()).context(CANNOT_PRINT)?;
    let bad = checks.iter().any(|check| check.verdict >= Verdict::Wrong);
    Ok(if bad { ExitStatus::Findings } else { ExitStatus::Clean })
}

/// What bears on DNS in each namespace.
fn nodes(namespaces: &[Netns], probe: bool) -> Vec<Check> {
    let roots = node::Roots::find();
    let looked = namespaces.iter().flat_map(|netns| {
        let watched = watched(netns);
        let found = node::check(&watched, &roots, probe);
        let named = |check: Check| Check { found: format!("{}: {}", watched.name, check.found), ..check };
        if namespaces.len() > 1 { found.into_iter().map(named).collect() } else { found }
    });
    looked.collect()
}

/// Who is here, and how they resolve.
fn pods(namespaces: &[Netns]) -> Vec<Check> {
    let (pods, notes) = (Pods::new(), Notes::default());
    let (found, resolvers) = mpsc::sync_channel(MOST_RESOLVERS);
    // One look is enough: it is over when the watch has started.
    let counts = watch_node(namespaces, &pods, found, &notes).map(|watch| watch.counts()).unwrap_or_default();
    let mut checks = vec![known(counts, notes.take_fresh().first())];
    let now = clock::wall_now();
    let mut findings = Findings::default();
    let mut looked_at = 0;
    for resolver in resolvers.try_iter() {
        looked_at += 1;
        findings.resolver(&resolver, now);
    }
    let ranked = findings.ranked(&Coverage::default(), (now, now));
    let of_files: Vec<_> = ranked.iter().filter(|finding| finding.code == "DP501").collect();
    if of_files.is_empty() {
        checks.push(Check::fine("resolv.conf", format!("{looked_at} containers, nothing wrong")));
    }
    checks.extend(of_files.iter().take(LINES).map(|finding| {
        let verdict = if finding.severity > Severity::Info { Verdict::Wrong } else { Verdict::Limited };
        let hint = format!("{}: {}", finding.code, finding.advice);
        Check { name: "resolv.conf", verdict, found: finding.summary.clone(), hint }
    }));
    if of_files.len() > LINES {
        let more = format!("{} faults more", of_files.len() - LINES);
        checks.push(Check::wrong("resolv.conf", more, "mend those above, then look again"));
    }
    checks
}

fn known(counts: node::Counts, note: Option<&String>) -> Check {
    let node::Counts { pods, others, ambiguous, unknown } = counts;
    let mut found = match (pods, others) {
        (0, 0) if ambiguous + unknown == 0 => "none here".into(),
        (pods, 0) => format!("{pods} by name"),
        (pods, others) => format!("{pods} by name, and {others} others that are no pods"),
    };
    for (count, what) in [(unknown, "unknown"), (ambiguous, "named differently by two sources")] {
        if count > 0 {
            found.push_str(&format!(", {count} {what}"));
        }
    }
    if let Some(note) = note {
        return Check::limited("pods", found, note);
    }
    if ambiguous + unknown > 0 {
        let hint = "these are shown by address: their runtime's files are not where they are looked for (in a container \
                    mount the node's / at /host), or their network has no process yet";
        return Check::limited("pods", found, hint);
    }
    Check::fine("pods", found)
}
