//! The second address of a wire, where there is an IPv6 pool: the same changes for both ends, in the other family.
//!
//! No neighbour discovery and no router advertisements: the next hop is one fixed address that no host has, and
//! permanent neighbours resolve it. Must never use the sign's protocol number in a container: the sign stays the IPv4
//! pool's route.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::device::{lasting, neighbour};
use crate::error::Failure;
use crate::identity::{SIGN_PROTOCOL, WIRE_HOP6, container_mac, host_mac};
use crate::netlink::Change;
use crate::netlink::Netlink;
use crate::pool6::{address6, block6};
use crate::query::{self, Address, Link, Route};
use crate::settings::Settings;
use crate::sysctl::Setting;
use crate::wire::spec::WireSpec;

/// The kernel's default metric for IPv6 routes.
const USUAL_METRIC: u32 = 1024;

/// The IPv6 state of an end.
#[derive(Debug, Default)]
pub(crate) struct End6 {
    addresses: Vec<Address>,
    routes: Vec<Route>,
    neighbours: Vec<(IpAddr, Vec<u8>)>,
}

/// Turns IPv6 on for an end: Docker turns it off in containers, and some hosts turn it off by default.
///
/// A write spins while any process holds the rtnl lock, so it happens only with an IPv6 pool and where IPv6 is off.
pub(crate) fn setting(pool6: Option<Ipv6Net>, interface: &str) -> Option<Setting> {
    pool6.map(|_| Setting {
        step: "turn on IPv6 for the wire",
        path: format!("ipv6/conf/{interface}/disable_ipv6"),
        value: "0",
        optional: false,
    })
}

impl End6 {
    /// Reads the present state; empty without an IPv6 pool.
    pub(crate) async fn look(netlink: &Netlink, link: &Link, settings: &Settings) -> Result<Self, Failure> {
        if settings.pool6.is_none() {
            return Ok(Self::default());
        }
        let family = AddressFamily::Inet6;
        Ok(Self {
            addresses: query::addresses(netlink, family, Some(link.index)).await?,
            routes: query::routes(netlink, family, Some(link.index)).await?,
            neighbours: query::neighbours(netlink, family, link.index).await?,
        })
    }

    /// What the container's end lacks: its address, and the route to the pool by way of the host.
    pub(crate) fn missing_inside(&self, link: &Link, settings: &Settings, spec: &WireSpec) -> Vec<Change> {
        let Some(pool6) = settings.pool6 else { return Vec::new() };
        let address = address6(pool6, spec.address);
        let mut changes = Vec::new();
        let old = self.addresses.iter().filter(|have| have.lasting && have.address != address);
        changes.extend(old.map(|have| {
            let message = self::address(link.index, have.address, have.prefix_length);
            Change::remove("remove an old address", RouteNetlinkMessage::DelAddress(message))
        }));
        if !self.addresses.iter().any(|have| have.address == address && have.prefix_length == 128) {
            let message = self::address(link.index, IpAddr::V6(address), 128);
            changes.push(Change::replace(
                "give the container its IPv6 address",
                RouteNetlinkMessage::NewAddress(message),
            ));
        }
        let known = lasting(&self.neighbours, link, &container_mac(spec.address));
        changes.extend(neighbour(known, link.index, IpAddr::V6(WIRE_HOP6), &host_mac(settings.gateway)));
        let wanted = Route {
            destination: IpNet::V6(block6(pool6, settings.pool)),
            gateway: Some(IpAddr::V6(WIRE_HOP6)),
            source: None,
            interface: Some(link.index),
            protocol: RouteProtocol::Static.into(),
            metric: USUAL_METRIC,
        };
        changes.extend(self.route(&wanted, "write the IPv6 pool's route"));
        changes
    }

    /// What the host's end lacks: the route to the container's address.
    pub(crate) fn missing_outside(&self, link: &Link, settings: &Settings, spec: &WireSpec) -> Vec<Change> {
        let Some(pool6) = settings.pool6 else { return Vec::new() };
        let address = address6(pool6, spec.address);
        let wanted = Route {
            destination: IpNet::V6(Ipv6Net::from(address)),
            gateway: None,
            source: None,
            interface: Some(link.index),
            protocol: SIGN_PROTOCOL,
            metric: USUAL_METRIC,
        };
        let strays = self
            .routes
            .iter()
            .filter(|have| have.protocol == SIGN_PROTOCOL && have.destination != wanted.destination);
        let mut changes: Vec<Change> = strays
            .map(|have| Change::remove("delete a stray route", RouteNetlinkMessage::DelRoute(route(have))))
            .collect();
        changes.extend(self.route(&wanted, "write the host's IPv6 route"));
        let known = lasting(&self.neighbours, link, &host_mac(settings.gateway));
        changes.extend(neighbour(known, link.index, IpAddr::V6(address), &container_mac(spec.address)));
        changes
    }

    fn route(&self, wanted: &Route, step: &'static str) -> Option<Change> {
        if self.routes.contains(wanted) {
            return None;
        }
        Some(Change::replace(step, RouteNetlinkMessage::NewRoute(route(wanted))))
    }
}

// While tentative (duplicate address detection) it would be unusable for a second or two.
fn address(index: u32, address: IpAddr, length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.index = index;
    message.header.prefix_len = length;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes.push(AddressAttribute::Address(address));
    message
}

fn route(route: &Route) -> rtnetlink::packet_route::route::RouteMessage {
    let mut message = RouteMessageBuilder::<Ipv6Addr>::new().protocol(route.protocol.into());
    if let IpNet::V6(destination) = route.destination {
        message = message.destination_prefix(destination.addr(), destination.prefix_len());
    }
    if let Some(IpAddr::V6(gateway)) = route.gateway {
        message = message.gateway(gateway);
    }
    if let Some(interface) = route.interface {
        message = message.output_interface(interface);
    }
    message.build()
}
