//! One client's connection from its first byte to its hand-over or end.

use std::sync::Arc;

use selvedge_custody::Incoming;
use selvedge_engine::http::framing::BodyLength;
use selvedge_engine::http::head::{self, Expect, Growing, HeadError, RequestHead};
use selvedge_engine::http::message::{self, Answer, Buffered, Framing, MessageError, Record, SILENCE};
use selvedge_engine::http::relay::{self, After, RelayError};
use selvedge_engine::refusal::Refusal;
use selvedge_engine::route::{self, Endpoint, Route};
use tracing::{Instrument, Span, debug, info};

use super::durable::{self, Begun, Whole};
use super::stream;
use super::{drain, old};
use crate::api::Api;
use crate::exchange::{self, Exchange};
use crate::held::{Note, begin};
use crate::then::{Order, Then};

/// Serves a client until it leaves, its sockets are the keeper's, or it is the next worker's. `listener` names the socket
/// that it came in by.
pub(crate) async fn serve(api: Arc<Api>, mut client: Buffered, listener: Arc<str>) {
    // What an earlier worker has read may follow a request that it saw.
    let mut blank = if client.unread.is_empty() { 0 } else { BLANK };
    let mut leaving = api.leaving();
    loop {
        let waiting = api.silent.wait();
        let next = tokio::select! {
            biased;
            next = next_head(&mut client, blank) => next,
            () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => {
                return give_back(&api, client).await;
            }
            () = waiting.ended() => return,
        };
        drop(waiting);
        let mut head = match next {
            Ok(Some(head)) => head,
            Ok(None) | Err(MessageError::Gone(_)) => return,
            Err(error) => return refuse(&api, client, error).await,
        };
        if let Err(refusal) = old::translate(&api, &mut client, &mut head).await {
            return refuse(&api, client, refusal.into()).await;
        }
        blank = if head.method == "POST" { BLANK } else { 0 };
        let span = span(&mut client, &head);
        span.in_scope(|| {
            debug!(method = head.method, target = head.target, listener = &*listener, "request")
        });
        match one(&api, client, head).instrument(span).await {
            Some(next) => client = next,
            None => return,
        }
    }
}

/// In whose name lines are logged: those about what changes something never lack it, those about a mere question have it where
/// each request is logged.
fn span(client: &mut Buffered, head: &RequestHead) -> Span {
    match client.client().and_then(Incoming::request) {
        Some(id) if matches!(head.method.as_str(), "GET" | "HEAD") => tracing::debug_span!("request", %id),
        Some(id) => tracing::error_span!("request", %id),
        None => Span::none(),
    }
}

/// Gives a client that has asked for nothing to the next worker.
async fn give_back(api: &Api, client: Buffered) {
    let Buffered { unread, record, .. } = client;
    if let Record::Client(incoming) = record {
        api.keeper.give_back(incoming.client(), &unread).await;
        incoming.given();
    }
}

/// Go's server passes over so many bytes of blank lines behind a POST, for the sake of old browsers (net/http).
const BLANK: usize = 4;

/// Reads the next head; `blank` bytes of line ends may come before it.
async fn next_head(client: &mut Buffered, mut blank: usize) -> Result<Option<RequestHead>, MessageError> {
    if client.unread.is_empty() && !client.fill().await? {
        return Ok(None);
    }
    let mut growing = Growing::default();
    let rest = async {
        loop {
            let ends = client.unread.iter().take(blank).take_while(|b| matches!(b, b'\r' | b'\n')).count();
            client.used(ends);
            blank -= ends;
            if matches!(client.unread.first(), Some(b'\r' | b'\n')) {
                return Err(HeadError::Malformed.into());
            }
            if growing.is_worth_parsing(&client.unread)
                && let Some(head) = head::request(&client.unread)?
            {
                return Ok(Some(head));
            }
            if !client.fill().await? {
                return Ok(None);
            }
        }
    };
    tokio::time::timeout(SILENCE, rest)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(408, "the request did not arrive").into()))
}

