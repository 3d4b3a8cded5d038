//! The route of all virtual addresses: over lo, where none of their packets ever goes.
//!
//! A packet to a virtual address needs a route before the rules lead it elsewhere; and one that they do not lead anywhere
//! must not leave this host by its default route. Must never be taken away while a worker may come back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Failure;
use crate::identity::SIGN_PROTOCOL;
use crate::netlink::{Change, Netlink};
use crate::pool6::{address6, block6};
use crate::query::{self, Route};

const STEP: &str = "write the route of virtual addresses";
/// The metric that the kernel gives an IPv6 route that asks for none.
const USUAL_METRIC: u32 = 1024;

/// Sees to it that the routes are there. `source` is what the host itself calls from.
pub(crate) async fn lead(
    netlink: &Netlink,
    range: Ipv4Net,
    pool6: Option<Ipv6Net>,
    source: Ipv4Addr,
) -> Result<(), Failure> {
    let Some(loopback) = query::link_by_name(netlink, "lo").await? else {
        return Err(Failure { step: STEP, errno: Errno::ENODEV });
    };
    let wanted = Route {
        destination: IpNet::V4(range),
        gateway: None,
        source: Some(source.into()),
        interface: Some(loopback.index),
        protocol: SIGN_PROTOCOL,
        metric: 0,
    };
    let mut changes = Vec::new();
    if !query::routes(netlink, AddressFamily::Inet, Some(loopback.index)).await?.contains(&wanted) {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .output_interface(loopback.index)
            .pref_source(source)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Other(SIGN_PROTOCOL));
        changes.push(Change::replace(STEP, RouteNetlinkMessage::NewRoute(message.build())));
    }
    if let Some(pool6) = pool6 {
        changes
            .extend(lead6(netlink, block6(pool6, range), (loopback.index, address6(pool6, source))).await?);
    }
    netlink.apply(changes).await
}

async fn lead6(
    netlink: &Netlink,
    range: Ipv6Net,
    (loopback, source): (u32, Ipv6Addr),
) -> Result<Option<Change>, Failure> {
    // A single host has no address in the pool: then the kernel chooses.
    let own = query::addresses(netlink, AddressFamily::Inet6, Some(loopback)).await?;
    let source = own.iter().any(|have| have.address == IpAddr::V6(source)).then_some(source);
    let wanted = Route {
        destination: IpNet::V6(range),
        gateway: None,
        source: source.map(IpAddr::V6),
        interface: Some(loopback),
        protocol: SIGN_PROTOCOL,
        metric: USUAL_METRIC,
    };
    if query::routes(netlink, AddressFamily::Inet6, Some(loopback)).await?.contains(&wanted) {
        return Ok(None);
    }
    let mut message = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(range.network(), range.prefix_len())
        .output_interface(loopback)
        .protocol(RouteProtocol::Other(SIGN_PROTOCOL));
    if let Some(source) = source {
        message = message.pref_source(source);
    }
    Ok(Some(Change::replace(STEP, RouteNetlinkMessage::NewRoute(message.build()))))
}
