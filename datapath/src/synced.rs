//! Whether all is known that there is: only then what else is found in the kernel is old, and may go.

use std::sync::Arc;

use selvedge_cluster::handle::Cluster;
use tokio::sync::watch;

/// Whether all containers of this host and of the others have been seen.
#[derive(Debug)]
pub struct Synced {
    own: watch::Sender<bool>,
    /// Nothing on a host that is alone.
    cluster: Option<Arc<Cluster>>,
}

impl Synced {
    /// Nothing has been seen yet. `cluster` only where there are other hosts.
    pub fn new(cluster: Option<Arc<Cluster>>) -> Self {
        Self { own: watch::Sender::new(false), cluster }
    }

    /// All containers of this host have been seen.
    pub fn set_own(&self) {
        self.own.send_replace(true);
    }

    /// Returns when those of the other hosts have been, too.
    pub(crate) async fn wait(&self) {
        let _ = self.own.subscribe().wait_for(|seen| *seen).await;
        if let Some(cluster) = &self.cluster {
            let _ = cluster.views().wait_for(|view| view.read).await;
        }
    }

    /// Whether those of the other hosts have been, too.
    pub fn all(&self) -> bool {
        *self.own.borrow() && self.cluster.as_ref().is_none_or(|cluster| cluster.views().borrow().read)
    }
}
