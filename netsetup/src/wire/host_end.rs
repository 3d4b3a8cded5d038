//! The host's end of a wire: what it has, and what it lacks.
//!
//! Only builds lists of changes; must never send one.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::device::{enable, neighbour, silence};
use crate::error::Failure;
use crate::identity::{SIGN_PROTOCOL, container_mac, host_mac};
use crate::netlink::{Change, Netlink};
use crate::query::{self, Link, Route};
use crate::settings::Settings;
use crate::sysctl::Setting;
use crate::wire::ipv6::{self, End6};
use crate::wire::spec::WireSpec;
use crate::wire::wiring::Wiring;

/// The present state.
pub(crate) struct HostEnd {
    pub(crate) link: Link,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<(IpAddr, Vec<u8>)>,
    pub(crate) six: End6,
}

/// Settings of the host's end. For rp_filter the kernel takes the larger of `all` and this value, and 2 is loose:
/// `preflight` reports when `all` is.
///
/// Without an IPv6 pool disable_ipv6 is left alone: writing it spins (restart_syscall) while any process holds the rtnl
/// lock, and many starts at once would then compete for the processors.
pub(crate) fn settings(settings: &Settings, interface: &str) -> Vec<Setting> {
    let mut wanted = vec![
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
    ];
    wanted.extend(ipv6::setting(settings.pool6, interface));
    wanted
}

impl HostEnd {
    /// Reads the present state.
    pub(crate) async fn look(netlink: &Netlink, link: &Link, settings: &Settings) -> Result<Self, Failure> {
        let routes = query::routes(netlink, AddressFamily::Inet, Some(link.index)).await?;
        let neighbours = query::neighbours(netlink, AddressFamily::Inet, link.index).await?;
        let six = End6::look(netlink, link, settings).await?;
        Ok(Self { link: link.clone(), routes, neighbours, six })
    }

    /// The changes to send, in this order: a device that is down takes neither routes nor neighbours.
    pub(crate) fn missing(&self, wiring: &Wiring, spec: &WireSpec) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(silence(&self.link));
        changes.extend(enable(&self.link, &host_mac(wiring.settings.gateway), wiring.mtu));
        changes.extend(self.stray_routes(spec.address));
        changes.extend(self.route(spec.address, wiring.settings.gateway));
        changes.extend(neighbour(
            &self.neighbours,
            self.link.index,
            spec.address.into(),
            &container_mac(spec.address),
        ));
        changes.extend(self.six.missing_outside(&self.link, &wiring.settings, spec));
        changes
    }

    /// Our routes to other addresses over this link: the container's earlier addresses.
    fn stray_routes(&self, address: Ipv4Addr) -> impl Iterator<Item = Change> {
        let strays = self
            .routes
            .iter()
            .filter(move |route| route.protocol == SIGN_PROTOCOL && route.destination != host_net(address));
        let strays = strays.filter_map(|route| match route.destination {
            IpNet::V4(destination) => Some(destination),
            IpNet::V6(_) => None,
        });
        strays.map(|destination| {
            let message = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(destination.addr(), destination.prefix_len())
                .output_interface(self.link.index)
                .scope(RouteScope::Link)
                .protocol(RouteProtocol::Other(SIGN_PROTOCOL));
            Change::alter("delete a stray route", RouteNetlinkMessage::DelRoute(message.build()))
        })
    }

    /// With the gateway's address as source: the host itself then reaches the container, and the answer comes back over
    /// the wire. Replaces a route to the same address over another link, which belongs to a container that is gone.
    fn route(&self, address: Ipv4Addr, gateway: Ipv4Addr) -> Option<Change> {
        let wanted = Route {
            destination: host_net(address),
            gateway: None,
            source: Some(gateway.into()),
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

fn host_net(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::from(address))
}
