//! The ports of virtual addresses, and what is the same for all of them. Plain data; must never know the kernel's form.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::policy::Protocol;

/// What does not change during a worker's life.
#[derive(Debug, Clone)]
pub struct ServicesSettings {
    /// The link group of our wires' host ends; also names the table.
    pub group: u32,
    /// All virtual addresses; a part of the pool.
    pub range: Ipv4Net,
    /// The network of IPv6 addresses, if containers have them: virtual addresses then have them too.
    pub pool6: Option<Ipv6Net>,
}

/// One port of a virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The virtual address; the IPv6 one follows from it.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where new connections go, in equal shares. If empty, they are refused.
    pub backends: Vec<(Ipv4Addr, u16)>,
}
