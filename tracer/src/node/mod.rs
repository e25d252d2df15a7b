//! Who is who on this node: which address belongs to which pod, found out without an API server.
//!
//! [`Watch`] follows the pods in a thread of its own and tells [`crate::model::Pods`]:
//!
//! 1. `links`: the kernel says which interfaces of a watched namespace lead to which other one, and its addresses.
//! 2. `processes`, `cgroup`: the processes in that namespace, and the ids of their containers.
//! 3. `runtimes`, `cni`: whose a container is, by the files that containerd, CRI-O, Docker, podman and CNI keep.
//! 4. `resolvers`: what each container's libc reads of resolv.conf and its environment.
//! 5. `naming` joins these, `census` tells, and `containers` which of a pod's containers it is, where that can be known. What is broken, unreadable or contradictory leaves an address without a
//!    name; nothing gives it a wrong one.
//!
//! [`Counting`] counts the packet rules beside it, and finds the services that kube-proxy made: `rules` (iptables), `nft`,
//! `ipvs`, joined in `services`.
//!
//! For names nothing is entered, asked or changed: reading takes CAP_NET_ADMIN for addresses (which capture has) and
//! CAP_SYS_PTRACE for `/proc/PID/ns/net`. Every file is read bounded (`roots`).

mod addresses;
mod arrivals;
mod blind;
mod census;
mod cgroup;
mod check;
mod cni;
mod containers;
mod counting;
mod ipvs;
mod links;
mod listing;
mod naming;
mod nft;
mod processes;
mod resolvers;
mod roots;
mod rules;
mod runtimes;
mod services;
mod town;
mod watch;

pub use blind::blind_spots;
pub use check::check;
pub use counting::{Counted, Counting};
pub use links::Watched;
pub use roots::Roots;
pub use watch::{Counts, Inside, Neighbourhood, Settings, Watch};
