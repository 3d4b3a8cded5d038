//! A name's addresses. Must hold each only once.

use std::net::Ipv4Addr;

/// A name's addresses, each once. Usually there is one, which is stored inline: among 100,000 names each pointer that a
/// lookup follows costs a cache miss.
#[derive(Debug)]
pub(super) enum Addresses {
    One(Ipv4Addr),
    Several(Vec<Ipv4Addr>),
}

impl Default for Addresses {
    fn default() -> Self {
        Self::Several(vec![])
    }
}

impl Addresses {
    /// All of them.
    pub(super) fn all(&self) -> &[Ipv4Addr] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Several(addresses) => addresses,
        }
    }

    /// Adds an address, if it is not there yet.
    pub(super) fn hold(&mut self, address: Ipv4Addr) {
        match self {
            _ if self.all().contains(&address) => {}
            Self::Several(addresses) if addresses.is_empty() => *self = Self::One(address),
            Self::Several(addresses) => addresses.push(address),
            Self::One(first) => *self = Self::Several(vec![*first, address]),
        }
    }

    /// Removes an address, if it is there.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        match self {
            Self::One(held) if *held == address => *self = Self::default(),
            Self::One(_) => {}
            Self::Several(addresses) => {
                if let Some(place) = addresses.iter().position(|held| *held == address) {
                    addresses.swap_remove(place);
                }
            }
        }
    }
}
