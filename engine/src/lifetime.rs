//! What was seen of the engine's own life: whether it is still the one that it was, and how containers ended.
//!
//! Nothing here is needed for long: it tells the end of a stream from the end of an engine.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::lifeline::Lifeline;

/// Whether the engine that served at some moment is the one that serves now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// It is.
    Same,
    /// It is another, or none at all.
    Another,
    /// This worker did not live yet.
    Unknown,
}

// A client asks for the code of a removed container in the same second.
const EXITS: usize = 1024;

/// The engine's life as far as it was seen.
#[derive(Debug, Default)]
pub struct Life {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When the first connection ever was made, in nanoseconds of the Unix epoch.
    first: Option<u64>,
    /// When the present one was made, and the connection.
    present: Option<(u64, Lifeline)>,
    exits: VecDeque<(String, i64)>,
}

impl Life {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that lasts as long as the engine was made.
    pub fn begins(&self, lifeline: Lifeline) {
        let mut seen = self.seen();
        let now = now();
        seen.present = Some((now, lifeline));
        seen.first.get_or_insert(now);
    }

    /// That connection broke.
    pub fn ends(&self) {
        self.seen().present = None;
    }

    /// Whether the engine of that moment (nanoseconds of the Unix epoch) is the present one. The kernel is asked: a worker that
    /// was busy, or stood still, has not noticed yet what became of its connections.
    pub fn since(&self, then: u64) -> Since {
        let seen = self.seen();
        let present = seen.present.as_ref().filter(|(_, lifeline)| !lifeline.has_ended());
        match (seen.first, present.map(|(began, _)| *began)) {
            (_, Some(present)) if present <= then => Since::Same,
            (Some(first), _) if first <= then => Since::Another,
            _ => Since::Unknown,
        }
    }

    /// A container ended with this code.
    pub fn exited(&self, id: &str, code: i64) {
        let exits = &mut self.seen().exits;
        if exits.len() >= EXITS {
            exits.pop_front();
        }
        exits.push_back((id.to_owned(), code));
    }

    /// The code with which a container ended last.
    pub fn exit_of(&self, id: &str) -> Option<i64> {
        self.seen().exits.iter().rev().find(|(known, _)| known == id).map(|(_, code)| *code)
    }
}

/// Nanoseconds of the Unix epoch.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment as the engine writes it (RFC 3339), in nanoseconds of the Unix epoch; 0 for its zero time, which is
/// what it writes for "never".
pub fn moment(text: &str) -> u64 {
    let parsed: Option<jiff::Timestamp> = text.parse().ok();
    parsed.and_then(|moment| u64::try_from(moment.as_nanosecond()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn another_engine_is_told_from_the_same() {
        let life = Life::default();
        assert_eq!(life.since(now()), Since::Unknown);
        let before = now();
        let (_engine, line) = UnixStream::pair().unwrap();
        life.begins(line.into());
        assert_eq!((life.since(before - 1), life.since(now())), (Since::Unknown, Since::Same));
        let end = now();
        life.ends();
        assert_eq!(life.since(end), Since::Another);
        let (engine, line) = UnixStream::pair().unwrap();
        life.begins(line.into());
        assert_eq!((life.since(end - 1), life.since(now())), (Since::Another, Since::Same));
        // Before anything of ours has noticed.
        drop(engine);
        assert_eq!(life.since(now()), Since::Another);
    }

    #[test]
    fn the_engines_moments_are_read() {
        assert_eq!(moment("0001-01-01T00:00:00Z"), 0);
        assert_eq!(moment("1970-01-01T00:00:01.000000002Z"), 1_000_000_002);
        assert_eq!(moment("1970-01-01T01:00:01.5+01:00"), 1_500_000_000);
        assert_eq!(moment("nonsense"), 0);
    }
}