/// Serves one request; gives the client back when another may follow.
async fn one(api: &Arc<Api>, mut client: Buffered, head: RequestHead) -> Option<Buffered> {
    let route = route_of(api, &head);
    api.counters.request(&route);
    if head.expect == Expect::Other {
        // Go's server looks at this before anything else (net/http, `conn.serve`).
        refuse_expectation(client).await;
        return None;
    }
    drain::before(api, &head).await;
    if route == Route::Stream
        && let Some(note) = Note::of(&mut client, &head)
    {
        return Box::pin(held(api, client, head, note)).await;
    }
    match route {
        Route::Rewritten(endpoint) => Box::pin(rewritten(api, client, (head, endpoint), None)).await,
        Route::Short if is_relayed(&head) => short(api, client, &head).await,
        Route::Short | Route::Stream if head.upgrade => Box::pin(upgrade(api, client, head)).await,
        Route::Short | Route::Stream => {
            let bytes = take_head(&mut client, &head);
            let given = stream::plain(client, &api.keeper, &api.upstream, (&head, &bytes)).await;
            handed(api, given).await
        }
        Route::Http2 => {
            let given = stream::http2(client, &api.keeper, &api.upstream, &head).await;
            handed(api, given).await
        }
        Route::Redirect(path) => redirect(client, &head, &path).await,
        Route::Malformed => {
            refuse(api, client, HeadError::Malformed.into()).await;
            None
        }
    }
}

fn route_of(api: &Api, head: &RequestHead) -> Route {
    let route = route::classify(&head.method, &head.target, api.settings.compat_mesos);
    let of_old = || route::of_old(&head.method, &head.target).filter(|_| api.settings.api_min.is_some());
    match route {
        Route::Short => of_old().map_or(Route::Short, Route::Rewritten),
        other => other,
    }
}

/// The keeper has the client, or it is told why not.
async fn handed(api: &Api, given: Result<(), (Buffered, Refusal)>) -> Option<Buffered> {
    if let Err((client, refusal)) = given {
        refuse(api, client, refusal.into()).await;
    }
    None
}

/// A longer body goes with its client to the keeper.
const SHORT_BODY: u64 = 64 * 1024;

/// A request that can be relayed as it is, of a client that keeps its connection and sends its body unasked.
fn is_relayed(head: &RequestHead) -> bool {
    let BodyLength::Fixed(body) = head.body else { return false };
    head.keep_alive && !head.upgrade && !head.waits_for_continue() && body <= SHORT_BODY
}

async fn short(api: &Api, mut client: Buffered, head: &RequestHead) -> Option<Buffered> {
    let BodyLength::Fixed(body) = head.body else { return None };
    let len = head.len + usize::try_from(body).ok()?;
    if let Err(error) = message::fill_to(&mut client, len).await {
        refuse(api, client, error).await;
        return None;
    }
    let request = match client.unread.len() == len {
        true => std::mem::take(&mut client.unread),
        false => client.unread.drain(..len).collect(),
    };
    if !matches!(head.method.as_str(), "GET" | "HEAD") {
        return ordered(api, client, &request).await;
    }
    match relay::short(&mut client, &api.upstream, head, &request).await {
        Ok(After::Keep) => Some(client),
        Ok(After::Close) | Err(RelayError::Broken(_)) => None,
        Err(RelayError::Engine(error)) => {
            refuse(api, client, message::away(&error).into()).await;
            None
        }
    }
}

/// What changes something is asked once, whatever dies meanwhile.
async fn ordered(api: &Api, mut client: Buffered, request: &[u8]) -> Option<Buffered> {
    let entry = exchange::record(&mut client)?;
    match Exchange::begin(api, &entry, request, &Order::now(Then::Relay)).await {
        Ok(exchange) => relayed(api, client, exchange).await,
        Err(error) => {
            refuse(api, client, error.into()).await;
            None
        }
    }
}

/// The engine's answer goes to the client as it came.
async fn relayed(api: &Api, mut client: Buffered, mut exchange: Exchange) -> Option<Buffered> {
    match exchange.raw(false).await {
        Ok((bytes, keep)) => (client.answer(&bytes, keep).await.is_ok() && keep).then_some(client),
        Err(gone) => {
            refuse(api, client, gone.into()).await;
            None
        }
    }
}

/// Goes on with a request that an earlier worker asked of the engine; `client.unread` begins with it.
pub(super) async fn resume(api: &Arc<Api>, mut client: Buffered, begun: Begun) -> Option<Buffered> {
    let Ok(Some(mut head)) = head::request(&client.unread) else { return None };
    // What was refused was never asked of the engine.
    old::translate(api, &mut client, &mut head).await.ok()?;
    let span = span(&mut client, &head);
    go_on(api, client, head, begun).instrument(span).await
}

