//! Whole messages of limited size: a request's body for a rewrite, the engine's answer to it, and answers of
//! our own.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::framing::{BodyLength, Chunks, Piece};
use super::head::{self, HeadError, RequestHead, ResponseHead};
use super::upstream::{RETRY, Upstream};
use crate::docker::error::{Refusal, reason};

/// The largest body of a request that is rewritten, in bytes.
pub(crate) const MAX_BODY: usize = 16 * 1024 * 1024;
/// The longest silence in the middle of a request: what today's dockerd allows for a head.
pub(crate) const SILENCE: Duration = Duration::from_secs(300);

/// A socket with the bytes already read from it.
#[derive(Debug)]
pub(crate) struct Buffered {
    /// The socket.
    pub(crate) io: UnixStream,
    /// What has been read and not used. Empty and without memory while the connection is idle.
    pub(crate) unread: Vec<u8>,
}

impl Buffered {
    /// A socket from which nothing has been read.
    pub(crate) fn new(io: UnixStream) -> Self {
        Self { io, unread: Vec::new() }
    }

    /// Reads more; `false` at the end of the stream. Takes no memory before there is something to read.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        loop {
            self.io.readable().await?;
            self.unread.reserve(8 * 1024);
            match self.io.try_read_buf(&mut self.unread) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(|n| n > 0),
            }
        }
    }

    /// Drops the first bytes, and the memory when nothing is left.
    pub(crate) fn used(&mut self, len: usize) {
        if len >= self.unread.len() {
            self.unread = Vec::new();
        } else {
            self.unread.drain(..len);
        }
    }
}

/// A whole answer: its head as the engine wrote it, and its decoded body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Status line, fields and blank line.
    pub(crate) head: Vec<u8>,
    /// Parsed.
    pub(crate) status: u16,
    /// Without transfer coding.
    pub(crate) body: Vec<u8>,
    /// Whether the status allows a body, and the request asked for one.
    pub(crate) has_body: bool,
}

impl Answer {
    /// A JSON answer of our own.
    pub(crate) fn json(status: u16, body: Vec<u8>) -> Self {
        let head = format!("HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\n\r\n", reason(status));
        Self { head: head.into_bytes(), status, body, has_body: true }
    }

    /// A refusal in Docker's form.
    pub(crate) fn refusal(refusal: &Refusal) -> Self {
        Self::json(refusal.status, refusal.body())
    }

    /// The answer's bytes, with the length of the body as it is now.
    pub(crate) fn to_bytes(&self, close: bool) -> Vec<u8> {
        let mut fields = String::new();
        let mut without = vec!["connection"];
        if self.has_body {
            without.extend(["content-length", "transfer-encoding", "trailer"]);
            fields = format!("Content-Length: {}\r\n", self.body.len());
        }
        if close {
            fields.push_str("Connection: close\r\n");
        }
        let mut out = head::with_fields(&self.head, &without, &fields);
        out.extend_from_slice(&self.body);
        out
    }
}

/// Why a message could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// To be answered.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The client is gone.
    #[error(transparent)]
    Gone(#[from] io::Error),
}

impl From<Refusal> for MessageError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<HeadError> for MessageError {
    fn from(error: HeadError) -> Self {
        Self::Refused(Refusal::new(error.status(), error.to_string()))
    }
}

