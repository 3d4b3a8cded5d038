//! A table that knows which of its entries have changed since they were last recorded.
//!
//! It must never give out an entry to be changed without marking it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// The table. It can be read as the map that it is.
pub(crate) struct Kept<V> {
    map: BTreeMap<u64, V>,
    changed: BTreeSet<u64>,
}

impl<V> Default for Kept<V> {
    fn default() -> Kept<V> {
        Kept { map: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<V> Deref for Kept<V> {
    type Target = BTreeMap<u64, V>;

    fn deref(&self) -> &BTreeMap<u64, V> {
        &self.map
    }
}

impl<V> Kept<V> {
    pub(crate) fn insert(&mut self, key: u64, value: V) -> Option<V> {
        self.changed.insert(key);
        self.map.insert(key, value)
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        let value = self.map.remove(&key)?;
        self.changed.insert(key);
        Some(value)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let value = self.map.get_mut(&key)?;
        self.changed.insert(key);
        Some(value)
    }

    /// The entry, to be changed; made if there is none.
    pub(crate) fn or_default(&mut self, key: u64) -> &mut V
    where
        V: Default,
    {
        self.changed.insert(key);
        self.map.entry(key).or_default()
    }

    /// Those that match, to be changed.
    pub(crate) fn matching(&mut self, matches: impl Fn(&V) -> bool) -> impl Iterator<Item = (u64, &mut V)> {
        let found = self.map.iter_mut().filter(move |(_, value)| matches(value));
        found.map(|(key, value)| {
            self.changed.insert(*key);
            (*key, value)
        })
    }

    /// What changed since the last call; none for an entry that is gone.
    pub(crate) fn changes(&mut self) -> impl Iterator<Item = (u64, Option<&V>)> {
        let map = &self.map;
        std::mem::take(&mut self.changed).into_iter().map(|key| (key, map.get(&key)))
    }
}
