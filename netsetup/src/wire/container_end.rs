//! The container's end of a wire: what it has, what it lacks, and the sign.
//!
//! Must never use the sign's protocol number for anything but the sign.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use crate::device::{enable, lasting, neighbour, silence};
use crate::error::Failure;
use crate::identity::{CONTAINER_INTERFACE, SIGN_PROTOCOL, container_mac, host_mac};
use crate::netlink::{Change, Netlink};
use crate::query::{self, Link, Route};
use crate::settings::Settings;
use crate::sysctl::Setting;
use crate::wire::ipv6::{self, End6};
use crate::wire::spec::WireSpec;
use crate::wire::wiring::Wiring;

/// The present state.
pub(crate) struct ContainerEnd {
    pub(crate) link: Link,
    addresses: Vec<(Ipv4Addr, u8)>,
    routes: Vec<Route>,
    neighbours: Vec<(IpAddr, Vec<u8>)>,
    six: End6,
}

/// Settings of the container's end.
pub(crate) fn settings(settings: &Settings) -> Vec<Setting> {
    let mut wanted = vec![Setting {
        step: "turn off IPv6 router advertisements in the container",
        path: format!("ipv6/conf/{CONTAINER_INTERFACE}/accept_ra"),
        value: "0",
        optional: true,
    }];
    wanted.extend(ipv6::setting(settings.pool6, CONTAINER_INTERFACE));
    // Over lo a container reaches its own address.
    wanted.extend(ipv6::setting(settings.pool6, "lo"));
    wanted
}

impl ContainerEnd {
    /// The end as the veth pair was created a moment ago; properties not known of this end are the same as on the other
    /// one.
    pub(crate) fn fresh(index: u32, address: Ipv4Addr, other: &Link) -> Self {
        let mac = container_mac(address).to_vec();
        let link = Link { index, mac, mtu: other.mtu, makes_ipv6: other.makes_ipv6, ..Link::default() };
        let six = End6::default();
        Self { link, addresses: Vec::new(), routes: Vec::new(), neighbours: Vec::new(), six }
    }

    /// Reads the present state.
    pub(crate) async fn look(netlink: &Netlink, link: &Link, settings: &Settings) -> Result<Self, Failure> {
        let addresses = query::addresses(netlink, AddressFamily::Inet, Some(link.index)).await?;
        let routes = query::routes(netlink, AddressFamily::Inet, Some(link.index)).await?;
        let neighbours = query::neighbours(netlink, AddressFamily::Inet, link.index).await?;
        let addresses = addresses.into_iter().filter_map(|have| match have.address {
            IpAddr::V4(address) => Some((address, have.prefix_length)),
            IpAddr::V6(_) => None,
        });
        let addresses = addresses.collect();
        let six = End6::look(netlink, link, settings).await?;
        Ok(Self { link: link.clone(), addresses, routes, neighbours, six })
    }

    /// The changes to send, in this order: routes need their source address, and the address needs the device.
    pub(crate) fn missing(&self, wiring: &Wiring, spec: &WireSpec) -> Vec<Change> {
        let Settings { gateway, dns, .. } = wiring.settings;
        let mac = container_mac(spec.address);
        let neighbours = lasting(&self.neighbours, &self.link, &mac);
        let mut changes = Vec::new();
        changes.extend(silence(&self.link));
        changes.extend(enable(&self.link, &mac, wiring.mtu));
        let wanted = (spec.address, 32);
        changes.extend(
            self.addresses.iter().filter(|have| **have != wanted).map(|have| self.drop_address(*have)),
        );
        if !self.addresses.contains(&wanted) {
            changes.push(self.take_address(spec.address));
        }
        // Removing an address also removes the routes that have it as source, so those found are not to be trusted.
        let routes: &[Route] = if changes.is_empty() { &self.routes } else { &[] };
        let mut hosts = vec![gateway];
        hosts.extend((dns != gateway).then_some(dns));
        for host in hosts {
            changes.extend(neighbour(neighbours, self.link.index, host.into(), &host_mac(gateway)));
            changes.extend(self.route(routes, host, spec.address));
        }
        changes.extend(self.six.missing_inside(&self.link, &wiring.settings, spec));
        changes
    }

    fn take_address(&self, address: Ipv4Addr) -> Change {
        let message =
            AddressMessageBuilder::<Ipv4Addr>::new().index(self.link.index).address(address, 32).build();
        Change::replace("give the container its address", RouteNetlinkMessage::NewAddress(message))
    }

    fn drop_address(&self, (address, length): (Ipv4Addr, u8)) -> Change {
        let message =
            AddressMessageBuilder::<Ipv4Addr>::new().index(self.link.index).address(address, length).build();
        Change::alter("remove an old address", RouteNetlinkMessage::DelAddress(message))
    }

    /// The route to the host's own addresses: on the link, so that the pool's route can lead through one of them.
    fn route(&self, have: &[Route], host: Ipv4Addr, address: Ipv4Addr) -> Option<Change> {
        let wanted = Route {
            destination: IpNet::V4(Ipv4Net::from(host)),
            gateway: None,
            source: Some(address.into()),
            interface: Some(self.link.index),
            protocol: RouteProtocol::Static.into(),
            metric: 0,
        };
        if have.contains(&wanted) {
            return None;
        }
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(host, 32)
            .output_interface(self.link.index)
            .pref_source(address)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Static);
        Some(Change::replace("write the route to the host", RouteNetlinkMessage::NewRoute(message.build())))
    }
}

/// The sign: the pool's route through the gateway.
pub(crate) async fn give_sign(
    netlink: &Netlink,
    wiring: &Wiring,
    interface: u32,
    address: Ipv4Addr,
) -> Result<(), Failure> {
    let Settings { pool, gateway, .. } = wiring.settings;
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(pool.network(), pool.prefix_len())
        .gateway(gateway)
        .output_interface(interface)
        .pref_source(address)
        .protocol(RouteProtocol::Other(SIGN_PROTOCOL))
        .build();
    let step = "write the pool's route";
    let sign = Change::create(step, RouteNetlinkMessage::NewRoute(message.clone()));
    if netlink.apply_unless(sign, Errno::EEXIST).await? {
        return Ok(());
    }
    let wanted = Route {
        destination: IpNet::V4(pool.trunc()),
        gateway: Some(gateway.into()),
        source: Some(address.into()),
        interface: Some(interface),
        protocol: SIGN_PROTOCOL,
        metric: 0,
    };
    if query::routes(netlink, AddressFamily::Inet, Some(interface)).await?.contains(&wanted) {
        return Ok(());
    }
    netlink.apply(vec![Change::replace(step, RouteNetlinkMessage::NewRoute(message))]).await
}
