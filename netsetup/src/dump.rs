//! Reads the kernel's state: interfaces, routes, addresses.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage, State};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::Wire;
use crate::error::{Error, errno};
use crate::network::Network;
use crate::wire::PREFIX;

/// An interface, the part that we look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    /// The number of the other end, in the other end's namespace.
    pub(crate) peer: u32,
    pub(crate) up: bool,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, ..Self::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Link(peer) => link.peer = peer,
                LinkAttribute::OperState(state) => link.up = state == State::Up,
                _ => {}
            }
        }
        link
    }
}

/// One interface by name; `None` when there is none.
pub(crate) async fn link(handle: &Handle, name: &str) -> Result<Option<Link>, rtnetlink::Error> {
    let found = handle.link().get().match_name(name).execute().try_next().await;
    match found {
        Ok(message) => Ok(message.map(Link::from)),
        Err(error) if errno(&error) == Some(nix::libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn links(handle: &Handle) -> Result<Vec<Link>, rtnetlink::Error> {
    let request = handle.link().get().set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
    request.execute().map_ok(Link::from).try_collect().await
}

/// All IPv4 routes of the main table.
pub(crate) async fn routes(handle: &Handle) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    // RT_TABLE_MAIN of linux/rtnetlink.h.
    const MAIN: u8 = 254;
    let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> = handle.route().get(request).execute().try_collect().await?;
    Ok(routes.into_iter().filter(|route| route.header.table == MAIN).collect())
}

/// Where a route leads out, and its destination (`None`: the default route).
pub(crate) fn way(route: &RouteMessage) -> (Option<u32>, Option<Ipv4Addr>) {
    let mut oif = None;
    let mut destination = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
            _ => {}
        }
    }
    (oif, destination)
}

/// All our wires: one dump of interfaces, one of routes.
pub(crate) async fn wires(network: &Network) -> Result<Vec<Wire>, Error> {
    let dumped = async {
        let links = links(&network.handle).await?;
        Ok((links, routes(&network.handle).await?))
    };
    let (links, routes) = dumped.await.map_err(Error::kernel("dump", "interfaces and routes"))?;
    let mut by_link = HashMap::new();
    for route in routes.iter().filter(|route| route.header.destination_prefix_length == 32) {
        if let (Some(oif), Some(address)) = way(route) {
            by_link.insert(oif, address);
        }
    }
    let ours = links.into_iter().filter(|link| {
        let group = link.group & !3 == network.group(false);
        group && link.group & 2 == 0 && !network.is_busy(&link.name)
    });
    Ok(ours
        .filter_map(|link| {
            let container_prefix = link.name.strip_prefix(PREFIX)?.to_owned();
            let address = by_link.get(&link.index).copied();
            Some(Wire {
                index: link.index,
                container_prefix,
                address,
                complete: link.group & 1 == 1,
                name: link.name,
            })
        })
        .collect())
}

/// The MTU of the interface of the default route; Ethernet's where there is none.
pub(crate) async fn default_mtu(handle: &Handle) -> Result<u32, Error> {
    const ETHERNET: u32 = 1500;
    let found = async {
        let routes = routes(handle).await?;
        let defaults = routes.iter().filter(|route| route.header.destination_prefix_length == 0);
        let Some(out) = defaults.filter_map(|route| way(route).0).next() else { return Ok(None) };
        Ok(links(handle).await?.into_iter().find(|link| link.index == out).map(|link| link.mtu))
    };
    Ok(found.await.map_err(Error::kernel("dump", "the default route"))?.unwrap_or(ETHERNET))
}
