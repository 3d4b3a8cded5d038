//! Claims of what only one host may have: a block of the pool, or one address.
//!
//! Each is a key that is made only if it is not there. Must never give the same thing to two: when in doubt the answer
//! is an error.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_registry::name::fnv1a;
use tokio::time::{Instant, sleep};

use crate::key::{Claim, Key, Verdict};
use crate::member::{Asked, Identity};
use crate::store::{Lifetime, StoreError, Writer};
use crate::world::{NOBODY, SPLIT, World};

/// How long a claim waits for the registry, or for another host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks whether something has changed.
const LOOK: Duration = Duration::from_millis(50);
/// So many blocks are tried: more than hosts that could want one at the same moment.
const CANDIDATES: usize = 1024;

/// Why something could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The registry does not answer.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
    /// Every block belongs to somebody.
    #[error("every block of the pool {0} belongs to a host")]
    Exhausted(Ipv4Net),
    /// Another container has the address.
    #[error("address {address} is taken by container {container} on host {host}")]
    Taken {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        container: String,
        /// Where.
        host: String,
    },
    /// The host in whose block it lies does not say whether it is free.
    #[error("address {address} lies in a block of host {host}, which does not answer")]
    Silent {
        /// The address.
        address: Ipv4Addr,
        /// Whose block it is.
        host: String,
    },
}

impl From<StoreError> for ClaimError {
    fn from(error: StoreError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// The prefix length of the blocks that a subnet of its own is handed out in: containers of one may be on all hosts.
#[must_use]
pub fn small_block_size(block_size: u8) -> u8 {
    (block_size + 4).clamp(28, 32)
}

/// Blocks that nobody has, as far as is known, from a place in the pool (or in the subnet) that is this host's own: hosts
/// that begin together then rarely want the same.
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

/// Takes the first of the candidates that is free. Those that are smaller than `block_size` lie in one of that size that
/// no host has as a whole: its key decides between the two.
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

/// Writes a block down, if nobody has it.
async fn take<W: Writer>(writer: &W, block: Ipv4Net, host: &str) -> Result<bool, StoreError> {
    let key = Key::Block(block).to_string();
    let taken = writer.create(&key, host, Lifetime::Forever).await?;
    // It is being given back just now, or whoever gave it back was interrupted.
    if !taken && writer.get(&key).await?.is_none_or(|owner| owner == NOBODY) {
        writer.delete(&key, Some(NOBODY)).await?;
        return writer.create(&key, host, Lifetime::Forever).await;
    }
    Ok(taken)
}

/// Takes one address of which `blocks` are the ones in which it may lie, the larger first. A holder that is about to let
/// go is waited for.
pub(crate) async fn address<W: Writer>(
    writer: W,
    host: String,
    blocks: [Option<Ipv4Net>; 2],
    asked: &Asked,
    until: Instant,
) -> Result<(), ClaimError> {
    let claim = Claim { host, container: asked.container.clone(), answer: Verdict::Asked };
    let key = Key::Address(asked.address).to_string();
    while !writer.create(&key, &text(&claim), Lifetime::Forever).await? {
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
    // Only now: whoever claims the block from here on sees our claim.
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

/// Waits for the word of the host that hands out the block; takes the claim back if that is no.
async fn granted<W: Writer>(
    writer: &W,
    key: &str,
    address: Ipv4Addr,
    (claim, owner): (&Claim, String),
    until: Instant,
) -> Result<(), ClaimError> {
    let mut last = text(claim);
    let refusal = loop {
        let Some(value) = writer.get(key).await? else {
            break ClaimError::Silent { address, host: owner };
        };
        let answer = serde_json::from_str::<Claim>(&value).map_or(Verdict::Asked, |claim| claim.answer);
        last = value;
        match answer {
            Verdict::Granted => return Ok(()),
            Verdict::Refused => {
                let container = "that has it already".to_owned();
                break ClaimError::Taken { address, container, host: owner };
            }
            Verdict::Asked if Instant::now() >= until => break ClaimError::Silent { address, host: owner },
            Verdict::Asked => sleep(LOOK).await,
        }
    };
    writer.delete(key, Some(&last)).await?;
    Err(refusal)
}

/// What a block's host says: an answer once given stays, but for one that was refused and asks again.
pub(crate) fn verdict(claim: &Claim, free: bool) -> Verdict {
    match (claim.answer, free) {
        (Verdict::Granted, _) | (_, true) => Verdict::Granted,
        (_, false) => Verdict::Refused,
    }
}

/// A claim as it stands in the registry.
pub(crate) fn text(claim: &Claim) -> String {
    serde_json::to_string(claim).unwrap_or_default()
}
