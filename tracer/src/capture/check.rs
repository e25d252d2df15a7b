//! What this kernel and node let dnspath see: found out by trying.

use super::{Btf, Capture, CaptureError, Hook, Netns, Notes, Options, privileges};
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
    capture.stop();
    let trial = format!("{attached} interfaces by {} in {} ms", facts.hook, took.as_millis());
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
    checks.push(Check::fine("interfaces", interfaces(&vantages)));
    checks
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
