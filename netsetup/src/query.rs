//! Reads what the kernel has: links, addresses, routes and neighbours, reduced to what we need.
//!
//! Filters are sent along for kernels that filter dumps, and applied again here for those that don't. Must never change
//! anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, State,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Failure;
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
    /// Whether it is administratively up.
    pub(crate) enabled: bool,
    /// Whether packets go through (IFLA_OPERSTATE).
    pub(crate) up: bool,
    /// Whether the kernel assigns it IPv6 addresses; also false where the link has no IPv6.
    pub(crate) makes_ipv6: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    /// The next hop, which may be of the other family.
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) interface: Option<u32>,
    pub(crate) protocol: u8,
    /// Lower wins; 0 has the highest priority.
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
    Ok(found.into_iter().filter_map(as_link).map(read_link).collect())
}

/// The unicast routes of the main table; only those over one link, if asked.
pub(crate) async fn routes(
    netlink: &Netlink,
    family: AddressFamily,
    over: Option<u32>,
) -> Result<Vec<Route>, Failure> {
    let found = all_routes(netlink, family, over, None).await?;
    Ok(found.into_iter().filter(|(kind, _)| *kind == RouteType::Unicast).map(|(_, route)| route).collect())
}

/// The routes of the main table with this protocol, with their kinds: including those that refuse.
pub(crate) async fn routes_by(
    netlink: &Netlink,
    family: AddressFamily,
    protocol: u8,
) -> Result<Vec<(RouteType, Route)>, Failure> {
    all_routes(netlink, family, None, Some(protocol)).await
}

/// All routes of the main table, with their kinds.
pub(crate) async fn all_kinds(
    netlink: &Netlink,
    family: AddressFamily,
) -> Result<Vec<(RouteType, Route)>, Failure> {
    all_routes(netlink, family, None, None).await
}

async fn all_routes(
    netlink: &Netlink,
    family: AddressFamily,
    over: Option<u32>,
    protocol: Option<u8>,
) -> Result<Vec<(RouteType, Route)>, Failure> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.table = RouteHeader::RT_TABLE_MAIN;
    request.header.protocol = protocol.unwrap_or_default().into();
    request.attributes.extend(over.map(RouteAttribute::Oif));
    let found = match netlink.dump("list the routes", RouteNetlinkMessage::GetRoute(request)).await {
        // A kernel without IPv6 has no IPv6 routes.
        Err(Failure { errno: Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, .. })
            if family == AddressFamily::Inet6 =>
        {
            Vec::new()
        }
        found => found?,
    };
    let routes = found.into_iter().filter_map(read_route);
    Ok(routes
        .filter(|(_, route)| over.is_none_or(|index| route.interface == Some(index)))
        .filter(|(_, route)| protocol.is_none_or(|number| route.protocol == number))
        .collect())
}

/// Where the kernel would send a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Over this link.
    pub(crate) interface: u32,
    /// To this router; none when the address is on the link itself.
    pub(crate) gateway: Option<IpAddr>,
    /// Whether it would stay on this host.
    pub(crate) local: bool,
}

/// Where the kernel would send packets to these addresses; none where it has no route.
pub(crate) async fn hops(netlink: &Netlink, to: &[IpAddr]) -> Result<Vec<Option<Hop>>, Failure> {
    let questions = to.iter().map(|address| RouteNetlinkMessage::GetRoute(question(*address))).collect();
    let answers = netlink.get_each("look up a route", questions).await;
    answers.into_iter().map(hop).collect()
}

