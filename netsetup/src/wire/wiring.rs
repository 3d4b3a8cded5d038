//! What every job on a wire needs. Plain data; must never send anything by itself.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::Semaphore;

use crate::netlink::Netlink;
use crate::settings::Settings;

/// What every job on a wire needs.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    pub(crate) settings: Settings,
    pub(crate) mtu: u32,
    /// The inode of the host's own network namespace.
    pub(crate) own_namespace: u64,
    /// The host's socket.
    pub(crate) netlink: Netlink,
    pub(crate) changes: Arc<AtomicU64>,
    pub(crate) turns: Arc<Semaphore>,
}
