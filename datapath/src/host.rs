//! This host among the others: who it is, and how they see that it lives.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipnet::Ipv4Net;
use selvedge_cluster::handle::{Cluster, Member, Reserve};
use selvedge_cluster::identity::Identity;
use selvedge_cluster::key::HostInfo;
use selvedge_cluster::names::Others;
use selvedge_cluster::recall::Remembered;
use selvedge_netsetup::Datapath as Way;

use crate::addresses::Addresses;
use crate::kernel::RouteTable;
use crate::settings::Settings;

/// Why this host cannot become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The kernel does not say.
    #[error(transparent)]
    Network(#[from] selvedge_netsetup::Error),
    /// There is no default route to tell by.
    #[error("cannot tell at which address other hosts reach this one; say --host-address")]
    NoAddress,
}

/// Becomes a member of the cluster, once the second is run; the registry need not be there. In `memory` stands what it said
/// last.
///
/// # Errors
/// The host's own address cannot be found.
pub async fn join(
    settings: &Settings,
    kernel: &dyn RouteTable,
    others: Box<dyn Others>,
    addresses: &Arc<Addresses>,
    memory: Option<OwnedFd>,
) -> Result<(Cluster, Member), JoinError> {
    let identity = identity(settings, address(settings, kernel).await?);
    let given = Arc::clone(addresses);
    let owner = Box::new(move |address, wish: Reserve<'_>| given.reserve(address, wish));
    // What the kernel remembers counts until the registry says something else.
    let mut blocks: BTreeSet<Ipv4Net> = settings.block.into_iter().collect();
    if !settings.is_local() {
        blocks.extend(kernel.own_blocks().await?);
    }
    let own: Vec<Ipv4Net> = blocks.iter().copied().collect();
    addresses.set_blocks(&own, own_address(settings, &own));
    let remembered = Remembered { memory: memory.map(File::from), blocks };
    let registry = settings.cluster.registry.clone();
    Ok(Cluster::new(registry, identity, others, owner, remembered))
}

/// At which address other hosts reach this one.
async fn address(settings: &Settings, kernel: &dyn RouteTable) -> Result<IpAddr, JoinError> {
    match (settings.cluster.host_address, settings.is_local()) {
        (Some(address), _) => Ok(address),
        (None, true) => Ok(IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        (None, false) => kernel.default_underlay().await?.ok_or(JoinError::NoAddress),
    }
}

fn identity(settings: &Settings, address: IpAddr) -> Identity {
    let cluster = &settings.cluster;
    Identity {
        host: cluster.host_name.clone(),
        instance: format!("{:08x}", rand::random::<u32>()),
        info: HostInfo {
            address,
            port: cluster.peer_port,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datapath: way_text(cluster.way).to_owned(),
            policy: settings.rules.name().to_owned(),
            heeds_stops: true,
        },
        pool: settings.pool,
        block_size: settings.block_size,
        vips: settings.vips,
        by_tenant: settings.rules.by_tenant,
        free_after: cluster.free_after,
        alone: settings.is_local(),
    }
}

fn way_text(way: Way) -> &'static str {
    match way {
        Way::Auto => "auto",
        Way::Direct => "direct",
        Way::Vxlan => "vxlan",
    }
}

/// This host's own address in the pool: the first of its lowest block. A single host needs none.
pub fn own_address(settings: &Settings, blocks: &[Ipv4Net]) -> Option<Ipv4Addr> {
    first_address(blocks, settings.block_size).filter(|_| !settings.is_local())
}

/// The address in the pool of a host with these blocks; those of subnets have none to spare.
pub fn first_address(blocks: &[Ipv4Net], block_size: u8) -> Option<Ipv4Addr> {
    blocks.iter().filter(|block| block.prefix_len() <= block_size).min().map(Ipv4Net::network)
}
