//! The host's end of a wire: what it has, and what it lacks.
//!
//! Only makes lists of changes; must never send one.

use std::net::Ipv4Addr;

use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use crate::error::Failure;
use crate::identity::{SIGN_PROTOCOL, container_mac, host_mac};
use crate::netlink::{Change, Netlink};
use crate::network::WireSpec;
use crate::query::{self, Link, Route};
use crate::sysctl::Setting;
use crate::wire::Wiring;

/// What is there.
pub(crate) struct HostEnd {
    pub(crate) link: Link,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<(Ipv4Addr, Vec<u8>)>,
}

/// Settings of the host's end. The kernel takes the larger of `all` and this for rp_filter, and 2 is loose:
/// `preflight` tells when `all` is.
///
/// Not disable_ipv6: a write to that one spins (restart_syscall) while anybody holds the rtnl lock, and many starts
/// at once then take the processors from each other.
pub(crate) fn settings(interface: &str) -> [Setting; 3] {
    [
        Setting {
            step: "turn on the source check (rp_filter)",
            path: format!("ipv4/conf/{interface}/rp_filter"),
            value: "1",
            optional: false,
        },
        Setting {
            step: "turn on forwarding for the wire",
            path: format!("ipv4/conf/{interface}/forwarding"),
            value: "1",
            optional: false,
        },
        Setting {
            step: "turn off IPv6 router advertisements on the wire",
            path: format!("ipv6/conf/{interface}/accept_ra"),
            value: "0",
            optional: true,
        },
    ]
}

impl HostEnd {
    /// Reads what is there.
    pub(crate) async fn look(netlink: &Netlink, link: &Link) -> Result<Self, Failure> {
        let routes = query::routes(netlink, Some(link.index), None).await?;
        let neighbours = query::neighbours(netlink, link.index).await?;
        Ok(Self { link: link.clone(), routes, neighbours })
    }

    /// What has to be sent, in this order: a device that is down takes neither routes nor neighbours.
    pub(crate) fn missing(&self, wiring: &Wiring, spec: &WireSpec) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(silence(&self.link));
        changes.extend(enable(&self.link, &host_mac(wiring.settings.gateway), wiring.mtu));
        changes.extend(self.stray_routes(spec.address));
        changes.extend(self.route(spec.address, wiring.settings.gateway));
        changes.extend(neighbour(
            &self.neighbours,
            self.link.index,
            spec.address,
            &container_mac(spec.address),
        ));
        changes
    }

    /// Routes of ours to another address over this link: the container had that one before.
    fn stray_routes(&self, address: Ipv4Addr) -> impl Iterator<Item = Change> {
        let strays = self.routes.iter().filter(move |route| {
            route.protocol == SIGN_PROTOCOL && (route.destination, route.prefix_length) != (address, 32)
        });
        strays.map(|route| {
            let message = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(route.destination, route.prefix_length)
                .output_interface(self.link.index)
                .scope(RouteScope::Link)
                .protocol(RouteProtocol::Other(SIGN_PROTOCOL));
            Change::alter("delete a stray route", RouteNetlinkMessage::DelRoute(message.build()))
        })
    }

    /// With the gateway's address as source: the host itself then reaches the container, and the answer comes back
    /// over the wire. Replaces a route to the same address over another link, which belongs to a container that is gone.
    fn route(&self, address: Ipv4Addr, gateway: Ipv4Addr) -> Option<Change> {
        let wanted = Route {
            destination: address,
            prefix_length: 32,
            gateway: None,
            source: Some(gateway),
            interface: Some(self.link.index),
            protocol: SIGN_PROTOCOL,
            metric: 0,
        };
        if self.routes.contains(&wanted) {
            return None;
        }
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(self.link.index)
            .pref_source(gateway)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Other(SIGN_PROTOCOL));
        Some(Change::replace("write the host's route", RouteNetlinkMessage::NewRoute(message.build())))
    }
}

/// Keeps the kernel from making an IPv6 address for a device. A message of its own, before the one that switches it
/// on: inside one message the kernel switches on first, and makes the address at that moment.
pub(crate) fn silence(link: &Link) -> Option<Change> {
    let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = LinkUnspec::new_with_index(link.index)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]))
        .build();
    let change = Change::alter("turn off IPv6 on the wire", RouteNetlinkMessage::SetLink(message));
    link.makes_ipv6.then_some(change)
}

/// Switches a device on, with the right address and size, unless it is so.
pub(crate) fn enable(link: &Link, mac: &[u8; 6], mtu: u32) -> Option<Change> {
    if link.enabled && link.mac == mac && link.mtu == mtu {
        return None;
    }
    let mut message = LinkUnspec::new_with_index(link.index).mtu(mtu).up();
    if link.mac != mac {
        message = message.address(mac.to_vec());
    }
    Some(Change::alter("switch the wire on", RouteNetlinkMessage::SetLink(message.build())))
}

/// The neighbours that will still be there: the kernel drops them all when a device gets another hardware address.
pub(crate) fn lasting<'a>(
    neighbours: &'a [(Ipv4Addr, Vec<u8>)],
    link: &Link,
    mac: &[u8; 6],
) -> &'a [(Ipv4Addr, Vec<u8>)] {
    if link.mac == mac { neighbours } else { &[] }
}

/// A permanent neighbour, unless it is there: no ARP on our wires.
pub(crate) fn neighbour(
    have: &[(Ipv4Addr, Vec<u8>)],
    index: u32,
    address: Ipv4Addr,
    mac: &[u8; 6],
) -> Option<Change> {
    if have.iter().any(|(known, at)| *known == address && at == mac) {
        return None;
    }
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    Some(Change::replace("write the neighbour", RouteNetlinkMessage::NewNeighbour(message)))
}
