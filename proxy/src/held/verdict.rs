//! What is to be done with a client that came back, and the engine asked again for it. Must never write to the client.

use selvedge_engine::http::head;
use selvedge_engine::http::message::{Buffered, response_head};
use selvedge_keeper::position::Position;
use tokio::io::AsyncWriteExt;

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
    On(Rest),
}

/// The rest of a stream.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) engine: Buffered,
    /// Comes before what is read from the engine, `engine.unread` included.
    pub(super) first: Vec<u8>,
    pub(super) position: Position,
    /// The client's half-close is not passed on.
    pub(super) hold_upstream: bool,
}

/// Asks the engine of now the same with another target, by HTTP/1.0; gives what comes behind its head.
pub(super) async fn ask(api: &Api, note: &Note, target: &str) -> Option<Buffered> {
    let method = if note.kind == Kind::Wait { "POST" } else { "GET" };
    let question =
        head::with_fields(&as_http_1_0(&note.head, (method, target)), &["connection", "upgrade"], "");
    let mut engine = Buffered::new(api.upstream.connect_now().await.ok()?);
    engine.io.write_all(&question).await.ok()?;
    let answer = response_head(&mut engine, false).await.ok()?;
    engine.used(answer.len);
    // By HTTP/1.0 the body ends with the connection, also where the engine knew its length beforehand.
    (answer.status == 200).then_some(engine)
}
