//! A client's request asked of the engine with another body, and the whole answer to it.
//!
//! What may have had an effect must never be asked twice.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::framing::BodyLength;
use super::head;
use super::message::{Answer, Buffered, Framing, away, body, final_head, one_chunk};
use super::pool::{RETRY, Upstream};
use crate::gone::{EngineGone, Unanswered};

/// A request of a client, to be asked of the engine with another body.
#[derive(Debug)]
pub struct Question<'a> {
    /// The client's head; lengths and connection fields in it do not count.
    pub head: &'a [u8],
    /// `POST /v1.41/containers/create?name=x HTTP/1.1`: what the head begins with instead.
    pub line: String,
    /// The body.
    pub body: Sent<'a>,
    /// There is a body where the client sent none.
    pub body_is_ours: bool,
    /// HTTP/1.0, and the client keeps its connection.
    pub keep_1_0: bool,
}

/// A body as the engine gets it.
#[derive(Debug, Clone, Copy)]
pub enum Sent<'a> {
    /// None, and no word of it.
    Nothing,
    /// With its length.
    Whole(&'a [u8]),
    /// As one chunk: to the engine, a body of a length that it does not know is another thing.
    Chunked(&'a [u8]),
    /// This length is promised and never sent: the client waits for a `100 Continue` that does not come.
    Promised(BodyLength),
}

impl Sent<'_> {
    fn fields(self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Whole(body) => format!("Content-Length: {}\r\n", body.len()),
            Self::Promised(BodyLength::Fixed(length)) => {
                format!("Content-Length: {length}\r\nExpect: 100-continue\r\n")
            }
            Self::Promised(_) => "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n".to_owned(),
            Self::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Nothing | Self::Promised(_) => Vec::new(),
            Self::Whole(body) => body.to_vec(),
            Self::Chunked(body) => one_chunk(body),
        }
    }
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
/// The engine broke off, or cannot be reached: then nothing was asked.
pub async fn ask(upstream: &Upstream, question: &Question<'_>) -> Result<Answer, Unanswered> {
    let bytes = question.bytes();
    let broke_off = |error: io::Error| EngineGone::new(error).into();
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

impl Question<'_> {
    /// The request, as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut fields = self.body.fields();
        // A client that sent no body (`docker commit`) said nothing of its kind either. One that sent a body without
        // saying of which kind is the engine's to refuse.
        if self.body_is_ours && !head::has_field(self.head, "content-type") {
            fields.push_str("Content-Type: application/json\r\n");
        }
        if self.keep_1_0 {
            fields.push_str("Connection: keep-alive\r\n");
        }
        let head = head::with_first_line(self.head, &self.line);
        let mut bytes = head::with_fields(&head, HOP, &fields);
        bytes.extend_from_slice(&self.body.bytes());
        bytes
    }
}

async fn exchange(upstream: &Upstream, stream: UnixStream, request: &[u8]) -> io::Result<Answer> {
    let mut engine = Buffered::new(stream);
    let sent = engine.io.write_all(request).await;
    let to_head = request.starts_with(b"HEAD ");
    // An engine that refuses what it has read so far answers, and takes no more.
    let answer = read_answer(&mut engine, to_head).await.map_err(|error| sent.err().unwrap_or(error))?;
    if answer.keep_alive && engine.unread.is_empty() {
        upstream.keep(engine.io);
    }
    Ok(answer)
}

/// Reads an engine's whole answer.
///
/// # Errors
/// The engine is gone, or what it said is no answer.
pub async fn read_answer(engine: &mut Buffered, to_head: bool) -> io::Result<Answer> {
    let (interim, head) = final_head(engine, to_head).await?;
    let head_bytes = engine.unread[..head.len].to_vec();
    engine.used(head.len);
    let body = body(engine, head.body, None).await.map_err(|error| io::Error::other(error.to_string()))?;
    let framing = match head.body {
        _ if to_head || matches!(head.status, 100..=199 | 204 | 304) => Framing::NoBody,
        BodyLength::Fixed(_) => Framing::Length,
        BodyLength::Chunked => Framing::Chunked,
        BodyLength::UntilClose => Framing::Close,
    };
    Ok(Answer { head: head_bytes, status: head.status, interim, body, framing, keep_alive: head.keep_alive })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    /// An engine that says this to each request, and closes.
    fn engine(socket: &Path, says: &'static [u8]) {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.read(&mut [0; 4096]).await;
                let _ = client.write_all(says).await;
            }
        });
    }

    async fn create(socket: &Path) -> Result<Answer, Unanswered> {
        let question = Question {
            head: b"POST /containers/create HTTP/1.1\r\nHost: d\r\n\r\n",
            line: "POST /containers/create HTTP/1.1".to_owned(),
            body: Sent::Whole(b"{}"),
            body_is_ours: false,
            keep_1_0: false,
        };
        ask(&Upstream::new(socket.to_owned(), Duration::ZERO), &question).await
    }

    #[tokio::test]
    async fn a_502_of_the_engine_s_own_is_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        engine(&socket, b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\n\r\nruntime");
        let answer = create(&socket).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (502, &b"runtime"[..]));
    }

    #[tokio::test]
    async fn an_engine_that_breaks_off_is_told_from_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        assert!(matches!(create(&socket).await, Err(Unanswered::Refused(refusal)) if refusal.status == 503));
        engine(&socket, b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{");
        assert!(matches!(create(&socket).await, Err(Unanswered::Gone(_))));
    }
}