async fn go_on(api: &Arc<Api>, mut client: Buffered, head: RequestHead, begun: Begun) -> Option<Buffered> {
    info!(method = head.method, target = head.target, "an earlier worker's request is brought to its end");
    let fixed = |head: &RequestHead| match head.body {
        BodyLength::Fixed(length) => usize::try_from(length).unwrap_or(usize::MAX),
        _ => 0,
    };
    match begun.order.then {
        Then::Relay => {
            client.used(head.len.saturating_add(fixed(&head)));
            relayed(api, client, begun.exchange).await
        }
        Then::Upgrade => {
            client.used(head.len.saturating_add(fixed(&head)));
            after(api, stream::agreed(client, &api.keeper, &head, begun.exchange).await).await
        }
        Then::Attach => {
            let note = Note::of(&mut client, &head)?;
            client.used(head.len);
            after(api, begin::agreed(api, client, &head, (note, begun.exchange)).await).await
        }
        _ => match route_of(api, &head) {
            Route::Rewritten(endpoint) => rewritten(api, client, (head, endpoint), Some(begun)).await,
            _ => None,
        },
    }
}

async fn held(api: &Api, mut client: Buffered, head: RequestHead, note: Note) -> Option<Buffered> {
    take_head(&mut client, &head);
    after(api, begin::begin(api, client, &head, note).await).await
}

/// The client again, when the engine left it an ordinary connection that stays.
async fn after(api: &Api, given: stream::Given) -> Option<Buffered> {
    match given {
        Ok(Some((client, After::Keep))) => Some(client),
        Ok(_) => None,
        Err((client, error)) => {
            refuse(api, client, error).await;
            None
        }
    }
}

async fn upgrade(api: &Api, mut client: Buffered, head: RequestHead) -> Option<Buffered> {
    let bytes = take_head(&mut client, &head);
    after(api, stream::upgrade(api, client, (&head, &bytes)).await).await
}

async fn rewritten(
    api: &Arc<Api>,
    mut client: Buffered,
    (head, endpoint): (RequestHead, Endpoint),
    begun: Option<Begun>,
) -> Option<Buffered> {
    let bytes = take_head(&mut client, &head);
    // A body that the engine does not read is not asked for.
    let is_read = endpoint.reads_body(&bytes);
    let unread = head.waits_for_continue() && client.unread.is_empty() && !is_read;
    let body = match unread {
        true => Ok(Vec::new()),
        false => message::request_body(&mut client, &head, is_read).await,
    };
    let mut keep = head.keep_alive;
    let body = match body {
        Ok(body) => body,
        // A body that the engine does not read is not judged either; but where it ends is unknown.
        Err(MessageError::Refused(_)) if !endpoint.may_read_body() && !endpoint.reads_body(&bytes) => {
            keep = false;
            Vec::new()
        }
        Err(error) => {
            refuse(api, client, error).await;
            return None;
        }
    };
    let entry = exchange::record(&mut client)?;
    let whole = Whole { head, bytes, body, endpoint, entry };
    let answer = durable::perform(api, whole, begun).await;
    answered(client, &answer, keep).await
}

async fn redirect(mut client: Buffered, head: &RequestHead, path: &str) -> Option<Buffered> {
    take_head(&mut client, head);
    let query = route::query_of(&head.target);
    let mark = if query.is_empty() { "" } else { "?" };
    let location = format!("Location: {}{mark}{query}\r\n", route::percent_encode(path));
    // By the engine's router, before its middleware introduces it.
    let answer = Answer::own(301, &location, Framing::Length, Vec::new());
    answered(client, &answer, head.body == BodyLength::Fixed(0) && head.keep_alive).await
}

pub(super) async fn answered(mut client: Buffered, answer: &Answer, keep: bool) -> Option<Buffered> {
    let keep = keep && answer.keep_alive;
    let written = client.answer(&answer.to_bytes(!keep), keep).await;
    if written.is_err() || !keep {
        message::linger(&mut client.io).await;
        return None;
    }
    Some(client)
}

fn take_head(client: &mut Buffered, head: &RequestHead) -> Vec<u8> {
    let bytes = client.unread[..head.len].to_vec();
    client.used(head.len);
    bytes
}

/// Tells a client that its request is not served, and closes: what follows cannot be understood without it.
async fn refuse(api: &Api, client: Buffered, error: MessageError) {
    let identity = api.containers.engine.identity();
    let answer = match &error {
        MessageError::Gone(_) => return,
        MessageError::Head(error) => error.answer(identity),
        MessageError::Refused(refusal) => Answer::refusal(identity, refusal).to_bytes(true),
        MessageError::EngineGone(gone) => Answer::refusal(identity, &gone.clone().into()).to_bytes(true),
    };
    debug!(reason = %error, "refused");
    farewell(client, &answer).await;
}

async fn refuse_expectation(client: Buffered) {
    let answer = Answer::own(417, "", Framing::Length, Vec::new()).to_bytes(true);
    farewell(client, &answer).await;
}

async fn farewell(mut client: Buffered, answer: &[u8]) {
    if client.answer(answer, false).await.is_ok() {
        message::linger(&mut client.io).await;
    }
}
