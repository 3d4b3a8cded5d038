//! One client's connection from its first byte to its hand-over or end.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tracing::debug;

use super::framing::BodyLength;
use super::head::{self, RequestHead};
use super::message::{self, Answer, Buffered, MessageError, SILENCE};
use super::parting;
use super::promise::{self, Whole};
use super::relay::{self, After, RelayError};
use super::stream;
use crate::docker::error::Refusal;
use crate::held::{Note, begin};
use crate::route::{self, Endpoint, Route};
use crate::worker::Worker;

/// Serves a client until it leaves, its sockets are the keeper's, or it is the next worker's. `read` is what
/// an earlier worker has read from it; `listener` names the socket that it came in by.
pub(crate) async fn serve(worker: Arc<Worker>, socket: UnixStream, read: Vec<u8>, listener: Arc<str>) {
    let mut client = Buffered { io: socket, unread: read };
    let mut leaving = worker.leaving();
    loop {
        let next = tokio::select! {
            biased;
            next = next_head(&mut client) => next,
            () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => {
                return worker.keeper.give_client(&listener, client.io, &client.unread).await;
            }
        };
        let head = match next {
            Ok(Some(head)) => head,
            Ok(None) | Err(MessageError::Gone(_)) => return,
            Err(MessageError::Refused(refusal)) => return refuse(client, &refusal).await,
        };
        match one(&worker, client, head, &listener).await {
            Some(next) => client = next,
            None => return,
        }
    }
}

async fn next_head(client: &mut Buffered) -> Result<Option<RequestHead>, MessageError> {
    if client.unread.is_empty() && !client.fill().await? {
        return Ok(None);
    }
    let rest = async {
        loop {
            // Go's server passes over blank lines between requests; so do we.
            let blank = client.unread.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            client.used(blank);
            if let Some(head) = head::request(&client.unread)? {
                return Ok(Some(head));
            }
            if !client.fill().await? {
                return Ok(None);
            }
        }
    };
    tokio::time::timeout(SILENCE, rest)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(408, "the request did not arrive").into()))
}

/// Serves one request; gives the client back when another may follow.
async fn one(
    worker: &Arc<Worker>,
    mut client: Buffered,
    head: RequestHead,
    listener: &str,
) -> Option<Buffered> {
    let route = route::classify(&head.method, &head.target, worker.config.compat_mesos());
    worker.counters.request(&route);
    parting::before(worker, &client, &head, listener).await;
    if route == Route::Stream
        && let Some(note) = Note::of(&head, &client.unread[..head.len])
    {
        return Box::pin(held(worker, client, head, note)).await;
    }
    match route {
        Route::Rewritten(endpoint) => Box::pin(rewritten(worker, client, (head, endpoint), listener)).await,
        Route::Short if is_whole(&client, &head) => short(worker, client, &head).await,
        Route::Short | Route::Stream if head.upgrade => Box::pin(upgrade(worker, client, head)).await,
        Route::Short | Route::Stream => {
            let bytes = take_head(&mut client, &head);
            if let Err((client, refusal)) =
                stream::plain(client, &worker.keeper, &worker.upstream, (&head, &bytes)).await
            {
                refuse(client, &refusal).await;
            }
            None
        }
        Route::Redirect(path) => redirect(client, &head, &path).await,
        Route::Malformed => {
            refuse(client, &Refusal::new(400, "malformed escape in the request path")).await;
            None
        }
    }
}

/// A request that can be relayed as it is: complete, of an HTTP/1.1 client that keeps the connection.
fn is_whole(client: &Buffered, head: &RequestHead) -> bool {
    let BodyLength::Fixed(body) = head.body else { return false };
    head.keep_alive
        && !head.upgrade
        && !head.expects_continue
        && client.unread.len() as u64 >= head.len as u64 + body
}

async fn short(worker: &Worker, mut client: Buffered, head: &RequestHead) -> Option<Buffered> {
    let BodyLength::Fixed(body) = head.body else { return None };
    let len = head.len + usize::try_from(body).ok()?;
    let request = match client.unread.len() == len {
        true => std::mem::take(&mut client.unread),
        false => client.unread.drain(..len).collect(),
    };
    match relay::short(&mut client, &worker.upstream, head, &request).await {
        Ok(After::Keep) => Some(client),
        Ok(After::Close) | Err(RelayError::Broken(_)) => None,
        Err(RelayError::Engine(error)) => {
            refuse(client, &message::away(&error)).await;
            None
        }
    }
}

async fn held(worker: &Worker, mut client: Buffered, head: RequestHead, note: Note) -> Option<Buffered> {
    take_head(&mut client, &head);
    after(begin::begin(worker, client, &head, note).await).await
}

/// The client again, when the engine left it an ordinary connection that stays.
async fn after(given: stream::Given) -> Option<Buffered> {
    match given {
        Ok(Some((client, After::Keep))) => Some(client),
        Ok(_) | Err((_, MessageError::Gone(_))) => None,
        Err((client, MessageError::Refused(refusal))) => {
            refuse(client, &refusal).await;
            None
        }
    }
}

async fn upgrade(worker: &Worker, mut client: Buffered, head: RequestHead) -> Option<Buffered> {
    let bytes = take_head(&mut client, &head);
    after(stream::upgrade(client, &worker.keeper, &worker.upstream, (&head, &bytes)).await).await
}

async fn rewritten(
    worker: &Arc<Worker>,
    mut client: Buffered,
    (head, endpoint): (RequestHead, Endpoint),
    listener: &str,
) -> Option<Buffered> {
    let bytes = take_head(&mut client, &head);
    let body = match message::request_body(&mut client, &head).await {
        Ok(body) => body,
        Err(MessageError::Gone(_)) => return None,
        Err(MessageError::Refused(refusal)) => {
            refuse(client, &refusal).await;
            return None;
        }
    };
    let keep = head.keep_alive;
    let answer = promise::perform(worker, &client, Whole { head, bytes, body, endpoint }, listener).await;
    answered(client, &answer, keep).await
}

async fn redirect(mut client: Buffered, head: &RequestHead, path: &str) -> Option<Buffered> {
    take_head(&mut client, head);
    let query = route::query_of(&head.target);
    let mark = if query.is_empty() { "" } else { "?" };
    let line = format!(
        "HTTP/1.1 301 Moved Permanently\r\nLocation: {}{mark}{query}\r\n\r\n",
        route::percent_encode(path)
    );
    let answer = Answer { head: line.into_bytes(), status: 301, body: Vec::new(), has_body: true };
    answered(client, &answer, head.body == BodyLength::Fixed(0) && head.keep_alive).await
}

pub(super) async fn answered(mut client: Buffered, answer: &Answer, keep: bool) -> Option<Buffered> {
    let written = client.io.write_all(&answer.to_bytes(!keep)).await;
    if written.is_err() || !keep {
        message::linger(&mut client.io).await;
        return None;
    }
    Some(client)
}

fn take_head(client: &mut Buffered, head: &RequestHead) -> Vec<u8> {
    let bytes = client.unread[..head.len].to_vec();
    client.used(head.len);
    bytes
}

async fn refuse(mut client: Buffered, refusal: &Refusal) {
    debug!(status = refusal.status, reason = refusal.message, "refused");
    let sent: io::Result<()> = client.io.write_all(&Answer::refusal(refusal).to_bytes(true)).await;
    if sent.is_ok() {
        message::linger(&mut client.io).await;
    }
}
