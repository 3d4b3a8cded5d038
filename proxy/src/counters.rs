//! What is counted for `selvedge status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use selvedge_engine::route::Route;
use serde::{Deserialize, Serialize};

/// Counts since the worker began.
#[derive(Debug, Default)]
pub struct Counters {
    connections: Arc<AtomicU64>,
    /// Those on the admin socket.
    questions: Arc<AtomicU64>,
    short: AtomicU64,
    streams: AtomicU64,
    rewritten: AtomicU64,
}

/// A moment's counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Client connections that the worker holds now.
    pub connections: u64,
    /// Requests relayed with keep-alive.
    pub short: u64,
    /// Requests handed to the keeper.
    pub streams: u64,
    /// Requests read and changed.
    pub rewritten: u64,
}

/// Counts a connection while it lives.
#[derive(Debug)]
pub struct Connection(Arc<AtomicU64>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Counters {
    /// Counts a connection until the guard is dropped.
    pub fn connection(&self) -> Connection {
        self.connections.fetch_add(1, Relaxed);
        Connection(Arc::clone(&self.connections))
    }

    /// Counts a question on the admin socket until the guard is dropped.
    pub fn question(&self) -> Connection {
        self.questions.fetch_add(1, Relaxed);
        Connection(Arc::clone(&self.questions))
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Questions on the admin socket that are not answered yet.
    pub fn open_questions(&self) -> u64 {
        self.questions.load(Relaxed)
    }

    /// Counts a request.
    pub fn request(&self, route: &Route) {
        let counter = match route {
            Route::Short => &self.short,
            Route::Stream => &self.streams,
            _ => &self.rewritten,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// The counts of this moment.
    pub fn now(&self) -> Counts {
        Counts {
            connections: self.connections.load(Relaxed),
            short: self.short.load(Relaxed),
            streams: self.streams.load(Relaxed),
            rewritten: self.rewritten.load(Relaxed),
        }
    }
}
