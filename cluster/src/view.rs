//! What the rest of Selvedge sees of the cluster: hosts, blocks, and the registry's state.
//!
//! Plain data, rebuilt when something has changed; must never hold a container's record.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::key::HostInfo;

/// One view of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The registry's state.
    pub registry: Registry,
    /// Whether the registry has been read since this worker started: until then the peers are unknown.
    pub read: bool,
    /// The blocks of this host.
    pub own_blocks: Vec<Ipv4Net>,
    /// All other hosts.
    pub peers: Vec<PeerView>,
    /// The virtual addresses by their names.
    pub vips: Arc<HashMap<String, Ipv4Addr>>,
}

/// The registry's state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", content = "reason", rename_all = "lowercase")]
pub enum Registry {
    /// Not connected, and why.
    Away(String),
    /// It answers, but this host may not take part: wrong credentials, another pool.
    Refused(String),
    /// Connected, and receiving news.
    #[default]
    Connected,
}

/// Another host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// What it says about itself.
    pub info: Option<HostInfo>,
    /// Whether the registry says that it is alive.
    pub registered: bool,
    /// Whether its names are answered: it is registered, or answers our probes.
    pub alive: bool,
    /// The blocks that it hands out.
    pub blocks: Vec<Ipv4Net>,
    /// Addresses of its containers outside its blocks.
    pub strays: Vec<Ipv4Addr>,
    /// How many containers run there.
    pub containers: usize,
}
