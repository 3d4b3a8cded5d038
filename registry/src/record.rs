//! One container's entry in the table. It must never hold what DNS does not need: the rest is in labels and the kernel.

use std::net::{Ipv4Addr, SocketAddr};

use crate::name::Name;

/// What is known of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The container's id, as the engine gives it: the key of the record.
    pub id: String,
    /// The container's address on our network.
    pub address: Ipv4Addr,
    /// Its names, relative to the domain (or absolute, within one of the table's domains). The first is the primary
    /// one, which a PTR question is answered with.
    pub names: Vec<Name>,
    /// The name servers that the user gave it (`--dns`); empty = the host's.
    pub upstreams: Vec<SocketAddr>,
}
