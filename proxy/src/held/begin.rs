//! The start of a held request: the engine is asked, its head goes to the client, and the rest is the keeper's.
//!
//! It must never hold a client longer than the engine takes for its head.

use std::io;
use std::time::Duration;

use selvedge_engine::client::EngineError;
use selvedge_engine::gone::EngineGone;
use selvedge_engine::http::framing::BodyLength;
use selvedge_engine::http::head::{self, RequestHead, ResponseHead};
use selvedge_engine::http::message::{Buffered, MessageError, away, final_head};
use selvedge_engine::http::pool::{RETRY, Upstream};
use selvedge_engine::model::Container;
use selvedge_keeper::position::Position;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{Kind, Note, api_version, is_sequence};
use crate::api::Api;
use crate::exchange::Exchange;
use crate::front::stream::{self, Given};
use crate::handover::Resumable;
use crate::then::Then;

/// Asks the engine, and hands over. Gives the client back when the engine left it an ordinary connection.
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub(crate) async fn begin(api: &Api, client: Buffered, head: &RequestHead, note: Note) -> Given {
    match note.kind {
        Kind::Attach => attach(api, client, head, note).await,
        _ => plain(api, client, head, note).await,
    }
}

async fn attach(api: &Api, mut client: Buffered, head: &RequestHead, note: Note) -> Given {
    let bytes = note.head.clone().into_bytes();
    let ask = ask_for_attach(api, &mut client, head, &bytes);
    let (asked, seen) = tokio::join!(ask, look(api, &note));
    match asked {
        Ok(answered) => settle(api, client, head, (answered, seen, note)).await,
        Err(error) => Err((client, error)),
    }
}

/// Goes on with an attach that was asked of the engine.
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub(crate) async fn agreed(
    api: &Api,
    client: Buffered,
    head: &RequestHead,
    (note, exchange): (Note, Exchange),
) -> Given {
    let (answered, seen) = tokio::join!(stream::answered(exchange), look(api, &note));
    match answered {
        Ok(answered) => settle(api, client, head, (answered, seen, note)).await,
        Err(gone) => Err((client, gone.into())),
    }
}

async fn settle(
    api: &Api,
    client: Buffered,
    head: &RequestHead,
    (mut answered, seen, mut note): (stream::Answered, Option<Seen>, Note),
) -> Given {
    let len = answered.head.len;
    let framed = framed(&answered.engine.unread[..len], seen, &mut note);
    let (101, Some(framed)) = (answered.head.status, framed) else {
        return stream::settle(client, &api.keeper, head, answered).await;
    };
    let before = answered.interim.len() + len;
    answered.engine.unread.splice(..0, std::mem::take(&mut answered.interim));
    give(api, head, (client, answered.engine), Some((note, Position::behind(before, framed)))).await
}

/// An engine that ends takes connections for a moment, and answers none: then nothing has happened.
async fn ask_for_attach(
    api: &Api,
    client: &mut Buffered,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<stream::Answered, MessageError> {
    let end = Instant::now() + api.upstream.patience();
    loop {
        match stream::ask_for_upgrade(api, client, (head, bytes), Then::Attach).await {
            Err(MessageError::EngineGone(_)) if Instant::now() < end => tokio::time::sleep(RETRY).await,
            asked => return asked,
        }
    }
}

async fn plain(api: &Api, client: Buffered, head: &RequestHead, mut note: Note) -> Given {
    let question = head::with_fields(
        &as_http_1_0(&note.head, (&head.method, note.target())),
        &["connection", "keep-alive", "upgrade"],
        "",
    );
    let (asked, seen) = tokio::join!(ask(&api.upstream, &question), look(api, &note));
    let (mut engine, answer) = match asked {
        Ok(answered) => answered,
        Err(error) => return Err((client, error)),
    };
    let Some(answer) = answer else {
        // A log with nothing in it, of an engine that sends its head with the first line.
        note.counted = false;
        let framed = framed(&[], seen, &mut note);
        let held = (note.kind == Kind::Logs && framed.is_some()).then(|| (note, Position::default()));
        return give(api, head, (client, engine), held).await;
    };
    let framed = framed(&engine.unread[..answer.len], seen, &mut note);
    note.sequence = is_sequence(&engine.unread[..answer.len]);
    let ours = as_http_1_1(&engine.unread[..answer.len]);
    let is_held = answer.status == 200 && answer.body == BodyLength::UntilClose;
    let (true, Some(framed)) = (is_held, framed) else {
        engine.unread.splice(..answer.len, ours);
        return give(api, head, (client, engine), None).await;
    };
    let before = ours.len();
    engine.unread.splice(..answer.len, ours);
    give(api, head, (client, engine), Some((note, Position::behind(before, framed)))).await
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
async fn ask(upstream: &Upstream, question: &[u8]) -> Result<(Buffered, Option<ResponseHead>), MessageError> {
    let end = Instant::now() + upstream.patience();
    loop {
        let engine = upstream.connect().await.map_err(|error| away(&error))?;
        let mut engine = Buffered::new(engine);
        match first_words(&mut engine, question).await {
            Ok(answer) => return Ok((engine, answer)),
            // It went away before it said anything: nothing has happened.
            Err(_) if Instant::now() < end && engine.unread.is_empty() => tokio::time::sleep(RETRY).await,
            Err(error) => return Err(EngineGone::new(error).into()),
        }
    }
}

async fn first_words(engine: &mut Buffered, question: &[u8]) -> io::Result<Option<ResponseHead>> {
    engine.io.write_all(question).await?;
    let answer = tokio::time::timeout(HEAD, final_head(engine, false)).await.ok().transpose()?;
    // Asked by HTTP/1.0, which knows no interim answers.
    Ok(answer.map(|(_, head)| head))
}

/// What the engine says of a container.
type Seen = Result<Container, EngineError>;

/// Looks at the container where the answer's head will not say whether it consists of frames: before API 1.42 only
/// the container tells.
async fn look(api: &Api, note: &Note) -> Option<Seen> {
    let says = matches!(note.kind, Kind::Wait | Kind::Events)
        || (note.kind == Kind::Attach
            && api_version(note.version()).is_some_and(|version| version >= (1, 42)));
    if says { None } else { Some(api.containers.engine.inspect(&note.container).await) }
}

/// Whether what follows is frames; `None` when that cannot be told.
fn framed(answer: &[u8], seen: Option<Seen>, note: &mut Note) -> Option<bool> {
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
    api: &Api,
    head: &RequestHead,
    (client, engine): (Buffered, Buffered),
    held: Option<(Note, Position)>,
) -> Given {
    let resume = held.map(|(note, position)| Resumable {
        note: serde_json::to_vec(&note).unwrap_or_default(),
        position,
        hold_upstream: false,
    });
    let (mut client, to_client) = (client, engine.unread);
    let to_upstream = std::mem::take(&mut client.unread);
    let given = stream::give(&api.keeper, head, (client, engine.io), (to_upstream, to_client), resume).await;
    given.map(|()| None).map_err(|(client, refusal)| (client, refusal.into()))
}
