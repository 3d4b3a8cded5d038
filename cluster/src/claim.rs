//! Claims of things that only one host may have: a block of the pool, or one address.
//!
//! Each claim is a key that is created only if it is absent. Must never give the same thing to two hosts: when in doubt
//! it returns an error.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_registry::name::fnv1a;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::identity::Identity;
use crate::key::{Claim, Key, Verdict};
use crate::store::{Lifetime, StoreError, Writer};
use crate::world::{SPLIT, UNOWNED, World};

/// How long a claim waits for the registry, or for another host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// How often to check for changes while a claim waits.
const LOOK: Duration = Duration::from_millis(50);
/// How many blocks to try: more than there are hosts that could want one at the same moment.
const CANDIDATES: usize = 1024;

/// Why a claim failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The registry does not answer.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
    /// Every block belongs to a host.
    #[error("every block of the pool {0} belongs to a host")]
    Exhausted(Ipv4Net),
    /// Another container has the address.
    #[error("address {address} is taken by container {container} on host {host}")]
    Taken {
        /// The address.
        address: Ipv4Addr,
        /// The container that has it.
        container: String,
        /// Its host.
        host: String,
    },
    /// The host that owns the block did not say whether the address is free.
    #[error("address {address} lies in a block of host {host}, which does not answer")]
    Silent {
        /// The address.
        address: Ipv4Addr,
        /// The owner of the block.
        host: String,
    },
}

/// An address that a container wants.
pub(crate) struct Asked {
    pub(crate) address: Ipv4Addr,
    pub(crate) container: String,
    pub(crate) reply: oneshot::Sender<Result<(), ClaimError>>,
}

