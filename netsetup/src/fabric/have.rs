//! What is in the kernel: our routes, the VXLAN device and its entries, the host's address in the pool.
//!
//! A handful of dumps, however many peers there are. Must never change anything.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteType;

use crate::error::Failure;
use crate::fabric::vxlan::Device;
use crate::fabric::wanted::{Pools, Way};
use crate::identity::{self, SIGN_PROTOCOL};
use crate::netlink::Netlink;
use crate::pool6::block6;
use crate::query::{self, Route};

/// A route to a block, written by this Selvedge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) kind: RouteType,
    pub(crate) route: Route,
}

/// The present state.
#[derive(Debug)]
pub(crate) struct Have {
    pub(crate) routes: Vec<Held>,
    pub(crate) device: Option<Device>,
    pub(crate) neighbours: HashMap<IpAddr, Vec<u8>>,
    /// Where frames are sent: hardware address and peer. A device that learned may have several peers for one address.
    pub(crate) ends: Vec<(IpAddr, Vec<u8>)>,
    /// Addresses on lo that carry our label or, in IPv6, which has no labels, are in the pool.
    pub(crate) host_addresses: Vec<IpAddr>,
    /// The index of lo.
    pub(crate) loopback: u32,
}

impl Have {
    /// Reads everything.
    pub(crate) async fn look(netlink: &Netlink, group: u32, pools: Pools) -> Result<Self, Failure> {
        let device = Device::look(netlink, &identity::tunnel_interface(group)).await?;
        let (mut neighbours, mut ends) = (HashMap::new(), Vec::new());
        if let Some(device) = device.as_ref().filter(|device| device.is_tunnel()) {
            neighbours = device.neighbours(netlink).await?.into_iter().collect();
            ends = device.ends(netlink).await?;
        }
        let loopback = query::link_by_name(netlink, "lo").await?.map_or(1, |link| link.index);
        let label = identity::host_label(group);
        let addresses = query::addresses(netlink, AddressFamily::Inet, Some(loopback)).await?;
        let ours = addresses.into_iter().filter(|found| found.label.as_ref() == Some(&label));
        let mut host_addresses: Vec<IpAddr> = ours.map(|found| found.address).collect();
        let mut routes = held(netlink, AddressFamily::Inet, group).await?;
        if let Some(six) = pools.six {
            let mapped = IpNet::V6(block6(six, pools.four));
            let found = query::addresses(netlink, AddressFamily::Inet6, Some(loopback)).await?;
            let ours = found.into_iter().filter(|found| mapped.contains(&found.address));
            host_addresses.extend(ours.map(|found| found.address));
            routes.extend(held(netlink, AddressFamily::Inet6, group).await?);
        }
        Ok(Self { routes, device, neighbours, ends, host_addresses, loopback })
    }
}

/// The routes to blocks, written by this Selvedge.
pub(crate) async fn held(netlink: &Netlink, family: AddressFamily, group: u32) -> Result<Vec<Held>, Failure> {
    let metric = identity::route_metric(group);
    let found = query::routes_by(netlink, family, SIGN_PROTOCOL).await?;
    let ours = found.into_iter().filter(|(_, route)| route.metric == metric);
    Ok(ours.map(|(kind, route)| Held { kind, route }).collect())
}

impl Held {
    /// Whether it goes this way, with this source. `tunnel` is the VXLAN device's index.
    pub(crate) fn leads(&self, way: Way, source: Option<IpAddr>, tunnel: Option<u32>) -> bool {
        let Route { gateway, interface, .. } = self.route;
        let (via, index) = match way {
            Way::Here => return self.kind == RouteType::Unreachable,
            Way::Link { via, index } => (via, Some(index)),
            Way::Tunnel { via } => (via, tunnel),
        };
        self.kind == RouteType::Unicast
            && gateway == Some(via)
            && index.is_some()
            && interface == index
            && self.route.source == source
    }

    /// Its block, if it is one of this host's own.
    pub(crate) fn own_block(&self) -> Option<IpNet> {
        (self.kind == RouteType::Unreachable).then_some(self.route.destination)
    }
}
