//! A table that reuses its slots, each with a generation, so that an epoll event fetched before its stream ended is
//! never mistaken for an event of the stream that now has the slot.
//!
//! It must never hand out a value for a key of an earlier generation.

/// The address of a value: its slot and the generation of that slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Generations have 24 bits: they travel inside the 64 bits of an epoll event.
const GENERATION_MASK: u32 = 0x00ff_ffff;

struct Slot<T> {
    generation: u32,
    value: Option<Box<T>>,
}

/// The table.
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Slots { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The key that the next `insert` will give.
    pub(crate) fn next_key(&self) -> Key {
        match self.free.last() {
            Some(&index) => Key { index, generation: self.slots[index as usize].generation },
            None => Key { index: self.slots.len() as u32, generation: 0 },
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        let key = self.next_key();
        let value = Some(Box::new(value));
        match self.free.pop() {
            Some(index) => self.slots[index as usize].value = value,
            None => self.slots.push(Slot { generation: 0, value }),
        }
        key
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.value.as_deref_mut()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Box<T>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_deref())
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn an_old_key_never_reaches_the_new_value() {
        let mut slots = Slots::new();
        let old = slots.insert("a");
        assert_eq!(slots.remove(old).as_deref(), Some(&"a"));
        let new = slots.insert("b");
        assert_eq!(new.index, old.index);
        assert!(slots.get_mut(old).is_none());
        assert!(slots.remove(old).is_none());
        assert_eq!(slots.get_mut(new).copied(), Some("b"));
        assert_eq!(slots.len(), 1);
    }
}
