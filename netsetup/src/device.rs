//! Settings common to all devices that we make: no automatic addresses, up, permanent neighbours.
//!
//! Only builds changes; must never send one.

use std::net::IpAddr;

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::Change;
use crate::query::Link;

/// Keeps the kernel from assigning an IPv6 address to a device. A message of its own, before the one that brings the
/// device up: within one message the kernel brings it up first, and assigns the address at that moment.
pub(crate) fn silence(link: &Link) -> Option<Change> {
    let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = LinkUnspec::new_with_index(link.index)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]))
        .build();
    let change =
        Change::alter("turn off automatic IPv6 addresses on a device", RouteNetlinkMessage::SetLink(message));
    link.makes_ipv6.then_some(change)
}

/// Brings a device up with the right address and size, unless it already is.
pub(crate) fn enable(link: &Link, mac: &[u8; 6], mtu: u32) -> Option<Change> {
    if link.enabled && link.mac == mac && link.mtu == mtu {
        return None;
    }
    let mut message = LinkUnspec::new_with_index(link.index).mtu(mtu).up();
    if link.mac != mac {
        message = message.address(mac.to_vec());
    }
    Some(Change::alter("bring a device up", RouteNetlinkMessage::SetLink(message.build())))
}

/// The neighbours that will remain: the kernel drops them all when a device's hardware address changes.
pub(crate) fn lasting<'a>(
    neighbours: &'a [(IpAddr, Vec<u8>)],
    link: &Link,
    mac: &[u8; 6],
) -> &'a [(IpAddr, Vec<u8>)] {
    if link.mac == mac { neighbours } else { &[] }
}

/// Adds a permanent neighbour unless it is there: no ARP on our wires.
pub(crate) fn neighbour(
    have: &[(IpAddr, Vec<u8>)],
    index: u32,
    address: IpAddr,
    mac: &[u8; 6],
) -> Option<Change> {
    if have.iter().any(|(known, at)| *known == address && at == mac) {
        return None;
    }
    Some(Change::replace(
        "write the neighbour",
        RouteNetlinkMessage::NewNeighbour(entry(index, address, mac)),
    ))
}

/// A permanent neighbour as a message.
pub(crate) fn entry(index: u32, address: IpAddr, mac: &[u8; 6]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, address) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}
