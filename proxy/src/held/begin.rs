//! The start of a held request: the engine is asked, its head goes to the client, and the rest is the keeper's.
//!
//! It must never hold a client longer than the engine takes for its head.

use std::io;
use std::time::Duration;

use selvedge_keeper::position::Position;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::{Kind, Note, api};
use crate::docker::engine::EngineError;
use crate::docker::error::Refusal;
use crate::docker::model::Container;
use crate::front::framing::BodyLength;
use crate::front::head::{self, RequestHead, ResponseHead};
use crate::front::message::{Buffered, MessageError, away, response_head};
use crate::front::stream::{self, Given};
use crate::front::upstream::{RETRY, Upstream};
use crate::handover::Resumable;
use crate::worker::Worker;

/// Asks the engine, and hands over. Gives the client back when the engine left it an ordinary connection.
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub(crate) async fn begin(worker: &Worker, client: Buffered, head: &RequestHead, note: Note) -> Given {
    match note.kind {
        Kind::Attach => attach(worker, client, head, note).await,
        _ => plain(worker, client, head, note).await,
    }
}

async fn attach(worker: &Worker, mut client: Buffered, head: &RequestHead, mut note: Note) -> Given {
    let bytes = note.head.clone().into_bytes();
    let ask = ask_for_attach(&mut client, &worker.upstream, head, &bytes);
    let (asked, seen) = tokio::join!(ask, look(worker, &note));
    let (mut engine, answer) = match asked {
        Ok(answered) => answered,
        Err(error) => return Err((client, error)),
    };
    let framed = framed(&engine.unread[..answer.len], seen, &mut note);
    let (101, Some(framed)) = (answer.status, framed) else {
        return stream::settle(client, &worker.keeper, head, (engine, answer)).await;
    };
    // Written here, so that the keeper's count is of the stream alone.
    if let Err(error) = client.io.write_all(&engine.unread[..answer.len]).await {
        return Err((client, error.into()));
    }
    engine.used(answer.len);
    give(worker, head, (client, engine), Some((note, Position::new(framed)))).await
}

/// An engine that ends takes connections for a moment, and answers none: then nothing has happened.
async fn ask_for_attach(
    client: &mut Buffered,
    upstream: &Upstream,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<(Buffered, ResponseHead), MessageError> {
    let end = Instant::now() + upstream.patience();
    loop {
        match stream::ask_for_upgrade(client, upstream, head, bytes).await {
            Err(MessageError::Refused(refusal)) if refusal.status == 502 && Instant::now() < end => {
                tokio::time::sleep(RETRY).await;
            }
            asked => return asked,
        }
    }
}

async fn plain(worker: &Worker, client: Buffered, head: &RequestHead, mut note: Note) -> Given {
    let question = head::with_fields(
        &as_http_1_0(&note.head, (&head.method, note.target())),
        &["connection", "keep-alive", "upgrade"],
        "",
    );
    let (asked, seen) = tokio::join!(ask(&worker.upstream, &question), look(worker, &note));
    let (mut engine, answer) = match asked {
        Ok(answered) => answered,
        Err(refusal) => return Err((client, refusal.into())),
    };
    let Some(answer) = answer else {
        // A log with nothing in it, of an engine that sends its head with the first line.
        note.counted = false;
        let framed = framed(&[], seen, &mut note);
        let held = (note.kind == Kind::Logs && framed.is_some()).then(|| (note, Position::default()));
        return give(worker, head, (client, engine), held).await;
    };
    let framed = framed(&engine.unread[..answer.len], seen, &mut note);
    let ours = as_http_1_1(&engine.unread[..answer.len]);
    let is_held = answer.status == 200 && answer.body == BodyLength::UntilClose;
    let (true, Some(framed)) = (is_held, framed) else {
        engine.unread.splice(..answer.len, ours);
        return give(worker, head, (client, engine), None).await;
    };
    let mut client = client;
    if let Err(error) = client.io.write_all(&ours).await {
        return Err((client, error.into()));
    }
    engine.used(answer.len);
    give(worker, head, (client, engine), Some((note, Position::new(framed)))).await
}

/// The request as one of HTTP/1.0, whose answer is not chunked.
pub(super) fn as_http_1_0(head: &str, (method, target): (&str, &str)) -> Vec<u8> {
    head::with_first_line(head.as_bytes(), &format!("{method} {target} HTTP/1.0"))
}

/// An answer of HTTP/1.0, for a client of HTTP/1.1: its body ends with the connection.
fn as_http_1_1(answer: &[u8]) -> Vec<u8> {
    let line = answer.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_end();
    let status = String::from_utf8_lossy(line.strip_prefix(b"HTTP/1.0 ").unwrap_or(b"200 OK"));
    let head = head::with_first_line(answer, &format!("HTTP/1.1 {status}"));
    head::with_fields(&head, &["connection"], "Connection: close\r\n")
}

// Engines send the head of wait and events at once, and that of a log with its first line.
const HEAD: Duration = Duration::from_millis(500);

/// Asks an engine, waiting for one that is away; no head yet is no failure.
async fn ask(upstream: &Upstream, question: &[u8]) -> Result<(Buffered, Option<ResponseHead>), Refusal> {
    let end = Instant::now() + upstream.patience();
    loop {
        let engine = upstream.connect().await.map_err(|error| away(&error))?;
        let mut engine = Buffered::new(engine);
        match first_words(&mut engine, question).await {
            Ok(answer) => return Ok((engine, answer)),
            // It went away before it said anything: nothing has happened.
            Err(_) if Instant::now() < end && engine.unread.is_empty() => tokio::time::sleep(RETRY).await,
            Err(error) => return Err(Refusal::new(502, format!("the engine broke off: {error}"))),
        }
    }
}

async fn first_words(engine: &mut Buffered, question: &[u8]) -> io::Result<Option<ResponseHead>> {
    engine.io.write_all(question).await?;
    tokio::time::timeout(HEAD, response_head(engine, false)).await.ok().transpose()
}

/// Looks at the container where the answer's head will not say whether it consists of frames: before API 1.42 only
/// the container tells.
async fn look(worker: &Worker, note: &Note) -> Option<Result<Container, EngineError>> {
    let says = matches!(note.kind, Kind::Wait | Kind::Events)
        || (note.kind == Kind::Attach && api(note.version()).is_some_and(|version| version >= (1, 42)));
    if says { None } else { Some(worker.engine.inspect(&note.container).await) }
}

/// Whether what follows is frames; `None` when that cannot be told.
fn framed(answer: &[u8], seen: Option<Result<Container, EngineError>>, note: &mut Note) -> Option<bool> {
    match seen {
        None if note.kind == Kind::Attach => {
            let head = answer.to_ascii_lowercase();
            Some(String::from_utf8_lossy(&head).contains("multiplexed-stream"))
        }
        None => Some(false),
        Some(Ok(container)) => {
            note.container = container.id;
            Some(!container.config.tty)
        }
        Some(Err(_)) => None,
    }
}

async fn give(
    worker: &Worker,
    head: &RequestHead,
    (client, engine): (Buffered, Buffered),
    held: Option<(Note, Position)>,
) -> Given {
    let resume = held.map(|(note, position)| Resumable {
        note: serde_json::to_vec(&note).unwrap_or_default(),
        position,
        hold_upstream: false,
        replaces: None,
    });
    let sockets: (UnixStream, UnixStream) = (client.io, engine.io);
    let given = stream::give(&worker.keeper, head, sockets, (client.unread, engine.unread), resume).await;
    given.map(|()| None).map_err(|(client, refusal)| (client, refusal.into()))
}
