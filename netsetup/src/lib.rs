//! Puts wires into containers and takes them out again: a veth pair, an address, routes, permanent neighbours.
//!
//! Speaks netlink; the one exception is Docker's own firewall chain (see `firewall`). Knows nothing of Docker's
//! API, of names or of requests, and keeps nothing: what exists is what the kernel says.

mod dump;
pub mod error;
mod firewall;
mod host;
mod mac;
mod netns;
mod network;
mod preflight;
mod sysctl;
mod wire;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

pub use crate::error::Error;
pub use crate::mac::container_mac;
pub use crate::network::Network;
pub use crate::preflight::{Finding, Severity, preflight};

/// `rtm_protocol` of our routes. In a container's namespace the pool's route with it is the sign for which
/// `wait` waits. Numbers from 5 on are for user space (linux/rtnetlink.h).
pub const ROUTE_PROTOCOL: u8 = 83;

/// What all wires of a host have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// All container addresses.
    pub pool: Ipv4Net,
    /// The host's address towards every container; link-local, the same on all hosts.
    pub gateway: Ipv4Addr,
    /// Where containers ask for names; usually the gateway.
    pub dns: Ipv4Addr,
    /// Tells the interfaces of several Selvedges in one network namespace apart. The two lowest bits are ours.
    pub group: u32,
    /// Bytes of the largest packet; `None`: that of the interface of the host's default route.
    pub mtu: Option<u32>,
}

/// A wire that should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireSpec {
    /// 64 hex digits.
    pub container: String,
    /// The container's address.
    pub address: Ipv4Addr,
    /// A process in the container's network namespace.
    pub pid: u32,
}

/// A wire that is, seen from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The host's interface.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// The first 12 hex digits of the container's id.
    pub container_prefix: String,
    /// Where the host's route leads; `None` while there is none.
    pub address: Option<Ipv4Addr>,
    /// The sign was given: nothing is left to do.
    pub complete: bool,
}
