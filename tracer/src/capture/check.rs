//! What this kernel and node let dnspath see: found out by trying.

use super::{
    Btf, Capture, CaptureError, ClashMethod, Hook, Netns, Notes, Options, privileges, program::MOST_BY_TCX,
};
use crate::model::{Check, Direction, InterfaceKind, Vantages};
use std::time::Duration;

/// Looks at everything; `monotonic_now` is CLOCK_MONOTONIC in nanoseconds.
///
/// The kernel side is really loaded and attached, and detached again.
#[must_use]
pub fn check(options: &Options, monotonic_now: impl Fn() -> u64) -> Vec<Check> {
    let mut checks = vec![kernel(), btf(), capabilities(options)];
    checks.extend(attachment(options, monotonic_now));
    checks
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let found = format!("Linux {release} on {}", uname.machine().to_string_lossy());
    match Hook::of_kernel() {
        Hook::Tcx => Check::fine("kernel", found),
        Hook::Auto | Hook::Clsact => Check::limited(
            "kernel",
            format!("{found}: no tcx links before 6.6, so clsact is used"),
            "a dnspath that is killed leaves its filters; the next one on this node takes them away",
        ),
    }
}

fn btf() -> Check {
    match Btf::of_kernel() {
        Ok(_) => Check::fine("type information", "the kernel has BTF"),
        Err(error) => Check::limited(
            "type information",
            error.to_string(),
            "hops of translated connections are joined by their content alone; a kernel with CONFIG_DEBUG_INFO_BTF joins them exactly",
        ),
    }
}

fn capabilities(options: &Options) -> Check {
    let other = options.namespaces.iter().any(|netns| *netns != Netns::Own);
    let missing: Vec<String> = privileges::missing(other).iter().map(ToString::to_string).collect();
    if missing.is_empty() {
        return Check::fine("capabilities", "all that capture needs");
    }
    Check::missing(
        "capabilities",
        format!("missing: {}", missing.join(", ")),
        "run as root, give the binary these capabilities (setcap), or the pod in its securityContext",
    )
}

fn attachment(options: &Options, monotonic_now: impl Fn() -> u64) -> Vec<Check> {
    let (vantages, notes) = (Vantages::new(), Notes::default());
    let before = monotonic_now();
    let mut capture = match Capture::start(options, 0, &vantages, &notes) {
        Ok(capture) => capture,
        Err(error) => {
            let hint = match error {
                // These say themselves what to do.
                CaptureError::NoSuchInterface { .. } | CaptureError::Netns { .. } => "",
                _ => {
                    "under kernel lockdown or in a container without the right capabilities eBPF is refused; \
                     `dnspath report FILE` works on captures of tcpdump everywhere"
                }
            };
            return vec![Check::missing("attachment", error.to_string(), hint)];
        }
    };
    let took = Duration::from_nanos(monotonic_now().saturating_sub(before));
    let facts = capture.facts();
    let attached = capture.attached();
    let of_drops = drops(&capture);
    let foreign = capture.foreign_program().map(str::to_owned);
    capture.stop();
    let mut trial = format!("{attached} interfaces by {} in {} ms", facts.hook, took.as_millis());
    if facts.too_many_for_tcx {
        trial.push_str(&format!(
            " (tcx would take 30 ms for each; up to {MOST_BY_TCX} it is used, and leaves nothing when dnspath is killed)"
        ));
    }
    let problems = notes.take_fresh();
    let mut checks = Vec::new();
    checks.push(match (attached, problems.first()) {
        (0, _) => Check::missing(
            "attachment",
            "no interface here carries pod or node traffic",
            "name one with -i, or run in the node's network namespace (hostNetwork, --netns)",
        ),
        (_, Some(problem)) => {
            Check::limited("attachment", format!("{trial}; {problem}"), "traffic there is not seen")
        }
        (_, None) => Check::fine("attachment", trial),
    });
    checks.push(match facts.no_nat {
        None => Check::fine("translation", "conntrack's view of translated packets can be read"),
        Some(reason) => Check::limited("translation", reason, "hops are joined by their content alone"),
    });
    checks.push(match foreign {
        None => Check::fine("other programs", "no eBPF programs of others at these interfaces"),
        Some(program) => Check::limited(
            "other programs",
            format!("eBPF programs of others are attached: {program}"),
            "packets that they redirect (eBPF host routing) pass unseen",
        ),
    });
    checks.extend(of_drops);
    checks.push(Check::fine("interfaces", interfaces(&vantages)));
    checks
}

/// How dropped packets and conntrack clashes are seen.
fn drops(capture: &Capture) -> Vec<Check> {
    const WITHOUT_REASON: &str =
        "the function that freed a packet is named instead; reasons came with Linux 5.17";
    let counters = match capture.conntrack() {
        Some(counted) => {
            let use_of_table = format!(
                "conntrack's counters can be read; {} of {} connections",
                counted.entries, counted.max
            );
            Check::fine("conntrack counters", use_of_table)
        }
        None => Check::limited(
            "conntrack counters",
            "/proc/net/stat/nf_conntrack cannot be read",
            "clashes that cost nothing, and how full the table is, are not seen; is nf_conntrack loaded?",
        ),
    };
    let facts = match capture.drop_facts() {
        Ok(facts) => facts,
        Err(reason) => {
            let hint = "a lost packet is told by what was not seen of it any more";
            return vec![Check::limited("dropped packets", reason, hint), counters];
        }
    };
    let method = match &facts.method {
        ClashMethod::Confirm => "by probes at __nf_conntrack_confirm".to_owned(),
        ClashMethod::Counters(reason) => format!("by conntrack's counters when a packet is freed ({reason})"),
    };
    let reasons = match facts.reasons {
        0 => Check::limited("drop reasons", "this kernel gives none", WITHOUT_REASON),
        known => Check::fine("drop reasons", format!("known: {known}")),
    };
    let places = if facts.places {
        Check::fine("kernel symbols", "the functions that free packets are named")
    } else {
        Check::limited(
            "kernel symbols",
            "the kernel hides its addresses",
            "places of drops are not named; CAP_SYSLOG shows them",
        )
    };
    vec![
        Check::fine("dropped packets", "each is seen where the kernel frees it"),
        Check::fine("conntrack clashes", method),
        reasons,
        places,
        counters,
    ]
}

/// `bridge cni0; uplink eth0; veth vethA vethB and 12 more`.
fn interfaces(vantages: &Vantages) -> String {
    const SHOWN: usize = 6;
    let all = vantages.all();
    let kinds = [
        InterfaceKind::Bridge,
        InterfaceKind::Uplink,
        InterfaceKind::Tunnel,
        InterfaceKind::Veth,
        InterfaceKind::Loopback,
        InterfaceKind::Unknown,
    ];
    let of_kind = |kind: InterfaceKind| {
        let names: Vec<&str> = all
            .iter()
            .filter(|vantage| vantage.kind == kind && vantage.direction == Direction::Ingress)
            .map(|vantage| vantage.interface.as_str())
            .collect();
        let more = names.len().saturating_sub(SHOWN);
        let mut line = format!("{kind} {}", names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(" "));
        if more > 0 {
            line.push_str(&format!(" and {more} more"));
        }
        (!names.is_empty()).then_some(line)
    };
    kinds.into_iter().filter_map(of_kind).collect::<Vec<_>>().join("; ")
}
