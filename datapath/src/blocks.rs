//! The blocks of addresses that this host hands out: sees to it that there is always one with room, and gives back what
//! is empty. Must never give back a block of which a container has an address.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
pub use selvedge_cluster::claim::ClaimError;
use selvedge_cluster::claim::{block_of, small_block_size};
use selvedge_cluster::handle::Cluster;
use selvedge_cluster::view::{Registry, View};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::addresses::Addresses;
use crate::host::own_address;
use crate::routes::Routes;
use crate::settings::Settings;

/// How long a block must have been empty before it goes back.
const EMPTY_FOR: Duration = Duration::from_secs(60);
/// A block is claimed ahead when this part of all addresses is left.
const SHORT: u32 = 8;

/// This host's blocks.
#[derive(Debug)]
pub struct Blocks {
    settings: Arc<Settings>,
    addresses: Arc<Addresses>,
    cluster: Arc<Cluster>,
    routes: Arc<Routes>,
    /// Who claims a block, or gives one back; one at a time.
    turn: tokio::sync::Mutex<()>,
}

/// Blocks that have been found empty, and since when.
pub type Empty = HashMap<Ipv4Net, Instant>;

impl Blocks {
    /// Those that the addresses have been told of.
    pub fn new(
        settings: Arc<Settings>,
        addresses: Arc<Addresses>,
        cluster: Arc<Cluster>,
        routes: Arc<Routes>,
    ) -> Self {
        Self { settings, addresses, cluster, routes, turn: tokio::sync::Mutex::new(()) }
    }

    fn set(&self, blocks: &[Ipv4Net]) {
        self.addresses.set_blocks(blocks, own_address(&self.settings, blocks));
    }

    /// Those that every container may get an address of, and how many addresses are free in each.
    fn common(&self) -> Vec<(Ipv4Net, u32)> {
        let mut blocks = self.addresses.free_by_block();
        blocks.retain(|(block, _)| block.prefix_len() <= self.settings.block_size);
        blocks
    }

    fn is_short(&self) -> bool {
        let (all, free) = totals(&self.common());
        free <= all / SHORT
    }

    /// Takes in what the registry says of our blocks, and claims another one before they are full.
    ///
    /// # Errors
    /// None can be claimed; a create that finds no room tells its client.
    pub async fn follow(&self, view: &View) -> Result<(), ClaimError> {
        if view.read {
            self.set(&view.own_blocks);
        }
        match view.registry == Registry::Connected && view.read && self.is_short() {
            true => self.claim(None).await,
            false => Ok(()),
        }
    }

    /// A block more, or a small one of a subnet, for a create that found none with room.
    ///
    /// # Errors
    /// Why there is none, for the client.
    pub async fn another(&self, subnet: Option<Ipv4Net>) -> Result<(), String> {
        if let Some(subnet) = subnet {
            let told = |error| {
                format!(
                    "no address of {subnet} is free on this host, and no part of it can be claimed: {error}"
                )
            };
            return self.claim(Some(subnet)).await.map_err(told);
        }
        let had = self.common().len();
        self.claim(None).await.map_err(|error| self.why_none(had, &error))
    }

    fn why_none(&self, had: usize, error: &ClaimError) -> String {
        match had {
            _ if self.settings.is_local() => format!(
                "no free address is left in the pool {}: remove containers that are not needed (docker container prune), or \
                 give a larger --pool",
                self.settings.pool
            ),
            0 => format!(
                "this host has no block of addresses yet, and cannot claim one at {}: {error}; a start by hand is \
                 possible with --block",
                self.settings.cluster.registry_text
            ),
            _ => format!("no free address is left on this host, and no block can be claimed: {error}"),
        }
    }

