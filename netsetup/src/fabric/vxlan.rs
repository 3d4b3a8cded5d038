//! The VXLAN device: its wanted state, its present state, and its creation.
//!
//! It learns nothing and floods nothing: every peer's next hop and every frame's destination is written. Must never try
//! to alter what the kernel does not allow to be altered (address, port, VNI): such a device is replaced.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::LinkVxlan;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::device::{enable, silence};
use crate::error::Failure;
use crate::fabric::Fabric;
use crate::identity;
use crate::netlink::{Change, Netlink};
use crate::query::{self, Link};
use crate::sysctl::{self, Setting};

/// The wanted device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tunnel {
    pub(crate) name: String,
    pub(crate) local: IpAddr,
    pub(crate) port: u16,
    pub(crate) id: u32,
    pub(crate) mac: [u8; 6],
    /// Whether it carries IPv6 packets, or has IPv6 next hops.
    pub(crate) six: bool,
}

/// The present device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) link: Link,
    parameters: Option<Parameters>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Parameters {
    local: Option<IpAddr>,
    port: u16,
    id: u32,
    learning: bool,
}

impl Tunnel {
    /// The device that a fabric needs.
    pub(crate) fn of(fabric: &Fabric, name: &str, six: bool) -> Self {
        let mac = identity::tunnel_mac(fabric.underlay);
        Self {
            name: name.to_owned(),
            local: fabric.underlay,
            port: fabric.vxlan_port,
            id: fabric.vxlan_id,
            mac,
            six: six || fabric.underlay.is_ipv6(),
        }
    }

    /// Makes the device and brings it up; returns its index.
    pub(crate) async fn make(&self, netlink: &Netlink, group: u32, mtu: u32) -> Result<u32, Failure> {
        let local = match self.local {
            IpAddr::V4(address) => InfoVxlan::Local(address),
            IpAddr::V6(address) => InfoVxlan::Local6(address),
        };
        let message = LinkVxlan::new(&self.name, self.id)
            .append_info_data(local)
            .append_info_data(InfoVxlan::Port(self.port))
            .append_info_data(InfoVxlan::Learning(false))
            .link_group(group)
            .address(self.mac.to_vec())
            .mtu(mtu);
        let step = "make the VXLAN device";
        netlink.apply(vec![Change::create(step, RouteNetlinkMessage::NewLink(message.build()))]).await?;
        let made = query::link_by_name(netlink, &self.name).await?;
        let made = made.ok_or(Failure { step, errno: Errno::ENODEV })?;
        netlink.count(sysctl::ensure(&self.settings())?);
        let changes = silence(&made).into_iter().chain(enable(&made, &self.mac, mtu));
        match netlink.apply(changes.collect()).await {
            Ok(()) => Ok(made.index),
            // Bringing the device up opens the port. A half-made device must not look complete.
            Err(failure) => {
                netlink.apply(vec![remove(made.index)]).await?;
                Err(failure)
            }
        }
    }

    /// Kernel settings of the device. The source check is loose: while a peer switches between direct and VXLAN, its
    /// packets come one way and ours go the other; and a sender of VXLAN frames can forge sources anyway.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let setting = |step, path: &str, value, optional| Setting {
            step,
            path: path.replace("{}", &self.name),
            value,
            optional,
        };
        let mut settings = vec![
            setting("loosen the source check on the VXLAN device", "ipv4/conf/{}/rp_filter", "2", false),
            setting("turn on forwarding for the VXLAN device", "ipv4/conf/{}/forwarding", "1", false),
            setting("turn off IPv6 router advertisements", "ipv6/conf/{}/accept_ra", "0", true),
        ];
        if self.six {
            // The kernel accepts an IPv6 next hop only on a device with IPv6.
            settings.push(setting("turn on IPv6 on the device", "ipv6/conf/{}/disable_ipv6", "0", true));
        }
        settings
    }
}

impl Device {
    /// Reads the device with that name, if it exists.
    pub(crate) async fn look(netlink: &Netlink, name: &str) -> Result<Option<Self>, Failure> {
        let found = query::link_message(netlink, 0, Some(name)).await?;
        Ok(found.map(|message| {
            let parameters = parameters(&message);
            Self { link: query::read_link(message), parameters }
        }))
    }

    /// Whether it is a VXLAN device at all.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.parameters.is_some()
    }

    /// Whether all properties that cannot be altered are right.
    pub(crate) fn is(&self, tunnel: &Tunnel) -> bool {
        let Tunnel { local, port, id, mac, .. } = tunnel;
        let wanted = Parameters { local: Some(*local), port: *port, id: *id, learning: false };
        // With another hardware address the kernel would drop the neighbours.
        self.parameters.as_ref() == Some(&wanted) && self.link.mac == mac
    }

    /// Its permanent neighbours of both families.
    pub(crate) async fn neighbours(&self, netlink: &Netlink) -> Result<Vec<(IpAddr, Vec<u8>)>, Failure> {
        let mut found = query::neighbours(netlink, AddressFamily::Inet, self.link.index).await?;
        found.extend(query::neighbours(netlink, AddressFamily::Inet6, self.link.index).await?);
        Ok(found)
    }

    /// Where it sends frames.
    pub(crate) async fn ends(&self, netlink: &Netlink) -> Result<Vec<(IpAddr, Vec<u8>)>, Failure> {
        query::neighbours(netlink, AddressFamily::Bridge, self.link.index).await
    }
}

/// Removes the device.
pub(crate) fn remove(index: u32) -> Change {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Change::remove("remove the VXLAN device", RouteNetlinkMessage::DelLink(message))
}

fn parameters(message: &LinkMessage) -> Option<Parameters> {
    let infos = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    if !infos.contains(&LinkInfo::Kind(InfoKind::Vxlan)) {
        return None;
    }
    let mut parameters = Parameters::default();
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    for part in data {
        match part {
            InfoVxlan::Id(id) => parameters.id = *id,
            InfoVxlan::Local(address) => parameters.local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => parameters.local = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(port) => parameters.port = *port,
            InfoVxlan::Learning(learning) => parameters.learning = *learning,
            _ => {}
        }
    }
    Some(parameters)
}