/// Only certain errors mean that there is no route: a peer must not be left out because memory was short.
fn hop(answer: Result<Vec<RouteNetlinkMessage>, Failure>) -> Result<Option<Hop>, Failure> {
    match answer {
        Ok(found) => Ok(found.into_iter().find_map(read_hop)),
        // No route; or one that refuses: unreachable, prohibit, blackhole; or no such family.
        Err(Failure {
            errno:
                Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::EACCES
                | Errno::EINVAL
                | Errno::ENETDOWN
                | Errno::EOPNOTSUPP
                | Errno::EAFNOSUPPORT,
            ..
        }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

// With strict checking all but the family and the length must be zero.
fn question(address: IpAddr) -> RouteMessage {
    let mut request = RouteMessage::default();
    let (family, length, address) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    request.header.address_family = family;
    request.header.destination_prefix_length = length;
    request.attributes.push(RouteAttribute::Destination(address));
    request
}

fn read_hop(message: RouteNetlinkMessage) -> Option<Hop> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let local = message.header.kind == RouteType::Local;
    if !local && message.header.kind != RouteType::Unicast {
        return None;
    }
    let route = read_attributes(message)?;
    Some(Hop { interface: route.interface?, gateway: route.gateway, local })
}

/// An address of this host or container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix_length: u8,
    /// IPv4 only.
    pub(crate) label: Option<String>,
    /// Whether it has global scope, and is neither deprecated nor tentative.
    pub(crate) lasting: bool,
}

/// The addresses of one link, or of all.
pub(crate) async fn addresses(
    netlink: &Netlink,
    family: AddressFamily,
    of: Option<u32>,
) -> Result<Vec<Address>, Failure> {
    let mut request = AddressMessage::default();
    request.header.family = family;
    request.header.index = of.unwrap_or_default();
    let found = match netlink.dump("list the addresses", RouteNetlinkMessage::GetAddress(request)).await {
        Err(Failure { errno: Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, .. })
            if family == AddressFamily::Inet6 =>
        {
            Vec::new()
        }
        found => found?,
    };
    let addresses = found.into_iter().filter_map(read_address);
    Ok(addresses.filter(|found| of.is_none_or(|wanted| found.interface == wanted)).collect())
}

/// The permanent neighbours on one link, with their hardware addresses; for `AddressFamily::Bridge`, where frames for a
/// hardware address go.
pub(crate) async fn neighbours(
    netlink: &Netlink,
    family: AddressFamily,
    behind: u32,
) -> Result<Vec<(IpAddr, Vec<u8>)>, Failure> {
    let mut request = NeighbourMessage::default();
    request.header.family = family;
    request.attributes.push(NeighbourAttribute::IfIndex(behind));
    let found = netlink.dump("list the neighbours", RouteNetlinkMessage::GetNeighbour(request)).await?;
    Ok(found.into_iter().filter_map(|message| read_neighbour(message, behind)).collect())
}

/// Everything that the kernel reports of one link.
pub(crate) async fn link_message(
    netlink: &Netlink,
    index: u32,
    name: Option<&str>,
) -> Result<Option<LinkMessage>, Failure> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    request.attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
    request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    match netlink.get("look at a link", RouteNetlinkMessage::GetLink(request)).await {
        Ok(found) => Ok(found.into_iter().find_map(as_link)),
        Err(Failure { errno: Errno::ENODEV, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn link(netlink: &Netlink, index: u32, name: Option<&str>) -> Result<Option<Link>, Failure> {
    Ok(link_message(netlink, index, name).await?.map(read_link))
}

fn as_link(message: RouteNetlinkMessage) -> Option<LinkMessage> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(message),
        _ => None,
    }
}

/// The part of it that we need.
pub(crate) fn read_link(message: LinkMessage) -> Link {
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
    link
}

fn makes_addresses(family: &AfSpecUnspec) -> bool {
    let AfSpecUnspec::Inet6(attributes) = family else { return false };
    attributes.iter().any(|attribute| match attribute {
        AfSpecInet6::AddrGenMode(mode) => *mode != In6AddrGenMode::None,
        _ => false,
    })
}

fn read_route(message: RouteNetlinkMessage) -> Option<(RouteType, Route)> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    Some((message.header.kind, read_attributes(message)?))
}

fn read_attributes(message: RouteMessage) -> Option<Route> {
    let header = &message.header;
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut gateway, mut source, mut interface, mut metric) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => destination = plain(found).unwrap_or(destination),
            RouteAttribute::Gateway(found) => gateway = plain(found),
            RouteAttribute::Via(RouteVia::Inet(found)) => gateway = Some(IpAddr::V4(*found)),
            RouteAttribute::Via(RouteVia::Inet6(found)) => gateway = Some(IpAddr::V6(*found)),
            RouteAttribute::PrefSource(found) => source = plain(found),
            RouteAttribute::Oif(index) => interface = Some(*index),
            // The first of several paths stands for all: enough to know the link of a default route.
            RouteAttribute::MultiPath(ways) => interface = ways.first().map(|way| way.interface_index),
            RouteAttribute::Priority(found) => metric = *found,
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(Route { destination, gateway, source, interface, protocol: header.protocol.into(), metric })
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn read_address(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let header = &message.header;
    let (mut local, mut other, mut label, mut flags) = (None, None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => other = Some(*found),
            AddressAttribute::Label(found) => label = Some(found.clone()),
            AddressAttribute::Flags(found) => flags = *found,
            _ => {}
        }
    }
    let passing = AddressFlags::Secondary
        | AddressFlags::Deprecated
        | AddressFlags::Tentative
        | AddressFlags::Dadfailed;
    Some(Address {
        interface: header.index,
        // On a point-to-point link IFA_ADDRESS is the other side; IPv6 has IFA_LOCAL only there.
        address: local.or(other)?,
        prefix_length: header.prefix_len,
        label,
        lasting: header.scope == AddressScope::Universe && !flags.intersects(passing),
    })
}

fn read_neighbour(message: RouteNetlinkMessage, behind: u32) -> Option<(IpAddr, Vec<u8>)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.ifindex != behind || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(found) => address = far_end(found),
            NeighbourAttribute::LinkLayerAddress(found) => mac = Some(found),
            _ => {}
        }
    }
    Some((address?, mac?))
}

fn far_end(address: NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some(IpAddr::V4(address)),
        NeighbourAddress::Inet6(address) => Some(IpAddr::V6(address)),
        // Of the family bridge: only the length tells.
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
            _ => None,
        },
        _ => None,
    }
}
