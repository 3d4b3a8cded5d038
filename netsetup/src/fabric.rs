//! The other hosts: the path of packets to their containers, as routes and at most one VXLAN device.
//!
//! It computes the wanted state (`wanted`), dumps the present one (`have`), and sends only the difference (`plan`,
//! `weave`): so it can be called often, and repairs outside changes. Must never touch a route that does not have our
//! protocol and our Selvedge's metric.

mod have;
mod messages;
mod plan;
mod vxlan;
pub(crate) mod wanted;
pub(crate) mod weave;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// The path of packets to another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// Directly where the peer is on a link of ours, else by VXLAN.
    Auto,
    /// Directly; through the kernel's gateway where there is one, which then has to know the blocks.
    Direct,
    /// By VXLAN, wherever the peer is.
    Vxlan,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for messages.
    pub name: String,
    /// Its address on the underlay, IPv4 or IPv6.
    pub underlay: IpAddr,
    /// The path of packets to it.
    pub datapath: Datapath,
    /// Where it leads: its blocks, and single addresses as /32. Destinations outside the pool are left out.
    pub destinations: Vec<Ipv4Net>,
}

/// The complete wanted state of the other hosts: anything else is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fabric {
    /// This host's own address on the underlay.
    pub underlay: IpAddr,
    /// This host's own blocks: packets to an unused address in them are dropped here instead of looping.
    pub own_blocks: Vec<Ipv4Net>,
    /// This host's address in the pool: the source of packets from the host itself to containers elsewhere.
    pub host_address: Option<Ipv4Addr>,
    /// The other hosts.
    pub peers: Vec<Peer>,
    /// The UDP port of the VXLAN device.
    pub vxlan_port: u16,
    /// The VNI of the VXLAN device.
    pub vxlan_id: u32,
}
