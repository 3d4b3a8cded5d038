//! What is counted for `selvedge status`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use selvedge_engine::route::Route;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Counts since the worker began.
#[derive(Debug, Default)]
pub struct Counters {
    connections: Arc<AtomicU64>,
    /// Those on the admin socket.
    questions: Arc<AtomicU64>,
    /// The last one of a kind has ended.
    emptied: Arc<Notify>,
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
pub struct Connection {
    open: Arc<AtomicU64>,
    emptied: Arc<Notify>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.open.fetch_sub(1, Relaxed) == 1 {
            // Of the one task that waits, also when it does not wait yet.
            self.emptied.notify_one();
        }
    }
}

impl Counters {
    /// Counts a connection until the guard is dropped.
    pub fn connection(&self) -> Connection {
        self.one_more(&self.connections)
    }

    /// Counts a question on the admin socket until the guard is dropped.
    pub fn question(&self) -> Connection {
        self.one_more(&self.questions)
    }

    fn one_more(&self, open: &Arc<AtomicU64>) -> Connection {
        open.fetch_add(1, Relaxed);
        Connection { open: Arc::clone(open), emptied: Arc::clone(&self.emptied) }
    }

    /// Ends when neither a connection nor a question is open. One task may wait for it.
    pub async fn all_ended(&self) {
        while self.open_connections() + self.open_questions() > 0 {
            self.emptied.notified().await;
        }
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn the_end_of_the_last_one_is_heard_of() {
        let counters = Counters::default();
        let (first, second) = (counters.connection(), counters.question());
        let mut ended = pin!(counters.all_ended());
        let mut waits = || ended.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(waits());
        drop(first);
        assert!(waits(), "a question is still open");
        drop(second);
        assert!(!waits());
        assert!(pin!(counters.all_ended()).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
