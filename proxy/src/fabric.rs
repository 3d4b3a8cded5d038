//! This host among the others: joins the cluster, keeps the kernel's routes to the other hosts right, and sees to it
//! that there is always a block with room.
//!
//! Nothing here is on the path of an API call, but for a create that finds every block full.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ipnet::Ipv4Net;
use selvedge_cluster::claim::{ClaimError, block_of, small_block_size};
use selvedge_cluster::handle::Cluster;
use selvedge_cluster::key::HostInfo;
use selvedge_cluster::member::Identity;
use selvedge_cluster::names::Names;
use selvedge_cluster::view::{PeerView, Registry, View};
use selvedge_netsetup::{Datapath, Fabric, Network, Peer};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use crate::book::{Book, Entry};
use crate::config::Config;
use crate::worker::Worker;

/// How often the kernel is looked at without news: somebody may have flushed a table.
const LOOK: Duration = Duration::from_millis(1500);
/// How long a block must have been empty before it goes back.
const EMPTY_FOR: Duration = Duration::from_secs(60);
/// A block is claimed ahead when this part of all addresses is left.
const SHORT: u32 = 8;

/// Becomes a member of the cluster; the registry need not be there.
///
/// # Errors
/// The host's own address cannot be found, or a thread not be started.
pub(crate) async fn join(
    config: &Config,
    network: &Network,
    names: Names,
    book: &Arc<Book>,
    memory: Option<OwnedFd>,
) -> anyhow::Result<Cluster> {
    let cluster = &config.cluster;
    let address = match (cluster.host_address, cluster.is_local()) {
        (Some(address), _) => address,
        (None, true) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        (None, false) => network
            .default_underlay()
            .await?
            .context("cannot tell at which address other hosts reach this one; say --host-address")?,
    };
    let identity = Identity {
        host: cluster.host_name.clone(),
        instance: format!("{:08x}", rand::random::<u32>()),
        info: HostInfo {
            address,
            port: cluster.peer_port,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datapath: datapath_text(cluster.datapath).to_owned(),
            policy: config.policy.name().to_owned(),
        },
        pool: config.pool,
        block_size: config.block_size,
        vips: config.vips.range,
        by_tenant: config.policy.tenants,
        free_after: cluster.free_after,
        alone: cluster.is_local(),
    };
    let owner = Arc::clone(book);
    let owner =
        Box::new(move |address, wish: selvedge_cluster::handle::Reserve<'_>| owner.reserve(address, wish));
    let joined = Cluster::start(cluster.registry.clone(), identity, names, owner, memory.map(File::from))
        .context("cannot start the registry's thread")?;
    // What the kernel remembers counts until the registry says something else.
    let mut blocks: BTreeSet<Ipv4Net> = config.block.into_iter().collect();
    if !cluster.is_local() {
        blocks.extend(network.own_blocks().await?);
    }
    let own: Vec<Ipv4Net> = blocks.iter().copied().collect();
    book.set_blocks(&own, host_address(config, &own));
    joined.has_blocks(blocks);
    Ok(joined)
}

fn datapath_text(datapath: Datapath) -> &'static str {
    match datapath {
        Datapath::Auto => "auto",
        Datapath::Direct => "direct",
        Datapath::Vxlan => "vxlan",
    }
}

/// This host's own address in the pool: the first of its lowest block. A single host needs none.
pub(crate) fn host_address(config: &Config, blocks: &[Ipv4Net]) -> Option<Ipv4Addr> {
    first_address(blocks, config.block_size).filter(|_| !config.cluster.is_local())
}

/// The address in the pool of a host with these blocks; those of subnets have none to spare.
pub(crate) fn first_address(blocks: &[Ipv4Net], block_size: u8) -> Option<Ipv4Addr> {
    blocks.iter().filter(|block| block.prefix_len() <= block_size).min().map(Ipv4Net::network)
}

/// How many addresses are free in the blocks that everybody gets addresses of.
fn common_blocks(worker: &Worker) -> Vec<(Ipv4Net, u32)> {
    let mut blocks = worker.book.free_by_block();
    blocks.retain(|(block, _)| block.prefix_len() <= worker.config.block_size);
    blocks
}

/// Waits until the registry has been read, and this host has a block, if that does not take long.
pub(crate) async fn first_look(worker: &Worker, limit: Duration) {
    if worker.config.cluster.is_local() {
        return;
    }
    worker.names_are_known(worker.cluster.views().borrow().read);
    let mut views = worker.cluster.views();
    let read = views.wait_for(|view| view.read);
    if tokio::time::timeout(limit, read).await.is_err() {
        let registry = &worker.config.cluster.registry_text;
        warn!(registry, state = ?worker.cluster.views().borrow().registry, "the registry does not answer; serving without it until it does");
        return;
    }
    let view = Arc::clone(&worker.cluster.views().borrow());
    if let Err(reason) = follow(worker, &view).await {
        warn!(%reason, "this host has no room for another container");
    }
}