/// Reads a request's body to its end. The head must have been taken off `client.unread`.
pub(crate) async fn request_body(client: &mut Buffered, head: &RequestHead) -> Result<Vec<u8>, MessageError> {
    let empty = head.body == BodyLength::Fixed(0);
    if head.expects_continue && !empty && client.unread.is_empty() {
        client.io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body = tokio::time::timeout(SILENCE, body(client, head.body, Some(MAX_BODY)));
    body.await.unwrap_or_else(|_| Err(Refusal::new(408, "the request body did not arrive").into()))
}

async fn body(
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
            while from.fill().await? {}
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
pub(crate) async fn response_head(from: &mut Buffered, to_head: bool) -> io::Result<ResponseHead> {
    loop {
        match head::response(&from.unread, to_head) {
            Ok(Some(head)) => return Ok(head),
            Ok(None) => more(from).await?,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// A request of a client, to be asked of the engine with another body.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// The client's head; lengths and connection fields in it do not count.
    pub(crate) head: &'a [u8],
    /// `POST /v1.41/containers/create?name=x HTTP/1.1`: what the head begins with instead.
    pub(crate) line: String,
    /// The body; a `GET` has none.
    pub(crate) body: &'a [u8],
    /// There is a body where the client sent none.
    pub(crate) body_is_ours: bool,
}

const HOP: &[&str] = &[
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "expect",
    "keep-alive",
    "te",
    "trailer",
];

/// Asks the engine and reads the whole answer.
///
/// # Errors
/// A refusal with 502 or 503 when the engine cannot be asked.
pub(crate) async fn ask(upstream: &Upstream, question: &Question<'_>) -> Result<Answer, Refusal> {
    let mut length = match question.line.starts_with("GET ") {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", question.body.len()),
    };
    // A client that sent no body (`docker commit`) said nothing of its kind either. One that sent a body without
    // saying of which kind is the engine's to refuse.
    if question.body_is_ours && !head::has_field(question.head, "content-type") {
        length.push_str("Content-Type: application/json\r\n");
    }
    // HTTP/1.0 knows no Host; the engine, which we ask by HTTP/1.1, insists on one.
    if head::is_http_1_0(question.head) && !head::has_field(question.head, "host") {
        length.push_str("Host: \r\n");
    }
    let head = head::with_first_line(question.head, &question.line);
    let mut bytes = head::with_fields(&head, HOP, &length);
    bytes.extend_from_slice(question.body);
    let broke_off = |error: io::Error| Refusal::new(502, format!("the engine broke off: {error}"));
    // What may have had an effect is not asked twice.
    let harmless = question.line.starts_with("GET ");
    if let Some(kept) = upstream.kept() {
        match exchange(upstream, kept, &bytes).await {
            Err(_) if harmless => {}
            result => return result.map_err(broke_off),
        }
    }
    let end = Instant::now() + upstream.patience();
    loop {
        let fresh = upstream.connect().await.map_err(|error| away(&error))?;
        match exchange(upstream, fresh, &bytes).await {
            Err(_) if harmless && Instant::now() < end => tokio::time::sleep(RETRY).await,
            result => return result.map_err(broke_off),
        }
    }
}

/// The refusal for an engine that nobody reaches.
pub(crate) fn away(error: &io::Error) -> Refusal {
    Refusal::new(503, format!("cannot connect to the Docker engine: {error}"))
}

async fn exchange(upstream: &Upstream, stream: UnixStream, request: &[u8]) -> io::Result<Answer> {
    let mut engine = Buffered::new(stream);
    engine.io.write_all(request).await?;
    let to_head = request.starts_with(b"HEAD ");
    let head = response_head(&mut engine, to_head).await?;
    let head_bytes = engine.unread[..head.len].to_vec();
    engine.used(head.len);
    let body =
        body(&mut engine, head.body, None).await.map_err(|error| io::Error::other(error.to_string()))?;
    if head.keep_alive && engine.unread.is_empty() {
        upstream.keep(engine.io);
    }
    let has_body = !to_head && !matches!(head.status, 100..=199 | 204 | 304);
    Ok(Answer { head: head_bytes, status: head.status, body, has_body })
}

/// Reads and drops what a client still sends, for a moment: a close with unread bytes would reset the
/// connection, and the client would not see our answer.
pub(crate) async fn linger(client: &mut UnixStream) {
    let _ = client.shutdown().await;
    let drain = async {
        let mut sink = vec![0; 16 * 1024];
        while matches!(client.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), drain).await;
}
