//! What this host has, and what must be written so that the registry says so.
//!
//! Pure: compares, never writes.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::time::Instant;
use tracing::{error, info};

use crate::change::Change;
use crate::claim;
use crate::identity::{Identity, settings};
use crate::key::{self, Claim, Key, Verdict};
use crate::store::Lifetime;
use crate::world::{SPLIT, UNOWNED, Way, World};

/// Longer than a worker takes to hear of a container that another worker has started.
const STRANGE_FOR: Duration = Duration::from_secs(2);

/// What this host has.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// By the container's id.
    pub(crate) records: HashMap<String, String>,
    /// The names of the virtual addresses that containers stand behind, by the containers' ids.
    vips: HashMap<String, Vec<String>>,
    pub(crate) blocks: BTreeSet<Ipv4Net>,
    /// Blocks that this host wants to be free.
    pub(crate) given_back: BTreeSet<Ipv4Net>,
    /// Addresses that containers asked for, each with its container.
    pub(crate) addresses: HashMap<Ipv4Addr, String>,
    /// A virtual address could not be assigned, as none was free: other hosts' containers may have ended since.
    pub(crate) lacks_vips: bool,
    /// Keys of what this host had and no longer has.
    pub(crate) ended: HashSet<Key>,
    /// Keys in the registry that are marked as ours but unknown here, and since when: from a worker that was killed, or
    /// from one beside us (during an upgrade there are two) that heard of a container a moment earlier.
    orphans: HashMap<Key, Instant>,
    /// All of the engine's containers have been seen: other records of ours in the registry are stale.
    pub(crate) settled: bool,
    /// Another worker has taken our place.
    pub(crate) left: bool,
}

impl Own {
    /// A container runs, or its names have changed.
    pub(crate) fn publish(&mut self, me: &str, id: String, text: String) {
        self.ended.remove(&record_key(me, &text));
        if let Some(old) = self.records.insert(id, text.clone()).filter(|old| *old != text) {
            self.ended.insert(record_key(me, &old));
        }
    }

    /// A container stands behind these virtual addresses.
    pub(crate) fn stand_behind(&mut self, id: &str, vips: Vec<String>) {
        match vips.is_empty() {
            true => _ = self.vips.remove(id),
            false => _ = self.vips.insert(id.to_owned(), vips),
        }
    }

    /// Whether any container stands behind a virtual address.
    pub(crate) fn has_vips(&self) -> bool {
        !self.vips.is_empty()
    }

    /// A container has ended.
    pub(crate) fn withdraw(&mut self, me: &str, id: &str) {
        self.vips.remove(id);
        if let Some(old) = self.records.remove(id) {
            self.ended.insert(record_key(me, &old));
        }
    }

    /// A container no longer needs its address.
    pub(crate) fn release_address(&mut self, address: Ipv4Addr, container: &str) {
        if self.addresses.get(&address).is_some_and(|holder| holder == container) {
            self.addresses.remove(&address);
            self.ended.insert(Key::Address(address));
        }
    }

    /// Whether there are keys that may have to be deleted eventually.
    pub(crate) fn has_orphans(&self) -> bool {
        !self.orphans.is_empty()
    }

    /// Whether to delete the key, which the registry holds as ours and which is unknown here: at once if it has ended
    /// here; else once all containers have been seen and it has stayed unknown for a while.
    fn is_over(&mut self, key: &Key, now: Instant) -> bool {
        if self.ended.contains(key) {
            return true;
        }
        if !self.settled || self.left {
            return false;
        }
        now.duration_since(*self.orphans.entry(key.clone()).or_insert(now)) >= STRANGE_FOR
    }

