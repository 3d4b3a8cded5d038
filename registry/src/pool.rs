//! The pool of container addresses and which of them are taken.
//!
//! A host hands out addresses next-fit, so that a freed address rests before it is reused: a client that still holds an
//! old address then reaches no container rather than a stranger's. Nothing here may do I/O or remember anything beyond
//! the process: the truth is in the containers' labels.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Why an address is not available.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// Every address of the host's blocks is taken.
    #[error("no free address is left in {}", told(.0))]
    Full(Vec<Ipv4Net>),
    /// The requested address has another holder.
    #[error("address {address} is taken by {holder}")]
    Taken {
        /// The requested address.
        address: Ipv4Addr,
        /// Its holder.
        holder: Holder,
    },
    /// The requested address cannot be a container's.
    #[error("address {address} is not a usable address of the pool {pool}")]
    Outside {
        /// The requested address.
        address: Ipv4Addr,
        /// The pool that it should lie in.
        pool: Ipv4Net,
    },
}

fn told(blocks: &[Ipv4Net]) -> String {
    match blocks {
        [] => "this host: it has no block of the pool yet".to_owned(),
        blocks => blocks.iter().map(Ipv4Net::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// The holder of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// This host itself.
    Host,
    /// A container of another host, by the host's name: it asked there for an address in one of our blocks.
    Elsewhere(String),
    /// The container that the create with this number is making.
    Create(u64),
    /// A container of this host, by its id.
    Container(String),
    /// An interface of this host that is not one of our wires, by its name: the kernel routes the address to it.
    Interface(String),
}

/// How many digits of a container's id to show.
const SHORT_ID: usize = 12;

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => out.write_str("this host itself"),
            Self::Elsewhere(host) => write!(out, "a container on host {host}"),
            Self::Create(_) => out.write_str("a container that is being created"),
            Self::Container(id) => write!(out, "container {}", id.get(..SHORT_ID).unwrap_or(id)),
            Self::Interface(name) => {
                write!(out, "interface {name} of this host: the kernel routes it there")
            }
        }
    }
}

/// Which addresses of a pool are taken and by which holder, and which one is next.
#[derive(Debug)]
pub struct AddressBook {
    pool: Ipv4Net,
    /// Blocks with a longer prefix are parts of separate subnets.
    block_size: u8,
    /// In order of arrival; the current one is first in turn.
    blocks: Vec<Block>,
    turn: usize,
    holders: HashMap<Ipv4Addr, Holder>,
    /// Addresses that users fixed for containers which do not have them yet: no other container gets one.
    promised: HashMap<Ipv4Addr, BTreeSet<String>>,
}

/// The last check before an address is given: whether it can be claimed where other processes see it. Returning true
/// takes it.
pub type Claiming<'a> = &'a dyn Fn(Ipv4Addr) -> bool;

/// A part of the pool that this host hands out.
#[derive(Debug)]
struct Block {
    net: Ipv4Net,
    last: Ipv4Addr,
}

impl Block {
    fn size(&self) -> u32 {
        // A pool has at most 2^28 addresses.
        self.net.broadcast().to_bits() - self.net.network().to_bits() + 1
    }

    /// The addresses after the last one given, and then those from the beginning.
    fn in_turn(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let (first, size) = (self.net.network().to_bits(), self.size());
        let start = self.last.to_bits() - first;
        (1..=size).map(move |step| Ipv4Addr::from_bits(first + (start + step) % size))
    }

    fn leap(&mut self, addresses: u32) {
        let first = self.net.network().to_bits();
        let next = (self.last.to_bits() - first).wrapping_add(addresses) % self.size();
        self.last = Ipv4Addr::from_bits(first + next);
    }
}

impl AddressBook {
    /// A book of `pool` that has no block to hand addresses out of yet. `block_size`: the prefix length of the blocks
    /// for ordinary containers.
    #[must_use]
    pub fn new(pool: Ipv4Net, block_size: u8) -> Self {
        Self {
            pool,
            block_size,
            blocks: Vec::new(),
            turn: 0,
            holders: HashMap::new(),
            promised: HashMap::new(),
        }
    }

    /// Sets the blocks that this host hands out; taken addresses stay taken, whatever block they are in.
    pub fn set_blocks(&mut self, blocks: &[Ipv4Net]) {
        self.blocks.retain(|block| blocks.contains(&block.net));
        for net in blocks {
            if self.blocks.iter().all(|block| block.net != *net) {
                // Next-fit continues after the highest known address, also after a restart.
                let highest = self.holders.keys().filter(|address| net.contains(*address)).max();
                self.blocks.push(Block { net: *net, last: highest.copied().unwrap_or(net.network()) });
            }
        }
    }

    /// Whether the address lies in a block of this host.
    #[must_use]
    pub fn owns(&self, address: Ipv4Addr) -> bool {
        self.blocks.iter().any(|block| block.net.contains(&address))
    }

    /// How many addresses of each block are free.
    #[must_use]
    pub fn free_by_block(&self) -> Vec<(Ipv4Net, u32)> {
        let taken =
            |block: &Block| self.holders.keys().filter(|address| block.net.contains(*address)).count();
        let free =
            |block: &Block| block.size().saturating_sub(u32::try_from(taken(block)).unwrap_or(u32::MAX));
        self.blocks.iter().map(|block| (block.net, free(block))).collect()
    }

    /// The pool that all container addresses of the cluster lie in.
    #[must_use]
    pub fn pool(&self) -> Ipv4Net {
        self.pool
    }

