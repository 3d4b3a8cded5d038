//! Requests that change something and are kept whatever happens: create, start and restart.
//!
//! Until such a request is answered, the keeper has the client and a note of what was asked. A worker that dies in the
//! middle is followed by one that looks how far it came, and answers. An engine that breaks off is asked again when it
//! is back. It must never do twice what may be done once: who asks again looks first (`rewrite::Asked`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tracing::{info, warn};

use super::connection;
use super::head::{self, RequestHead};
use super::message::{Answer, Buffered, away};
use crate::docker::error::Refusal;
use crate::docker::life;
use crate::rewrite::{self, Asked, Request};
use crate::route::{self, Endpoint, Route};
use crate::worker::Worker;

/// What the next worker needs to know of such a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Promise {
    /// As the client wrote it.
    head: String,
    body: String,
    /// What came behind it.
    unread: Vec<u8>,
    /// The socket that the client came in by.
    listener: String,
    asked: Asked,
}

/// A request, read whole.
#[derive(Debug, Clone)]
pub(super) struct Whole {
    pub(super) head: RequestHead,
    pub(super) bytes: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) endpoint: Endpoint,
}

/// Performs a rewritten request for a client that stays with us meanwhile.
pub(super) async fn perform(worker: &Arc<Worker>, client: &Buffered, whole: Whole, listener: &str) -> Answer {
    let asked = Asked { when: life::now(), again: false };
    let parked = is_kept(&whole.endpoint).then(|| park(worker, client, (&whole, asked), listener)).flatten();
    let answer = in_a_task(worker, whole, asked).await;
    if let Some(id) = parked {
        // Before the answer is written: a worker that dies right here leaves its client without one, which is
        // better than with two.
        worker.keeper.unpark(id).await;
    }
    answer
}

fn is_kept(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Create | Endpoint::Start(_) | Endpoint::Restart(_))
}

/// Not every request can be kept: a body too large for a note is not. It is served all the same.
fn park(worker: &Worker, client: &Buffered, (whole, asked): (&Whole, Asked), listener: &str) -> Option<u64> {
    let promise = Promise {
        head: String::from_utf8(whole.bytes.clone()).ok()?,
        body: String::from_utf8(whole.body.clone()).ok()?,
        unread: client.unread.clone(),
        listener: listener.to_owned(),
        asked,
    };
    worker.keeper.park(client.io.as_fd(), &serde_json::to_vec(&promise).ok()?)
}

/// Lets the keeper have the client of a request of which nothing has been done yet.
pub(super) fn hold(worker: &Worker, client: &Buffered, head: &RequestHead, listener: &str) -> Option<u64> {
    let (head, unread) = client.unread.split_at_checked(head.len)?;
    let promise = Promise {
        head: String::from_utf8(head.to_vec()).ok()?,
        body: String::new(),
        unread: unread.to_vec(),
        listener: listener.to_owned(),
        asked: Asked { when: life::now(), again: false },
    };
    worker.keeper.park(client.io.as_fd(), &serde_json::to_vec(&promise).ok()?)
}

/// A task of its own: a client that goes away in the middle of a start must not leave it half done.
async fn in_a_task(worker: &Arc<Worker>, whole: Whole, asked: Asked) -> Answer {
    let worker = Arc::clone(worker);
    tokio::spawn(async move { until_answered(&worker, &whole, asked).await }).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request's task ended badly");
        Answer::refusal(&Refusal::new(500, "internal error"))
    })
}

// An engine that breaks off so often in a row is not one that restarts.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(100);

async fn until_answered(worker: &Arc<Worker>, whole: &Whole, mut asked: Asked) -> Answer {
    let mut tried = 0;
    loop {
        let Whole { head, bytes, body, endpoint } = whole;
        let request = Request { head, bytes, body, endpoint: endpoint.clone(), asked };
        let answer = rewrite::answer(worker, request).await;
        // No engine says 502: it is our word for one that broke off.
        tried += 1;
        if answer.status != 502 || !is_kept(endpoint) || tried >= TRIES {
            return answer;
        }
        if let Err(error) = worker.upstream.connect().await {
            return Answer::refusal(&away(&error));
        }
        info!(request = whole.head.target, "the engine broke off; it is asked again");
        asked.again = true;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Keeps an earlier worker's promise, and then serves its client on.
pub(crate) async fn keep(worker: Arc<Worker>, id: u64, client: OwnedFd, note: Vec<u8>) {
    let Ok(promise) = serde_json::from_slice::<Promise>(&note) else {
        warn!("an earlier worker's request cannot be read; its client is let go");
        return worker.keeper.unpark(id).await;
    };
    let Ok(client) = UnixStream::from_std(client.into()) else { return worker.keeper.unpark(id).await };
    let Some(whole) = whole(&worker, &promise) else {
        // Nothing of it was done: it is as if it had come just now.
        worker.keeper.unpark(id).await;
        let unread = [promise.head.as_bytes(), &promise.unread].concat();
        return connection::serve(worker, client, unread, promise.listener.into()).await;
    };
    info!(request = whole.head.target, "an earlier worker's request is brought to its end");
    let stays = whole.head.keep_alive;
    let answer = in_a_task(&worker, whole, Asked { again: true, ..promise.asked }).await;
    worker.keeper.unpark(id).await;
    let client = Buffered { io: client, unread: promise.unread };
    if let Some(client) = connection::answered(client, &answer, stays).await {
        connection::serve(worker, client.io, client.unread, promise.listener.into()).await;
    }
}

/// The request, if it is one that was begun.
fn whole(worker: &Worker, promise: &Promise) -> Option<Whole> {
    let bytes = promise.head.clone().into_bytes();
    let head = head::request(&bytes).ok()??;
    let Route::Rewritten(endpoint) =
        route::classify(&head.method, &head.target, worker.config.compat_mesos())
    else {
        return None;
    };
    let body = promise.body.clone().into_bytes();
    Some(Whole { head, bytes, body, endpoint })
}