    /// The registry decides: what it gives to other hosts is no longer ours, and what it holds as ours is.
    pub(crate) fn yield_to(&mut self, world: &World, me: &str) {
        self.blocks.retain(|block| match world.owner_of(block.network()) {
            Some(host) if host != me => {
                error!(%block, host, "another host now owns a block of ours; announcing its addresses here one by one");
                false
            }
            _ => true,
        });
        let known = world.own_blocks();
        self.given_back.retain(|block| known.contains(block) || world.given_back.contains(block));
        let is_there = |key: &Key| match key {
            Key::Record { text, .. } => world.own.records.contains(text),
            Key::Address(address) => world.claims.contains_key(address),
            _ => false,
        };
        self.ended.retain(is_there);
        self.orphans.retain(|key, _| is_there(key));
        for block in known.difference(&self.given_back) {
            if self.blocks.insert(*block) {
                info!(%block, "the registry says that this block is ours");
            }
        }
        self.addresses.retain(|address, container| match world.claims.get(address) {
            Some(claim) if claim.host != me => {
                error!(%address, container, host = claim.host, "another host has claimed an address of ours");
                false
            }
            _ => true,
        });
    }

    /// What is missing from the registry, and what must go from it.
    pub(crate) fn difference(&mut self, world: &World, identity: &Identity, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        if world.settings.is_none() {
            let text = serde_json::to_string(&settings(identity)).unwrap_or_default();
            changes.push(Change::Create(Key::Settings, text, Lifetime::Forever));
        }
        changes.extend(host(world, identity));
        changes.extend(self.blocks(world, &identity.host));
        changes.extend(self.split(world, identity.block_size));
        changes.extend(self.claims(world, &identity.host, now));
        changes.extend(self.records(world, &identity.host, now));
        changes.extend(self.vips(world, identity));
        changes
    }

    /// The key that shows that this worker is alive.
    pub(crate) fn presence(&self, world: &World, identity: &Identity) -> Option<Change> {
        let there = world.own.instances.contains(&identity.instance);
        let key = Key::Live { host: identity.host.clone(), instance: identity.instance.clone() };
        (!there && !self.left).then(|| Change::Create(key, String::new(), Lifetime::Session))
    }

    fn blocks(&self, world: &World, me: &str) -> Vec<Change> {
        let known = world.own_blocks();
        let missing = self.blocks.difference(&known);
        let create = |block: &Ipv4Net| Change::Create(Key::Block(*block), me.to_owned(), Lifetime::Forever);
        let free = |block: &Ipv4Net| Change::Replace(Key::Block(*block), me.to_owned(), UNOWNED.to_owned());
        let delete = |block: &Ipv4Net| Change::Delete(Key::Block(*block), Some(UNOWNED.to_owned()));
        let given_back = self.given_back.intersection(&known).map(free);
        let freed = self.given_back.intersection(&world.given_back).map(delete);
        missing.map(create).chain(given_back).chain(freed).collect()
    }

    /// Keys of the usual blocks of which we have smaller parts: no host may claim them as a whole.
    fn split(&self, world: &World, block_size: u8) -> Vec<Change> {
        let small = self.blocks.iter().filter(|block| block.prefix_len() > block_size);
        let whole: BTreeSet<Ipv4Net> =
            small.filter_map(|block| claim::block_of(block.network(), block_size)).collect();
        let create =
            |block: &Ipv4Net| Change::Create(Key::Block(*block), SPLIT.to_owned(), Lifetime::Forever);
        whole
            .difference(&world.split)
            .filter(|whole| !world.blocks.contains_key(*whole))
            .map(create)
            .collect()
    }

    /// The virtual addresses that the registry does not know yet. Any host that has an instance writes them.
    fn vips(&mut self, world: &World, identity: &Identity) -> Vec<Change> {
        let Some(range) = identity.vips else { return Vec::new() };
        let names: BTreeSet<&String> = self.vips.values().flatten().collect();
        let used = OnceCell::new();
        let is_used = |name: &str| used.get_or_init(|| world.vips_in_use(identity.by_tenant)).contains(name);
        let mut without = false;
        let is_free = |address| world.owner_of(address).is_none();
        let mut change = |name: &String| match world.vips.way(name, range, &is_used, &is_free) {
            Way::Take(address) => Some(Change::Create(Key::Vip(address), name.clone(), Lifetime::Forever)),
            Way::TakeOver(address, old) => Some(Change::Replace(Key::Vip(address), old, name.clone())),
            Way::Known => None,
            Way::None => {
                without = true;
                None
            }
        };
        let changes = names.into_iter().filter_map(&mut change).collect();
        self.lacks_vips = without;
        changes
    }

