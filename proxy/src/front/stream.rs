//! Requests that may live long: both sockets go to the keeper, which outlives us.
//!
//! Without an upgrade that happens at once: the head says `Connection: close`, so the engine takes nothing
//! that follows for another request. With an upgrade only after the engine's 101: any other answer leaves an
//! ordinary HTTP connection, on which the next request must meet the rewrite again.

use std::io;

use selvedge_engine::gone::EngineGone;
use selvedge_engine::http::framing::{BadChunk, BodyLength, Rest};
use selvedge_engine::http::head::{self, RequestHead};
use selvedge_engine::http::message::{
    Buffered, MessageError, Record, SILENCE, away, fill_to, is_interim, response_head, whole,
};
use selvedge_engine::http::pool::Upstream;
use selvedge_engine::http::relay::{After, answer_to};
use selvedge_engine::refusal::Refusal;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::api::Api;
use crate::exchange::{self, Exchange};
use crate::handover::{Held, Keeper, Pair, Resumable};
use crate::then::{Order, Then};

/// What came of a hand-over: the keeper has the client, or it is back, with a connection that stays or not; or it is
/// to be refused, or gone.
pub(crate) type Given = Result<Option<(Buffered, After)>, (Buffered, MessageError)>;

/// Hands over a client that speaks HTTP/2 from its first byte (RFC 9113, 3.3), with all that it has said. An engine that
/// does not speak it says so itself: the preface holds what no server of HTTP/1 takes for a request, and closes.
pub(crate) async fn http2(
    mut client: Buffered,
    keeper: &Keeper,
    upstream: &Upstream,
    head: &RequestHead,
) -> Result<(), (Buffered, Refusal)> {
    match upstream.connect().await {
        Ok(engine) => {
            let said = std::mem::take(&mut client.unread);
            give(keeper, head, (client, engine), (said, Vec::new()), None).await
        }
        Err(error) => Err((client, away(&error))),
    }
}

/// What the keeper takes along with a stream, by far.
const GIVEN_AT_MOST: usize = 256 * 1024;

/// Hands a request without an upgrade over. `bytes` is its head, `client.unread` what came behind it.
pub(crate) async fn plain(
    mut client: Buffered,
    keeper: &Keeper,
    upstream: &Upstream,
    request: (&RequestHead, &[u8]),
) -> Result<(), (Buffered, Refusal)> {
    let (head, bytes) = request;
    let mut engine = match upstream.connect().await {
        Ok(engine) => engine,
        Err(error) => return Err((client, away(&error))),
    };
    let mut to_upstream =
        head::with_fields(bytes, &["connection", "keep-alive", "upgrade"], "Connection: close\r\n");
    to_upstream.append(&mut client.unread);
    if to_upstream.len() > GIVEN_AT_MOST {
        // An engine that refuses so large a head has answered, and does not read on.
        let _ = engine.write_all(&to_upstream).await;
        to_upstream.clear();
    }
    give(keeper, head, (client, engine), (to_upstream, Vec::new()), None).await
}

/// Sends a request for an upgrade to the engine; hands over when it agrees.
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub(crate) async fn upgrade(api: &Api, mut client: Buffered, request: (&RequestHead, &[u8])) -> Given {
    let (head, bytes) = request;
    match ask_for_upgrade(api, &mut client, (head, bytes), Then::Upgrade).await {
        Ok(answered) => settle(client, &api.keeper, head, answered).await,
        Err(error) => Err((client, error)),
    }
}

/// Goes on with a request for an upgrade that was asked of the engine.
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub(crate) async fn agreed(
    client: Buffered,
    keeper: &Keeper,
    head: &RequestHead,
    exchange: Exchange,
) -> Given {
    match answered(exchange).await {
        Ok(answered) => settle(client, keeper, head, answered).await,
        Err(gone) => Err((client, gone.into())),
    }
}

/// The engine's connection with its final answer's head still unread, and what it has not read of the request's body.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) engine: Buffered,
    pub(crate) head: head::ResponseHead,
    /// What the engine said before.
    pub(crate) interim: Vec<u8>,
    rest: Rest,
    /// On record: all of the request's body has been sent.
    whole: bool,
    /// Until the connection is the keeper's in another way.
    pub(crate) held: Option<Held>,
}

/// Waits for the head of the engine's answer.
pub(crate) async fn answered(mut exchange: Exchange) -> Result<Answered, EngineGone> {
    let (interim, head) = exchange.head().await?;
    let (engine, held) = exchange.into_parts();
    Ok(Answered { engine, head, interim, rest: Rest::of(BodyLength::Fixed(0)), whole: true, held })
}

/// Does what the engine's answer to a request for an upgrade asks for.
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub(crate) async fn settle(
    mut client: Buffered,
    keeper: &Keeper,
    head: &RequestHead,
    answered: Answered,
) -> Given {
    let Answered { mut engine, head: answer, mut interim, mut rest, whole: on_record, held: _held } =
        answered;
    if answer.status == 101 || answer.body == BodyLength::UntilClose {
        let to_upstream = std::mem::take(&mut client.unread);
        interim.append(&mut engine.unread);
        let given = give(keeper, head, (client, engine.io), (to_upstream, interim), None).await;
        return given.map(|()| None).map_err(|(client, refusal)| (client, refusal.into()));
    }
    if on_record {
        return refused(client, (head, interim), engine).await;
    }
    if let Err(error) = answer_to(&mut client, &mut engine, answer).await {
        return Err((client, error.into()));
    }
    // The engine's connection is not kept for others: each upgrade opens one afresh, so refused ones would
    // only pile up there.
    let keep = answer.keep_alive && head.keep_alive;
    let after = if keep && dropped(&mut client, &mut rest).await { After::Keep } else { After::Close };
    let idle = client.unread.is_empty();
    if let (After::Keep, Some(client)) = (after, client.client()) {
        client.next(idle);
    }
    Ok(Some((client, after)))
}