    /// One at a time: many creates that find nothing want one block between them.
    async fn claim(&self, subnet: Option<Ipv4Net>) -> Result<(), ClaimError> {
        let _turn = self.turn.lock().await;
        let is_done = match subnet {
            None => self.common().iter().any(|(_, free)| *free > 1) && !self.is_short(),
            Some(subnet) => self.addresses.has_room_in(subnet),
        };
        if is_done {
            return Ok(());
        }
        let block = self.cluster.claim_block(subnet).await?;
        info!(%block, "claimed a block");
        let view = Arc::clone(&self.cluster.views().borrow());
        // The kernel remembers the block before a container gets an address of it.
        let mut blocks = view.own_blocks.clone();
        if !blocks.contains(&block) {
            blocks.push(block);
        }
        if let Err(error) = self.routes.weave(&View { own_blocks: blocks.clone(), ..(*view).clone() }).await {
            debug!(%error, "the kernel does not remember a block yet");
        }
        self.set(&blocks);
        Ok(())
    }

    /// Gives a block back that has been empty for a while, if the others have room.
    pub async fn give_back(&self, empty_since: &mut Empty) {
        let spare = self.spare();
        empty_since.retain(|block, _| spare.contains(block));
        for block in &spare {
            empty_since.entry(*block).or_insert_with(Instant::now);
        }
        let due = empty_since.iter().find(|(_, since)| since.elapsed() >= EMPTY_FOR);
        let Some(block) = due.map(|(block, _)| *block) else { return };
        // No task may take the block in again meanwhile, from a view that still has it.
        let _turn = self.turn.lock().await;
        if !self.spare().contains(&block) {
            return;
        }
        info!(%block, "gives an empty block back");
        let mut views = self.cluster.views();
        let kept: Vec<Ipv4Net> =
            views.borrow().own_blocks.iter().copied().filter(|own| *own != block).collect();
        self.set(&kept);
        self.cluster.give_back(block);
        let _ = views.wait_for(|view| !view.own_blocks.contains(&block)).await;
    }

    /// Blocks that no container needs, and without which there is still room; never the lowest, which has the host's address.
    fn spare(&self) -> Vec<Ipv4Net> {
        let blocks = self.common();
        let lowest = blocks.iter().map(|(block, _)| *block).min();
        let (all, free) = totals(&blocks);
        let is_empty = |(block, free): &&(Ipv4Net, u32)| {
            *free == size(*block) && Some(*block) != lowest && Some(*block) != self.settings.block
        };
        let is_spare = |block: &Ipv4Net| (free - size(*block)) > (all - size(*block)) / (SHORT / 2);
        let parts =
            self.addresses.free_by_block().into_iter().filter(|(block, free)| {
                block.prefix_len() > self.settings.block_size && *free == size(*block)
            });
        let common = blocks.iter().filter(is_empty).map(|(block, _)| *block).filter(is_spare);
        common.chain(parts.map(|(block, _)| block)).collect()
    }

    /// A host that has no registry, or cannot reach it and whose kernel has forgotten (it was restarted), knows its blocks by
    /// the addresses that it gave: those of the pool, and whether each is of a subnet of its own.
    pub fn remember(&self, given: impl Iterator<Item = (Ipv4Addr, bool)>) {
        if !self.settings.is_local() && self.cluster.views().borrow().read {
            return;
        }
        let size = self.settings.block_size;
        let block = |(address, of_subnet): (Ipv4Addr, bool)| {
            block_of(address, if of_subnet { small_block_size(size) } else { size })
        };
        let in_pool = given.filter(|(address, _)| self.settings.pool.contains(address));
        let mut blocks: BTreeSet<Ipv4Net> = in_pool.filter_map(block).collect();
        blocks.extend(self.addresses.free_by_block().iter().map(|(block, _)| *block));
        self.set(&blocks.iter().copied().collect::<Vec<_>>());
        self.cluster.has_blocks(blocks);
    }
}

fn size(block: Ipv4Net) -> u32 {
    1 << (32 - u32::from(block.prefix_len()))
}

/// How many addresses blocks have, and how many of them are free.
fn totals(blocks: &[(Ipv4Net, u32)]) -> (u32, u32) {
    blocks.iter().fold((0, 0), |(all, free), (block, more)| (all + size(*block), free + more))
}
