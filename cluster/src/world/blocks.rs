//! Who owns which part of the pool, according to the registry, and according to what it said before it was emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Peer, SPLIT, UNOWNED, World};

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
        if host == UNOWNED {
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

    /// A key was deleted. A live host gives its blocks back in another way, so this was a third party, and the host is
    /// about to write the block again.
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

    /// A host that is back has written everything it owns: it no longer has anything else that was held over for it.
    pub(super) fn end_hold_over(&mut self, host: &str) {
        let over = |block: &Ipv4Net, owner: &mut String| owner == host && self.held_over.contains(block);
        let ended: Vec<Ipv4Net> = self.blocks.extract_if(.., over).map(|(block, _)| block).collect();
        if !ended.is_empty() {
            self.held_over.retain(|block| !ended.contains(block));
            self.sort_strays(|name, _| name == host);
        }
    }

    /// The owner of the block that the address lies in.
    pub(crate) fn owner_of(&self, address: Ipv4Addr) -> Option<&str> {
        // The block that begins at or before the address is the only one that can contain it: blocks do not overlap.
        let end = Ipv4Net::new(address, 32).ok()?;
        let (block, host) = self.blocks.range(..=end).next_back()?;
        block.contains(&address).then_some(host.as_str())
    }

    /// Whether no host has any part of it.
    pub(crate) fn is_free(&self, block: Ipv4Net) -> bool {
        let within =
            self.blocks.range(block..).next().is_some_and(|(next, _)| block.contains(&next.network()));
        !within && self.owner_of(block.network()).is_none() && !self.split.contains(&block)
    }

    /// The blocks that the registry records as ours.
    pub(crate) fn own_blocks(&self) -> BTreeSet<Ipv4Net> {
        self.blocks.iter().filter(|(_, host)| **host == self.me).map(|(block, _)| *block).collect()
    }
}
