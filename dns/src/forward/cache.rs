//! Upstream answers that may still be used, limited in number and size. It must never return one past its time without
//! saying so, or for a question that differs in anything that could change the answer.

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

/// How long an answer past its time is kept for the case that no server answers (RFC 8767 section 5: one to three days).
const STALE: Duration = Duration::from_secs(86_400);
/// How long after a lookup without result no other one is waited for (RFC 8767 section 5: at least 30 s).
const RECHECK: Duration = Duration::from_secs(30);
/// An answer that is asked for in this last part of its time is renewed before it is missed.
const LAST_PART: u32 = 10;

/// How good a kept answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// It is within its time.
    Fresh,
    /// It is, and is to be renewed: told once.
    Due,
    /// It is past its time: only for an asker that would get no other.
    Stale {
        /// The servers have been asked for a better one lately, in vain.
        in_vain: bool,
    },
}

/// A kept answer.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) received: Rc<Received>,
    /// How long it has been here.
    pub(crate) since: Duration,
    pub(crate) age: Age,
}

struct Entry {
    received: Rc<Received>,
    stored: Instant,
    expires: Instant,
    /// It has been told that it is to be renewed.
    renewed: bool,
    /// When the servers were last asked in vain.
    in_vain: Option<Instant>,
    weight: usize,
    /// Identifies this entry in the age list.
    number: u64,
}

impl Entry {
    fn age(&mut self, now: Instant) -> Age {
        if self.expires <= now {
            let in_vain = self.in_vain.is_some_and(|at| now.duration_since(at) < RECHECK);
            return Age::Stale { in_vain };
        }
        let is_due = (self.expires - now) * LAST_PART < self.expires - self.stored;
        if is_due && !std::mem::replace(&mut self.renewed, true) { Age::Due } else { Age::Fresh }
    }
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

    /// The answer to a question.
    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Option<Kept> {
        let entry = self.entries.get_mut(key)?;
        if entry.expires + STALE <= now {
            self.forget(key);
            return None;
        }
        let age = entry.age(now);
        Some(Kept { received: entry.received.clone(), since: now.duration_since(entry.stored), age })
    }

    /// The servers have been asked this question in vain.
    pub(crate) fn in_vain(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.in_vain = Some(now);
        }
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
        let (stored, expires, number) = (now, now + keep, self.number);
        let entry = Entry { received, stored, expires, renewed: false, in_vain: None, weight, number };
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
