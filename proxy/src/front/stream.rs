//! Requests that may live long: both sockets go to the keeper, which outlives us.
//!
//! Without an upgrade that happens at once: the head says `Connection: close`, so the engine takes nothing
//! that follows for another request. With an upgrade only after the engine's 101: any other answer leaves an
//! ordinary HTTP connection, on which the next request must meet the rewrite again.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::framing::BodyLength;
use super::head::{self, RequestHead};
use super::message::{Buffered, MessageError, away, response_head};
use super::relay::{After, answer_to};
use super::upstream::Upstream;
use crate::docker::error::Refusal;
use crate::handover::{Keeper, Pair, Resumable};

/// What came of a hand-over: the keeper has the client, or it is back, with a connection that stays or not; or it is
/// to be refused, or gone.
pub(crate) type Given = Result<Option<(Buffered, After)>, (Buffered, MessageError)>;

/// Hands a request without an upgrade over. `bytes` is its head, `client.unread` what came behind it.
pub(crate) async fn plain(
    client: Buffered,
    keeper: &Keeper,
    upstream: &Upstream,
    request: (&RequestHead, &[u8]),
) -> Result<(), (Buffered, Refusal)> {
    let (head, bytes) = request;
    let engine = match upstream.connect().await {
        Ok(engine) => engine,
        Err(error) => return Err((client, away(&error))),
    };
    let mut to_upstream =
        head::with_fields(bytes, &["connection", "keep-alive", "upgrade"], "Connection: close\r\n");
    to_upstream.extend_from_slice(&client.unread);
    give(keeper, head, (client.io, engine), (to_upstream, Vec::new()), None).await
}

/// Sends a request for an upgrade to the engine; hands over when it agrees.
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub(crate) async fn upgrade(
    mut client: Buffered,
    keeper: &Keeper,
    upstream: &Upstream,
    request: (&RequestHead, &[u8]),
) -> Given {
    let (head, bytes) = request;
    match ask_for_upgrade(&mut client, upstream, head, bytes).await {
        Ok(answered) => settle(client, keeper, head, answered).await,
        Err(error) => Err((client, error)),
    }
}

/// Does what the engine's answer to a request for an upgrade asks for.
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub(crate) async fn settle(
    mut client: Buffered,
    keeper: &Keeper,
    head: &RequestHead,
    (mut engine, answer): (Buffered, head::ResponseHead),
) -> Given {
    if answer.status == 101 || answer.body == BodyLength::UntilClose {
        let to_upstream = std::mem::take(&mut client.unread);
        let given = give(keeper, head, (client.io, engine.io), (to_upstream, engine.unread), None).await;
        return given.map(|()| None).map_err(|(client, refusal)| (client, refusal.into()));
    }
    if let Err(error) = answer_to(&mut client, &mut engine, answer).await {
        return Err((client, error.into()));
    }
    // The engine's connection is not kept for others: each upgrade opens one afresh, so refused ones would
    // only pile up there.
    let after = if answer.keep_alive && head.keep_alive { After::Keep } else { After::Close };
    Ok(Some((client, after)))
}

// A request that asks for an upgrade has no body, or the small JSON of an exec start.
const MAX_UPGRADE_BODY: u64 = 1024 * 1024;

/// Sends a request for an upgrade; gives the engine's answer, with its head still unread.
pub(crate) async fn ask_for_upgrade(
    client: &mut Buffered,
    upstream: &Upstream,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<(Buffered, head::ResponseHead), MessageError> {
    let length = match head.body {
        BodyLength::Fixed(length) if length <= MAX_UPGRADE_BODY => usize::try_from(length).unwrap_or(0),
        _ => {
            return Err(Refusal::new(
                413,
                "a request for an upgrade may carry at most 1 MiB of known length",
            )
            .into());
        }
    };
    while client.unread.len() < length {
        if !client.fill().await? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    let engine = upstream.connect().await.map_err(|error| away(&error))?;
    let mut engine = Buffered::new(engine);
    let broke =
        |error: io::Error| MessageError::from(Refusal::new(502, format!("the engine broke off: {error}")));
    engine.io.write_all(&[bytes, &client.unread[..length]].concat()).await.map_err(broke)?;
    client.used(length);
    let answer = response_head(&mut engine, head.method == "HEAD").await.map_err(broke)?;
    Ok((engine, answer))
}

/// Gives a stream to the keeper: client and engine, with what is pending for the engine and for the client.
pub(crate) async fn give(
    keeper: &Keeper,
    head: &RequestHead,
    (client, engine): (UnixStream, UnixStream),
    pending: (Vec<u8>, Vec<u8>),
    resume: Option<Resumable>,
) -> Result<(), (Buffered, Refusal)> {
    let label = format!("{} {}", head.method, crate::route::path_of(&head.target));
    let (to_upstream, to_client) = pending;
    let pair = Pair { label, client, engine, to_upstream, to_client, resume };
    keeper.give(pair).await.map_err(|(client, error)| {
        let refusal = Refusal::new(503, format!("no room for another stream: {error}"));
        (Buffered::new(client), refusal)
    })
}