/// Accepts the connections by which other hosts see that we live, and ends them.
pub(crate) async fn answer_peers(listener: std::net::TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "other hosts cannot see that this one lives"),
    };
    loop {
        if listener.accept().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Follows the cluster for ever.
pub(crate) async fn keep(worker: Arc<Worker>) {
    let mut views = worker.cluster.views();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut empty_since = HashMap::new();
    loop {
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
        }
        let view = Arc::clone(&views.borrow_and_update());
        worker.guard.hosts(host_address(&worker.config, &view.own_blocks), &view);
        // A create that finds no room tells its client.
        let _ = follow(&worker, &view).await;
        worker.routes.found(weave(&worker, &view).await);
        give_back(&worker, &mut empty_since).await;
    }
}

/// Takes in what the registry says of our blocks, and claims another one before they are full.
async fn follow(worker: &Worker, view: &View) -> Result<(), ClaimError> {
    name_hosts(worker, view);
    if view.read {
        worker.names_are_known(true);
        worker.book.set_blocks(&view.own_blocks, host_address(&worker.config, &view.own_blocks));
    }
    match view.registry == Registry::Connected && view.read && is_short(worker) {
        true => claim(worker, None).await,
        false => Ok(()),
    }
}

/// Mesos-DNS has names for the hosts of tasks.
fn name_hosts(worker: &Worker, view: &View) {
    if !worker.config.dns_style_mesos {
        return;
    }
    let peers = view.peers.iter().filter_map(|peer| Some((peer.name.as_str(), peer.info.as_ref()?.address)));
    let own = Some(("", worker.cluster.address())).filter(|(_, address)| !address.is_unspecified());
    let four = |(name, address): (&str, IpAddr)| match address {
        IpAddr::V4(address) => Some((name.into(), address)),
        IpAddr::V6(_) => None,
    };
    worker.set_hosts(peers.chain(own).filter_map(four).collect());
}

async fn weave(worker: &Worker, view: &View) -> Result<(), selvedge_netsetup::Error> {
    let Some(fabric) = fabric(worker, view) else { return Ok(()) };
    let changes = worker.network.weave(&fabric).await?;
    if changes > 0 {
        debug!(changes, peers = fabric.peers.len(), "wove the routes to other hosts");
    }
    Ok(())
}

/// What the kernel shall know of the other hosts; `None` before the registry has been read: what is there is from an
/// earlier worker then, and better than nothing.
pub(crate) fn fabric(worker: &Worker, view: &View) -> Option<Fabric> {
    let cluster = &worker.config.cluster;
    if cluster.is_local() || !view.read {
        return None;
    }
    Some(Fabric {
        underlay: worker.cluster.address(),
        own_blocks: view.own_blocks.clone(),
        host_address: host_address(&worker.config, &view.own_blocks),
        peers: view.peers.iter().filter_map(|peer| reach(peer, cluster.datapath)).collect(),
        vxlan_port: cluster.vxlan_port,
        vxlan_id: cluster.vxlan_id,
    })
}

/// A dead host keeps its routes: its blocks are nobody else's.
fn reach(peer: &PeerView, own: Datapath) -> Option<Peer> {
    let info = peer.info.as_ref()?;
    let strays = peer.strays.iter().map(|address| Ipv4Net::from(*address));
    let destinations: Vec<Ipv4Net> = peer.blocks.iter().copied().chain(strays).collect();
    // Both must go the same way, or the strict source check drops what comes back the other.
    let datapath = match (own, info.datapath.as_str()) {
        (Datapath::Vxlan, _) | (_, "vxlan") => Datapath::Vxlan,
        (Datapath::Direct, _) | (_, "direct") => Datapath::Direct,
        _ => Datapath::Auto,
    };
    (!destinations.is_empty()).then(|| Peer {
        name: peer.name.clone(),
        underlay: info.address,
        datapath,
        destinations,
    })
}

fn is_short(worker: &Worker) -> bool {
    if worker.config.cluster.is_local() {
        return false;
    }
    let blocks = common_blocks(worker);
    let free: u32 = blocks.iter().map(|(_, free)| free).sum();
    let all: u32 = blocks.iter().map(|(block, _)| size(*block)).sum();
    free <= all / SHORT
}

fn size(block: Ipv4Net) -> u32 {
    1 << (32 - u32::from(block.prefix_len()))
}

