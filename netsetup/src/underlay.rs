//! The network that carries ours: this host's address on it, and its MTU.
//!
//! Must never change anything.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;

use crate::error::Failure;
use crate::identity;
use crate::netlink::Netlink;
use crate::query::{self, Address, Route};
use crate::settings::Settings;

const ETHERNET_MTU: u32 = 1500;
/// What VXLAN adds over IPv4: 20 bytes IP, 8 UDP, 8 VXLAN, 14 Ethernet.
const VXLAN_BYTES: u32 = 50;
/// The same over IPv6, whose header has 40 bytes.
const VXLAN6_BYTES: u32 = 70;
/// The minimum MTU of IPv6, and more than IPv4's.
const LEAST_MTU: u32 = 1280;

/// The MTU of a wire in bytes.
pub(crate) async fn wire_mtu(netlink: &Netlink, settings: &Settings) -> Result<u32, Failure> {
    if let Some(mtu) = settings.mtu {
        return Ok(mtu);
    }
    match settings.underlay {
        Some(underlay) if settings.encapsulated => mtu_inside(netlink, underlay).await,
        None if settings.encapsulated => Ok(inside(host_mtu(netlink, None).await?, VXLAN_BYTES)),
        underlay => host_mtu(netlink, underlay).await,
    }
}

/// The MTU inside VXLAN from this address, in bytes.
pub(crate) async fn mtu_inside(netlink: &Netlink, underlay: IpAddr) -> Result<u32, Failure> {
    let overhead = if underlay.is_ipv4() { VXLAN_BYTES } else { VXLAN6_BYTES };
    Ok(inside(host_mtu(netlink, Some(underlay)).await?, overhead))
}

fn inside(mtu: u32, overhead: u32) -> u32 {
    mtu.saturating_sub(overhead).max(LEAST_MTU.min(mtu))
}

/// The MTU of the link with this address; without an address, or where it is on lo (whose MTU says nothing), that of
/// the link of the default route.
async fn host_mtu(netlink: &Netlink, underlay: Option<IpAddr>) -> Result<u32, Failure> {
    let mut index = None;
    if let Some(address) = underlay {
        let found = query::addresses(netlink, family(address), None).await?;
        index = found.iter().find(|found| found.address == address).map(|found| found.interface);
    }
    if let Some(link) = link(netlink, index).await?.filter(|link| link.name != "lo") {
        return Ok(link.mtu);
    }
    let default = default_route(netlink, AddressFamily::Inet).await?;
    let link = link(netlink, default.and_then(|route| route.interface)).await?;
    Ok(link.map_or(ETHERNET_MTU, |link| link.mtu))
}

/// This host's address on the link of its default route, or on its only link with a global address.
///
/// IPv4 before IPv6. Where the link of the default route has no address of its own (routers that speak BGP with their
/// hosts), one on lo serves.
pub(crate) async fn default_address(
    netlink: &Netlink,
    settings: &Settings,
) -> Result<Option<IpAddr>, Failure> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let addresses = candidates(netlink, family, settings).await?;
        let on = |index| addresses.iter().find(|found| found.interface == index).map(|found| found.address);
        let Some(route) = default_route(netlink, family).await? else { continue };
        let loopback = query::link_by_name(netlink, "lo").await?.map(|link| link.index);
        let found = route.source.or_else(|| on(route.interface?)).or_else(|| on(loopback?));
        if found.is_some() {
            return Ok(found);
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let addresses = candidates(netlink, family, settings).await?;
        let mut links: Vec<u32> = addresses.iter().map(|found| found.interface).collect();
        links.dedup();
        if let ([_], [first, ..]) = (links.as_slice(), addresses.as_slice()) {
            return Ok(Some(first.address));
        }
    }
    Ok(None)
}

async fn candidates(
    netlink: &Netlink,
    family: AddressFamily,
    settings: &Settings,
) -> Result<Vec<Address>, Failure> {
    let label = identity::host_label(settings.group);
    let pool = IpNet::V4(settings.pool);
    let found = query::addresses(netlink, family, None).await?;
    let usable = found.into_iter().filter(|found| found.lasting && found.label.as_ref() != Some(&label));
    let mut usable: Vec<Address> = usable.filter(|found| !pool.contains(&found.address)).collect();
    usable.sort_by_key(|found| found.interface);
    Ok(usable)
}

async fn default_route(netlink: &Netlink, family: AddressFamily) -> Result<Option<Route>, Failure> {
    let routes = query::routes(netlink, family, None).await?;
    Ok(routes
        .into_iter()
        .filter(|route| route.destination.prefix_len() == 0)
        .min_by_key(|route| route.metric))
}

async fn link(netlink: &Netlink, index: Option<u32>) -> Result<Option<query::Link>, Failure> {
    match index {
        Some(index) => query::link_by_index(netlink, index).await,
        None => Ok(None),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
