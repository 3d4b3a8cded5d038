//! What is to be done with a client that came back, and the engine asked again for it. Must never write to the client.

use selvedge_engine::http::head::{self, ResponseHead};
use selvedge_engine::http::message::{Buffered, response_head};
use selvedge_keeper::position::Position;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::begin::as_http_1_0;
use super::{Kind, Note};
use crate::api::Api;

/// What is to be done with it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It has got all.
    Over,
    /// This is the last of it.
    Last(Vec<u8>),
    /// It goes on.
    On(Box<Rest>),
}

impl Verdict {
    /// The same, behind bytes that end what broke off, and are no part of the output.
    pub(super) fn behind(self, mut bytes: Vec<u8>) -> Self {
        match self {
            Self::Over => Self::Over,
            Self::Last(rest) => {
                bytes.extend_from_slice(&rest);
                Self::Last(bytes)
            }
            Self::On(mut rest) => {
                rest.position.head += bytes.len() as u64;
                bytes.append(&mut rest.first);
                rest.first = bytes;
                Self::On(rest)
            }
        }
    }
}

/// The rest of a stream.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) engine: Buffered,
    /// Comes before what is read from the engine, `engine.unread` included.
    pub(super) first: Vec<u8>,
    pub(super) position: Position,
    /// The client's half-close is not passed on to the engine.
    pub(super) hold_upstream: bool,
    /// Another connection to the engine, for what the client says.
    pub(super) input: Option<UnixStream>,
    /// It is a piece, behind which more is to be found.
    pub(super) piece: bool,
}

impl Rest {
    /// The rest of an answer, which begins with the engine's next byte.
    pub(super) fn from(engine: Buffered, position: Position) -> Self {
        Self { engine, first: Vec::new(), position, hold_upstream: false, input: None, piece: false }
    }
}

/// Asks the engine of now the same with another target, by HTTP/1.0; gives what comes behind its head if that says 200.
pub(super) async fn ask(api: &Api, note: &Note, target: &str) -> Option<Buffered> {
    let (status, engine) = answer(api, note, target).await?;
    (status == 200).then_some(engine)
}

/// As `ask`, with the answer's status. `None`: the engine is gone again.
pub(super) async fn answer(api: &Api, note: &Note, target: &str) -> Option<(u16, Buffered)> {
    let (answer, mut engine) = with_head(api, note, target).await?;
    engine.used(answer.len);
    // By HTTP/1.0 the body ends with the connection, also where the engine knew its length beforehand.
    Some((answer.status, engine))
}

/// As `answer`, with the head still unread.
pub(super) async fn with_head(api: &Api, note: &Note, target: &str) -> Option<(ResponseHead, Buffered)> {
    let method = if note.kind == Kind::Wait { "POST" } else { "GET" };
    let question =
        head::with_fields(&as_http_1_0(&note.head, (method, target)), &["connection", "upgrade"], "");
    let mut engine = Buffered::new(api.upstream.connect_now().await.ok()?);
    engine.io.write_all(&question).await.ok()?;
    let answer = response_head(&mut engine, false).await.ok()?;
    Some((answer, engine))
}
