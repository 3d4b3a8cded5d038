//! How quickly the engine answers: up, slow, or silent. One question is under way at any time, and it goes on when the
//! command that asked has stopped waiting, so that a slow engine is told from a hung one. It must never hold a command
//! up longer than [`PATIENCE`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use selvedge_engine::client::Engine;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long `status` waits for the engine. One that needs longer is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A slow engine that owes an answer for longer is taken for hung.
const HUNG: Duration = Duration::from_secs(30);

/// What is known of the engine at a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    /// Whether it answers: in time, or late as it has been seen to do.
    pub(crate) answers: bool,
    /// How long an engine that answers late has needed last, or needs by now.
    pub(crate) late: Option<Duration>,
    /// Its last answer to `GET /version`; null before the first.
    pub(crate) version: Value,
}

/// What has been seen of the engine's answers.
#[derive(Debug, Default)]
pub(crate) struct Pulse(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The last answer, and how long it took.
    last: Option<(Value, Duration)>,
    /// The question that is under way, and when it was asked.
    asked: Option<(Instant, watch::Receiver<bool>)>,
}

impl Pulse {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the engine, and waits at most [`PATIENCE`].
    pub(crate) async fn take(self: &Arc<Self>, engine: &Engine) -> Beat {
        let (asked, mut answered) = self.question(engine);
        // An error is the end of the question: it was not answered.
        let in_time = tokio::time::timeout(PATIENCE, answered.wait_for(|answered| *answered)).await;
        let seen = self.seen();
        let version = seen.last.as_ref().map(|(version, _)| version.clone()).unwrap_or_default();
        let took = seen.last.as_ref().map(|(_, took)| *took).filter(|took| *took > PATIENCE);
        match in_time {
            Ok(Ok(_)) => Beat { answers: true, late: took, version },
            Ok(Err(_)) => Beat { answers: false, late: None, version },
            Err(_) => {
                let owed = asked.elapsed();
                let answers = took.is_some() && owed < HUNG;
                Beat { answers, late: Some(owed.max(took.unwrap_or_default())), version }
            }
        }
    }

    /// The question that is under way, else a new one.
    fn question(self: &Arc<Self>, engine: &Engine) -> (Instant, watch::Receiver<bool>) {
        let mut seen = self.seen();
        if let Some(asked) = &seen.asked {
            return asked.clone();
        }
        let (sender, receiver) = watch::channel(false);
        let asked = Instant::now();
        seen.asked = Some((asked, receiver.clone()));
        let (pulse, engine) = (Arc::clone(self), engine.clone());
        tokio::spawn(async move {
            let question = engine.get::<Value>("/version");
            let answer = tokio::time::timeout(HUNG, question).await.ok().and_then(Result::ok);
            let mut seen = pulse.seen();
            seen.asked = None;
            // An engine that gave no answer is not known to be slow any more.
            seen.last = answer.map(|version| (version, asked.elapsed()));
            if seen.last.is_some() {
                sender.send_replace(true);
            }
        });
        (asked, receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"Version\":\"4.3.1\"} ";

    /// An engine that answers each question after so many seconds of paused time, and others as good as never.
    fn engine(dir: &Path, pauses: Vec<u64>) -> Engine {
        let path = dir.join("engine.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::UnixListener::from_std(listener).expect("a runtime");
        tokio::spawn(async move {
            let mut pauses = pauses.into_iter();
            while let Ok((client, _)) = listener.accept().await {
                answer(client, &mut pauses).await;
            }
        });
        Engine::new(&path)
    }

    async fn answer(mut client: tokio::net::UnixStream, pauses: &mut impl Iterator<Item = u64>) {
        let mut head = [0; 1024];
        while client.read(&mut head).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(Duration::from_secs(pauses.next().unwrap_or(100_000))).await;
            let _ = client.write_all(ANSWER).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_engine_is_told_from_a_hung_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = engine(dir.path(), vec![0, 6, 0, 6]);
        let pulse = Arc::new(Pulse::default());
        let up = pulse.take(&engine).await;
        assert!(up.answers && up.late.is_none() && up.version["Version"] == "4.3.1");
        let first = pulse.take(&engine).await;
        assert!(!first.answers, "that it is only slow is not known yet");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let up = pulse.take(&engine).await;
        assert!(up.answers && up.late.is_none());
        let _ = pulse.take(&engine).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let late = pulse.take(&engine).await;
        assert!(late.answers && late.late.is_some_and(|late| late.as_secs() == 6), "{late:?}");
        tokio::time::sleep(Duration::from_secs(30)).await;
        let hung = pulse.take(&engine).await;
        assert!(!hung.answers && hung.version["Version"].is_null(), "{hung:?}");
    }

    #[tokio::test]
    async fn an_engine_that_is_away_does_not_answer() {
        let dir = tempfile::tempdir().expect("a directory");
        let beat = Arc::new(Pulse::default()).take(&Engine::new(&dir.path().join("nothing"))).await;
        assert!(!beat.answers && beat.late.is_none());
    }
}
