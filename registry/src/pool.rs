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
    /// Every address of the block is taken.
    #[error("no free address is left in {0}")]
    Full(Ipv4Net),
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

/// Which addresses of a pool are taken, by whom, and which is handed out next.
#[derive(Debug)]
pub struct AddressBook {
    pool: Ipv4Net,
    block: Ipv4Net,
    holders: HashMap<Ipv4Addr, String>,
    last: Ipv4Addr,
}

impl AddressBook {
    /// A book of `pool` that hands out addresses of `block`, which should lie within the pool.
    #[must_use]
    pub fn new(pool: Ipv4Net, block: Ipv4Net) -> Self {
        Self { pool, block, holders: HashMap::new(), last: block.network() }
    }

    /// The pool that all container addresses of the cluster lie in.
    #[must_use]
    pub fn pool(&self) -> Ipv4Net {
        self.pool
    }

    /// Takes the next free address of the block for `holder`.
    ///
    /// # Errors
    /// [`AddressError::Full`] when there is none.
    pub fn take_next(&mut self, holder: &str) -> Result<Ipv4Addr, AddressError> {
        let size = self.block.broadcast().to_bits() - self.block.network().to_bits() + 1;
        let start = self.last.to_bits() - self.block.network().to_bits();
        let free = (1..=size)
            .map(|step| Ipv4Addr::from_bits(self.block.network().to_bits() + (start + step) % size))
            .find(|address| self.usable(*address) && !self.holders.contains_key(address))
            .ok_or(AddressError::Full(self.block))?;
        self.last = free;
        self.holders.insert(free, holder.to_owned());
        Ok(free)
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
                if self.block.contains(&address) && address > self.last {
                    self.last = address;
                }
                self.holders.insert(address, holder.to_owned());
                Ok(())
            }
        }
    }

    /// Goes on some addresses further: another process may have handed out the next ones a moment ago, to
    /// containers that are not written down yet.
    pub fn leap(&mut self, addresses: u32) {
        let size = self.block.broadcast().to_bits() - self.block.network().to_bits() + 1;
        let next = (self.last.to_bits() - self.block.network().to_bits()).wrapping_add(addresses) % size;
        self.last = Ipv4Addr::from_bits(self.block.network().to_bits() + next);
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
        AddressBook::new("10.32.0.0/12".parse().unwrap(), "10.32.0.0/30".parse().unwrap())
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
        assert_eq!(book.take_next("e"), Err(AddressError::Full("10.32.0.0/30".parse().unwrap())));
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
}