    /// Takes the next free address for `holder`, from the same block as the last one while it has any.
    ///
    /// # Errors
    /// [`AddressError::Full`] when there is none.
    pub fn take_next(&mut self, holder: &Holder, claim: Claiming<'_>) -> Result<Ipv4Addr, AddressError> {
        let size = self.block_size;
        self.next(holder, |block| block.net.prefix_len() <= size, claim)
    }

    /// Takes the next free address of a subnet for `holder`, from the small blocks of it that this host has.
    ///
    /// # Errors
    /// [`AddressError::Full`] when there is none.
    pub fn take_in(
        &mut self,
        subnet: Ipv4Net,
        holder: &Holder,
        claim: Claiming<'_>,
    ) -> Result<Ipv4Addr, AddressError> {
        let size = self.block_size;
        let is_part = |block: &Block| {
            block.net.prefix_len() > size && (subnet.contains(&block.net) || block.net.contains(&subnet))
        };
        let (first, last) = (subnet.network(), subnet.broadcast());
        let is_fit = |address: Ipv4Addr| subnet.contains(&address) && address != first && address != last;
        self.next(holder, is_part, &|address| is_fit(address) && claim(address))
    }

    fn next(
        &mut self,
        holder: &Holder,
        is_meant: impl Fn(&Block) -> bool,
        claim: Claiming<'_>,
    ) -> Result<Ipv4Addr, AddressError> {
        let count = self.blocks.len();
        for turn in (0..count).map(|step| (self.turn + step) % count) {
            let is_free = |address: &Ipv4Addr| {
                self.usable(*address)
                    && !self.holders.contains_key(address)
                    && !self.promised.contains_key(address)
                    && claim(*address)
            };
            let block = Some(&self.blocks[turn]).filter(|block| is_meant(block));
            if let Some(free) = block.and_then(|block| block.in_turn().find(is_free)) {
                self.turn = turn;
                self.blocks[turn].last = free;
                self.holders.insert(free, holder.clone());
                return Ok(free);
            }
        }
        let meant = self.blocks.iter().filter(|block| is_meant(block));
        Err(AddressError::Full(meant.map(|block| block.net).collect()))
    }

    /// Takes exactly this address for `holder`.
    ///
    /// # Errors
    /// [`AddressError::Outside`] or [`AddressError::Taken`].
    pub fn take(&mut self, address: Ipv4Addr, holder: &Holder) -> Result<(), AddressError> {
        self.check(address)?;
        self.note(address, holder).map_err(|holder| AddressError::Taken { address, holder })
    }

    /// Records the address that an existing container already holds, even outside the pool, which may have been changed
    /// since. Of two containers with one address, the first one recorded keeps it.
    ///
    /// # Errors
    /// The other holder.
    pub fn note(&mut self, address: Ipv4Addr, holder: &Holder) -> Result<(), Holder> {
        match self.holders.get(&address) {
            Some(other) if other != holder => Err(other.clone()),
            Some(_) => Ok(()),
            None => {
                // Next-fit continues after the highest known address, also after a restart.
                for block in self.blocks.iter_mut().filter(|block| block.net.contains(&address)) {
                    block.last = block.last.max(address);
                }
                self.holders.insert(address, holder.clone());
                Ok(())
            }
        }
    }

    /// Skips some addresses: another process may have just handed out the next ones, to containers that are not
    /// recorded yet.
    pub fn leap(&mut self, addresses: u32) {
        self.blocks.iter_mut().for_each(|block| block.leap(addresses));
    }

    /// Transfers an address from one holder to another: a create has learnt its container's id.
    pub fn rename(&mut self, address: Ipv4Addr, from: &Holder, to: Holder) {
        if let Some(holder) = self.holders.get_mut(&address).filter(|holder| *holder == from) {
            *holder = to;
        }
    }

    /// Reserves an address for a container that will ask for it when it starts, so that no other gets it by chance.
    pub fn promise(&mut self, address: Ipv4Addr, container: &str) {
        self.promised.entry(address).or_default().insert(container.to_owned());
    }

    /// Drops the reservation of a container that is gone.
    pub fn forget_promise(&mut self, address: Ipv4Addr, container: &str) {
        if let Some(containers) = self.promised.get_mut(&address) {
            containers.remove(container);
            if containers.is_empty() {
                self.promised.remove(&address);
            }
        }
    }

    /// Checks that this can be a container's address at all.
    ///
    /// # Errors
    /// [`AddressError::Outside`].
    pub fn check(&self, address: Ipv4Addr) -> Result<(), AddressError> {
        match self.usable(address) {
            true => Ok(()),
            false => Err(AddressError::Outside { address, pool: self.pool }),
        }
    }

    /// Frees an address, if `holder` is its holder.
    pub fn free(&mut self, address: Ipv4Addr, holder: &Holder) {
        if self.holders.get(&address).is_some_and(|other| other == holder) {
            self.holders.remove(&address);
        }
    }

    /// The holder of the address.
    #[must_use]
    pub fn holder(&self, address: Ipv4Addr) -> Option<&Holder> {
        self.holders.get(&address)
    }

    /// The addresses that the kernel routes to interfaces other than our wires.
    #[must_use]
    pub fn interfaces(&self) -> Vec<(Ipv4Addr, Holder)> {
        let foreign = self.holders.iter().filter(|(_, holder)| matches!(holder, Holder::Interface(_)));
        foreign.map(|(address, holder)| (*address, holder.clone())).collect()
    }

    /// How many addresses are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.holders.len()
    }

    // By custom the first and the last address of a pool are its network and broadcast addresses: some programs refuse
    // to talk to them.
    fn usable(&self, address: Ipv4Addr) -> bool {
        self.pool.contains(&address) && address != self.pool.network() && address != self.pool.broadcast()
    }
}

#[cfg(test)]
mod tests;