impl From<StoreError> for ClaimError {
    fn from(error: StoreError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// The prefix length of the blocks of a separate subnet: small, so that its containers may be on all hosts.
#[must_use]
pub fn small_block_size(block_size: u8) -> u8 {
    (block_size + 4).clamp(28, 32)
}

/// Blocks that are free as far as we know, starting at this host's own place in the pool (or the subnet): so hosts that
/// start together rarely want the same one.
pub(crate) fn free_blocks(identity: &Identity, world: &World, subnet: Option<Ipv4Net>) -> Vec<Ipv4Net> {
    let length = subnet.map_or(identity.block_size, |_| small_block_size(identity.block_size));
    let pool = subnet.unwrap_or(identity.pool);
    let bits = u32::from(length.saturating_sub(pool.prefix_len()));
    let count = 1_u64 << bits;
    let first = if identity.alone { 0 } else { u64::from(fnv1a(identity.host.as_bytes())) % count };
    let size = 1_u64 << (32 - u32::from(length));
    let nth = |index: u64| {
        let network = u64::from(pool.network().to_bits()) + ((first + index) % count) * size;
        Ipv4Net::new(Ipv4Addr::from_bits(u32::try_from(network).ok()?), length)
            .ok()
            .map(|block| block.trunc())
    };
    let virtual_ = |block: &Ipv4Net| identity.vips.is_some_and(|vips| vips.contains(&block.network()));
    let free = |block: &Ipv4Net| !virtual_(block) && world.is_free(*block);
    (0..count).filter_map(nth).filter(free).take(CANDIDATES).collect()
}

/// The block in which an address would lie.
#[must_use]
pub fn block_of(address: Ipv4Addr, block_size: u8) -> Option<Ipv4Net> {
    Ipv4Net::new(address, block_size).ok().map(|block| block.trunc())
}

/// Claims the first free candidate. Candidates smaller than `block_size` lie in a block of that size which no host owns
/// as a whole: the key of that block decides between the two uses.
pub(crate) async fn block<W: Writer>(
    writer: W,
    host: &str,
    (pool, block_size): (Ipv4Net, u8),
    candidates: Vec<Ipv4Net>,
) -> Result<Ipv4Net, ClaimError> {
    for block in candidates {
        let whole =
            block_of(block.network(), block_size).filter(|whole| whole.prefix_len() < block.prefix_len());
        if let Some(whole) = whole
            && !take(&writer, whole, SPLIT).await?
            && writer.get(&Key::Block(whole).to_string()).await?.as_deref() != Some(SPLIT)
        {
            continue;
        }
        if take(&writer, block, host).await? {
            return Ok(block);
        }
    }
    Err(ClaimError::Exhausted(pool))
}

/// Claims a block in the registry, unless a host has it.
async fn take<W: Writer>(writer: &W, block: Ipv4Net, host: &str) -> Result<bool, StoreError> {
    let key = Key::Block(block).to_string();
    let taken = writer.create(&key, host, Lifetime::Forever).await?;
    // It is being given back right now, or the host that gave it back was interrupted.
    if !taken && writer.get(&key).await?.is_none_or(|owner| owner == UNOWNED) {
        writer.delete(&key, Some(UNOWNED)).await?;
        return writer.create(&key, host, Lifetime::Forever).await;
    }
    Ok(taken)
}

/// Claims one address; `blocks` are the blocks that it may lie in, the larger one first. Waits for a holder that is
/// about to release it.
pub(crate) async fn address<W: Writer>(
    writer: W,
    host: String,
    blocks: [Option<Ipv4Net>; 2],
    asked: &Asked,
    until: Instant,
) -> Result<(), ClaimError> {
    let claim = Claim { host, container: asked.container.clone(), answer: Verdict::Asked };
    let key = Key::Address(asked.address).to_string();
    while !writer.create(&key, &claim.text(), Lifetime::Forever).await? {
        let holder: Option<Claim> =
            writer.get(&key).await?.and_then(|value| serde_json::from_str(&value).ok());
        match holder {
            Some(holder) if holder.host == claim.host => return Ok(()),
            Some(holder) if Instant::now() >= until => {
                let (container, host) = (holder.container, holder.host);
                return Err(ClaimError::Taken { address: asked.address, container, host });
            }
            _ => sleep(LOOK).await,
        }
    }
    // Only now: a host that claims the block from here on sees our claim.
    let mut owner = None;
    for block in blocks.into_iter().flatten() {
        owner = writer.get(&Key::Block(block).to_string()).await?;
        if owner.as_deref() != Some(SPLIT) {
            break;
        }
    }
    match owner {
        Some(owner) if owner != claim.host => {
            granted(&writer, &key, asked.address, (&claim, owner), until).await
        }
        _ => Ok(()),
    }
}

/// Waits for the verdict of the block's owner; withdraws the claim if the verdict is no.
async fn granted<W: Writer>(
    writer: &W,
    key: &str,
    address: Ipv4Addr,
    (claim, owner): (&Claim, String),
    until: Instant,
) -> Result<(), ClaimError> {
    let mut last = claim.text();
    let refusal = loop {
        let Some(value) = writer.get(key).await? else {
            break ClaimError::Silent { address, host: owner };
        };
        let answer = serde_json::from_str::<Claim>(&value).map_or(Verdict::Asked, |claim| claim.answer);
        last = value;
        match answer {
            Verdict::Granted => return Ok(()),
            Verdict::Refused => {
                let container = "that already has it".to_owned();
                break ClaimError::Taken { address, container, host: owner };
            }
            Verdict::Asked if Instant::now() >= until => break ClaimError::Silent { address, host: owner },
            Verdict::Asked => sleep(LOOK).await,
        }
    };
    writer.delete(key, Some(&last)).await?;
    Err(refusal)
}

/// The verdict of a block's owner: once given it stays, unless it was a refusal and the host asks again.
pub(crate) fn verdict(claim: &Claim, free: bool) -> Verdict {
    match (claim.answer, free) {
        (Verdict::Granted, _) | (_, true) => Verdict::Granted,
        (_, false) => Verdict::Refused,
    }
}
