//! Short requests: the client's bytes to the engine, the engine's to the client, and both connections stay.
//! Neither head is changed; only the framing is followed, to know where the answer ends.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::framing::{BodyLength, Chunks};
use super::head::{RequestHead, ResponseHead};
use super::message::{Buffered, whole};
use super::pool::{RETRY, Upstream};

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    Keep,
    /// It is closed.
    Close,
}

/// Why a relay ended early.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Nothing has been sent to the client: it can be told.
    #[error("the engine does not answer: {0}")]
    Engine(io::Error),
    /// Part of an answer has been sent, or the client is gone: only a close tells.
    #[error("the connection broke in the middle of an answer: {0}")]
    Broken(#[from] io::Error),
}

/// Relays one request whose bytes (head and body) are `request`.
///
/// # Errors
/// Whether the client can still be told.
pub async fn short(
    client: &mut Buffered,
    upstream: &Upstream,
    head: &RequestHead,
    request: &[u8],
) -> Result<After, RelayError> {
    let to_head = head.method == "HEAD";
    let (mut engine, answer, len) = match asked(upstream, head, request, to_head).await {
        Ok(found) => found,
        Err(error) => return Err(RelayError::Engine(error)),
    };
    client.answer(&engine.unread[..len], answer.keep_alive).await?;
    engine.used(len);
    if answer.keep_alive && engine.unread.is_empty() {
        upstream.keep(engine.io);
    }
    Ok(if answer.keep_alive { After::Keep } else { After::Close })
}

/// Asks until there is a whole answer: while a client has nothing of it, what changes nothing can be asked again.
async fn asked(
    upstream: &Upstream,
    head: &RequestHead,
    request: &[u8],
    to_head: bool,
) -> io::Result<(Buffered, ResponseHead, usize)> {
    // An engine that went away in just this moment never saw the request of a dead connection, but we cannot know:
    // only what changes nothing is asked again.
    let harmless = matches!(head.method.as_str(), "GET" | "HEAD");
    if let Some(kept) = upstream.kept() {
        let tried = exchange(kept, request, to_head).await;
        if tried.is_ok() || !harmless {
            return tried;
        }
    }
    let end = Instant::now() + upstream.patience();
    loop {
        let tried = exchange(upstream.connect().await?, request, to_head).await;
        if tried.is_ok() || !harmless || Instant::now() >= end {
            return tried;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn exchange(
    stream: UnixStream,
    request: &[u8],
    to_head: bool,
) -> io::Result<(Buffered, ResponseHead, usize)> {
    let mut engine = Buffered::new(stream);
    let sent = engine.io.write_all(request).await;
    // An engine that refuses what it has read so far answers, and takes no more.
    match whole(&mut engine, to_head).await {
        Ok((head, len)) => Ok((engine, head, len)),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

/// Sends an answer whose head is at the start of `engine.unread` to the client, up to its end.
///
/// # Errors
/// One of the two is gone, or the framing is broken.
pub async fn answer_to(client: &mut Buffered, engine: &mut Buffered, head: ResponseHead) -> io::Result<()> {
    match head.body {
        BodyLength::Fixed(length) => fixed(client, engine, head.len as u64 + length).await,
        BodyLength::Chunked => chunked(client, engine, head.len).await,
        BodyLength::UntilClose => until_close(client, engine).await,
    }
}

/// How often we look whether a client still waits for more of an answer that is slow to come.
const LOOK: Duration = Duration::from_secs(1);

async fn fixed(client: &mut Buffered, engine: &mut Buffered, mut left: u64) -> io::Result<()> {
    loop {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(engine.unread.len());
        client.io.write_all(&engine.unread[..take]).await?;
        engine.used(take);
        left -= take as u64;
        if left == 0 {
            return Ok(());
        }
        more(client, engine).await?;
    }
}

async fn chunked(client: &mut Buffered, engine: &mut Buffered, head: usize) -> io::Result<()> {
    let mut chunks = Chunks::new();
    let mut passed = head;
    loop {
        let body = chunks
            .follow(&engine.unread[passed..])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        client.io.write_all(&engine.unread[..passed + body]).await?;
        engine.used(passed + body);
        if chunks.done() {
            return Ok(());
        }
        passed = 0;
        more(client, engine).await?;
    }
}

async fn until_close(client: &mut Buffered, engine: &mut Buffered) -> io::Result<()> {
    loop {
        client.io.write_all(&engine.unread).await?;
        engine.used(usize::MAX);
        if !fill_for(client, engine).await? {
            return Ok(());
        }
    }
}

async fn more(client: &Buffered, engine: &mut Buffered) -> io::Result<()> {
    if fill_for(client, engine).await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads more of an answer for a client; an answer may be one that never ends (events, behind an upgrade that
/// the engine did not take), and a client that has left must not hold the engine's connection for ever.
async fn fill_for(client: &Buffered, engine: &mut Buffered) -> io::Result<bool> {
    loop {
        match tokio::time::timeout(LOOK, engine.fill()).await {
            Ok(read) => return read,
            Err(_) if has_left(&client.io)? => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => {}
        }
    }
}

/// A half-close is no leaving: such a client still reads. POLLHUP is both directions closed.
///
/// # Errors
/// What poll(2) said.
pub fn has_left(client: &UnixStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(client.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    Ok(fds[0].revents().is_some_and(|events| events.intersects(gone)))
}