/// The engine did not agree: its answer is an ordinary one.
async fn refused(
    mut client: Buffered,
    (head, mut interim): (&RequestHead, Vec<u8>),
    mut engine: Buffered,
) -> Given {
    let (answer, len) = match whole(&mut engine, false).await {
        Ok(read) => read,
        Err(error) => return Err((client, EngineGone::new(error).into())),
    };
    interim.extend_from_slice(&engine.unread[..len]);
    let keep = answer.keep_alive && head.keep_alive;
    match client.answer(&interim, keep).await {
        Ok(()) => Ok(Some((client, if keep { After::Keep } else { After::Close }))),
        Err(error) => Err((client, error.into())),
    }
}

/// Drops what is left of a body that the engine answered without: none of it may become a request. Whether it ended.
async fn dropped(client: &mut Buffered, rest: &mut Rest) -> bool {
    let drop_all = async {
        loop {
            let Ok(part) = rest.take(&client.unread) else { return false };
            client.used(part);
            if rest.is_over() {
                return true;
            }
            if !matches!(client.fill().await, Ok(true)) {
                return false;
            }
        }
    };
    tokio::time::timeout(SILENCE, drop_all).await.unwrap_or(false)
}

/// Sends a request for an upgrade; gives the engine's final answer, with its head still unread.
///
/// Its body follows as it comes, never a byte beyond its end: until the engine has agreed, that would be the next
/// request. What the engine says before its final answer is passed on at once; a client may wait for it.
///
/// A body of a moderate length is read first, and the request goes on record; of others a death of this worker is the end.
pub(crate) async fn ask_for_upgrade(
    api: &Api,
    client: &mut Buffered,
    (head, bytes): (&RequestHead, &[u8]),
    then: Then,
) -> Result<Answered, MessageError> {
    match head.body {
        // What changes nothing can be asked again; an engine that does not agree to it may answer without an end.
        BodyLength::Fixed(length)
            if head.method != "GET" && length <= ON_RECORD && !head.waits_for_continue() =>
        {
            let length = usize::try_from(length).unwrap_or(0);
            fill_to(client, length).await?;
            let told = [bytes, &client.unread[..length]].concat();
            let no_record = || MessageError::Gone(io::Error::other("no record"));
            let entry = exchange::record(client).ok_or_else(no_record)?;
            let exchange = Exchange::begin(api, &entry, &told, &Order::now(then)).await?;
            client.used(length);
            Ok(answered(exchange).await?)
        }
        _ => ask_at_once(client, &api.upstream, head, bytes).await,
    }
}

/// A longer body of a request for an upgrade is not waited for.
const ON_RECORD: u64 = 64 * 1024;

async fn ask_at_once(
    client: &mut Buffered,
    upstream: &Upstream,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<Answered, MessageError> {
    if let Some(client) = client.client() {
        client.loosen();
    }
    let mut rest = Rest::of(head.body);
    let engine = upstream.connect().await.map_err(|error| away(&error))?;
    let mut engine = Buffered::new(engine);
    let first = rest.take(&client.unread).map_err(bad_chunk)?;
    // In one piece, as a client sends it: an engine that agrees has then read the whole request.
    engine.io.write_all(&[bytes, &client.unread[..first]].concat()).await.map_err(broke)?;
    client.used(first);
    let answer = loop {
        tokio::select! {
            biased;
            answer = response_head(&mut engine, head.method == "HEAD") => {
                let answer = answer.map_err(broke)?;
                if !is_interim(&answer) {
                    break answer;
                }
                client.io.write_all(&engine.unread[..answer.len]).await?;
                engine.used(answer.len);
            }
            more = client.fill(), if !rest.is_over() => {
                if !more? {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                pass(client, &mut engine, &mut rest).await?;
            }
        }
    };
    Ok(Answered { engine, head: answer, interim: Vec::new(), rest, whole: false, held: None })
}

/// Passes on what has come of a request's body.
async fn pass(client: &mut Buffered, engine: &mut Buffered, rest: &mut Rest) -> Result<(), MessageError> {
    let part = rest.take(&client.unread).map_err(bad_chunk)?;
    // An engine that has answered need not read on; its answer tells.
    let _ = engine.io.write_all(&client.unread[..part]).await;
    client.used(part);
    Ok(())
}

fn bad_chunk(error: BadChunk) -> MessageError {
    Refusal::new(400, error.to_string()).into()
}

fn broke(error: io::Error) -> MessageError {
    EngineGone::new(error).into()
}

/// Gives a stream to the keeper: client and engine, with what is pending for the engine and for the client.
pub(crate) async fn give(
    keeper: &Keeper,
    head: &RequestHead,
    (client, engine): (Buffered, UnixStream),
    pending: (Vec<u8>, Vec<u8>),
    resume: Option<Resumable>,
) -> Result<(), (Buffered, Refusal)> {
    let label = format!("{} {}", head.method, selvedge_engine::route::path_of(&head.target));
    let (to_upstream, to_client) = pending;
    let Buffered { io, unread, record } = client;
    let held = match &record {
        Record::Client(client) => Some(client.client()),
        _ => None,
    };
    let (replaces, input) = (None, None);
    let pair = Pair { label, client: io, engine, to_upstream, to_client, resume, held, replaces, input };
    match keeper.give(pair).await {
        Ok(()) => {
            if let Record::Client(client) = record {
                client.given();
            }
            Ok(())
        }
        Err((io, error)) => {
            let refusal = Refusal::new(503, format!("no room for another stream: {error}"));
            Err((Buffered { io, unread, record }, refusal))
        }
    }
}
