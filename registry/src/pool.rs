//! The pool of container addresses and which of them are taken.
//!
//! A host hands out addresses next-fit, so that a freed address rests before it is given again: a client
//! that still holds an old address then meets nobody rather than a stranger. Nothing here may do I/O or
//! remember anything beyond the process: the truth is in the containers' labels.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Why an address cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// Every address of the host's blocks is taken.
    #[error("no free address is left in {}", told(.0))]
    Full(Vec<Ipv4Net>),
    /// The address asked for belongs to another container.
    #[error("address {address} is taken by container {holder}")]
    Taken {
        /// The address asked for.
        address: Ipv4Addr,
        /// Who has it: a container id, or a name while its create is under way.
        holder: String,
    },
    /// The address asked for cannot be a container's.
    #[error("address {address} is not a usable address of the pool {pool}")]
    Outside {
        /// The address asked for.
        address: Ipv4Addr,
        /// The pool it should lie in.
        pool: Ipv4Net,
    },
}

fn told(blocks: &[Ipv4Net]) -> String {
    match blocks {
        [] => "this host: it has no block of the pool yet".to_owned(),
        blocks => blocks.iter().map(Ipv4Net::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Which addresses of a pool are taken, by whom, and which is handed out next.
#[derive(Debug)]
pub struct AddressBook {
    pool: Ipv4Net,
    /// Blocks with a longer prefix are parts of subnets of their own.
    block_size: u8,
    /// In the order in which they came; the one that is handed out from is first in turn.
    blocks: Vec<Block>,
    turn: usize,
    holders: HashMap<Ipv4Addr, String>,
}

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

    /// The addresses behind the last one, and then from the beginning.
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
    /// A book of `pool` that has no block to hand addresses out of yet. `block_size`: the prefix length of those that
    /// everybody gets addresses of.
    #[must_use]
    pub fn new(pool: Ipv4Net, block_size: u8) -> Self {
        Self { pool, block_size, blocks: Vec::new(), turn: 0, holders: HashMap::new() }
    }

    /// Sets the blocks that this host hands out; addresses that are taken stay so, whatever block they are in.
    pub fn set_blocks(&mut self, blocks: &[Ipv4Net]) {
        self.blocks.retain(|block| blocks.contains(&block.net));
        for net in blocks {
            if self.blocks.iter().all(|block| block.net != *net) {
                // Next-fit goes on behind the highest address known, also after a restart of ours.
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

    /// How many addresses of each block are not taken.
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

    /// Takes the next free address of a block for `holder`: of the one that gave the last one, while it has any.
    ///
    /// # Errors
    /// [`AddressError::Full`] when there is none.
    pub fn take_next(&mut self, holder: &str) -> Result<Ipv4Addr, AddressError> {
        let size = self.block_size;
        self.next(holder, |block| block.net.prefix_len() <= size, |_| true)
    }

    /// Takes the next free address of a subnet for `holder`, from the small blocks that this host has of it.
    ///
    /// # Errors
    /// [`AddressError::Full`] when there is none.
    pub fn take_in(&mut self, subnet: Ipv4Net, holder: &str) -> Result<Ipv4Addr, AddressError> {
        let size = self.block_size;
        let is_part = |block: &Block| {
            block.net.prefix_len() > size && (subnet.contains(&block.net) || block.net.contains(&subnet))
        };
        let (first, last) = (subnet.network(), subnet.broadcast());
        let is_fit = |address: Ipv4Addr| subnet.contains(&address) && address != first && address != last;
        self.next(holder, is_part, is_fit)
    }

    fn next(
        &mut self,
        holder: &str,
        is_meant: impl Fn(&Block) -> bool,
        is_fit: impl Fn(Ipv4Addr) -> bool,
    ) -> Result<Ipv4Addr, AddressError> {
        let count = self.blocks.len();
        for turn in (0..count).map(|step| (self.turn + step) % count) {
            let is_free = |address: &Ipv4Addr| {
                self.usable(*address) && is_fit(*address) && !self.holders.contains_key(address)
            };
            let block = Some(&self.blocks[turn]).filter(|block| is_meant(block));
            if let Some(free) = block.and_then(|block| block.in_turn().find(is_free)) {
                self.turn = turn;
                self.blocks[turn].last = free;
                self.holders.insert(free, holder.to_owned());
                return Ok(free);
            }
        }
        let meant = self.blocks.iter().filter(|block| is_meant(block));
        Err(AddressError::Full(meant.map(|block| block.net).collect()))
    }

    /// Takes just this address for `holder`.
    ///
    /// # Errors
    /// [`AddressError::Outside`] or [`AddressError::Taken`].
    pub fn take(&mut self, address: Ipv4Addr, holder: &str) -> Result<(), AddressError> {
        if !self.usable(address) {
            return Err(AddressError::Outside { address, pool: self.pool });
        }
        self.note(address, holder).map_err(|holder| AddressError::Taken { address, holder })
    }

    /// Writes down what a container that exists already holds, also outside the pool: the pool may have been
    /// set anew since. Two containers with one address: the first one noted keeps it.
    ///
    /// # Errors
    /// The other holder.
    pub fn note(&mut self, address: Ipv4Addr, holder: &str) -> Result<(), String> {
        match self.holders.get(&address) {
            Some(other) if other != holder => Err(other.clone()),
            Some(_) => Ok(()),
            None => {
                // Next-fit goes on behind the highest address known, also after a restart of ours.
                for block in self.blocks.iter_mut().filter(|block| block.net.contains(&address)) {
                    block.last = block.last.max(address);
                }
                self.holders.insert(address, holder.to_owned());
                Ok(())
            }
        }
    }

    /// Goes on some addresses further: another process may have handed out the next ones a moment ago, to
    /// containers that are not written down yet.
    pub fn leap(&mut self, addresses: u32) {
        self.blocks.iter_mut().for_each(|block| block.leap(addresses));
    }

    /// Hands the address of one holder to another: a create that has learnt its container's id.
    pub fn rename(&mut self, address: Ipv4Addr, from: &str, to: &str) {
        if let Some(holder) = self.holders.get_mut(&address).filter(|holder| *holder == from) {
            to.clone_into(holder);
        }
    }

    /// Gives an address back, if `holder` is who has it.
    pub fn free(&mut self, address: Ipv4Addr, holder: &str) {
        if self.holders.get(&address).is_some_and(|other| other == holder) {
            self.holders.remove(&address);
        }
    }

    /// Who has the address.
    #[must_use]
    pub fn holder(&self, address: Ipv4Addr) -> Option<&str> {
        self.holders.get(&address).map(String::as_str)
    }

    /// How many addresses are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.holders.len()
    }

    // The first and the last address of a pool are its network and broadcast addresses by custom: some
    // programs refuse to talk to them.
    fn usable(&self, address: Ipv4Addr) -> bool {
        self.pool.contains(&address) && address != self.pool.network() && address != self.pool.broadcast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> AddressBook {
        let mut book = AddressBook::new("10.32.0.0/12".parse().unwrap(), 30);
        book.set_blocks(&["10.32.0.0/30".parse().unwrap()]);
        book
    }

    #[test]
    fn a_freed_address_rests_before_it_is_given_again() {
        let mut book = book();
        let first = book.take_next("a").unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 32, 0, 1));
        book.free(first, "a");
        assert_eq!(book.take_next("b").unwrap(), Ipv4Addr::new(10, 32, 0, 2));
        assert_eq!(book.take_next("c").unwrap(), Ipv4Addr::new(10, 32, 0, 3));
        assert_eq!(book.take_next("d").unwrap(), first);
        assert_eq!(book.take_next("e"), Err(AddressError::Full(vec!["10.32.0.0/30".parse().unwrap()])));
    }

    #[test]
    fn a_fixed_address_is_taken_once_and_only_inside_the_pool() {
        let mut book = book();
        let address = Ipv4Addr::new(10, 40, 7, 7);
        book.take(address, "a").unwrap();
        assert!(matches!(book.take(address, "b"), Err(AddressError::Taken { .. })));
        for outside in
            [Ipv4Addr::new(192, 168, 0, 1), Ipv4Addr::new(10, 32, 0, 0), Ipv4Addr::new(10, 47, 255, 255)]
        {
            assert!(matches!(book.take(outside, "c"), Err(AddressError::Outside { .. })), "{outside}");
        }
        book.free(address, "b");
        assert!(book.take(address, "c").is_err(), "only the holder gives back");
        book.free(address, "a");
        book.take(address, "c").unwrap();
    }

    #[test]
    fn a_second_block_is_used_when_the_first_is_full_and_can_go_again() {
        let (first, second) = ("10.32.0.0/30".parse().unwrap(), "10.33.0.0/30".parse().unwrap());
        let mut book = book();
        for name in ["a", "b", "c"] {
            book.take_next(name).unwrap();
        }
        book.set_blocks(&[first, second]);
        assert_eq!(book.take_next("d").unwrap(), Ipv4Addr::new(10, 33, 0, 1));
        assert_eq!(book.free_by_block(), [(first, 1), (second, 3)]);
        book.set_blocks(&[first]);
        assert!(!book.owns(Ipv4Addr::new(10, 33, 0, 1)));
        assert!(book.take(Ipv4Addr::new(10, 33, 0, 1), "e").is_err(), "who has an address keeps it");
        book.set_blocks(&[first, second]);
        book.free(Ipv4Addr::new(10, 32, 0, 1), "a");
        assert_eq!(book.take_next("f").unwrap(), Ipv4Addr::new(10, 33, 0, 2));
    }
}
