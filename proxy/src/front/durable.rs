//! Requests that are answered whatever happens: the next worker goes on where this one died, and an engine that breaks off
//! is asked again when it is back.
//!
//! It must never do twice what may be done once: after an engine's end, what has been done is looked for first
//! (`rewrite::Asked`).

use std::sync::Arc;
use std::time::Duration;

use selvedge_custody::Entry;
use selvedge_engine::gone::EngineGone;
use selvedge_engine::http::head::RequestHead;
use selvedge_engine::http::message::{Answer, away};
use selvedge_engine::refusal::Refusal;
use selvedge_engine::route::Endpoint;
use tracing::{Instrument, info};

use crate::api::Api;
use crate::exchange::Exchange;
use crate::rewrite::request::Request;
use crate::rewrite::{self, start};
use crate::then::{Asked, Order};

/// A request, read whole.
#[derive(Debug, Clone)]
pub(super) struct Whole {
    pub(super) head: RequestHead,
    pub(super) bytes: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) endpoint: Endpoint,
    pub(super) entry: Arc<Entry>,
}

/// A request that an earlier worker asked of the engine.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) order: Order,
    pub(super) exchange: Exchange,
}

/// Answers a rewritten request, in a task of its own: a client that goes away in the middle of a start must not leave it half
/// done.
pub(super) async fn perform(api: &Arc<Api>, whole: Whole, begun: Option<Begun>) -> Answer {
    let identity = api.containers.engine.identity().clone();
    let api = Arc::clone(api);
    let work = async move { until_answered(&api, &whole, begun).await };
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request's task ended badly");
        Answer::refusal(&identity, &Refusal::new(500, "internal error"))
    })
}

// An engine that breaks off so often in a row is not one that restarts.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(100);

fn is_kept(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Create | Endpoint::Start(_) | Endpoint::Restart(_))
}

async fn until_answered(api: &Arc<Api>, whole: &Whole, begun: Option<Begun>) -> Answer {
    let first = match &begun {
        Some(begun) => (begun.order.asked, begun.order.started.clone()),
        None => (Asked::now(), start::last_start(api, &whole.endpoint).await),
    };
    let (mut asked, started) = first;
    let mut result = once(api, whole, (asked, started.as_deref()), begun).await;
    for _ in 1..TRIES {
        let gone = match result {
            Ok(answer) => return answer,
            Err(gone) if !is_kept(&whole.endpoint) => return refused(api, gone),
            Err(gone) => gone,
        };
        if let Err(error) = api.upstream.connect().await {
            return Answer::refusal(api.containers.engine.identity(), &away(&error));
        }
        info!(target = whole.head.target, %gone, "the engine broke off; it is asked again");
        asked.again = true;
        tokio::time::sleep(AGAIN).await;
        result = once(api, whole, (asked, started.as_deref()), None).await;
    }
    result.unwrap_or_else(|gone| refused(api, gone))
}

fn refused(api: &Api, gone: EngineGone) -> Answer {
    Answer::refusal(api.containers.engine.identity(), &gone.into())
}

async fn once(
    api: &Arc<Api>,
    whole: &Whole,
    (asked, started): (Asked, Option<&str>),
    begun: Option<Begun>,
) -> Result<Answer, EngineGone> {
    let Whole { head, bytes, body, endpoint, entry } = whole;
    let request = Request { head, bytes, body, endpoint: endpoint.clone(), asked, entry, started };
    match begun {
        Some(Begun { order, mut exchange }) => rewrite::go_on(api, request, order.then, &mut exchange).await,
        None => rewrite::answer(api, request).await,
    }
}