/// A block more, or a small one of a subnet, for a create that found none with room.
///
/// # Errors
/// Why there is none, for the client.
pub(crate) async fn another_block(worker: &Worker, subnet: Option<Ipv4Net>) -> Result<(), String> {
    let cluster = &worker.config.cluster;
    if let Some(subnet) = subnet {
        let told = |error| {
            format!("no address of {subnet} is free on this host, and no part of it can be claimed: {error}")
        };
        return claim(worker, Some(subnet)).await.map_err(told);
    }
    if cluster.is_local() {
        let blocks: Vec<String> = worker.config.block.iter().map(Ipv4Net::to_string).collect();
        return Err(format!("no free address is left in {}", blocks.join(", ")));
    }
    let had = common_blocks(worker).len();
    claim(worker, None).await.map_err(|error| match had {
        0 => format!(
            "this host has no block of addresses yet, and cannot claim one at {}: {error}; a start by hand is \
             possible with --block",
            cluster.registry_text
        ),
        _ => format!("no free address is left on this host, and no block can be claimed: {error}"),
    })
}

/// One at a time: many creates that find nothing want one block between them.
async fn claim(worker: &Worker, subnet: Option<Ipv4Net>) -> Result<(), ClaimError> {
    let _turn = worker.claiming.lock().await;
    let is_done = match subnet {
        None => common_blocks(worker).iter().any(|(_, free)| *free > 1) && !is_short(worker),
        Some(subnet) => worker.book.has_room_in(subnet),
    };
    if is_done {
        return Ok(());
    }
    let block = worker.cluster.claim_block(subnet).await?;
    info!(%block, "claimed a block");
    let view = Arc::clone(&worker.cluster.views().borrow());
    // The kernel remembers it before anybody gets an address of it.
    let mut blocks = view.own_blocks.clone();
    if !blocks.contains(&block) {
        blocks.push(block);
    }
    if let Err(error) = weave(worker, &View { own_blocks: blocks.clone(), ..(*view).clone() }).await {
        debug!(%error, "the kernel does not remember a block yet");
    }
    worker.book.set_blocks(&blocks, host_address(&worker.config, &blocks));
    Ok(())
}

/// Gives a block back that has been empty for a while, if the others have room.
async fn give_back(worker: &Worker, empty_since: &mut HashMap<Ipv4Net, Instant>) {
    let spare = spare_blocks(worker);
    empty_since.retain(|block, _| spare.contains(block));
    for block in &spare {
        empty_since.entry(*block).or_insert_with(Instant::now);
    }
    let due = empty_since.iter().find(|(_, since)| since.elapsed() >= EMPTY_FOR);
    let Some(block) = due.map(|(block, _)| *block) else { return };
    // Nobody may take the block in again meanwhile, from a view in which it still is.
    let _turn = worker.claiming.lock().await;
    if !spare_blocks(worker).contains(&block) {
        return;
    }
    info!(%block, "gives an empty block back");
    let mut views = worker.cluster.views();
    let kept: Vec<Ipv4Net> = views.borrow().own_blocks.iter().copied().filter(|own| *own != block).collect();
    worker.book.set_blocks(&kept, host_address(&worker.config, &kept));
    worker.cluster.give_back(block);
    let _ = views.wait_for(|view| !view.own_blocks.contains(&block)).await;
}

/// Blocks that no container needs, and without which there is still room; never the lowest, which has the host's address.
fn spare_blocks(worker: &Worker) -> Vec<Ipv4Net> {
    let blocks = common_blocks(worker);
    let lowest = blocks.iter().map(|(block, _)| *block).min();
    let free: u32 = blocks.iter().map(|(_, free)| free).sum();
    let all: u32 = blocks.iter().map(|(block, _)| size(*block)).sum();
    let is_empty = |(block, free): &&(Ipv4Net, u32)| {
        *free == size(*block) && Some(*block) != lowest && Some(*block) != worker.config.block
    };
    let is_spare = |block: &Ipv4Net| (free - size(*block)) > (all - size(*block)) / (SHORT / 2);
    let parts = worker
        .book
        .free_by_block()
        .into_iter()
        .filter(|(block, free)| block.prefix_len() > worker.config.block_size && *free == size(*block));
    let common = blocks.iter().filter(is_empty).map(|(block, _)| *block).filter(is_spare);
    common.chain(parts.map(|(block, _)| block)).collect()
}

/// A host that begins without a registry, and whose kernel has forgotten (it was restarted), knows its blocks by the
/// containers that it gave addresses of them.
pub(crate) fn remember_blocks(worker: &Worker) {
    if worker.config.cluster.is_local() || worker.cluster.views().borrow().read {
        return;
    }
    let given = worker.book.all().into_iter().filter(|(_, entry)| !entry.note.fixed);
    let size = worker.config.block_size;
    let block = |entry: &Entry| {
        let size = entry.note.subnet.map_or(size, |_| small_block_size(size));
        block_of(entry.note.address, size)
    };
    let mut blocks: BTreeSet<Ipv4Net> = given.filter_map(|(_, entry)| block(&entry)).collect();
    blocks.extend(worker.book.free_by_block().iter().map(|(block, _)| *block));
    let own: Vec<Ipv4Net> = blocks.iter().copied().collect();
    worker.book.set_blocks(&own, host_address(&worker.config, &own));
    worker.cluster.has_blocks(blocks);
}
