//! Turns a step into a message for the kernel, and into a line for operators.
//!
//! The line is the command that one would type, where there is one. Must never send anything.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::device;
use crate::fabric::have::Held;
use crate::fabric::plan::Step;
use crate::fabric::vxlan;
use crate::fabric::wanted::Way;
use crate::identity::{self, SIGN_PROTOCOL};
use crate::netlink::Change;

/// What messages need besides the step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) group: u32,
    /// The index of the VXLAN device, 0 while there is none.
    pub(crate) tunnel: u32,
    pub(crate) loopback: u32,
}

impl Context {
    /// The step as a message; none for a step that takes more than one.
    pub(crate) fn change(self, step: &Step) -> Option<Change> {
        Some(match step {
            Step::MakeTunnel(_) | Step::Set(_) => return None,
            Step::TakeAddress(address) => Change::replace(
                "give the host its address in the pool",
                RouteNetlinkMessage::NewAddress(self.address(*address)),
            ),
            Step::DropAddress(address) => Change::remove(
                "remove the host's old address in the pool",
                RouteNetlinkMessage::DelAddress(self.address(*address)),
            ),
            Step::AlterTunnel(link, mtu) => {
                let message = LinkUnspec::new_with_index(link.index).mtu(*mtu).up().build();
                Change::alter("alter the VXLAN device", RouteNetlinkMessage::SetLink(message))
            }
            Step::DropTunnel(link) => vxlan::remove(link.index),
            Step::WriteNeighbour(address, mac) => {
                let message = device::entry(self.tunnel, *address, mac);
                Change::replace("write a peer's next hop", RouteNetlinkMessage::NewNeighbour(message))
            }
            Step::DropNeighbour(address) => {
                let message = device::entry(self.tunnel, *address, &[0; 6]);
                Change::remove("remove an old next hop", RouteNetlinkMessage::DelNeighbour(message))
            }
            Step::WriteEnd(mac, end) => {
                let message = self.end(mac.to_vec(), *end);
                Change::replace("write where a peer's frames go", RouteNetlinkMessage::NewNeighbour(message))
            }
            Step::DropEnd(mac, end) => {
                let message = self.end(mac.clone(), *end);
                Change::remove(
                    "remove the entry for an old peer's frames",
                    RouteNetlinkMessage::DelNeighbour(message),
                )
            }
            Step::WriteRoute(block, way, source) => {
                let message = self.route(*block, *way, *source);
                Change::replace("write a route to a block", RouteNetlinkMessage::NewRoute(message))
            }
            Step::DropRoute(held) => {
                Change::remove("remove an old route", RouteNetlinkMessage::DelRoute(self.old(held)))
            }
        })
    }

    /// Global: the kernel refuses an address of scope host as the source of a route to other hosts.
    fn address(self, address: IpAddr) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = self.loopback;
        message.header.scope = AddressScope::Universe;
        (message.header.family, message.header.prefix_len) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes.extend([AddressAttribute::Address(address), AddressAttribute::Local(address)]);
        if address.is_ipv4() {
            message.attributes.push(AddressAttribute::Label(identity::host_label(self.group)));
        } else {
            // While tentative, even briefly, it could not be the source of the routes that follow.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message
    }

    fn end(self, mac: Vec<u8>, end: IpAddr) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = self.tunnel;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac));
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(end)));
        message
    }

    fn route(self, block: IpNet, way: Way, source: Option<IpAddr>) -> RouteMessage {
        let (via, index) = match way {
            Way::Here => return self.bare(block, RouteType::Unreachable),
            Way::Link { via, index } => (via, index),
            Way::Tunnel { via } => (via, self.tunnel),
        };
        let mut message = self.bare(block, RouteType::Unicast);
        // The next hop is on that link, whatever networks the kernel knows there.
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(next_hop(block, via));
        message.attributes.push(RouteAttribute::Oif(index));
        message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(plain(source))));
        message
    }

    /// Specific enough to match this route only, even if another program has written one to the same block.
    fn old(self, held: &Held) -> RouteMessage {
        let mut message = self.bare(held.route.destination, held.kind);
        if held.kind == RouteType::Unicast {
            message.attributes.extend(held.route.gateway.map(|via| next_hop(held.route.destination, via)));
            message.attributes.extend(held.route.interface.map(RouteAttribute::Oif));
        }
        message
    }

    fn bare(self, block: IpNet, kind: RouteType) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family =
            if matches!(block, IpNet::V4(_)) { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = block.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Other(SIGN_PROTOCOL);
        message.header.scope = RouteScope::Universe;
        message.header.kind = kind;
        message.attributes.push(RouteAttribute::Destination(plain(block.addr())));
        message.attributes.push(RouteAttribute::Priority(identity::route_metric(self.group)));
        message
    }

    /// The step as a line for operators.
    pub(crate) fn line(self, step: &Step, names: impl Fn(u32) -> String) -> String {
        let tunnel = identity::tunnel_interface(self.group);
        match step {
            Step::TakeAddress(address) => format!("ip address add {} dev lo", IpNet::from(*address)),
            Step::DropAddress(address) => format!("ip address del {} dev lo", IpNet::from(*address)),
            Step::MakeTunnel(new) => {
                let vxlan::Tunnel { name, local, port, id, .. } = new;
                format!("ip link add {name} type vxlan id {id} local {local} dstport {port} nolearning")
            }
            Step::AlterTunnel(link, mtu) => format!("ip link set {} mtu {mtu} up", link.name),
            Step::DropTunnel(link) => format!("ip link del {}", link.name),
            Step::Set(setting) => {
                format!("sysctl -w net.{}={}", setting.path.replace('/', "."), setting.value)
            }
            Step::WriteNeighbour(address, mac) => {
                format!("ip neighbour replace {address} lladdr {} dev {tunnel} nud permanent", text(mac))
            }
            Step::DropNeighbour(address) => format!("ip neighbour del {address} dev {tunnel}"),
            Step::WriteEnd(mac, end) => {
                format!("bridge fdb replace {} dev {tunnel} dst {end} self permanent", text(mac))
            }
            Step::DropEnd(mac, end) => format!("bridge fdb del {} dev {tunnel} dst {end} self", text(mac)),
            Step::WriteRoute(block, Way::Here, _) => format!("ip route replace unreachable {block} proto 83"),
            Step::WriteRoute(block, way, source) => {
                let (via, device) = match way {
                    Way::Link { via, index } => (*via, names(*index)),
                    Way::Tunnel { via } => (*via, tunnel),
                    Way::Here => return String::new(),
                };
                let source = source.map(|source| format!(" src {source}")).unwrap_or_default();
                let inet6 = if via.is_ipv6() && block.addr().is_ipv4() { "inet6 " } else { "" };
                format!("ip route replace {block} via {inet6}{via} dev {device} onlink proto 83{source}")
            }
            Step::DropRoute(held) => {
                let kind = if held.own_block().is_some() { "unreachable " } else { "" };
                let over = held.route.interface.filter(|_| kind.is_empty()).map(names);
                let over = over.map(|name| format!(" dev {name}")).unwrap_or_default();
                format!("ip route del {kind}{}{over} proto 83", held.route.destination)
            }
        }
    }
}

fn next_hop(block: IpNet, via: IpAddr) -> RouteAttribute {
    match (block, via) {
        // The next hop of an IPv4 route may be an IPv6 address, since Linux 5.2.
        (IpNet::V4(_), IpAddr::V6(via)) => RouteAttribute::Via(RouteVia::Inet6(via)),
        (_, via) => RouteAttribute::Gateway(plain(via)),
    }
}

fn plain(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
