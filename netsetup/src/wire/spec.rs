//! A wire as a caller wants it, and as the kernel has it. Plain data; must never hold a socket.

use std::net::Ipv4Addr;

use crate::identity::prefix;
use crate::netns;

/// A wanted wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireSpec {
    /// The container's id, 64 hex digits.
    pub container: String,
    /// Its address in the pool.
    pub address: Ipv4Addr,
    /// Its first process, by the host's numbering.
    pub pid: u32,
}

/// A wire as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The host end's name.
    pub name: String,
    /// The first twelve hex digits of the container's id.
    pub container_prefix: String,
    /// The host end's index, which this host never gives to another link.
    pub ifindex: u32,
    /// The address that is routed over it.
    pub address: Option<Ipv4Addr>,
    /// The inode of the network namespace that it leads to; known once the wire is complete.
    pub namespace: Option<u64>,
    /// Whether its container was given the sign, after everything else was done.
    pub complete: bool,
}

impl Wire {
    /// Whether this wire is complete and leads to the network namespace that the process is in now.
    ///
    /// Not so for a container that was restarted meanwhile: its old namespace may take a while to die.
    pub fn serves(&self, pid: u32) -> bool {
        self.complete && self.namespace.is_some() && netns::inode_of(pid).ok() == self.namespace
    }
}

impl WireSpec {
    /// The short id, for messages.
    pub fn short_id(&self) -> &str {
        prefix(&self.container)
    }
}
