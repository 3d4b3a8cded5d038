//! Reads what the kernel has: links, addresses, routes and neighbours, in the few words that we need.
//!
//! Filters are sent along for kernels that filter dumps, and applied again here for those that don't.
//! Must never change anything.

use std::net::Ipv4Addr;

use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, State,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Failure;
use crate::identity::SIGN_PROTOCOL;
use crate::netlink::Netlink;

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    pub(crate) mac: Vec<u8>,
    pub(crate) alias: Option<String>,
    /// The other end of a veth pair, by its index in its own namespace.
    pub(crate) peer: Option<u32>,
    /// Whether somebody switched it on.
    pub(crate) enabled: bool,
    /// Whether packets go through (IFLA_OPERSTATE).
    pub(crate) up: bool,
    /// Whether the kernel makes IPv6 addresses for it; also false where it has no IPv6.
    pub(crate) makes_ipv6: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Addr,
    pub(crate) prefix_length: u8,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) interface: Option<u32>,
    pub(crate) protocol: u8,
    /// Lower wins; 0 is the highest rank.
    pub(crate) metric: u32,
}

/// One link by its name.
pub(crate) async fn link_by_name(netlink: &Netlink, name: &str) -> Result<Option<Link>, Failure> {
    link(netlink, 0, Some(name)).await
}

/// One link by its index.
pub(crate) async fn link_by_index(netlink: &Netlink, index: u32) -> Result<Option<Link>, Failure> {
    link(netlink, index, None).await
}

/// All links.
pub(crate) async fn links(netlink: &Netlink) -> Result<Vec<Link>, Failure> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let found = netlink.dump("list the links", RouteNetlinkMessage::GetLink(request)).await?;
    Ok(found.into_iter().filter_map(read_link).collect())
}

/// The unicast routes of the main table; only those over one link, if asked.
pub(crate) async fn routes(
    netlink: &Netlink,
    over: Option<u32>,
    protocol: Option<u8>,
) -> Result<Vec<Route>, Failure> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    request.header.table = RouteHeader::RT_TABLE_MAIN;
    request.header.protocol = protocol.unwrap_or_default().into();
    request.attributes.extend(over.map(RouteAttribute::Oif));
    let found = netlink.dump("list the routes", RouteNetlinkMessage::GetRoute(request)).await?;
    let routes = found.into_iter().filter_map(read_route);
    Ok(routes
        .filter(|route| over.is_none_or(|index| route.interface == Some(index)))
        .filter(|route| protocol.is_none_or(|number| route.protocol == number))
        .collect())
}

/// The IPv4 addresses of one link, or of all, each with its prefix length.
pub(crate) async fn addresses(
    netlink: &Netlink,
    of: Option<u32>,
) -> Result<Vec<(u32, Ipv4Addr, u8)>, Failure> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    request.header.index = of.unwrap_or_default();
    let found = netlink.dump("list the addresses", RouteNetlinkMessage::GetAddress(request)).await?;
    let addresses = found.into_iter().filter_map(read_address);
    Ok(addresses.filter(|(index, ..)| of.is_none_or(|wanted| *index == wanted)).collect())
}

/// The permanent neighbours behind one link, with their hardware addresses.
pub(crate) async fn neighbours(netlink: &Netlink, behind: u32) -> Result<Vec<(Ipv4Addr, Vec<u8>)>, Failure> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Inet;
    request.attributes.push(NeighbourAttribute::IfIndex(behind));
    let found = netlink.dump("list the neighbours", RouteNetlinkMessage::GetNeighbour(request)).await?;
    Ok(found.into_iter().filter_map(|message| read_neighbour(message, behind)).collect())
}

async fn link(netlink: &Netlink, index: u32, name: Option<&str>) -> Result<Option<Link>, Failure> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    request.attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    match netlink.get("look at a link", RouteNetlinkMessage::GetLink(request)).await {
        Ok(found) => Ok(found.into_iter().find_map(read_link)),
        Err(Failure { errno: Errno::ENODEV, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn read_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let enabled = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link { index: message.header.index, enabled, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Link(peer) => link.peer = Some(peer),
            LinkAttribute::OperState(state) => link.up = state == State::Up,
            LinkAttribute::AfSpecUnspec(families) => link.makes_ipv6 = families.iter().any(makes_addresses),
            _ => {}
        }
    }
    Some(link)
}

fn makes_addresses(family: &AfSpecUnspec) -> bool {
    let AfSpecUnspec::Inet6(attributes) = family else { return false };
    attributes.iter().any(|attribute| match attribute {
        AfSpecInet6::AddrGenMode(mode) => *mode != In6AddrGenMode::None,
        _ => false,
    })
}

fn read_route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_length: header.destination_prefix_length,
        gateway: None,
        source: None,
        interface: None,
        protocol: header.protocol.into(),
        metric: 0,
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => route.destination = address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => route.source = Some(address),
            RouteAttribute::Oif(index) => route.interface = Some(index),
            RouteAttribute::Priority(metric) => route.metric = metric,
            _ => {}
        }
    }
    Some(route)
}

fn read_address(message: RouteNetlinkMessage) -> Option<(u32, Ipv4Addr, u8)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let header = &message.header;
    // On a point-to-point link IFA_ADDRESS is the other side, so IFA_LOCAL it is.
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(std::net::IpAddr::V4(address)) => {
            Some((header.index, *address, header.prefix_len))
        }
        _ => None,
    })
}

fn read_neighbour(message: RouteNetlinkMessage, behind: u32) -> Option<(Ipv4Addr, Vec<u8>)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.ifindex != behind || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(found),
            NeighbourAttribute::LinkLayerAddress(found) => mac = Some(found),
            _ => {}
        }
    }
    Some((address?, mac?))
}

/// The routes that we wrote.
pub(crate) async fn our_routes(netlink: &Netlink) -> Result<Vec<Route>, Failure> {
    let number: u8 = RouteProtocol::Other(SIGN_PROTOCOL).into();
    routes(netlink, None, Some(number)).await
}
