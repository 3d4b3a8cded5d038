//! The names of this host's containers: nothing else says what is answered for them. Rules come first, then names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use selvedge_registry::record::Record;
use tracing::warn;

use crate::host::Host;

/// Where names are made known and taken back.
#[derive(Debug)]
pub struct Directory {
    host: Arc<dyn Host>,
}

impl Directory {
    /// By way of this host, which tells the others.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }

    /// A container is about to run: returns when the kernel knows its rules.
    ///
    /// # Errors
    /// The kernel or nft refuses them.
    pub async fn admit(&self, record: &Record, aliases: &[IpAddr]) -> Result<(), selvedge_netsetup::Error> {
        self.host.admit(record, aliases).await
    }

    /// Lets a container's names be answered, whose rules are told to the kernel meanwhile.
    pub fn put(&self, record: Record, aliases: &[IpAddr]) {
        self.host.note(&record, aliases);
        for error in self.host.publish(record) {
            warn!(%error, "a name is left out");
        }
    }

    /// Lets a container's names be answered no longer.
    pub fn remove(&self, id: &str) {
        self.host.withdraw(id);
        self.host.dismiss(id);
    }

    /// Returns when the other hosts are hearing of what was said of a container last.
    pub async fn told(&self, id: &str) {
        self.host.told(id).await;
    }

    /// Returns when no host sends new connections to a container that is about to be stopped, as far as that can be waited
    /// for.
    pub async fn lead_elsewhere(&self, id: &str, for_long: Duration) {
        self.host.lead_elsewhere(id, for_long).await;
    }
}
