//! What this capture cannot see, and why.

use super::{Capture, ClashMethod};
use crate::model::BlindSpot;
use aya::programs::{SchedClassifier, TcAttachType};
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle,
    packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption},
};

/// What the kernel side's programs are called by.
const OWN: &str = "dnspath";
/// Interfaces whose programs are looked at: on a node of others' programs the first pod has them.
const MOST_LOOKED_AT: usize = 16;

impl Capture {
    /// What is known of it when it has started.
    #[must_use]
    pub fn blind_spots(&self) -> Vec<BlindSpot> {
        let mut spots = Vec::new();
        if let Some(reason) = self.facts().no_nat {
            spots.push(BlindSpot::new(
                "translation",
                reason,
                "which hops of translated connections are one packet's, where their content does not tell",
                "A kernel with CONFIG_DEBUG_INFO_BTF tells it.",
            ));
        }
        match self.drop_facts() {
            Err(reason) => spots.push(BlindSpot::new(
                "drops",
                reason,
                "packets that the kernel drops, and clashes of conntrack entries",
                "Waits are told without their cause (DP301 to DP304, DP401); `dnspath check` says what is missing.",
            )),
            Ok(facts) => {
                if facts.reasons == 0 {
                    spots.push(BlindSpot::new(
                        "drop-reasons",
                        "this kernel gives no reasons for drops",
                        "why a packet was dropped; the function that freed it is named",
                        "Reasons came with Linux 5.17.",
                    ));
                }
                if let ClashMethod::Counters(reason) = &facts.method {
                    spots.push(BlindSpot::new(
                        "clashes",
                        reason,
                        "the packet of a clash that conntrack resolved towards the same server (its counter shows it)",
                        "Clashes that cost a packet are told all the same, by conntrack's counters.",
                    ));
                }
            }
        }
        if self.conntrack().is_none() {
            spots.push(BlindSpot::new(
                "conntrack",
                "conntrack's counters cannot be read (/proc/net/stat/nf_conntrack)",
                "clashes that cost nothing, and how full the table is",
                "Without nf_conntrack there are none; where it is loaded later, its drops are told from then on.",
            ));
        }
        if let Some(program) = self.foreign_program() {
            spots.push(BlindSpot::new(
                "ebpf-routing",
                format!("eBPF programs of others are attached: {program}"),
                "packets that they redirect (eBPF host routing), answers more often than queries",
                "With Cilium, bpf.hostLegacyRouting=true sends packets by the kernel's own way; Calico's eBPF dataplane has \
                 no such switch.",
            ));
        }
        spots
    }

    /// An eBPF program of somebody else that was attached before, and where.
    #[must_use]
    pub fn foreign_program(&self) -> Option<&str> {
        self.namespaces.iter().find_map(|namespace| namespace.foreign.as_deref())
    }
}

/// The first program of others at one of these interfaces, by `name on interface`; none of this tool may be attached yet.
pub(super) async fn foreign_program<'a>(
    handle: &Handle,
    interfaces: impl Iterator<Item = (u32, &'a str)>,
) -> Option<String> {
    for (index, interface) in interfaces.take(MOST_LOOKED_AT) {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            // Kernels before 6.6 have no tcx.
            let tcx = SchedClassifier::query_tcx(interface, direction).map_or_else(
                |_| Vec::new(),
                |(_, programs)| programs.iter().filter_map(|it| Some(it.name_as_str()?.to_owned())).collect(),
            );
            let clsact = filters(handle, index, direction).await;
            let all = tcx.into_iter().chain(clsact.iter().filter_map(bpf_name));
            if let Some(name) = all.into_iter().find(|name| !name.starts_with(OWN)) {
                let name = if name.is_empty() { "one without a name".into() } else { name };
                return Some(format!("{name} on {interface}"));
            }
        }
    }
    None
}

async fn filters(handle: &Handle, index: u32, direction: TcAttachType) -> Vec<TcMessage> {
    let Ok(index) = i32::try_from(index) else { return Vec::new() };
    let mut all = handle.traffic_filter(index);
    let get =
        if matches!(direction, TcAttachType::Ingress) { all.get().ingress() } else { all.get().egress() };
    // An interface without such a qdisc is an error: there are none.
    get.execute().try_collect().await.unwrap_or_default()
}

/// The name of a filter that is an eBPF program; empty where it has none.
fn bpf_name(filter: &TcMessage) -> Option<String> {
    let is_bpf =
        |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind.as_str() == "bpf");
    if !filter.attributes.iter().any(is_bpf) {
        return None;
    }
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let name = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    });
    Some(name.unwrap_or_default())
}
