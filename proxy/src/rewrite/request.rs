//! A request that is rewritten, and how it is asked of the engine with another body. What was understood is what is asked:
//! it must never pass a target on that both sides could read in two ways.

use std::sync::Arc;

use selvedge_custody::Entry;
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::framing::BodyLength;
use selvedge_engine::http::head::RequestHead;
use selvedge_engine::http::message::Answer;
use selvedge_engine::http::question::{Question, Sent, ask};
use selvedge_engine::route::{self, Endpoint};

use crate::api::Api;
use crate::exchange::Exchange;
use crate::then::{Asked, Order, Then};

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
    /// Its record.
    pub(crate) entry: &'a Arc<Entry>,
    /// When the container that is to start had been started last; of a start or restart alone.
    pub(crate) started: Option<&'a str>,
}

impl Request<'_> {
    /// The query, as written.
    pub(crate) fn query(&self) -> &str {
        route::query_of(&self.head.target)
    }

    /// One parameter: of a form in the body, which comes first for the engine (Go: `Request.ParseForm`), or of the
    /// query.
    pub(crate) fn query_value(&self, key: &str) -> Option<String> {
        let form = std::str::from_utf8(self.body).ok().filter(|_| route::is_form(self.bytes));
        let form = form.and_then(|form| route::query_value(form, key));
        form.or_else(|| route::query_value(self.query(), key))
    }

    /// Asks the engine the same, which changes nothing there.
    pub(crate) async fn ask(&self, api: &Api) -> Result<Answer, Unanswered> {
        ask(&api.upstream, &self.question(b"")).await
    }

    /// Asks the engine the same with another body, once, whatever dies meanwhile. A worker that comes after this one finds in
    /// `then` what is to be done with the answer.
    pub(crate) async fn order(&self, api: &Api, body: &[u8], then: Then) -> Result<Answer, Unanswered> {
        let order = Order { asked: self.asked, started: self.started.map(str::to_owned), then };
        let told = self.question(body).bytes();
        let mut exchange = Exchange::begin(api, self.entry, &told, &order).await?;
        Ok(exchange.answer(false).await?)
    }

    /// The same with another body. The target is built from what we understood, not from the client's bytes: both sides then
    /// mean the same.
    fn question<'q>(&'q self, body: &'q [u8]) -> Question<'q> {
        let decoded = route::decoded_bytes(route::path_of(&self.head.target)).unwrap_or_default();
        let mark = if self.query().is_empty() { "" } else { "?" };
        let line = format!(
            "{} {}{mark}{} HTTP/1.{}",
            self.head.method,
            route::percent_encode(&decoded),
            self.query(),
            u8::from(!self.head.http_1_0)
        );
        Question {
            head: self.bytes,
            line,
            body: self.sent(body),
            body_is_ours: self.body.is_empty() && !body.is_empty(),
            keep_1_0: self.head.http_1_0 && self.head.keep_alive,
        }
    }

    /// The body in the client's own framing: the engine looks at that, too.
    fn sent<'b>(&self, body: &'b [u8]) -> Sent<'b> {
        let waits = self.head.waits_for_continue() && self.body.is_empty();
        match self.head.body {
            length if waits && !self.endpoint.reads_body(self.bytes) => Sent::Promised(length),
            _ if self.head.method == "GET" => Sent::Nothing,
            BodyLength::Chunked => Sent::Chunked(body),
            _ => Sent::Whole(body),
        }
    }
}
