//! What the kernel says of a watched namespace: its interfaces whose other end is elsewhere, and who is there.
//!
//! The kernel numbers the namespaces that a namespace knows of (`net_namespace.c`, "nsid"). A veth's other end is told
//! by that number (IFLA_LINK_NETNSID), a namespace's number by its file (RTM_GETNSID), and its addresses can be asked
//! for by the number (IFA_TARGET_NETNSID) without entering it. Numbers and inodes are used again at once, interface
//! indexes where a plugin moves a veth from the pod to the node.

use super::{addresses, town::Town};
use crate::model::{PodName, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::{ErrorMessage, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
    },
    sys::AsyncSocket as _,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;

/// How often the interfaces are listed again because some changed meanwhile: where they always do, what was listed last
/// is taken.
const MOST_LISTINGS: usize = 4;

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

/// An interface. Its index alone is not enough: see above.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    pub(super) index: u32,
    name: String,
    mac: Vec<u8>,
}

impl Link {
    #[cfg(test)]
    pub(super) fn made_up(index: u32, name: &str) -> Self {
        Self { index, name: name.into(), mac: name.into() }
    }

    fn of(message: &LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, name: String::new(), mac: Vec::new() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac.clone_from(mac),
                _ => {}
            }
        }
        link
    }
}

/// The interfaces of a watched namespace that lead to others, by the other's number.
pub(super) type Peers = BTreeMap<i32, BTreeSet<Link>>;

/// Moves the calling thread into a watched namespace.
pub(super) fn enter(watched: &Watched) -> io::Result<()> {
    if let Some(path) = &watched.path {
        move_into_link_name_space(File::open(path)?.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    Ok(())
}

/// Hears the kernel's news of watched namespaces' interfaces.
#[derive(Clone)]
pub(super) struct Listener {
    /// Has room for one: it is worth a look.
    pub(super) tell: mpsc::Sender<()>,
    pub(super) town: Arc<Mutex<Town>>,
    pub(super) now: fn() -> Timestamp,
}

impl Listener {
    /// Takes news at once: the address of one who is gone may be used again before the next look at the node is over.
    fn hear(&self, watched: usize, payload: &NetlinkPayload<RouteNetlinkMessage>, time: Timestamp) {
        let mut town = self.town.lock().unwrap_or_else(PoisonError::into_inner);
        let is_worth_a_look = match payload {
            // Bridges tell of their ports in messages of the family AF_BRIDGE.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                link.header.interface_family == AddressFamily::Unspec
                    && town.gone(watched, &Link::of(link), time)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                town.came(watched, link.header.index, time);
                true
            }
            NetlinkPayload::Overrun(_) => {
                town.lost_news();
                true
            }
            _ => false,
        };
        if is_worth_a_look {
            // Where there is no room, one is about to begin.
            let _ = self.tell.try_send(());
        }
    }
}

/// Starts to listen in a thread of its own, so that the time an interface went is told however long a look at the node
/// takes. It ends when nobody wants the news any more.
pub(super) fn listen(watched: Watched, place: usize, listener: Listener) -> io::Result<()> {
    let hear = move || -> io::Result<()> {
        enter(&watched)?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let (connection, _handle, mut messages) = new_multicast_connection(&[MulticastGroup::Link])?;
            tokio::spawn(connection);
            loop {
                let message = tokio::select! {
                    message = messages.next() => message,
                    () = listener.tell.closed() => return Ok(()),
                };
                let time = (listener.now)();
                let Some((message, _)) = message else { return Ok(()) };
                listener.hear(place, &message.payload, time);
            }
        })
    };
    std::thread::Builder::new().name("dnspath-links".into()).spawn(move || {
        // Without news the node is looked at every five seconds all the same.
        let _ = hear();
    })?;
    Ok(())
}

/// A connection to the kernel from inside a watched namespace.
pub(super) struct Links {
    handle: Handle,
}

impl Links {
    /// Connects; must be called in a runtime. The calling thread is in the namespace afterwards.
    pub(super) fn connect(watched: &Watched) -> io::Result<Self> {
        enter(watched)?;
        let (mut connection, handle, _) = new_connection()?;
        // Without it the kernel overlooks the number in a request for addresses, and tells those of this namespace.
        connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Lists the interfaces whose other end is in another namespace.
    pub(super) async fn peers(&self) -> Result<Peers, rtnetlink::Error> {
        let mut peers = Peers::new();
        for link in self.links().await? {
            let number = link.attributes.iter().find_map(|attribute| match attribute {
                // The kernel tells -1 where it may not tell.
                LinkAttribute::LinkNetNsId(number) if *number >= 0 => Some(*number),
                _ => None,
            });
            if let Some(number) = number {
                peers.entry(number).or_default().insert(Link::of(&link));
            }
        }
        Ok(peers)
    }

    /// Every interface. The kernel lists them in several answers and says where some changed in between: then once more.
    async fn links(&self) -> Result<Vec<LinkMessage>, rtnetlink::Error> {
        let mut links = Vec::new();
        for _ in 0..MOST_LISTINGS {
            links.clear();
            let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(LinkMessage::default()));
            request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let mut answers = self.handle.clone().request(request)?;
            let mut is_torn = false;
            while let Some(answer) = answers.next().await {
                is_torn |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => links.push(link),
                    NetlinkPayload::Error(error) => return Err(rtnetlink::Error::NetlinkError(error)),
                    _ => {}
                }
            }
            if !is_torn {
                break;
            }
        }
        Ok(links)
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