    fn claims(&mut self, world: &World, me: &str, now: Instant) -> Vec<Change> {
        let missing = self.addresses.iter().filter(|(address, _)| !world.claims.contains_key(address));
        let create = |(address, container): (&Ipv4Addr, &String)| {
            let claim =
                Claim { host: me.to_owned(), container: container.clone(), answer: Verdict::default() };
            Change::Create(Key::Address(*address), claim.text(), Lifetime::Forever)
        };
        let mut changes: Vec<Change> = missing.map(create).collect();
        for (address, claim) in world.claims.iter().filter(|(_, claim)| claim.host == me) {
            let key = Key::Address(*address);
            if self.addresses.contains_key(address) {
                self.orphans.remove(&key);
            } else if self.is_over(&key, now) {
                changes.push(Change::Delete(key, Some(claim.text())));
            }
        }
        changes
    }

    /// A container whose names change always has a record: its old one goes once the new one is there. Not both at
    /// once, as etcd does not order two requests of one client.
    fn records(&mut self, world: &World, me: &str, now: Instant) -> Vec<Change> {
        let wanted: HashSet<String> = self.records.values().cloned().collect();
        let missing: Vec<&String> = wanted.iter().filter(|text| !world.own.records.contains(*text)).collect();
        let unwritten: HashSet<&str> = missing.iter().map(|text| key::record_id(text)).collect();
        let create = |text: &&String| Change::Create(record_key(me, text), String::new(), Lifetime::Forever);
        let mut changes: Vec<Change> = missing.iter().map(create).collect();
        for text in &world.own.records {
            let key = record_key(me, text);
            if wanted.contains(text) {
                self.orphans.remove(&key);
            } else if !unwritten.contains(key::record_id(text)) && self.is_over(&key, now) {
                changes.push(Change::Delete(key, None));
            }
        }
        changes
    }
}

fn record_key(me: &str, text: &str) -> Key {
    Key::Record { host: me.to_owned(), text: text.to_owned() }
}

fn host(world: &World, identity: &Identity) -> Vec<Change> {
    let mut changes = Vec::new();
    let key = Key::Host(identity.host.clone());
    let text = serde_json::to_string(&identity.info).unwrap_or_default();
    match &world.own.info {
        None => changes.push(Change::Create(key, text, Lifetime::Forever)),
        Some(old) if *old != text => changes.push(Change::Replace(key, old.clone(), text)),
        Some(_) => {}
    }
    if world.gone.contains_key(&identity.host) {
        changes.push(Change::Delete(Key::Gone(identity.host.clone()), None));
    }
    changes
}

#[cfg(test)]
mod tests {
    use selvedge_registry::record::Record;

    use super::*;
    use crate::names::Others;

    struct NoNames;

    impl Others for NoNames {
        fn put(&mut self, _: Record) {}

        fn remove(&mut self, _: &str) {}
    }

    #[test]
    fn an_old_record_stays_until_the_new_one_is_written() {
        let mut world = World::new("a", Box::new(NoNames));
        let (old, new) = ("aaaaaaaaaaaa;a=10.32.1.5;n=one", "aaaaaaaaaaaa;a=10.32.1.5;n=two");
        let mut own = Own::default();
        own.publish("a", "id".to_owned(), old.to_owned());
        world.put(&record_key("a", old), "");
        own.publish("a", "id".to_owned(), new.to_owned());
        let create = Change::Create(record_key("a", new), String::new(), Lifetime::Forever);
        assert_eq!(own.records(&world, "a", Instant::now()), [create]);
        world.put(&record_key("a", new), "");
        assert_eq!(own.records(&world, "a", Instant::now()), [Change::Delete(record_key("a", old), None)]);
    }
}
