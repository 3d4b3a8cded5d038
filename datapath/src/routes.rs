//! The kernel's routes to the other hosts, from what the registry says of them. Must never take one out before the
//! registry has been read: what is there is from an earlier worker then, and better than nothing.

use std::sync::Arc;

use ipnet::Ipv4Net;
use selvedge_cluster::handle::Cluster;
use selvedge_cluster::view::{PeerView, View};
use selvedge_netsetup::{Datapath as Way, Fabric, Peer};
use tracing::debug;

use crate::health::Fault;
use crate::host::own_address;
use crate::kernel::RouteTable;
use crate::settings::Settings;

/// The routes to the other hosts.
#[derive(Debug)]
pub struct Routes {
    settings: Arc<Settings>,
    kernel: Arc<dyn RouteTable>,
    cluster: Arc<Cluster>,
    trouble: Fault,
}

impl Routes {
    /// Changes nothing in the kernel yet.
    pub fn new(settings: Arc<Settings>, kernel: Arc<dyn RouteTable>, cluster: Arc<Cluster>) -> Self {
        Self { settings, kernel, cluster, trouble: Fault::with("the routes to other hosts") }
    }

    /// Why they are not as they should be, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.reason()
    }

    /// Makes them so; one that cannot be made is tried again with the next news, or the next look.
    pub async fn keep(&self, view: &View) {
        self.trouble.found(self.weave(view).await);
    }

    /// Makes the kernel's routes what this view asks for.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn weave(&self, view: &View) -> Result<(), selvedge_netsetup::Error> {
        let Some(fabric) = self.wanted(view) else { return Ok(()) };
        let changes = self.kernel.weave(&fabric).await?;
        if changes > 0 {
            debug!(changes, peers = fabric.peers.len(), "wove the routes to other hosts");
        }
        Ok(())
    }

    /// What would be changed in the kernel to make them right, one line each.
    ///
    /// # Errors
    /// The registry has not been read, or the kernel does not say.
    pub async fn plan(&self) -> Result<Vec<String>, String> {
        if self.settings.is_local() {
            return Ok(Vec::new());
        }
        let view = Arc::clone(&self.cluster.views().borrow());
        let fabric = self.wanted(&view).ok_or("the registry has not been read yet")?;
        self.kernel.plan(&fabric).await.map_err(|error| error.to_string())
    }

    /// The routes to other hosts that the kernel needs; `None` before the registry has been read.
    fn wanted(&self, view: &View) -> Option<Fabric> {
        if self.settings.is_local() || !view.read {
            return None;
        }
        let cluster = &self.settings.cluster;
        Some(Fabric {
            underlay: self.cluster.address(),
            own_blocks: view.own_blocks.clone(),
            host_address: own_address(&self.settings, &view.own_blocks),
            peers: view.peers.iter().filter_map(|peer| reach(peer, cluster.way)).collect(),
            vxlan_port: cluster.vxlan_port,
            vxlan_id: cluster.vxlan_id,
        })
    }
}

/// A dead host keeps its routes: its blocks still belong to it.
fn reach(peer: &PeerView, own: Way) -> Option<Peer> {
    let info = peer.info.as_ref()?;
    let strays = peer.strays.iter().map(|address| Ipv4Net::from(*address));
    let destinations: Vec<Ipv4Net> = peer.blocks.iter().copied().chain(strays).collect();
    // Both must go the same way, or the strict source check drops what comes back the other.
    let datapath = match (own, info.datapath.as_str()) {
        (Way::Vxlan, _) | (_, "vxlan") => Way::Vxlan,
        (Way::Direct, _) | (_, "direct") => Way::Direct,
        _ => Way::Auto,
    };
    (!destinations.is_empty()).then(|| Peer {
        name: peer.name.clone(),
        underlay: info.address,
        datapath,
        destinations,
    })
}
