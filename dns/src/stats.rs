//! Counters of questions and answers. They must never hold names or addresses: those are the users' own.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        // Counters are read for display only and order nothing.
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) udp_queries: Counter,
    pub(crate) tcp_queries: Counter,
    pub(crate) local: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) joined: Counter,
    pub(crate) cache_hits: Counter,
    pub(crate) stale: Counter,
    pub(crate) refused: Counter,
    pub(crate) malformed: Counter,
    pub(crate) servfail: Counter,
    pub(crate) overload: Counter,
    pub(crate) unsent: Counter,
}

/// The queries since the start of this server, by their outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Datagrams read.
    pub udp_queries: u64,
    /// Queries read from TCP connections.
    pub tcp_queries: u64,
    /// Answered from the table, "no such name" included.
    pub local: u64,
    /// Forwarded to upstreams.
    pub forwarded: u64,
    /// Waited for the same question of another asker.
    pub joined: u64,
    /// Answered from the cache of upstream answers.
    pub cache_hits: u64,
    /// Answered from it past the answer's time, as no upstream answered.
    pub stale: u64,
    /// Answered with REFUSED or NOTIMP.
    pub refused: u64,
    /// Not a readable query: answered with FORMERR or BADVERS, or not at all.
    pub malformed: u64,
    /// Answered with a SERVFAIL of ours, because no upstream answered, or because the table lacks the name and is still
    /// incomplete.
    pub servfail: u64,
    /// Answered with SERVFAIL because too many queries were under way, or a connection that was turned away.
    pub overload: u64,
    /// Answers that the kernel did not take.
    pub unsent: u64,
}

impl Stats {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            udp_queries: self.udp_queries.get(),
            tcp_queries: self.tcp_queries.get(),
            local: self.local.get(),
            forwarded: self.forwarded.get(),
            joined: self.joined.get(),
            cache_hits: self.cache_hits.get(),
            stale: self.stale.get(),
            refused: self.refused.get(),
            malformed: self.malformed.get(),
            servfail: self.servfail.get(),
            overload: self.overload.get(),
            unsent: self.unsent.get(),
        }
    }
}
