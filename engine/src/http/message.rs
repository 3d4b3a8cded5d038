//! Whole messages of limited size: a request's body for a rewrite, the engine's answer to it, and answers of
//! our own.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub use super::buffered::{Buffered, Record};
use super::framing::{BodyLength, Chunks, Piece};
use super::head::{self, HeadError, RequestHead, ResponseHead};
use crate::gone::{EngineGone, Unanswered};
use crate::identity::Identity;
use crate::refusal::{Refusal, reason};

/// The largest body of a request that is rewritten, in bytes.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// The longest silence in the middle of a request: what today's dockerd allows for a head.
pub const SILENCE: Duration = Duration::from_secs(300);

/// A whole answer: its head as the engine wrote it, and its decoded body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status line, fields and blank line.
    pub head: Vec<u8>,
    /// Parsed.
    pub status: u16,
    /// Interim answers that came before it, as the engine wrote them.
    pub interim: Vec<u8>,
    /// Without transfer coding.
    pub body: Vec<u8>,
    /// How the engine delimited the body, and so do we.
    pub framing: Framing,
    /// Whether the engine would take another request on this connection.
    pub keep_alive: bool,
}

/// How an answer's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none: the status or the method does not allow it.
    NoBody,
    /// By its length.
    Length,
    /// In chunks.
    Chunked,
    /// By the end of the connection: HTTP/1.0.
    Close,
}

impl Answer {
    /// A JSON answer of our own, with what the engine's own answers say of it.
    pub fn json(engine: &Identity, status: u16, body: Vec<u8>) -> Self {
        let fields = format!("{}Content-Type: application/json\r\n", engine.fields());
        Self::own(status, &fields, Framing::Length, body)
    }

    /// A refusal in Docker's form.
    pub fn refusal(engine: &Identity, refusal: &Refusal) -> Self {
        Self::json(engine, refusal.status, refusal.body())
    }

    /// An answer with nothing but a status.
    pub fn empty(engine: &Identity, status: u16) -> Self {
        Self::own(status, &engine.fields(), Framing::NoBody, Vec::new())
    }

    /// An answer of our own.
    pub fn own(status: u16, fields: &str, framing: Framing, body: Vec<u8>) -> Self {
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let head = format!("HTTP/1.1 {status} {}\r\n{fields}Date: {date}\r\n\r\n", reason(status));
        Self { head: head.into_bytes(), status, interim: Vec::new(), body, framing, keep_alive: true }
    }

    /// The answer's bytes, with the body as it is now.
    pub fn to_bytes(&self, close: bool) -> Vec<u8> {
        let (mut without, mut fields) = (Vec::new(), String::new());
        match self.framing {
            Framing::NoBody | Framing::Close => {}
            Framing::Length => {
                without.extend(["content-length", "transfer-encoding", "trailer"]);
                fields = format!("Content-Length: {}\r\n", self.body.len());
            }
            Framing::Chunked => without.push("trailer"),
        }
        if close && !self.head.starts_with(b"HTTP/1.0") {
            without.push("connection");
            fields.push_str("Connection: close\r\n");
        }
        let mut out = self.interim.clone();
        out.append(&mut head::with_fields(&self.head, &without, &fields));
        match self.framing {
            Framing::Chunked => out.extend_from_slice(&one_chunk(&self.body)),
            _ => out.extend_from_slice(&self.body),
        }
        out
    }
}

/// Reads until a client has sent so many bytes.
///
/// # Errors
/// The client is gone, or has been silent for too long.
pub async fn fill_to(client: &mut Buffered, len: usize) -> Result<(), MessageError> {
    let read = async {
        while client.unread.len() < len {
            more(client).await?;
        }
        Ok(())
    };
    tokio::time::timeout(SILENCE, read).await.unwrap_or_else(|_| Err(too_slow()))
}

