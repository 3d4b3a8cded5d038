//! Upstream answers that may still be used, limited in number and size. It must never return one past its time, or for
//! a question that differs in anything that could change the answer.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::forward::received::Received;
use crate::query::{Query, flag};

/// Approximate size of an entry besides its message: key, maps, and the age list.
const OVERHEAD: usize = 256;

/// Everything that an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// In lower case.
    name: Box<[u8]>,
    kind: u16,
    class: u16,
    /// RD, AD and CD.
    flags: u16,
    /// Whether there is EDNS, and its DO bit.
    edns: Option<bool>,
    /// Other servers may know other answers.
    servers: Arc<[SocketAddr]>,
}

impl Key {
    pub(crate) fn new(query: &Query, servers: Arc<[SocketAddr]>) -> Self {
        Self {
            name: query.lower.wire().into(),
            kind: query.kind,
            class: query.class,
            flags: query.flags & (flag::RECURSION_DESIRED | flag::AUTHENTIC | flag::CHECKING_DISABLED),
            edns: query.edns.map(|edns| edns.dnssec_ok),
            servers,
        }
    }
}

struct Entry {
    received: Rc<Received>,
    stored: Instant,
    expires: Instant,
    weight: usize,
    /// Identifies this entry in the age list.
    number: u64,
}

/// Answers; the oldest are evicted when there are too many.
pub(crate) struct Cache {
    entries: HashMap<Key, Entry>,
    /// In order of arrival; includes some that were replaced since.
    oldest: VecDeque<(u64, Key)>,
    number: u64,
    bytes: usize,
    most_entries: usize,
    most_bytes: usize,
}

impl Cache {
    pub(crate) fn new(most_entries: usize, most_bytes: usize) -> Self {
        Self {
            entries: HashMap::new(),
            oldest: VecDeque::new(),
            number: 0,
            bytes: 0,
            most_entries,
            most_bytes,
        }
    }

    /// An answer and how long it has been here.
    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Option<(Rc<Received>, Duration)> {
        let entry = self.entries.get(key)?;
        if entry.expires <= now {
            self.forget(key);
            return None;
        }
        Some((entry.received.clone(), now.duration_since(entry.stored)))
    }

    /// Keeps an answer, if it may be kept.
    pub(crate) fn put(&mut self, key: Key, received: Rc<Received>, now: Instant) {
        let Some(keep) = received.shape.keep() else { return };
        let weight = OVERHEAD + key.name.len() + received.bytes.len() + received.shape.weight();
        self.forget(&key);
        // A very large one would evict too many others.
        if weight > self.most_bytes / 16 {
            return;
        }
        self.number += 1;
        let entry = Entry { received, stored: now, expires: now + keep, weight, number: self.number };
        self.bytes += weight;
        self.oldest.push_back((self.number, key.clone()));
        self.entries.insert(key, entry);
        // Counted on the list, so that replaced entries do not make it grow.
        while self.oldest.len() > self.most_entries || self.bytes > self.most_bytes {
            let Some((number, key)) = self.oldest.pop_front() else { return };
            if self.entries.get(&key).is_some_and(|entry| entry.number == number) {
                self.forget(&key);
            }
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests;
