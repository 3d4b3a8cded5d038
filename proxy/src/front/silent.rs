//! Clients that have asked for nothing yet, or have sent half a head: the first to go when descriptors run out.
//!
//! It must never end one whose request is under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Notify;

/// Those that wait, in the order in which they began to.
#[derive(Debug, Default)]
pub(crate) struct Silent(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    clients: BTreeMap<u64, Arc<Notify>>,
}

/// One that waits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    all: &'a Silent,
    number: u64,
    ended: Arc<Notify>,
}

impl Silent {
    /// Notes a client that begins to wait.
    pub(crate) fn wait(&self) -> Client<'_> {
        let mut waiting = self.waiting();
        let (number, ended) = (waiting.next, Arc::new(Notify::new()));
        waiting.next += 1;
        waiting.clients.insert(number, Arc::clone(&ended));
        Client { all: self, number, ended }
    }

    /// Ends the one that has waited longest. Whether there was one.
    pub(crate) fn end_oldest(&self) -> bool {
        let oldest = self.waiting().clients.pop_first();
        oldest.map(|(_, ended)| ended.notify_one()).is_some()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client<'_> {
    /// Comes back when its place is needed.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.all.waiting().clients.remove(&self.number);
    }
}

/// Descriptors that stay free for connections to the engine, and for all else that a request needs.
const RESERVE: u64 = 64;

/// Whether so many clients leave too few descriptors for those that ask for something.
pub(crate) fn is_crowded(clients: u64) -> bool {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(now, _)| now);
    clients + RESERVE.min(limit / 4) >= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_first_and_who_has_asked_stays() {
        let silent = Silent::default();
        let (first, second) = (silent.wait(), silent.wait());
        drop(first);
        let third = silent.wait();
        assert!(silent.end_oldest());
        second.ended().await;
        assert!(silent.end_oldest());
        third.ended().await;
        assert!(!silent.end_oldest());
    }
}
