//! What is counted for `selvedge status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::route::Route;

/// Counts since the worker began.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    connections: Arc<AtomicU64>,
    short: AtomicU64,
    streams: AtomicU64,
    rewritten: AtomicU64,
    serial: AtomicU64,
}

/// A moment's counts.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    /// Client connections that the worker holds now.
    connections: u64,
    /// Requests relayed with keep-alive.
    short: u64,
    /// Requests handed to the keeper.
    streams: u64,
    /// Requests read and changed.
    rewritten: u64,
}

/// Counts a connection while it lives.
#[derive(Debug)]
pub(crate) struct Connection(Arc<AtomicU64>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Counters {
    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection(&self) -> Connection {
        self.connections.fetch_add(1, Relaxed);
        Connection(Arc::clone(&self.connections))
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Counts a request.
    pub(crate) fn request(&self, route: &Route) {
        let counter = match route {
            Route::Short => &self.short,
            Route::Stream => &self.streams,
            _ => &self.rewritten,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// A number that no other call gets.
    pub(crate) fn next(&self) -> u64 {
        self.serial.fetch_add(1, Relaxed)
    }

    /// The counts of this moment.
    pub(crate) fn now(&self) -> Counts {
        Counts {
            connections: self.connections.load(Relaxed),
            short: self.short.load(Relaxed),
            streams: self.streams.load(Relaxed),
            rewritten: self.rewritten.load(Relaxed),
        }
    }
}
