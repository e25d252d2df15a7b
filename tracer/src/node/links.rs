//! What the kernel says of a watched namespace: its interfaces whose other end is elsewhere, and who is there.
//!
//! The kernel numbers the namespaces that a namespace knows of (`net_namespace.c`, "nsid"). A veth's other end is told
//! by that number (IFLA_LINK_NETNSID), a namespace's number by its file (RTM_GETNSID), and its addresses can be asked
//! for by the number (IFA_TARGET_NETNSID) without entering it. Interface indexes of one namespace are not used again;
//! numbers and inodes are.

use super::addresses;
use crate::model::PodName;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::{ErrorMessage, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
    },
    sys::{AsyncSocket as _, SocketAddr},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::PathBuf,
};

/// A namespace that capture watches.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What its own addresses are called.
    pub name: String,
    /// Its file; `None`: the one the process is in.
    pub path: Option<PathBuf>,
}

impl Watched {
    /// What its own addresses belong to.
    #[must_use]
    pub(super) fn as_pod(&self) -> PodName {
        PodName { namespace: String::new(), name: self.name.clone() }
    }
}

/// The interfaces of a watched namespace that lead to others: their indexes, by the other's number.
pub(super) type Peers = BTreeMap<i32, BTreeSet<u32>>;

type NewsOfLinks =
    futures_util::stream::BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// What happened to the interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// One came, changed, or news were lost: list them.
    Changed,
    /// The one of this index is gone.
    Gone(u32),
    /// Nothing of interest.
    Other,
    /// There will be no more news.
    Ended,
}

/// A connection to the kernel from inside a watched namespace.
pub(super) struct Links {
    handle: Handle,
    news: Option<NewsOfLinks>,
}

impl Links {
    /// Connects; must be called in a runtime. The calling thread is in the namespace afterwards.
    pub(super) fn connect(watched: &Watched) -> io::Result<Self> {
        if let Some(path) = &watched.path {
            move_into_link_name_space(File::open(path)?.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        let (mut connection, handle, news) = new_multicast_connection(&[MulticastGroup::Link])?;
        // Without it the kernel overlooks the number in a request for addresses, and tells those of this namespace.
        connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true)?;
        tokio::spawn(connection);
        Ok(Self { handle, news: Some(news.boxed()) })
    }

    /// Waits for news; for ever once they have ended.
    pub(super) async fn news(&mut self) -> News {
        let Some(news) = &mut self.news else { return std::future::pending().await };
        let Some((message, _)) = news.next().await else {
            self.news = None;
            return News::Ended;
        };
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
                if link.header.interface_family == AddressFamily::Unspec =>
            {
                News::Gone(link.header.index)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(_)) | NetlinkPayload::Overrun(_) => {
                News::Changed
            }
            _ => News::Other,
        }
    }

    /// Lists the interfaces whose other end is in another namespace.
    pub(super) async fn peers(&self) -> Result<Peers, rtnetlink::Error> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        let mut peers = Peers::new();
        for link in &links {
            let number = link.attributes.iter().find_map(|attribute| match attribute {
                // The kernel tells -1 where it may not tell.
                LinkAttribute::LinkNetNsId(number) if *number >= 0 => Some(*number),
                _ => None,
            });
            if let Some(number) = number {
                peers.entry(number).or_default().insert(link.header.index);
            }
        }
        Ok(peers)
    }

    /// The number of a namespace, where it has one here.
    pub(super) async fn number_of(&mut self, netns: BorrowedFd<'_>) -> Option<i32> {
        let mut ask = NsidMessage::default();
        ask.attributes.push(NsidAttribute::Fd(u32::try_from(netns.as_raw_fd()).ok()?));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(ask));
        request.header.flags = NLM_F_REQUEST;
        let mut responses = self.handle.request(request).ok()?;
        while let Some(response) = responses.next().await {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(told)) = response.payload {
                return told.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(number) if *number >= 0 => Some(*number),
                    _ => None,
                });
            }
        }
        None
    }

    /// The addresses of the namespace with this number; of the watched one where there is none.
    pub(super) async fn addresses(&self, number: Option<i32>) -> Result<BTreeSet<IpAddr>, rtnetlink::Error> {
        let mut request = self.handle.address().get();
        if let Some(number) = number {
            request.message_mut().attributes.push(AddressAttribute::TargetNetNsId(number));
        }
        let told: Vec<AddressMessage> = match request.execute().try_collect().await {
            Ok(told) => told,
            // It is gone.
            Err(rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(_), .. })) if number.is_some() => {
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        // Where both are told, `Local` is the own address and `Address` the other end's.
        let own = |message: &AddressMessage| {
            let find =
                |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
            let local = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            };
            let address = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            };
            find(local).or_else(|| find(address))
        };
        let of_number = |message: &&AddressMessage| {
            number.is_none_or(|number| message.attributes.contains(&AddressAttribute::TargetNetNsId(number)))
        };
        Ok(told
            .iter()
            .filter(of_number)
            .filter_map(own)
            .filter_map(addresses::useful)
            .take(addresses::MOST)
            .collect())
    }
}
