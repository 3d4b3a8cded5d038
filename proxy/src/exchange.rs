//! A request to the engine that changes something: asked once, whatever dies meanwhile.
//!
//! Its bytes, and what the engine says to them, are on the record of the client's request, and the keeper holds the engine's
//! connection. So the next worker sends what is left to send and reads on. Must never be given up while the engine works.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use selvedge_custody::Entry;
use selvedge_engine::gone::{EngineGone, Unanswered};
use selvedge_engine::http::head::ResponseHead;
use selvedge_engine::http::message::{Answer, Buffered, Record, away, final_head, whole};
use selvedge_engine::http::question::read_answer;
use selvedge_engine::refusal::Refusal;
use tokio::net::UnixStream;
use tracing::debug;

use crate::api::Api;
use crate::handover::Held;
use crate::then::Order;

/// The record of a client's request.
pub(crate) fn record(client: &mut Buffered) -> Option<Arc<Entry>> {
    client.client()?.record().ok()
}

/// The engine's connection with a request on it.
#[derive(Debug)]
pub(crate) struct Exchange {
    engine: Buffered,
    entry: Arc<Entry>,
    /// Nothing when an earlier worker had no need of the connection any more.
    held: Option<Held>,
}

impl Exchange {
    /// Puts a request on record, over a fresh connection: a kept one may be at its end, and the engine not.
    ///
    /// # Errors
    /// The engine cannot be reached, or the request is too large: nothing has been asked.
    pub(crate) async fn begin(
        api: &Api,
        entry: &Arc<Entry>,
        told: &[u8],
        order: &Order,
    ) -> Result<Self, Unanswered> {
        let stream = api.upstream.connect().await.map_err(|error| away(&error))?;
        let held = api.keeper.hold(stream.as_fd()).await;
        let note = serde_json::to_vec(order).map_err(|error| Refusal::new(500, error.to_string()))?;
        let too_large = |_| Refusal::new(413, "the request is larger than 64 MiB");
        entry.ask(held.key, &note, told).map_err(too_large)?;
        debug!(bytes = told.len(), "on record, and asked of the engine");
        Ok(Self::over(stream, entry, Some(held)))
    }

    fn over(stream: UnixStream, entry: &Arc<Entry>, held: Option<Held>) -> Self {
        let record = Record::Engine(Arc::clone(entry));
        Self {
            engine: Buffered { io: stream, unread: entry.heard(), record },
            entry: Arc::clone(entry),
            held,
        }
    }

    /// Resumes an exchange that an earlier worker began. Without a connection only what was already heard can be read.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn resume(entry: &Arc<Entry>, connection: Option<(OwnedFd, Held)>) -> io::Result<Self> {
        let (stream, held) = match connection {
            Some((fd, held)) => (UnixStream::from_std(fd.into())?, Some(held)),
            None => (UnixStream::pair()?.0, None),
        };
        Ok(Self::over(stream, entry, held))
    }

    /// Sends what is left to send.
    async fn tell(&self) -> io::Result<()> {
        self.engine.send(|socket| self.entry.tell(socket)).await
    }

    /// The engine's whole answer.
    ///
    /// # Errors
    /// The engine broke off.
    pub(crate) async fn answer(&mut self, to_head: bool) -> Result<Answer, EngineGone> {
        // An engine that refuses what it has read so far answers, and takes no more.
        let told = self.tell().await;
        let answer = read_answer(&mut self.engine, to_head).await;
        let answer = answer.map_err(|error| EngineGone::new(told.err().unwrap_or(error)))?;
        debug!(status = answer.status, "the engine answered");
        Ok(answer)
    }

    /// The engine's whole answer as it came, and whether another request may follow.
    ///
    /// # Errors
    /// The engine broke off.
    pub(crate) async fn raw(&mut self, to_head: bool) -> Result<(Vec<u8>, bool), EngineGone> {
        let told = self.tell().await;
        let read = whole(&mut self.engine, to_head).await;
        let (head, len) = read.map_err(|error| EngineGone::new(told.err().unwrap_or(error)))?;
        Ok((self.engine.unread.drain(..len).collect(), head.keep_alive))
    }

    /// The head of the engine's final answer; what came before it as it came.
    ///
    /// # Errors
    /// The engine broke off.
    pub(crate) async fn head(&mut self) -> Result<(Vec<u8>, ResponseHead), EngineGone> {
        let told = self.tell().await;
        let read = final_head(&mut self.engine, false).await;
        read.map_err(|error| EngineGone::new(told.err().unwrap_or(error)))
    }

    /// The connection, and what keeps it open until it is the keeper's in another way.
    pub(crate) fn into_parts(self) -> (Buffered, Option<Held>) {
        (self.engine, self.held)
    }
}
