//! The other hosts: how packets get to their containers, as routes and at most one VXLAN device.
//!
//! What shall be is computed (`wanted`), what is there is dumped (`have`), and only the difference (`plan`) is sent
//! (`weave`): so it may be called often, and notices what somebody else changed. Must never touch a route that does
//! not have our protocol and our Selvedge's metric.

mod have;
mod messages;
mod plan;
mod vxlan;
mod wanted;
mod weave;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

pub(crate) use crate::fabric::wanted::Pools;
pub(crate) use crate::fabric::weave::{Weaver, own_blocks};

/// How packets get to another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// Straight where the peer is on a link of ours, else by VXLAN.
    Auto,
    /// Straight; through the kernel's gateway where there is one, which then has to know the blocks.
    Direct,
    /// By VXLAN, wherever the peer is.
    Vxlan,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What people call it; for messages.
    pub name: String,
    /// Its address on the underlay, IPv4 or IPv6.
    pub underlay: IpAddr,
    /// How packets get to it.
    pub datapath: Datapath,
    /// What is reached through it: its blocks, and single addresses as /32. What is not in the pool is left out.
    pub destinations: Vec<Ipv4Net>,
}

/// What shall be known of the other hosts, whole: what is not in here is taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fabric {
    /// This host's own address on the underlay.
    pub underlay: IpAddr,
    /// This host's own blocks: packets to an address in them that no container has end here, not in circles.
    pub own_blocks: Vec<Ipv4Net>,
    /// This host's address in the pool: the source of what the host itself sends to containers elsewhere.
    pub host_address: Option<Ipv4Addr>,
    /// The other hosts.
    pub peers: Vec<Peer>,
    /// The UDP port of the VXLAN device.
    pub vxlan_port: u16,
    /// The VNI of the VXLAN device.
    pub vxlan_id: u32,
}
