//! Who a member of the cluster is. Plain data; must never change while the member runs.

use std::time::Duration;

use ipnet::Ipv4Net;

use crate::key::{HostInfo, Settings};

/// Who a member is and what it may do.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name of this host in the registry.
    pub host: String,
    /// Distinguishes this worker from its predecessor and its successor.
    pub instance: String,
    /// What this host says about itself.
    pub info: HostInfo,
    /// All container addresses.
    pub pool: Ipv4Net,
    /// Prefix length of a block.
    pub block_size: u8,
    /// The part of the pool that virtual addresses are taken from; no blocks lie in it.
    pub vips: Option<Ipv4Net>,
    /// Whether each tenant has names of its own for virtual addresses.
    pub by_tenant: bool,
    /// How long a host must be away before its blocks are freed.
    pub free_after: Duration,
    /// Whether to claim the pool's first block first: there are no hosts to compete with.
    pub alone: bool,
}

/// The settings of a registry that this host initialises.
pub(crate) fn settings(identity: &Identity) -> Settings {
    Settings {
        pool: identity.pool,
        block_size: identity.block_size,
        vips: identity.vips,
        epoch: format!("{:016x}", rand::random::<u64>()),
    }
}
