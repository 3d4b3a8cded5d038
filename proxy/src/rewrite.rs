//! The requests that are rewritten: one file per endpoint, each a question to the engine and what is changed
//! on the way there and back. Sockets and framing are `front`'s.

pub(crate) mod changes;
pub(crate) mod commit;
pub(crate) mod create;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod labels;
pub(crate) mod list;
pub(crate) mod start;
pub(crate) mod top;
mod weave;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::docker::error::Refusal;
use crate::front::head::RequestHead;
use crate::front::message::{Answer, Question, ask};
use crate::route::{self, Endpoint};
use crate::worker::Worker;

/// When a request was asked, and whether this is the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Nanoseconds of the Unix epoch: also what tells this request from all others.
    pub(crate) when: u64,
    /// The engine broke off, or an earlier worker died: part of it may have been done.
    pub(crate) again: bool,
}

/// A request that is rewritten.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Parsed.
    pub(crate) head: &'a RequestHead,
    /// As the client wrote it.
    pub(crate) bytes: &'a [u8],
    /// Whole and decoded.
    pub(crate) body: &'a [u8],
    /// Which one.
    pub(crate) endpoint: Endpoint,
    /// When.
    pub(crate) asked: Asked,
}

impl Request<'_> {
    /// The query, as written.
    pub(crate) fn query(&self) -> &str {
        route::query_of(&self.head.target)
    }

    /// One value of the query.
    pub(crate) fn query_value(&self, key: &str) -> Option<String> {
        route::query_value(self.query(), key)
    }

    /// Asks the engine the same with another body. The target is built from what we understood, not from the
    /// client's bytes: both sides then mean the same.
    pub(crate) async fn ask(&self, worker: &Worker, body: &[u8]) -> Result<Answer, Refusal> {
        let decoded = route::percent_decode(route::path_of(&self.head.target)).unwrap_or_default();
        let mark = if self.query().is_empty() { "" } else { "?" };
        let line = format!(
            "{} {}{mark}{} HTTP/1.1",
            self.head.method,
            route::percent_encode(&decoded),
            self.query()
        );
        let body_is_ours = self.body.is_empty() && !body.is_empty();
        ask(&worker.upstream, &Question { head: self.bytes, line, body, body_is_ours }).await
    }
}

/// Answers a request.
pub(crate) async fn answer(worker: &Arc<Worker>, request: Request<'_>) -> Answer {
    let result = match &request.endpoint {
        Endpoint::Create => create::answer(worker, &request).await,
        Endpoint::Start(name) | Endpoint::Restart(name) => start::answer(worker, &request, name).await,
        Endpoint::Inspect(_) => inspect::answer(worker, &request).await,
        Endpoint::List => list::answer(worker, &request).await,
        Endpoint::Changes(name) => changes::answer(worker, &request, name).await,
        Endpoint::Top(name) => top::answer(worker, &request, name).await,
        Endpoint::Commit => commit::answer(worker, &request).await,
        Endpoint::ImageInspect(_) => image::inspect(worker, &request).await,
        Endpoint::Ping => image::ping(worker, &request).await,
    };
    result.unwrap_or_else(|refusal| {
        tracing::info!(endpoint = ?request.endpoint, status = refusal.status, reason = refusal.message, "refused");
        Answer::refusal(&refusal)
    })
}
