//! What the rest of Selvedge sees of the cluster: hosts, blocks, and how the registry does.
//!
//! Plain data, made anew when something has changed; must never hold a container's record.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::key::HostInfo;

/// One look at the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// How the registry does.
    pub registry: Registry,
    /// Whether the registry has been read since this worker began: before, nothing is known of the peers.
    pub read: bool,
    /// The blocks of this host.
    pub own_blocks: Vec<Ipv4Net>,
    /// All other hosts.
    pub peers: Vec<PeerView>,
    /// The virtual addresses, by what they are called.
    pub vips: Arc<HashMap<String, Ipv4Addr>>,
}

/// How the registry does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "lowercase")]
pub enum Registry {
    /// Not connected yet, or not any more; why.
    Away(String),
    /// It answers and this host may not take part: wrong credentials, another pool.
    Refused(String),
    /// Connected, and its news arrive.
    #[default]
    Connected,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// What it says of itself.
    pub info: Option<HostInfo>,
    /// Whether the registry holds it for alive.
    pub registered: bool,
    /// Whether its names are answered: it is registered, or answers when it is asked itself.
    pub alive: bool,
    /// What it hands out.
    pub blocks: Vec<Ipv4Net>,
    /// Addresses of its containers outside of its blocks.
    pub strays: Vec<Ipv4Addr>,
    /// How many containers run there.
    pub containers: usize,
}
