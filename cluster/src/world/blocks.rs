//! Who hands out which part of the pool, as the registry says, and as it said before it was emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{NOBODY, Peer, SPLIT, World};

impl World {
    pub(super) fn hold_over(&mut self, blocks: BTreeMap<Ipv4Net, String>) {
        for (block, host) in blocks {
            let back = host == self.me || self.peers.get(&host).is_some_and(Peer::is_live);
            if !back && !self.blocks.keys().any(|other| other.contains(&block) || block.contains(other)) {
                self.blocks.insert(block, host);
                self.held_over.insert(block);
            }
        }
    }

    pub(super) fn put_block(&mut self, block: Ipv4Net, host: &str) {
        self.held_over.remove(&block);
        if host == SPLIT {
            self.split.insert(block);
            return;
        }
        if host == NOBODY {
            self.given_back.insert(block);
            self.free_block(block);
            return;
        }
        self.given_back.remove(&block);
        let overlaps = |other: &Ipv4Net| block.contains(other) || other.contains(&block);
        let former: Vec<String> =
            self.blocks.extract_if(.., |other, _| overlaps(other)).map(|(_, host)| host).collect();
        self.blocks.insert(block, host.to_owned());
        self.sort_strays(|name, peer| {
            name == host || peer.has_strays() || former.iter().any(|former| former == name)
        });
    }

    /// A key was deleted. A host that lives gives its blocks back by another way: this was somebody else, and the host is
    /// about to write the block down again.
    pub(super) fn remove_block(&mut self, block: Ipv4Net) {
        self.given_back.remove(&block);
        if self.split.remove(&block) {
            return;
        }
        let owner = self.blocks.get(&block);
        if owner.is_some_and(|owner| self.peers.get(owner).is_some_and(Peer::is_alive)) {
            self.held_over.insert(block);
        } else {
            self.free_block(block);
        }
    }

    fn free_block(&mut self, block: Ipv4Net) {
        let former = self.blocks.remove(&block);
        self.sort_strays(|name, _| former.as_deref() == Some(name));
    }

    /// A host that is back has written down all that is its own: what was held over for it beyond that, it has not.
    pub(super) fn end_hold_over(&mut self, host: &str) {
        let over = |block: &Ipv4Net, owner: &mut String| owner == host && self.held_over.contains(block);
        let ended: Vec<Ipv4Net> = self.blocks.extract_if(.., over).map(|(block, _)| block).collect();
        if !ended.is_empty() {
            self.held_over.retain(|block| !ended.contains(block));
            self.sort_strays(|name, _| name == host);
        }
    }

    /// Who hands out the block in which the address lies.
    pub(crate) fn owner_of(&self, address: Ipv4Addr) -> Option<&str> {
        // The block that begins at or before the address is the only one that can hold it: none overlap.
        let end = Ipv4Net::new(address, 32).ok()?;
        let (block, host) = self.blocks.range(..=end).next_back()?;
        block.contains(&address).then_some(host.as_str())
    }

    /// Whether nobody has any part of it.
    pub(crate) fn is_free(&self, block: Ipv4Net) -> bool {
        let within =
            self.blocks.range(block..).next().is_some_and(|(next, _)| block.contains(&next.network()));
        !within && self.owner_of(block.network()).is_none() && !self.split.contains(&block)
    }

    /// The blocks that are written down as ours.
    pub(crate) fn own_blocks(&self) -> BTreeSet<Ipv4Net> {
        self.blocks.iter().filter(|(_, host)| **host == self.me).map(|(block, _)| *block).collect()
    }
}