/// A body in one chunk.
pub(crate) fn one_chunk(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 32);
    if !body.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// Why a message could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// To be answered.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// To be answered, or asked again.
    #[error(transparent)]
    EngineGone(#[from] EngineGone),
    /// No request that we take.
    #[error(transparent)]
    Head(HeadError),
    /// The client is gone.
    #[error(transparent)]
    Gone(#[from] io::Error),
}

impl From<Refusal> for MessageError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Unanswered> for MessageError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Gone(gone) => Self::EngineGone(gone),
            Unanswered::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl From<HeadError> for MessageError {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

impl HeadError {
    /// The whole answer, after which the connection ends: in the words of Go's server where it refuses the same.
    pub fn answer(self, engine: &Identity) -> Vec<u8> {
        let Some((status, text)) = self.as_go() else {
            return Answer::refusal(engine, &Refusal::new(400, self.to_string())).to_bytes(true);
        };
        let fields = "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
        format!("HTTP/1.1 {status}\r\n{fields}\r\n{text}").into_bytes()
    }
}

/// Reads a request's body to its end. The head must have been taken off `client.unread`. `is_read`: the engine would read it,
/// and Go's server asks a client that waits for that when its body is read for the first time, even if it is there by then
/// (net/http, `expectContinueReader`).
///
/// # Errors
/// A refusal to be answered, or the client is gone.
pub async fn request_body(
    client: &mut Buffered,
    head: &RequestHead,
    is_read: bool,
) -> Result<Vec<u8>, MessageError> {
    if head.waits_for_continue() && is_read {
        client.io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body = tokio::time::timeout(SILENCE, body(client, head.body, Some(MAX_BODY)));
    body.await.unwrap_or_else(|_| Err(too_slow()))
}

fn too_slow() -> MessageError {
    Refusal::new(408, "the request body did not arrive").into()
}

pub(crate) async fn body(
    from: &mut Buffered,
    length: BodyLength,
    limit: Option<usize>,
) -> Result<Vec<u8>, MessageError> {
    let too_large = || Refusal::new(413, format!("the body is larger than {} MiB", MAX_BODY >> 20));
    let limit = limit.unwrap_or(usize::MAX);
    match length {
        BodyLength::Fixed(length) => {
            let length = usize::try_from(length).ok().filter(|n| *n <= limit).ok_or_else(too_large)?;
            while from.unread.len() < length {
                more(from).await?;
            }
            let body = from.unread[..length].to_vec();
            from.used(length);
            Ok(body)
        }
        BodyLength::Chunked => chunked(from, limit).await?.ok_or_else(|| too_large().into()),
        BodyLength::UntilClose => {
            while fill_to_end(from).await? {}
            Ok(std::mem::take(&mut from.unread))
        }
    }
}

async fn chunked(from: &mut Buffered, limit: usize) -> Result<Option<Vec<u8>>, MessageError> {
    let (mut chunks, mut body) = (Chunks::new(), Vec::new());
    loop {
        let mut rest = &from.unread[..];
        while let Some(piece) =
            chunks.next(&mut rest).map_err(|error| Refusal::new(400, error.to_string()))?
        {
            if let Piece::Data(data) = piece {
                body.extend_from_slice(data);
            }
        }
        let used = from.unread.len() - rest.len();
        from.used(used);
        if body.len() > limit {
            return Ok(None);
        }
        if chunks.done() {
            return Ok(Some(body));
        }
        more(from).await?;
    }
}

async fn more(from: &mut Buffered) -> io::Result<()> {
    if from.fill().await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads a response head, leaving what follows it in `from.unread` behind the head's bytes.
///
/// # Errors
/// The engine is gone, or what it said is no head.
pub async fn response_head(from: &mut Buffered, to_head: bool) -> io::Result<ResponseHead> {
    loop {
        match head::response(&from.unread, to_head) {
            Ok(Some(head)) => return Ok(head),
            Ok(None) => more(from).await?,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// Whether an answer is followed by another one to the same request (RFC 9110, 15.2).
pub fn is_interim(head: &ResponseHead) -> bool {
    matches!(head.status, 100 | 102..=199)
}

/// Reads the head of the final answer; what came before it is given back as it came.
///
/// # Errors
/// The engine is gone, or what it said is no head.
pub async fn final_head(from: &mut Buffered, to_head: bool) -> io::Result<(Vec<u8>, ResponseHead)> {
    let mut interim = Vec::new();
    loop {
        let head = response_head(from, to_head).await?;
        if !is_interim(&head) {
            return Ok((interim, head));
        }
        interim.extend_from_slice(&from.unread[..head.len]);
        from.used(head.len);
    }
}

/// Reads an answer to its end, and leaves it in `from.unread` as it came. Gives the head of the final one, and the length of
/// all.
///
/// # Errors
/// The engine is gone, or what it said is no answer.
pub async fn whole(from: &mut Buffered, to_head: bool) -> io::Result<(ResponseHead, usize)> {
    let invalid =
        |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let mut at = 0;
    let head = loop {
        match head::response(&from.unread[at..], to_head).map_err(|error| invalid(&error))? {
            Some(head) if is_interim(&head) => at += head.len,
            Some(head) => break head,
            None => more(from).await?,
        }
    };
    at += head.len;
    match head.body {
        BodyLength::Fixed(length) => {
            let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
            let end = end.ok_or_else(|| invalid(&"too long"))?;
            while from.unread.len() < end {
                more(from).await?;
            }
            at = end;
        }
        BodyLength::Chunked => {
            let mut chunks = Chunks::new();
            loop {
                at += chunks.follow(&from.unread[at..]).map_err(|error| invalid(&error))?;
                if chunks.done() {
                    break;
                }
                more(from).await?;
            }
        }
        BodyLength::UntilClose => {
            while fill_to_end(from).await? {}
            at = from.unread.len();
        }
    }
    Ok((head, at))
}

/// Reads more; an engine that ends its answer without having read the whole request resets the connection.
async fn fill_to_end(from: &mut Buffered) -> io::Result<bool> {
    match from.fill().await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
        result => result,
    }
}

/// The refusal for an engine that cannot be reached.
pub fn away(error: &io::Error) -> Refusal {
    Refusal::new(503, format!("cannot connect to the Docker engine: {error}"))
}

/// Reads and drops what a client still sends, for a moment: a close with unread bytes would reset the
/// connection, and the client would not see our answer.
pub async fn linger(client: &mut UnixStream) {
    let _ = client.shutdown().await;
    let drain = async {
        let mut sink = vec![0; 16 * 1024];
        while matches!(client.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), drain).await;
}
