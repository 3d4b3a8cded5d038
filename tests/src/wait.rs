//! Waiting for what comes by itself, with a limit that is part of the promised behaviour or generous.

use std::time::{Duration, Instant};

/// Asks until the answer is there.
///
/// # Panics
/// When it is not there in time; `what` says what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks until it holds.
///
/// # Panics
/// When it does not hold in time.
pub fn until_true(what: &str, limit: Duration, mut ask: impl FnMut() -> bool) {
    until(what, limit, || ask().then_some(()));
}
