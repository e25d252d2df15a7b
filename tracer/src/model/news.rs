//! What is learnt of a node beside its frames.

use super::{BlindSpot, PodName, Resolver, RuleCount, Service, Timestamp};
use std::{net::IpAddr, sync::Arc};

/// One thing learnt of the node. What a session is told, a recording is told at the same place between the frames, so
/// that reading it is the same session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something that cannot be seen, as it was found at this time.
    Blind(Arc<BlindSpot>, Timestamp),
    /// Whose address this is from this time on: [`super::Pods::tell`].
    Named(IpAddr, Arc<PodName>, Timestamp),
    /// That the owner of this address was gone at this time: [`super::Pods::end`].
    Gone(IpAddr, Timestamp),
    /// From this time on only this container of the pod can ask; `None`: several can, or nobody knows:
    /// [`super::Pods::tell_container`].
    Container(Arc<PodName>, Option<Arc<str>>, Timestamp),
    /// A container's resolver as it was read at this time.
    Resolver(Arc<Resolver>, Timestamp),
    /// The packet rules of a namespace as they were counted at this time.
    Rules(Arc<RuleCount>, Timestamp),
    /// A service as it was found at this time: [`super::Services::tell`].
    Service(Arc<Service>, Timestamp),
}

impl News {
    /// The same by another clock.
    #[must_use]
    pub fn shifted(self, nanos: i64) -> Self {
        match self {
            Self::Blind(spot, time) => Self::Blind(spot, time.shifted(nanos)),
            Self::Named(address, pod, since) => Self::Named(address, pod, since.shifted(nanos)),
            Self::Gone(address, time) => Self::Gone(address, time.shifted(nanos)),
            Self::Container(pod, name, since) => Self::Container(pod, name, since.shifted(nanos)),
            Self::Resolver(resolver, time) => Self::Resolver(resolver, time.shifted(nanos)),
            Self::Rules(count, time) => Self::Rules(count, time.shifted(nanos)),
            Self::Service(service, time) => Self::Service(service, time.shifted(nanos)),
        }
    }
}
