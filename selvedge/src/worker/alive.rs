//! Ends a worker whose DNS hangs, so that the keeper starts another. The thread that serves clients is watched by the keeper.
//!
//! It must never read a clock: a host that was suspended, or had no CPU for us, had none for the other thread either.

use std::time::Duration;

use tokio::sync::oneshot;
use tracing::error;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Ends with the number of looks after which a question to the DNS thread had no answer, `limit` in all; never while it
/// answers. `ping` gives none where there is no DNS (any more).
pub(super) async fn hangs(limit: Duration, ping: impl Fn() -> Option<oneshot::Receiver<()>>) -> u32 {
    let most = u32::try_from(limit.as_millis() / LOOK.as_millis()).unwrap_or(u32::MAX).max(1);
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(mut pong) = ping() else { continue };
        let mut looks = 0;
        while matches!(pong.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            if looks == most {
                return looks;
            }
            tokio::time::sleep(LOOK).await;
            looks += 1;
        }
    }
}

/// Watches until the DNS thread hangs, and ends the process then.
pub(super) async fn watch(limit: Duration, ping: impl Fn() -> Option<oneshot::Receiver<()>>) {
    hangs(limit, ping).await;
    error!(?limit, "the DNS thread has not answered: this worker ends, another takes its place");
    // Not an orderly end, which would wait for that thread. What clients have asked for is on record.
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_answers_late_is_left_alone_and_one_that_owes_an_answer_is_not() {
        let owed = Mutex::new(Vec::new());
        let ping = || {
            let (pong, answer) = oneshot::channel();
            owed.lock().unwrap().push(pong);
            Some(answer)
        };
        let mut watched = Box::pin(hangs(LIMIT, ping));
        for _ in 0..10 {
            assert!(timeout(LIMIT - LOOK, &mut watched).await.is_err());
            owed.lock().unwrap().drain(..).for_each(|pong| pong.send(()).unwrap());
        }
        let began = Instant::now();
        watched.await;
        assert!(began.elapsed() <= LIMIT + 2 * LOOK, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_dns_none_is_waited_for() {
        assert!(timeout(10 * LIMIT, hangs(LIMIT, || None)).await.is_err());
        // Its end is told by who joins it.
        let ended = || Some(oneshot::channel().1);
        assert!(timeout(10 * LIMIT, hangs(LIMIT, ended)).await.is_err());
    }
}
