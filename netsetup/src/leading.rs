//! The route of all virtual addresses: over lo, where none of their packets ever goes.
//!
//! A packet to a virtual address needs a route before the rules send it elsewhere; and one that the rules do not send
//! anywhere must not leave this host by its default route. Must never be removed while a worker may come back, nor
//! touch anything outside the pool.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Failure;
use crate::fabric::wanted::Pools;
use crate::identity::SIGN_PROTOCOL;
use crate::netlink::{Change, Netlink};
use crate::pool6::{address6, block6};
use crate::query::{self, Route};

const STEP: &str = "write the route of virtual addresses";
/// The kernel's default metric for IPv6 routes.
const USUAL_METRIC: u32 = 1024;

/// Ensures that the routes of this range exist, and that those of an earlier range do not. `source` is the address that
/// the host itself calls from.
pub(crate) async fn lead(
    netlink: &Netlink,
    pools: Pools,
    range: Option<Ipv4Net>,
    source: Ipv4Addr,
) -> Result<(), Failure> {
    let Some(loopback) = query::link_by_name(netlink, "lo").await? else {
        return Err(Failure { step: STEP, errno: Errno::ENODEV });
    };
    let wanted = range.map(|range| Route {
        destination: IpNet::V4(range),
        gateway: None,
        source: Some(source.into()),
        interface: Some(loopback.index),
        protocol: SIGN_PROTOCOL,
        metric: 0,
    });
    let mut changes = difference(netlink, (loopback.index, pools.four.into()), wanted).await?;
    if let Some(pool6) = pools.six {
        let range = range.map(|range| block6(pool6, range));
        // A single host has no address in the pool: then the kernel chooses.
        let own = query::addresses(netlink, AddressFamily::Inet6, Some(loopback.index)).await?;
        let source = IpAddr::V6(address6(pool6, source));
        let wanted = range.map(|range| Route {
            destination: IpNet::V6(range),
            gateway: None,
            source: own.iter().any(|have| have.address == source).then_some(source),
            interface: Some(loopback.index),
            protocol: SIGN_PROTOCOL,
            metric: USUAL_METRIC,
        });
        let pool = block6(pool6, pools.four).into();
        changes.extend(difference(netlink, (loopback.index, pool), wanted).await?);
    }
    netlink.apply(changes).await
}

/// The changes for one family.
async fn difference(
    netlink: &Netlink,
    (loopback, pool): (u32, IpNet),
    wanted: Option<Route>,
) -> Result<Vec<Change>, Failure> {
    let family = if pool.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let have = query::routes(netlink, family, Some(loopback)).await?;
    let is_ours = |route: &&Route| route.protocol == SIGN_PROTOCOL && pool.contains(&route.destination);
    let to = wanted.as_ref().map(|route| route.destination);
    let old = have.iter().filter(is_ours).filter(|route| Some(route.destination) != to);
    let mut changes: Vec<Change> =
        old.map(|route| Change::remove(STEP, RouteNetlinkMessage::DelRoute(message(route)))).collect();
    let lacking = wanted.filter(|route| !have.contains(route));
    changes
        .extend(lacking.map(|route| Change::replace(STEP, RouteNetlinkMessage::NewRoute(message(&route)))));
    Ok(changes)
}

fn message(route: &Route) -> RouteMessage {
    let (protocol, over) = (RouteProtocol::Other(SIGN_PROTOCOL), route.interface.unwrap_or_default());
    match (route.destination, route.source) {
        (IpNet::V4(range), source) => {
            let message = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(range.network(), range.prefix_len())
                .output_interface(over)
                .scope(RouteScope::Link)
                .protocol(protocol);
            match source {
                Some(IpAddr::V4(source)) => message.pref_source(source).build(),
                _ => message.build(),
            }
        }
        (IpNet::V6(range), source) => {
            let message = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(range.network(), range.prefix_len())
                .output_interface(over)
                .protocol(protocol);
            match source {
                Some(IpAddr::V6(source)) => message.pref_source(source).build(),
                _ => message.build(),
            }
        }
    }
}
